/* Running sums along an axis: y[i] = x[0] + … + x[i], or without x[i] itself (exclusive), or from the other end
 * (reverse). x and y: [outer, n, inner], packed. Each sum is one chain in ACC, rounded where it is stored.
 */
#include "defaults.h"
/* holes */
#define KERNEL cumsum_f32
#define T      float
#define ACC    float
/* end holes */

typedef struct {
  const T *x;
  T *y;
  size_t n, inner, exclusive, reverse;
} KERNEL_args;

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    const size_t base = item / a->inner * a->n * a->inner + item % a->inner;
    ACC sum = 0;
    for (size_t i = 0; i < a->n; i++) {
      const size_t at = base + (a->reverse ? a->n - 1 - i : i) * a->inner;
      const ACC next = sum + (ACC)a->x[at];
      a->y[at] = (T)(a->exclusive ? sum : next);
      sum = next;
    }
  }
}

void KERNEL(const moecc_pool *pool, const T *x, T *y, size_t outer, size_t n, size_t inner, size_t exclusive,
            size_t reverse) {
  const KERNEL_args a = {x, y, n, inner, exclusive, reverse};
  moecc_for(pool, KERNEL_part, &a, outer * inner);
}
