/* Units that stay in memory while a context is initialised: read once, into their place, by a source that counts. */
#include "runtime_fixture.h"

/* Counts what is asked of a streaming source in memory; from `fail_at` on, every wait fails with `status`. */
static struct {
  moecc_source memory;
  unsigned begun, slots[UNITS][EXPERTS];
  const void *dst[UNITS];
  unsigned waits, fail_at;
  moecc_status status;
  unsigned forgotten;
} counted;

static moecc_status counting_begin(void *self, const moecc_piece *piece, void *dst) {
  counted.begun++;
  if (piece->unit != MOECC_NO_UNIT) {
    counted.slots[piece->unit][piece->index]++;
    counted.dst[piece->unit] = dst;
  }
  return counted.memory.begin(self, piece, dst);
}

static moecc_status counting_wait(void *self, const moecc_piece *piece, void *dst, unsigned timeout_ms,
                                  const void **where) {
  if (counted.fail_at && ++counted.waits >= counted.fail_at) return counted.status;
  return counted.memory.wait(self, piece, dst, timeout_ms, where);
}

static void counting_forget(void *self) {
  (void)self;
  counted.forgotten++;
}

static moecc_source counting(const void *pack, uint64_t bytes) {
  moecc_source s;
  memset(&counted, 0, sizeof counted);
  assert_int_equal(moecc_memory_source(&counted.memory, pack, bytes, 1), MOECC_OK);
  s = counted.memory;
  s.begin = counting_begin;
  s.wait = counting_wait;
  s.forget = counting_forget;
  return s;
}

/* Makes units of the fixture resident (bits), as the compiler places them, and the buffers as large as what is left. */
static void make_resident(Fixture *f, moecc_resident *list, unsigned units) {
  static const uint32_t tasks[UNITS] = {3, 3, 3, 1, 2};
  uint64_t at = 64;
  f->network.buffer = 64;
  f->network.residents = 0;
  f->network.resident = list;
  for (int large = 0; large < 2; large++) {
    if (large) at = (at + 4095) & ~(uint64_t)4095;
    for (unsigned u = 0; u < UNITS; u++) {
      moecc_unit *unit = &f->unit[u];
      const size_t slot = (size_t)MOECC_SLOT_BYTES(unit->bytes);
      const int stays = units >> u & 1, is_large = MOECC_SLOT_ALIGN(unit->bytes) == 4096;
      if ((!stays || !is_large) && slot > f->network.buffer) f->network.buffer = slot;
      if (!stays || is_large != large) continue;
      unit->resident = at;
      at += unit->stride * unit->count;
      list[f->network.residents].unit = *unit;
      list[f->network.residents++].tasks = tasks[u];
    }
  }
}

static unsigned char *resident_arena(const Fixture *f, unsigned tasks, size_t *bytes) {
  *bytes = MOECC_STREAM_BYTES(f->network.buffer) + moecc_resident_bytes(&f->network, tasks);
  *bytes = (*bytes + 63) & ~(size_t)63;
  return aligned_alloc(64, *bytes);
}

