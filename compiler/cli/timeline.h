/* A trace as a page: what ran when, which weights came when through which buffer, and where the caller stood still. */
#ifndef MOECC_CLI_TIMELINE_H
#define MOECC_CLI_TIMELINE_H

#include "io/json.h"

/* A span of the trace, in microseconds from its beginning. */
typedef struct {
  const char *name;
  const char *kind; /* call, layer, experts, expert, task, load, take, stall, share; else a kernel's operator */
  double begin, end;
  double busy; /* from when on: a kernel that takes weights begins with that */
  int process, thread;
  const Json *args;
} TraceSpan;

enum { TRACE_NETWORK = 1, TRACE_WEIGHTS = 2, TRACE_PLACES = 3 }; /* places: two buffers, and what stays in memory */

typedef struct {
  Ctx *ctx;
  TraceSpan *span; /* by begin, those around before those within */
  size_t n, cap;
  double end, lost;
} Trace;

/* What a layer, or a call, did with weights. */
typedef struct {
  const TraceSpan *span;
  double loads, bytes, load_time, stall_time; /* of slots that it was the first to take */
  const TraceSpan **loop;                     /* its expert loops */
  size_t loops, cap_loops;
} TraceSum;

/* Reads what `run --trace` wrote; leaves if it is something else. */
Trace trace_read(Ctx *c, const char *path);
/* All layers and calls, in their order. */
TraceSum *trace_sums(const Trace *t, size_t *n);
/* The whole page. */
const char *timeline_page(const Trace *t, const char *title);

#endif
