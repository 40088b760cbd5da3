/* y[o][i][j] = x[o][index[i]][j]: slices of an axis by index. x: [outer, n, inner], y: [outer, count, inner], packed.
 * Negative indices count from the end; others out of range are taken to the nearest end, so that nothing outside is
 * read.
 */
#include "defaults.h"
/* holes */
#define KERNEL gather_f32_i64
#define T      float
#define I      int64_t
/* end holes */

typedef struct {
  const T *x;
  const I *index;
  T *y;
  size_t n, count, inner;
} KERNEL_args;

static size_t KERNEL_place(int64_t i, int64_t n) {
  if (i < 0) i += n;
  return (size_t)(i < 0 ? 0 : i >= n ? n - 1 : i);
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    const T *x = a->x + (item / a->count * a->n + KERNEL_place(a->index[item % a->count], (int64_t)a->n)) * a->inner;
    T *y = a->y + item * a->inner;
    for (size_t j = 0; j < a->inner; j++) y[j] = x[j];
  }
}

void KERNEL(const moecc_pool *pool, const T *x, const I *index, T *y, size_t outer, size_t n, size_t count,
            size_t inner) {
  if (n == 0 || count == 0) return;
  const KERNEL_args a = {x, index, y, n, count, inner};
  moecc_for(pool, KERNEL_part, &a, outer * count);
}
