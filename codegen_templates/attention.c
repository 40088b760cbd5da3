/* y[b][h][t] = softmax over s of (scale * q[b][h][t] . k[b][h][s] + mask[b][h][t][s]) times v[b][h][s], float32.
 * q, k, v, y: rows of contiguous elements (depth of q and k, width of v and y), their strides in the table; mask: any
 * strides, or NULL. causal: query t sees keys 0 ... t only. Any sizes >= 1. factor: NULL, or what scale is multiplied by
 * in each head. least > 0: cosine attention, rows of q and k are divided by their length, or by `least` if that is more.
 * A thread packs k (transposed, in panels of NR columns) and v (in panels of VN columns, if it must: `in_place`) of a
 * head when it comes to it, then takes at most `block` queries at a time against all keys: scores in tiles of MR by NR,
 * their softmax, the values in tiles of VR by VN. The sum of the exponentials divides at the end. Scratch of a thread,
 * scratch_size floats: what is packed, `block` rows of scores, score_row apart, and three numbers for each of these rows.
 */
#include "defaults.h"
/* holes */
#define KERNEL attention_f32
#define MR     6
#define NR     16
#define VR     6
#define VN     16
/* end holes */

/* What the table `shape` holds: extents, then strides per batch, head and position. */
typedef struct {
  int64_t batches, heads, queries, keys, depth, width, causal;
  int64_t q[3], k[3], v[3], y[3], mask[4], factor[2];
  int64_t in_place; /* v is read where it lies: its rows are whole panels */
} KERNEL_shape;

typedef struct {
  const float *q, *k, *v, *mask, *factor;
  float *y, *scratch;
  const KERNEL_shape *s;
  size_t block, blocks, score_row, key_size, value_size, scratch_size;
  float scale, least;
} KERNEL_args;

MOECC_APART void KERNEL_tile(size_t rows, const float *const *x, size_t length, const float *w, moecc_fetch fetch,
                             float *out, size_t out_row) {
  moecc_tile_on(MR, NR / VF_LANES, rows, x, 1, length, w, NR, fetch, 0, out, out_row);
}

/* One vector of a panel's columns. */
MOECC_APART void KERNEL_strip(size_t rows, const float *const *x, size_t length, const float *w, moecc_fetch fetch,
                              float *out, size_t out_row) {
  moecc_tile_on(MR, 1, rows, x, 1, length, w, NR, fetch, 0, out, out_row);
}

MOECC_APART void KERNEL_value_tile(size_t rows, const float *const *x, size_t length, const float *w, size_t step,
                                   float *out) {
  const moecc_fetch none = {w, 0, 0};
  moecc_tile_on(VR, VN / VF_LANES, rows, x, 1, length, w, step, none, 0, out, VN);
}

/* ---- operands ---------------------------------------------------------------------------------------------------- */

/* Columns of a panel that are VF_LANES keys, divided by their lengths. */
static void KERNEL_shorten(float *packed, size_t depth, float least) {
  vf squares = vf_zero();
  for (size_t d = 0; d < depth; d++) {
    const vf x = vf_load(packed + d * NR);
    squares = vf_fma(x, x, squares);
  }
  const vf by = vf_set1(1.0f) / vf_max(vf_sqrt(squares), vf_set1(least));
  for (size_t d = 0; d < depth; d++) vf_store(packed + d * NR, vf_load(packed + d * NR) * by);
}

/* Rows of k as columns of panels, filled up with zeros. */
static void KERNEL_pack_keys(const float *k, int64_t k_row, size_t keys, size_t depth, float least, float *packed) {
  for (size_t from = 0; from < keys; from += NR, packed += NR * depth)
    for (size_t c = 0; c < NR; c += VF_LANES) {
      const size_t left = from + c < keys ? keys - from - c : 0, lanes = left < VF_LANES ? left : VF_LANES;
      const float *rows = k + (int64_t)(from + c) * k_row;
      float *out = packed + c;
      size_t d = 0;
      for (; lanes == VF_LANES && d + VF_LANES <= depth; d += VF_LANES)
        vf_transpose(rows + d, (ptrdiff_t)k_row, out + d * NR, NR);
      for (; d < depth; d++) vf_store(out + d * NR, vf_load_step_some(rows + d, (ptrdiff_t)k_row, lanes));
      if (least > 0.0f) KERNEL_shorten(out, depth, least);
    }
}

