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
 * thread: the ring, v of a few rows and one a, and in `lists` what is read with which weights.
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

/* What the table `shape` holds. An axis: extents of x, of the resampled picture and of y; the taps, their distances and
 * padding; how many elements of x make one of the resampled picture. */
typedef struct {
  int64_t in, middle, out, taps, stride, step, pad, near;
} KERNEL_extent;
typedef struct {
  int64_t images, channels, n, image_stride, line_stride, pixel_stride, pitch; /* pitch: of y's pixels */
  KERNEL_extent y, x;
  int64_t block, band; /* rows and columns of y in an item, both even */
  int64_t ring, wide;  /* rows and columns of x that an item reads at most */
  int64_t run;         /* rows of x whose products are made together */
} KERNEL_shape;

/* What is read at `at` is added to the first and the second of a pair, so weighted. */
typedef struct {
  size_t at;
  float weight[2];
} KERNEL_term;

typedef struct {
  const float *x, *w, *wy, *wx;
  float *y, *scratch;
  const moecc_operand *o;
  int64_t *lists;
  const int64_t *rows, *columns;
  const KERNEL_shape *s;
  size_t scratch_size, lists_size, panels, bands, blocks;
} KERNEL_args;

/* A panel of an image's band of columns, and where a thread is in it. */
typedef struct {
  const float *x, *w;
  size_t panel, image;
  int64_t first, last;      /* columns of y */
  int64_t left, cols;       /* columns of x */
  int64_t made;             /* rows of x before this one are in the ring, or were */
  size_t row, plane, apart; /* floats of a row and of one tap's rows in the ring; of one tap's v */
  float *ring, *v;          /* h: [tap][row of the ring][column]; v: [tap][row][column] */
  const float **at;         /* pixels of x */
  KERNEL_term *down;        /* of a pair of rows */
  KERNEL_term *across;      /* of all pairs of columns, most_terms for each */
  size_t *count;            /* of each pair of columns */
  const float *fetch;       /* what is read after the products under way, */
  size_t fetch_size;        /* so many floats */
  int64_t write[2], until;  /* the row and column of y to bring near next, up to row `until` */
} KERNEL_strip;

MOECC_APART void KERNEL_tile(size_t rows, const float *const *x, size_t length, const float *w, moecc_fetch fetch,
                             float *out) {
  moecc_tile_on(MR, NR / VF_LANES, rows, x, 1, length, w, NR, fetch, 0, out, NR);
}

/* ---- what is read of an axis ------------------------------------------------------------------------------------- */

static size_t KERNEL_most(const KERNEL_extent *e) { return (size_t)(2 * e->taps * e->near); }

/* Elements *first … *last - 1 of x are what elements from … to - 1 of y read. */
static void KERNEL_reach(const KERNEL_extent *e, const int64_t *index, const float *weight, int64_t from, int64_t to,
                         int64_t *first, int64_t *last) {
  *first = e->in;
  *last = 0;
  for (int64_t i = from * e->taps; i < to * e->taps; i++) {
    const int64_t m = i / e->taps * e->stride + i % e->taps * e->step - e->pad;
    for (int64_t k = m * e->near; m >= 0 && m < e->middle && k < (m + 1) * e->near; k++) {
      if (weight[k] == 0.0f) continue;
      if (index[k] < *first) *first = index[k];
      if (index[k] >= *last) *last = index[k] + 1;
    }
  }
  if (*first > *last) *first = *last;
}

