/* A source over a DMA engine that does one transfer at a time.
 *
 * begin starts the transfer, or queues it behind the one that is running; the interrupt at the end of one starts the
 * next, so that the engine is busy while the network computes. wait sleeps until the interrupt has come. What the
 * interrupt shares with the rest is touched with interrupts off.
 *
 * The buffers are aligned to 4096 bytes and the lengths are multiples of 8, which suits most engines. With a data cache,
 * invalidate the buffer's lines before engine_start and again before wait returns.
 */
#include "dma_source.h"

#include <string.h>

/* Interrupts are off in what follows, up to begin. */
static Transfer *oldest(DmaSource *s, TransferState state) {
  Transfer *a = &s->transfer[0], *b = &s->transfer[1];
  if (a->state != state) return b->state == state ? b : NULL;
  return b->state == state && (int)(b->number - a->number) < 0 ? b : a;
}

static void start_next(DmaSource *s) {
  Transfer *t = oldest(s, QUEUED);
  if (!t || oldest(s, RUNNING)) return;
  t->state = RUNNING;
  engine_start(s->engine, t->piece.offset, t->to, t->piece.bytes);
}

void dma_source_interrupt(void *self) {
  DmaSource *s = self;
  Transfer *t = oldest(s, RUNNING);
  if (t) t->state = s->engine->failed ? FAILED : DONE;
  start_next(s);
}

static Transfer *find(DmaSource *s, const moecc_piece *piece, const void *to) {
  for (Transfer *t = s->transfer; t < s->transfer + 2; t++)
    if (t->state != FREE && t->to == to && t->piece.offset == piece->offset) return t;
  return NULL;
}

static moecc_status begin(void *self, const moecc_piece *piece, void *to) {
  DmaSource *s = self;
  engine_interrupts_off(s->engine);
  Transfer *t = oldest(s, FREE);
  if (t) {
    *t = (Transfer){*piece, to, QUEUED, s->arrivals++};
    start_next(s);
  }
  engine_interrupts_on(s->engine);
  return t ? MOECC_OK : MOECC_ERROR_STATE;
}

static moecc_status wait(void *self, const moecc_piece *piece, void *to, unsigned timeout_ms, const void **where) {
  DmaSource *s = self;
  moecc_status status = MOECC_ERROR_STATE;
  engine_interrupts_off(s->engine);
  Transfer *t = find(s, piece, to);
  int in_time = 1;
  while (t && (t->state == QUEUED || t->state == RUNNING) && in_time) in_time = engine_sleep(s->engine, timeout_ms);
  if (t && t->state == DONE)
    status = MOECC_OK;
  else if (t && t->state == FAILED)
    status = MOECC_ERROR_IO;
  else if (t)
    status = MOECC_ERROR_TIMEOUT;
  if (t && status != MOECC_ERROR_TIMEOUT) t->state = FREE;
  *where = to;
  engine_interrupts_on(s->engine);
  return status;
}

/* After a timeout: the engine is stopped, so that nothing writes into a buffer that is used for something else. */
static void forget(void *self) {
  DmaSource *s = self;
  engine_interrupts_off(s->engine);
  engine_abort(s->engine);
  s->transfer[0].state = s->transfer[1].state = FREE;
  engine_interrupts_on(s->engine);
}

void dma_source_open(DmaSource *s, Engine *engine, uint64_t pack_bytes) {
  memset(s, 0, sizeof *s);
  s->source = (moecc_source){.begin = begin, .wait = wait, .forget = forget, .self = s, .bytes = pack_bytes};
  s->engine = engine;
}
