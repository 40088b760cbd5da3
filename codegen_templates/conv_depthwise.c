/* Depthwise convolution of channels-last maps, float32, one or two dimensions:
 *   y[i][o][c] = EPILOGUE(sum over taps t of x[i][o * stride + t * step - pad][c] * w[t][c])
 * x: pixels of contiguous channels, their strides in the table; y: dense. w: rows of `row` channels, filled up with
 * zeros to whole vectors. Any sizes >= 1. A work item is a line of output; PIXELS of them share each load of w, read
 * through pointers (per tap and pixel, in the thread's scratch) into x or to a row of zeros for padding.
 */
#include "defaults.h"
/* holes */
#define KERNEL conv_depthwise_f32
#define PIXELS 8
static inline vf EPILOGUE(vf acc, const moecc_operand *o, size_t row, size_t col, size_t lanes) {
  (void)o;
  (void)row;
  (void)col;
  (void)lanes;
  return acc;
}
/* end holes */

typedef struct {
  moecc_depthwise d;
  size_t row;
} KERNEL_args;

/* Pointers [tap][pixel] for PIXELS pixels of an output line; behind its end the last pixel is repeated. */
static void KERNEL_points(const KERNEL_args *a, int64_t line, int64_t first, const float *zeros, const float **at) {
  const moecc_depthwise_shape *s = a->d.s;
  const float *image = a->d.x + line / s->out_y * s->image_stride;
  for (int64_t ty = 0, iy = line % s->out_y * s->stride_y - s->top; ty < s->taps_y; ty++, iy += s->step_y)
    for (int64_t tx = 0; tx < s->taps_x; tx++, at += PIXELS)
      for (int64_t r = 0; r < PIXELS; r++) {
        const int64_t ox = first + r < s->out_x ? first + r : s->out_x - 1;
        at[r] = moecc_depthwise_pixel(s, image, iy, ox * s->stride_x + tx * s->step_x - s->left, zeros);
      }
}

MOECC_INLINE void KERNEL_sum(const KERNEL_args *a, const float *const *at, size_t c, size_t lanes, vf *sum) {
  const size_t taps = (size_t)(a->d.s->taps_y * a->d.s->taps_x);
  const float *w = a->d.w + c;
  MOECC_UNROLL for (size_t r = 0; r < PIXELS; r++) sum[r] = vf_zero();
  for (size_t t = 0; t < taps; t++, at += PIXELS, w += a->row) {
    const vf b = vf_load(w);
    MOECC_UNROLL for (size_t r = 0; r < PIXELS; r++) {
      const vf x = lanes == VF_LANES ? vf_load(at[r] + c) : vf_load_some(at[r] + c, lanes);
      sum[r] = vf_fma(x, b, sum[r]);
    }
  }
}

static void KERNEL_tile(const KERNEL_args *a, const float *const *at, size_t row, size_t rows) {
  vf sum[PIXELS];
  size_t c = 0;
  for (; c + VF_LANES <= a->d.channels; c += VF_LANES) {
    KERNEL_sum(a, at, c, VF_LANES, sum);
    for (size_t r = 0; r < rows; r++)
      vf_store(a->d.y + (row + r) * a->d.channels + c, EPILOGUE(sum[r], a->d.o, row + r, c, VF_LANES));
  }
  size_t left = a->d.channels - c;
  if (left == 0) return;
  KERNEL_sum(a, at, c, left, sum);
  for (size_t r = 0; r < rows; r++)
    vf_store_some(a->d.y + (row + r) * a->d.channels + c, EPILOGUE(sum[r], a->d.o, row + r, c, left), left);
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const size_t taps = (size_t)(a->d.s->taps_y * a->d.s->taps_x), out_x = (size_t)a->d.s->out_x;
  const float **at = (const float **)(void *)(a->d.scratch + thread * a->d.scratch_size);
  float *zeros = (float *)(void *)(at + taps * PIXELS);
  memset(zeros, 0, a->d.channels * sizeof *zeros);
  for (size_t line = begin; line < end; line++)
    for (size_t first = 0; first < out_x; first += PIXELS) {
      KERNEL_points(a, (int64_t)line, (int64_t)first, zeros, at);
      KERNEL_tile(a, at, line * out_x + first, out_x - first < PIXELS ? out_x - first : PIXELS);
    }
}

void KERNEL(const moecc_pool *pool, const float *x, const float *w, float *y, const moecc_operand *o, int64_t *scratch,
            size_t scratch_size, const int64_t *shape, size_t channels, size_t row) {
  moecc_depthwise_shape s;
  memcpy(&s, shape, sizeof s);
  const KERNEL_args a = {{x, w, y, o, &s, scratch, scratch_size, channels}, row};
  moecc_for(pool, KERNEL_part, &a, (size_t)(s.images * s.out_y));
}