/* What elements i and i + 1 of y read: tap t of element j of x lies at t * tap_step + (j - origin) % ring * step. */
static size_t KERNEL_terms(const KERNEL_extent *e, const int64_t *index, const float *weight, int64_t i, int64_t origin,
                           int64_t ring, size_t tap_step, size_t step, KERNEL_term *term) {
  size_t n = 0;
  for (int64_t which = 0; which < 2 && i + which < e->out; which++)
    for (int64_t t = 0; t < e->taps; t++) {
      const int64_t m = (i + which) * e->stride + t * e->step - e->pad;
      for (int64_t k = m * e->near; m >= 0 && m < e->middle && k < (m + 1) * e->near; k++) {
        const size_t at = (size_t)t * tap_step + (size_t)((index[k] - origin) % ring) * step;
        size_t old = 0;
        if (weight[k] == 0.0f) continue;
        while (old < n && term[old].at != at) old++;
        if (old == n) term[n++] = (KERNEL_term){at, {0.0f, 0.0f}};
        term[old].weight[which] += weight[k];
      }
    }
  return n;
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* Brings the next `count` pixels of y near. */
static void KERNEL_touch(const KERNEL_args *a, KERNEL_strip *p, size_t count) {
  const KERNEL_shape *s = a->s;
  for (; count > 0 && p->write[0] < p->until; count--) {
    const size_t row = (p->image * (size_t)s->y.out + (size_t)p->write[0]) * (size_t)s->x.out + (size_t)p->write[1];
    for (size_t i = p->panel * NR; i < p->panel * NR + NR; i += MOECC_LINE)
      if (i < (size_t)s->n) moecc_touch(a->y + row * (size_t)s->pitch + i);
    if (++p->write[1] < p->last) continue;
    p->write[1] = p->first;
    p->write[0]++;
  }
}

/* v of taps (tap, …) and the pixels at p->at; with each tile, `touch` pixels of y are brought near. */
static void KERNEL_products(const KERNEL_args *a, KERNEL_strip *p, size_t tap, size_t pixels, size_t touch) {
  const KERNEL_shape *s = a->s;
  const size_t depth = (size_t)s->channels, tiles = (pixels + MR - 1) / MR, taps = (size_t)s->x.taps;
  const size_t share = p->fetch_size / ((size_t)s->y.taps * taps * (tiles + 1));
  const float *w = p->w + tap * taps * depth * NR;
  moecc_fetch fetch = {p->fetch + tap * taps * tiles * share, (share + depth - 1) / depth};
  float *v = p->v;
  for (size_t b = 0; b < taps; b++, v += p->apart, w += depth * NR)
    for (size_t t = 0; t < tiles; t++, fetch.at += share) {
      const size_t first = moecc_cut(pixels, tiles, t), rows = moecc_cut(pixels, tiles, t + 1) - first;
      KERNEL_touch(a, p, touch);
      KERNEL_tile(rows, p->at + first, depth, w, fetch, v + first * NR);
    }
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

/* A pair of columns in a row of h. */
static void KERNEL_pair(const KERNEL_term *term, size_t terms, const float *v, float *h, int both) {
  vf left[NR / VF_LANES], right[NR / VF_LANES];
  MOECC_UNROLL for (size_t i = 0; i < NR / VF_LANES; i++) left[i] = right[i] = vf_zero();
  for (size_t t = 0; t < terms; t++) {
    const vf a = vf_set1(term[t].weight[0]), b = vf_set1(term[t].weight[1]);
    const float *u = v + term[t].at;
    MOECC_UNROLL for (size_t i = 0; i < NR / VF_LANES; i++) {
      const vf x = vf_load(u + i * VF_LANES);
      left[i] = vf_fma(x, a, left[i]);
      right[i] = vf_fma(x, b, right[i]);
    }
  }
  MOECC_UNROLL for (size_t i = 0; i < NR / VF_LANES; i++) vf_store(h + i * VF_LANES, left[i]);
  if (!both) return;
  MOECC_UNROLL for (size_t i = 0; i < NR / VF_LANES; i++) vf_store(h + NR + i * VF_LANES, right[i]);
}

/* Rows from … to - 1 of x: their h, into the ring. */
static void KERNEL_rows(const KERNEL_args *a, KERNEL_strip *p, int64_t from, int64_t to, size_t touch) {
  const KERNEL_shape *s = a->s;
  const size_t most = KERNEL_most(&s->x), wide = (size_t)(p->last - p->first);
  const float **at = p->at;
  for (int64_t i = from; i < to; i++)
    for (int64_t j = p->left; j < p->left + p->cols; j++) *at++ = p->x + i * s->line_stride + j * s->pixel_stride;
  for (size_t tap = 0; tap < (size_t)s->y.taps; tap++) {
    const float *v = p->v;
    KERNEL_products(a, p, tap, (size_t)((to - from) * p->cols), touch);
    for (int64_t i = from; i < to; i++, v += (size_t)p->cols * NR) {
      float *h = p->ring + tap * p->plane + (size_t)(i % s->ring) * p->row;
      for (size_t c = 0; c < wide; c += 2, h += 2 * NR)
        KERNEL_pair(p->across + c / 2 * most, p->count[c / 2], v, h, c + 1 < wide);
    }
  }
}

/* What is to be brought near with the products of rows … stop - 1: the next rows, or the next panel. */
static void KERNEL_next(const KERNEL_args *a, KERNEL_strip *p, int64_t stop) {
  const KERNEL_shape *s = a->s;
  const int64_t left = s->y.in - stop, rows = left < s->run ? left : s->run;
  p->fetch = p->x + stop * s->line_stride + p->left * s->pixel_stride;
  p->fetch_size = (size_t)(rows * p->cols * s->pixel_stride);
  if (rows > 0) return;
  p->fetch_size = (size_t)(s->y.taps * s->x.taps * s->channels) * NR;
  p->fetch = p->panel + 1 < a->panels ? p->w + p->fetch_size : p->w;
}

/* h of rows from … to - 1 of x, before rows r0 … r1 - 1 of y. */
static void KERNEL_make(const KERNEL_args *a, KERNEL_strip *p, int64_t from, int64_t to, int64_t r0, int64_t r1) {
  const KERNEL_shape *s = a->s;
  const int64_t runs = (to - from + s->run - 1) / s->run, pixels = (r1 - r0) * (p->last - p->first);
  const int64_t tiles = runs * s->y.taps * s->x.taps * ((s->run * p->cols + MR - 1) / MR);
  p->write[0] = r0;
  p->write[1] = p->first;
  p->until = r1;
  for (; from < to; from += s->run) {
    const int64_t stop = from + s->run < to ? from + s->run : to;
    KERNEL_next(a, p, stop);
    KERNEL_rows(a, p, from, stop, (size_t)(pixels / (tiles + 1) + 1));
  }
}

/* The epilogue of a pixel's sums, and its columns that exist. */
MOECC_INLINE void KERNEL_finish(const KERNEL_args *a, const vf *sum, size_t row, size_t col) {
  const size_t n = (size_t)a->s->n, columns = n - col < NR ? n - col : NR;
  float *y = a->y + row * (size_t)a->s->pitch + col;
  MOECC_UNROLL for (size_t v = 0; v < NR / VF_LANES; v++) {
    const size_t i = v * VF_LANES;
    if (i + VF_LANES <= columns)
      vf_store(y + i, EPILOGUE(sum[v], a->o, row, col + i, VF_LANES));
    else if (i < columns)
      vf_store_some(y + i, EPILOGUE(sum[v], a->o, row, col + i, columns - i), columns - i);
  }
}

/* `pixels` pixels of a pair of rows, from those of h on; row: the first's. */
MOECC_INLINE void KERNEL_blend(size_t pixels, const KERNEL_args *a, const KERNEL_strip *p, size_t terms, const float *h,
                               size_t row, int both) {
  enum { VECTORS = NR / VF_LANES };
  vf upper[2 * VECTORS], lower[2 * VECTORS];
  MOECC_UNROLL for (size_t i = 0; i < pixels * VECTORS; i++) upper[i] = lower[i] = vf_zero();
  for (size_t t = 0; t < terms; t++) {
    const vf above = vf_set1(p->down[t].weight[0]), below = vf_set1(p->down[t].weight[1]);
    const float *u = h + p->down[t].at;
    MOECC_UNROLL for (size_t i = 0; i < pixels * VECTORS; i++) {
      const vf x = vf_load(u + i * VF_LANES);
      upper[i] = vf_fma(x, above, upper[i]);
      lower[i] = vf_fma(x, below, lower[i]);
    }
  }
  const size_t col = p->panel * NR, next = (size_t)a->s->x.out;
  MOECC_UNROLL for (size_t i = 0; i < pixels; i++) {
    KERNEL_finish(a, upper + i * VECTORS, row + i, col);
    if (both) KERNEL_finish(a, lower + i * VECTORS, row + next + i, col);
  }
}

/* Rows r and r + 1 of y. */
static void KERNEL_down(const KERNEL_args *a, const KERNEL_strip *p, int64_t r) {
  const KERNEL_shape *s = a->s;
  const size_t terms = KERNEL_terms(&s->y, a->rows, a->wy, r, 0, s->ring, p->plane, p->row, p->down);
  const size_t row = (p->image * (size_t)s->y.out + (size_t)r) * (size_t)s->x.out, last = row + (size_t)p->last;
  const int both = r + 1 < s->y.out;
  const float *h = p->ring;
  size_t at = row + (size_t)p->first;
  for (; at + 2 <= last; at += 2, h += 2 * NR) KERNEL_blend(2, a, p, terms, h, at, both);
  if (at < last) KERNEL_blend(1, a, p, terms, h, at, both);
}

/* ---- items ------------------------------------------------------------------------------------------------------- */

/* The memory of a thread. */
static KERNEL_strip KERNEL_memory(const KERNEL_args *a, unsigned thread) {
  const KERNEL_shape *s = a->s;
  KERNEL_strip p = {0};
  p.ring = a->scratch + thread * a->scratch_size;
  p.v = p.ring + (size_t)(s->y.taps * s->ring * s->band) * NR;
  p.across = (KERNEL_term *)(void *)(a->lists + thread * a->lists_size);
  p.down = p.across + (size_t)s->band / 2 * KERNEL_most(&s->x);
  p.at = (const float **)(void *)(p.down + KERNEL_most(&s->y));
  p.count = (size_t *)(void *)(p.at + (size_t)(s->run * s->wide));
  return p;
}

/* Begins strip number `number`: panel, image and band. */
static void KERNEL_begin(const KERNEL_args *a, KERNEL_strip *p, size_t number) {
  const KERNEL_shape *s = a->s;
  const size_t band = number % a->bands, most = KERNEL_most(&s->x);
  p->image = number / a->bands % (size_t)s->images;
  p->panel = number / a->bands / (size_t)s->images;
  p->x = a->x + (int64_t)p->image * s->image_stride;
  p->w = a->w + p->panel * (size_t)(s->y.taps * s->x.taps * s->channels) * NR;
  p->first = (int64_t)band * s->band;
  p->last = p->first + s->band < s->x.out ? p->first + s->band : s->x.out;
  KERNEL_reach(&s->x, a->columns, a->wx, p->first, p->last, &p->left, &p->cols);
  p->cols -= p->left;
  p->row = (size_t)(p->last - p->first) * NR;
  p->plane = (size_t)s->ring * p->row;
  p->apart = (size_t)(s->run * p->cols) * NR;
  p->made = 0;
  for (int64_t c = p->first, i = 0; c < p->last; c += 2, i++)
    p->count[i] =
        KERNEL_terms(&s->x, a->columns, a->wx, c, p->left, s->x.in, p->apart, NR, p->across + (size_t)i * most);
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const KERNEL_shape *s = a->s;
  KERNEL_strip p = KERNEL_memory(a, thread);
  for (size_t i = begin; i < end; i++) {
    const int64_t r0 = (int64_t)(i % a->blocks) * s->block, r1 = r0 + s->block < s->y.out ? r0 + s->block : s->y.out;
    int64_t from, to;
    if (i == begin || i % a->blocks == 0) KERNEL_begin(a, &p, i / a->blocks);
    KERNEL_reach(&s->y, a->rows, a->wy, r0, r1, &from, &to);
    KERNEL_make(a, &p, from > p.made ? from : p.made, to, r0, r1);
    if (to > p.made) p.made = to;
    for (int64_t r = r0; r < r1; r += 2) KERNEL_down(a, &p, r);
  }
}

void KERNEL(const moecc_pool *pool, const float *x, const float *w, const float *wy, const float *wx, float *y,
            const moecc_operand *o, float *scratch, size_t scratch_size, int64_t *lists, size_t lists_size,
            const int64_t *shape, const int64_t *rows, const int64_t *columns) {
  KERNEL_shape s;
  memcpy(&s, shape, sizeof s);
  const size_t panels = ((size_t)s.n + NR - 1) / NR, bands = (size_t)((s.x.out + s.band - 1) / s.band);
  const size_t blocks = (size_t)((s.y.out + s.block - 1) / s.block);
  const KERNEL_args a = {x,    w,       wy, wx,           y,          scratch, o,     lists,
                         rows, columns, &s, scratch_size, lists_size, panels,  bands, blocks};
  moecc_for(pool, KERNEL_part, &a, panels * (size_t)s.images * bands * blocks);
}
