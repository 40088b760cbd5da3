/* Weights read past the system's cache, in each way that a machine can have: O_DIRECT or not, io_uring or not. System
 * calls are injected, so that reads are interrupted, come short, fail, never end, or cannot be cancelled, as ordered. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/types.h>

#include "runtime_fixture.h"

/* ---- injected system calls -------------------------------------------------------------------------------------- */

enum Mode { AS_IS, INTERRUPTED, SHORT, FAILING };

static struct {
  enum Mode mode;
  unsigned reads, fail_at;
  bool no_direct, no_ring, other_blocks; /* the machine refuses O_DIRECT, io_uring, reads of 4096-byte blocks */
  bool no_cancel;                        /* cancelling has no effect */
  uint32_t stuck; /* reads of this unit and those behind read `pipe` instead, where nothing comes */
  int pipe[2];
} machine;

static void mend_machine(void) {
  memset(&machine, 0, sizeof machine);
  machine.stuck = UNITS;
}

static int injected_fcntl(int fd, int command, ...) {
  va_list more;
  va_start(more, command);
  int flags = command == F_GETFL ? 0 : va_arg(more, int);
  va_end(more);
  if (machine.no_direct && command == F_SETFL && (flags & O_DIRECT)) return errno = EINVAL, -1;
  return fcntl(fd, command, flags);
}

/* A number of bytes that is no multiple of anything, at most n; a block is whole every other time. */
static size_t shortened(size_t n) {
  if (n <= 1 || (n <= MOECC_BLOCK && machine.reads % 2)) return n;
  return 1 + machine.reads * 1237 % (n - 1);
}

static ssize_t injected_pread(int fd, void *p, size_t n, off_t at) {
  machine.reads++;
  if (machine.other_blocks && (fcntl(fd, F_GETFL) & O_DIRECT)) return errno = EINVAL, -1;
  if (machine.mode == INTERRUPTED && machine.reads % 2) return errno = EINTR, -1;
  if (machine.mode == FAILING && machine.reads >= machine.fail_at) return errno = EIO, -1;
  ssize_t got = pread(fd, p, n, at);
  if (machine.mode != SHORT || got <= 0) return got;
  size_t less = shortened((size_t)got);
  memset((char *)p + less, 0xee, (size_t)got - less);
  return (ssize_t)less;
}

static long injected_syscall(long number, ...);

#define fcntl   injected_fcntl
#define pread   injected_pread
#define syscall injected_syscall
#include "../../runtime/moecc_rt_direct.c"
#include "../../runtime/moecc_rt_file.c"
#include "../../runtime/moecc_rt_threads.c"
#undef fcntl
#undef pread
#undef syscall

static moecc_direct d; /* the one that is tested */

/* The last request handed over becomes another one. */
static void alter_request(void) {
#if HAS_RING
  struct io_uring_sqe *q = (struct io_uring_sqe *)(void *)d.ring.entries + ((*d.ring.sq_tail - 1) & d.ring.sq_mask);
  if (q->opcode == IORING_OP_ASYNC_CANCEL && machine.no_cancel) q->opcode = IORING_OP_NOP;
  if (q->opcode != IORING_OP_READ) return;
  machine.reads++;
  uint32_t unit = d.read[q->user_data].piece.unit;
  if (unit != MOECC_NO_UNIT && unit >= machine.stuck) {
    q->fd = machine.pipe[0];
    q->off = UINT64_MAX; /* where it stands */
  }
#endif
}

/* The result that came last becomes another one. */
static void alter_result(void) {
#if HAS_RING
  static const int gentle[] = {-EINTR, -EAGAIN, -ECANCELED};
  struct io_uring_cqe *c = (struct io_uring_cqe *)(void *)d.ring.results + ((*d.ring.cq_tail - 1) & d.ring.cq_mask);
  moecc_direct_read *r = &d.read[c->user_data];
  if (c->user_data >= READS || c->res <= 0) return;
  int less = machine.mode == INTERRUPTED ? 0 : (int)shortened((size_t)c->res);
  if (machine.other_blocks && d.direct) c->res = -EINVAL;
  if (machine.mode == FAILING && machine.reads >= machine.fail_at) c->res = -EIO;
  if (machine.mode == SHORT || (machine.mode == INTERRUPTED && machine.reads % 2)) {
    memset((char *)rest_at(r) + less, 0xee, (size_t)(c->res - less));
    c->res = less ? less : gentle[machine.reads / 2 % 3];
  }
#else
  (void)shortened;
#endif
}

