/* POSIX threads: a pool that divides loops statically, and a thread that loads weights ahead.
 *
 * Loops of a network are short and follow one another closely, so a waiting thread first spins for some microseconds
 * and only then sleeps; when threads outnumber processors it sleeps at once. What each thread computes depends on
 * nothing but the number of items, and items never share a result, so results do not depend on the number of threads.
 */
#if !defined(_GNU_SOURCE) && !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#include "moecc_rt.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SPINS = 2000 };

/* A counter that is changed under a mutex and may be watched without. tcc has no atomics: there nothing is watched, and
 * a waiting thread takes the mutex at once. */
#ifdef __TINYC__
enum { CAN_WATCH = 0 };
static unsigned watch(const unsigned *p) { return *p; }
static void publish(unsigned *p, unsigned v) { *p = v; }
static void spin_pause(void) {}
#else
enum { CAN_WATCH = 1 };
static unsigned watch(const unsigned *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static void publish(unsigned *p, unsigned v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static void spin_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
  __asm__ volatile("pause");
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}
#endif

/* A thread with all signals blocked, so that the program's own threads go on handling them. */
static int start_thread(pthread_t *t, void *(*body)(void *), void *arg) {
  sigset_t all, before;
  int failed;
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  failed = pthread_create(t, NULL, body, arg);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  return failed == 0;
}

/* ---- the pool ---------------------------------------------------------------------------------------------------- */

typedef struct Worker {
  struct Pool *pool;
  unsigned number; /* 1 … threads-1; the caller is 0 */
  pthread_t thread;
} Worker;

typedef struct Pool {
  moecc_pool face; /* what the caller gets */
  unsigned spins;
  pthread_mutex_t turn; /* held by the caller for the length of a loop */
  pthread_mutex_t lock; /* guards all below */
  pthread_cond_t work, done;
  unsigned generation; /* goes up with each loop */
  unsigned pending;    /* workers that have not finished this loop */
  int stop;
  moecc_body *body;
  const void *args;
  size_t count;
  Worker worker[MOECC_MAX_THREADS];
} Pool;

/* Share t of the loop: count·t/threads … count·(t+1)/threads, without overflow. */
static void run_share(const Pool *p, moecc_body *body, const void *args, size_t count, unsigned t) {
  size_t n = p->face.threads, each = count / n, rest = count % n;
  size_t begin = each * t + (t < rest ? t : rest), size = each + (t < rest);
  if (size > 0) body(args, begin, begin + size, t);
}

static void spin_while(const unsigned *p, unsigned value, unsigned spins) {
  while (spins-- > 0 && watch(p) == value) spin_pause();
}

static void *work(void *arg) {
  Worker *w = arg;
  Pool *p = w->pool;
  unsigned seen = 0;
  for (;;) {
    moecc_body *body;
    const void *args;
    size_t count;
    spin_while(&p->generation, seen, p->spins);
    (void)pthread_mutex_lock(&p->lock);
    while (p->generation == seen && !p->stop) (void)pthread_cond_wait(&p->work, &p->lock);
    seen = p->generation;
    body = p->body, args = p->args, count = p->count;
    if (p->stop) break;
    (void)pthread_mutex_unlock(&p->lock);
    run_share(p, body, args, count, w->number);
    (void)pthread_mutex_lock(&p->lock);
    publish(&p->pending, p->pending - 1);
    if (p->pending == 0) (void)pthread_cond_signal(&p->done);
    (void)pthread_mutex_unlock(&p->lock);
  }
  (void)pthread_mutex_unlock(&p->lock);
  return NULL;
}

static void wait_for_workers(Pool *p) {
  unsigned left = p->spins;
  while (left-- > 0 && watch(&p->pending) != 0) spin_pause();
  (void)pthread_mutex_lock(&p->lock);
  while (p->pending != 0) (void)pthread_cond_wait(&p->done, &p->lock);
  (void)pthread_mutex_unlock(&p->lock);
}

static void pool_run(void *self, moecc_body *body, const void *args, size_t count) {
  Pool *p = self;
  (void)pthread_mutex_lock(&p->turn);
  (void)pthread_mutex_lock(&p->lock);
  p->body = body, p->args = args, p->count = count;
  publish(&p->pending, p->face.threads - 1);
  publish(&p->generation, p->generation + 1);
  (void)pthread_cond_broadcast(&p->work);
  (void)pthread_mutex_unlock(&p->lock);
  run_share(p, body, args, count, 0);
  wait_for_workers(p);
  (void)pthread_mutex_unlock(&p->turn);
}

size_t moecc_threads_bytes(void) { return sizeof(Pool); }

/* Spinning helps only if every thread has a processor of its own. */
static unsigned spins_for(unsigned threads) {
  long online = sysconf(_SC_NPROCESSORS_ONLN);
  return CAN_WATCH && online >= (long)threads ? SPINS : 0;
}

const moecc_pool *moecc_threads_start(void *memory, unsigned threads) {
  Pool *p = memory;
  unsigned t;
  if (!memory) return NULL;
  if (threads > MOECC_MAX_THREADS) threads = MOECC_MAX_THREADS;
  memset(p, 0, sizeof *p);
  p->face.run = pool_run;
  p->face.self = p;
  p->face.threads = 1;
  p->spins = spins_for(threads);
  if (pthread_mutex_init(&p->turn, NULL) || pthread_mutex_init(&p->lock, NULL) || pthread_cond_init(&p->work, NULL) ||
      pthread_cond_init(&p->done, NULL))
    return &p->face;
  /* Workers look at face.threads only after a first loop has been announced under the lock. */
  for (t = 1; t < threads; t++) {
    p->worker[t].pool = p;
    p->worker[t].number = t;
    if (!start_thread(&p->worker[t].thread, work, &p->worker[t])) break;
    p->face.threads = t + 1;
  }
  return &p->face;
}

void moecc_threads_stop(void *memory) {
  Pool *p = memory;
  unsigned t;
  if (!p || p->face.threads == 0) return;
  (void)pthread_mutex_lock(&p->lock);
  p->stop = 1;
  publish(&p->generation, p->generation + 1); /* ends the spinning */
  (void)pthread_cond_broadcast(&p->work);
  (void)pthread_mutex_unlock(&p->lock);
  for (t = 1; t < p->face.threads; t++) (void)pthread_join(p->worker[t].thread, NULL);
  (void)pthread_cond_destroy(&p->work);
  (void)pthread_cond_destroy(&p->done);
  (void)pthread_mutex_destroy(&p->turn);
  (void)pthread_mutex_destroy(&p->lock);
  memset(p, 0, sizeof *p);
}

/* ---- the loader
 * ------------------------------------------------------------------------------------------------------ */

/* A request; the two are served in the order they came. */
typedef struct Request {
  moecc_piece piece;
  void *dst;
  const void *where;
  moecc_status status;
  enum { FREE, QUEUED, READING, FINISHED, DROPPED } state; /* DROPPED: being read, but nobody wants it any more */
  unsigned number;                                         /* order of arrival */
} Request;

enum { REQUESTS = 3 }; /* two wanted, and one that was dropped while being read */

typedef struct Loader {
  moecc_source face;
  const moecc_source *from;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t work, done;
  int running, stop;
  unsigned arrivals;
  Request request[REQUESTS];
} Loader;

static Request *oldest(Loader *l) {
  Request *found = NULL;
  unsigned i;
  for (i = 0; i < REQUESTS; i++) {
    Request *r = &l->request[i];
    if (r->state == QUEUED && (!found || (int)(r->number - found->number) < 0)) found = r;
  }
  return found;
}

static void serve(Loader *l, Request *r) {
  const void *where = NULL;
  moecc_status s;
  r->state = READING;
  (void)pthread_mutex_unlock(&l->lock);
  s = l->from->begin(l->from->self, &r->piece, r->dst);
  if (s == MOECC_OK) s = l->from->wait(l->from->self, &r->piece, r->dst, 0, &where);
  if (s == MOECC_ERROR_TIMEOUT && l->from->forget) l->from->forget(l->from->self);
  (void)pthread_mutex_lock(&l->lock);
  r->status = s;
  r->where = where;
  r->state = r->state == DROPPED ? FREE : FINISHED;
  (void)pthread_cond_signal(&l->done);
}

static void *load(void *arg) {
  Loader *l = arg;
  (void)pthread_mutex_lock(&l->lock);
  while (!l->stop) {
    Request *r = oldest(l);
    if (r)
      serve(l, r);
    else
      (void)pthread_cond_wait(&l->work, &l->lock);
  }
  (void)pthread_mutex_unlock(&l->lock);
  return NULL;
}

static moecc_status loader_begin(void *self, const moecc_piece *piece, void *dst) {
  Loader *l = self;
  moecc_status s = MOECC_ERROR_STATE;
  unsigned i;
  (void)pthread_mutex_lock(&l->lock);
  for (i = 0; i < REQUESTS && s != MOECC_OK; i++) {
    Request *r = &l->request[i];
    if (r->state != FREE) continue;
    r->piece = *piece;
    r->dst = dst;
    r->number = l->arrivals++;
    r->state = QUEUED;
    s = MOECC_OK;
  }
  (void)pthread_cond_signal(&l->work);
  (void)pthread_mutex_unlock(&l->lock);
  return s;
}

static struct timespec deadline_in(unsigned ms) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  t.tv_sec += (time_t)(ms / 1000);
  t.tv_nsec += (long)(ms % 1000) * 1000000;
  if (t.tv_nsec >= 1000000000) t.tv_nsec -= 1000000000, t.tv_sec++;
  return t;
}

