/* A triangle of each matrix, the rest 0: y[r][c] = x[r][c] where low <= c - r <= high. x, y: [count, rows, columns],
 * packed. */
#include "defaults.h"
/* holes */
#define KERNEL trilu_f32
#define T      float
/* end holes */

typedef struct {
  const T *x;
  T *y;
  size_t rows, columns;
  int64_t low, high;
} KERNEL_args;

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    const int64_t r = (int64_t)(item % a->rows);
    const T *x = a->x + item * a->columns;
    T *y = a->y + item * a->columns;
    for (int64_t c = 0; c < (int64_t)a->columns; c++) y[c] = c - r >= a->low && c - r <= a->high ? x[c] : 0;
  }
}

void KERNEL(const moecc_pool *pool, const T *x, T *y, size_t count, size_t rows, size_t columns, int64_t low,
            int64_t high) {
  const KERNEL_args a = {x, y, rows, columns, low, high};
  moecc_for(pool, KERNEL_part, &a, count * rows);
}
