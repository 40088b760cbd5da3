/* Where a network's time goes: what a traced driver's --steps says, as tables and JSON. */
#ifndef MOECC_CLI_PROFILE_H
#define MOECC_CLI_PROFILE_H

#include "compiler.h"

/* One step of one call: nanoseconds are medians over the runs, or means for loads and loops. */
typedef struct {
  int number, loop;
  double calls, ns; /* ns: without loads */
  double load;      /* ns of waiting for weights */
  double parallel;  /* ns in parallel loops, as their caller sees them */
  double shares;    /* ns of all threads' shares of these loops together */
  double macs, bytes, weights;
  const char *kernel, *op, *layer, *node, *shape;
} StepTime;

typedef struct {
  Ctx *ctx;
  const char *model, *task;
  int threads, runs;
  double lost;       /* events that found no room */
  double call;       /* ns */
  double peak, best; /* GFLOP/s of one core in multiply-adds, in the same minutes: the median, and the best */
  StepTime *step;
  size_t n_steps, cap_steps;
} Profile;

/* Reads the lines of moecc_profile_print (runtime/moecc_profile.h says what they hold). Fails on others. */
Profile profile_read(Ctx *c, const char *model, const char *task, char *text);
/* A table by kernel and shape, one by operator, and what the sum leaves out. */
void profile_print(const Profile *p);
void profile_json(const Profile *p); /* one object on a line */

#endif
