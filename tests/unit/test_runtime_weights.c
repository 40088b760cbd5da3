/* Weights at run time: checksums, the pack's checks, the two buffers, files. Reads are injected, so that interrupted,
 * short and failing ones come as ordered. */
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

/* ---- checksum -------------------------------------------------------------------------------------------------------
 */

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

/* ---- sources ----------------------------------------------------------------------------------------------------- */

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

static void embedded_units_need_no_source(void **state) {
  Fixture *f = *state;
  moecc_context m = {0};
  moecc_network n = {.tasks = ALL_TASKS};
  for (size_t u = 0; u < UNITS; u++) f->unit[u].data = f->pack + f->unit[u].offset;
  assert_int_equal(moecc_context_init(&m, &n, 1, NULL, 0, 0, NULL, NULL), MOECC_OK);
  assert_int_equal(take_all(f, &m.weights), MOECC_OK);
  moecc_context_close(&m);
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

/* ---- resident units ---------------------------------------------------------------------------------------------- */

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

/* ---- flipped bits ------------------------------------------------------------------------------------------------ */

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
    size_t slot = failed_in_take++;
    size_t unit = slot < 2 ? slot : slot < 2 + EXPERTS ? EXPERT_UNIT : slot - EXPERTS + 1;
    assert_ptr_equal(m.weights.fault.unit, &f->unit[unit]);
    assert_int_equal(m.weights.fault.index, unit == EXPERT_UNIT ? slot - 2 : 0);
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

/* ---- the two buffers --------------------------------------------------------------------------------------------- */

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

static uint32_t random_state = 1;
static uint32_t random_below(uint32_t n) {
  random_state = random_state * 1664525u + 1013904223u;
  return (random_state >> 8) % n;
}

/* Any order of asks and takes, right or wrong guesses, with failures now and then: what arrives is always right. */
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
    for (unsigned k = 0; k < 40; k++) {
      const moecc_unit *u = &f->unit[random_below(UNITS)], *n = &f->unit[random_below(UNITS)];
      uint32_t i = random_below(u->count), j = random_below(n->count);
      moecc_status s = MOECC_OK;
      if (random_below(3) == 0) moecc_ask_expert(&m.weights, n, j);
      const void *p = moecc_take_expert(&m.weights, u, i, random_below(4) ? n : NULL, j, &s);
      assert_true((p != NULL) == (s == MOECC_OK));
      if (p)
        assert_true(slot_is_right(u, i, p));
      else
        failures++, assert_int_equal(s, MOECC_ERROR_IO);
      assert_true(d.under_way <= 2);
    }
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
      cmocka_unit_test(checksum_finds_every_flipped_bit),
      cmocka_unit_test(checksum_depends_on_length_and_order),
      cmocka_unit_test(checksum_is_pinned),
      TEST(slots_are_where_the_format_says),
      TEST(every_source_delivers),
      TEST(mapped_slots_are_read_ahead),
      TEST(embedded_units_need_no_source),
      TEST(expert_out_of_range_is_refused),
      TEST(wrong_packs_are_told_apart),
      TEST(every_bit_of_head_and_directory_counts),
      TEST(nonsense_in_the_directory_is_refused),
      TEST(other_tasks_units_are_not_checked),
      TEST(init_refuses_before_any_compute),
      TEST(resident_units_are_read_once),
      TEST(resident_slots_lie_in_whole_blocks),
      TEST(only_the_tasks_residents_are_loaded),
      TEST(a_resident_that_fails_is_named),
      TEST(a_damaged_resident_is_named),
      TEST(a_resident_source_needs_no_area),
      TEST(a_flipped_bit_names_its_slot),
      TEST(the_source_works_while_a_checksum_is_computed),
      TEST(swapped_experts_are_found),
      TEST(interrupted_and_short_reads_are_retried),
      TEST(each_failing_read_names_its_slot),
      TEST(a_file_cut_while_open_is_noticed),
      TEST(the_next_slot_is_asked_for_at_once),
      TEST(buffers_hold_whole_blocks),
      TEST(any_order_of_takes_is_right),
      TEST(experts_without_a_queue_are_not_loaded),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
