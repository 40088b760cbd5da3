/* Progress. The line is drawn by a thread of its own, because what takes long (a C compiler, a pass) does not come back
 * to say so; it is there from the second second on, and erased before anything else is written. */
#include "progress.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_MS = 1000, TICK_MS = 100 };

static struct {
  ProgressMode mode;
  bool colour, running, stopping, drawn, stepping;
  double started, step_started; /* milliseconds */
  char step[80];
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t wake;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static double now_ms(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

ProgressMode progress_mode(bool quiet, bool verbose) {
  const char *term = getenv("TERM");
  if (quiet) return PROGRESS_NONE;
  if (verbose) return PROGRESS_STEPS;
  bool plain = !term || !*term || strcmp(term, "dumb") == 0;
  return !plain && isatty(STDERR_FILENO) ? PROGRESS_LINE : PROGRESS_NONE;
}

/* ---- the line; the lock is held ---- */

static void erase(void) {
  if (state.drawn) fputs("\r\033[K", stderr);
  state.drawn = false;
}

static void draw(void) {
  double ms = now_ms() - state.started;
  if (!state.stepping || ms < (double)FIRST_MS) return;
  fprintf(stderr, "\r\033[K%s%4.0f s  %s%s", state.colour ? "\033[2m" : "", ms / 1000, state.step,
          state.colour ? "\033[0m" : "");
  (void)fflush(stderr);
  state.drawn = true;
}

static void *tick(void *unused) {
  (void)unused;
  (void)pthread_mutex_lock(&state.lock);
  while (!state.stopping) {
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += TICK_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    (void)pthread_cond_timedwait(&state.wake, &state.lock, &until);
    if (!state.stopping) draw();
  }
  (void)pthread_mutex_unlock(&state.lock);
  return NULL;
}

/* Signals are for the thread that works. */
static void start_thread(void) {
  sigset_t all, before;
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  state.stopping = false;
  state.running = pthread_create(&state.thread, NULL, tick, NULL) == 0;
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* ---- steps ---- */

void progress_start(ProgressMode mode) {
  const char *no_color = getenv("NO_COLOR");
  state.mode = mode;
  state.colour = !no_color || !*no_color;
  state.started = now_ms();
  if (mode == PROGRESS_LINE) start_thread();
}

void progress_pause(void) {
  if (state.mode == PROGRESS_NONE) return;
  (void)pthread_mutex_lock(&state.lock);
  erase();
  if (state.stepping && state.mode == PROGRESS_STEPS)
    fprintf(stderr, "moecc: %s: %.1f ms\n", state.step, now_ms() - state.step_started);
  state.stepping = false;
  (void)pthread_mutex_unlock(&state.lock);
}

void progress_step(const char *fmt, ...) {
  if (state.mode == PROGRESS_NONE) return;
  progress_pause();
  va_list ap;
  va_start(ap, fmt);
  (void)pthread_mutex_lock(&state.lock);
  (void)vsnprintf(state.step, sizeof state.step, fmt, ap);
  state.step_started = now_ms();
  state.stepping = true;
  (void)pthread_mutex_unlock(&state.lock);
  va_end(ap);
}

void progress_stop(void) {
  progress_pause();
  if (state.running) {
    (void)pthread_mutex_lock(&state.lock);
    state.stopping = true;
    (void)pthread_cond_signal(&state.wake);
    (void)pthread_mutex_unlock(&state.lock);
    (void)pthread_join(state.thread, NULL);
  }
  state.running = false;
  state.mode = PROGRESS_NONE;
}
