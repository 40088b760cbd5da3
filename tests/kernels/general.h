/* What the tests of the general kernels share: numbers to compute on, comparison, and a pool that really divides work.
 * Kernels are the templates compiled alone, with their default holes. */
#ifndef MOECC_TEST_GENERAL_H
#define MOECC_TEST_GENERAL_H

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

enum { GUARD = 16 };
#define GUARD_VALUE 12345.0f

static uint32_t seed = 1;

static inline float number(void) {
  seed = seed * 1664525u + 1013904223u;
  return (float)(seed >> 8) / (float)(1 << 23) - 1.0f;
}

static inline float *numbers(size_t n) {
  float *p = malloc((n + GUARD) * sizeof *p);
  assert_non_null(p);
  for (size_t i = 0; i < n; i++) p[i] = 3.0f * number();
  for (size_t i = n; i < n + GUARD; i++) p[i] = GUARD_VALUE;
  return p;
}

/* Room for n results; the guard behind them must survive. */
static inline float *room(size_t n) {
  float *p = numbers(n);
  for (size_t i = 0; i < n; i++) p[i] = (float)NAN;
  return p;
}

static inline void assert_guard(const float *p, size_t n) {
  for (size_t i = n; i < n + GUARD; i++) assert_true(p[i] == GUARD_VALUE);
}

static inline void assert_near(float got, double expected, double tolerance) {
  if (!(fabs((double)got - expected) <= tolerance)) fail_msg("got %.9g, expected %.9g", (double)got, expected);
}

/* Three threads' worth of work, run one after another from the last to the first. */
static inline void run_backwards(void *self, moecc_body *body, const void *args, size_t count) {
  (void)self;
  for (unsigned t = 3; t-- > 0;) {
    size_t begin = count * t / 3, end = count * (t + 1) / 3;
    if (begin < end) body(args, begin, end, t);
  }
}
static const moecc_pool three_threads = {3, run_backwards, NULL};

#endif
