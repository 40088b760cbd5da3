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

static moecc_event new_event(moecc_event_kind kind) {
  moecc_event e;
  memset(&e, 0, sizeof e);
  e.kind = kind;
  e.buffer = MOECC_NO_BUFFER;
  return e;
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
  moecc_event e = new_event(MOECC_EVENT_SHARE);
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
  moecc_event e = new_event(MOECC_EVENT_LOOP);
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
  if (!tracing || tracing->step.number == number) return; /* the step under way goes on */
  now = moecc_trace_now();
  end_step(tracing, now);
  tracing->step = new_event(MOECC_EVENT_STEP);
  tracing->step.number = number;
  tracing->step.begin = now;
}

void moecc_trace_expert(size_t expert, size_t tokens) {
  moecc_event e = new_event(MOECC_EVENT_EXPERT);
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
  tracing->call = new_event(MOECC_EVENT_CALL);
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

/* What the sources see from now on is asked for by this. */
static void begin_asking(const moecc_weights *w, const moecc_unit *unit, const moecc_unit *next) {
  tracing->unit = unit;
  tracing->next = next;
  tracing->buffer[0] = w->buffer[0];
  tracing->buffer[1] = w->buffer[1];
  tracing->buffer_bytes = w->buffer_bytes;
}

/* The buffer of the two in which an address is. */
static uint32_t buffer_of(const moecc_trace *t, const void *p) {
  uint32_t b;
  for (b = 0; b < 2; b++)
    if (t->buffer[b] && (uintptr_t)p - (uintptr_t)t->buffer[b] < t->buffer_bytes) return b;
  return MOECC_NO_BUFFER;
}

const void *moecc_trace_take_expert(moecc_weights *w, const moecc_unit *unit, size_t index, const moecc_unit *next,
                                    size_t next_index, moecc_status *status) {
  moecc_event e = new_event(MOECC_EVENT_TAKE);
  const void *where;
  if (!tracing) return (moecc_take_expert)(w, unit, index, next, next_index, status);
  begin_asking(w, unit, next);
  e.number = tracing->step.number;
  e.index = (uint32_t)index;
  e.unit = unit->id;
  e.bytes = MOECC_SLOT_BYTES(unit->bytes);
  e.what = unit;
  e.begin = moecc_trace_now();
  where = (moecc_take_expert)(w, unit, index, next, next_index, status);
  e.end = moecc_trace_now();
  e.buffer = buffer_of(tracing, where);
  record(tracing, 0, &e);
  return where;
}

const void *moecc_trace_take(moecc_weights *w, const moecc_unit *unit, const moecc_unit *next, moecc_status *status) {
  return moecc_trace_take_expert(w, unit, 0, next, 0, status);
}

void moecc_trace_ask_expert(moecc_weights *w, const moecc_unit *unit, size_t index) {
  if (tracing) begin_asking(w, unit, NULL);
  (moecc_ask_expert)(w, unit, index);
}

void moecc_trace_ask(moecc_weights *w, const moecc_unit *unit) { moecc_trace_ask_expert(w, unit, 0); }

/* ---- sources ---- */

/* The unit of a piece, where its number is that of what is being taken or asked for. */
static const moecc_unit *unit_of(const moecc_trace *t, const moecc_piece *piece) {
  if (t->unit && t->unit->id == piece->unit) return t->unit;
  return t->next && t->next->id == piece->unit ? t->next : NULL;
}

static moecc_event piece_event(const moecc_trace *t, moecc_event_kind kind, const moecc_piece *piece, const void *dst) {
  moecc_event e = new_event(kind);
  e.number = t->step.number;
  e.index = piece->index;
  e.unit = piece->unit;
  e.buffer = buffer_of(t, dst);
  e.bytes = piece->bytes;
  e.what = unit_of(t, piece);
  return e;
}

static moecc_status traced_begin(void *self, const moecc_piece *piece, void *dst) {
  moecc_trace *t = self;
  moecc_event e = piece_event(t, MOECC_EVENT_ASK, piece, dst);
  moecc_status s;
  unsigned b;
  e.begin = e.end = moecc_trace_now();
  t->asked[e.buffer] = e.begin;
  for (b = 0; t->reader && b < 2; b++)
    if (t->reader->buffer[b] != t->buffer[b]) t->reader->buffer[b] = t->buffer[b];
  s = t->from->begin(t->from->self, piece, dst);
  if (s == MOECC_OK && piece->unit != MOECC_NO_UNIT) record(t, 0, &e);
  return s;
}

static moecc_status traced_wait(void *self, const moecc_piece *piece, void *dst, unsigned timeout_ms,
                                const void **where) {
  moecc_trace *t = self;
  moecc_event wait = piece_event(t, MOECC_EVENT_WAIT, piece, dst), load;
  moecc_status s;
  wait.begin = moecc_trace_now();
  s = t->from->wait(t->from->self, piece, dst, timeout_ms, where);
  wait.end = moecc_trace_now();
  if (piece->unit == MOECC_NO_UNIT) return s;
  load = wait;
  load.kind = MOECC_EVENT_LOAD;
  load.begin = t->asked[wait.buffer];
  if (t->reader && wait.buffer < 2 && t->reader->begin[wait.buffer] >= load.begin) {
    load.begin = t->reader->begin[wait.buffer];
    load.end = t->reader->end[wait.buffer];
  }
  if (s == MOECC_OK) record(t, 0, &load);
  record(t, 0, &wait);
  return s;
}

static void traced_forget(void *self) {
  const moecc_trace *t = self;
  t->from->forget(t->from->self);
}

/* As `from` looks, with functions of its own. */
static moecc_source in_front_of(const moecc_source *from, void *self) {
  moecc_source s = *from;
  s.forget = NULL;
  s.self = self;
  return s;
}

const moecc_source *moecc_trace_source(moecc_trace *t, const moecc_source *from, moecc_trace_reader *reader) {
  if (!from || from->resident) return from;
  t->from = from;
  t->reader = reader;
  t->source = in_front_of(from, t);
  t->source.begin = traced_begin;
  t->source.wait = traced_wait;
  if (from->forget) t->source.forget = traced_forget;
  return &t->source;
}

/* A thread that loads ahead calls these. It gets a piece from traced_begin and hands it to traced_wait, with the locks
 * of the loader between, and has one piece at a time: so the two threads never touch an entry at once. */
static moecc_status read_begin(void *self, const moecc_piece *piece, void *dst) {
  moecc_trace_reader *r = self;
  unsigned b;
  for (b = 0; b < 2; b++)
    if (dst && dst == r->buffer[b]) r->begin[b] = moecc_trace_now();
  return r->inner->begin(r->inner->self, piece, dst);
}

static moecc_status read_wait(void *self, const moecc_piece *piece, void *dst, unsigned timeout_ms,
                              const void **where) {
  moecc_trace_reader *r = self;
  moecc_status s = r->inner->wait(r->inner->self, piece, dst, timeout_ms, where);
  unsigned b;
  for (b = 0; b < 2; b++)
    if (dst && dst == r->buffer[b]) r->end[b] = moecc_trace_now();
  return s;
}

static void read_forget(void *self) {
  const moecc_trace_reader *r = self;
  r->inner->forget(r->inner->self);
}

const moecc_source *moecc_trace_read_through(moecc_trace_reader *r, const moecc_source *from) {
  memset(r, 0, sizeof *r);
  if (!from || from->resident) return from;
  r->inner = from;
  r->face = in_front_of(from, r);
  r->face.begin = read_begin;
  r->face.wait = read_wait;
  if (from->forget) r->face.forget = read_forget;
  return &r->face;
}

#endif
