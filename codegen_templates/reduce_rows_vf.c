/* y[r] = FINISH(sum over i of MAP(x[r][i]), n), float32: sums, means, norms along the contiguous axis.
 * x: rows of n elements, each contiguous; where rows lie says the table `outer`: the number of loops, then per loop its
 * length and stride. y: one element per row. Partial sums, four vectors of them in each piece of a row,
 * keep the error small. Any rows and n.
 */
#include "defaults.h"
/* holes */
#define KERNEL reduce_mean_f32
static inline vf MAP(vf x) { return x; }
static inline float FINISH(float sum, float count) { return sum / count; }
/* end holes */

typedef struct {
  const float *x;
  float *y;
  size_t n;
  const int64_t *outer;
} KERNEL_args;

enum { KERNEL_PIECE = 4096 };

static float KERNEL_sum(const float *x, size_t n) {
  vf s0 = vf_zero(), s1 = s0, s2 = s0, s3 = s0;
  size_t i = 0;
  for (; i + 4 * VF_LANES <= n; i += 4 * VF_LANES) {
    s0 = s0 + MAP(vf_load(x + i));
    s1 = s1 + MAP(vf_load(x + i + VF_LANES));
    s2 = s2 + MAP(vf_load(x + i + 2 * VF_LANES));
    s3 = s3 + MAP(vf_load(x + i + 3 * VF_LANES));
  }
  for (; i + VF_LANES <= n; i += VF_LANES) s0 = s0 + MAP(vf_load(x + i));
  if (i < n) s1 = s1 + MAP(vf_load_some(x + i, n - i));
  return vf_sum((s0 + s1) + (s2 + s3));
}

static float KERNEL_row(const float *x, size_t n) {
  double sum = 0.0;
  for (size_t i = 0; i < n; i += KERNEL_PIECE)
    sum += (double)KERNEL_sum(x + i, n - i < KERNEL_PIECE ? n - i : KERNEL_PIECE);
  return FINISH((float)sum, (float)n);
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    size_t row = item;
    const float *x = a->x;
    for (int64_t d = a->outer[0] - 1; d >= 0; d--) {
      const int64_t *loop = a->outer + 1 + 2 * d;
      x += (int64_t)(row % (size_t)loop[0]) * loop[1];
      row /= (size_t)loop[0];
    }
    a->y[item] = KERNEL_row(x, a->n);
  }
}

void KERNEL(const moecc_pool *pool, const float *x, float *y, size_t rows, size_t n, const int64_t *outer) {
  const KERNEL_args a = {x, y, n, outer};
  moecc_for(pool, KERNEL_part, &a, rows);
}
