/* y[i0][i1]… = x[p0(i0)][p1(i1)]…: the same elements at positions given per axis (padding by reflection, nearest
 * resize). y: rows of n groups of `run` elements, contiguous; a group is contiguous in x. `tables`: the number R of
 * outer loops, then per loop its length and where in `tables` its list of x offsets begins; then the list of the n
 * groups' x offsets.
 */
#include "defaults.h"
/* holes */
#define KERNEL pick_f32
#define T      float
/* end holes */

typedef struct {
  const T *x;
  T *y;
  size_t n, run;
  const int64_t *tables;
} KERNEL_args;

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const int64_t *list = a->tables + 1 + 2 * a->tables[0];
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    size_t row = item;
    const T *x = a->x;
    T *y = a->y + item * a->n * a->run;
    for (int64_t d = a->tables[0] - 1; d >= 0; d--) {
      const int64_t *loop = a->tables + 1 + 2 * d;
      x += a->tables[loop[1] + (int64_t)(row % (size_t)loop[0])];
      row /= (size_t)loop[0];
    }
    if (a->run == 1)
      for (size_t i = 0; i < a->n; i++) y[i] = x[list[i]];
    else
      for (size_t i = 0; i < a->n; i++, y += a->run)
        for (size_t j = 0; j < a->run; j++) y[j] = x[list[i] + (int64_t)j];
  }
}

void KERNEL(const moecc_pool *pool, const T *x, T *y, size_t rows, size_t n, size_t run, const int64_t *tables) {
  const KERNEL_args a = {x, y, n, run, tables};
  moecc_for(pool, KERNEL_part, &a, rows);
}
