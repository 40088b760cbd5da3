/* Weights from files, on POSIX systems: read slot by slot into the two buffers, mapped, or loaded whole.
 *
 * Reading is the default: begin tells the system what will be wanted, so that the disk works while the network
 * computes, and wait reads it, whatever interrupts or shortens a read. For waits that can time out, or a system that
 * does not read ahead, put moecc_loader_start (moecc_rt_threads.c) in front.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* for madvise */
#elif !defined(_GNU_SOURCE) && !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#define _FILE_OFFSET_BITS 64
#include "moecc_rt.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#ifndef O_CLOEXEC
#define O_CLOEXEC 0
#endif

/* Reads exactly `bytes` at offset. */
static moecc_status read_all(int fd, void *dst, size_t bytes, uint64_t offset) {
  unsigned char *p = dst;
  while (bytes > 0) {
    size_t want = bytes < ((size_t)1 << 30) ? bytes : (size_t)1 << 30;
    ssize_t got = pread(fd, p, want, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return MOECC_ERROR_IO;
    if (got == 0) return MOECC_ERROR_LENGTH; /* shorter than when it was opened */
    p += got;
    bytes -= (size_t)got;
    offset += (uint64_t)got;
  }
  return MOECC_OK;
}

/* The system starts to read; nothing is lost if it does not. It takes hints only up to its read-ahead size, so they are
 * given in pieces. */
static moecc_status file_begin(void *self, const moecc_piece *piece, void *dst) {
  const moecc_file *f = self;
  (void)dst;
#ifdef POSIX_FADV_WILLNEED
  {
    size_t done, step = (size_t)128 << 10;
    for (done = 0; done < piece->bytes; done += step)
      (void)posix_fadvise(f->fd, (off_t)(piece->offset + done),
                          (off_t)(piece->bytes - done < step ? piece->bytes - done : step), POSIX_FADV_WILLNEED);
  }
#else
  (void)f, (void)piece;
#endif
  return MOECC_OK;
}

static moecc_status file_wait(void *self, const moecc_piece *piece, void *dst, unsigned timeout_ms,
                              const void **where) {
  const moecc_file *f = self;
  (void)timeout_ms; /* a read of a file cannot be given up */
  *where = dst;
  return read_all(f->fd, dst, piece->bytes, piece->offset);
}

static void file_forget(moecc_file *f) {
  memset(f, 0, sizeof *f);
  f->fd = -1;
}

/* Opens a regular file and finds its length. */
static moecc_status file_begin_use(moecc_file *f, const char *path) {
  struct stat st;
  if (!f || !path) return MOECC_ERROR_ARGUMENT;
  file_forget(f);
  do f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block */
  while (f->fd < 0 && errno == EINTR);
  if (f->fd < 0) return errno == ENOENT ? MOECC_ERROR_MISSING : MOECC_ERROR_IO;
  if (fstat(f->fd, &st) != 0) return MOECC_ERROR_IO;
  if (!S_ISREG(st.st_mode)) return MOECC_ERROR_FORMAT;
  f->bytes = (uint64_t)st.st_size;
  return f->bytes < sizeof(moecc_pack_head) ? MOECC_ERROR_LENGTH : MOECC_OK;
}

/* On failure nothing stays open, and only f->bytes is left. */
static moecc_status file_finish(moecc_file *f, moecc_status s) {
  uint64_t bytes;
  if (s == MOECC_OK || !f) return s;
  bytes = f->bytes;
  if (f->map) (void)munmap(f->map, (size_t)bytes);
  if (f->fd >= 0) (void)close(f->fd);
  file_forget(f);
  f->bytes = bytes;
  return s;
}

moecc_status moecc_file_open(moecc_file *f, const char *path) {
  moecc_status s = file_begin_use(f, path);
  if (s == MOECC_OK) {
    f->source.begin = file_begin;
    f->source.wait = file_wait;
    f->source.self = f;
    f->source.bytes = f->bytes;
  }
  return file_finish(f, s);
}

/* A mapped slot will be wanted. Asking for pages that are there already would take longer than using them, so one is
 * looked at first: the last, since reading goes forwards. */
static moecc_status map_begin(void *self, const moecc_piece *piece, void *dst) {
#ifdef MADV_WILLNEED
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  uintptr_t first = ((uintptr_t)self + (size_t)piece->offset) & ~(uintptr_t)(page - 1);
  uintptr_t end = (uintptr_t)self + (size_t)piece->offset + piece->bytes;
  unsigned char there = 0;
#ifdef __linux__
  if (mincore((void *)((end - 1) & ~(uintptr_t)(page - 1)), 1, &there) != 0) there = 1;
#endif
  if (!(there & 1)) (void)madvise((void *)first, (size_t)(end - first), MADV_WILLNEED);
#else
  (void)self, (void)piece;
#endif
  (void)dst;
  return MOECC_OK;
}

moecc_status moecc_file_map(moecc_file *f, const char *path) {
  moecc_status s = file_begin_use(f, path);
  if (s == MOECC_OK && f->bytes > SIZE_MAX) s = MOECC_ERROR_IO;
  if (s == MOECC_OK) {
    void *map = mmap(NULL, (size_t)f->bytes, PROT_READ, MAP_PRIVATE, f->fd, 0);
    if (map == MAP_FAILED)
      s = MOECC_ERROR_IO;
    else
      f->map = map;
  }
  if (s == MOECC_OK) s = moecc_memory_source(&f->source, f->map, f->bytes, 0);
  if (s == MOECC_OK) f->source.begin = map_begin;
  return file_finish(f, s);
}

/* Asks for large pages before memory is first written: weights are read at the speed of memory, which 4 KiB pages slow
 * down. What lies around whole pages stays as it is, and so does everything where the system knows no such thing. */
static void want_large_pages(void *memory, size_t bytes) {
#ifdef MADV_HUGEPAGE
  const size_t page = 4096, before = (page - ((uintptr_t)memory & (page - 1))) & (page - 1);
  if (bytes > before + page) (void)madvise((char *)memory + before, (bytes - before) & ~(page - 1), MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

moecc_status moecc_file_load(moecc_file *f, const char *path, void *memory, size_t bytes, uint32_t *unit,
                             uint32_t *index) {
  moecc_status s = file_begin_use(f, path);
  if (unit) *unit = MOECC_NO_UNIT;
  if (index) *index = 0;
  if (s == MOECC_OK && (!memory || bytes < f->bytes || ((uintptr_t)memory & (MOECC_ALIGN - 1)))) s = MOECC_ERROR_ARENA;
  if (s == MOECC_OK) want_large_pages(memory, (size_t)f->bytes);
  if (s == MOECC_OK) s = read_all(f->fd, memory, (size_t)f->bytes, 0);
  if (s == MOECC_OK) s = moecc_memory_source(&f->source, memory, f->bytes, 0);
  if (s == MOECC_OK) s = moecc_pack_verify(&f->source, NULL, 0, unit, index);
  if (s == MOECC_OK) {
    (void)close(f->fd);
    f->fd = -1;
  }
  return file_finish(f, s);
}

void moecc_file_close(moecc_file *f) {
  if (!f || !f->source.begin) return; /* never opened, or closed already */
  if (f->map) (void)munmap(f->map, (size_t)f->bytes);
  if (f->fd >= 0) (void)close(f->fd);
  file_forget(f);
}
