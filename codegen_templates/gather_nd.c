/* y[b][i][j] = x[b][index[b][i][0]][index[b][i][1]]…[j]: slices by tuples of `width` coordinates.
 * x: [batches, (dims), inner], index: [batches, count, width], y: [batches, count, inner], packed. `dims`: for each
 * coordinate its range and its stride in x; xb is a batch's stride. Indices out of range are taken to the nearest end.
 */
#include "defaults.h"
/* holes */
#define KERNEL gather_nd_f32_i64
#define T      float
#define I      int64_t
/* end holes */

typedef struct {
  const T *x;
  const I *index;
  T *y;
  size_t count, width, inner, xb;
  const int64_t *dims;
} KERNEL_args;

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    const T *x = a->x + item / a->count * a->xb;
    const I *index = a->index + item * a->width;
    T *y = a->y + item * a->inner;
    for (size_t k = 0; k < a->width; k++) {
      int64_t i = (int64_t)index[k], n = a->dims[2 * k];
      if (i < 0) i += n;
      x += (i < 0 ? 0 : i >= n ? n - 1 : i) * a->dims[2 * k + 1];
    }
    for (size_t j = 0; j < a->inner; j++) y[j] = x[j];
  }
}

void KERNEL(const moecc_pool *pool, const T *x, const I *index, T *y, size_t batches, size_t count, size_t width,
            size_t inner, size_t xb, const int64_t *dims) {
  if (count == 0) return;
  const KERNEL_args a = {x, index, y, count, width, inner, xb, dims};
  moecc_for(pool, KERNEL_part, &a, batches * count);
}
