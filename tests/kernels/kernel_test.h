/* What the kernel tests share: numbers, buffers with guards behind them, a pool that runs its parts in an awkward
 * order, and the comparison with a reference in double. A test is linked with one instance of a template; TEST_MR and
 * TEST_NR are its tile. The templates' EPILOGUE is replaced by  acc + o[0] (per column) + o[1] (per row and column). */
#ifndef MOECC_KERNEL_TEST_H
#define MOECC_KERNEL_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "moecc_rt.h"

#ifndef TEST_MR
#define TEST_MR 6
#define TEST_NR 16
#endif

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static inline uint64_t random_bits(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}
/* Evenly in (-1, 1). */
static inline float random_float(void) { return (float)((double)(int64_t)random_bits() / 9223372036854775808.0); }

enum { GUARD = 64 };
static const float GUARD_VALUE = -12345.5f;

/* n floats, 64-byte aligned, with a guard behind them. */
static inline float *buffer(size_t n) {
  float *p = NULL;
  if (posix_memalign((void **)&p, 64, (n + GUARD) * sizeof *p)) abort();
  for (size_t i = 0; i < n + GUARD; i++) p[i] = GUARD_VALUE;
  return p;
}
static inline float *random_buffer(size_t n) {
  float *p = buffer(n);
  for (size_t i = 0; i < n; i++) p[i] = random_float();
  return p;
}
static inline double *zeros(size_t n) {
  if (n > (size_t)1 << 30) abort();
  double *p = malloc((n + 1) * sizeof *p);
  for (size_t i = 0; i < n; i++) p[i] = 0;
  return p;
}
static inline void check_guard(const float *p, size_t n) {
  for (size_t i = n; i < n + GUARD; i++)
    if (p[i] != GUARD_VALUE) fail_msg("written behind the end, at %zu", i - n);
}

/* Four "threads", the last part first. */
static inline void awkward_run(void *self, moecc_body *body, const void *args, size_t count) {
  (void)self;
  for (unsigned t = 4; t-- > 0;) {
    size_t begin = count * t / 4, end = count * (t + 1) / 4;
    if (begin < end) body(args, begin, end, t);
  }
}
static const moecc_pool awkward_pool = {4, awkward_run, NULL};

/* Columns n of a matrix [k][n] as panels of nr columns, filled up with zeros. */
static inline float *pack_panels(const float *w, size_t k, size_t n, size_t nr) {
  size_t panels = (n + nr - 1) / nr;
  float *out = buffer(panels * k * nr);
  for (size_t p = 0; p < panels; p++)
    for (size_t i = 0; i < k; i++)
      for (size_t j = 0; j < nr; j++) out[(p * k + i) * nr + j] = p * nr + j < n ? w[i * n + p * nr + j] : 0.0f;
  return out;
}

/* |got - want| within a few rounding errors of a sum of `terms` products whose magnitudes add up to `size`. */
static inline void check_near(float got, double want, double size, size_t terms, const char *what, size_t where) {
  double allowed = 1e-6 + 1.2e-7 * size * (4 + sqrt((double)terms));
  if (!(fabs((double)got - want) <= allowed))
    fail_msg("%s: element %zu is %.9g, not %.9g (allowed %.3g)", what, where, (double)got, want, allowed);
}
static inline void check_same(const float *a, const float *b, size_t n, const char *what) {
  for (size_t i = 0; i < n; i++)
    if (memcmp(a + i, b + i, sizeof *a))
      fail_msg("%s: element %zu is %.9g, not %.9g", what, i, (double)a[i], (double)b[i]);
}

#endif
