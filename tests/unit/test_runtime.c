/* Contexts, the thread pool and the loader thread. Thread creation is injected, so that each in turn is refused, and
 * workers can be kept from running. */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "runtime_fixture.h"

/* ---- injected thread creation ---------------------------------------------------------------------------------------
 */

static int threads_allowed = 1000;

/* Threads made while the gate is shut begin when it opens, as if they got no processor until then. */
static atomic_int gate_shut, late; /* late: how many have begun since */
typedef struct {
  void *(*body)(void *);
  void *arg;
} Late;

static void *begin_late(void *arg) {
  const Late l = *(Late *)arg;
  free(arg);
  while (gate_shut) usleep(200);
  late++;
  return l.body(l.arg);
}

static int injected_create(pthread_t *t, const pthread_attr_t *a, void *(*body)(void *), void *arg) {
  if (threads_allowed-- <= 0) return 11; /* EAGAIN */
  if (!gate_shut) return pthread_create(t, a, body, arg);
  Late *l = malloc(sizeof *l);
  *l = (Late){body, arg};
  return pthread_create(t, a, begin_late, l);
}

#define pthread_create injected_create
#include "../../runtime/moecc_rt_threads.c"
#undef pthread_create

static void *room_for(size_t bytes) { return aligned_alloc(64, (bytes + 63) & ~(size_t)63); }

/* ---- contexts ---------------------------------------------------------------------------------------------------- */

static void every_status_has_a_text(void **state) {
  (void)state;
  for (int s = MOECC_OK; s <= MOECC_ERROR_MISSING; s++) {
    assert_true(strlen(moecc_status_text((moecc_status)s)) > 3);
    for (int t = MOECC_OK; t < s; t++)
      assert_string_not_equal(moecc_status_text((moecc_status)s), moecc_status_text((moecc_status)t));
  }
  assert_non_null(moecc_status_text((moecc_status)99));
}

static void init_checks_its_arguments(void **state) {
  Fixture *f = *state;
  moecc_context m = {0};
  moecc_source s;
  size_t bytes;
  unsigned char *arena = new_arena(f, 1024, &bytes);
  assert_int_equal(moecc_memory_source(&s, f->pack, f->bytes, 1), MOECC_OK);
  assert_int_equal(moecc_context_init(NULL, &f->network, 1, arena, bytes, 1024, &s, NULL), MOECC_ERROR_ARGUMENT);
  assert_int_equal(moecc_context_init(&m, &f->network, 0, arena, bytes, 1024, &s, NULL), MOECC_ERROR_TASK);
  assert_int_equal(moecc_context_init(&m, &f->network, 4, arena, bytes, 1024, &s, NULL), MOECC_ERROR_TASK);
  assert_int_equal(moecc_context_init(&m, &f->network, 1, arena, bytes, 1024, NULL, NULL), MOECC_ERROR_MISSING);
  assert_int_equal(moecc_context_init(&m, &f->network, 1, NULL, bytes, 1024, &s, NULL), MOECC_ERROR_ARENA);
  assert_int_equal(m.needed, bytes);
  m.needed = 0;
  assert_int_equal(moecc_context_init(&m, &f->network, 1, arena + 8, bytes, 1024, &s, NULL), MOECC_ERROR_ARENA);
  assert_int_equal(m.needed, bytes);
  m.needed = 0;
  assert_int_equal(moecc_context_init(&m, &f->network, 1, arena, bytes - 1, 1024, &s, NULL), MOECC_ERROR_ARENA);
  assert_int_equal(m.needed, bytes);
  assert_int_equal(moecc_call_begin(&m, 0), MOECC_ERROR_STATE);
  assert_int_equal(moecc_context_init(&m, &f->network, 1, arena, bytes, 1024, &s, NULL), MOECC_OK);
  moecc_context_close(&m);
  /* a resident source needs no buffers */
  assert_int_equal(moecc_memory_source(&s, f->pack, f->bytes, 0), MOECC_OK);
  assert_int_equal(moecc_context_init(&m, &f->network, 1, arena, 1024, 1024, &s, NULL), MOECC_OK);
  assert_int_equal(m.needed, 1024);
  moecc_context_close(&m);
  free(arena);
}

