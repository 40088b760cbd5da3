/* Convolution of channels-last maps by implicit matrix multiplication, float32, one to three dimensions, groups:
 *   y[i][o][g n + c] = EPILOGUE(sum over taps t and k of x[i][o * stride + t * step - pad][g x_group + k] * w)
 * x: pixels of contiguous channels, their strides in the table. y: pixels of contiguous channels, y_row apart; a pixel's
 * number is its place times the table's last entries, so that the phases of a transposed convolution, which are
 * convolutions with negative steps, can interleave. w: for each group panels of NR columns, each taps * length times NR
 * elements, taps row by row, the last panel filled up with zeros. Rows of the product are output pixels, read through
 * pointers (one per tap and pixel) into x, or to a row of zeros for padding. A kernel row whose taps are contiguous in x
 * may be given as one tap of taps_x * c_x elements. Any sizes >= 1. Work items: blocks of pixels, groups, panels. An
 * item goes through its panel in pieces of about `depth` elements of k, each used by all tiles of the block while it is
 * in the nearest cache. Scratch of a thread: for a block's pixels their numbers and pointers, then the zeros, then, if
 * there is more than one piece, NR sums for each pixel of the block; else for MR pixels.
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

/* What the table `shape` holds: extents and strides of x, then extents of y, of
 * the taps, their distances, and padding.
 */
typedef struct {
  int64_t images, in_z, in_y, in_x, image_stride, plane_stride, line_stride, pixel_stride;
  int64_t out_z, out_y, out_x, taps_z, taps_y, taps_x, stride_z, stride_y, stride_x, step_z, step_y, step_x;
  int64_t front, top, left;
  int64_t y_first, y_image, y_plane, y_line, y_pixel;
} KERNEL_shape;

typedef struct {
  const float *x, *w;
  float *y;
  const moecc_operand *o;
  const KERNEL_shape *s;
  int64_t *scratch;
  size_t scratch_size, y_row, length, x_group, groups, n, depth, taps, pixels, panels, blocks;
} KERNEL_args;

MOECC_APART void KERNEL_tile(size_t rows, const float *const *x, size_t taps, size_t length, const float *w,
                             const float *ahead, size_t ahead_step, int more, float *out) {
  const moecc_fetch fetch = {ahead, ahead_step, 0};
  moecc_tile_on(MR, NR / VF_LANES, rows, x, taps, length, w, NR, fetch, more, out, NR);
}

/* Where an output pixel is. */
typedef struct {
  int64_t image, z, y, x;
} KERNEL_place;

static KERNEL_place KERNEL_find(const KERNEL_shape *s, int64_t pixel) {
  const int64_t line = pixel / s->out_x, plane = line / s->out_y;
  return (KERNEL_place){plane / s->out_z, plane % s->out_z, line % s->out_y, pixel % s->out_x};
}

static void KERNEL_next(const KERNEL_shape *s, KERNEL_place *p) {
  if (++p->x < s->out_x) return;
  p->x = 0;
  if (++p->y < s->out_y) return;
  p->y = 0;
  if (++p->z < s->out_z) return;
  p->z = 0;
  p->image++;
}

/* Pointers for output pixels first … first + count - 1, count <= MR: [tap][pixel], and their numbers. x: the group. */
static void KERNEL_points(const KERNEL_shape *s, const float *x, size_t first, size_t count, const float *zeros,
                          const float **put, int64_t *row) {
  int64_t z[MR], y[MR], left[MR], at[MR];
  KERNEL_place p = KERNEL_find(s, (int64_t)first);
  for (size_t r = 0; r < count; r++, KERNEL_next(s, &p)) {
    z[r] = p.z * s->stride_z - s->front;
    y[r] = p.y * s->stride_y - s->top;
    left[r] = p.x * s->stride_x - s->left;
    row[r] = s->y_first + p.image * s->y_image + p.z * s->y_plane + p.y * s->y_line + p.x * s->y_pixel;
    at[r] = p.image * s->image_stride + z[r] * s->plane_stride + y[r] * s->line_stride + left[r] * s->pixel_stride;
  }
  for (int64_t tz = 0; tz < s->taps_z; tz++)
    for (int64_t ty = 0; ty < s->taps_y; ty++)
      for (int64_t tx = 0; tx < s->taps_x; tx++, put += count) {
        const int64_t dz = tz * s->step_z, dy = ty * s->step_y, dx = tx * s->step_x;
        const int64_t far = dz * s->plane_stride + dy * s->line_stride + dx * s->pixel_stride;
        const int64_t in_z = s->in_z, in_y = s->in_y, in_x = s->in_x;
        for (size_t r = 0; r < count; r++) {
          const int64_t tap_z = z[r] + dz, tap_y = y[r] + dy, tap_x = left[r] + dx;
          const int in = (tap_z >= 0) & (tap_z < in_z) & (tap_y >= 0) & (tap_y < in_y) & (tap_x >= 0) & (tap_x < in_x);
          put[r] = in ? x + (at[r] + far) : zeros;
        }
      }
}

/* The epilogue of a tile of sums, and its columns that exist. row: the numbers of its pixels. */
static void KERNEL_finish(const KERNEL_args *a, const float *sum, const int64_t *row, size_t rows, size_t group,
                          size_t from) {
  const size_t columns = a->n - from < NR ? a->n - from : NR, col = group * a->n + from;
  const moecc_operand *o = a->o;
  for (size_t r = 0; r < rows; r++, sum += NR) {
    const size_t at = (size_t)row[r];
    float *y = a->y + at * a->y_row + col;
    if (columns == NR) {
      MOECC_UNROLL for (size_t c = 0; c < NR; c += VF_LANES)
          vf_store(y + c, EPILOGUE(vf_load(sum + c), o, at, col + c, VF_LANES));
      continue;
    }
    size_t c = 0;
    for (; c + VF_LANES <= columns; c += VF_LANES)
      vf_store(y + c, EPILOGUE(vf_load(sum + c), o, at, col + c, VF_LANES));
    if (c < columns) vf_store_some(y + c, EPILOGUE(vf_load(sum + c), o, at, col + c, columns - c), columns - c);
  }
}

