/* moecc_gemm.h: the one matrix multiplication of all kernels: a tile of a few rows by NR columns, held in registers.
 *
 *   out[r][c] = sum over s, k of x[s][r][k] * w[(s * length + k) * step + c]
 *
 * x is read in place through row pointers, so that strided, gathered and convolved rows are all the same; w lies in
 * panels of NR columns (step = NR when packed). Each out[r][c] is one chain of vf_fma, k ascending, however many rows
 * or columns the tile has. Rows, columns and vectors are constants at every call, and all is inlined: the sums stay in
 * registers when rows * vectors + vectors + 1 of them exist. So that the row pointers find registers too, a kernel keeps
 * its tile in a function of its own that is not inlined: MOECC_APART.
 */
#ifndef MOECC_GEMM_H
#define MOECC_GEMM_H

#include <stddef.h>
#include "moecc_simd.h"

enum { MOECC_TILE_ROWS = 14, MOECC_TILE_COLUMNS = 64 }; /* the largest */
enum { MOECC_LINE = 16 };                               /* floats that one prefetch brings */

#if defined(__TINYC__)
#define MOECC_INLINE static inline
#define MOECC_APART  static
#define MOECC_UNROLL
#elif defined(__clang__)
#define MOECC_INLINE static inline __attribute__((always_inline))
#define MOECC_APART  static __attribute__((noinline))
#define MOECC_UNROLL _Pragma("clang loop unroll(full)")
#else
#define MOECC_INLINE static inline __attribute__((always_inline))
#define MOECC_APART  static __attribute__((noinline))
#define MOECC_UNROLL _Pragma("GCC unroll 64")
#endif

/* Where part i of n things in `parts` parts begins; the parts differ by one at most. */
static inline size_t moecc_cut(size_t n, size_t parts, size_t i) {
  return n / parts * i + (i < n % parts ? i : n % parts);
}

/* What is prefetched while a tile is computed: what lies at `at` and, each step of k later, `step` floats further; up
 * to three lines a step. With `apart`, a line at each of three places so many floats apart instead: memory gives more in
 * the same time to three streams than to one. It may be behind the end of the weights, where as a rule the next ones
 * lie: nothing is read. */
typedef struct {
  const float *at;
  size_t step, apart;
} moecc_fetch;

/* The share of the next panel that tile number `tile` of `tiles` prefetches: all tiles the same, so that weights arrive
 * at an even pace and the fetches never stand in the way of what is needed now. */
static inline moecc_fetch moecc_fetch_next(const float *w, const float *next, size_t depth, size_t columns, size_t tile,
                                           size_t tiles) {
  size_t step = (columns + tiles - 1) / tiles;
  moecc_fetch f = {w, 0, 0};
  if (step > 3 * MOECC_LINE) step = 3 * MOECC_LINE;
  if (next && tile * step < columns) {
    f.at = next + tile * step * depth;
    f.step = step;
  }
  return f;
}

/* The same; but where tiles are so few that they take no longer than memory takes to bring the next panel, its share
 * comes in three streams. */
static inline moecc_fetch moecc_fetch_wide(const float *w, const float *next, size_t depth, size_t columns, size_t tile,
                                           size_t tiles) {
  enum { FEW = 4 };
  moecc_fetch f = moecc_fetch_next(w, next, depth, columns, tile, tiles);
  if (tiles > FEW || f.step == 0) return f;
  f.step = (f.step + 2) / 3;
  f.apart = f.step * depth;
  return f;
}

/* Brings the line at p near, to be written. */
static inline void moecc_touch(const float *p) {
#if defined(__TINYC__)
  (void)p;
#else
  __builtin_prefetch(p, 1, 2);
#endif
}

/* The panel that work item i + 1 of a thread's items up to `end` wants, items going through the panels of w again and
 * again, `items` in all: NULL behind a thread's last, and behind the last of all what lies there. */