/* io_uring_enter; while results are altered, each request's is waited for at once. */
static long injected_enter(long number, va_list more) {
  int ring = va_arg(more, int);
  unsigned requests = va_arg(more, unsigned), results = va_arg(more, unsigned), flags = va_arg(more, unsigned);
  void *arg = va_arg(more, void *);
  size_t bytes = va_arg(more, size_t);
  bool altering = machine.mode != AS_IS || machine.other_blocks;
  if (requests) alter_request();
  long n = syscall(number, ring, requests, results, flags, arg, bytes);
#if HAS_RING
  unsigned all = count(&d, FLYING);
  if (requests && altering) {
    while (syscall(number, ring, 0, all, IORING_ENTER_GETEVENTS, NULL, 0) < 0) assert_int_equal(errno, EINTR);
    alter_result();
  }
#else
  (void)altering;
#endif
  return n;
}

static long injected_syscall(long number, ...) {
  va_list more;
  long n = -1;
  va_start(more, number);
  if (number == __NR_io_uring_enter) {
    n = injected_enter(number, more);
  } else if (machine.no_ring) {
    errno = EPERM;
  } else {
    unsigned entries = va_arg(more, unsigned);
    n = syscall(number, entries, va_arg(more, void *));
  }
  va_end(more);
  return n;
}

/* ---- ways ----------------------------------------------------------------------------------------------------------
 */

enum { WAYS = 4 }; /* the value of `without` for each */

static bool has_ring(void) {
  moecc_direct probe;
  const char *path = write_file("0123456789012345678901234567890123456789012345678901234567890123456789", 70);
  assert_int_equal(moecc_direct_open(&probe, path, 0), MOECC_OK);
  bool has = probe.in_background;
  moecc_direct_close(&probe);
  unlink(path);
  return has;
}

static void need_ring(void) {
  if (!has_ring()) skip();
}

/* Opens `d` on a file of the pack. */
static void open_pack(const Fixture *f, unsigned without) {
  assert_int_equal(moecc_direct_open(&d, write_file(f->pack, f->bytes), without), MOECC_OK);
}

static void close_pack(void) {
  moecc_direct_close(&d);
  moecc_direct_close(&d);
  unlink(file_name);
}

static int begin_test(void **state) {
  mend_machine();
  return fixture_open(state);
}

static int end_test(void **state) {
  if (machine.pipe[0]) close(machine.pipe[0]);
  if (machine.pipe[1]) close(machine.pipe[1]);
  mend_machine();
  return fixture_close(state);
}

static void every_way_delivers(void **state) {
  const Fixture *f = *state;
  bool ring = has_ring();
  size_t room;
  unsigned char *buffer = new_buffer(f, &room);
  for (unsigned without = 0; without < WAYS; without++) {
    uint32_t unit = 0;
    open_pack(f, without);
    assert_int_equal(d.in_background, ring && !(without & MOECC_WITHOUT_RING));
    if (without & MOECC_WITHOUT_DIRECT) assert_int_equal(d.direct, 0);
    int direct = d.direct;
    check_source(f, &d.source);
    assert_int_equal(d.direct, direct);
    assert_int_equal(moecc_pack_verify(&d.source, buffer, room, &unit, NULL), MOECC_OK);
    assert_int_equal(unit, MOECC_NO_UNIT);
    close_pack();
  }
  free(buffer);
}

static void what_the_machine_refuses_is_done_without(void **state) {
  const Fixture *f = *state;
  bool ring = has_ring();
  for (unsigned refused = 1; refused < 8; refused++) {
    machine.no_direct = refused & 1, machine.no_ring = refused & 2, machine.other_blocks = refused & 4;
    open_pack(f, 0);
    assert_int_equal(d.in_background, ring && !machine.no_ring);
    if (machine.no_direct) assert_int_equal(d.direct, 0);
    check_source(f, &d.source);
    if (machine.other_blocks) assert_int_equal(d.direct, 0);
    close_pack();
  }
}

