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

enum { KERNEL_BLOCK = 2048 };

typedef struct {
  const float *x[OPERANDS];
  float *y;
  moecc_rows rows;
} KERNEL_args;

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    const moecc_rows_item part = moecc_rows_at(&a->rows, item);
    int64_t index[MOECC_ROWS_LOOPS], at[OPERANDS];
    moecc_rows_seek(a->rows.outer, OPERANDS, part.row, index, at);
    float *y = a->y + part.row * a->rows.n;
    for (size_t row = 0; row < part.rows; row++, y += a->rows.n) {
      const float *x[OPERANDS];
      for (size_t k = 0; k < OPERANDS; k++) x[k] = a->x[k] + at[k];
      size_t i = part.from;
      for (; i + VF_LANES <= part.to; i += VF_LANES) vf_store(y + i, ELEMENT(x, i, VF_LANES));
      if (i < part.to) vf_store_some(y + i, ELEMENT(x, i, part.to - i), part.to - i);
      moecc_rows_next(a->rows.outer, OPERANDS, index, at);
    }
  }
}

void KERNEL(const moecc_pool *pool, PARAMETERS, float *y, size_t rows, size_t n, const int64_t *outer) {
  if (rows == 0 || n == 0) return;
  const KERNEL_args a = {{POINTERS}, y, moecc_rows_of(rows, n, KERNEL_BLOCK, outer)};
  moecc_for(pool, KERNEL_part, &a, moecc_rows_items(&a.rows));
}
