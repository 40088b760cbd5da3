/* Checksums of weights: what they tell apart, that all of a slot counts, and damaged slots that are found. */
#include "runtime_fixture.h"

#include "../../runtime/moecc_rt_file.c"

/* ---- what they tell apart ---------------------------------------------------------------------------------------- */

static void checksum_finds_every_flipped_bit(void **state) {
  unsigned char data[600];
  (void)state;
  for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 13);
  for (size_t n = 1; n <= 590; n += n < 150 ? 7 : 73) {
    uint64_t sum = moecc_checksum(data + 1, n, 5);
    for (size_t bit = 0; bit < n * 8; bit++) {
      data[1 + bit / 8] ^= (unsigned char)(1 << bit % 8);
      assert_true(moecc_checksum(data + 1, n, 5) != sum);
      data[1 + bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    assert_true(moecc_checksum(data + 1, n, 6) != sum);
    assert_true(moecc_checksum(data + 1, n + 1, 5) != sum);
  }
}

/* Zeros of different lengths differ, and words that change places do. */
static void checksum_depends_on_length_and_order(void **state) {
  uint64_t zeros[64] = {0}, seen[512], words[40], sum;
  (void)state;
  for (size_t n = 0; n < 512; n++) {
    seen[n] = moecc_checksum(zeros, n, 0);
    for (size_t k = 0; k < n; k++) assert_true(seen[k] != seen[n]);
  }
  for (uint64_t i = 0; i < 40; i++) words[i] = i;
  sum = moecc_checksum(words, sizeof words, 0);
  for (size_t a = 0; a < 40; a++)
    for (size_t b = 0; b < a; b++) {
      words[a] = b, words[b] = a;
      assert_true(moecc_checksum(words, sizeof words, 0) != sum);
      words[a] = a, words[b] = b;
    }
}

/* The same on every machine: packs travel. */
static void checksum_is_pinned(void **state) {
  unsigned char data[2000];
  (void)state;
  for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 3 + 1);
  assert_true(moecc_checksum(data, 0, 0) == UINT64_C(0xdcecbb0429b97ebb));
  assert_true(moecc_checksum(data, 77, 0) == UINT64_C(0xebc469017795ec67));
  assert_true(moecc_checksum(data + 1, 64, 9) == UINT64_C(0x0db1a81d1f2adf8f));
  assert_true(moecc_checksum(data, sizeof data, 3) == UINT64_C(0x5ceb7d9341dda5f0));
}

/* ---- quarters and the rest --------------------------------------------------------------------------------------- */

/* Four quarters are whole blocks of 64 bytes. What they leave: nothing, nearly as much as can be, no whole block, whole
 * words, a word begun. */
static const uint64_t large[] = {65536, 65536 - 1, 256 + 63, 65536 + 24, 3 * 65536 + 64 + 13};
_Static_assert(sizeof large / sizeof *large == UNITS, "the fixture's units");

static void make_large(Ctx *c, void *fixture) {
  static const char *const name[UNITS] = {"even", "most", "short", "words", "larger"};
  PackUnit units[UNITS];
  for (size_t u = 0; u < UNITS; u++) units[u] = (PackUnit){.bytes = large[u], .count = 1, .tasks = ALL_TASKS};
  make_pack_of(c, fixture, name, units, UNITS);
}

static int large_open(void **state) { return fixture_open_with(state, make_large); }

static void check_taken(moecc_context *m, const moecc_unit *unit, moecc_status expected) {
  moecc_status status = MOECC_OK;
  const void *slot = moecc_take(&m->weights, unit, NULL, &status);
  assert_int_equal(status, expected);
  if (expected == MOECC_OK)
    assert_true(slot_is_right(unit, 0, slot));
  else
    assert_null(slot), assert_ptr_equal(m->weights.fault.unit, unit);
}

/* A flipped bit in the first and the last byte of each quarter and of the rest, and in one in between: the take fails,
 * and the next one, of what is good again, does not. */
static void every_quarter_and_the_rest_count(void **state) {
  const Fixture *f = *state;
  unsigned char *p = copy_pack(f);
  size_t bytes;
  unsigned char *arena = new_arena(f, 0, &bytes);
  moecc_source s;
  moecc_context m = {0};
  assert_int_equal(moecc_memory_source(&s, p, f->bytes, 1), MOECC_OK);
  assert_int_equal(init(f, &m, arena, bytes, &s), MOECC_OK);
  for (size_t u = 0; u < UNITS; u++) {
    const size_t quarter = (size_t)large[u] / 256 * 64;
    for (size_t part = 0; part < 5; part++) {
      const size_t begin = part * quarter, end = part < 4 ? begin + quarter : (size_t)large[u];
      const size_t places[] = {begin, begin + (end - begin) / 3, end - 1};
      for (size_t i = 0; i < 3 && begin < end; i++) {
        unsigned char *byte = p + f->unit[u].offset + places[i];
        const unsigned char bit = (unsigned char)(1 << (part + i) % 8);
        *byte ^= bit;
        check_taken(&m, &f->unit[u], MOECC_ERROR_CHECKSUM);
        *byte ^= bit;
        check_taken(&m, &f->unit[u], MOECC_OK);
        check_taken(&m, &f->unit[(u + 2) % UNITS], MOECC_OK); /* what comes next is in no buffer then */
        check_taken(&m, &f->unit[(u + 3) % UNITS], MOECC_OK);
      }
    }
  }
  moecc_context_close(&m);
  free(arena), free(p);
}

