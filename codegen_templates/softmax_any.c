/* Softmax along any axis: y = exp(x - max x) / sum exp(x - max x); with FINISH the other way, LogSoftmax.
 * x and y: [outer, n, inner], packed. T float or double; EXP and LOG are its functions; the sum is taken in double.
 */
#include "defaults.h"
/* holes */
#define KERNEL softmax_any_f32
#define T      float
#define EXP    moecc_exp_f32
static inline float FINISH(float shifted, double sum) { return (float)(EXP(shifted) / sum); }
/* end holes */

typedef struct {
  const T *x;
  T *y;
  size_t n, inner;
} KERNEL_args;

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  size_t n = a->n, s = a->inner;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    size_t base = item / s * n * s + item % s;
    const T *x = a->x + base;
    T *y = a->y + base, m = x[0];
    double sum = 0;
    for (size_t i = 1; i < n; i++) m = x[i * s] > m ? x[i * s] : m;
    for (size_t i = 0; i < n; i++) sum += EXP(x[i * s] - m);
    for (size_t i = 0; i < n; i++) y[i * s] = FINISH(x[i * s] - m, sum);
  }
}

void KERNEL(const moecc_pool *pool, const T *x, T *y, size_t outer, size_t n, size_t inner) {
  if (n == 0) return;
  const KERNEL_args a = {x, y, n, inner};
  moecc_for(pool, KERNEL_part, &a, outer * inner);
}
