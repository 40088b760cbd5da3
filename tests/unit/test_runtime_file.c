/* Weights out of memory and files. Reads are injected, so that interrupted, short and failing ones come as ordered; so
 * is advice about mapped memory. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include "runtime_fixture.h"

/* ---- injected reads --------------------------------------------------------------------------------------------- */

static struct {
  enum { AS_IS, INTERRUPTED, SHORT, FAILING } mode;
  unsigned calls, fail_at;
} reads;

static ssize_t injected_pread(int fd, void *p, size_t n, off_t at) {
  reads.calls++;
  if (reads.mode == INTERRUPTED && reads.calls % 2) return errno = EINTR, -1;
  if (reads.mode == FAILING && reads.calls >= reads.fail_at) return errno = EIO, -1;
  if (reads.mode == SHORT && n > 1) n = 1 + reads.calls * 37 % (n - 1);
  return pread(fd, p, n, at);
}

/* ---- injected advice -------------------------------------------------------------------------------------------- */

static struct {
  bool in_memory; /* all pages of mappings are */
  unsigned looks, calls;
  uintptr_t begin, end; /* of the last call */
} advice;

static int injected_mincore(void *p, size_t n, unsigned char *there) {
  assert_true((uintptr_t)p % 4096 == 0 && n == 1);
  advice.looks++;
  *there = advice.in_memory;
  return 0;
}

static int injected_madvise(void *p, size_t n, int what) {
  if (what != MADV_WILLNEED) return madvise(p, n, what);
  advice.calls++;
  advice.begin = (uintptr_t)p, advice.end = (uintptr_t)p + n;
  return madvise(p, n, what);
}

#define pread   injected_pread
#define mincore injected_mincore
#define madvise injected_madvise
#include "../../runtime/moecc_rt_file.c"
#undef pread
#undef mincore
#undef madvise

static void reset_reads(void) { memset(&reads, 0, sizeof reads); }

/* ---- sources ----------------------------------------------------------------------------------------------------- */

static void every_source_delivers(void **state) {
  const Fixture *f = *state;
  moecc_source s;
  moecc_file file;
  unsigned char *memory = copy_pack(f);
  uint32_t unit, index;
  assert_int_equal(moecc_memory_source(&s, f->pack, f->bytes, 0), MOECC_OK);
  check_source(f, &s);
  assert_int_equal(moecc_memory_source(&s, f->pack, f->bytes, 1), MOECC_OK);
  check_source(f, &s);
  const char *path = write_file(f->pack, f->bytes);
  assert_int_equal(moecc_file_open(&file, path), MOECC_OK);
  check_source(f, &file.source);
  moecc_file_close(&file);
  assert_int_equal(moecc_file_map(&file, path), MOECC_OK);
  assert_int_equal(moecc_pack_verify(&file.source, NULL, 0, &unit, &index), MOECC_OK);
  assert_int_equal(unit, MOECC_NO_UNIT);
  check_source(f, &file.source);
  moecc_file_close(&file);
  memset(memory, 0, f->bytes);
  assert_int_equal(moecc_file_load(&file, path, NULL, 0, NULL, NULL), MOECC_ERROR_ARENA);
  assert_int_equal(file.bytes, f->bytes);
  assert_int_equal(moecc_file_load(&file, path, memory, f->bytes - 1, NULL, NULL), MOECC_ERROR_ARENA);
  assert_int_equal(moecc_file_load(&file, path, memory + 1, f->bytes, NULL, NULL), MOECC_ERROR_ARENA);
  assert_int_equal(moecc_file_load(&file, path, memory, f->bytes, &unit, &index), MOECC_OK);
  check_source(f, &file.source);
  moecc_file_close(&file);
  moecc_file_close(&file);
  free(memory);
  unlink(path);
}

