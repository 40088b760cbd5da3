/* POSIX threads: a pool that divides loops into fixed shares, and a thread that loads weights ahead.
 *
 * Loops of a network are short and follow one another closely, so a waiting thread first spins for some microseconds
 * and only then sleeps; when threads outnumber processors it sleeps at once. Where the shares begin and end depends on
 * nothing but the number of items, and items never share a result, so results do not depend on the number of threads.
 * Who computes a share does depend on time: each thread begins with its own, and then takes those that nobody has
 * begun, so that a thread whose processor is taken by somebody else keeps nobody waiting.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* for sched_getaffinity and sched_getcpu */
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
 * has no atomics: there a lock around each access does the same, slowly, and nothing spins. counter_turn: from one value
 * to another, if it has the first. */
#ifdef __TINYC__
enum { LONGEST_SPIN = 0 };
static pthread_mutex_t counter_lock = PTHREAD_MUTEX_INITIALIZER;
static size_t counter_add(size_t *p, size_t n) {
  size_t v;
  (void)pthread_mutex_lock(&counter_lock);
  v = *p += n;
  (void)pthread_mutex_unlock(&counter_lock);
  return v;
}
static size_t counter_get(size_t *p) { return counter_add(p, 0); }
static void counter_set(size_t *p, size_t to) { (void)counter_add(p, to - counter_get(p)); }
static int counter_turn(size_t *p, size_t from, size_t to) {
  int turned;
  (void)pthread_mutex_lock(&counter_lock);
  turned = *p == from;
  if (turned) *p = to;
  (void)pthread_mutex_unlock(&counter_lock);
  return turned;
}
static void spin_pause(void) {}
#else
enum { LONGEST_SPIN = 100000 }; /* nanoseconds: what sleeping and being woken may take on a virtual machine */
static size_t counter_add(size_t *p, size_t n) { return __atomic_add_fetch(p, n, __ATOMIC_SEQ_CST); }
static size_t counter_get(size_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static void counter_set(size_t *p, size_t to) { __atomic_store_n(p, to, __ATOMIC_SEQ_CST); }
static int counter_turn(size_t *p, size_t from, size_t to) {
  return __atomic_compare_exchange_n(p, &from, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
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

/* One share of the loops: who raises `begun` to a loop's number computes it. In a cache line of its own. */
typedef struct Share {
  size_t begun;
  char apart[64 - sizeof(size_t)];
} Share;

/* A loop begins when `generation`, its number, goes up and is done when `pending` is 0. Whoever waits for that spins
 * first, and before it sleeps says so in a counter (`asleep`, `waiting`) and looks once more, holding the lock; whoever
 * makes it true looks at that counter afterwards, and wakes having held the lock. So no wake-up is lost, and without
 * sleepers no lock is taken. A worker may come late, or miss loops: it looks at what a loop is only with one of its
 * shares in hand, for then the loop cannot end. What one side writes while the other watches stands in cache lines of
 * its own. */
typedef struct Pool {
  moecc_pool face;      /* what the caller gets */
  uint64_t longest;     /* nanoseconds that a thread spins at most before it sleeps */
  pthread_mutex_t turn; /* held by the caller for the length of a loop */
  pthread_mutex_t lock; /* of the sleepers */
  pthread_cond_t work, done;
  size_t asleep;  /* workers that sleep */
  size_t waiting; /* 1: the caller sleeps */
  size_t stop;    /* 1: workers end when generation goes up */
  char apart[64];
  size_t generation; /* goes up with each loop, and at the end; workers watch it */
  moecc_body *body;  /* this and the loop: written before generation goes up, read after */
  const void *args;
  size_t count;
  size_t where; /* the processor on which the caller was when it began the loop; watched, too */
  char apart_too[64];
  size_t pending; /* shares of this loop that are not done; the caller watches it */
  char apart_as_well[64];
  Share share[MOECC_MAX_THREADS];
  Worker worker[MOECC_MAX_THREADS];
} Pool;

/* Share t of the loop: count·t/threads … count·(t+1)/threads, without overflow. */
static void run_share(const Pool *p, unsigned t, unsigned thread) {
  size_t n = p->face.threads, each = p->count / n, rest = p->count % n;
  size_t begin = each * t + (t < rest ? t : rest), size = each + (t < rest);
  if (size > 0) p->body(p->args, begin, begin + size, thread);
}

/* Computes the thread's own share of loop number `loop`, and then those that nobody has begun. How many. */
static size_t run_shares(Pool *p, size_t loop, unsigned thread) {
  const unsigned n = p->face.threads;
  size_t mine = 0;
  unsigned i;
  for (i = 0; i < n; i++) {
    const unsigned t = thread + i < n ? thread + i : thread + i - n;
    size_t *begun = &p->share[t].begun;
    if (counter_get(begun) != loop - 1 || !counter_turn(begun, loop - 1, loop)) continue;
    run_share(p, t, thread);
    mine++;
  }
  return mine;
}

enum { LOOKS = 64, POLITE = 4000 }; /* looks at a counter between two at the clock; nanoseconds before yielding */

static int looks(size_t *counter, size_t value, int as_wanted) {
  unsigned look;
  for (look = 0; look < LOOKS; look++) {
    if ((counter_get(counter) == value) == as_wanted) return 1;
    spin_pause();
  }
  return 0;
}

/* Whoever is waited for may be waiting for this very processor: after some microseconds it is offered, once. */
static int spin(size_t *counter, size_t value, int as_wanted, uint64_t ns) {
  uint64_t start, now;
  int offered = 0;
  if (looks(counter, value, as_wanted)) return 1; /* mostly so, and then the clock would be too slow */
  for (start = now = now_ns(); now - start < ns; now = now_ns()) {
    if (!offered && now - start > POLITE) offered = 1, (void)sched_yield();
    if (looks(counter, value, as_wanted)) return 1;
  }
  return 0;
}

/* Waits until whether the counter has the value is `as_wanted`: spins, then sleeps until woken, being counted in
 * `sleepers`. Whether it slept. */
static int wait_for(Pool *p, size_t *counter, size_t value, int as_wanted, size_t *sleepers, pthread_cond_t *woken) {
  if (p->longest > 0 && spin(counter, value, as_wanted, p->longest)) return 0;
  (void)pthread_mutex_lock(&p->lock);
  (void)counter_add(sleepers, 1);
  while ((counter_get(counter) == value) != as_wanted) (void)pthread_cond_wait(woken, &p->lock);
  (void)counter_add(sleepers, (size_t)0 - 1);
  (void)pthread_mutex_unlock(&p->lock);
  return 1;
}

/* Wakes whoever says in `sleepers` that it sleeps. */
static void wake(Pool *p, size_t *sleepers, pthread_cond_t *condition) {
  if (counter_get(sleepers) == 0) return;
  (void)pthread_mutex_lock(&p->lock); /* until then it may not yet be asleep */
  (void)pthread_mutex_unlock(&p->lock);
  (void)pthread_cond_broadcast(condition);
}

#if defined(CPU_COUNT) && !defined(__TINYC__)
static size_t processor(void) { return (size_t)sched_getcpu(); }

/* Moves the calling thread to another processor than this one, if it may use more than one. */
static void leave_processor(size_t number) {
  cpu_set_t all, others;
  if (sched_getaffinity(0, sizeof all, &all) != 0) return;
  others = all;
  CPU_CLR(number, &others);
  if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof others, &others) != 0) return;
  (void)sched_setaffinity(0, sizeof all, &all);
}
#else
static size_t processor(void) { return 0; }
static void leave_processor(size_t number) { (void)number; }
#endif

/* A worker that slept or comes too late may be where the caller is: if all processors were busy when it was woken, the
 * system puts it where it was, and finds no reason to move a thread that mostly sleeps. If that lasts it moves itself;
 * sooner would disturb what the system does where several programs share the processors. `since`: when it began, or 0. */
static void avoid_caller(Pool *p, uint64_t *since) {
  enum { LASTS = 2000000 }; /* nanoseconds */
  const size_t where = processor();
  if (p->longest == 0 || where != counter_get(&p->where))
    *since = 0;
  else if (*since == 0)
    *since = now_ns();
  else if (now_ns() - *since > LASTS)
    leave_processor(where), *since = 0;
}

static void *work(void *arg) {
  Worker *w = arg;
  Pool *p = w->pool;
  size_t loop = 0, mine;
  uint64_t since = 0;
  int slept;
  for (;;) {
    slept = wait_for(p, &p->generation, loop, 0, &p->asleep, &p->work); /* until it is no longer that one */
    loop = counter_get(&p->generation);
    if (counter_get(&p->stop)) return NULL;
    mine = run_shares(p, loop, w->number);
    if (slept || mine == 0) avoid_caller(p, &since);
    if (mine > 0 && counter_add(&p->pending, (size_t)0 - mine) == 0) wake(p, &p->waiting, &p->done);
  }
}

static void pool_run(void *self, moecc_body *body, const void *args, size_t count) {
  Pool *p = self;
  size_t loop;
  (void)pthread_mutex_lock(&p->turn);
  p->body = body, p->args = args, p->count = count;
  counter_set(&p->where, processor());
  (void)counter_add(&p->pending, p->face.threads);
  loop = counter_add(&p->generation, 1);
  wake(p, &p->asleep, &p->work);
  if (counter_add(&p->pending, (size_t)0 - run_shares(p, loop, 0)) > 0)
    (void)wait_for(p, &p->pending, 0, 1, &p->waiting, &p->done);
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
  p->longest = processors() >= (long)threads ? LONGEST_SPIN : 0;
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
  (void)counter_add(&p->stop, 1);
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

enum { REQUESTS = 3 };     /* two wanted, and one that was dropped while being read */
enum { PATIENCE_MS = 20 }; /* how long the thread waits before it looks whether anybody still wants the piece */

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

static int wanted(Loader *l, const Request *r) {
  int is;
  (void)pthread_mutex_lock(&l->lock);
  is = !l->stop && r->state == READING;
  (void)pthread_mutex_unlock(&l->lock);
  return is;
}

/* Loads a piece. A source that can forget need not finish: it is left as soon as nobody wants the piece any more. */
static moecc_status load_piece(Loader *l, const Request *r, const void **where) {
  const moecc_source *from = l->from;
  moecc_status s = from->begin(from->self, &r->piece, r->dst);
  if (s != MOECC_OK) return s;
  do s = from->wait(from->self, &r->piece, r->dst, from->forget ? PATIENCE_MS : 0, where);
  while (s == MOECC_ERROR_TIMEOUT && from->forget && wanted(l, r));
  if (s == MOECC_ERROR_TIMEOUT && from->forget) from->forget(from->self);
  return s;
}

static void serve(Loader *l, Request *r) {
  const void *where = NULL;
  moecc_status s;
  r->state = READING;
  (void)pthread_mutex_unlock(&l->lock);
  s = load_piece(l, r, &where);
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
