/* y = index of the best element along an axis, BETTER(a, b) saying whether a beats b; ties: the first index.
 * x: [outer, n, inner], packed; y: [outer, inner]. With BETTER true for ties the last index is found.
 */
#include "defaults.h"
/* holes */
#define KERNEL arg_max_f32
#define T      float
static inline int BETTER(float a, float b) { return a > b; }
/* end holes */

typedef struct {
  const T *x;
  int64_t *y;
  size_t n, inner;
} KERNEL_args;

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    const T *x = a->x + item / a->inner * a->n * a->inner + item % a->inner;
    size_t best = 0;
    for (size_t i = 1; i < a->n; i++)
      if (BETTER(x[i * a->inner], x[best * a->inner])) best = i;
    a->y[item] = (int64_t)best;
  }
}

void KERNEL(const moecc_pool *pool, const T *x, int64_t *y, size_t outer, size_t n, size_t inner) {
  const KERNEL_args a = {x, y, n, inner};
  moecc_for(pool, KERNEL_part, &a, outer * inner);
}
