/* The two buffers that streamed slots arrive in: what is asked of the source, when, and where it may write. */
#include "runtime_fixture.h"

/* A source that keeps a diary and can fail. */
typedef struct {
  moecc_source face;
  const Fixture *f;
  unsigned begun, waited, under_way, most;
  unsigned fail_begin, fail_wait; /* the how-many-th fails; 0: none */
  bool blocks;                    /* delivers whole blocks */
  struct {
    uint64_t offset;
    void *dst;
  } open[2];
} Diary;

static moecc_status diary_begin(void *self, const moecc_piece *p, void *dst) {
  Diary *d = self;
  if (++d->begun == d->fail_begin) return MOECC_ERROR_IO;
  assert_true(d->under_way < 2);
  for (unsigned i = 0; i < d->under_way; i++) assert_ptr_not_equal(d->open[i].dst, dst);
  d->open[d->under_way].offset = p->offset, d->open[d->under_way].dst = dst;
  if (++d->under_way > d->most) d->most = d->under_way;
  assert_int_equal((uintptr_t)dst % MOECC_BLOCK, 0);
  memset(dst, 0xee, whole_blocks(p->offset, p->bytes)); /* whoever still reads the buffer sees it */
  return MOECC_OK;
}

static moecc_status diary_wait(void *self, const moecc_piece *p, void *dst, unsigned ms, const void **where) {
  Diary *d = self;
  unsigned i = d->under_way == 2 && d->open[1].offset == p->offset && d->open[1].dst == dst;
  (void)ms;
  assert_true(d->under_way > i && d->open[i].offset == p->offset && d->open[i].dst == dst);
  if (i == 0) d->open[0] = d->open[1];
  d->under_way--;
  if (++d->waited == d->fail_wait) return MOECC_ERROR_IO;
  if (d->blocks) dst = (unsigned char *)dst + p->offset % MOECC_BLOCK;
  memcpy(dst, d->f->pack + p->offset, p->bytes);
  *where = dst;
  return MOECC_OK;
}

static Diary diary_of(const Fixture *f) {
  return (Diary){.face = {.begin = diary_begin, .wait = diary_wait, .bytes = f->bytes}, .f = f};
}

static void expert_out_of_range_is_refused(void **state) {
  const Fixture *f = *state;
  moecc_source s;
  moecc_weights w = {.source = &s};
  moecc_status status = MOECC_OK;
  assert_int_equal(moecc_memory_source(&s, f->pack, f->bytes, 0), MOECC_OK);
  assert_null(moecc_take_expert(&w, &f->unit[EXPERT_UNIT], EXPERTS, NULL, 0, &status));
  assert_int_equal(status, MOECC_ERROR_ARGUMENT);
  moecc_ask_expert(&w, &f->unit[EXPERT_UNIT], EXPERTS);
}

static void the_next_slot_is_asked_for_at_once(void **state) {
  const Fixture *f = *state;
  Diary d = diary_of(f);
  d.face.self = &d;
  moecc_context m = {0};
  size_t bytes;
  moecc_status s = MOECC_OK;
  unsigned char *arena = new_arena(f, 0, &bytes);
  assert_int_equal(init(f, &m, arena, bytes, &d.face), MOECC_OK);
  d.begun = d.waited = 0;
  const void *a = moecc_take(&m.weights, &f->unit[0], &f->unit[1], &s);
  assert_true(d.begun == 2 && d.waited == 1);
  assert_true(slot_is_right(&f->unit[0], 0, a));
  const void *b = moecc_take(&m.weights, &f->unit[1], NULL, &s);
  assert_true(d.begun == 2 && d.waited == 2 && a != b);
  /* a slot that is still there is not read again, nor asked for */
  assert_ptr_equal(moecc_take(&m.weights, &f->unit[0], &f->unit[1], &s), a);
  assert_true(slot_is_right(&f->unit[1], 0, b));
  assert_true(d.begun == 2 && d.waited == 2);
  /* asking leaves the slot that is being used alone */
  moecc_ask_expert(&m.weights, &f->unit[EXPERT_UNIT], 3);
  moecc_ask_expert(&m.weights, &f->unit[EXPERT_UNIT], 3);
  moecc_ask_expert(&m.weights, &f->unit[EXPERT_UNIT], 4);
  assert_int_equal(d.begun, 3);
  assert_true(slot_is_right(&f->unit[0], 0, a));
  /* asked for in vain: the other slot comes all the same, and the next one is asked for again */
  const void *e = moecc_take_expert(&m.weights, &f->unit[EXPERT_UNIT], 1, &f->unit[EXPERT_UNIT], 2, &s);
  assert_true(slot_is_right(&f->unit[EXPERT_UNIT], 1, e));
  assert_int_equal(d.under_way, 1);
  moecc_context_close(&m);
  assert_int_equal(d.under_way, 0);
  free(arena);
}