/* A block of pixels, by tiles of `least` or, the first `longer`, one more: pointers [tile][tap][pixel of the tile]. */
typedef struct {
  size_t group, first, tiles, least, longer;
  const float **at;
  int64_t *row;
  float *sum;
} KERNEL_block;

/* Some taps, or from the element k on a part of one, for all tiles of a block. more: sums have been begun; last: they
 * are complete now. next: what w will be for the next piece, or NULL. */
static void KERNEL_piece(const KERNEL_args *a, const KERNEL_block *b, size_t panel, size_t tap, size_t taps, size_t k,
                         size_t length, const float *w, const float *next, int more, int last) {
  const int whole = !more && last;
  const size_t depth = taps * length;
  const moecc_fetch fetch = moecc_fetch_next(w, next, depth, NR, 0, b->tiles);
  size_t row = 0, ahead = 0;
  for (size_t t = 0, rows; t < b->tiles; t++, row += rows, ahead += fetch.step) {
    const float *shifted[MR], *const *x = b->at + row * a->taps;
    rows = b->least + (t < b->longer);
    x += tap * rows;
    if (k > 0) {
      for (size_t r = 0; r < rows; r++) shifted[r] = x[r] + k;
      x = shifted;
    }
    float *sum = b->sum + (whole ? 0 : row * NR);
    const int fetches = ahead < NR;
    KERNEL_tile(rows, x, taps, length, w, fetches ? fetch.at + ahead * depth : w, fetches ? fetch.step : 0, more, sum);
    if (last) KERNEL_finish(a, sum, b->row + row, rows, b->group, panel * NR);
  }
}

/* One panel for a block. w: the panel; end: where all weights end. */
static void KERNEL_panel(const KERNEL_args *a, const KERNEL_block *b, size_t panel, const float *w, const float *end) {
  const size_t parts = (a->length + a->depth - 1) / a->depth, some = parts > 1 ? 1 : a->depth / a->length;
  for (size_t tap = 0, taps; tap < a->taps; tap += taps) {
    taps = a->taps - tap < some ? a->taps - tap : some;
    for (size_t part = 0; part < parts; part++) {
      const size_t k = moecc_cut(a->length, parts, part), length = moecc_cut(a->length, parts, part + 1) - k;
      const float *next = w + taps * length * NR;
      const int last = tap + taps == a->taps && part + 1 == parts, ahead = next + taps * length * NR <= end;
      KERNEL_piece(a, b, panel, tap, taps, k, length, w, ahead ? next : NULL, tap > 0 || k > 0, last);
      w = next;
    }
  }
}

/* Sets out for a block: its tiles and their pointers. */
static void KERNEL_begin(const KERNEL_args *a, size_t block, size_t group, const float *zeros, KERNEL_block *b) {
  const size_t count = moecc_cut(a->pixels, a->blocks, block + 1) - moecc_cut(a->pixels, a->blocks, block);
  b->group = group;
  b->first = moecc_cut(a->pixels, a->blocks, block);
  b->tiles = (count + MR - 1) / MR;
  b->least = count / b->tiles;
  b->longer = count % b->tiles;
  for (size_t t = 0, row = 0, rows; t < b->tiles; t++, row += rows) {
    rows = b->least + (t < b->longer);
    KERNEL_points(a->s, a->x + group * a->x_group, b->first + row, rows, zeros, b->at + row * a->taps, b->row + row);
  }
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const size_t most = moecc_cut(a->pixels, a->blocks, 1), all = a->groups * a->panels, depth = a->taps * a->length;
  int64_t *row = a->scratch + thread * a->scratch_size;
  const float **at = (const float **)(void *)(row + most);
  float *zeros = (float *)(void *)(at + most * a->taps);
  KERNEL_block b = {0, 0, 0, 0, 0, at, row, zeros + a->length};
  memset(zeros, 0, a->length * sizeof *zeros);
  for (size_t i = begin; i < end; i++) {
    const size_t panel = i % a->panels, part = i / a->panels, block = part / a->groups;
    if (i == begin || panel == 0) KERNEL_begin(a, block, part % a->groups, zeros, &b);
    KERNEL_panel(a, &b, panel, a->w + i % all * depth * NR, a->w + all * depth * NR);
  }
}

void KERNEL(const moecc_pool *pool, const float *x, const float *w, float *y, const moecc_operand *o, int64_t *scratch,
            size_t scratch_size, const int64_t *shape, size_t y_row, size_t length, size_t x_group, size_t groups,
            size_t n, size_t depth, size_t block) {
  KERNEL_shape s;
  memcpy(&s, shape, sizeof s);
  size_t pixels = (size_t)(s.images * s.out_z * s.out_y * s.out_x), taps = (size_t)(s.taps_z * s.taps_y * s.taps_x);
  size_t panels = (n + NR - 1) / NR, blocks = (pixels + block - 1) / block;
  const KERNEL_args a = {x,       w,      y, o,     &s,   scratch, scratch_size, y_row, length,
                         x_group, groups, n, depth, taps, pixels,  panels,       blocks};
  moecc_for(pool, KERNEL_part, &a, blocks * groups * panels);
}
