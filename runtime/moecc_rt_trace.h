/* moecc_rt_trace.h: when each step of a call ran, for builds with -DMOECC_TRACE; without it nothing of this is compiled.
 *
 * Emitted code says where its steps begin (MOECC_STEP, numbered as in report.json and N_trace.c) and how many tokens an
 * expert has (MOECC_EXPERT). A step lasts until the next one begins, or the call ends; loading a slot of weights, and
 * each thread's share of a parallel loop, are recorded as events of their own, within their step. Events go into the
 * caller's memory; when that is full, later ones are counted and dropped. One context at a time is traced.
 */
#ifndef MOECC_RT_TRACE_H
#define MOECC_RT_TRACE_H

#include "moecc_rt.h"

#ifndef MOECC_TRACE

#define MOECC_STEP(number)           ((void)0)
#define MOECC_EXPERT(expert, tokens) ((void)0)

#else

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  MOECC_EVENT_CALL,   /* of a task's function; what: its name, if the caller of the function puts it there */
  MOECC_EVENT_STEP,   /* number: the step */
  MOECC_EVENT_EXPERT, /* number: the step before; index: the expert, count: its tokens; takes no time */
  MOECC_EVENT_LOAD,   /* number: the step that waits for it; what: the moecc_unit, index: the slot */
  MOECC_EVENT_LOOP,   /* a parallel loop of the step, from its caller's view; count: its items */
  MOECC_EVENT_SHARE   /* one thread's share of it; index, count: first item, and number of items */
} moecc_event_kind;

typedef struct moecc_event {
  uint64_t begin, end; /* nanoseconds, of a clock that only goes forward */
  uint32_t kind, number;
  uint32_t index, count;
  const void *what;
} moecc_event;

/* Events in the order in which they ended. */
typedef struct moecc_events {
  moecc_event *event;
  size_t n, most;
  size_t lost; /* for want of room */
  char apart[64];
} moecc_events;

typedef struct moecc_trace {
  moecc_pool pool; /* give this one to init: it records what the other does */
  const moecc_pool *inner;
  moecc_event call, step;                 /* under way */
  moecc_events events[MOECC_MAX_THREADS]; /* by thread; 0 is the caller */
} moecc_trace;

/* A step, as N_trace.c describes it; step number i is steps[i - 1]. */
typedef struct moecc_step {
  const char *kernel, *op, *layer, *node, *shape;
  uint32_t loop;    /* the number of the expert loop it is in; 0: none */
  uint64_t macs;    /* multiply-adds of a call of the network, at most */
  uint64_t bytes;   /* read and written, without weights */
  uint64_t weights; /* bytes of weights each time it runs */
} moecc_step;

/* Starts a trace with room for `most` events for each of the pool's threads (NULL: one), in memory of
 * moecc_trace_bytes(threads, most) aligned to 64 bytes. From now on calls are recorded, until moecc_trace_stop. */
size_t moecc_trace_bytes(unsigned threads, size_t most);
void moecc_trace_start(moecc_trace *t, const moecc_pool *pool, void *memory, size_t most);
void moecc_trace_clear(moecc_trace *t); /* forgets the events */
void moecc_trace_stop(void);
/* Nanoseconds: elapsed time, or, once this has been called with 1, the calling thread's processor time, which a busy
 * machine does not stretch. */
uint64_t moecc_trace_now(void);
void moecc_trace_use_processor_time(int yes);

/* What the marks and the wrapped functions call. */
void moecc_trace_step(uint32_t number);
void moecc_trace_expert(size_t expert, size_t tokens);
moecc_status moecc_trace_call_begin(moecc_context *m, unsigned task);
moecc_status moecc_trace_call_end(moecc_context *m, moecc_status s);
const void *moecc_trace_take(moecc_weights *w, const moecc_unit *unit, const moecc_unit *next, moecc_status *status);
const void *moecc_trace_take_expert(moecc_weights *w, const moecc_unit *unit, size_t index, const moecc_unit *next,
                                    size_t next_index, moecc_status *status);

#ifdef __cplusplus
}
#endif

#define MOECC_STEP(number)           moecc_trace_step(number)
#define MOECC_EXPERT(expert, tokens) moecc_trace_expert(expert, tokens)

#define moecc_call_begin(m, task)                  moecc_trace_call_begin(m, task)
#define moecc_call_end(m, s)                       moecc_trace_call_end(m, s)
#define moecc_take(w, unit, next, s)               moecc_trace_take(w, unit, next, s)
#define moecc_take_expert(w, unit, i, next, to, s) moecc_trace_take_expert(w, unit, i, next, to, s)

#endif
#endif
