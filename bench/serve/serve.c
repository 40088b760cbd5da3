/* Answers one line on stdin with one on stdout, so that a program that is measured stays alive between its turns:
 *
 *   load            -> ok MS
 *   run N [WHAT]    -> ok MS MS ...   the time of each of N calls
 *   outputs FOLDER  -> ok
 *   memory          -> ok BYTES       the most that was resident
 *
 * or with "error TEXT". worker.py speaks the same for runtimes that are called from Python. */
#define _GNU_SOURCE
#include "serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now_ms(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static const char *answer_load(int count, char **arguments) {
  double start = now_ms();
  const char *wrong = serve_load(count, arguments);
  if (!wrong) printf("ok %.4f\n", now_ms() - start);
  return wrong;
}

/* Nothing is printed between calls. */
static const char *answer_run(const char *line) {
  char what[256] = "";
  const char *wrong = NULL;
  double *ms;
  int n = 0;
  if (sscanf(line, "%d %255s", &n, what) < 1 || n < 1 || n > 1000000) return "run wants a number of calls";
  ms = malloc((size_t)n * sizeof *ms);
  if (!ms) return "no memory for the times";
  for (int i = 0; i < n && !wrong; i++) {
    double start = now_ms();
    wrong = serve_run(what);
    ms[i] = now_ms() - start;
  }
  if (!wrong) {
    printf("ok");
    for (int i = 0; i < n; i++) printf(" %.4f", ms[i]);
    printf("\n");
  }
  free(ms);
  return wrong;
}

static const char *answer_outputs(const char *folder) {
  const char *wrong = serve_outputs(folder);
  if (!wrong) printf("ok\n");
  return wrong;
}

static const char *answer_memory(void) {
  char line[256];
  long long kilobytes = -1;
  FILE *f = fopen("/proc/self/status", "r");
  while (f && kilobytes < 0 && fgets(line, sizeof line, f))
    if (!strncmp(line, "VmHWM:", 6)) kilobytes = strtoll(line + 6, NULL, 10);
  if (f) (void)fclose(f);
  if (kilobytes < 0) return "/proc/self/status has no VmHWM";
  printf("ok %lld\n", kilobytes * 1024);
  return NULL;
}

int main(int count, char **arguments) {
  char line[4096];
  while (fgets(line, sizeof line, stdin)) {
    const char *wrong;
    line[strcspn(line, "\n")] = 0;
    if (!strcmp(line, "load"))
      wrong = answer_load(count, arguments);
    else if (!strncmp(line, "run ", 4))
      wrong = answer_run(line + 4);
    else if (!strncmp(line, "outputs ", 8))
      wrong = answer_outputs(line + 8);
    else if (!strcmp(line, "memory"))
      wrong = answer_memory();
    else
      wrong = "load, run N [WHAT], outputs FOLDER or memory";
    if (wrong) printf("error %s\n", wrong);
    (void)fflush(stdout);
  }
  return 0;
}
