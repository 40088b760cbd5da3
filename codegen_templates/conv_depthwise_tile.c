/* Depthwise convolution of channels-last maps by tiles of PIXELS outputs of a line, held in registers; float32, one or
 * two dimensions, lines of TAPS taps side by side, STRIDE apart:
 *   y[i][oy][ox][c] = EPILOGUE(sum over taps (ty, tx) of
 *                              x[i][oy * stride_y + ty * step_y - top][ox * STRIDE + tx - left][c] * w[ty][tx][c])
 * x: pixels of contiguous channels, their strides in the table; y: dense. w: for each vector of channels all taps, line
 * by line, the last vector filled up with zeros. Any sizes >= 1.
 * A tile reads each of its (PIXELS - 1) * STRIDE + TAPS pixels of an input line once for all the sums that it is part
 * of. Pixels are found through pointers, one for each of the lines that `band` output lines need, beside the map to a
 * row of zeros; lines above and below it are left out. An item is a block of channels of a band. Scratch of a thread:
 * the pointers, and the zeros.
 */
#include "defaults.h"
/* holes */
#define KERNEL conv_depthwise_f32_3s1x6
#define TAPS   3
#define STRIDE 1
#define PIXELS 6
static inline vf EPILOGUE(vf acc, const moecc_operand *o, size_t row, size_t col, size_t lanes) {
  (void)o;
  (void)row;
  (void)col;
  (void)lanes;
  return acc;
}
/* end holes */

enum { KERNEL_WIDTH = (PIXELS - 1) * STRIDE + TAPS, KERNEL_BLOCK = 4 * VF_LANES };

typedef struct {
  moecc_depthwise d;
  size_t band, bands, blocks, columns;
} KERNEL_args;

/* Pointers [line][column] to the input of output lines from … to - 1 of an image, columns from -left on. */
static void KERNEL_points(const KERNEL_args *a, const float *x, int64_t from, int64_t to, const float *zeros,
                          const float **at) {
  const moecc_depthwise_shape *s = a->d.s;
  const int64_t last = (to - 1) * s->stride_y + (s->taps_y - 1) * s->step_y - s->top;
  for (int64_t iy = from * s->stride_y - s->top; iy <= last; iy++)
    for (int64_t i = 0; i < (int64_t)a->columns; i++) *at++ = moecc_depthwise_pixel(s, x, iy, i - s->left, zeros);
}

/* Adds one line of taps to the sums of a tile. at: its pixels. */
MOECC_INLINE void KERNEL_line(const float *const *at, const float *w, size_t c, size_t lanes, vf *sum) {
  vf b[TAPS];
  MOECC_UNROLL for (size_t t = 0; t < TAPS; t++) b[t] = vf_load(w + t * VF_LANES);
  MOECC_UNROLL for (size_t i = 0; i < KERNEL_WIDTH; i++) {
    const vf x = lanes == VF_LANES ? vf_load(at[i] + c) : vf_load_some(at[i] + c, lanes);
    MOECC_UNROLL for (size_t t = i % STRIDE; t < TAPS; t += STRIDE) {
      if (i >= t && (i - t) / STRIDE < PIXELS) sum[(i - t) / STRIDE] = vf_fma(x, b[t], sum[(i - t) / STRIDE]);
    }
  }
}

/* One vector of channels of a tile. at: the pixels of its first line of taps; lines of them; row: its first pixel in y;
 * rows: how many it has. */
MOECC_INLINE void KERNEL_vector(const KERNEL_args *a, const float *const *at, size_t lines, const float *w, size_t row,
                                size_t rows, size_t c, size_t lanes) {
  const size_t next = (size_t)a->d.s->step_y * a->columns;
  vf sum[PIXELS];
  MOECC_UNROLL for (size_t r = 0; r < PIXELS; r++) sum[r] = vf_zero();
  for (size_t t = 0; t < lines; t++, at += next, w += TAPS * VF_LANES) KERNEL_line(at, w, c, lanes, sum);
  float *y = a->d.y + row * a->d.channels + c;
  MOECC_UNROLL for (size_t r = 0; r < PIXELS; r++) {
    if (r < rows) {
      const vf v = EPILOGUE(sum[r], a->d.o, row + r, c, lanes);
      if (lanes == VF_LANES)
        vf_store(y + r * a->d.channels, v);
      else
        vf_store_some(y + r * a->d.channels, v, lanes);
    }
  }
}

