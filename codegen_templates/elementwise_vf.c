/* One expression over all elements, float32, vectorised: y = ELEMENT(operands).
 * y: rows of n elements, contiguous. An operand is contiguous along a row, or one element serves the whole row: that
 * stands in ELEMENT. Where rows begin says the table `outer`: the number of outer loops, then per loop its length and
 * each operand's stride. Any rows and n, also 0; tails by partial loads and stores.
 */
#include "defaults.h"
/* holes */
#define KERNEL     add_f32
#define OPERANDS   2
#define PARAMETERS const float *x0, const float *x1
#define POINTERS   x0, x1
static inline vf ELEMENT(const float *const *x, size_t i, size_t lanes) {
  const vf x0 = lanes == VF_LANES ? vf_load(x[0] + i) : vf_load_some(x[0] + i, lanes);
  const vf x1 = lanes == VF_LANES ? vf_load(x[1] + i) : vf_load_some(x[1] + i, lanes);
  return x0 + x1;
}
/* end holes */

enum { KERNEL_BLOCK = 2048, KERNEL_LOOPS = 8 };

typedef struct {
  const float *x[OPERANDS];
  float *y;
  size_t rows, n, blocks, group;
  const int64_t *outer;
} KERNEL_args;

/* Where each operand's row begins, and the loop counters there. */
static void KERNEL_seek(const KERNEL_args *a, size_t row, const float **x, int64_t *index) {
  for (size_t k = 0; k < OPERANDS; k++) x[k] = a->x[k];
  for (int64_t d = a->outer[0] - 1; d >= 0; d--) {
    const int64_t *loop = a->outer + 1 + d * (1 + OPERANDS);
    index[d] = (int64_t)(row % (size_t)loop[0]);
    row /= (size_t)loop[0];
    for (size_t k = 0; k < OPERANDS; k++) x[k] += index[d] * loop[1 + k];
  }
}

static void KERNEL_next(const KERNEL_args *a, const float **x, int64_t *index) {
  for (int64_t d = a->outer[0] - 1; d >= 0; d--) {
    const int64_t *loop = a->outer + 1 + d * (1 + OPERANDS);
    int64_t back = ++index[d] == loop[0] ? loop[0] : 0;
    for (size_t k = 0; k < OPERANDS; k++) x[k] += (1 - back) * loop[1 + k];
    if (back == 0) return;
    index[d] = 0;
  }
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    size_t row = item / a->blocks * a->group, from = item % a->blocks * KERNEL_BLOCK;
    size_t rows = a->rows - row < a->group ? a->rows - row : a->group;
    size_t to = a->n - from < KERNEL_BLOCK || a->blocks == 1 ? a->n : from + KERNEL_BLOCK;
    const float *x[OPERANDS];
    int64_t index[KERNEL_LOOPS];
    KERNEL_seek(a, row, x, index);
    for (float *y = a->y + row * a->n; rows > 0; rows--, y += a->n) {
      size_t i = from;
      for (; i + VF_LANES <= to; i += VF_LANES) vf_store(y + i, ELEMENT(x, i, VF_LANES));
      if (i < to) vf_store_some(y + i, ELEMENT(x, i, to - i), to - i);
      KERNEL_next(a, x, index);
    }
  }
}

void KERNEL(const moecc_pool *pool, PARAMETERS, float *y, size_t rows, size_t n, const int64_t *outer) {
  if (rows == 0 || n == 0) return;
  size_t blocks = (n + KERNEL_BLOCK - 1) / KERNEL_BLOCK, group = blocks == 1 ? KERNEL_BLOCK / n : 1;
  const KERNEL_args a = {{POINTERS}, y, rows, n, blocks, group, outer};
  moecc_for(pool, KERNEL_part, &a, (rows + group - 1) / group * blocks);
}
