/* Signals that end a run. */
#include "interrupt.h"

#include <signal.h>
#include <string.h>

static const int ending[] = {SIGINT, SIGTERM, SIGHUP}, failing[] = {SIGPIPE, SIGXFSZ};
enum { N_ENDING = sizeof ending / sizeof *ending, N_FAILING = sizeof failing / sizeof *failing };

static volatile sig_atomic_t seen;

static void note(int number) { seen = number; }

void interrupt_watch(void) {
  struct sigaction before, action = {.sa_handler = note, .sa_flags = (int)SA_RESETHAND};
  for (int i = 0; i < N_ENDING; i++)
    if (sigaction(ending[i], NULL, &before) == 0 && before.sa_handler == SIG_DFL)
      (void)sigaction(ending[i], &action, NULL);
  for (int i = 0; i < N_FAILING; i++) (void)signal(failing[i], SIG_IGN);
}

void interrupt_unwatch(void) {
  struct sigaction before;
  for (int i = 0; i < N_ENDING; i++)
    if (sigaction(ending[i], NULL, &before) == 0 && before.sa_handler == note) (void)signal(ending[i], SIG_DFL);
  for (int i = 0; i < N_FAILING; i++) (void)signal(failing[i], SIG_DFL);
}

int interrupt_seen(void) { return seen; }

void interrupt_check(Ctx *c) {
  if (seen) ctx_fail_status(c, EXIT_MACHINE, "interrupted (%s)", strsignal((int)seen));
}
