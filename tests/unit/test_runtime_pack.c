/* The pack: where its slots lie, and what is checked of it before any compute. */
#include "runtime_fixture.h"

#include "../../runtime/moecc_rt_file.c"

static void slots_are_where_the_format_says(void **state) {
  const Fixture *f = *state;
  for (size_t u = 0; u < UNITS; u++) {
    assert_int_equal(f->unit[u].offset % (f->unit[u].bytes + 8 < 4096 ? 64 : 4096), 0);
    for (uint32_t i = 0; i < f->unit[u].count; i++) {
      const unsigned char *slot = f->pack + f->unit[u].offset + i * f->unit[u].stride;
      uint64_t sum;
      assert_true(slot_is_right(&f->unit[u], i, slot));
      memcpy(&sum, slot + MOECC_SLOT_BYTES(f->unit[u].bytes) - 8, 8);
      assert_true(sum == moecc_slot_sum(&f->unit[u], i, slot));
    }
  }
}

static void embedded_units_need_no_source(void **state) {
  Fixture *f = *state;
  moecc_context m = {0};
  moecc_network n = {.tasks = ALL_TASKS};
  for (size_t u = 0; u < UNITS; u++) f->unit[u].data = f->pack + f->unit[u].offset;
  assert_int_equal(moecc_context_init(&m, &n, 1, NULL, 0, 0, NULL, NULL), MOECC_OK);
  assert_int_equal(take_all(f, &m.weights), MOECC_OK);
  moecc_context_close(&m);
}

/* ---- bad packs --------------------------------------------------------------------------------------------------- */

static moecc_status check(const void *pack, uint64_t bytes, uint64_t model, unsigned tasks) {
  moecc_source s;
  moecc_status status = moecc_memory_source(&s, pack, bytes, 0);
  return status == MOECC_OK ? moecc_pack_check(&s, model, tasks, NULL, 0) : status;
}

static void wrong_packs_are_told_apart(void **state) {
  const Fixture *f = *state;
  unsigned char *p = copy_pack(f);
  moecc_pack_head *h = (moecc_pack_head *)p;
  assert_int_equal(check(p, f->bytes, MODEL, ALL_TASKS), MOECC_OK);
  assert_int_equal(check(p, f->bytes, MODEL + 1, ALL_TASKS), MOECC_ERROR_MODEL);
  assert_int_equal(check(p, f->bytes - 1, MODEL, ALL_TASKS), MOECC_ERROR_LENGTH);
  assert_int_equal(check(p, f->bytes + 1, MODEL, ALL_TASKS), MOECC_ERROR_LENGTH);
  assert_int_equal(check(p, 63, MODEL, ALL_TASKS), MOECC_ERROR_LENGTH);
  h->version++;
  assert_int_equal(check(p, f->bytes, MODEL, ALL_TASKS), MOECC_ERROR_FORMAT);
  h->version--, h->order = 0x04030201;
  assert_int_equal(check(p, f->bytes, MODEL, ALL_TASKS), MOECC_ERROR_FORMAT);
  h->order = 0x01020304, h->magic[0]++;
  assert_int_equal(check(p, f->bytes, MODEL, ALL_TASKS), MOECC_ERROR_FORMAT);
  free(p);
}

static void every_bit_of_head_and_directory_counts(void **state) {
  const Fixture *f = *state;
  unsigned char *p = copy_pack(f);
  size_t head = 64 + 64 * UNITS;
  for (size_t bit = 0; bit < head * 8; bit++) {
    p[bit / 8] ^= (unsigned char)(1 << bit % 8);
    assert_int_not_equal(check(p, f->bytes, MODEL, 1), MOECC_OK);
    p[bit / 8] ^= (unsigned char)(1 << bit % 8);
  }
  assert_int_equal(check(p, f->bytes, MODEL, 1), MOECC_OK);
  free(p);
}

