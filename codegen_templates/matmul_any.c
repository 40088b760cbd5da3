/* y[b][m][n] = END(sum over k of x[b][m][k] * w[b][k][n], c[m][n]), any element type, any strides: short and right.
 * Batch dimensions lie as the table `batch` says: their number, then for each its length and the strides of x and w.
 * y is dense. c may be NULL. A work item is a row of y.
 */
#include "defaults.h"
/* holes */
#define KERNEL matmul_f64
#define T      double
static inline T MAC(T sum, T a, T b) { return sum + a * b; }
static inline T END(T sum, const T *c, double alpha, double beta) {
  (void)c;
  (void)alpha;
  (void)beta;
  return sum;
}
/* end holes */

typedef struct {
  const T *x, *w, *c;
  T *y;
  const int64_t *batch;
  size_t rows, k, n;
  int64_t x_row, x_column, w_row, w_column, c_row, c_column;
  double alpha, beta;
} KERNEL_args;

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t i = begin; i < end; i++) {
    size_t left = i / a->rows, row = i % a->rows;
    const T *x = a->x + (int64_t)row * a->x_row, *w = a->w;
    for (int64_t d = a->batch[0]; d-- > 0; left /= (size_t)a->batch[1 + 3 * d]) {
      int64_t at = (int64_t)(left % (size_t)a->batch[1 + 3 * d]);
      x += at * a->batch[2 + 3 * d];
      w += at * a->batch[3 + 3 * d];
    }
    for (size_t c = 0; c < a->n; c++) {
      const T *u = x, *v = w + (int64_t)c * a->w_column;
      T sum = 0;
      for (size_t k = 0; k < a->k; k++, u += a->x_column, v += a->w_row) sum = MAC(sum, *u, *v);
      const T *add = a->c ? a->c + (int64_t)row * a->c_row + (int64_t)c * a->c_column : NULL;
      a->y[i * a->n + c] = END(sum, add, a->alpha, a->beta);
    }
  }
}

void KERNEL(const moecc_pool *pool, const T *x, const T *w, const T *c, T *y, const int64_t *batch, size_t batches,
            size_t rows, size_t k, size_t n, int64_t x_row, int64_t x_column, int64_t w_row, int64_t w_column,
            int64_t c_row, int64_t c_column, double alpha, double beta) {
  const KERNEL_args a = {x, w, c, y, batch, rows, k, n, x_row, x_column, w_row, w_column, c_row, c_column, alpha, beta};
  moecc_for(pool, KERNEL_part, &a, batches * rows);
}