static inline const float *moecc_next_panel(const float *w, size_t size, size_t panels, size_t i, size_t end,
                                            size_t items) {
  if (i + 1 == items) return w + panels * size;
  return i + 1 < end ? w + (i + 1) % panels * size : NULL;
}

#if defined(__TINYC__)

/* tcc keeps nothing in registers between statements: long expressions, in the same order of additions. */
static inline void moecc_tile_on(size_t most, size_t vectors, size_t rows, const float *const *x, size_t segments,
                                 size_t length, const float *w, size_t step, moecc_fetch fetch, int more, float *out,
                                 size_t out_row) {
  (void)most;
  (void)fetch;
  for (size_t r = 0; r < rows; r++)
    for (size_t c = 0; c < vectors; c++) {
      const float *v = w + c;
      float sum = more ? out[r * out_row + c] : 0.0f;
      for (size_t s = 0; s < segments; s++) {
        const float *u = x[s * rows + r], *end = u + length;
        for (; u + 8 <= end; u += 8, v += 8 * step)
          sum = sum + u[0] * v[0] + u[1] * v[step] + u[2] * v[2 * step] + u[3] * v[3 * step] + u[4] * v[4 * step] +
                u[5] * v[5 * step] + u[6] * v[6 * step] + u[7] * v[7 * step];
        for (; u < end; u++, v += step) sum = sum + u[0] * v[0];
      }
      out[r * out_row + c] = sum;
    }
}

#else

/* One step of k: row[r][k] times a row of w, added to the sums. */
MOECC_INLINE void moecc_tile_step(size_t rows, size_t vectors, const float *const *row, size_t k, const float *w,
                                  vf (*sum)[MOECC_TILE_COLUMNS / VF_LANES]) {
  vf b[MOECC_TILE_COLUMNS / VF_LANES];
  MOECC_UNROLL for (size_t v = 0; v < vectors; v++) b[v] = vf_load(w + v * VF_LANES);
  MOECC_UNROLL for (size_t r = 0; r < rows; r++) {
    const vf a = vf_set1(row[r][k]);
    MOECC_UNROLL for (size_t v = 0; v < vectors; v++) sum[r][v] = vf_fma(a, b[v], sum[r][v]);
  }
}

/* unrolled: steps of k in a row, which spares counting and prefetches; more than one pays where few rows share a wide
 * step, and where the sums leave registers free. */
MOECC_INLINE void moecc_tile_rows(size_t rows, size_t vectors, size_t unrolled, const float *const *x, size_t segments,
                                  size_t length, const float *w, size_t step, moecc_fetch fetch, int more, float *out,
                                  size_t out_row) {
  vf sum[MOECC_TILE_ROWS][MOECC_TILE_COLUMNS / VF_LANES];
  if (more) {
    MOECC_UNROLL for (size_t r = 0; r < rows; r++) {
      MOECC_UNROLL for (size_t v = 0; v < vectors; v++) sum[r][v] = vf_load(out + r * out_row + v * VF_LANES);
    }
  } else {
    MOECC_UNROLL for (size_t r = 0; r < rows; r++) {
      MOECC_UNROLL for (size_t v = 0; v < vectors; v++) sum[r][v] = vf_zero();
    }
  }
  const size_t apart = fetch.apart ? fetch.apart : MOECC_LINE;
  const int three = fetch.apart || fetch.step > MOECC_LINE;
  for (size_t s = 0; s < segments; s++, x += rows) {
    const float *row[MOECC_TILE_ROWS];
    MOECC_UNROLL for (size_t r = 0; r < rows; r++) row[r] = x[r];
    size_t k = 0;
    if (unrolled > 1)
      for (; k + unrolled <= length; k += unrolled) {
        const float *end = fetch.at + unrolled * fetch.step;
        for (; fetch.at < end; fetch.at += MOECC_LINE) {
          __builtin_prefetch(fetch.at, 0, 2);
          if (fetch.apart) {
            __builtin_prefetch(fetch.at + apart, 0, 2);
            __builtin_prefetch(fetch.at + 2 * apart, 0, 2);
          }
        }
        fetch.at = end;
        MOECC_UNROLL for (size_t u = 0; u < unrolled; u++, w += step)
            moecc_tile_step(rows, vectors, row, k + u, w, sum);
      }
    for (; k < length; k++, w += step, fetch.at += fetch.step) {
      __builtin_prefetch(fetch.at, 0, 2);
      if (three) {
        __builtin_prefetch(fetch.at + apart, 0, 2);
        __builtin_prefetch(fetch.at + 2 * apart, 0, 2);
      }
      moecc_tile_step(rows, vectors, row, k, w, sum);
    }
  }
  MOECC_UNROLL for (size_t r = 0; r < rows; r++) {
    MOECC_UNROLL for (size_t v = 0; v < vectors; v++) vf_store(out + r * out_row + v * VF_LANES, sum[r][v]);
  }
}

