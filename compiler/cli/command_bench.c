/* moecc bench: the time of each task's function alone, after one warm-up. With --task all also of the function that
 * computes all of them. */
#include "cli/runnable.h"

static const char trouble[] = "the network does not run";

/* Each task in a process of its own, so that memory is that of one task. */
void command_bench(Options *o) {
  Runnable run = runnable_open(o, o->argument[0]);
  Arguments a = {.ctx = o->ctx};
  argument_add(&a, "--noise");
  argument_pair(&a, "--threads", ctx_format(o->ctx, "%ld", o->threads));
  argument_pair(&a, "--runs", ctx_format(o->ctx, "%ld", o->runs));
  if (o->json) argument_add(&a, "--json");
  size_t n = o->compile.n_tasks;
  const char *const *task = n ? o->compile.tasks : runnable_tasks(&run, &n);
  for (size_t i = 0; i < n; i++) runnable_run(&run, &a, task[i], trouble);
  if (o->all_tasks && run.has_all) runnable_run(&run, &a, "all", trouble);
}