static Request *find_request(Loader *l, const moecc_piece *piece, const void *dst) {
  unsigned i;
  for (i = 0; i < REQUESTS; i++) {
    Request *r = &l->request[i];
    if (r->state != FREE && r->state != DROPPED && r->dst == dst && r->piece.offset == piece->offset &&
        r->piece.bytes == piece->bytes)
      return r;
  }
  return NULL;
}

static moecc_status loader_wait(void *self, const moecc_piece *piece, void *dst, unsigned timeout_ms,
                                const void **where) {
  Loader *l = self;
  Request *r;
  moecc_status s = MOECC_ERROR_STATE;
  struct timespec deadline = deadline_in(timeout_ms);
  int late = 0;
  (void)pthread_mutex_lock(&l->lock);
  r = find_request(l, piece, dst);
  while (r && r->state != FINISHED && !late) {
    if (timeout_ms == 0)
      (void)pthread_cond_wait(&l->done, &l->lock);
    else
      late = pthread_cond_timedwait(&l->done, &l->lock, &deadline) == ETIMEDOUT && r->state != FINISHED;
  }
  if (late)
    s = MOECC_ERROR_TIMEOUT;
  else if (r) {
    s = r->status;
    *where = r->where;
    r->state = FREE;
  }
  (void)pthread_mutex_unlock(&l->lock);
  return s;
}