/* Every set of units: those that stay are read once, in init, the others as ever, and all have the right bytes. */
static void resident_units_are_read_once(void **state) {
  Fixture *f = *state;
  moecc_resident list[UNITS];
  for (unsigned units = 0; units < 1u << UNITS; units++) {
    moecc_context m = {0};
    moecc_source s = counting(f->pack, f->bytes);
    size_t bytes;
    for (size_t u = 0; u < UNITS; u++) f->unit[u].resident = 0;
    make_resident(f, list, units);
    unsigned char *arena = resident_arena(f, ALL_TASKS, &bytes);
    memset(arena, 0xff, bytes);
    assert_int_equal(init(f, &m, arena, bytes, &s), MOECC_OK);
    assert_int_equal(m.needed, MOECC_STREAM_BYTES(f->network.buffer) + moecc_resident_bytes(&f->network, ALL_TASKS));
    for (int call = 0; call < 3; call++) {
      for (size_t u = 0; u < UNITS; u++)
        for (uint32_t i = 0; i < f->unit[u].count; i++)
          if (units >> u & 1) /* what is still in a buffer is not read again, either */
            assert_int_equal(counted.slots[u][i], 1);
          else
            assert_in_range(counted.slots[u][i], call > 0, call);
      assert_int_equal(take_all(f, &m.weights), MOECC_OK);
    }
    /* they stay where they are, however many others come and go */
    for (unsigned u = 0; u < UNITS; u++) {
      moecc_status status = MOECC_OK;
      if (!(units >> u & 1)) continue;
      const void *p = moecc_take(&m.weights, &f->unit[u], NULL, &status);
      assert_int_equal(take_all(f, &m.weights), MOECC_OK);
      assert_ptr_equal(moecc_take(&m.weights, &f->unit[u], NULL, &status), p);
      assert_true(slot_is_right(&f->unit[u], 0, p));
      const unsigned before = counted.begun;
      moecc_ask(&m.weights, &f->unit[u]);
      assert_int_equal(counted.begun, before);
    }
    moecc_context_close(&m);
    free(arena);
  }
}

/* A slot of a page or more is read to where it stays, on a page; smaller ones through a buffer, which has room for the
 * blocks around them. */
static void resident_slots_lie_in_whole_blocks(void **state) {
  Fixture *f = *state;
  moecc_resident list[UNITS];
  moecc_context m = {0};
  moecc_source s = counting(f->pack, f->bytes);
  size_t bytes;
  make_resident(f, list, (1u << UNITS) - 1);
  unsigned char *arena = resident_arena(f, ALL_TASKS, &bytes);
  assert_int_equal(init(f, &m, arena, bytes, &s), MOECC_OK);
  for (unsigned u = 0; u < UNITS; u++) {
    const bool large = MOECC_SLOT_ALIGN(f->unit[u].bytes) == 4096;
    const unsigned char *place = m.weights.resident + f->unit[u].resident;
    assert_int_equal(f->unit[u].resident % MOECC_SLOT_ALIGN(f->unit[u].bytes), 0);
    assert_ptr_equal(counted.dst[u], large ? (const void *)place : m.weights.buffer[0]);
    assert_true(place + f->unit[u].stride * f->unit[u].count <= arena + bytes);
  }
  moecc_context_close(&m);
  free(arena);
}

static void only_the_tasks_residents_are_loaded(void **state) {
  Fixture *f = *state;
  moecc_resident list[UNITS];
  make_resident(f, list, (1u << UNITS) - 1);
  for (unsigned tasks = 1; tasks <= ALL_TASKS; tasks++) {
    moecc_context m = {0};
    moecc_source s = counting(f->pack, f->bytes);
    size_t bytes;
    unsigned char *arena = resident_arena(f, tasks, &bytes);
    const size_t needed = MOECC_STREAM_BYTES(f->network.buffer) + moecc_resident_bytes(&f->network, tasks);
    assert_int_equal(moecc_context_init(&m, &f->network, tasks, arena, needed - 1, 0, &s, NULL), MOECC_ERROR_ARENA);
    assert_int_equal(m.needed, needed);
    assert_int_equal(counted.begun, 0);
    assert_int_equal(moecc_context_init(&m, &f->network, tasks, arena, needed, 0, &s, NULL), MOECC_OK);
    assert_int_equal(counted.slots[3][0], tasks & 1);
    assert_int_equal(counted.slots[4][0], tasks >> 1);
    moecc_context_close(&m);
    free(arena);
  }
  assert_true(moecc_resident_bytes(&f->network, 1) < moecc_resident_bytes(&f->network, 2));
}