/* A directory that is consistent with its checksum but does not make sense. */
static void nonsense_in_the_directory_is_refused(void **state) {
  const Fixture *f = *state;
  static const struct {
    size_t field;
    uint64_t value;
    moecc_status gets;
  } bad[] = {
      {offsetof(moecc_pack_entry, bytes), 0, MOECC_ERROR_FORMAT},
      {offsetof(moecc_pack_entry, bytes), UINT64_MAX - 3, MOECC_ERROR_FORMAT},
      {offsetof(moecc_pack_entry, offset), 0, MOECC_ERROR_FORMAT},
      {offsetof(moecc_pack_entry, offset), UINT64_MAX & ~UINT64_C(4095), MOECC_ERROR_LENGTH},
      {offsetof(moecc_pack_entry, offset), 1000000 * 64, MOECC_ERROR_LENGTH},
      {offsetof(moecc_pack_entry, stride), 64, MOECC_ERROR_FORMAT},
      {offsetof(moecc_pack_entry, count), 0, MOECC_ERROR_FORMAT},
      {offsetof(moecc_pack_entry, count), UINT32_MAX, MOECC_ERROR_LENGTH},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    unsigned char *p = copy_pack(f);
    moecc_pack_head *h = (moecc_pack_head *)p;
    moecc_pack_entry *e = (moecc_pack_entry *)(p + 64);
    size_t width = bad[i].field == offsetof(moecc_pack_entry, count) ? 4 : 8;
    memcpy((unsigned char *)&e[EXPERT_UNIT] + bad[i].field, &bad[i].value, width);
    h->sum = moecc_checksum(h, 56, 0);
    for (size_t u = 0; u < UNITS; u++) h->sum = moecc_checksum(&e[u], 64, h->sum);
    assert_int_equal(check(p, f->bytes, MODEL, 1), bad[i].gets);
    free(p);
  }
}

/* Only the units of the wanted tasks are looked at. */
static void other_tasks_units_are_not_checked(void **state) {
  const Fixture *f = *state;
  unsigned char *p = copy_pack(f);
  moecc_pack_head *h = (moecc_pack_head *)p;
  moecc_pack_entry *e = (moecc_pack_entry *)(p + 64);
  e[4].count = 0; /* task 1's head */
  h->sum = moecc_checksum(h, 56, 0);
  for (size_t u = 0; u < UNITS; u++) h->sum = moecc_checksum(&e[u], 64, h->sum);
  assert_int_equal(check(p, f->bytes, MODEL, 1), MOECC_OK);
  assert_int_equal(check(p, f->bytes, MODEL, 2), MOECC_ERROR_FORMAT);
  free(p);
}

static void init_refuses_before_any_compute(void **state) {
  const Fixture *f = *state;
  moecc_context m = {0};
  moecc_file file;
  size_t bytes;
  unsigned char *arena = new_arena(f, 0, &bytes);
  assert_int_equal(init(f, &m, arena, bytes, NULL), MOECC_ERROR_MISSING);
  const char *path = write_file(f->pack, f->bytes - 100);
  assert_int_equal(moecc_file_open(&file, path), MOECC_OK);
  assert_int_equal(init(f, &m, arena, bytes, &file.source), MOECC_ERROR_LENGTH);
  moecc_file_close(&file);
  write_file(f->pack, 10);
  assert_int_equal(moecc_file_open(&file, path), MOECC_ERROR_LENGTH);
  assert_int_equal(moecc_file_map(&file, path), MOECC_ERROR_LENGTH);
  assert_int_equal(moecc_file_open(&file, "/nonexistent/weights.bin"), MOECC_ERROR_MISSING);
  assert_int_equal(moecc_file_open(&file, "/tmp"), MOECC_ERROR_FORMAT);
  assert_int_equal(moecc_file_open(&file, NULL), MOECC_ERROR_ARGUMENT);
  moecc_file_close(&file);
  unlink(path);
  free(arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(slots_are_where_the_format_says),      TEST(embedded_units_need_no_source),
      TEST(wrong_packs_are_told_apart),           TEST(every_bit_of_head_and_directory_counts),
      TEST(nonsense_in_the_directory_is_refused), TEST(other_tasks_units_are_not_checked),
      TEST(init_refuses_before_any_compute),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
