/* y[o][c] = FINISH(sum over i of MAP(x[o][i][c]), n), float32: sums across rows, global pooling of channels-last
 * pictures. x: element (o, i, c) at o * xo + i * xs + c; y: [outer, columns]. Sums of about the root of n rows, at
 * least 32, are added to the total, so that the error stays small. Any outer, n and columns.
 */
#include "defaults.h"
/* holes */
#define KERNEL reduce_mean_columns_f32
static inline vf MAP(vf x) { return x; }
static inline float FINISH(float sum, float count) { return sum / count; }
/* end holes */

enum { KERNEL_COLUMNS = 4 * VF_LANES };

typedef struct {
  const float *x;
  float *y;
  size_t n, columns, blocks, piece;
  int64_t xo, xs;
} KERNEL_args;

/* KERNEL_COLUMNS columns at once. */
static void KERNEL_wide(const KERNEL_args *a, const float *x, float *y) {
  vf t0 = vf_zero(), t1 = t0, t2 = t0, t3 = t0;
  for (size_t i = 0; i < a->n;) {
    size_t stop = a->n - i < a->piece ? a->n : i + a->piece;
    vf s0 = vf_zero(), s1 = s0, s2 = s0, s3 = s0;
    for (; i < stop; i++, x += a->xs) {
      s0 = s0 + MAP(vf_load(x));
      s1 = s1 + MAP(vf_load(x + VF_LANES));
      s2 = s2 + MAP(vf_load(x + 2 * VF_LANES));
      s3 = s3 + MAP(vf_load(x + 3 * VF_LANES));
    }
    t0 = t0 + s0;
    t1 = t1 + s1;
    t2 = t2 + s2;
    t3 = t3 + s3;
  }
  vf_store(y, t0);
  vf_store(y + VF_LANES, t1);
  vf_store(y + 2 * VF_LANES, t2);
  vf_store(y + 3 * VF_LANES, t3);
}

/* Up to VF_LANES columns. */
static void KERNEL_narrow(const KERNEL_args *a, const float *x, float *y, size_t lanes) {
  vf t = vf_zero();
  for (size_t i = 0; i < a->n;) {
    size_t stop = a->n - i < a->piece ? a->n : i + a->piece;
    vf s = vf_zero();
    for (; i < stop; i++, x += a->xs) s = s + MAP(vf_load_some(x, lanes));
    t = t + s;
  }
  vf_store_some(y, t, lanes);
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    size_t o = item / a->blocks, c = item % a->blocks * KERNEL_COLUMNS;
    size_t columns = a->columns - c < KERNEL_COLUMNS ? a->columns - c : KERNEL_COLUMNS;
    const float *x = a->x + (int64_t)o * a->xo + (int64_t)c;
    float *y = a->y + o * a->columns + c;
    if (columns == KERNEL_COLUMNS)
      KERNEL_wide(a, x, y);
    else
      for (size_t j = 0; j < columns; j += VF_LANES)
        KERNEL_narrow(a, x + j, y + j, columns - j < VF_LANES ? columns - j : VF_LANES);
    for (size_t j = 0; j < columns; j++) y[j] = FINISH(y[j], (float)a->n);
  }
}

void KERNEL(const moecc_pool *pool, const float *x, float *y, size_t outer, size_t n, size_t columns, int64_t xo,
            int64_t xs) {
  const size_t blocks = (columns + KERNEL_COLUMNS - 1) / KERNEL_COLUMNS;
  size_t piece = 32;
  while (piece < n / piece) piece *= 2;
  const KERNEL_args a = {x, y, n, columns, blocks, piece, xo, xs};
  moecc_for(pool, KERNEL_part, &a, outer * blocks);
}
