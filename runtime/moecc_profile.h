/* moecc_profile.h: what a trace says, for the emitted driver: times by step, and files for trace viewers.
 *
 * Used by builds with -DMOECC_TRACE only. In the others the functions do nothing, so that the driver reads the same.
 */
#ifndef MOECC_PROFILE_H
#define MOECC_PROFILE_H

#include <stdio.h>

#include "moecc_rt_trace.h"

#ifdef MOECC_TRACE

/* Of one step, over all runs: how often it ran, and nanoseconds of loads, of parallel loops as their caller sees them,
 * and of all threads' shares of these. */
typedef struct moecc_step_sum {
  uint64_t calls, load, loop, share;
} moecc_step_sum;

typedef struct moecc_profile {
  moecc_trace trace;
  const moecc_step *steps;
  size_t n_steps, runs, done; /* runs: most that are summed up; done: so far */
  int keep;                   /* events of earlier runs are kept, for a file */
  void *memory;
  moecc_step_sum *sum; /* by step */
  double *ns, *call;   /* by run: of each step without its loads; of the call */
  double *peak;        /* by run: multiply-adds of one core, GFLOP/s */
} moecc_profile;

/* Traces loops of `pool` (NULL: one thread); give the result to init. keep: for moecc_profile_write. NULL: no memory.
 */
const moecc_pool *moecc_profile_start(moecc_profile *p, const moecc_step *steps, size_t n, const moecc_pool *pool,
                                      size_t runs, int keep);
void moecc_profile_stop(moecc_profile *p);
/* Before and after the runs of a task, and after each call of its function; number < 0: a warm-up. */
void moecc_profile_task(moecc_profile *p);
void moecc_profile_call(moecc_profile *p, const char *task, long number);
/* Lines for programs, fields with tabs between: "profile", threads, runs, lost events; "call", median ns; "peak", median
 * and best GFLOP/s; for each step that ran "step", number, loop, calls, median ns, then ns of loads, loops and shares,
 * multiply-adds, bytes, bytes of weights, kernel, operator, layer, node, shape; all of one call. */
void moecc_profile_print(const moecc_profile *p, FILE *f);
/* All that was recorded as JSON, in the trace-event format that Perfetto and Chrome read; 0: the file cannot be
 * written. */
int moecc_profile_write(const moecc_profile *p, const char *path);

#endif
#endif