/* Rows of v, cut into panels that are filled up with zeros. */
static void KERNEL_pack_values(const float *v, int64_t v_row, size_t keys, size_t width, float *packed) {
  for (size_t from = 0; from < width; from += VN)
    for (size_t j = 0; j < keys; j++, packed += VN) {
      const float *row = v + (int64_t)j * v_row + from;
      for (size_t c = 0; c < VN; c += VF_LANES) {
        const size_t left = from + c < width ? width - from - c : 0;
        vf_store(packed + c, left >= VF_LANES ? vf_load(row + c) : vf_load_some(row + c, left));
      }
    }
}

static void KERNEL_pack(const KERNEL_args *a, size_t head, float *scratch) {
  const KERNEL_shape *s = a->s;
  const int64_t b = (int64_t)head / s->heads, h = (int64_t)head % s->heads;
  KERNEL_pack_keys(a->k + b * s->k[0] + h * s->k[1], s->k[2], (size_t)s->keys, (size_t)s->depth, a->least, scratch);
  if (s->in_place) return;
  KERNEL_pack_values(a->v + b * s->v[0] + h * s->v[1], s->v[2], (size_t)s->keys, (size_t)s->width,
                     scratch + a->key_size);
}

/* ---- softmax ----------------------------------------------------------------------------------------------------- */

/* What the products of a query's row with the keys are multiplied by, `scale` being its head's. */
static float KERNEL_row_scale(const KERNEL_args *a, const float *q, float scale) {
  if (a->least <= 0.0f) return scale;
  const size_t depth = (size_t)a->s->depth;
  vf squares = vf_zero();
  size_t d = 0;
  for (; d + VF_LANES <= depth; d += VF_LANES) squares = vf_fma(vf_load(q + d), vf_load(q + d), squares);
  if (d < depth) squares = vf_fma(vf_load_some(q + d, depth - d), vf_load_some(q + d, depth - d), squares);
  const float length = moecc_sqrt_f32(vf_sum(squares));
  return scale / (length > a->least ? length : a->least);
}

static vf KERNEL_mask(const float *mask, int64_t step, size_t j, size_t lanes) {
  if (step != 1) return vf_load_step_some(mask + (int64_t)j * step, (ptrdiff_t)step, lanes);
  return lanes == VF_LANES ? vf_load(mask + j) : vf_load_some(mask + j, lanes);
}

/* Makes scores final: scaled and masked if there is a mask, -infinity behind the last; returns the largest. */
static float KERNEL_largest(float *x, float scale, const float *mask, int64_t step, size_t keys) {
  const vf lowest = vf_set1(-INFINITY), by = vf_set1(scale);
  vf most = lowest;
  size_t j = 0;
  if (!mask)
    for (; j + VF_LANES <= keys; j += VF_LANES) most = vf_max(most, vf_load(x + j));
  for (; j + VF_LANES <= keys; j += VF_LANES) {
    const vf score = vf_fma(vf_load(x + j), by, KERNEL_mask(mask, step, j, VF_LANES));
    vf_store(x + j, score);
    most = vf_max(most, score);
  }
  if (j < keys) {
    const vf score = mask ? vf_fma(vf_load(x + j), by, KERNEL_mask(mask, step, j, keys - j)) : vf_load(x + j);
    const vf seen = vf_select(vf_lt(vf_iota(), vf_set1((float)(keys - j))), score, lowest);
    vf_store(x + j, seen);
    most = vf_max(most, seen);
  }
  return vf_hmax(most);
}

