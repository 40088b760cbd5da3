/* moecc_rt_trace.h: when each step of a call ran, for builds with -DMOECC_TRACE; without it nothing of this is compiled.
 *
 * Emitted code says where its steps begin (MOECC_STEP, numbered as in report.json and N_trace.c) and how many tokens an
 * expert has (MOECC_EXPERT, in the first step that it computes for a task). A step lasts until another one begins, or
 * the call ends; taking a slot of weights, and each thread's share of a parallel loop, are recorded as events of their
 * own, within their step. Slots that are read are seen by a source that stands in front of the real one
 * (moecc_trace_source): when each was asked for and there, and for how long the caller stood still. Events go into the
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
  MOECC_EVENT_EXPERT, /* number: its first step; index: the expert, count: its tokens; takes no time */
  MOECC_EVENT_LOAD,   /* a slot's way into memory: see below */
  MOECC_EVENT_LOOP,   /* a parallel loop of the step, from its caller's view; count: its items */
  MOECC_EVENT_SHARE,  /* one thread's share of it; index, count: first item, and number of items */
  MOECC_EVENT_TAKE,   /* the step gets a slot: waiting, checking it, and asking for another */
  MOECC_EVENT_ASK,    /* the source was asked for a slot; takes no time */
  MOECC_EVENT_WAIT    /* the caller stood still until a slot was there: mostly part of a take */
} moecc_event_kind;

/* Of LOAD, TAKE, ASK and WAIT: number is the step under way (0: none), index the slot, bytes what is read for it, unit
 * its number in the pack, and what the moecc_unit, or NULL if it is not known. A LOAD lasts from when the source was
 * asked until the slot was found there; where a thread loads ahead (moecc_trace_reader), it is that thread's reading. It
 * is recorded when it is waited for. */
typedef struct moecc_event {
  uint64_t begin, end; /* nanoseconds, of a clock that only goes forward */
  uint32_t kind, number;
  uint32_t index, count;
  uint32_t unit, buffer; /* 0 or 1: which of the two; MOECC_NO_BUFFER: none of them */
  uint64_t bytes;
  const void *what;
} moecc_event;
enum { MOECC_NO_BUFFER = 2 };

/* Events in the order in which they ended. */
typedef struct moecc_events {
  moecc_event *event;
  size_t n, most;
  size_t lost; /* for want of room */
  char apart[64];
} moecc_events;

/* A source between a thread that loads ahead and the one it reads from: when each buffer's slot was read. */
typedef struct moecc_trace_reader {
  moecc_source face;
  const moecc_source *inner;
  void *buffer[2];
  uint64_t begin[2], end[2];
} moecc_trace_reader;

typedef struct moecc_trace {
  moecc_pool pool; /* give this one to init: it records what the other does */
  const moecc_pool *inner;
  moecc_source source; /* likewise */
  const moecc_source *from;
  moecc_trace_reader *reader;
  const moecc_unit *unit, *next; /* what the take or ask under way may ask for */
  void *buffer[2];
  size_t buffer_bytes;
  uint64_t asked[3];                      /* by buffer */
  moecc_event call, step;                 /* under way */
  moecc_events events[MOECC_MAX_THREADS]; /* by thread; 0 is the caller */
} moecc_trace;

/* A step, as N_trace.c describes it; step number i is steps[i - 1]. */
typedef struct moecc_step {
  const char *kernel, *op, *layer, *node, *shape;
  const char *task;     /* whose it is in a call of all tasks; "": it is for several */
  const char *together; /* the layer's name where tasks go through it side by side; "": none do */
  uint32_t loop;        /* the number of the expert loop it is in; 0: none */
  uint32_t common_loop; /* the same, in a call of all tasks: of tasks with the same experts the first one's */
  uint64_t macs;        /* multiply-adds of a call of the network, at most */
  uint64_t bytes;       /* read and written, without weights */
  uint64_t weights;     /* bytes of weights each time it runs */
} moecc_step;

/* Starts a trace with room for `most` events for each of the pool's threads (NULL: one), in memory of
 * moecc_trace_bytes(threads, most) aligned to 64 bytes. From now on calls are recorded, until moecc_trace_stop. */
size_t moecc_trace_bytes(unsigned threads, size_t most);
void moecc_trace_start(moecc_trace *t, const moecc_pool *pool, void *memory, size_t most);
void moecc_trace_clear(moecc_trace *t); /* forgets the events */
void moecc_trace_stop(void);
/* The source to give to init, so that loads are recorded; `from` itself if it is resident or NULL. reader: the one that
 * `from` reads through, or NULL. */
const moecc_source *moecc_trace_source(moecc_trace *t, const moecc_source *from, moecc_trace_reader *reader);
/* The source to give to moecc_loader_start; may be called before moecc_trace_start. */
const moecc_source *moecc_trace_read_through(moecc_trace_reader *r, const moecc_source *from);
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
void moecc_trace_ask(moecc_weights *w, const moecc_unit *unit);
void moecc_trace_ask_expert(moecc_weights *w, const moecc_unit *unit, size_t index);

#ifdef __cplusplus
}
#endif

#define MOECC_STEP(number)           moecc_trace_step(number)
#define MOECC_EXPERT(expert, tokens) moecc_trace_expert(expert, tokens)

#define moecc_call_begin(m, task)                  moecc_trace_call_begin(m, task)
#define moecc_call_end(m, s)                       moecc_trace_call_end(m, s)
#define moecc_take(w, unit, next, s)               moecc_trace_take(w, unit, next, s)
#define moecc_take_expert(w, unit, i, next, to, s) moecc_trace_take_expert(w, unit, i, next, to, s)
#define moecc_ask(w, unit)                         moecc_trace_ask(w, unit)
#define moecc_ask_expert(w, unit, i)               moecc_trace_ask_expert(w, unit, i)

#endif
#endif