static void states_are_kept_apart(void **state) {
  (void)state;
  moecc_context m = {0};
  moecc_network n = {.tasks = 3};
  _Alignas(64) unsigned char arena[64];
  assert_int_equal(moecc_call_begin(NULL, 0), MOECC_ERROR_ARGUMENT);
  assert_int_equal(moecc_call_begin(&m, 0), MOECC_ERROR_STATE);
  moecc_context_close(&m);
  moecc_context_close(NULL);
  assert_int_equal(moecc_context_init(&m, &n, 2, arena, sizeof arena, 64, NULL, NULL), MOECC_OK);
  assert_int_equal(moecc_context_init(&m, &n, 2, arena, sizeof arena, 64, NULL, NULL), MOECC_ERROR_STATE);
  assert_int_equal(moecc_call_begin(&m, 0), MOECC_ERROR_TASK);
  assert_int_equal(moecc_call_begin(&m, 40), MOECC_ERROR_TASK);
  m.flags = 7;
  assert_int_equal(moecc_call_begin(&m, 1), MOECC_OK);
  assert_int_equal(m.flags, 0);
  assert_int_equal(moecc_call_begin(&m, 1), MOECC_ERROR_STATE);
  assert_int_equal(moecc_context_init(&m, &n, 2, arena, sizeof arena, 64, NULL, NULL), MOECC_ERROR_STATE);
  assert_int_equal(moecc_call_end(&m, MOECC_ERROR_IO), MOECC_ERROR_IO);
  assert_int_equal(moecc_call_begin(&m, 1), MOECC_OK);
  assert_int_equal(moecc_call_end(&m, MOECC_OK), MOECC_OK);
  moecc_context_close(&m);
  assert_int_equal(moecc_call_begin(&m, 1), MOECC_ERROR_STATE);
  assert_int_equal(moecc_context_init(&m, &n, 1, arena, sizeof arena, 64, NULL, NULL), MOECC_OK);
  moecc_context_close(&m);
}

/* Many threads on one context: at any time at most one is in a call, the others are told so. */
typedef struct {
  moecc_context m;
  atomic_int inside, calls, refused, broken;
} Crowd;

static void *crowd_member(void *arg) {
  Crowd *c = arg;
  for (int i = 0; i < 3000; i++) {
    moecc_status s = moecc_call_begin(&c->m, 0);
    if (s == MOECC_ERROR_STATE) {
      c->refused++;
      continue;
    }
    if (s != MOECC_OK || atomic_fetch_add(&c->inside, 1) != 0) c->broken++;
    c->calls++;
    atomic_fetch_sub(&c->inside, 1);
    (void)moecc_call_end(&c->m, MOECC_OK);
  }
  return NULL;
}

static void one_call_at_a_time(void **state) {
  (void)state;
  Crowd *c = calloc(1, sizeof *c);
  moecc_network n = {.tasks = 1};
  pthread_t t[4];
  assert_int_equal(moecc_context_init(&c->m, &n, 1, NULL, 0, 0, NULL, NULL), MOECC_OK);
  for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, crowd_member, c), 0);
  for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
  assert_int_equal(c->broken, 0);
  assert_int_equal(c->calls + c->refused, 4 * 3000);
  assert_true(c->calls > 0);
  free(c);
}

/* ---- loops ------------------------------------------------------------------------------------------------------- */

enum { ITEMS = 1000 };
typedef struct {
  const float *x;
  float *sum;      /* one chain of additions per item */
  atomic_int *met; /* how often each item came */
  unsigned threads;
  atomic_int *strange;
} LoopArgs;

static void loop_body(const void *args, size_t begin, size_t end, unsigned thread) {
  const LoopArgs *a = args;
  if (thread >= a->threads || begin >= end) (*a->strange)++;
  for (size_t i = begin; i < end; i++) {
    float s = 0;
    for (size_t k = 0; k <= i % 37; k++) s += a->x[(i + k) % ITEMS] * 0.3f;
    a->sum[i] = s;
    a->met[i]++;
  }
}