/* The first `keys` scores become 2^(x * factor - largest * factor), those from there up to `all` 0; returns the sum. */
static float KERNEL_exponentials(float *x, float factor, float largest, size_t keys, size_t all) {
  const vf by = vf_set1(factor), less = vf_set1(-largest * factor);
  vf s0 = vf_zero(), s1 = s0;
  size_t j = 0;
  for (; j + 2 * VF_LANES <= keys; j += 2 * VF_LANES) {
    const vf e0 = vf_exp2_neg(vf_fma(vf_load(x + j), by, less));
    const vf e1 = vf_exp2_neg(vf_fma(vf_load(x + j + VF_LANES), by, less));
    vf_store(x + j, e0);
    vf_store(x + j + VF_LANES, e1);
    s0 = s0 + e0;
    s1 = s1 + e1;
  }
  for (; j < keys; j += VF_LANES) {
    vf e = vf_exp2_neg(vf_fma(vf_load(x + j), by, less));
    if (keys - j < VF_LANES) e = vf_select(vf_lt(vf_iota(), vf_set1((float)(keys - j))), e, vf_zero());
    vf_store(x + j, e);
    s0 = s0 + e;
  }
  for (; j < all; j += VF_LANES) vf_store(x + j, vf_zero());
  return vf_sum(s0 + s1);
}

/* Rows of scores, query `first` being the first, become exponentials; inverse: room for 3 * rows, 1 / the sums at last.
 * Step by step for all rows, so that the waits for one are filled with another. Without a mask a positive scale waits
 * for the exponent. */
static void KERNEL_softmax(const KERNEL_args *a, const float *q, float scale, const float *mask, size_t first,
                           size_t rows, size_t seen, float *x, float *inverse) {
  static const float none = 0.0f;
  const KERNEL_shape *s = a->s;
  float *by = inverse + rows, *largest = by + rows;
  const float *unmasked = scale > 0.0f ? NULL : &none;
  const int64_t step = mask ? s->mask[3] : 0;
  const size_t more = s->causal ? first + 1 : seen; /* keys of the first row, one more for each further one */
  for (size_t r = 0; r < rows; r++) by[r] = KERNEL_row_scale(a, q + (int64_t)r * s->q[2], scale);
  for (size_t r = 0; r < rows; r++)
    largest[r] = KERNEL_largest(x + r * a->score_row, by[r], mask ? mask + (int64_t)r * s->mask[2] : unmasked, step,
                                more + r < seen ? more + r : seen);
  for (size_t r = 0; r < rows; r++)
    inverse[r] = KERNEL_exponentials(x + r * a->score_row, (mask || unmasked ? 1.0f : by[r]) * 1.44269504f, largest[r],
                                     more + r < seen ? more + r : seen, seen);
  for (size_t r = 0; r < rows; r++) inverse[r] = 1.0f / inverse[r];
}

/* ---- queries ----------------------------------------------------------------------------------------------------- */

/* The scores of a tile's rows against the first `keys` keys, and what fills their last vector. Meanwhile their mask
 * is fetched, if it has as many rows. */
static void KERNEL_score(const KERNEL_args *a, size_t rows, const float *const *q, const float *k, size_t keys,
                         const float *mask, float *scores) {
  const size_t depth = (size_t)a->s->depth;
  moecc_fetch fetch = {mask, MOECC_LINE, 0};
  for (size_t j = 0; j < keys; j += NR, k += NR * depth) {
    if (!mask || a->s->mask[2] < a->s->keys) fetch.at = k, fetch.step = 0;
    if (keys - j > NR - VF_LANES)
      KERNEL_tile(rows, q, depth, k, fetch, scores + j, a->score_row);
    else
      for (size_t c = 0; j + c < keys; c += VF_LANES)
        KERNEL_strip(rows, q, depth, k + c, fetch, scores + j + c, a->score_row);
    fetch.at += depth * fetch.step;
  }
}

/* A tile's rows of the result: probabilities times values, times 1 / sum. */
static void KERNEL_value(const KERNEL_args *a, size_t rows, const float *const *x, const float *v, size_t keys,
                         const float *inverse, float *y) {
  const size_t width = (size_t)a->s->width;
  float sum[VR * VN];
  const size_t step = a->s->in_place ? (size_t)a->s->v[2] : VN, panel = a->s->in_place ? VN : VN * (size_t)a->s->keys;
  for (size_t from = 0; from < width; from += VN, v += panel) {
    const size_t columns = width - from < VN ? width - from : VN;
    KERNEL_value_tile(rows, x, keys, v, step, sum);
    for (size_t r = 0; r < rows; r++) {
      float *out = y + (int64_t)r * a->s->y[2] + (int64_t)from;
      const vf by = vf_set1(inverse[r]);
      size_t c = 0;
      for (; c + VF_LANES <= columns; c += VF_LANES) vf_store(out + c, vf_load(sum + r * VN + c) * by);
      if (c < columns) vf_store_some(out + c, vf_load(sum + r * VN + c) * by, columns - c);
    }
  }
}