static void files_that_are_none(void **state) {
  (void)state;
  assert_int_equal(moecc_direct_open(&d, "/nonexistent/weights.bin", 0), MOECC_ERROR_MISSING);
  moecc_direct_close(&d);
  assert_int_equal(moecc_direct_open(&d, "/tmp", 0), MOECC_ERROR_FORMAT);
  assert_int_equal(moecc_direct_open(&d, write_file("short", 5), 0), MOECC_ERROR_LENGTH);
  assert_int_equal(moecc_direct_open(&d, NULL, 0), MOECC_ERROR_ARGUMENT);
  assert_int_equal(moecc_direct_open(NULL, file_name, 0), MOECC_ERROR_ARGUMENT);
  moecc_direct_close(NULL);
  unlink(file_name);
}

/* Ordinary arenas begin anywhere; one that is not aligned to 64 bytes, or a buffer that is not on a block, is refused. */
static void misaligned_memory_is_refused(void **state) {
  const Fixture *f = *state;
  moecc_context m = {0};
  size_t bytes, room;
  unsigned char *arena = aligned_alloc(64, 8192 + MOECC_STREAM_BYTES(f->network.buffer)),
                *buffer = new_buffer(f, &room);
  bytes = MOECC_STREAM_BYTES(f->network.buffer);
  open_pack(f, 0);
  assert_int_equal(init(f, &m, arena + 8, bytes, &d.source), MOECC_ERROR_ARENA);
  assert_int_equal(init(f, &m, arena, bytes - 64, &d.source), MOECC_ERROR_ARENA);
  assert_int_equal(moecc_pack_check(&d.source, MODEL, 1, buffer + 64, 0), MOECC_ERROR_ARGUMENT);
  assert_int_equal(moecc_pack_verify(&d.source, buffer, room - MOECC_BLOCK, NULL, NULL), MOECC_ERROR_ARENA);
  for (size_t start = 0; start < 4096; start += 448) {
    assert_int_equal(init(f, &m, arena + start, bytes, &d.source), MOECC_OK);
    assert_int_equal(take_all(f, &m.weights), MOECC_OK);
    moecc_context_close(&m);
  }
  close_pack();
  free(arena), free(buffer);
}

/* ---- reads that go wrong ---------------------------------------------------------------------------------------- */

static void interrupted_and_short_reads_go_on(void **state) {
  const Fixture *f = *state;
  for (unsigned without = 0; without < WAYS; without++)
    for (enum Mode mode = INTERRUPTED; mode <= SHORT; mode++) {
      machine.mode = AS_IS;
      open_pack(f, without);
      machine.mode = mode, machine.reads = 0;
      check_source(f, &d.source);
      assert_true(machine.reads > 2 * (UNITS + EXPERTS));
      close_pack();
    }
}

/* Each read in turn fails from then on: the slot is named, and the same context works again afterwards. */
static void each_failing_read_names_its_slot(void **state) {
  const Fixture *f = *state;
  size_t bytes;
  unsigned char *arena = new_arena(f, 0, &bytes);
  for (unsigned without = 0; without < WAYS; without++) {
    size_t failed_in_init = 0, failed_in_take = 0;
    for (unsigned fail_at = 1;; fail_at++) {
      moecc_context m = {0};
      mend_machine();
      open_pack(f, without);
      machine.mode = FAILING, machine.fail_at = fail_at;
      moecc_status s = init(f, &m, arena, bytes, &d.source);
      if (s == MOECC_OK) s = take_all(f, &m.weights);
      machine.mode = AS_IS;
      if (m.tasks == 0) {
        assert_int_equal(s, MOECC_ERROR_IO);
        failed_in_init++;
      } else if (s != MOECC_OK) {
        assert_int_equal(s, MOECC_ERROR_IO);
        check_fault(f, &m.weights, failed_in_take++);
        assert_int_equal(take_all(f, &m.weights), MOECC_OK);
      }
      moecc_context_close(&m);
      close_pack();
      if (s == MOECC_OK) break;
    }
    assert_int_equal(failed_in_init, 1 + UNITS);
    assert_int_equal(failed_in_take, UNITS - 1 + EXPERTS);
  }
  free(arena);
}

