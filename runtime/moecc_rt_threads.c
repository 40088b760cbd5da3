/* POSIX threads: a pool that divides loops statically, and a thread that loads weights ahead.
 *
 * Loops of a network are short and follow one another closely, so a waiting thread first spins for some microseconds
 * and only then sleeps; when threads outnumber processors it sleeps at once. What each thread computes depends on
 * nothing but the number of items, and items never share a result, so results do not depend on the number of threads.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* for sched_getaffinity */
#elif !defined(_GNU_SOURCE) && !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#include "moecc_rt.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Counters that threads watch without holding a lock; all accesses to them are in one order that every thread sees. tcc
 * has no atomics: there a lock around each access does the same, slowly, and nothing spins. */
#ifdef __TINYC__
enum { LONGEST_SPIN = 0 };
static pthread_mutex_t counter_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned counter_add(unsigned *p, unsigned n) {
  unsigned v;
  (void)pthread_mutex_lock(&counter_lock);
  v = *p += n;
  (void)pthread_mutex_unlock(&counter_lock);
  return v;
}
static unsigned counter_get(unsigned *p) { return counter_add(p, 0); }
static void spin_pause(void) {}
#else
enum { LONGEST_SPIN = 30000 }; /* nanoseconds: some times what sleeping and being woken takes */
static unsigned counter_add(unsigned *p, unsigned n) { return __atomic_add_fetch(p, n, __ATOMIC_SEQ_CST); }
static unsigned counter_get(unsigned *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static void spin_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
  __asm__ volatile("pause");
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}
#endif

