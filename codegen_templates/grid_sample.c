/* y[s][o][c] = sum over taps t of w(t) * x[s][t][c]: a picture read at positions that an input gives, between its
 * elements. x: [samples, d0, d1, d2, channels], y: [samples, outputs, channels], grid: [samples, outputs, axes],
 * packed; a grid's last numbers are for the last axes in reverse, -1 and 1 being the ends of an axis. `shape`: d0, d1,
 * d2 (leading ones for fewer than three axes), axes, outputs. PLACE makes a position of a number, CHOOSE the first of
 * TAPS neighbours and their weights, TAP the element behind a neighbour, -1 for none (it counts as 0).
 */
#include "defaults.h"
/* holes */
#define KERNEL grid_sample_f32
#define T      float
#define G      float
#define TAPS   2
static inline double PLACE(double v, double n) { return ((v + 1.0) * n - 1.0) * 0.5; }
static inline int64_t CHOOSE(double v, double *weight) {
  const double low = floor(v);
  weight[0] = low + 1.0 - v;
  weight[1] = v - low;
  return (int64_t)low;
}
static inline int64_t TAP(int64_t i, int64_t n) { return i >= 0 && i < n ? i : -1; }
/* end holes */

typedef struct {
  const T *x;
  const G *grid;
  T *y;
  size_t channels;
  const int64_t *shape;
} KERNEL_args;

/* The neighbours of position v, which may be infinite or NaN, on an axis of n. */
static void KERNEL_axis(double v, int64_t n, int64_t *tap, double *weight) {
  double at = PLACE(v, (double)n);
  if (!(at > -1e15)) at = -1e15;
  if (at > 1e15) at = 1e15;
  const int64_t first = CHOOSE(at, weight);
  for (int64_t t = 0; t < TAPS; t++) tap[t] = TAP(first + t, n);
}

/* An item is one position of one sample. */
static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const int64_t *d = a->shape, axes = d[3];
  const size_t channels = a->channels;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    const T *x = a->x + item / (size_t)d[4] * (size_t)(d[0] * d[1] * d[2]) * channels;
    T *y = a->y + item * channels;
    int64_t tap[3][TAPS] = {{0}}, taps[3] = {1, 1, 1};
    double weight[3][TAPS] = {{1.0}, {1.0}, {1.0}};
    for (int64_t i = 0; i < axes; i++) {
      const int64_t to = 2 - i;
      KERNEL_axis((double)a->grid[item * (size_t)axes + (size_t)i], d[to], tap[to], weight[to]);
      taps[to] = TAPS;
    }
    for (size_t c = 0; c < channels; c++) y[c] = 0;
    for (int64_t i = 0; i < taps[0]; i++)
      for (int64_t j = 0; j < taps[1]; j++)
        for (int64_t k = 0; k < taps[2]; k++) {
          if (tap[0][i] < 0 || tap[1][j] < 0 || tap[2][k] < 0) continue;
          const T w = (T)(weight[0][i] * weight[1][j] * weight[2][k]);
          const T *row = x + (size_t)((tap[0][i] * d[1] + tap[1][j]) * d[2] + tap[2][k]) * channels;
          for (size_t c = 0; c < channels; c++) y[c] += w * row[c];
        }
  }
}

void KERNEL(const moecc_pool *pool, const T *x, const G *grid, T *y, size_t samples, size_t channels,
            const int64_t *shape) {
  const KERNEL_args a = {x, grid, y, channels, shape};
  moecc_for(pool, KERNEL_part, &a, samples * (size_t)shape[4]);
}