static void a_file_cut_while_open_is_noticed(void **state) {
  const Fixture *f = *state;
  static const off_t behind[] = {0, 5, 4096, 5000, 8999, 9007};
  size_t bytes;
  unsigned char *arena = new_arena(f, 0, &bytes);
  for (unsigned i = 0; i < WAYS * 6; i++) {
    moecc_context m = {0};
    open_pack(f, i % WAYS);
    assert_int_equal(init(f, &m, arena, bytes, &d.source), MOECC_OK);
    assert_int_equal(truncate(file_name, (off_t)f->unit[4].offset + behind[i / WAYS]), 0);
    assert_int_equal(take_all(f, &m.weights), MOECC_ERROR_LENGTH);
    assert_ptr_equal(m.weights.fault.unit, &f->unit[4]);
    moecc_context_close(&m);
    close_pack();
  }
  free(arena);
}

static void a_flipped_bit_names_its_slot(void **state) {
  const Fixture *f = *state;
  Fixture damaged = *f;
  size_t bytes;
  unsigned char *arena = new_arena(f, 0, &bytes);
  damaged.pack = copy_pack(f);
  for (uint32_t u = 0; u < UNITS; u++)
    for (uint32_t i = 0; i < f->unit[u].count; i++) {
      unsigned char *at =
          damaged.pack + f->unit[u].offset + i * f->unit[u].stride + (u * 977 + i * 333) % f->unit[u].bytes;
      moecc_context m = {0};
      *at ^= 0x10;
      open_pack(&damaged, (u + i) % WAYS);
      assert_int_equal(init(f, &m, arena, bytes, &d.source), MOECC_OK);
      assert_int_equal(take_all(f, &m.weights), MOECC_ERROR_CHECKSUM);
      assert_ptr_equal(m.weights.fault.unit, &f->unit[u]);
      assert_int_equal(m.weights.fault.index, i);
      moecc_context_close(&m);
      close_pack();
      *at ^= 0x10;
    }
  free(damaged.pack), free(arena);
}

/* ---- two at once, and forgetting -------------------------------------------------------------------------------- */

static moecc_piece piece_of(const Fixture *f, size_t unit, uint32_t index) {
  const moecc_unit *u = &f->unit[unit];
  return (moecc_piece){u->offset + u->stride * index, (size_t)MOECC_SLOT_BYTES(u->bytes), (uint32_t)unit, index};
}

static moecc_status begin(const moecc_piece *p, void *dst) { return d.source.begin(d.source.self, p, dst); }

/* The slot has come, and is right. */
static void expect(const Fixture *f, const moecc_piece *p, void *dst) {
  const void *where = NULL;
  assert_int_equal(d.source.wait(d.source.self, p, dst, 0, &where), MOECC_OK);
  assert_ptr_equal(where, (char *)dst + p->offset % MOECC_BLOCK);
  assert_true(slot_is_right(&f->unit[p->unit], p->index, where));
}

static void two_pieces_in_any_order(void **state) {
  const Fixture *f = *state;
  size_t room;
  unsigned char *a = new_buffer(f, &room), *b = new_buffer(f, &room);
  moecc_piece big = piece_of(f, 4, 0), small = piece_of(f, EXPERT_UNIT, 4);
  for (unsigned i = 0; i < WAYS * 2; i++) {
    open_pack(f, i % WAYS);
    memset(a, 0, room), memset(b, 0, room);
    assert_int_equal(begin(&big, a), MOECC_OK);
    assert_int_equal(begin(&small, b), MOECC_OK);
    if (i < WAYS) expect(f, &big, a);
    expect(f, &small, b);
    if (i >= WAYS) expect(f, &big, a);
    close_pack();
  }
  free(a), free(b);
}

/* Reads of `unit` and all behind it never end. */
static void get_stuck(uint32_t unit) {
  assert_int_equal(pipe(machine.pipe), 0);
  machine.stuck = unit;
}

