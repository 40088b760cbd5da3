/* Convolution of a resampled picture, channels-last, float32, without ever making that picture: resampling mixes
 * places and a tap's weights mix channels, so the products come first, of the fewer pixels of x, and they are resampled
 * and added up, each from where its tap lies:
 *   v[a][b][i][j][n] = sum over k of x[i][j][k] * w[a][b][k][n]                        for each tap (a, b)
 *   h[a][i][c][n] = sum over b, j of C[c][b][j] * v[a][b][i][j][n]
 *   y[r][c][n] = EPILOGUE(sum over a, i of R[r][a][i] * h[a][i][c][n])
 * R[r][a]: the weights of x's rows in row r * stride + a * step - pad of the resampled picture, none outside of it; C:
 * the same of columns. So borders come out as if the picture had been made and padded with zeros.
 * x and y: pixels of contiguous channels, strides in the table. w: panels of NR columns, each taps * channels times
 * NR elements, the last filled up with zeros. rows, columns: for each row (column) of the resampled picture the indices
 * of x's that it is made of; wy, wx: their weights. Any sizes >= 1.
 * Work items: panels, images, bands of columns, blocks of rows; h is kept in a ring of x's rows, which one item leaves
 * to the next one. Output rows and columns go in pairs, which mostly read the same. The products are bound by
 * arithmetic, the sums by memory: while one is made, what the other will read and write is brought near. Scratch of a
 * thread: the ring, v of a few rows and one a, and in `lists` what is read with which weights. All up to h is in
 * moecc_resize_conv.h.
 */
#include "defaults.h"
/* holes */
#define KERNEL resize_conv_f32
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

typedef struct {
  moecc_resize_args in;
  float *y;
  const moecc_operand *o;
} KERNEL_args;

MOECC_APART void KERNEL_tile(size_t rows, const float *const *x, size_t length, const float *w, moecc_fetch fetch,
                             float *out) {
  moecc_tile_on(MR, NR / VF_LANES, rows, x, 1, length, w, NR, fetch, 0, out, NR);
}

/* h before rows r0 … r1 - 1 of y. */
static void KERNEL_make(const KERNEL_args *a, moecc_resize_strip *p, int64_t r0, int64_t r1) {
  moecc_resize_make(MR, NR, KERNEL_tile, &a->in, p, r0, r1);
}

/* The epilogue of a pixel's sums, and its columns that exist. */
MOECC_INLINE void KERNEL_finish(const KERNEL_args *a, const vf *sum, size_t row, size_t col) {
  const size_t n = (size_t)a->in.s->n, columns = n - col < NR ? n - col : NR;
  float *y = a->y + row * (size_t)a->in.s->pitch + col;
  MOECC_UNROLL for (size_t v = 0; v < NR / VF_LANES; v++) {
    const size_t i = v * VF_LANES;
    if (i + VF_LANES <= columns)
      vf_store(y + i, EPILOGUE(sum[v], a->o, row, col + i, VF_LANES));
    else if (i < columns)
      vf_store_some(y + i, EPILOGUE(sum[v], a->o, row, col + i, columns - i), columns - i);
  }
}

/* `pixels` pixels of a pair of rows, from those of h on; row: the first's. */
MOECC_INLINE void KERNEL_blend(size_t pixels, const KERNEL_args *a, const moecc_resize_strip *p, size_t terms,
                               const float *h, size_t row, int both) {
  enum { VECTORS = NR / VF_LANES };
  vf upper[2 * VECTORS], lower[2 * VECTORS];
  moecc_resize_sum(pixels * VECTORS, p->down, terms, h, upper, lower);
  const size_t col = p->panel * NR, next = (size_t)a->in.s->x.out;
  MOECC_UNROLL for (size_t i = 0; i < pixels; i++) {
    KERNEL_finish(a, upper + i * VECTORS, row + i, col);
    if (both) KERNEL_finish(a, lower + i * VECTORS, row + next + i, col);
  }
}

/* Rows r and r + 1 of y. */
static void KERNEL_down(const KERNEL_args *a, const moecc_resize_strip *p, int64_t r) {
  const moecc_resize_args *in = &a->in;
  const moecc_resize_shape *s = in->s;
  const size_t terms = moecc_resize_terms(&s->y, in->rows, in->wy, r, 0, s->ring, p->plane, p->row, p->down);
  const size_t row = (p->image * (size_t)s->y.out + (size_t)r) * (size_t)s->x.out, last = row + (size_t)p->last;
  const int both = r + 1 < s->y.out;
  const float *h = p->ring;
  size_t at = row + (size_t)p->first;
  for (; at + 2 <= last; at += 2, h += 2 * NR) KERNEL_blend(2, a, p, terms, h, at, both);
  if (at < last) KERNEL_blend(1, a, p, terms, h, at, both);
}

/* Sets out for strip number `strip` with a panel, whose result is y's columns from `col` on. */
static void KERNEL_begin(const KERNEL_args *a, moecc_resize_strip *p, size_t strip, size_t panel) {
  const moecc_resize_shape *s = a->in.s;
  const size_t col = panel * NR;
  moecc_resize_begin(&a->in, p, NR, strip, panel);
  p->touch = a->y + (int64_t)p->image * s->y.out * s->x.out * s->pitch + col;
  p->touch_columns = (size_t)s->n - col < NR ? (size_t)s->n - col : NR;
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const moecc_resize_shape *s = a->in.s;
  const size_t blocks = a->in.blocks, strips = (size_t)s->images * a->in.bands;
  moecc_resize_strip p = moecc_resize_memory(&a->in, NR, thread);
  for (size_t i = begin; i < end; i++) {
    const int64_t r0 = (int64_t)(i % blocks) * s->block, r1 = r0 + s->block < s->y.out ? r0 + s->block : s->y.out;
    if (i == begin || i % blocks == 0) KERNEL_begin(a, &p, i / blocks % strips, i / blocks / strips);
    KERNEL_make(a, &p, r0, r1);
    for (int64_t r = r0; r < r1; r += 2) KERNEL_down(a, &p, r);
  }
}

void KERNEL(const moecc_pool *pool, const float *x, const float *w, const float *wy, const float *wx, float *y,
            const moecc_operand *o, float *scratch, size_t scratch_size, int64_t *lists, size_t lists_size,
            const int64_t *shape, const int64_t *rows, const int64_t *columns) {
  moecc_resize_shape s;
  memcpy(&s, shape, sizeof s);
  const size_t panels = ((size_t)s.n + NR - 1) / NR, bands = (size_t)((s.x.out + s.band - 1) / s.band);
  const size_t blocks = (size_t)((s.y.out + s.block - 1) / s.block);
  const moecc_resize_args in = {x,       w,  wy,           wx,         scratch, lists, rows,
                                columns, &s, scratch_size, lists_size, panels,  bands, blocks};
  const KERNEL_args a = {in, y, o};
  moecc_for(pool, KERNEL_part, &a, panels * (size_t)s.images * bands * blocks);
}
