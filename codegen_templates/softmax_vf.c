/* softmax: y = exp(x - max x) / sum exp(x - max x), float32.
 * x: rows of n elements, each contiguous, `xs` apart; y: rows one after another. Any rows, n >= 1. y may be x's place.
 * A row of which all elements are -infinity gives NaN, as the formula does.
 */
#include "defaults.h"
/* holes */
#define KERNEL softmax_f32
/* end holes */

typedef struct {
  const float *x;
  float *y;
  size_t n;
  int64_t xs;
} KERNEL_args;

static float KERNEL_largest(const float *x, size_t n) {
  vf m0 = vf_set1(-INFINITY), m1 = m0;
  size_t i = 0;
  for (; i + 2 * VF_LANES <= n; i += 2 * VF_LANES) {
    m0 = vf_max(vf_load(x + i), m0);
    m1 = vf_max(vf_load(x + i + VF_LANES), m1);
  }
  float m = vf_hmax(vf_max(m0, m1));
  for (; i < n; i++) m = x[i] > m ? x[i] : m;
  return m;
}

enum { KERNEL_PIECE = 4096 };

/* The exponentials of a piece of a row, and their sum. */
static float KERNEL_exponentials(const float *x, float *y, size_t n, vf m) {
  vf s0 = vf_zero(), s1 = s0;
  size_t i = 0;
  for (; i + 2 * VF_LANES <= n; i += 2 * VF_LANES) {
    const vf e0 = vf_exp_neg(vf_load(x + i) - m), e1 = vf_exp_neg(vf_load(x + i + VF_LANES) - m);
    vf_store(y + i, e0);
    vf_store(y + i + VF_LANES, e1);
    s0 = s0 + e0;
    s1 = s1 + e1;
  }
  float sum = vf_sum(s0 + s1);
  for (size_t j; i < n; i += j) {
    const vf e = vf_exp_neg(vf_load_some(x + i, j = n - i < VF_LANES ? n - i : VF_LANES) - m);
    vf_store_some(y + i, e, j);
    for (size_t k = 0; k < j; k++) sum += y[i + k];
  }
  return sum;
}

static void KERNEL_row(const float *x, float *y, size_t n) {
  const vf m = vf_set1(KERNEL_largest(x, n));
  double sum = 0.0;
  size_t i;
  for (i = 0; i < n; i += KERNEL_PIECE)
    sum += (double)KERNEL_exponentials(x + i, y + i, n - i < KERNEL_PIECE ? n - i : KERNEL_PIECE, m);
  const vf scale = vf_set1((float)(1.0 / sum));
  for (i = 0; i + VF_LANES <= n; i += VF_LANES) vf_store(y + i, vf_load(y + i) * scale);
  if (i < n) vf_store_some(y + i, vf_load_some(y + i, n - i) * scale, n - i);
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t r = begin; r < end; r++) KERNEL_row(a->x + (int64_t)r * a->xs, a->y + r * a->n, a->n);
}

void KERNEL(const moecc_pool *pool, const float *x, float *y, size_t rows, size_t n, int64_t xs) {
  const KERNEL_args a = {x, y, n, xs};
  moecc_for(pool, KERNEL_part, &a, rows);
}