/* What is stuck writes now, as late as can be, unless it was cancelled. */
static void write_late(void) {
  char nonsense[64];
  memset(nonsense, 0xdd, sizeof nonsense);
  assert_int_equal(write(machine.pipe[1], nonsense, sizeof nonsense), sizeof nonsense);
  assert_int_equal(close(machine.pipe[1]), 0); /* a second one reads that there is nothing more */
  machine.pipe[1] = 0;
}

/* Two buffers, and a pack of which units 3 and 4 never come. */
static void open_stuck(const Fixture *f, unsigned char **a, unsigned char **b) {
  size_t room;
  need_ring();
  *a = new_buffer(f, &room), *b = new_buffer(f, &room);
  open_pack(f, 0);
  get_stuck(3);
}

static void close_stuck(unsigned char *a, unsigned char *b) {
  close_pack();
  free(a), free(b);
}

/* begin returns at once although nothing comes, for two pieces; then they time out, are cancelled, and the buffers are
 * used again: what comes late goes nowhere. */
static void cancelled_reads_write_nothing(void **state) {
  const Fixture *f = *state;
  unsigned char *a, *b;
  moecc_piece first = piece_of(f, 3, 0), second = piece_of(f, 4, 0), other = piece_of(f, 1, 0);
  const void *where;
  open_stuck(f, &a, &b);
  assert_int_equal(begin(&first, a), MOECC_OK);
  assert_int_equal(begin(&second, b), MOECC_OK);
  assert_true(d.read[0].state == FLYING && d.read[1].state == FLYING);
  assert_int_equal(d.source.wait(&d, &second, b, 5, &where), MOECC_ERROR_TIMEOUT);
  assert_int_equal(d.source.wait(&d, &first, a, 5, &where), MOECC_ERROR_TIMEOUT);
  d.source.forget(&d);
  assert_int_equal(begin(&other, a), MOECC_OK);
  expect(f, &other, a);
  write_late();
  assert_true(slot_is_right(&f->unit[1], 0, a));
  machine.stuck = UNITS;
  assert_int_equal(begin(&second, b), MOECC_OK);
  expect(f, &second, b);
  close_stuck(a, b);
}

/* The same with a device that cannot be stopped: what is begun later waits for it, and can time out, too. */
static void reads_that_cannot_be_cancelled_come_first(void **state) {
  const Fixture *f = *state;
  unsigned char *a, *b;
  moecc_piece stuck = piece_of(f, 3, 0), other = piece_of(f, 1, 0), third = piece_of(f, 0, 0);
  const void *where;
  open_stuck(f, &a, &b);
  machine.no_cancel = true;
  assert_int_equal(begin(&stuck, a), MOECC_OK);
  assert_int_equal(d.source.wait(&d, &stuck, a, 2, &where), MOECC_ERROR_TIMEOUT);
  for (int round = 0; round < 5; round++) {
    d.source.forget(&d);
    assert_int_equal(begin(&other, a), MOECC_OK);
    assert_int_equal(begin(&third, b), MOECC_OK);
    assert_int_equal(d.source.wait(&d, &other, a, 2, &where), MOECC_ERROR_TIMEOUT);
  }
  write_late();
  expect(f, &third, b);
  expect(f, &other, a);
  close_stuck(a, b);
}

/* Each unit in turn never arrives; the slot before it does, however long it takes. */
static void a_read_that_never_ends_times_out(void **state) {
  const Fixture *f = *state;
  size_t bytes;
  unsigned char *arena = new_arena(f, 0, &bytes);
  need_ring();
  for (unsigned i = 0; i < 2 * UNITS; i++) {
    const moecc_unit *u = &f->unit[i % UNITS];
    moecc_context m = {0};
    moecc_status s = MOECC_OK;
    open_pack(f, 0);
    machine.no_cancel = i >= UNITS;
    assert_int_equal(init(f, &m, arena, bytes, &d.source), MOECC_OK);
    get_stuck(i % UNITS);
    if (i % UNITS > 0) assert_non_null(moecc_take(&m.weights, u - 1, u, &s));
    m.weights.timeout_ms = 3;
    assert_null(moecc_take(&m.weights, u, NULL, &s));
    assert_int_equal(s, MOECC_ERROR_TIMEOUT);
    assert_ptr_equal(m.weights.fault.unit, u);
    machine.stuck = UNITS;
    write_late();
    m.weights.timeout_ms = 0;
    assert_int_equal(take_all(f, &m.weights), MOECC_OK);
    moecc_context_close(&m);
    close_pack();
    close(machine.pipe[0]);
    machine.pipe[0] = 0;
  }
  free(arena);
}