/* ---- damaged slots ----------------------------------------------------------------------------------------------- */

static void a_flipped_bit_names_its_slot(void **state) {
  const Fixture *f = *state;
  moecc_file file;
  unsigned char *p = copy_pack(f), *memory = copy_pack(f);
  size_t bytes, room;
  unsigned char *arena = new_arena(f, 0, &bytes), *buffer = new_buffer(f, &room);
  for (uint32_t u = 0; u < UNITS; u++)
    for (uint32_t i = 0; i < f->unit[u].count; i++) {
      size_t at = (size_t)(f->unit[u].offset + i * f->unit[u].stride + (u * 977 + i * 333) % f->unit[u].bytes);
      moecc_source s;
      moecc_context m = {0};
      moecc_options trusting = {.trust_weights = 1};
      uint32_t unit = 99, index = 99;
      p[at] ^= 0x10;
      moecc_memory_source(&s, p, f->bytes, 1);
      assert_int_equal(init(f, &m, arena, bytes, &s), MOECC_OK);
      assert_int_equal(take_all(f, &m.weights), MOECC_ERROR_CHECKSUM);
      assert_ptr_equal(m.weights.fault.unit, &f->unit[u]);
      assert_int_equal(m.weights.fault.index, i);
      moecc_context_close(&m);
      assert_int_equal(moecc_context_init(&m, &f->network, 1, arena, bytes, 0, &s, &trusting), MOECC_OK);
      moecc_status status = MOECC_OK;
      assert_non_null(moecc_take_expert(&m.weights, &f->unit[u], i, NULL, 0, &status));
      moecc_context_close(&m);
      assert_int_equal(moecc_pack_verify(&s, buffer, room, &unit, &index), MOECC_ERROR_CHECKSUM);
      assert_true(unit == u && index == i);
      unit = index = 99;
      assert_int_equal(moecc_file_load(&file, write_file(p, f->bytes), memory, f->bytes, &unit, &index),
                       MOECC_ERROR_CHECKSUM);
      assert_true(unit == u && index == i);
      p[at] ^= 0x10;
    }
  unlink(file_name);
  free(arena), free(p), free(memory), free(buffer);
}

/* The next slot is asked for before a checksum is computed; a bad slot is not kept, and can be taken once it is good. */
static void the_source_works_while_a_checksum_is_computed(void **state) {
  const Fixture *f = *state;
  const moecc_unit *bad = &f->unit[1], *next = &f->unit[3];
  unsigned char *p = copy_pack(f);
  size_t bytes;
  unsigned char *arena = new_arena(f, 0, &bytes);
  moecc_source s;
  moecc_context m = {0};
  for (int ahead = 0; ahead < 2; ahead++) { /* the bad slot is asked for by its own take, or before */
    moecc_status status = MOECC_OK;
    p[bad->offset + 17] ^= 1;
    moecc_memory_source(&s, p, f->bytes, 1);
    assert_int_equal(init(f, &m, arena, bytes, &s), MOECC_OK);
    if (ahead) moecc_ask(&m.weights, bad);
    assert_null(moecc_take(&m.weights, bad, next, &status));
    assert_int_equal(status, MOECC_ERROR_CHECKSUM);
    assert_ptr_equal(m.weights.fault.unit, bad);
    assert_true(m.weights.held[0].unit == next || m.weights.held[1].unit == next);
    p[bad->offset + 17] ^= 1;
    status = MOECC_OK;
    const void *slot = moecc_take(&m.weights, bad, next, &status);
    assert_non_null(slot);
    assert_true(slot_is_right(bad, 0, slot));
    slot = moecc_take(&m.weights, next, NULL, &status);
    assert_non_null(slot);
    assert_true(slot_is_right(next, 0, slot));
    moecc_context_close(&m);
  }
  free(arena), free(p);
}

/* A slot that is whole, but another's: the checksum knows its place. */
static void swapped_experts_are_found(void **state) {
  const Fixture *f = *state;
  const moecc_unit *u = &f->unit[EXPERT_UNIT];
  unsigned char *p = copy_pack(f);
  moecc_source s;
  uint32_t unit, index;
  memcpy(p + u->offset, f->pack + u->offset + u->stride, (size_t)u->stride);
  memcpy(p + u->offset + u->stride, f->pack + u->offset, (size_t)u->stride);
  moecc_memory_source(&s, p, f->bytes, 0);
  assert_int_equal(moecc_pack_verify(&s, NULL, 0, &unit, &index), MOECC_ERROR_CHECKSUM);
  assert_true(unit == EXPERT_UNIT && index == 0);
  free(p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(checksum_finds_every_flipped_bit),
      cmocka_unit_test(checksum_depends_on_length_and_order),
      cmocka_unit_test(checksum_is_pinned),
      cmocka_unit_test_setup_teardown(every_quarter_and_the_rest_count, large_open, fixture_close),
      TEST(a_flipped_bit_names_its_slot),
      TEST(the_source_works_while_a_checksum_is_computed),
      TEST(swapped_experts_are_found),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