static void run_loop(const moecc_pool *pool, size_t count, float *sum) {
  static _Thread_local float x[ITEMS];
  atomic_int *met = calloc(ITEMS, sizeof *met), strange = 0;
  for (size_t i = 0; i < ITEMS; i++) x[i] = (float)i / 7.0f;
  LoopArgs args = {.x = x, .sum = sum, .met = met, .threads = pool ? pool->threads : 1, .strange = &strange};
  moecc_for(pool, loop_body, &args, count);
  for (size_t i = 0; i < ITEMS; i++) assert_int_equal(met[i], i < count ? 1 : 0);
  assert_int_equal(strange, 0);
  free(met);
}

static void any_number_of_threads_gives_the_same_bits(void **state) {
  (void)state;
  static float expected[ITEMS], got[ITEMS];
  run_loop(NULL, ITEMS, expected);
  for (unsigned threads = 0; threads <= 8; threads++) {
    void *memory = room_for(moecc_threads_bytes());
    const moecc_pool *pool = moecc_threads_start(memory, threads);
    assert_int_equal(pool->threads, threads ? threads : 1);
    for (size_t count = 0; count <= 20; count++) run_loop(pool, count, got);
    for (int i = 0; i < 50; i++) {
      memset(got, 0, sizeof got);
      run_loop(pool, ITEMS, got);
      assert_memory_equal(got, expected, sizeof got);
    }
    moecc_threads_stop(memory);
    free(memory);
  }
}

static void refused_threads_mean_fewer(void **state) {
  (void)state;
  static float expected[ITEMS], got[ITEMS];
  run_loop(NULL, ITEMS, expected);
  for (int allowed = 0; allowed < 5; allowed++) {
    void *memory = room_for(moecc_threads_bytes());
    threads_allowed = allowed;
    const moecc_pool *pool = moecc_threads_start(memory, 8);
    threads_allowed = 1000;
    assert_int_equal(pool->threads, allowed + 1);
    memset(got, 0, sizeof got);
    run_loop(pool, ITEMS, got);
    assert_memory_equal(got, expected, sizeof got);
    moecc_threads_stop(memory);
    free(memory);
  }
}

static void threads_are_capped(void **state) {
  (void)state;
  void *memory = room_for(moecc_threads_bytes());
  threads_allowed = 3;
  assert_int_equal(moecc_threads_start(memory, 100000)->threads, 4);
  threads_allowed = 1000;
  moecc_threads_stop(memory);
  moecc_threads_stop(memory);
  assert_null(moecc_threads_start(NULL, 4));
  free(memory);
}

/* Workers that fell asleep between loops wake up. */
static void sleeping_workers_wake(void **state) {
  (void)state;
  static float got[ITEMS];
  void *memory = room_for(moecc_threads_bytes());
  const moecc_pool *pool = moecc_threads_start(memory, 3);
  for (int i = 0; i < 5; i++) {
    usleep(20000);
    run_loop(pool, ITEMS, got);
  }
  moecc_threads_stop(memory);
  free(memory);
}

/* Pauses around the length of a spin: some waits end while spinning, others asleep, and some just between. */
static void workers_spin_and_sleep_in_turn(void **state) {
  (void)state;
  static float got[ITEMS];
  void *memory = room_for(moecc_threads_bytes());
  const moecc_pool *pool = moecc_threads_start(memory, 2);
  unsigned random = 1;
  for (int i = 0; i < 3000; i++) {
    random = random * 1664525u + 1013904223u;
    const uint64_t until = now_ns() + (random >> 16) % (2 * LONGEST_SPIN);
    while (i % 3 == 0 && now_ns() < until) spin_pause();
    run_loop(pool, ITEMS, got);
  }
  moecc_threads_stop(memory);
  free(memory);
}

