/* Weights from a file, past the system's cache: O_DIRECT, read in the background by the kernel (io_uring).
 *
 * Streaming reads each slot once per call, so a cache of the file is memory spent for nothing, and copying out of it
 * takes time from computing. Here the disk writes into the buffer itself, in whole blocks. begin hands the read to the
 * kernel and returns; wait takes the result, continues a read that came short, and can time out. What a kernel or a
 * file system refuses is done without: no O_DIRECT, reads through the cache; no io_uring, wait reads.
 *
 * The ring is spoken to with bare system calls. A forgotten read is cancelled; until it has really ended no other one
 * is handed over, so that nothing is written into a buffer late.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* for O_DIRECT and syscall */
#elif !defined(_GNU_SOURCE) && !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#define _FILE_OFFSET_BITS 64
#include "moecc_rt.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

/* tcc has no atomic loads and stores; headers before Linux 5.11 lack waits with a timeout. */
#if defined(__linux__) && !defined(__TINYC__) && defined(__has_include)
#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#if defined(IORING_ENTER_EXT_ARG) && defined(__NR_io_uring_setup)
#define HAS_RING 1
#endif
#endif
#endif
#ifndef HAS_RING
#define HAS_RING 0
#endif

/* ---- one read ----------------------------------------------------------------------------------------------------- */

enum { MOST_TRIES = 1000 }; /* in a row, without getting further */

static size_t before_piece(const moecc_piece *p) { return (size_t)(p->offset % MOECC_BLOCK); }

/* From the first block to the piece's end, and to the last block's. */
static size_t bytes_needed(const moecc_piece *p) { return before_piece(p) + p->bytes; }
static size_t bytes_wanted(const moecc_piece *p) {
  return (bytes_needed(p) + MOECC_BLOCK - 1) & ~((size_t)MOECC_BLOCK - 1);
}

static int complete(const moecc_direct_read *r) { return r->done >= bytes_needed(&r->piece); }

/* 0: the file system refuses. O_NONBLOCK, which kept opening from waiting, would keep io_uring from it, too. */
static int set_direct(int fd, int on) {
  int flags = fcntl(fd, F_GETFL), refused = flags < 0;
  flags &= ~O_NONBLOCK;
#ifdef O_DIRECT
  return !refused && fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
#else
  return !refused && fcntl(fd, F_SETFL, flags) == 0 && !on;
#endif
}

/* A file that was cut after it had been opened. */
static int ends_before(const moecc_direct *d, const moecc_piece *p) {
  struct stat st;
  return fstat(d->file.fd, &st) == 0 && (uint64_t)st.st_size < p->offset + p->bytes;
}

/* The read did not get further. */
static moecc_status again(moecc_direct_read *r) { return ++r->tries < MOST_TRIES ? MOECC_OK : MOECC_ERROR_IO; }

/* Takes what a read gave: so many bytes, or -errno. MOECC_OK: it is complete, or the rest is to be read. */
static moecc_status advance(moecc_direct *d, moecc_direct_read *r, long got) {
  size_t end;
  if (got == -EINTR || got == -EAGAIN || got == -ECANCELED) return again(r); /* cancelled: its thread has ended */
  if ((got == -EINVAL || got == -EOPNOTSUPP) && d->direct) { /* blocks of another size, or no O_DIRECT after all */
    d->direct = 0;
    return set_direct(d->file.fd, 0) ? MOECC_OK : MOECC_ERROR_IO;
  }
  if (got < 0) return MOECC_ERROR_IO;
  if (got == 0) return MOECC_ERROR_LENGTH;
  end = r->done + (size_t)got;
  if (end < bytes_needed(&r->piece)) {
    if (d->direct) end &= ~((size_t)MOECC_BLOCK - 1); /* what is left begins with a block, too */
    if (end == r->done) return ends_before(d, &r->piece) ? MOECC_ERROR_LENGTH : again(r);
  }
  r->done = end;
  r->tries = 0;
  return MOECC_OK;
}

static void *rest_at(const moecc_direct_read *r) { return (unsigned char *)r->dst + r->done; }
static size_t rest_bytes(const moecc_direct_read *r) {
  size_t rest = bytes_wanted(&r->piece) - r->done, most = (size_t)1 << 30;
  return rest < most ? rest : most;
}
static uint64_t rest_offset(const moecc_direct_read *r) { return r->piece.offset - before_piece(&r->piece) + r->done; }

