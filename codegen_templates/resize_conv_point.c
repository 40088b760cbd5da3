/* resize_conv, and at once a pointwise convolution of its result, which is never made as a whole either, float32:
 *   m[r][c][n] = EPILOGUE(the convolution of the resampled picture, as in resize_conv)
 *   y[r][c][q] = RESULT(sum over n of m[r][c][n] * v[n][q])
 * x, w, wy, wx, rows, columns: as for resize_conv, and the table but for its pitch, which is that of y's pixels. v:
 * panels of Q columns, each n times Q elements, the last filled up with zeros; q: columns of y. Of the `all` columns of
 * m a call makes n, from column `first` on, and adds to what the ones before have left in y; only the last call
 * completes the sums. Any sizes >= 1.
 * Work items: images, bands of columns, blocks of rows. A thread goes through all panels of m, ascending, for its
 * blocks of a band: what it makes of a panel for a few pixels, the nearest cache holds, and it is multiplied and added
 * to y before the next few are made. So each element of y is one sum with n ascending, which waits in y for the next
 * panel. Scratch of a thread: as for resize_conv, and those pixels behind it.
 */
#include "defaults.h"
/* holes */
#define KERNEL resize_conv_point_f32
#define MR     6
#define NR     16
#define P      6
#define Q      16
static inline vf EPILOGUE(vf acc, const moecc_operand *o, size_t row, size_t col, size_t lanes) {
  (void)o;
  (void)row;
  (void)col;
  (void)lanes;
  return acc;
}
static inline vf RESULT(vf acc, const moecc_operand *o, size_t row, size_t col, size_t lanes) {
  (void)o;
  (void)row;
  (void)col;
  (void)lanes;
  return acc;
}
/* end holes */

enum { KERNEL_held = 2 * P }; /* pixels of a row of m at hand */

typedef struct {
  moecc_resize_args in;
  const float *v;
  float *y;
  const moecc_operand *o, *result_o;
  size_t q, first, all;
} KERNEL_args;

MOECC_APART void KERNEL_tile(size_t rows, const float *const *x, size_t length, const float *w, moecc_fetch fetch,
                             float *out) {
  moecc_tile_on(MR, NR / VF_LANES, rows, x, 1, length, w, NR, fetch, 0, out, NR);
}

MOECC_APART void KERNEL_point_tile(size_t rows, const float *const *m, size_t length, const float *v, int more,
                                   float *out, size_t out_row) {
  const moecc_fetch none = {v, 0, 0};
  moecc_tile_on(P, Q / VF_LANES, rows, m, 1, length, v, Q, none, more, out, out_row);
}

/* h before rows r0 … r1 - 1 of y. */
static void KERNEL_make(const KERNEL_args *a, moecc_resize_strip *p, int64_t r0, int64_t r1) {
  moecc_resize_make(MR, NR, KERNEL_tile, &a->in, p, r0, r1);
}

/* ---- y ----------------------------------------------------------------------------------------------------------- */

/* The first `columns` of a tile's rows. */
static void KERNEL_move(const float *from, size_t from_row, float *to, size_t to_row, size_t rows, size_t columns) {
  for (size_t r = 0; r < rows; r++, from += from_row, to += to_row)
    for (size_t c = 0; c < columns; c += VF_LANES) {
      const size_t lanes = columns - c < VF_LANES ? columns - c : VF_LANES;
      vf_store_some(to + c, vf_load_some(from + c, lanes), lanes);
    }
}

/* What is to be done with complete sums, and the columns that exist. */
static void KERNEL_complete(const KERNEL_args *a, const float *sum, size_t row, size_t rows, size_t col) {
  const size_t columns = a->q - col < Q ? a->q - col : Q, pitch = (size_t)a->in.s->pitch;
  for (size_t r = 0; r < rows; r++, sum += Q) {
    float *y = a->y + (row + r) * pitch + col;
    size_t c = 0;
    for (; c + VF_LANES <= columns; c += VF_LANES)
      vf_store(y + c, RESULT(vf_load(sum + c), a->result_o, row + r, col + c, VF_LANES));
    if (c < columns)
      vf_store_some(y + c, RESULT(vf_load(sum + c), a->result_o, row + r, col + c, columns - c), columns - c);
  }
}

/* A panel of some pixels of m, times what it meets of v, is added to y. row: the first pixel's number. */
static void KERNEL_point(const KERNEL_args *a, size_t panel, size_t row, size_t pixels, const float *m) {
  const size_t n = (size_t)a->in.s->n, from = panel * NR, depth = n - from < NR ? n - from : NR;
  const size_t pitch = (size_t)a->in.s->pitch, tiles = (pixels + P - 1) / P;
  const int more = a->first + from > 0, last = a->first + from + depth == a->all;
  for (size_t t = 0; t < tiles; t++) {
    const size_t first = moecc_cut(pixels, tiles, t), rows = moecc_cut(pixels, tiles, t + 1) - first;
    const float *at[P], *v = a->v + from * Q;
    for (size_t r = 0; r < rows; r++) at[r] = m + (first + r) * NR;
    for (size_t col = 0; col < a->q; col += Q, v += n * Q) {
      const size_t columns = a->q - col < Q ? a->q - col : Q;
      float sum[P * Q], *y = a->y + (row + first) * pitch + col;
      if (more) KERNEL_move(y, pitch, sum, Q, rows, columns);
      KERNEL_point_tile(rows, at, depth, v, more, sum, Q);
      if (last)
        KERNEL_complete(a, sum, row + first, rows, col);
      else
        KERNEL_move(sum, Q, y, pitch, rows, columns);
    }
  }
}

