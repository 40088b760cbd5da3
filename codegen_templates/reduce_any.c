/* Reduction of any axes: y[kept] = FINISH(STEP over the reduced elements, count), in a fixed order.
 * y: one element per combination of the kept loops, in order. `loops`: how many kept and how many reduced loops, then
 * per loop, kept ones first, its length and x's stride.
 */
#include "defaults.h"
/* holes */
#define KERNEL reduce_sum_f32
#define T      float
#define ACC    double
#define INIT   0
static inline double STEP(double acc, float x) { return acc + (double)x; }
static inline float FINISH(double acc, double count) {
  (void)count;
  return (float)acc;
}
/* end holes */

enum { KERNEL_LOOPS = 8 };

typedef struct {
  const T *x;
  T *y;
  size_t count; /* elements reduced to one */
  const int64_t *loops;
} KERNEL_args;

static T KERNEL_one(const T *x, size_t count, int64_t n_loops, const int64_t *loops) {
  int64_t index[KERNEL_LOOPS] = {0};
  ACC acc = INIT;
  if (n_loops == 0) return FINISH(STEP(acc, x[0]), 1);
  const int64_t *last = loops + 2 * (n_loops - 1);
  for (size_t left = count; left > 0; left -= (size_t)last[0]) {
    for (int64_t i = 0; i < last[0]; i++) acc = STEP(acc, x[i * last[1]]);
    for (int64_t d = n_loops - 2; d >= 0; d--) {
      int64_t back = ++index[d] == loops[2 * d] ? loops[2 * d] : 0;
      x += (1 - back) * loops[2 * d + 1];
      if (back == 0) break;
      index[d] = 0;
    }
  }
  return FINISH(acc, (double)count);
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
    a->y[item] = KERNEL_one(x, a->count, a->loops[1], a->loops + 2 + 2 * a->loops[0]);
  }
}

void KERNEL(const moecc_pool *pool, const T *x, T *y, size_t outputs, size_t count, const int64_t *loops) {
  const KERNEL_args a = {x, y, count, loops};
  moecc_for(pool, KERNEL_part, &a, outputs);
}