static const void *where_is(const moecc_direct_read *r) {
  return (const unsigned char *)r->dst + before_piece(&r->piece);
}

static moecc_direct_read new_read(const moecc_piece *piece, void *dst) {
  moecc_direct_read r;
  memset(&r, 0, sizeof r);
  r.piece = *piece;
  r.dst = dst;
  return r;
}

/* ---- without io_uring: wait reads ---------------------------------------------------------------------------------- */

static moecc_status plain_begin(void *self, const moecc_piece *piece, void *dst) {
  moecc_direct *d = self;
  return d->direct ? MOECC_OK : d->file.source.begin(d->file.source.self, piece, dst); /* the cache reads ahead */
}

static moecc_status plain_wait(void *self, const moecc_piece *piece, void *dst, unsigned timeout_ms,
                               const void **where) {
  moecc_direct *d = self;
  moecc_direct_read r = new_read(piece, dst);
  moecc_status s = MOECC_OK;
  (void)timeout_ms; /* a read of a file cannot be given up */
  while (s == MOECC_OK && !complete(&r)) {
    ssize_t got = pread(d->file.fd, rest_at(&r), rest_bytes(&r), (off_t)rest_offset(&r));
    s = advance(d, &r, got < 0 ? -(long)errno : (long)got);
  }
  *where = where_is(&r);
  return s;
}

/* ---- with io_uring -------------------------------------------------------------------------------------------------- */

#if HAS_RING

enum { IDLE = 0, WANTED, FLYING, ENDED, FORGOTTEN };  /* FORGOTTEN: being read, but nobody wants it any more */
enum { READS = 4, ENTRIES = 8, OF_A_CANCEL = READS }; /* results are told apart by the number of their read */

