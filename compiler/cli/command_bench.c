/* moecc bench: the time of each task's function alone, after one warm-up. With --task all also of the function that
 * computes all of them. */
#include "cli/runnable.h"

void command_bench(Options *o) {
  Runnable run = runnable_open(o, o->argument[0]);
  Arguments a = {.ctx = o->ctx};
  argument_add(&a, "--noise");
  argument_pair(&a, "--threads", ctx_format(o->ctx, "%ld", o->threads));
  argument_pair(&a, "--runs", ctx_format(o->ctx, "%ld", o->runs));
  if (o->json) argument_add(&a, "--json");
  runnable_run(&run, o, &a, "the network does not run");
}
