/* Pooling of channels-last pictures, float32, on vectors of channels: y = FINISH(STEP over the window inside x, 1 /
 * count). x: [n, h, w, channels], y: [n, oh, ow, channels], packed. `shape`: h, w, oh, ow, window (2), stride (2),
 * dilation (2), padding before (2), then where averages stop counting (h + padding after, w + padding after).
 * COUNT_PADS 1: padded positions count as elements of value 0.
 */
#include "defaults.h"
/* holes */
#define KERNEL     max_pool_nhwc_f32
#define INIT       (-INFINITY)
#define COUNT_PADS 0
static inline vf STEP(vf acc, vf x) { return vf_max(x, acc); }
static inline vf FINISH(vf acc, vf factor) {
  (void)factor;
  return acc;
}
/* end holes */

typedef struct {
  const float *x;
  float *y;
  size_t channels;
  const int64_t *shape;
} KERNEL_args;

/* One output pixel. x: the sample; top, left: where its window begins. */
static void KERNEL_pixel(const KERNEL_args *a, const float *x, float *y, int64_t top, int64_t left) {
  const int64_t *s = a->shape, h = s[0], w = s[1];
  const size_t channels = a->channels;
  int64_t i0 = top < 0 ? (-top + s[8] - 1) / s[8] : 0, j0 = left < 0 ? (-left + s[9] - 1) / s[9] : 0;
  int64_t i1 = top + (s[4] - 1) * s[8] < h ? s[4] : (h - top + s[8] - 1) / s[8];
  int64_t j1 = left + (s[5] - 1) * s[9] < w ? s[5] : (w - left + s[9] - 1) / s[9];
  int64_t rows = i1 - i0, columns = j1 - j0;
  if (COUNT_PADS) {
    rows = top + (s[4] - 1) * s[8] < s[12] ? s[4] : (s[12] - top + s[8] - 1) / s[8];
    columns = left + (s[5] - 1) * s[9] < s[13] ? s[5] : (s[13] - left + s[9] - 1) / s[9];
  }
  const vf factor = vf_set1(1.0f / (float)(rows * columns));
  size_t c = 0;
  for (; c + 2 * VF_LANES <= channels; c += 2 * VF_LANES) {
    vf a0 = vf_set1(INIT), a1 = a0;
    for (int64_t i = i0; i < i1; i++) {
      const float *p = x + ((top + i * s[8]) * w + left + j0 * s[9]) * (int64_t)channels + (int64_t)c;
      for (int64_t j = j0; j < j1; j++, p += s[9] * (int64_t)channels) {
        a0 = STEP(a0, vf_load(p));
        a1 = STEP(a1, vf_load(p + VF_LANES));
      }
    }
    vf_store(y + c, FINISH(a0, factor));
    vf_store(y + c + VF_LANES, FINISH(a1, factor));
  }
  for (size_t lanes; c < channels; c += lanes) {
    lanes = channels - c < VF_LANES ? channels - c : VF_LANES;
    vf acc = vf_set1(INIT);
    for (int64_t i = i0; i < i1; i++) {
      const float *p = x + ((top + i * s[8]) * w + left + j0 * s[9]) * (int64_t)channels + (int64_t)c;
      for (int64_t j = j0; j < j1; j++, p += s[9] * (int64_t)channels) acc = STEP(acc, vf_load_some(p, lanes));
    }
    vf_store_some(y + c, FINISH(acc, factor), lanes);
  }
}

/* An item is one row of output pixels. */
static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const int64_t *s = a->shape;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    const int64_t sample = (int64_t)item / s[2], row = (int64_t)item % s[2];
    const float *x = a->x + sample * s[0] * s[1] * (int64_t)a->channels;
    float *y = a->y + (int64_t)item * s[3] * (int64_t)a->channels;
    for (int64_t j = 0; j < s[3]; j++, y += a->channels) KERNEL_pixel(a, x, y, row * s[6] - s[10], j * s[7] - s[11]);
  }
}

void KERNEL(const moecc_pool *pool, const float *x, float *y, size_t n, size_t channels, const int64_t *shape) {
  const KERNEL_args a = {x, y, channels, shape};
  moecc_for(pool, KERNEL_part, &a, n * (size_t)shape[2]);
}