/* Each read of init in turn fails: the status, the slot, and a context that can be initialised afterwards. */
static void a_resident_that_fails_is_named(void **state) {
  Fixture *f = *state;
  static const moecc_status statuses[] = {MOECC_ERROR_IO, MOECC_ERROR_TIMEOUT, MOECC_ERROR_LENGTH};
  moecc_resident list[UNITS];
  size_t bytes;
  make_resident(f, list, (1u << UNITS) - 1);
  unsigned char *arena = resident_arena(f, ALL_TASKS, &bytes);
  for (size_t k = 0; k < sizeof statuses / sizeof *statuses; k++) {
    unsigned failed = 0, fail_at = 1;
    for (;; fail_at++) {
      moecc_context m = {0};
      moecc_source s = counting(f->pack, f->bytes);
      counted.fail_at = fail_at, counted.status = statuses[k];
      const moecc_status status = init(f, &m, arena, bytes, &s);
      if (status == MOECC_OK) {
        moecc_context_close(&m);
        break;
      }
      assert_int_equal(status, statuses[k]);
      assert_int_equal(counted.forgotten, status == MOECC_ERROR_TIMEOUT);
      if (fail_at > 1 + UNITS) { /* the head and the directory come first */
        unsigned slot = failed++, unit = 0;
        while (slot >= list[unit].unit.count) slot -= list[unit++].unit.count;
        assert_ptr_equal(m.weights.fault.unit, &list[unit].unit);
        assert_int_equal(m.weights.fault.index, slot);
      } else {
        assert_null(m.weights.fault.unit);
      }
      assert_int_equal(moecc_call_begin(&m, 0), MOECC_ERROR_STATE);
      counted.fail_at = 0;
      assert_int_equal(init(f, &m, arena, bytes, &s), MOECC_OK);
      assert_int_equal(take_all(f, &m.weights), MOECC_OK);
      moecc_context_close(&m);
    }
    assert_int_equal(failed, UNITS - 1 + EXPERTS);
  }
  free(arena);
}

static void a_damaged_resident_is_named(void **state) {
  Fixture *f = *state;
  moecc_resident list[UNITS];
  unsigned char *p = copy_pack(f);
  moecc_options trusting = {.trust_weights = 1};
  size_t bytes;
  make_resident(f, list, (1u << UNITS) - 1);
  unsigned char *arena = resident_arena(f, ALL_TASKS, &bytes);
  for (unsigned u = 0; u < UNITS; u++)
    for (uint32_t i = 0; i < list[u].unit.count; i++) {
      const size_t at =
          (size_t)(list[u].unit.offset + i * list[u].unit.stride + (u * 977 + i * 333) % list[u].unit.bytes);
      moecc_context m = {0};
      moecc_source s = counting(p, f->bytes);
      p[at] ^= 4;
      assert_int_equal(init(f, &m, arena, bytes, &s), MOECC_ERROR_CHECKSUM);
      assert_ptr_equal(m.weights.fault.unit, &list[u].unit);
      assert_int_equal(m.weights.fault.index, i);
      assert_int_equal(moecc_context_init(&m, &f->network, ALL_TASKS, arena, bytes, 0, &s, &trusting), MOECC_OK);
      moecc_context_close(&m);
      p[at] ^= 4;
    }
  free(arena), free(p);
}

/* A source that is resident itself is used as ever. */
static void a_resident_source_needs_no_area(void **state) {
  Fixture *f = *state;
  moecc_resident list[UNITS];
  moecc_context m = {0};
  moecc_source s;
  make_resident(f, list, (1u << UNITS) - 1);
  assert_int_equal(moecc_memory_source(&s, f->pack, f->bytes, 0), MOECC_OK);
  assert_int_equal(init(f, &m, NULL, 0, &s), MOECC_OK);
  assert_int_equal(m.needed, 0);
  assert_int_equal(take_all(f, &m.weights), MOECC_OK);
  moecc_context_close(&m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(resident_units_are_read_once),        TEST(resident_slots_lie_in_whole_blocks),
      TEST(only_the_tasks_residents_are_loaded), TEST(a_resident_that_fails_is_named),
      TEST(a_damaged_resident_is_named),         TEST(a_resident_source_needs_no_area),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