static void loader_forget(void *self) {
  Loader *l = self;
  unsigned i;
  (void)pthread_mutex_lock(&l->lock);
  for (i = 0; i < REQUESTS; i++) {
    Request *r = &l->request[i];
    if (r->state == READING)
      r->state = DROPPED;
    else if (r->state != DROPPED)
      r->state = FREE;
  }
  (void)pthread_mutex_unlock(&l->lock);
}

size_t moecc_loader_bytes(void) { return sizeof(Loader); }

/* A condition whose timed waits do not jump when the clock is set. */
static int monotonic_condition(pthread_cond_t *c) {
  pthread_condattr_t attr;
  int failed;
  if (pthread_condattr_init(&attr) != 0) return 0;
  failed = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) || pthread_cond_init(c, &attr);
  (void)pthread_condattr_destroy(&attr);
  return !failed;
}

const moecc_source *moecc_loader_start(void *memory, const moecc_source *from) {
  Loader *l = memory;
  if (!memory) return from;
  memset(l, 0, sizeof *l);
  if (!from || from->resident) return from;
  l->from = from;
  l->face.begin = loader_begin;
  l->face.wait = loader_wait;
  l->face.forget = loader_forget;
  l->face.self = l;
  l->face.bytes = from->bytes;
  if (pthread_mutex_init(&l->lock, NULL) || pthread_cond_init(&l->work, NULL) || !monotonic_condition(&l->done))
    return from;
  l->running = start_thread(&l->thread, load, l);
  return l->running ? &l->face : from;
}

void moecc_loader_stop(void *memory) {
  Loader *l = memory;
  if (!l || !l->running) return;
  (void)pthread_mutex_lock(&l->lock);
  l->stop = 1;
  (void)pthread_cond_signal(&l->work);
  (void)pthread_mutex_unlock(&l->lock);
  (void)pthread_join(l->thread, NULL);
  (void)pthread_cond_destroy(&l->work);
  (void)pthread_cond_destroy(&l->done);
  (void)pthread_mutex_destroy(&l->lock);
  l->running = 0;
}