/* rows: 1 … most; x: segments times `rows` pointers; out: rows of `vectors` vectors, out_row apart. more: the sums go
 * on from what is in out, so that k may be cut into pieces without another order of additions. */
MOECC_INLINE void moecc_tile_on(size_t most, size_t vectors, size_t rows, const float *const *x, size_t segments,
                                size_t length, const float *w, size_t step, moecc_fetch fetch, int more, float *out,
                                size_t out_row) {
  const size_t whole = most == 6 && vectors == 4 ? 4 : 1;
  switch (rows) {
  case 1: moecc_tile_rows(1, vectors, 1, x, segments, length, w, step, fetch, more, out, out_row); break;
  case 2:
    if (most >= 2) moecc_tile_rows(2, vectors, 1, x, segments, length, w, step, fetch, more, out, out_row);
    break;
  case 3:
    if (most >= 3) moecc_tile_rows(3, vectors, 1, x, segments, length, w, step, fetch, more, out, out_row);
    break;
  case 4:
    if (most >= 4) moecc_tile_rows(4, vectors, 1, x, segments, length, w, step, fetch, more, out, out_row);
    break;
  case 5:
    if (most >= 5) moecc_tile_rows(5, vectors, 1, x, segments, length, w, step, fetch, more, out, out_row);
    break;
  case 6:
    if (most >= 6) moecc_tile_rows(6, vectors, whole, x, segments, length, w, step, fetch, more, out, out_row);
    break;
  case 7:
    if (most >= 7) moecc_tile_rows(7, vectors, 1, x, segments, length, w, step, fetch, more, out, out_row);
    break;
  case 8:
    if (most >= 8) moecc_tile_rows(8, vectors, 1, x, segments, length, w, step, fetch, more, out, out_row);
    break;
  case 9:
    if (most >= 9) moecc_tile_rows(9, vectors, 1, x, segments, length, w, step, fetch, more, out, out_row);
    break;
  case 10:
    if (most >= 10) moecc_tile_rows(10, vectors, 1, x, segments, length, w, step, fetch, more, out, out_row);
    break;
  case 11:
    if (most >= 11) moecc_tile_rows(11, vectors, 1, x, segments, length, w, step, fetch, more, out, out_row);
    break;
  case 12:
    if (most >= 12) moecc_tile_rows(12, vectors, 1, x, segments, length, w, step, fetch, more, out, out_row);
    break;
  case 13:
    if (most >= 13) moecc_tile_rows(13, vectors, 1, x, segments, length, w, step, fetch, more, out, out_row);
    break;
  default:
    if (most >= 14) moecc_tile_rows(14, vectors, 1, x, segments, length, w, step, fetch, more, out, out_row);
    break;
  }
}

#endif

/* The same from zero, with a line prefetched at each step of k. */
MOECC_INLINE void moecc_tile(size_t most, size_t vectors, size_t rows, const float *const *x, size_t segments,
                             size_t length, const float *w, size_t step, const float *ahead, float *out,
                             size_t out_row) {
  const moecc_fetch fetch = {ahead, MOECC_LINE, 0};
  moecc_tile_on(most, vectors, rows, x, segments, length, w, step, fetch, 0, out, out_row);
}

#endif