/* The context is given up while a read is under way; after closing the source nothing is written any more. */
static void closing_ends_reads(void **state) {
  const Fixture *f = *state;
  moecc_context m = {0};
  size_t bytes;
  unsigned char *arena = new_arena(f, 0, &bytes);
  need_ring();
  open_pack(f, 0);
  assert_int_equal(init(f, &m, arena, bytes, &d.source), MOECC_OK);
  m.weights.timeout_ms = 3;
  get_stuck(0);
  moecc_ask(&m.weights, &f->unit[4]);
  moecc_context_close(&m);
  close_pack();
  memset(arena, 0x77, bytes);
  write_late();
  for (size_t i = 0; i < bytes; i++) assert_int_equal(arena[i], 0x77);
  free(arena);
}

static void *begin_elsewhere(void *piece_and_buffer) {
  void **p = piece_and_buffer;
  assert_int_equal(begin(p[0], p[1]), MOECC_OK);
  return NULL;
}

/* One thread at a time, but not always the same: the one that asked may be gone. */
static void the_thread_that_asked_may_end(void **state) {
  const Fixture *f = *state;
  size_t room;
  unsigned char *buffer = new_buffer(f, &room);
  moecc_piece p = piece_of(f, 4, 0);
  for (unsigned without = 0; without < WAYS; without++) {
    open_pack(f, without);
    for (int i = 0; i < 20; i++) {
      pthread_t thread;
      void *arguments[] = {&p, buffer};
      assert_int_equal(pthread_create(&thread, NULL, begin_elsewhere, arguments), 0);
      assert_int_equal(pthread_join(thread, NULL), 0);
      expect(f, &p, buffer);
    }
    close_pack();
  }
  free(buffer);
}

/* ---- together ------------------------------------------------------------------------------------------------------
 */

static void a_loader_may_stand_in_front(void **state) {
  const Fixture *f = *state;
  void *memory = aligned_alloc(64, (moecc_loader_bytes() + 63) & ~(size_t)63);
  for (unsigned without = 0; without < WAYS; without++) {
    open_pack(f, without);
    const moecc_source *s = moecc_loader_start(memory, &d.source);
    assert_ptr_not_equal(s, &d.source);
    check_source(f, s);
    moecc_loader_stop(memory);
    close_pack();
  }
  free(memory);
}

/* With failures now and then. */
static void any_order_of_takes_is_right(void **state) {
  const Fixture *f = *state;
  size_t bytes, failures = 0;
  unsigned char *arena = new_arena(f, 0, &bytes);
  for (unsigned round = 0; round < 80; round++) {
    moecc_context m = {0};
    mend_machine();
    open_pack(f, round % WAYS);
    assert_int_equal(init(f, &m, arena, bytes, &d.source), MOECC_OK);
    machine.mode = (enum Mode)(round / WAYS % 4), machine.fail_at = machine.reads + 1 + random_below(20);
    failures += take_in_any_order(f, &m.weights);
    moecc_context_close(&m);
    close_pack();
  }
  assert_true(failures > 20);
  free(arena);
}

#undef TEST
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_test, end_test)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(every_way_delivers),
      TEST(what_the_machine_refuses_is_done_without),
      TEST(files_that_are_none),
      TEST(misaligned_memory_is_refused),
      TEST(interrupted_and_short_reads_go_on),
      TEST(each_failing_read_names_its_slot),
      TEST(a_file_cut_while_open_is_noticed),
      TEST(a_flipped_bit_names_its_slot),
      TEST(two_pieces_in_any_order),
      TEST(cancelled_reads_write_nothing),
      TEST(reads_that_cannot_be_cancelled_come_first),
      TEST(a_read_that_never_ends_times_out),
      TEST(closing_ends_reads),
      TEST(the_thread_that_asked_may_end),
      TEST(a_loader_may_stand_in_front),
      TEST(any_order_of_takes_is_right),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
