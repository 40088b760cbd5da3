/* moecc bench: the time of each task's function alone, after one warm-up. */
#include "cli/cli.h"

void command_bench(Options *o) {
  Ctx *c = o->ctx;
  Runnable run = runnable_open(o, o->argument[0]);
  const char *threads = ctx_format(c, "%ld", o->threads);
  /* A single run has no warm-up in the driver: two are timed and the shorter is what counts. */
  const char *runs = ctx_format(c, "%ld", o->runs > 1 ? o->runs : 2);
  const char *arguments[12] = {"--noise", "--threads", threads, "--runs", runs};
  size_t n = 5;
  if (o->json) arguments[n++] = "--json";
  if (!run.graph && o->compile.n_tasks == 1) {
    arguments[n++] = "--task";
    arguments[n++] = o->compile.tasks[0];
  }
  arguments[n] = NULL;
  int status = engine_run(run.engine, arguments, NULL);
  if (status != 0) ctx_fail_status(c, (ExitStatus)status, "the network does not run");
}
