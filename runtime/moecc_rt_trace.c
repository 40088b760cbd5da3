/* Recording when each step of a call ran: see moecc_rt_trace.h. The global variables, the trace under way and its
 * clock, exist in builds for tracing only. */
#if !defined(_GNU_SOURCE) && !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#include "moecc_rt_trace.h"

#ifdef MOECC_TRACE

#include <string.h>
#include <time.h>

static moecc_trace *tracing;
static int processor_time;

void moecc_trace_use_processor_time(int yes) { processor_time = yes; }

uint64_t moecc_trace_now(void) {
  struct timespec t;
  (void)clock_gettime(processor_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void record(moecc_trace *t, unsigned thread, const moecc_event *e) {
  moecc_events *list = &t->events[thread];
  if (list->n == list->most) {
    list->lost++;
    return;
  }
  list->event[list->n++] = *e;
}

/* ---- parallel loops ---- */

typedef struct Loop {
  moecc_trace *trace;
  moecc_body *body;
  const void *args;
  uint32_t number;
} Loop;

static void traced_share(const void *args, size_t begin, size_t end, unsigned thread) {
  const Loop *l = args;
  moecc_event e = {0, 0, MOECC_EVENT_SHARE, 0, 0, 0, NULL};
  e.number = l->number;
  e.index = (uint32_t)begin;
  e.count = (uint32_t)(end - begin);
  e.begin = moecc_trace_now();
  l->body(l->args, begin, end, thread);
  e.end = moecc_trace_now();
  record(l->trace, thread, &e);
}

static void traced_run(void *self, moecc_body *body, const void *args, size_t count) {
  moecc_trace *t = self;
  Loop loop;
  moecc_event e = {0, 0, MOECC_EVENT_LOOP, 0, 0, 0, NULL};
  loop.trace = t;
  loop.body = body;
  loop.args = args;
  loop.number = e.number = t->step.number;
  e.count = (uint32_t)count;
  e.begin = moecc_trace_now();
  t->inner->run(t->inner->self, traced_share, &loop, count);
  e.end = moecc_trace_now();
  record(t, 0, &e);
}

/* ---- the trace ---- */

size_t moecc_trace_bytes(unsigned threads, size_t most) { return threads * most * sizeof(moecc_event); }

void moecc_trace_start(moecc_trace *t, const moecc_pool *pool, void *memory, size_t most) {
  unsigned i;
  memset(t, 0, sizeof *t);
  t->inner = pool;
  t->pool.threads = pool ? pool->threads : 1;
  t->pool.run = traced_run;
  t->pool.self = t;
  for (i = 0; i < t->pool.threads; i++) {
    t->events[i].event = (moecc_event *)memory + i * most;
    t->events[i].most = most;
  }
  tracing = t;
}

void moecc_trace_clear(moecc_trace *t) {
  unsigned i;
  for (i = 0; i < t->pool.threads; i++) t->events[i].n = t->events[i].lost = 0;
}

void moecc_trace_stop(void) { tracing = NULL; }

/* ---- marks ---- */

static void end_step(moecc_trace *t, uint64_t now) {
  if (!t->step.number) return;
  t->step.end = now;
  record(t, 0, &t->step);
  t->step.number = 0;
}

void moecc_trace_step(uint32_t number) {
  uint64_t now;
  if (!tracing) return;
  now = moecc_trace_now();
  end_step(tracing, now);
  tracing->step.kind = MOECC_EVENT_STEP;
  tracing->step.number = number;
  tracing->step.begin = now;
}

void moecc_trace_expert(size_t expert, size_t tokens) {
  moecc_event e = {0, 0, MOECC_EVENT_EXPERT, 0, 0, 0, NULL};
  if (!tracing) return;
  e.number = tracing->step.number;
  e.index = (uint32_t)expert;
  e.count = (uint32_t)tokens;
  e.begin = e.end = moecc_trace_now();
  record(tracing, 0, &e);
}

/* ---- functions of the core, wrapped; in parentheses their names are no macros ---- */

moecc_status moecc_trace_call_begin(moecc_context *m, unsigned task) {
  moecc_status s = (moecc_call_begin)(m, task);
  if (!tracing || s != MOECC_OK) return s;
  memset(&tracing->call, 0, sizeof tracing->call);
  tracing->call.kind = MOECC_EVENT_CALL;
  tracing->call.begin = moecc_trace_now();
  return s;
}

moecc_status moecc_trace_call_end(moecc_context *m, moecc_status s) {
  if (tracing) {
    tracing->call.end = moecc_trace_now();
    end_step(tracing, tracing->call.end);
    record(tracing, 0, &tracing->call);
  }
  return (moecc_call_end)(m, s);
}

const void *moecc_trace_take_expert(moecc_weights *w, const moecc_unit *unit, size_t index, const moecc_unit *next,
                                    size_t next_index, moecc_status *status) {
  moecc_event e = {0, 0, MOECC_EVENT_LOAD, 0, 0, 0, NULL};
  const void *where;
  if (!tracing) return (moecc_take_expert)(w, unit, index, next, next_index, status);
  e.number = tracing->step.number;
  e.index = (uint32_t)index;
  e.what = unit;
  e.begin = moecc_trace_now();
  where = (moecc_take_expert)(w, unit, index, next, next_index, status);
  e.end = moecc_trace_now();
  record(tracing, 0, &e);
  return where;
}

const void *moecc_trace_take(moecc_weights *w, const moecc_unit *unit, const moecc_unit *next, moecc_status *status) {
  return moecc_trace_take_expert(w, unit, 0, next, 0, status);
}

#endif
