/* Preloaded into the compiler: the FAIL_AT-th call of those below fails with FAIL_ERRNO. How many there were is written
 * to the file COUNT_TO at exit. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static long calls;

static int fails(void) {
  const char *at = getenv("FAIL_AT"), *number = getenv("FAIL_ERRNO");
  calls++;
  if (!at || calls != atol(at)) return 0;
  errno = number ? atoi(number) : ENOSPC;
  return 1;
}

__attribute__((destructor)) static void report(void) {
  const char *path = getenv("COUNT_TO");
  FILE *(*open_file)(const char *, const char *) = (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, "fopen");
  FILE *f = path ? open_file(path, "w") : NULL;
  if (!f) return;
  fprintf(f, "%ld\n", calls);
  fflush(f);
}

#define NEXT(name) __typeof__(name) *next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

size_t fwrite(const void *data, size_t size, size_t n, FILE *f) {
  NEXT(fwrite);
  return f != stdout && f != stderr && fails() ? 0 : next(data, size, n, f);
}

int fflush(FILE *f) {
  NEXT(fflush);
  return f && f != stdout && f != stderr && fails() ? EOF : next(f);
}

FILE *fopen(const char *path, const char *mode) {
  NEXT(fopen);
  return *mode == 'w' && fails() ? NULL : next(path, mode);
}

int fclose(FILE *f) {
  NEXT(fclose);
  int failed = fails(), result = next(f); /* the descriptor is gone in any case */
  if (!failed) return result;
  errno = EIO;
  return EOF;
}

int fsync(int fd) {
  NEXT(fsync);
  return fails() ? -1 : next(fd);
}

int mkdir(const char *path, mode_t mode) {
  NEXT(mkdir);
  return fails() ? -1 : next(path, mode);
}

int rename(const char *from, const char *to) {
  NEXT(rename);
  return fails() ? -1 : next(from, to);
}

int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
  NEXT(renameat2);
  if (getenv("NO_EXCHANGE")) {
    errno = EINVAL; /* a file system that cannot */
    return -1;
  }
  return fails() ? -1 : next(a, from, b, to, flags);
}
