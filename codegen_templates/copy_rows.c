/* y = x, rows of n elements, contiguous in both.
 * Rows lie as the table `outer` says: the number of outer loops, then per loop its length, x's stride and y's stride.
 * Any rows and n, also 0.
 */
#include "defaults.h"
/* holes */
#define KERNEL copy_rows_f32
#define T      float
/* end holes */

enum { KERNEL_BLOCK = 4096 };

typedef struct {
  const T *x;
  T *y;
  moecc_rows rows;
} KERNEL_args;

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    const moecc_rows_item part = moecc_rows_at(&a->rows, item);
    int64_t index[MOECC_ROWS_LOOPS], at[2];
    moecc_rows_seek(a->rows.outer, 2, part.row, index, at);
    for (size_t row = 0; row < part.rows; row++) {
      const T *x = a->x + at[0];
      T *y = a->y + at[1];
      for (size_t i = part.from; i < part.to; i++) y[i] = x[i];
      moecc_rows_next(a->rows.outer, 2, index, at);
    }
  }
}

void KERNEL(const moecc_pool *pool, const T *x, T *y, size_t rows, size_t n, const int64_t *outer) {
  if (rows == 0 || n == 0) return;
  const KERNEL_args a = {x, y, moecc_rows_of(rows, n, KERNEL_BLOCK, outer)};
  moecc_for(pool, KERNEL_part, &a, moecc_rows_items(&a.rows));
}