/* Workers without a processor keep nobody waiting: whoever is there computes their shares, with the same bits. */
static void late_workers_keep_nobody_waiting(void **state) {
  (void)state;
  static float expected[ITEMS], got[ITEMS];
  run_loop(NULL, ITEMS, expected);
  for (unsigned threads = 2; threads <= 4; threads++) {
    void *memory = room_for(moecc_threads_bytes());
    gate_shut = 1;
    late = 0;
    const moecc_pool *pool = moecc_threads_start(memory, threads);
    for (int i = 0; i < 400; i++) {
      memset(got, 0, sizeof got);
      run_loop(pool, ITEMS, got);
      assert_memory_equal(got, expected, sizeof got);
      if (i == 199) {
        assert_int_equal(late, 0);
        gate_shut = 0; /* they come while loops are running, having missed many */
      }
    }
    moecc_threads_stop(memory);
    assert_int_equal(late, threads - 1);
    free(memory);
  }
}

/* A worker that moves away from a processor may use the same ones as before. */
static void moving_keeps_the_processors(void **state) {
  (void)state;
  cpu_set_t before, after;
  int moved = 0;
  assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
  for (int i = 0; i < 100; i++) {
    const size_t here = processor();
    leave_processor(here);
    moved += processor() != here;
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
  }
  if (CPU_COUNT(&before) > 1) assert_true(moved > 0);
}

