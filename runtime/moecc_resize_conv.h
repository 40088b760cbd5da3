/* moecc_resize_conv.h: what the kernels share that convolve a resampled picture without making it: from x to h. The
 * head of codegen_templates/resize_conv.c has the formula, and the layout of what is given:
 *   v[a][b][i][j][n] = sum over k of x[i][j][k] * w[a][b][k][n]                        for each tap (a, b)
 *   h[a][i][c][n] = sum over b, j of C[c][b][j] * v[a][b][i][j][n]
 *   sums of y's row r: over a, i of R[r][a][i] * h[a][i][c][n]
 * for one panel of nr columns n, in strips: an image's columns from `first` to `last`. h is kept in a ring of x's rows.
 * nr and mr, a tile's rows, are constants at every call, and all that uses them is inlined.
 */
#ifndef MOECC_RESIZE_CONV_H
#define MOECC_RESIZE_CONV_H

#include <stdint.h>
#include "moecc_gemm.h"

/* What the table `shape` holds. An axis: extents of x, of the resampled picture and of y; the taps, their distances and
 * padding; how many elements of x make one of the resampled picture. */
typedef struct {
  int64_t in, middle, out, taps, stride, step, pad, near;
} moecc_resize_extent;
typedef struct {
  int64_t images, channels, n, image_stride, line_stride, pixel_stride, pitch; /* pitch: of y's pixels */
  moecc_resize_extent y, x;
  int64_t block, band; /* rows and columns of y in an item, both even */
  int64_t ring, wide;  /* rows and columns of x that an item reads at most */
  int64_t run;         /* rows of x whose products are made together */
} moecc_resize_shape;

/* What is read at `at` is added to the first and the second of a pair, so weighted. */
typedef struct {
  size_t at;
  float weight[2];
} moecc_resize_term;

typedef struct {
  const float *x, *w, *wy, *wx;
  float *scratch;
  int64_t *lists;
  const int64_t *rows, *columns;
  const moecc_resize_shape *s;
  size_t scratch_size, lists_size, panels, bands, blocks;
} moecc_resize_args;

/* An image's band of columns, the panel, and where a thread is in them. */
typedef struct {
  const float *x, *w;
  size_t panel, image;
  int64_t first, last;       /* columns of y */
  int64_t left, cols;        /* columns of x */
  int64_t made;              /* rows of x before this one are in the ring, or were */
  size_t row, plane, apart;  /* floats of a row and of one tap's rows in the ring; of one tap's v */
  float *ring, *v;           /* h: [tap][row of the ring][column]; v: [tap][row][column] */
  const float **at;          /* pixels of x */
  moecc_resize_term *down;   /* of a pair of rows */
  moecc_resize_term *across; /* of all pairs of columns, moecc_resize_most for each */
  size_t *count;             /* of each pair of columns */
  const float *fetch;        /* what is read after the products under way, */
  size_t fetch_size;         /* so many floats */
  float *touch;              /* the image in y from the panel's column on, to be brought near, or NULL, */
  size_t touch_columns;      /* so many columns of each pixel */
  int64_t write[2], until;   /* the row and column to bring near next, up to row `until` */
} moecc_resize_strip;

/* The products of some pixels and a panel. */
typedef void moecc_resize_tile(size_t rows, const float *const *x, size_t length, const float *w, moecc_fetch fetch,
                               float *out);

/* ---- what is read of an axis ------------------------------------------------------------------------------------- */

static inline size_t moecc_resize_most(const moecc_resize_extent *e) { return (size_t)(2 * e->taps * e->near); }

