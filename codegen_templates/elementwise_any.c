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

enum { KERNEL_BLOCK = 2048 };

typedef struct {
  const char *x[OPERANDS];
  T *y;
  moecc_rows rows;
} KERNEL_args;

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const int64_t *step = a->rows.outer + 1 + a->rows.outer[0] * (1 + OPERANDS);
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    const moecc_rows_item part = moecc_rows_at(&a->rows, item);
    int64_t index[MOECC_ROWS_LOOPS], at[OPERANDS];
    moecc_rows_seek(a->rows.outer, OPERANDS, part.row, index, at);
    T *y = a->y + part.row * a->rows.n;
    for (size_t row = 0; row < part.rows; row++, y += a->rows.n) {
      const char *x[OPERANDS];
      for (size_t k = 0; k < OPERANDS; k++) x[k] = a->x[k] + at[k];
      for (size_t i = part.from; i < part.to; i++) y[i] = ELEMENT(x, step, i);
      moecc_rows_next(a->rows.outer, OPERANDS, index, at);
    }
  }
}

void KERNEL(const moecc_pool *pool, PARAMETERS, T *y, size_t rows, size_t n, const int64_t *outer) {
  if (rows == 0 || n == 0) return;
  const KERNEL_args a = {{POINTERS}, y, moecc_rows_of(rows, n, KERNEL_BLOCK, outer)};
  moecc_for(pool, KERNEL_part, &a, moecc_rows_items(&a.rows));
}