/* Wherever the arena begins: buffers on blocks, with room for all blocks around a slot, and nothing outside written. */
static void buffers_hold_whole_blocks(void **state) {
  const Fixture *f = *state;
  enum { VALUES = 192, RED = 256 };
  const size_t bytes = VALUES + MOECC_STREAM_BYTES(f->network.buffer), all = MOECC_BLOCK + RED + bytes + RED;
  unsigned char *memory = aligned_alloc(MOECC_BLOCK, 2 * MOECC_BLOCK + MOECC_STREAM_BUFFER(all));
  for (size_t start = 0; start < MOECC_BLOCK; start += MOECC_ALIGN) {
    unsigned char *arena = memory + RED + start;
    Diary d = diary_of(f);
    moecc_context m = {0};
    d.face.self = &d;
    d.blocks = start % 128 == 0;
    memset(memory, 0x5a, all);
    assert_int_equal(moecc_context_init(&m, &f->network, 1, arena, bytes - 1, VALUES, &d.face, NULL),
                     MOECC_ERROR_ARENA);
    assert_int_equal(m.needed, bytes);
    assert_int_equal(moecc_context_init(&m, &f->network, 1, arena, bytes, VALUES, &d.face, NULL), MOECC_OK);
    assert_int_equal(take_all(f, &m.weights), MOECC_OK);
    for (unsigned b = 0; b < 2; b++) {
      const unsigned char *at = m.weights.buffer[b];
      assert_true(at >= arena + VALUES && at + m.weights.buffer_bytes <= arena + bytes);
    }
    moecc_context_close(&m);
    for (size_t i = 0; i < RED + start + VALUES; i++) assert_int_equal(memory[i], 0x5a);
    for (size_t i = RED + start + bytes; i < all; i++) assert_int_equal(memory[i], 0x5a);
  }
  free(memory);
}

/* With failures now and then. */
static void any_order_of_takes_is_right(void **state) {
  const Fixture *f = *state;
  size_t bytes, failures = 0;
  unsigned char *arena = new_arena(f, 0, &bytes);
  for (unsigned round = 0; round < 300; round++) {
    Diary d = diary_of(f);
    moecc_context m = {0};
    d.face.self = &d;
    assert_int_equal(init(f, &m, arena, bytes, &d.face), MOECC_OK);
    d.fail_begin = round % 3 == 1 ? d.begun + 1 + random_below(20) : 0;
    d.fail_wait = round % 3 == 2 ? d.waited + 1 + random_below(20) : 0;
    failures += take_in_any_order(f, &m.weights);
    moecc_context_close(&m);
    assert_int_equal(d.under_way, 0);
  }
  assert_true(failures > 20);
  free(arena);
}

/* Streamed expert by expert, each slot is read once, and experts without a queue never. */
static void experts_without_a_queue_are_not_loaded(void **state) {
  const Fixture *f = *state;
  const moecc_unit *u = &f->unit[EXPERT_UNIT];
  static const uint32_t begin[EXPERTS + 1] = {0, 0, 3, 3, 3, 10, 10};
  Diary d = diary_of(f);
  moecc_context m = {0};
  size_t bytes, met = 0;
  moecc_status s = MOECC_OK;
  unsigned char *arena = new_arena(f, 0, &bytes);
  d.face.self = &d;
  assert_int_equal(init(f, &m, arena, bytes, &d.face), MOECC_OK);
  d.begun = 0;
  size_t e = moecc_next_expert(begin, 0, EXPERTS), next;
  moecc_ask_expert(&m.weights, u, e);
  for (; e < EXPERTS; e = next, met++) {
    next = moecc_next_expert(begin, e + 1, EXPERTS);
    assert_non_null(moecc_take_expert(&m.weights, u, e, next < EXPERTS ? u : NULL, next, &s));
    assert_true(e == 1 || e == 4);
  }
  assert_true(met == 2 && d.begun == 2);
  moecc_context_close(&m);
  free(arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(expert_out_of_range_is_refused),
      TEST(the_next_slot_is_asked_for_at_once),
      TEST(buffers_hold_whole_blocks),
      TEST(any_order_of_takes_is_right),
      TEST(experts_without_a_queue_are_not_loaded),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