/* Queries first ... first + rows - 1 of a head whose operands are packed in scratch. */
static void KERNEL_queries(const KERNEL_args *a, size_t head, size_t first, size_t rows, float *scratch) {
  const KERNEL_shape *s = a->s;
  const size_t keys = (size_t)s->keys, seen = s->causal && first + rows < keys ? first + rows : keys;
  const int64_t b = (int64_t)head / s->heads, h = (int64_t)head % s->heads;
  const float *q = a->q + b * s->q[0] + h * s->q[1] + (int64_t)first * s->q[2];
  const float *mask = a->mask ? a->mask + b * s->mask[0] + h * s->mask[1] + (int64_t)first * s->mask[2] : NULL;
  const float *v = s->in_place ? a->v + b * s->v[0] + h * s->v[1] : scratch + a->key_size;
  float *scores = scratch + a->key_size + a->value_size, *inverse = scores + a->block * a->score_row;
  float *y = a->y + b * s->y[0] + h * s->y[1] + (int64_t)first * s->y[2];
  const float scale = a->factor ? a->scale * a->factor[b * s->factor[0] + h * s->factor[1]] : a->scale;
  for (size_t t = 0, tiles = (rows + MR - 1) / MR; t < tiles; t++) {
    const size_t from = moecc_cut(rows, tiles, t), here = moecc_cut(rows, tiles, t + 1) - from;
    const float *x[MR] = {0};
    for (size_t r = 0; r < here; r++) x[r] = q + (int64_t)(from + r) * s->q[2];
    KERNEL_score(a, here, x, scratch, seen, mask ? mask + (int64_t)from * s->mask[2] : NULL,
                 scores + from * a->score_row);
  }
  KERNEL_softmax(a, q, scale, mask, first, rows, seen, scores, inverse);
  for (size_t t = 0, tiles = (rows + VR - 1) / VR; t < tiles; t++) {
    const size_t from = moecc_cut(rows, tiles, t), here = moecc_cut(rows, tiles, t + 1) - from;
    const float *x[VR] = {0};
    for (size_t r = 0; r < here; r++) x[r] = scores + (from + r) * a->score_row;
    KERNEL_value(a, here, x, v, seen, inverse + from, y + (int64_t)from * s->y[2]);
  }
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const size_t queries = (size_t)a->s->queries;
  float *scratch = a->scratch + thread * a->scratch_size;
  for (size_t i = begin; i < end; i++) {
    const size_t head = i / a->blocks, first = moecc_cut(queries, a->blocks, i % a->blocks);
    if (i == begin || i % a->blocks == 0) KERNEL_pack(a, head, scratch);
    KERNEL_queries(a, head, first, moecc_cut(queries, a->blocks, i % a->blocks + 1) - first, scratch);
  }
}

void KERNEL(const moecc_pool *pool, const float *q, const float *k, const float *v, const float *mask,
            const float *factor, float *y, float *scratch, const int64_t *shape, size_t block, size_t score_row,
            size_t scratch_size, float scale, float least) {
  KERNEL_shape s;
  memcpy(&s, shape, sizeof s);
  const size_t keys = (size_t)s.keys, width = (size_t)s.width, blocks = ((size_t)s.queries + block - 1) / block;
  const size_t key_size = (keys + NR - 1) / NR * NR * (size_t)s.depth,
               value_size = s.in_place ? 0 : (width + VN - 1) / VN * VN * keys;
  const KERNEL_args a = {q,      k,         v,        mask,       factor,       y,     scratch, &s, block,
                         blocks, score_row, key_size, value_size, scratch_size, scale, least};
  moecc_for(pool, KERNEL_part, &a, (size_t)(s.batches * s.heads) * blocks);
}
