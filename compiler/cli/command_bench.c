/* moecc bench: the time of each task's function alone, after one warm-up. With --task all also of the function that
 * computes all of them. With --kernels the drivers are built for tracing, and each step's time is asked for. */
#include "cli/profile.h"
#include "cli/runnable.h"

static const char trouble[] = "the network does not run";

static void bench_kernels(Options *o, const Runnable *run, const Arguments *a, const char *task) {
  Text lines = {.ctx = o->ctx};
  runnable_read(run, a, task, trouble, &lines);
  Profile p = profile_read(o->ctx, run->name, task, lines.text);
  if (o->json)
    profile_json(&p);
  else
    profile_print(&p);
}

/* Each task in a process of its own, so that memory is that of one task. */
void command_bench(Options *o) {
  if (o->cpu_time && o->threads > 1)
    ctx_fail_status(o->ctx, EXIT_USAGE, "--cpu-time wants one thread: several would be added up");
  Runnable run = runnable_open(o, o->argument[0]);
  Arguments a = {.ctx = o->ctx};
  argument_add(&a, "--noise");
  argument_pair(&a, "--threads", ctx_format(o->ctx, "%ld", o->threads));
  argument_pair(&a, "--runs", ctx_format(o->ctx, "%ld", o->runs));
  if (o->json && !o->kernels) argument_add(&a, "--json");
  if (o->kernels) {
    argument_add(&a, "--quiet");
    argument_add(&a, "--steps");
  }
  if (o->cpu_time) argument_add(&a, "--cpu-time");
  argument_weights(&a, o, &run);
  size_t n = o->compile.n_tasks;
  const char *const *task = n ? o->compile.tasks : runnable_tasks(&run, &n);
  bool all = o->all_tasks && run.has_all;
  for (size_t i = 0; i < n + all; i++) {
    const char *name = i < n ? task[i] : "all";
    if (o->kernels && i && !o->json) printf("\n");
    if (o->kernels)
      bench_kernels(o, &run, &a, name);
    else
      runnable_run(&run, &a, name, trouble);
  }
}
