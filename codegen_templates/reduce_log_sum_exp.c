/* y[kept] = m + log(sum of exp(x - m)) over any axes, m being the largest of them, the sum in double.
 * y: one element per combination of the kept loops, in order. `loops`: how many kept and how many reduced loops, then
 * per loop, kept ones first, its length and x's stride.
 */
#include "defaults.h"
/* holes */
#define KERNEL log_sum_exp_f32
#define T      float
/* end holes */

typedef struct {
  const T *x;
  T *y;
  size_t count; /* elements reduced to one */
  const int64_t *loops;
} KERNEL_args;

/* Element `i` of the loops. */
static T KERNEL_at(const T *x, size_t i, int64_t n_loops, const int64_t *loops) {
  for (int64_t d = n_loops - 1; d >= 0; d--) {
    x += (int64_t)(i % (size_t)loops[2 * d]) * loops[2 * d + 1];
    i /= (size_t)loops[2 * d];
  }
  return *x;
}

static double KERNEL_one(const T *x, size_t count, int64_t n_loops, const int64_t *loops) {
  double largest = -(double)INFINITY, sum = 0;
  for (size_t i = 0; i < count; i++) {
    double v = (double)KERNEL_at(x, i, n_loops, loops);
    if (!(v <= largest)) largest = v;
  }
  if (largest - largest != 0) return largest;
  for (size_t i = 0; i < count; i++) sum += moecc_exp_f64((double)KERNEL_at(x, i, n_loops, loops) - largest);
  return largest + moecc_log_f64(sum);
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    size_t row = item;
    const T *x = a->x;
    for (int64_t d = a->loops[0] - 1; d >= 0; d--) {
      const int64_t *loop = a->loops + 2 + 2 * d;
      x += (int64_t)(row % (size_t)loop[0]) * loop[1];
      row /= (size_t)loop[0];
    }
    a->y[item] = (T)KERNEL_one(x, a->count, a->loops[1], a->loops + 2 + 2 * a->loops[0]);
  }
}

void KERNEL(const moecc_pool *pool, const T *x, T *y, size_t outputs, size_t count, const int64_t *loops) {
  const KERNEL_args a = {x, y, count, loops};
  moecc_for(pool, KERNEL_part, &a, outputs);
}
