/* A thread that stands in for a DMA engine: it copies in bursts, at some pace, and calls the interrupt at the end. */
#define _GNU_SOURCE
#include "engine.h"

#include <errno.h>
#include <string.h>
#include <time.h>

enum { BURST = 16384, BURST_NS = 20000 };

static void pace(long ns) {
  const struct timespec t = {0, ns};
  (void)nanosleep(&t, NULL);
}

/* One transfer, begun with interrupts off, as it ends. Between bursts it can be aborted. */
static void transfer(Engine *e) {
  size_t done = 0;
  e->transfers++;
  e->failed = e->from > e->flash_bytes || e->length > e->flash_bytes - e->from;
  while (!e->abort && (e->transfers == e->breaks_at || (!e->failed && done < e->length))) {
    size_t n = e->length - done < BURST ? e->length - done : BURST;
    pthread_mutex_unlock(&e->lock);
    if (n) memcpy((char *)e->to + done, e->flash + e->from + done, n);
    pace(BURST_NS);
    pthread_mutex_lock(&e->lock);
    done += n;
  }
  e->status = ENGINE_IDLE;
  if (!e->abort) e->interrupt(e->self);
  pthread_cond_broadcast(&e->changed);
}

static void *run(void *arg) {
  Engine *e = arg;
  pthread_mutex_lock(&e->lock);
  while (!e->off) {
    if (e->status == ENGINE_BUSY)
      transfer(e);
    else
      pthread_cond_wait(&e->changed, &e->lock);
  }
  pthread_mutex_unlock(&e->lock);
  return NULL;
}

int engine_power_on(Engine *e, const void *flash, size_t bytes, void (*interrupt)(void *self), void *self) {
  pthread_condattr_t attr;
  memset(e, 0, sizeof *e);
  e->flash = flash;
  e->flash_bytes = bytes;
  e->interrupt = interrupt;
  e->self = self;
  pthread_mutex_init(&e->lock, NULL);
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&e->changed, &attr);
  pthread_condattr_destroy(&attr);
  return pthread_create(&e->thread, NULL, run, e) == 0;
}

void engine_power_off(Engine *e) {
  engine_interrupts_off(e);
  engine_abort(e);
  e->off = 1;
  pthread_cond_broadcast(&e->changed);
  engine_interrupts_on(e);
  pthread_join(e->thread, NULL);
  pthread_cond_destroy(&e->changed);
  pthread_mutex_destroy(&e->lock);
}

void engine_interrupts_off(Engine *e) { pthread_mutex_lock(&e->lock); }
void engine_interrupts_on(Engine *e) { pthread_mutex_unlock(&e->lock); }

void engine_start(Engine *e, uint64_t from, void *to, size_t length) {
  e->from = from;
  e->to = to;
  e->length = length;
  e->status = ENGINE_BUSY;
  pthread_cond_broadcast(&e->changed);
}

void engine_abort(Engine *e) {
  e->abort = 1;
  while (e->status == ENGINE_BUSY) pthread_cond_wait(&e->changed, &e->lock);
  e->abort = 0;
}

int engine_sleep(Engine *e, unsigned ms) {
  struct timespec t;
  if (ms == 0) return pthread_cond_wait(&e->changed, &e->lock) == 0;
  clock_gettime(CLOCK_MONOTONIC, &t);
  t.tv_sec += (time_t)(ms / 1000);
  t.tv_nsec += (long)(ms % 1000) * 1000000;
  if (t.tv_nsec >= 1000000000) t.tv_nsec -= 1000000000, t.tv_sec++;
  return pthread_cond_timedwait(&e->changed, &e->lock, &t) != ETIMEDOUT;
}
