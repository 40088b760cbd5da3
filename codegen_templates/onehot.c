/* y[o][d][j] = values[1] where index[o][j] is d (or d - depth), else values[0]. index: [outer, inner], y: [outer,
 * depth, inner], packed; values: off, on.
 */
#include "defaults.h"
/* holes */
#define KERNEL onehot_f32_i64
#define T      float
#define I      int64_t
/* end holes */

typedef struct {
  const I *index;
  const T *values;
  T *y;
  size_t depth, inner;
} KERNEL_args;

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    const I *index = a->index + item / a->depth * a->inner;
    const int64_t d = (int64_t)(item % a->depth);
    T *y = a->y + item * a->inner;
    for (size_t j = 0; j < a->inner; j++) {
      const int64_t i = (int64_t)index[j];
      y[j] = a->values[(i < 0 ? i + (int64_t)a->depth : i) == d];
    }
  }
}

void KERNEL(const moecc_pool *pool, const I *index, const T *values, T *y, size_t outer, size_t depth, size_t inner) {
  if (depth == 0) return;
  const KERNEL_args a = {index, values, y, depth, inner};
  moecc_for(pool, KERNEL_part, &a, outer * depth);
}
