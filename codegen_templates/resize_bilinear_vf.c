/* Bilinear resampling of channels-last pictures, float32, on vectors of channels:
 * y[i][j] = wy0 (wx0 x[r0][c0] + wx1 x[r0][c1]) + wy1 (wx0 x[r1][c0] + wx1 x[r1][c1]).
 * x: [n, h, w, channels], packed; y: [n, oh, ow, channels], its pixels `pitch` elements apart; rows and columns: two
 * source indices for each output row or column; wy and wx: two weights for each.
 */
#include "defaults.h"
/* holes */
#define KERNEL resize_bilinear_f32
/* end holes */

typedef struct {
  const float *x, *wy, *wx;
  float *y;
  size_t h, w, oh, ow, channels, pitch;
  const int64_t *rows, *columns;
} KERNEL_args;

static vf KERNEL_mix(vf a, vf b, vf c, vf d, const vf *w) {
  return vf_fma(vf_fma(b, w[1], a * w[0]), w[2], vf_fma(d, w[1], c * w[0]) * w[3]);
}

static void KERNEL_pixel(const float *a, const float *b, const float *c, const float *d, const vf *w, float *y,
                         size_t n) {
  size_t i = 0;
  for (; i + VF_LANES <= n; i += VF_LANES)
    vf_store(y + i, KERNEL_mix(vf_load(a + i), vf_load(b + i), vf_load(c + i), vf_load(d + i), w));
  if (i == n) return;
  const vf va = vf_load_some(a + i, n - i), vb = vf_load_some(b + i, n - i);
  const vf vc = vf_load_some(c + i, n - i), vd = vf_load_some(d + i, n - i);
  vf_store_some(y + i, KERNEL_mix(va, vb, vc, vd, w), n - i);
}

/* An item is one row of output pixels. */
static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    const size_t i = item % a->oh, line = a->w * a->channels;
    const float *x = a->x + item / a->oh * a->h * line;
    const float *top = x + (size_t)a->rows[2 * i] * line, *bottom = x + (size_t)a->rows[2 * i + 1] * line;
    float *y = a->y + item * a->ow * a->pitch;
    for (size_t j = 0; j < a->ow; j++, y += a->pitch) {
      const size_t l = (size_t)a->columns[2 * j] * a->channels, r = (size_t)a->columns[2 * j + 1] * a->channels;
      const vf w[4] = {vf_set1(a->wx[2 * j]), vf_set1(a->wx[2 * j + 1]), vf_set1(a->wy[2 * i]),
                       vf_set1(a->wy[2 * i + 1])};
      KERNEL_pixel(top + l, top + r, bottom + l, bottom + r, w, y, a->channels);
    }
  }
}

void KERNEL(const moecc_pool *pool, const float *x, const float *wy, const float *wx, float *y, size_t n, size_t h,
            size_t w, size_t oh, size_t ow, size_t channels, size_t pitch, const int64_t *rows,
            const int64_t *columns) {
  const KERNEL_args a = {x, wy, wx, y, h, w, oh, ow, channels, pitch, rows, columns};
  moecc_for(pool, KERNEL_part, &a, n * oh);
}
