/* One expression over all elements, operands and result of any types: y = ELEMENT(operands).
 * y: rows of n elements of T, contiguous. An operand is contiguous along a row, or one element serves the whole row, or
 * it goes by its `step` (elements): that stands in ELEMENT. Where rows begin says the table `outer`: the number of
 * outer loops, then per loop its length and each operand's stride in bytes; then each operand's step. Any rows and n.
 */
#include "defaults.h"
/* holes */
#define KERNEL     where_f32
#define T          float
#define OPERANDS   3
#define PARAMETERS const unsigned char *x0, const float *x1, const float *x2
#define POINTERS   (const char *)x0, (const char *)x1, (const char *)x2
static inline float ELEMENT(const char *const *x, const int64_t *step, size_t i) {
  const unsigned char x0 = ((const unsigned char *)(const void *)x[0])[i];
  const float x1 = ((const float *)(const void *)x[1])[(int64_t)i * step[1]];
  const float x2 = *(const float *)(const void *)x[2];
  return x0 ? x1 : x2;
}
/* end holes */

enum { KERNEL_BLOCK = 2048, KERNEL_LOOPS = 8 };

typedef struct {
  const char *x[OPERANDS];
  T *y;
  size_t rows, n, blocks, group;
  const int64_t *outer;
} KERNEL_args;

/* Where each operand's row begins, and the loop counters there. */
static void KERNEL_seek(const KERNEL_args *a, size_t row, const char **x, int64_t *index) {
  for (size_t k = 0; k < OPERANDS; k++) x[k] = a->x[k];
  for (int64_t d = a->outer[0] - 1; d >= 0; d--) {
    const int64_t *loop = a->outer + 1 + d * (1 + OPERANDS);
    index[d] = (int64_t)(row % (size_t)loop[0]);
    row /= (size_t)loop[0];
    for (size_t k = 0; k < OPERANDS; k++) x[k] += index[d] * loop[1 + k];
  }
}

static void KERNEL_next(const KERNEL_args *a, const char **x, int64_t *index) {
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
  const int64_t *step = a->outer + 1 + a->outer[0] * (1 + OPERANDS);
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    size_t row = item / a->blocks * a->group, from = item % a->blocks * KERNEL_BLOCK;
    size_t rows = a->rows - row < a->group ? a->rows - row : a->group;
    size_t to = a->n - from < KERNEL_BLOCK || a->blocks == 1 ? a->n : from + KERNEL_BLOCK;
    const char *x[OPERANDS];
    int64_t index[KERNEL_LOOPS];
    KERNEL_seek(a, row, x, index);
    for (T *y = a->y + row * a->n; rows > 0; rows--, y += a->n) {
      for (size_t i = from; i < to; i++) y[i] = ELEMENT(x, step, i);
      KERNEL_next(a, x, index);
    }
  }
}

void KERNEL(const moecc_pool *pool, PARAMETERS, T *y, size_t rows, size_t n, const int64_t *outer) {
  if (rows == 0 || n == 0) return;
  size_t blocks = (n + KERNEL_BLOCK - 1) / KERNEL_BLOCK, group = blocks == 1 ? KERNEL_BLOCK / n : 1;
  const KERNEL_args a = {{POINTERS}, y, rows, n, blocks, group, outer};
  moecc_for(pool, KERNEL_part, &a, (rows + group - 1) / group * blocks);
}
