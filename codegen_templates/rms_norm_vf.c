/* RMS normalisation: y = x / sqrt(mean of x*x + epsilon) * scale over rows, float32.
 * x: rows of n elements, each contiguous, `xs` apart; y: rows one after another; scale: n elements. Any rows, n >= 1.
 */
#include "defaults.h"
/* holes */
#define KERNEL rms_norm_f32
/* end holes */

typedef struct {
  const float *x, *scale;
  float *y;
  size_t n;
  int64_t xs;
  float epsilon;
} KERNEL_args;

enum { KERNEL_PIECE = 4096 };

static float KERNEL_squares(const float *x, size_t n) {
  vf s0 = vf_zero(), s1 = s0, s2 = s0, s3 = s0;
  size_t i = 0;
  for (; i + 4 * VF_LANES <= n; i += 4 * VF_LANES) {
    const vf x0 = vf_load(x + i), x1 = vf_load(x + i + VF_LANES);
    const vf x2 = vf_load(x + i + 2 * VF_LANES), x3 = vf_load(x + i + 3 * VF_LANES);
    s0 = vf_fma(x0, x0, s0);
    s1 = vf_fma(x1, x1, s1);
    s2 = vf_fma(x2, x2, s2);
    s3 = vf_fma(x3, x3, s3);
  }
  for (; i + VF_LANES <= n; i += VF_LANES) s0 = vf_fma(vf_load(x + i), vf_load(x + i), s0);
  if (i < n) s1 = vf_fma(vf_load_some(x + i, n - i), vf_load_some(x + i, n - i), s1);
  return vf_sum((s0 + s1) + (s2 + s3));
}

static float KERNEL_mean_square(const float *x, size_t n) {
  double sum = 0.0;
  for (size_t i = 0; i < n; i += KERNEL_PIECE)
    sum += (double)KERNEL_squares(x + i, n - i < KERNEL_PIECE ? n - i : KERNEL_PIECE);
  return (float)(sum / (double)n);
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t r = begin; r < end; r++) {
    const float *x = a->x + (int64_t)r * a->xs;
    float *y = a->y + r * a->n;
    const float factor = 1.0f / moecc_sqrt_f32(KERNEL_mean_square(x, a->n) + a->epsilon);
    const vf f = vf_set1(factor);
    size_t i = 0;
    for (; i + VF_LANES <= a->n; i += VF_LANES) vf_store(y + i, vf_load(x + i) * f * vf_load(a->scale + i));
    for (; i < a->n; i++) y[i] = x[i] * factor * a->scale[i];
  }
}

void KERNEL(const moecc_pool *pool, const float *x, const float *scale, float *y, size_t rows, size_t n, int64_t xs,
            float epsilon) {
  const KERNEL_args a = {x, scale, y, n, xs, epsilon};
  moecc_for(pool, KERNEL_part, &a, rows);
}
