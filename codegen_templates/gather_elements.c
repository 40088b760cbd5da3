/* y[i0][i1]… = x[i0]…[index[i0][i1]…]…: the index replaces one coordinate. index and y: packed; x: packed, at least as
 * long along the other axes. `dims`: for each of `rank` dimensions the length of y and the stride of x, which is 0 at
 * the axis; the axis of x has `n` elements, `step` apart. Indices out of range are taken to the nearest end.
 */
#include "defaults.h"
/* holes */
#define KERNEL gather_elements_f32_i64
#define T      float
#define I      int64_t
/* end holes */

typedef struct {
  const T *x;
  const I *index;
  T *y;
  int64_t n, step;
  size_t rank;
  const int64_t *dims;
} KERNEL_args;

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    const T *x = a->x;
    size_t place = item;
    for (size_t d = a->rank; d-- > 0;) {
      x += (int64_t)(place % (size_t)a->dims[2 * d]) * a->dims[2 * d + 1];
      place /= (size_t)a->dims[2 * d];
    }
    int64_t i = (int64_t)a->index[item];
    if (i < 0) i += a->n;
    i = i < 0 ? 0 : i >= a->n ? a->n - 1 : i;
    a->y[item] = x[i * a->step];
  }
}

void KERNEL(const moecc_pool *pool, const T *x, const I *index, T *y, size_t count, int64_t n, int64_t step,
            size_t rank, const int64_t *dims) {
  if (n == 0) return;
  const KERNEL_args a = {x, index, y, n, step, rank, dims};
  moecc_for(pool, KERNEL_part, &a, count);
}