/* Elements *first … *last - 1 of x are what elements from … to - 1 of y read. */
static inline void moecc_resize_reach(const moecc_resize_extent *e, const int64_t *index, const float *weight,
                                      int64_t from, int64_t to, int64_t *first, int64_t *last) {
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
static inline size_t moecc_resize_terms(const moecc_resize_extent *e, const int64_t *index, const float *weight,
                                        int64_t i, int64_t origin, int64_t ring, size_t tap_step, size_t step,
                                        moecc_resize_term *term) {
  size_t n = 0;
  for (int64_t which = 0; which < 2 && i + which < e->out; which++)
    for (int64_t t = 0; t < e->taps; t++) {
      const int64_t m = (i + which) * e->stride + t * e->step - e->pad;
      for (int64_t k = m * e->near; m >= 0 && m < e->middle && k < (m + 1) * e->near; k++) {
        const size_t at = (size_t)t * tap_step + (size_t)((index[k] - origin) % ring) * step;
        size_t old = 0;
        if (weight[k] == 0.0f) continue;
        while (old < n && term[old].at != at) old++;
        if (old == n) term[n++] = (moecc_resize_term){at, {0.0f, 0.0f}};
        term[old].weight[which] += weight[k];
      }
    }
  return n;
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* Brings the next `count` pixels of y near. */
static inline void moecc_resize_touch(const moecc_resize_shape *s, moecc_resize_strip *p, size_t count) {
  for (; count > 0 && p->write[0] < p->until; count--) {
    float *pixel = p->touch + (p->write[0] * s->x.out + p->write[1]) * s->pitch;
    for (size_t i = 0; i < p->touch_columns; i += MOECC_LINE) moecc_touch(pixel + i);
    if (++p->write[1] < p->last) continue;
    p->write[1] = p->first;
    p->write[0]++;
  }
}

/* v of taps (tap, …) and the pixels at p->at; with each tile, `touch` pixels of y are brought near. */
MOECC_INLINE void moecc_resize_products(size_t mr, size_t nr, moecc_resize_tile *tile, const moecc_resize_args *a,
                                        moecc_resize_strip *p, size_t tap, size_t pixels, size_t touch) {
  const moecc_resize_shape *s = a->s;
  const size_t depth = (size_t)s->channels, tiles = (pixels + mr - 1) / mr, taps = (size_t)s->x.taps;
  const size_t share = p->fetch_size / ((size_t)s->y.taps * taps * (tiles + 1));
  const float *w = p->w + tap * taps * depth * nr;
  moecc_fetch fetch = {p->fetch + tap * taps * tiles * share, (share + depth - 1) / depth, 0};
  float *v = p->v;
  for (size_t b = 0; b < taps; b++, v += p->apart, w += depth * nr)
    for (size_t t = 0; t < tiles; t++, fetch.at += share) {
      const size_t first = moecc_cut(pixels, tiles, t), rows = moecc_cut(pixels, tiles, t + 1) - first;
      moecc_resize_touch(s, p, touch);
      tile(rows, p->at + first, depth, w, fetch, v + first * nr);
    }
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

/* So many vectors of each of a pair, from what the terms say. */
MOECC_INLINE void moecc_resize_sum(size_t vectors, const moecc_resize_term *term, size_t terms, const float *from,
                                   vf *one, vf *other) {
  MOECC_UNROLL for (size_t i = 0; i < vectors; i++) one[i] = other[i] = vf_zero();
  for (size_t t = 0; t < terms; t++) {
    const vf a = vf_set1(term[t].weight[0]), b = vf_set1(term[t].weight[1]);
    const float *u = from + term[t].at;
    MOECC_UNROLL for (size_t i = 0; i < vectors; i++) {
      const vf x = vf_load(u + i * VF_LANES);
      one[i] = vf_fma(x, a, one[i]);
      other[i] = vf_fma(x, b, other[i]);
    }
  }
}

/* A pair of columns in a row of h. */
MOECC_INLINE void moecc_resize_pair(size_t nr, const moecc_resize_term *term, size_t terms, const float *v, float *h,
                                    int both) {
  vf left[MOECC_TILE_COLUMNS / VF_LANES], right[MOECC_TILE_COLUMNS / VF_LANES];
  moecc_resize_sum(nr / VF_LANES, term, terms, v, left, right);
  MOECC_UNROLL for (size_t i = 0; i < nr / VF_LANES; i++) vf_store(h + i * VF_LANES, left[i]);
  if (!both) return;
  MOECC_UNROLL for (size_t i = 0; i < nr / VF_LANES; i++) vf_store(h + nr + i * VF_LANES, right[i]);
}

/* Rows from … to - 1 of x: their h, into the ring. */
MOECC_INLINE void moecc_resize_rows(size_t mr, size_t nr, moecc_resize_tile *tile, const moecc_resize_args *a,
                                    moecc_resize_strip *p, int64_t from, int64_t to, size_t touch) {
  const moecc_resize_shape *s = a->s;
  const size_t most = moecc_resize_most(&s->x), wide = (size_t)(p->last - p->first);
  const float **at = p->at;
  for (int64_t i = from; i < to; i++)
    for (int64_t j = p->left; j < p->left + p->cols; j++) *at++ = p->x + i * s->line_stride + j * s->pixel_stride;
  for (size_t tap = 0; tap < (size_t)s->y.taps; tap++) {
    const float *v = p->v;
    moecc_resize_products(mr, nr, tile, a, p, tap, (size_t)((to - from) * p->cols), touch);
    for (int64_t i = from; i < to; i++, v += (size_t)p->cols * nr) {
      float *h = p->ring + tap * p->plane + (size_t)(i % s->ring) * p->row;
      for (size_t c = 0; c < wide; c += 2, h += 2 * nr)
        moecc_resize_pair(nr, p->across + c / 2 * most, p->count[c / 2], v, h, c + 1 < wide);
    }
  }
}

/* What is to be brought near with the products of rows … stop - 1: the next rows, or the next panel. */
static inline void moecc_resize_next(const moecc_resize_args *a, moecc_resize_strip *p, size_t nr, int64_t stop) {
  const moecc_resize_shape *s = a->s;
  const int64_t left = s->y.in - stop, rows = left < s->run ? left : s->run;
  p->fetch = p->x + stop * s->line_stride + p->left * s->pixel_stride;
  p->fetch_size = (size_t)(rows * p->cols * s->pixel_stride);
  if (rows > 0) return;
  p->fetch_size = (size_t)(s->y.taps * s->x.taps * s->channels) * nr;
  p->fetch = p->panel + 1 < a->panels ? p->w + p->fetch_size : p->w;
}

/* The rows of h that rows r0 … r1 - 1 of y read and that are not in the ring yet. */
MOECC_INLINE void moecc_resize_make(size_t mr, size_t nr, moecc_resize_tile *tile, const moecc_resize_args *a,
                                    moecc_resize_strip *p, int64_t r0, int64_t r1) {
  const moecc_resize_shape *s = a->s;
  int64_t from, to;
  moecc_resize_reach(&s->y, a->rows, a->wy, r0, r1, &from, &to);
  if (from < p->made) from = p->made;
  if (to > p->made) p->made = to;
  const int64_t runs = (to - from + s->run - 1) / s->run, pixels = (r1 - r0) * (p->last - p->first);
  const int64_t tiles = runs * s->y.taps * s->x.taps * ((s->run * p->cols + (int64_t)mr - 1) / (int64_t)mr);
  p->write[0] = r0;
  p->write[1] = p->first;
  p->until = p->touch ? r1 : r0;
  for (; from < to; from += s->run) {
    const int64_t stop = from + s->run < to ? from + s->run : to;
    moecc_resize_next(a, p, nr, stop);
    moecc_resize_rows(mr, nr, tile, a, p, from, stop, (size_t)(pixels / (tiles + 1) + 1));
  }
}

/* ---- items ------------------------------------------------------------------------------------------------------- */

/* The memory of a thread. */
static inline moecc_resize_strip moecc_resize_memory(const moecc_resize_args *a, size_t nr, unsigned thread) {
  const moecc_resize_shape *s = a->s;
  moecc_resize_strip p = {0};
  p.ring = a->scratch + thread * a->scratch_size;
  p.v = p.ring + (size_t)(s->y.taps * s->ring * s->band) * nr;
  p.across = (moecc_resize_term *)(void *)(a->lists + thread * a->lists_size);
  p.down = p.across + (size_t)s->band / 2 * moecc_resize_most(&s->x);
  p.at = (const float **)(void *)(p.down + moecc_resize_most(&s->y));
  p.count = (size_t *)(void *)(p.at + (size_t)(s->run * s->wide));
  return p;
}

/* Begins strip number `strip`, an image and a band, with a panel. */
static inline void moecc_resize_begin(const moecc_resize_args *a, moecc_resize_strip *p, size_t nr, size_t strip,
                                      size_t panel) {
  const moecc_resize_shape *s = a->s;
  const size_t band = strip % a->bands, most = moecc_resize_most(&s->x);
  p->image = strip / a->bands;
  p->panel = panel;
  p->x = a->x + (int64_t)p->image * s->image_stride;
  p->w = a->w + p->panel * (size_t)(s->y.taps * s->x.taps * s->channels) * nr;
  p->first = (int64_t)band * s->band;
  p->last = p->first + s->band < s->x.out ? p->first + s->band : s->x.out;
  moecc_resize_reach(&s->x, a->columns, a->wx, p->first, p->last, &p->left, &p->cols);
  p->cols -= p->left;
  p->row = (size_t)(p->last - p->first) * nr;
  p->plane = (size_t)s->ring * p->row;
  p->apart = (size_t)(s->run * p->cols) * nr;
  p->made = 0;
  for (int64_t c = p->first, i = 0; c < p->last; c += 2, i++)
    p->count[i] =
        moecc_resize_terms(&s->x, a->columns, a->wx, c, p->left, s->x.in, p->apart, nr, p->across + (size_t)i * most);
}

#endif
