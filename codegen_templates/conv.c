/* Convolution of channels-last maps by implicit matrix multiplication, float32, one to three dimensions, groups:
 *   y[i][o][g n + c] = EPILOGUE(sum over taps t and k of x[i][o * stride + t * step - pad][g x_group + k] * w)
 * x: pixels of contiguous channels, their strides in the table; y: dense. w: for each group panels of NR columns, each
 * taps * length times NR elements, taps row by row, the last panel filled up with zeros. Rows of the product are output
 * pixels, read through pointers (one per tap and pixel) into x, or to a row of zeros for padding. A kernel row whose
 * taps are contiguous in x may be given as one tap of taps_x * c_x elements. Any sizes >= 1. Work items: blocks of
 * pixels, groups, panels. Scratch of a thread: pointers for a block, and the zeros.
 */
#include "defaults.h"
/* holes */
#define KERNEL conv_f32
#define MR     6
#define NR     16
static inline vf EPILOGUE(vf acc, const moecc_operand *o, size_t row, size_t col, size_t lanes) {
  (void)o;
  (void)row;
  (void)col;
  (void)lanes;
  return acc;
}
/* end holes */

/* What the table `shape` holds: extents and strides of x, then extents of y, of the taps, their distances, and padding.
 */
typedef struct {
  int64_t images, in_z, in_y, in_x, image_stride, plane_stride, line_stride, pixel_stride;
  int64_t out_z, out_y, out_x, taps_z, taps_y, taps_x, stride_z, stride_y, stride_x, step_z, step_y, step_x;
  int64_t front, top, left;
} KERNEL_shape;

typedef struct {
  const float *x, *w;
  float *y;
  const moecc_operand *o;
  const KERNEL_shape *s;
  int64_t *scratch;
  size_t scratch_size, length, x_group, groups, n, taps, pixels, panels, blocks;
} KERNEL_args;

static void KERNEL_tile(size_t rows, const float *const *x, size_t taps, size_t length, const float *w,
                        const float *ahead, float *out) {
  moecc_tile(MR, NR / VF_LANES, rows, x, taps, length, w, NR, ahead, out, NR);
}

/* Pointers to one output pixel's taps, `count` apart; x: the image and group, from_…: where the first tap lies. */
static void KERNEL_point(const KERNEL_shape *s, const float *x, int64_t from_z, int64_t from_y, int64_t from_x,
                         size_t count, const float *zeros, const float **put) {
  for (int64_t tz = 0, iz = from_z; tz < s->taps_z; tz++, iz += s->step_z)
    for (int64_t ty = 0, iy = from_y; ty < s->taps_y; ty++, iy += s->step_y) {
      const float *line =
          iz >= 0 && iz < s->in_z && iy >= 0 && iy < s->in_y ? x + iz * s->plane_stride + iy * s->line_stride : NULL;
      for (int64_t tx = 0, ix = from_x; tx < s->taps_x; tx++, ix += s->step_x, put += count)
        *put = line && ix >= 0 && ix < s->in_x ? line + ix * s->pixel_stride : zeros;
    }
}

/* For output pixels first … first + count - 1: pointers [tap][pixel]. */
static void KERNEL_points(const KERNEL_args *a, size_t group, size_t first, size_t count, const float *zeros,
                          const float **at) {
  const KERNEL_shape *s = a->s;
  for (size_t r = 0; r < count; r++) {
    int64_t pixel = (int64_t)(first + r), line = pixel / s->out_x, plane = line / s->out_y, image = plane / s->out_z;
    KERNEL_point(s, a->x + group * a->x_group + image * s->image_stride, plane % s->out_z * s->stride_z - s->front,
                 line % s->out_y * s->stride_y - s->top, pixel % s->out_x * s->stride_x - s->left, count, zeros,
                 at + r);
  }
}

/* The epilogue of a tile of sums, and its columns that exist. */
static void KERNEL_finish(const KERNEL_args *a, const float *sum, size_t row, size_t rows, size_t group, size_t from) {
  size_t columns = a->n - from < NR ? a->n - from : NR, col = group * a->n + from;
  for (size_t r = 0; r < rows; r++, sum += NR) {
    float *y = a->y + (row + r) * a->groups * a->n + col;
    size_t c = 0;
    for (; c + VF_LANES <= columns; c += VF_LANES)
      vf_store(y + c, EPILOGUE(vf_load(sum + c), a->o, row + r, col + c, VF_LANES));
    if (c < columns) vf_store_some(y + c, EPILOGUE(vf_load(sum + c), a->o, row + r, col + c, columns - c), columns - c);
  }
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const float **at = (const float **)(void *)(a->scratch + thread * a->scratch_size);
  size_t most = moecc_cut(a->pixels, a->blocks, 1), pointed = a->blocks * a->groups;
  float sum[MR * NR], *zeros = (float *)(void *)(at + most * a->taps);
  memset(zeros, 0, a->length * sizeof *zeros);
  for (size_t i = begin; i < end; i++) {
    size_t panel = i % a->panels, part = i / a->panels, block = part / a->groups, group = part % a->groups;
    size_t first = moecc_cut(a->pixels, a->blocks, block), count = moecc_cut(a->pixels, a->blocks, block + 1) - first;
    size_t tiles = (count + MR - 1) / MR;
    const size_t depth = a->taps * a->length, all = a->groups * a->panels;
    const float *w = a->w + i % all * depth * NR, *next = i + 1 < end ? a->w + (i + 1) % all * depth * NR : NULL;
    for (size_t t = 0; t < tiles; t++) {
      size_t from = moecc_cut(count, tiles, t), rows = moecc_cut(count, tiles, t + 1) - from;
      if (part != pointed) KERNEL_points(a, group, first + from, rows, zeros, at + from * a->taps);
      KERNEL_tile(rows, at + from * a->taps, a->taps, a->length, w, moecc_ahead(w, next, depth, NR, t), sum);
      KERNEL_finish(a, sum, first + from, rows, group, panel * NR);
    }
    pointed = part;
  }
}

void KERNEL(const moecc_pool *pool, const float *x, const float *w, float *y, const moecc_operand *o, int64_t *scratch,
            size_t scratch_size, const int64_t *shape, size_t length, size_t x_group, size_t groups, size_t n,
            size_t block) {
  KERNEL_shape s;
  memcpy(&s, shape, sizeof s);
  size_t pixels = (size_t)(s.images * s.out_z * s.out_y * s.out_x), taps = (size_t)(s.taps_z * s.taps_y * s.taps_x);
  size_t panels = (n + NR - 1) / NR, blocks = (pixels + block - 1) / block;
  const KERNEL_args a = {x,       w,      y, o,    &s,     scratch, scratch_size, length,
                         x_group, groups, n, taps, pixels, panels,  blocks};
  moecc_for(pool, KERNEL_part, &a, blocks * groups * panels);
}