static unsigned acquire(const unsigned *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static void release(unsigned *p, unsigned value) { __atomic_store_n(p, value, __ATOMIC_RELEASE); }

static long enter(const moecc_ring *ring, unsigned requests, unsigned results, unsigned flags, const void *arg,
                  size_t bytes) {
  return syscall(__NR_io_uring_enter, ring->fd, requests, results, flags, arg, bytes);
}

/* Hands one request over; 0: the kernel does not take it. */
static int submit(moecc_ring *ring, const struct io_uring_sqe *request) {
  unsigned tail = *ring->sq_tail, at = tail & ring->sq_mask, tries;
  memcpy(ring->entries + at * sizeof *request, request, sizeof *request);
  ring->sq_array[at] = at;
  release(ring->sq_tail, tail + 1);
  for (tries = 0; tries < MOST_TRIES; tries++) {
    long n = enter(ring, 1, 0, 0, NULL, 0);
    if (acquire(ring->sq_head) == tail + 1) return 1;
    if (n < 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY) break;
  }
  release(ring->sq_tail, tail); /* not taken: it must not go along with a later one */
  return 0;
}

static void submit_read(moecc_direct *d, moecc_direct_read *r) {
  struct io_uring_sqe request;
  memset(&request, 0, sizeof request);
  request.opcode = IORING_OP_READ;
  request.fd = d->file.fd;
  request.addr = (uint64_t)(uintptr_t)rest_at(r);
  request.len = (uint32_t)rest_bytes(r);
  request.off = rest_offset(r);
  request.user_data = (uint64_t)(r - d->read);
  if (!d->direct) request.flags = IOSQE_ASYNC; /* a copy out of the cache would be made before this returns */
  r->state = FLYING;
  if (submit(&d->ring, &request)) return;
  r->state = ENDED;
  r->status = MOECC_ERROR_IO;
}

static void submit_cancel(moecc_direct *d, const moecc_direct_read *r) {
  struct io_uring_sqe request;
  memset(&request, 0, sizeof request);
  request.opcode = IORING_OP_ASYNC_CANCEL;
  request.fd = -1;
  request.addr = (uint64_t)(r - d->read);
  request.user_data = OF_A_CANCEL;
  (void)submit(&d->ring, &request); /* if it is not taken, the read takes its time */
}

static void take_result(moecc_direct *d, const struct io_uring_cqe *result) {
  moecc_direct_read *r;
  if (result->user_data >= READS) return;
  r = &d->read[result->user_data];
  if (r->state == FORGOTTEN) {
    r->state = IDLE;
    return;
  }
  r->status = advance(d, r, result->res);
  r->state = r->status != MOECC_OK || complete(r) ? ENDED : WANTED;
}

static void take_results(moecc_direct *d) {
  moecc_ring *ring = &d->ring;
  unsigned head = *ring->cq_head;
  for (; head != acquire(ring->cq_tail); head++) {
    struct io_uring_cqe result;
    memcpy(&result, ring->results + (head & ring->cq_mask) * sizeof result, sizeof result);
    take_result(d, &result);
  }
  release(ring->cq_head, head);
}

static unsigned count(const moecc_direct *d, int state) {
  unsigned i, n = 0;
  for (i = 0; i < READS; i++) n += d->read[i].state == state;
  return n;
}

/* Hands over what is queued, in order of arrival, unless a forgotten read may still write. */
static void feed(moecc_direct *d) {
  while (count(d, FORGOTTEN) == 0 && count(d, WANTED) > 0) {
    moecc_direct_read *next = NULL;
    unsigned i;
    for (i = 0; i < READS; i++) {
      moecc_direct_read *r = &d->read[i];
      if (r->state == WANTED && (!next || (int)(r->number - next->number) < 0)) next = r;
    }
    submit_read(d, next);
  }
}

static moecc_status ring_begin(void *self, const moecc_piece *piece, void *dst) {
  moecc_direct *d = self;
  moecc_direct_read *r = NULL;
  unsigned i;
  take_results(d);
  for (i = 0; i < READS && !r; i++)
    if (d->read[i].state == IDLE) r = &d->read[i];
  if (!r) return MOECC_ERROR_STATE;
  *r = new_read(piece, dst);
  r->number = d->arrivals++;
  r->state = WANTED;
  feed(d);
  return MOECC_OK;
}

static uint64_t clock_ns(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Sleeps until there is a result, at most so long (0: for ever), or until a signal. 0: the kernel refuses. */
static int sleep_for(const moecc_ring *ring, uint64_t ns) {
  struct {
    int64_t seconds, nanoseconds;
  } most;
  struct io_uring_getevents_arg arg;
  memset(&arg, 0, sizeof arg);
  most.seconds = (int64_t)(ns / 1000000000u);
  most.nanoseconds = (int64_t)(ns % 1000000000u);
  if (ns) arg.ts = (uint64_t)(uintptr_t)&most;
  return enter(ring, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &arg, sizeof arg) >= 0 || errno == ETIME ||
         errno == EINTR || errno == EAGAIN || errno == EBUSY;
}

static moecc_direct_read *find_read(moecc_direct *d, const moecc_piece *piece, const void *dst) {
  unsigned i;
  for (i = 0; i < READS; i++) {
    moecc_direct_read *r = &d->read[i];
    if (r->state != IDLE && r->state != FORGOTTEN && r->dst == dst && r->piece.offset == piece->offset &&
        r->piece.bytes == piece->bytes)
      return r;
  }
  return NULL;
}

static moecc_status ring_wait(void *self, const moecc_piece *piece, void *dst, unsigned timeout_ms,
                              const void **where) {
  moecc_direct *d = self;
  moecc_direct_read *r = find_read(d, piece, dst);
  uint64_t deadline = timeout_ms ? clock_ns() + (uint64_t)timeout_ms * 1000000u : 0;
  if (!r) return MOECC_ERROR_STATE;
  for (;;) {
    uint64_t now;
    take_results(d);
    feed(d);
    if (r->state == ENDED) break;
    now = deadline ? clock_ns() : 0;
    if (deadline && now >= deadline) return MOECC_ERROR_TIMEOUT;
    if (sleep_for(&d->ring, deadline - now)) continue;
    r->state = r->state == FLYING ? FORGOTTEN : IDLE;
    return MOECC_ERROR_IO;
  }
  r->state = IDLE;
  *where = where_is(r);
  return r->status;
}

static void ring_forget(void *self) {
  moecc_direct *d = self;
  unsigned i;
  take_results(d);
  for (i = 0; i < READS; i++) {
    moecc_direct_read *r = &d->read[i];
    if (r->state == FLYING) {
      r->state = FORGOTTEN;
      submit_cancel(d, r);
    } else if (r->state != FORGOTTEN) {
      r->state = IDLE;
    }
  }
}

static void ring_unmap(moecc_ring *ring) {
  if (ring->entries) (void)munmap(ring->entries, ring->entries_bytes);
  if (ring->memory) (void)munmap(ring->memory, ring->memory_bytes);
  if (ring->fd >= 0) (void)close(ring->fd);
  memset(ring, 0, sizeof *ring);
  ring->fd = -1;
}

static void *ring_map(const moecc_ring *ring, size_t bytes, off_t what) {
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, what);
  return p == MAP_FAILED ? NULL : p;
}

static unsigned *word_of(unsigned *memory, uint32_t offset) { return memory + offset / sizeof *memory; }

/* 0: this kernel has no ring for us. */
static int ring_open(moecc_ring *ring) {
  const uint32_t features = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
  struct io_uring_params p;
  size_t sq, cq;
  memset(&p, 0, sizeof p);
  ring->fd = (int)syscall(__NR_io_uring_setup, (unsigned)ENTRIES, &p);
  if (ring->fd < 0 || (p.features & features) != features) return 0;
  (void)fcntl(ring->fd, F_SETFD, FD_CLOEXEC);
  sq = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
  cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
  ring->memory_bytes = sq > cq ? sq : cq;
  ring->entries_bytes = p.sq_entries * sizeof(struct io_uring_sqe);
  ring->memory = ring_map(ring, ring->memory_bytes, IORING_OFF_SQ_RING);
  ring->entries = ring_map(ring, ring->entries_bytes, IORING_OFF_SQES);
  if (!ring->memory || !ring->entries) return 0;
  ring->sq_head = word_of(ring->memory, p.sq_off.head);
  ring->sq_tail = word_of(ring->memory, p.sq_off.tail);
  ring->sq_array = word_of(ring->memory, p.sq_off.array);
  ring->sq_mask = *word_of(ring->memory, p.sq_off.ring_mask);
  ring->cq_head = word_of(ring->memory, p.cq_off.head);
  ring->cq_tail = word_of(ring->memory, p.cq_off.tail);
  ring->cq_mask = *word_of(ring->memory, p.cq_off.ring_mask);
  ring->results = (unsigned char *)word_of(ring->memory, p.cq_off.cqes);
  return 1;
}

/* Uses a ring if there can be one. */
static void ring_start(moecc_direct *d) {
  if (!ring_open(&d->ring)) {
    ring_unmap(&d->ring);
    return;
  }
  d->in_background = 1;
  d->source.begin = ring_begin;
  d->source.wait = ring_wait;
  d->source.forget = ring_forget;
}

static void ring_stop(moecc_direct *d) {
  if (!d->in_background) return;
  ring_forget(d);
  while (count(d, FORGOTTEN) > 0 && sleep_for(&d->ring, 0)) take_results(d);
  ring_unmap(&d->ring);
}

#else

static void ring_start(moecc_direct *d) { (void)d; }
static void ring_stop(moecc_direct *d) { (void)d; }

#endif

/* ---- opening -------------------------------------------------------------------------------------------------------- */

moecc_status moecc_direct_open(moecc_direct *d, const char *path, unsigned without) {
  moecc_status s;
  if (!d) return MOECC_ERROR_ARGUMENT;
  memset(d, 0, sizeof *d);
  d->ring.fd = -1;
  s = moecc_file_open(&d->file, path);
  if (s != MOECC_OK) return s;
  d->source.begin = plain_begin;
  d->source.wait = plain_wait;
  d->source.self = d;
  d->source.bytes = d->file.bytes;
  d->direct = !(without & MOECC_WITHOUT_DIRECT) && set_direct(d->file.fd, 1);
  if (!d->direct) (void)set_direct(d->file.fd, 0);
  if (!(without & MOECC_WITHOUT_RING)) ring_start(d);
  return MOECC_OK;
}

void moecc_direct_close(moecc_direct *d) {
  if (!d || !d->source.begin) return; /* never opened, or closed already */
  ring_stop(d);
  moecc_file_close(&d->file);
  memset(d, 0, sizeof *d);
}
