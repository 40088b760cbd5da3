/* Normalisation of rows: y = (x - mean) / sqrt(variance + epsilon) * scale + bias, statistics in double.
 * x, y: rows of n elements, packed. Element i of row r uses scale[k] and bias[k] (NULL: 0) with
 * k = r % period * per_row + i / run: layers, instances, groups of channels. CENTERED 0: no mean is taken off (RMS).
 */
#include "defaults.h"
/* holes */
#define KERNEL   normalize_f32
#define T        float
#define CENTERED 1
/* end holes */

typedef struct {
  const T *x, *scale, *bias;
  T *y;
  size_t n, period, per_row, run;
  double epsilon;
} KERNEL_args;

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t r = begin; r < end; r++) {
    const T *x = a->x + r * a->n;
    T *y = a->y + r * a->n;
    double mean = 0, square = 0;
    for (size_t i = 0; i < a->n && CENTERED; i++) mean += (double)x[i];
    mean /= (double)a->n;
    for (size_t i = 0; i < a->n; i++) square += ((double)x[i] - mean) * ((double)x[i] - mean);
    double factor = 1 / sqrt(square / (double)a->n + a->epsilon);
    for (size_t i = 0; i < a->n; i++) {
      size_t k = r % a->period * a->per_row + i / a->run;
      double v = ((double)x[i] - mean) * factor * (double)a->scale[k];
      y[i] = (T)(a->bias ? v + (double)a->bias[k] : v);
    }
  }
}

void KERNEL(const moecc_pool *pool, const T *x, const T *scale, const T *bias, T *y, size_t rows, size_t n,
            size_t period, size_t per_row, size_t run, double epsilon) {
  const KERNEL_args a = {x, scale, bias, y, n, period, per_row, run, epsilon};
  moecc_for(pool, KERNEL_part, &a, rows);
}
