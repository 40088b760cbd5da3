/* Pooling over up to three spatial axes: y = FINISH(STEP over the window's elements inside x, how many count).
 * x: [channels (samples times channels), d0, d1, d2], y: [channels, o0, o1, o2], packed. `shape`, three numbers each:
 * input d, output o, window, stride, dilation, padding before; then where averages stop counting (d + padding after).
 * COUNT_PADS 1: padded positions count as elements of value 0.
 */
#include "defaults.h"
/* holes */
#define KERNEL     average_pool_f32
#define T          float
#define ACC        double
#define INIT       0
#define COUNT_PADS 0
static inline double STEP(double acc, float x) { return acc + (double)x; }
static inline float FINISH(double acc, double count) { return (float)(acc / count); }
/* end holes */

typedef struct {
  const T *x;
  T *y;
  const int64_t *shape;
} KERNEL_args;

static T KERNEL_window(const T *x, const int64_t *shape, const int64_t *at) {
  const int64_t *d = shape, *k = shape + 6, *dilation = shape + 12, *end = shape + 18;
  ACC acc = INIT;
  int64_t inside = 0, counted = 0;
  for (int64_t i = 0; i < k[0]; i++)
    for (int64_t j = 0; j < k[1]; j++)
      for (int64_t l = 0; l < k[2]; l++) {
        int64_t p = at[0] + i * dilation[0], q = at[1] + j * dilation[1], r = at[2] + l * dilation[2];
        counted += p < end[0] && q < end[1] && r < end[2];
        if (p < 0 || q < 0 || r < 0 || p >= d[0] || q >= d[1] || r >= d[2]) continue;
        acc = STEP(acc, x[(p * d[1] + q) * d[2] + r]);
        inside++;
      }
  return FINISH(acc, (double)(COUNT_PADS ? counted : inside));
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const int64_t *d = a->shape, *o = d + 3, *stride = d + 9, *pad = d + 15;
  (void)thread;
  for (size_t c = begin; c < end; c++) {
    const T *x = a->x + (int64_t)c * d[0] * d[1] * d[2];
    T *y = a->y + (int64_t)c * o[0] * o[1] * o[2];
    for (int64_t i = 0; i < o[0]; i++)
      for (int64_t j = 0; j < o[1]; j++)
        for (int64_t l = 0; l < o[2]; l++) {
          const int64_t at[3] = {i * stride[0] - pad[0], j * stride[1] - pad[1], l * stride[2] - pad[2]};
          *y++ = KERNEL_window(x, d, at);
        }
  }
}

void KERNEL(const moecc_pool *pool, const T *x, T *y, size_t channels, const int64_t *shape) {
  const KERNEL_args a = {x, y, shape};
  moecc_for(pool, KERNEL_part, &a, channels);
}
