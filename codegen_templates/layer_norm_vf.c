/* Layer normalisation: y = EPILOGUE((x - mean) / sqrt(variance + epsilon) * scale + bias) over rows, float32.
 * x: rows of n elements, each contiguous, `xs` apart; y: rows one after another; scale: n elements; bias: n elements or
 * NULL. The mean is taken first, then the mean of the squared distances from it, both of a row's pieces. Any rows, n
 * >= 1. y may be x's place.
 */
#include "defaults.h"
/* holes */
#define KERNEL layer_norm_f32
static inline vf EPILOGUE(vf acc, const moecc_operand *o, size_t row, size_t col, size_t lanes) {
  (void)o;
  (void)row;
  (void)col;
  (void)lanes;
  return acc;
}
/* end holes */

typedef struct {
  const float *x, *scale, *bias;
  float *y;
  const moecc_operand *o;
  size_t n;
  int64_t xs;
  float epsilon;
} KERNEL_args;

enum { KERNEL_PIECE = 4096 };

static float KERNEL_sum(const float *x, size_t n) {
  vf s0 = vf_zero(), s1 = s0, s2 = s0, s3 = s0;
  size_t i = 0;
  for (; i + 4 * VF_LANES <= n; i += 4 * VF_LANES) {
    s0 = s0 + vf_load(x + i);
    s1 = s1 + vf_load(x + i + VF_LANES);
    s2 = s2 + vf_load(x + i + 2 * VF_LANES);
    s3 = s3 + vf_load(x + i + 3 * VF_LANES);
  }
  for (; i + VF_LANES <= n; i += VF_LANES) s0 = s0 + vf_load(x + i);
  if (i < n) s1 = s1 + vf_load_some(x + i, n - i);
  return vf_sum((s0 + s1) + (s2 + s3));
}

static float KERNEL_squares(const float *x, size_t n, float mean) {
  const vf m = vf_set1(mean);
  vf s0 = vf_zero(), s1 = s0, s2 = s0, s3 = s0;
  size_t i = 0;
  for (; i + 4 * VF_LANES <= n; i += 4 * VF_LANES) {
    const vf d0 = vf_load(x + i) - m, d1 = vf_load(x + i + VF_LANES) - m;
    const vf d2 = vf_load(x + i + 2 * VF_LANES) - m, d3 = vf_load(x + i + 3 * VF_LANES) - m;
    s0 = vf_fma(d0, d0, s0);
    s1 = vf_fma(d1, d1, s1);
    s2 = vf_fma(d2, d2, s2);
    s3 = vf_fma(d3, d3, s3);
  }
  for (; i + VF_LANES <= n; i += VF_LANES) {
    const vf d = vf_load(x + i) - m;
    s0 = vf_fma(d, d, s0);
  }
  float sum = vf_sum((s0 + s1) + (s2 + s3));
  for (; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
  return sum;
}

static float KERNEL_mean(const float *x, size_t n) {
  double sum = 0.0;
  for (size_t i = 0; i < n; i += KERNEL_PIECE)
    sum += (double)KERNEL_sum(x + i, n - i < KERNEL_PIECE ? n - i : KERNEL_PIECE);
  return (float)(sum / (double)n);
}

static float KERNEL_variance(const float *x, size_t n, float mean) {
  double sum = 0.0;
  for (size_t i = 0; i < n; i += KERNEL_PIECE)
    sum += (double)KERNEL_squares(x + i, n - i < KERNEL_PIECE ? n - i : KERNEL_PIECE, mean);
  return (float)(sum / (double)n);
}

static vf KERNEL_scaled(const KERNEL_args *a, vf x, size_t i) {
  if (a->bias) return vf_fma(x, vf_load(a->scale + i), vf_load(a->bias + i));
  return x * vf_load(a->scale + i);
}

static vf KERNEL_scaled_some(const KERNEL_args *a, vf x, size_t i, size_t lanes) {
  const vf scale = vf_load_some(a->scale + i, lanes);
  return a->bias ? vf_fma(x, scale, vf_load_some(a->bias + i, lanes)) : x * scale;
}

static void KERNEL_row(const KERNEL_args *a, size_t row) {
  const float *x = a->x + (int64_t)row * a->xs;
  float *y = a->y + row * a->n;
  const float mean = KERNEL_mean(x, a->n);
  const float factor = 1.0f / moecc_sqrt_f32(KERNEL_variance(x, a->n, mean) + a->epsilon);
  const vf m = vf_set1(mean), f = vf_set1(factor);
  size_t i = 0;
  for (; i + VF_LANES <= a->n; i += VF_LANES)
    vf_store(y + i, EPILOGUE(KERNEL_scaled(a, (vf_load(x + i) - m) * f, i), a->o, row, i, VF_LANES));
  if (i < a->n) {
    const size_t left = a->n - i;
    const vf end = KERNEL_scaled_some(a, (vf_load_some(x + i, left) - m) * f, i, left);
    vf_store_some(y + i, EPILOGUE(end, a->o, row, i, left), left);
  }
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t r = begin; r < end; r++) KERNEL_row(a, r);
}

void KERNEL(const moecc_pool *pool, const float *x, const float *scale, const float *bias, float *y,
            const moecc_operand *o, size_t rows, size_t n, int64_t xs, float epsilon) {
  const KERNEL_args a = {x, scale, bias, y, o, n, xs, epsilon};
  moecc_for(pool, KERNEL_part, &a, rows);
}
