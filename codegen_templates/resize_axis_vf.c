/* Resampling along one axis: y[o][i][c] = sum over t of weight[i][t] * x[o][index[i][t]][c], float32.
 * x: [outer, n, inner], y: [outer, m, inner], packed; index and weight: [m, taps]. Any sizes; the inner axis on
 * vectors.
 */
#include "defaults.h"
/* holes */
#define KERNEL resize_axis_f32
/* end holes */

typedef struct {
  const float *x, *weight;
  float *y;
  size_t n, m, inner, taps;
  const int64_t *index;
} KERNEL_args;

static void KERNEL_row(const float *x, const float *weight, float *y, size_t inner, size_t taps, const int64_t *index) {
  size_t c = 0;
  for (; c + 2 * VF_LANES <= inner; c += 2 * VF_LANES) {
    vf a0 = vf_zero(), a1 = a0;
    for (size_t t = 0; t < taps; t++) {
      const float *p = x + (size_t)index[t] * inner + c;
      const vf w = vf_set1(weight[t]);
      a0 = vf_fma(vf_load(p), w, a0);
      a1 = vf_fma(vf_load(p + VF_LANES), w, a1);
    }
    vf_store(y + c, a0);
    vf_store(y + c + VF_LANES, a1);
  }
  for (; c < inner; c++) {
    float acc = 0.0f;
    for (size_t t = 0; t < taps; t++) acc = moecc_fma_f32(x[(size_t)index[t] * inner + c], weight[t], acc);
    y[c] = acc;
  }
}

/* An item is one (o, i). */
static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    size_t o = item / a->m, i = item % a->m;
    KERNEL_row(a->x + o * a->n * a->inner, a->weight + i * a->taps, a->y + item * a->inner, a->inner, a->taps,
               a->index + i * a->taps);
  }
}

void KERNEL(const moecc_pool *pool, const float *x, const float *weight, float *y, size_t outer, size_t n, size_t m,
            size_t inner, size_t taps, const int64_t *index) {
  const KERNEL_args a = {x, weight, y, n, m, inner, taps, index};
  moecc_for(pool, KERNEL_part, &a, outer * m);
}
