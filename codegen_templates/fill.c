/* y = v. Rows of n elements lie as the table `outer` says: the number of outer loops, then per loop its length and
 * stride; elements of a row are `step` apart. V is the type in which the value is passed.
 */
#include "defaults.h"
/* holes */
#define KERNEL fill_f32
#define T      float
#define V      float
/* end holes */

typedef struct {
  T *y;
  T v;
  size_t n;
  int64_t step;
  const int64_t *outer;
} KERNEL_args;

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    size_t row = item;
    T *y = a->y;
    for (int64_t d = a->outer[0] - 1; d >= 0; d--) {
      const int64_t *loop = a->outer + 1 + d * 2;
      y += (int64_t)(row % (size_t)loop[0]) * loop[1];
      row /= (size_t)loop[0];
    }
    if (a->step == 1)
      for (size_t i = 0; i < a->n; i++) y[i] = a->v;
    else
      for (size_t i = 0; i < a->n; i++) y[(int64_t)i * a->step] = a->v;
  }
}

void KERNEL(const moecc_pool *pool, V v, T *y, size_t rows, size_t n, int64_t step, const int64_t *outer) {
  const KERNEL_args a = {y, (T)v, n, step, outer};
  moecc_for(pool, KERNEL_part, &a, rows);
}