static uint64_t now_ns(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

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

/* How long a thread spins before it sleeps, as it has turned out to be worth. */
typedef struct Patience {
  unsigned ns, waits;
} Patience;

/* A loop begins when `generation` goes up and is done when `pending` is 0. Whoever waits for that spins first, and
 * before it sleeps says so in a counter (`asleep`, `waiting`) and looks once more, holding the lock; whoever makes it
 * true looks at that counter afterwards, and wakes under the lock. So no wake-up is lost, and without sleepers no lock
 * is taken. What one side writes while the other watches stands in cache lines of its own. */
typedef struct Pool {
  moecc_pool face;      /* what the caller gets */
  unsigned longest;     /* nanoseconds that a thread spins at most before it sleeps */
  Patience patience;    /* the caller's */
  pthread_mutex_t turn; /* held by the caller for the length of a loop */
  pthread_mutex_t lock; /* of the sleepers */
  pthread_cond_t work, done;
  unsigned asleep;  /* workers that sleep */
  unsigned waiting; /* 1: the caller sleeps */
  char apart[64];
  unsigned generation; /* goes up with each loop, and at the end; workers watch it */
  int stop;            /* this and the loop: written before generation goes up, read after */
  moecc_body *body;
  const void *args;
  size_t count;
  char apart_too[64];
  unsigned pending; /* workers that have not finished this loop; the caller watches it */
  char apart_as_well[64];
  Worker worker[MOECC_MAX_THREADS];
} Pool;

/* Share t of the loop: count·t/threads … count·(t+1)/threads, without overflow. */
static void run_share(const Pool *p, moecc_body *body, const void *args, size_t count, unsigned t) {
  size_t n = p->face.threads, each = count / n, rest = count % n;
  size_t begin = each * t + (t < rest ? t : rest), size = each + (t < rest);
  if (size > 0) body(args, begin, begin + size, t);
}

enum { LOOKS = 64, PROBE = 16 }; /* looks at a counter between two at the clock; one in so many waits is a probe */

static int looks(unsigned *counter, unsigned value, int as_wanted) {
  unsigned look;
  for (look = 0; look < LOOKS; look++) {
    if ((counter_get(counter) == value) == as_wanted) return 1;
    spin_pause();
  }
  return 0;
}

static int spin(unsigned *counter, unsigned value, int as_wanted, unsigned ns) {
  uint64_t start;
  if (looks(counter, value, as_wanted)) return 1; /* mostly so, and then the clock would be too slow */
  start = now_ns();
  while (now_ns() - start < ns)
    if (looks(counter, value, as_wanted)) return 1;
  return 0;
}

/* Waits until whether the counter has the value is `as_wanted`: spins, then sleeps until woken, being counted in
 * `sleepers`. Where processors are shared with others, the thread waited for may not be running at all, and only
 * sleeping lets it: then spins become short, but for one of many that finds out whether things have changed. */
static void wait_for(Pool *p, unsigned *counter, unsigned value, int as_wanted, Patience *patience, unsigned *sleepers,
                     pthread_cond_t *woken) {
  const unsigned longest = p->longest, probe = ++patience->waits % PROBE == 0;
  if (longest > 0 && spin(counter, value, as_wanted, probe ? longest : patience->ns)) {
    patience->ns = probe || patience->ns > longest / 2 ? longest : patience->ns * 2;
    return;
  }
  patience->ns = patience->ns / 4 > longest / 64 ? patience->ns / 4 : longest / 64;
  (void)pthread_mutex_lock(&p->lock);
  (void)counter_add(sleepers, 1);
  while ((counter_get(counter) == value) != as_wanted) (void)pthread_cond_wait(woken, &p->lock);
  (void)counter_add(sleepers, 0u - 1u);
  (void)pthread_mutex_unlock(&p->lock);
}

/* Wakes whoever says in `sleepers` that it sleeps. */
static void wake(Pool *p, unsigned *sleepers, pthread_cond_t *condition) {
  if (counter_get(sleepers) == 0) return;
  (void)pthread_mutex_lock(&p->lock);
  (void)pthread_cond_broadcast(condition);
  (void)pthread_mutex_unlock(&p->lock);
}

static void *work(void *arg) {
  Worker *w = arg;
  Pool *p = w->pool;
  Patience patience = {0, 0};
  unsigned seen;
  patience.ns = p->longest;
  for (seen = 0;; seen++) { /* a loop ends only when every worker has done its share, so none is ever missed */
    wait_for(p, &p->generation, seen, 0, &patience, &p->asleep, &p->work); /* until it is no longer `seen` */
    if (p->stop) return NULL;
    run_share(p, p->body, p->args, p->count, w->number);
    if (counter_add(&p->pending, 0u - 1u) == 0) wake(p, &p->waiting, &p->done);
  }
}

static void pool_run(void *self, moecc_body *body, const void *args, size_t count) {
  Pool *p = self;
  (void)pthread_mutex_lock(&p->turn);
  p->body = body, p->args = args, p->count = count;
  (void)counter_add(&p->pending, p->face.threads - 1);
  (void)counter_add(&p->generation, 1);
  wake(p, &p->asleep, &p->work);
  run_share(p, body, args, count, 0);
  wait_for(p, &p->pending, 0, 1, &p->patience, &p->waiting, &p->done);
  (void)pthread_mutex_unlock(&p->turn);
}

size_t moecc_threads_bytes(void) { return sizeof(Pool); }

/* How many processors this process may use. */
static long processors(void) {
#ifdef CPU_COUNT
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  return sysconf(_SC_NPROCESSORS_ONLN);
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
  /* Spinning helps only if every thread has a processor of its own. */
  p->longest = p->patience.ns = processors() >= (long)threads ? LONGEST_SPIN : 0;
  if (pthread_mutex_init(&p->turn, NULL) || pthread_mutex_init(&p->lock, NULL) || pthread_cond_init(&p->work, NULL) ||
      pthread_cond_init(&p->done, NULL))
    return &p->face;
  /* Workers look at face.threads only after a first loop has been announced. */
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
  p->stop = 1;
  (void)counter_add(&p->generation, 1);
  wake(p, &p->asleep, &p->work);
  for (t = 1; t < p->face.threads; t++) (void)pthread_join(p->worker[t].thread, NULL);
  (void)pthread_cond_destroy(&p->work);
  (void)pthread_cond_destroy(&p->done);
  (void)pthread_mutex_destroy(&p->turn);
  (void)pthread_mutex_destroy(&p->lock);
  memset(p, 0, sizeof *p);
}

/* ---- the loader -------------------------------------------------------------------------------------------------- */

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