/* A mapped slot that is asked for is read ahead, unless it is in memory; taking it asks for nothing but the next. */
static void mapped_slots_are_read_ahead(void **state) {
  const Fixture *f = *state;
  const moecc_unit *big = &f->unit[4], *experts = &f->unit[EXPERT_UNIT];
  moecc_file file;
  moecc_context m = {0};
  moecc_status s = MOECC_OK;
  assert_int_equal(moecc_file_map(&file, write_file(f->pack, f->bytes)), MOECC_OK);
  assert_int_equal(init(f, &m, NULL, 0, &file.source), MOECC_OK);
  memset(&advice, 0, sizeof advice);
  uintptr_t map = (uintptr_t)file.map;
  assert_ptr_equal(moecc_take(&m.weights, big, NULL, &s), (void *)(map + big->offset));
  assert_true(advice.looks == 0 && advice.calls == 0);
  moecc_ask(&m.weights, big);
  assert_true(advice.looks == 1 && advice.calls == 1);
  assert_true(advice.begin == map + big->offset && advice.end == map + big->offset + MOECC_SLOT_BYTES(big->bytes));
  assert_non_null(moecc_take_expert(&m.weights, experts, 1, experts, 3, &s));
  uintptr_t third = map + experts->offset + 3 * experts->stride;
  assert_true(advice.calls == 2 && advice.begin == (third & ~(uintptr_t)4095));
  assert_true(advice.end == third + MOECC_SLOT_BYTES(experts->bytes));
  advice.in_memory = true;
  moecc_ask(&m.weights, big);
  assert_true(advice.looks == 3 && advice.calls == 2);
  moecc_context_close(&m);
  moecc_file_close(&file);
  unlink(file_name);
}

/* ---- reads that are interrupted, short, failing ------------------------------------------------------------------ */

static void interrupted_and_short_reads_are_retried(void **state) {
  const Fixture *f = *state;
  moecc_file file;
  const char *path = write_file(f->pack, f->bytes);
  reset_reads();
  for (reads.mode = INTERRUPTED; reads.mode <= SHORT; reads.mode++) {
    assert_int_equal(moecc_file_open(&file, path), MOECC_OK);
    check_source(f, &file.source);
    moecc_file_close(&file);
    assert_true(reads.calls > 20);
  }
  reset_reads();
  unlink(path);
}

/* Every read in turn fails from then on; afterwards the same context works again. */
static void each_failing_read_names_its_slot(void **state) {
  const Fixture *f = *state;
  moecc_file file;
  size_t bytes, failed_in_init = 0, failed_in_take = 0;
  unsigned char *arena = new_arena(f, 0, &bytes);
  const char *path = write_file(f->pack, f->bytes);
  assert_int_equal(moecc_file_open(&file, path), MOECC_OK);
  for (unsigned fail_at = 1;; fail_at++) {
    moecc_context m = {0};
    reads.mode = FAILING, reads.calls = 0, reads.fail_at = fail_at;
    moecc_status s = init(f, &m, arena, bytes, &file.source);
    if (s != MOECC_OK) {
      assert_int_equal(s, MOECC_ERROR_IO);
      assert_null(m.weights.fault.unit);
      failed_in_init++;
      continue;
    }
    s = take_all(f, &m.weights);
    reset_reads();
    if (s == MOECC_OK) {
      moecc_context_close(&m);
      break;
    }
    assert_int_equal(s, MOECC_ERROR_IO);
    check_fault(f, &m.weights, failed_in_take++);
    assert_int_equal(take_all(f, &m.weights), MOECC_OK);
    moecc_context_close(&m);
  }
  assert_int_equal(failed_in_init, 1 + UNITS);
  assert_int_equal(failed_in_take, UNITS - 1 + EXPERTS);
  moecc_file_close(&file);
  unlink(path);
  free(arena);
}

static void a_file_cut_while_open_is_noticed(void **state) {
  const Fixture *f = *state;
  moecc_file file;
  moecc_context m = {0};
  size_t bytes;
  unsigned char *arena = new_arena(f, 0, &bytes);
  const char *path = write_file(f->pack, f->bytes);
  assert_int_equal(moecc_file_open(&file, path), MOECC_OK);
  assert_int_equal(init(f, &m, arena, bytes, &file.source), MOECC_OK);
  assert_int_equal(truncate(path, (off_t)f->unit[4].offset + 5), 0);
  assert_int_equal(take_all(f, &m.weights), MOECC_ERROR_LENGTH);
  assert_ptr_equal(m.weights.fault.unit, &f->unit[4]);
  moecc_context_close(&m);
  moecc_file_close(&file);
  unlink(path);
  free(arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(every_source_delivers),
      TEST(mapped_slots_are_read_ahead),
      TEST(interrupted_and_short_reads_are_retried),
      TEST(each_failing_read_names_its_slot),
      TEST(a_file_cut_while_open_is_noticed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
