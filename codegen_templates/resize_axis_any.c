/* Resampling along one axis: y[o][i][c] = sum over t of weight[i][t] * x[o][index[i][t]][c], summed in double.
 * x: [outer, n, inner] of T, y: [outer, m, inner] of R, packed; index and weight: [m, taps]. ROUND ends the last pass
 * for integers.
 */
#include "defaults.h"
/* holes */
#define KERNEL resize_axis_f64
#define T      double
#define R      double
static inline double ROUND(double v) { return v; }
/* end holes */

typedef struct {
  const T *x;
  const double *weight;
  R *y;
  size_t n, m, inner, taps;
  const int64_t *index;
} KERNEL_args;

/* An item is one (o, i). */
static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    size_t o = item / a->m, i = item % a->m;
    const T *x = a->x + o * a->n * a->inner;
    const double *weight = a->weight + i * a->taps;
    const int64_t *index = a->index + i * a->taps;
    R *y = a->y + item * a->inner;
    for (size_t c = 0; c < a->inner; c++) {
      double acc = 0;
      for (size_t t = 0; t < a->taps; t++) acc += weight[t] * (double)x[(size_t)index[t] * a->inner + c];
      y[c] = ROUND(acc);
    }
  }
}

void KERNEL(const moecc_pool *pool, const T *x, const double *weight, R *y, size_t outer, size_t n, size_t m,
            size_t inner, size_t taps, const int64_t *index) {
  const KERNEL_args a = {x, weight, y, n, m, inner, taps, index};
  moecc_for(pool, KERNEL_part, &a, outer * m);
}