/* An output line's vector of channels. at: pointers to the line of its first tap; first: its first pixel in y. */
static void KERNEL_output(const KERNEL_args *a, const float *const *at, int64_t oy, size_t first, size_t c) {
  const moecc_depthwise_shape *s = a->d.s;
  const int64_t iy = oy * s->stride_y - s->top;
  int64_t from = 0, to = s->taps_y;
  while (from < to && iy + from * s->step_y < 0) from++;
  while (to > from && iy + (to - 1) * s->step_y >= s->in_y) to--;
  const size_t lines = (size_t)(to - from), out_x = (size_t)s->out_x;
  const float *w = a->d.w + c * (size_t)s->taps_y * TAPS + (size_t)from * TAPS * VF_LANES;
  at += (size_t)(from * s->step_y) * a->columns;
  for (size_t ox = 0; ox < out_x; ox += PIXELS, at += PIXELS * STRIDE) {
    const size_t rows = out_x - ox < PIXELS ? out_x - ox : PIXELS;
    if (a->d.channels - c >= VF_LANES)
      KERNEL_vector(a, at, lines, w, first + ox, rows, c, VF_LANES);
    else
      KERNEL_vector(a, at, lines, w, first + ox, rows, c, a->d.channels - c);
  }
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const moecc_depthwise_shape *s = a->d.s;
  const size_t out_y = (size_t)s->out_y, out_x = (size_t)s->out_x;
  float *zeros = (float *)(void *)(a->d.scratch + thread * a->d.scratch_size);
  const float **at = (const float **)(void *)(zeros + (a->d.channels + 15) / 16 * 16);
  memset(zeros, 0, a->d.channels * sizeof *zeros);
  for (size_t i = begin; i < end; i++) {
    const size_t part = i / a->blocks, image = part / a->bands, block = i % a->blocks * KERNEL_BLOCK;
    const size_t from = moecc_cut(out_y, a->bands, part % a->bands),
                 to = moecc_cut(out_y, a->bands, part % a->bands + 1);
    const size_t stop = block + KERNEL_BLOCK < a->d.channels ? block + KERNEL_BLOCK : a->d.channels;
    if (i == begin || block == 0)
      KERNEL_points(a, a->d.x + (int64_t)image * s->image_stride, (int64_t)from, (int64_t)to, zeros, at);
    for (size_t c = block; c < stop; c += VF_LANES)
      for (size_t oy = from; oy < to; oy++)
        KERNEL_output(a, at + (oy - from) * (size_t)s->stride_y * a->columns, (int64_t)oy, (image * out_y + oy) * out_x,
                      c);
  }
}

void KERNEL(const moecc_pool *pool, const float *x, const float *w, float *y, const moecc_operand *o, int64_t *scratch,
            size_t scratch_size, const int64_t *shape, size_t channels, size_t band) {
  moecc_depthwise_shape s;
  memcpy(&s, shape, sizeof s);
  const size_t bands = ((size_t)s.out_y + band - 1) / band, blocks = (channels + KERNEL_BLOCK - 1) / KERNEL_BLOCK;
  const size_t tiles = ((size_t)s.out_x + PIXELS - 1) / PIXELS, columns = (tiles * PIXELS - 1) * STRIDE + TAPS;
  const KERNEL_args a = {{x, w, y, o, &s, scratch, scratch_size, channels}, band, bands, blocks, columns};
  moecc_for(pool, KERNEL_part, &a, (size_t)s.images * bands * blocks);
}