static double processor_seconds(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void idle_workers_use_no_processor(void **state) {
  (void)state;
  static float got[ITEMS];
  void *memory = room_for(moecc_threads_bytes());
  const moecc_pool *pool = moecc_threads_start(memory, 2);
  run_loop(pool, ITEMS, got);
  const double before = processor_seconds();
  usleep(300000);
  assert_true(processor_seconds() - before < 0.03);
  run_loop(pool, ITEMS, got);
  moecc_threads_stop(memory);
  free(memory);
}

static void *share_pool(void *arg) {
  static _Thread_local float got[ITEMS];
  for (int i = 0; i < 100; i++) run_loop(arg, ITEMS, got);
  return NULL;
}

static void two_callers_may_share_a_pool(void **state) {
  (void)state;
  void *memory = room_for(moecc_threads_bytes());
  moecc_pool *pool = (moecc_pool *)(uintptr_t)moecc_threads_start(memory, 2);
  pthread_t other;
  assert_int_equal(pthread_create(&other, NULL, share_pool, pool), 0);
  share_pool(pool);
  pthread_join(other, NULL);
  moecc_threads_stop(memory);
  free(memory);
}

/* ---- the loader -------------------------------------------------------------------------------------------------- */

/* A source whose wait blocks until it is let go. */
typedef struct {
  moecc_source face, inner;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  bool stuck;
  uint64_t stuck_at; /* only for pieces at this offset */
} Gate;

static moecc_status gate_begin(void *self, const moecc_piece *p, void *dst) {
  (void)self, (void)p, (void)dst;
  return MOECC_OK;
}

static moecc_status gate_wait(void *self, const moecc_piece *p, void *dst, unsigned ms, const void **where) {
  Gate *g = self;
  pthread_mutex_lock(&g->lock);
  while (g->stuck && p->offset == g->stuck_at) pthread_cond_wait(&g->changed, &g->lock);
  pthread_mutex_unlock(&g->lock);
  return g->inner.wait(g->inner.self, p, dst, ms, where);
}

static void gate_set(Gate *g, bool stuck, uint64_t at) {
  pthread_mutex_lock(&g->lock);
  g->stuck = stuck;
  g->stuck_at = at;
  pthread_cond_broadcast(&g->changed);
  pthread_mutex_unlock(&g->lock);
}

static void gate_open(Gate *g, const Fixture *f) {
  memset(g, 0, sizeof *g);
  assert_int_equal(moecc_memory_source(&g->inner, f->pack, f->bytes, 1), MOECC_OK);
  g->face = (moecc_source){.begin = gate_begin, .wait = gate_wait, .self = g, .bytes = f->bytes};
  pthread_mutex_init(&g->lock, NULL);
  pthread_cond_init(&g->changed, NULL);
}

static void a_loader_delivers_like_its_source(void **state) {
  const Fixture *f = *state;
  moecc_context m = {0};
  Gate g;
  size_t bytes;
  unsigned char *arena = new_arena(f, 0, &bytes);
  void *memory = room_for(moecc_loader_bytes());
  gate_open(&g, f);
  for (int allowed = 0; allowed < 2; allowed++) {
    threads_allowed = allowed;
    const moecc_source *s = moecc_loader_start(memory, &g.face);
    threads_allowed = 1000;
    assert_true((s == &g.face) == (allowed == 0));
    assert_int_equal(moecc_context_init(&m, &f->network, 1, arena, bytes, 0, s, NULL), MOECC_OK);
    for (int i = 0; i < 20; i++) assert_int_equal(take_all(f, &m.weights), MOECC_OK);
    moecc_context_close(&m);
    moecc_loader_stop(memory);
  }
  moecc_loader_stop(memory);
  free(memory);
  free(arena);
}

/* Each slot in turn never arrives: timeout and its name; then the source recovers and the same context works again. */
static void a_loader_that_never_finishes_times_out(void **state) {
  const Fixture *f = *state;
  const moecc_options o = {.timeout_ms = 15};
  Gate g;
  size_t bytes;
  unsigned char *arena = new_arena(f, 0, &bytes);
  void *memory = room_for(moecc_loader_bytes());
  gate_open(&g, f);
  const moecc_source *s = moecc_loader_start(memory, &g.face);
  for (size_t u = 0; u < UNITS; u++) {
    moecc_context m = {0};
    assert_int_equal(moecc_context_init(&m, &f->network, 1, arena, bytes, 0, s, &o), MOECC_OK);
    gate_set(&g, true, f->unit[u].offset);
    assert_int_equal(take_all(f, &m.weights), MOECC_ERROR_TIMEOUT);
    assert_ptr_equal(m.weights.fault.unit, &f->unit[u]);
    assert_int_equal(take_all(f, &m.weights), MOECC_ERROR_TIMEOUT);
    gate_set(&g, false, 0);
    m.weights.timeout_ms = 0;
    assert_int_equal(take_all(f, &m.weights), MOECC_OK);
    moecc_context_close(&m);
  }
  moecc_loader_stop(memory);
  free(memory);
  free(arena);
}

static void init_times_out_too(void **state) {
  const Fixture *f = *state;
  const moecc_options o = {.timeout_ms = 15};
  moecc_context m = {0};
  Gate g;
  size_t bytes;
  unsigned char *arena = new_arena(f, 0, &bytes);
  void *memory = room_for(moecc_loader_bytes());
  gate_open(&g, f);
  const moecc_source *s = moecc_loader_start(memory, &g.face);
  gate_set(&g, true, 0);
  for (int i = 0; i < 5; i++)
    assert_int_equal(moecc_context_init(&m, &f->network, 1, arena, bytes, 0, s, &o), MOECC_ERROR_TIMEOUT);
  gate_set(&g, false, 0);
  assert_int_equal(moecc_context_init(&m, &f->network, 1, arena, bytes, 0, s, NULL), MOECC_OK);
  assert_int_equal(take_all(f, &m.weights), MOECC_OK);
  /* closing while a slot is under way and stuck */
  gate_set(&g, true, f->unit[0].offset);
  m.weights.timeout_ms = 15;
  moecc_ask(&m.weights, &f->unit[0]);
  moecc_context_close(&m);
  gate_set(&g, false, 0);
  moecc_loader_stop(memory);
  free(memory);
  free(arena);
}

/* A source that delivers only the pack's head and directory, but can be told to forget. */
typedef struct {
  Gate gate;
  atomic_int forgotten;
} Mute;

static moecc_status mute_wait(void *self, const moecc_piece *p, void *dst, unsigned ms, const void **where) {
  Mute *mute = self;
  if (p->unit == MOECC_NO_UNIT) return mute->gate.inner.wait(mute->gate.inner.self, p, dst, ms, where);
  assert_true(ms > 0);
  usleep(ms * 1000);
  return MOECC_ERROR_TIMEOUT;
}

static void mute_forget(void *self) { ((Mute *)self)->forgotten++; }

/* Nothing ever comes: takes time out, and the thread ends all the same. */
static void a_loader_leaves_a_source_that_can_forget(void **state) {
  const Fixture *f = *state;
  Mute mute = {.forgotten = 0};
  moecc_context m = {0};
  moecc_status status = MOECC_OK;
  size_t bytes;
  unsigned char *arena = new_arena(f, 0, &bytes);
  void *memory = room_for(moecc_loader_bytes());
  gate_open(&mute.gate, f);
  mute.gate.face.wait = mute_wait;
  mute.gate.face.forget = mute_forget;
  mute.gate.face.self = &mute;
  const moecc_source *s = moecc_loader_start(memory, &mute.gate.face);
  assert_int_equal(moecc_context_init(&m, &f->network, 1, arena, bytes, 0, s, NULL), MOECC_OK);
  m.weights.timeout_ms = 5;
  for (int i = 0; i < 4; i++) {
    assert_null(moecc_take(&m.weights, &f->unit[1], &f->unit[2], &status));
    assert_int_equal(status, MOECC_ERROR_TIMEOUT);
    assert_ptr_equal(m.weights.fault.unit, &f->unit[1]);
  }
  moecc_ask(&m.weights, &f->unit[4]);
  usleep(1000);
  moecc_loader_stop(memory); /* joins */
  assert_true(mute.forgotten > 0);
  free(memory), free(arena);
}

/* A damaged slot through the loader, and a resident source that needs none. */
static void a_loader_passes_faults_on(void **state) {
  const Fixture *f = *state;
  moecc_context m = {0};
  moecc_source plain;
  size_t bytes;
  unsigned char *arena = new_arena(f, 0, &bytes), *p = copy_pack(f);
  void *memory = room_for(moecc_loader_bytes());
  p[f->unit[3].offset + 9] ^= 1;
  assert_int_equal(moecc_memory_source(&plain, p, f->bytes, 1), MOECC_OK);
  const moecc_source *s = moecc_loader_start(memory, &plain);
  assert_int_equal(moecc_context_init(&m, &f->network, 1, arena, bytes, 0, s, NULL), MOECC_OK);
  assert_int_equal(take_all(f, &m.weights), MOECC_ERROR_CHECKSUM);
  assert_ptr_equal(m.weights.fault.unit, &f->unit[3]);
  moecc_context_close(&m);
  moecc_loader_stop(memory);
  assert_int_equal(moecc_memory_source(&plain, p, f->bytes, 0), MOECC_OK);
  assert_ptr_equal(moecc_loader_start(memory, &plain), &plain);
  moecc_loader_stop(memory);
  free(memory), free(arena), free(p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_status_has_a_text),
      TEST(init_checks_its_arguments),
      cmocka_unit_test(states_are_kept_apart),
      cmocka_unit_test(one_call_at_a_time),
      cmocka_unit_test(any_number_of_threads_gives_the_same_bits),
      cmocka_unit_test(refused_threads_mean_fewer),
      cmocka_unit_test(threads_are_capped),
      cmocka_unit_test(sleeping_workers_wake),
      cmocka_unit_test(workers_spin_and_sleep_in_turn),
      cmocka_unit_test(late_workers_keep_nobody_waiting),
      cmocka_unit_test(moving_keeps_the_processors),
      cmocka_unit_test(idle_workers_use_no_processor),
      cmocka_unit_test(two_callers_may_share_a_pool),
      TEST(a_loader_delivers_like_its_source),
      TEST(a_loader_that_never_finishes_times_out),
      TEST(init_times_out_too),
      TEST(a_loader_leaves_a_source_that_can_forget),
      TEST(a_loader_passes_faults_on),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