/* ---- m ----------------------------------------------------------------------------------------------------------- */

/* The epilogue of a pixel's sums. Columns that do not exist stay as they are: nobody reads them. */
MOECC_INLINE void KERNEL_finish(const KERNEL_args *a, const vf *sum, size_t row, size_t col, float *m) {
  const size_t n = (size_t)a->in.s->n, columns = n - col < NR ? n - col : NR;
  MOECC_UNROLL for (size_t v = 0; v < NR / VF_LANES; v++) {
    const size_t i = v * VF_LANES;
    if (i + VF_LANES <= columns)
      vf_store(m + i, EPILOGUE(sum[v], a->o, row, col + i, VF_LANES));
    else if (i < columns)
      vf_store(m + i, EPILOGUE(sum[v], a->o, row, col + i, columns - i));
  }
}

/* `pixels` pixels of a pair of rows, from those of h on; row: the first's. */
MOECC_INLINE void KERNEL_blend(size_t pixels, const KERNEL_args *a, const moecc_resize_strip *p, size_t terms,
                               const float *h, size_t row, int both, float *m) {
  enum { VECTORS = NR / VF_LANES };
  vf upper[2 * VECTORS], lower[2 * VECTORS];
  moecc_resize_sum(pixels * VECTORS, p->down, terms, h, upper, lower);
  const size_t col = p->panel * NR, next = (size_t)a->in.s->x.out;
  MOECC_UNROLL for (size_t i = 0; i < pixels; i++, m += NR) {
    KERNEL_finish(a, upper + i * VECTORS, row + i, col, m);
    if (both) KERNEL_finish(a, lower + i * VECTORS, row + next + i, col, m + KERNEL_held * NR);
  }
}

/* Rows r and r + 1 of y, a few pixels at a time. m: where they are held, those of the second row behind the first's. */
static void KERNEL_down(const KERNEL_args *a, const moecc_resize_strip *p, int64_t r, float *m) {
  const moecc_resize_args *in = &a->in;
  const moecc_resize_shape *s = in->s;
  const size_t terms = moecc_resize_terms(&s->y, in->rows, in->wy, r, 0, s->ring, p->plane, p->row, p->down);
  const size_t next = (size_t)s->x.out, row = (p->image * (size_t)s->y.out + (size_t)r) * next;
  const size_t stop = row + (size_t)p->last;
  const int both = r + 1 < s->y.out;
  const float *h = p->ring;
  for (size_t at = row + (size_t)p->first, pixels; at < stop; at += pixels) {
    size_t i = 0;
    pixels = stop - at < KERNEL_held ? stop - at : KERNEL_held;
    for (; i + 2 <= pixels; i += 2, h += 2 * NR) KERNEL_blend(2, a, p, terms, h, at + i, both, m + i * NR);
    if (i < pixels) KERNEL_blend(1, a, p, terms, h, at + i, both, m + i * NR);
    KERNEL_point(a, p->panel, at, pixels, m);
    if (both) KERNEL_point(a, p->panel, at + next, pixels, m + KERNEL_held * NR);
  }
}

/* Blocks begin … end - 1 of a strip, for all panels. */
static void KERNEL_strip(const KERNEL_args *a, moecc_resize_strip *p, size_t strip, size_t begin, size_t end,
                         float *m) {
  const moecc_resize_shape *s = a->in.s;
  for (size_t panel = 0; panel < a->in.panels; panel++) {
    moecc_resize_begin(&a->in, p, NR, strip, panel);
    for (size_t i = begin; i < end; i++) {
      const int64_t r0 = (int64_t)i * s->block, r1 = r0 + s->block < s->y.out ? r0 + s->block : s->y.out;
      KERNEL_make(a, p, r0, r1);
      for (int64_t r = r0; r < r1; r += 2) KERNEL_down(a, p, r, m);
    }
  }
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const size_t blocks = a->in.blocks;
  moecc_resize_strip p = moecc_resize_memory(&a->in, NR, thread);
  float *m = p.ring + a->in.scratch_size - 2 * KERNEL_held * NR;
  for (size_t i = begin, stop; i < end; i = stop) {
    const size_t strip = i / blocks, first = strip * blocks;
    stop = first + blocks < end ? first + blocks : end;
    KERNEL_strip(a, &p, strip, i - first, stop - first, m);
  }
}

void KERNEL(const moecc_pool *pool, const float *x, const float *w, const float *wy, const float *wx,
            const moecc_operand *o, const float *v, float *y, const moecc_operand *result_o, float *scratch,
            size_t scratch_size, int64_t *lists, size_t lists_size, const int64_t *shape, const int64_t *rows,
            const int64_t *columns, size_t q, size_t first, size_t all) {
  moecc_resize_shape s;
  memcpy(&s, shape, sizeof s);
  const size_t panels = ((size_t)s.n + NR - 1) / NR, bands = (size_t)((s.x.out + s.band - 1) / s.band);
  const size_t blocks = (size_t)((s.y.out + s.block - 1) / s.block);
  const moecc_resize_args in = {x,       w,  wy,           wx,         scratch, lists, rows,
                                columns, &s, scratch_size, lists_size, panels,  bands, blocks};
  const KERNEL_args a = {in, v, y, o, result_o, q, first, all};
  moecc_for(pool, KERNEL_part, &a, (size_t)s.images * bands * blocks);
}
