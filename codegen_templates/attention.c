/* y[b][h][t] = softmax over s of (scale * q[b][h][t] . k[b][h][s] + mask[b][h][t][s]) times v[b][h][s], float32.
 * q, k, v, y: rows of contiguous elements (depth of q and k, width of v and y), their strides in the table; mask: any
 * strides, or NULL. causal: query t sees keys 0 ... t only. Any sizes >= 1.
 * First k (transposed) and v of every head are packed into panels of NR columns; then each work item takes at most MR
 * queries of a head against all keys. The sum of the exponentials divides at the end. Scratch of a thread: MR rows of
 * scores, score_row apart.
 */
#include "defaults.h"
/* holes */
#define KERNEL attention_f32
#define MR     6
#define NR     16
/* end holes */

/* What the table `shape` holds: extents, then strides per batch, head and position. */
typedef struct {
  int64_t batches, heads, queries, keys, depth, width, causal;
  int64_t q[3], k[3], v[3], y[3], mask[4];
} KERNEL_shape;

typedef struct {
  const float *q, *k, *v, *mask;
  float *y, *packed, *scratch;
  const KERNEL_shape *s;
  size_t score_row, head_size, key_size, blocks;
  float scale;
} KERNEL_args;

static void KERNEL_tile(size_t rows, const float *const *x, size_t length, const float *w, float *out, size_t out_row) {
  moecc_tile(MR, NR / VF_LANES, rows, x, 1, length, w, NR, w, out, out_row);
}

/* Row j of v into its panels, which lie keys rows apart. */
static void KERNEL_pack_value(const float *v, size_t width, size_t keys, float *panel) {
  for (size_t from = 0; from < width; from += NR, panel += keys * NR)
    for (size_t c = 0; c < NR; c += VF_LANES) {
      size_t left = from + c < width ? width - from - c : 0;
      vf_store(panel + c, left >= VF_LANES ? vf_load(v + from + c) : vf_load_some(v + from + c, left));
    }
}

/* Rows of k as columns of panels; of v as they are. Both are filled up with zeros. */
static void KERNEL_pack(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const KERNEL_shape *s = a->s;
  const size_t depth = (size_t)s->depth, width = (size_t)s->width, keys = (size_t)s->keys;
  (void)thread;
  for (size_t i = begin; i < end; i++) {
    int64_t b = (int64_t)i / s->heads, h = (int64_t)i % s->heads;
    const float *k = a->k + b * s->k[0] + h * s->k[1], *v = a->v + b * s->v[0] + h * s->v[1];
    float *keyed = a->packed + i * a->head_size, *valued = keyed + a->key_size;
    for (size_t j = 0; j < a->score_row; j++) {
      float *column = keyed + j / NR * depth * NR + j % NR;
      for (size_t d = 0; d < depth; d++) column[d * NR] = j < keys ? k[(int64_t)j * s->k[2] + (int64_t)d] : 0.0f;
    }
    for (size_t j = 0; j < keys; j++, v += s->v[2]) KERNEL_pack_value(v, width, keys, valued + j * NR);
  }
}

static vf KERNEL_score(const KERNEL_args *a, const float *x, const float *mask, size_t j, size_t lanes) {
  const vf scaled = vf_load(x + j) * vf_set1(a->scale);
  if (!mask) return scaled;
  const int64_t step = a->s->mask[3];
  if (step != 1) return scaled + vf_load_step_some(mask + (int64_t)j * step, step, lanes);
  return scaled + (lanes == VF_LANES ? vf_load(mask + j) : vf_load_some(mask + j, lanes));
}

/* Scores become exp(score - largest), 0 from `keys` up to `all`; returns 1 / sum. */
static float KERNEL_softmax(const KERNEL_args *a, float *x, const float *mask, size_t keys, size_t all) {
  const vf lowest = vf_set1(-INFINITY);
  vf most = lowest, sum = vf_zero();
  size_t j = 0;
  for (; j + VF_LANES <= keys; j += VF_LANES) {
    const vf score = KERNEL_score(a, x, mask, j, VF_LANES);
    vf_store(x + j, score);
    most = vf_max(most, score);
  }
  if (j < keys) {
    const vf inside = vf_set1((float)(keys - j)), score = KERNEL_score(a, x, mask, j, keys - j);
    const vf kept = vf_select(vf_iota() < inside, score, lowest);
    vf_store(x + j, kept);
    most = vf_max(most, kept);
  }
  const vf largest = vf_set1(vf_hmax(most));
  for (j = 0; j < keys; j += VF_LANES) {
    const vf e = vf_exp_neg(vf_load(x + j) - largest);
    vf_store(x + j, e);
    sum = sum + e;
  }
  for (; j < all; j += VF_LANES) vf_store(x + j, vf_zero());
  return 1.0f / vf_sum(sum);
}

/* Queries first … first + rows - 1 of head i. */
static void KERNEL_queries(const KERNEL_args *a, size_t i, size_t first, size_t rows, float *scores) {
  const KERNEL_shape *s = a->s;
  const size_t depth = (size_t)s->depth, width = (size_t)s->width, keys = (size_t)s->keys;
  const size_t seen = s->causal && first + rows < keys ? first + rows : keys;
  const int64_t b = (int64_t)i / s->heads, h = (int64_t)i % s->heads;
  const float *k = a->packed + i * a->head_size, *v = k + a->key_size, *x[MR];
  float inverse[MR], sum[MR * NR];
  for (size_t r = 0; r < rows; r++) x[r] = a->q + b * s->q[0] + h * s->q[1] + (int64_t)(first + r) * s->q[2];
  for (size_t j = 0; j < seen; j += NR) KERNEL_tile(rows, x, depth, k + j * depth, scores + j, a->score_row);
  for (size_t r = 0; r < rows; r++) {
    const float *mask = a->mask;
    if (mask) mask += b * s->mask[0] + h * s->mask[1] + (int64_t)(first + r) * s->mask[2];
    x[r] = scores + r * a->score_row;
    inverse[r] = KERNEL_softmax(a, scores + r * a->score_row, mask,
                                s->causal && first + r + 1 < seen ? first + r + 1 : seen, seen);
  }
  for (size_t from = 0; from < width; from += NR) {
    size_t columns = width - from < NR ? width - from : NR;
    KERNEL_tile(rows, x, seen, v + from * keys, sum, NR);
    for (size_t r = 0; r < rows; r++) {
      float *y = a->y + b * s->y[0] + h * s->y[1] + (int64_t)(first + r) * s->y[2] + (int64_t)from;
      const vf by = vf_set1(inverse[r]);
      size_t c = 0;
      for (; c + VF_LANES <= columns; c += VF_LANES) vf_store(y + c, vf_load(sum + r * NR + c) * by);
      if (c < columns) vf_store_some(y + c, vf_load(sum + r * NR + c) * by, columns - c);
    }
  }
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const size_t queries = (size_t)a->s->queries;
  for (size_t i = begin; i < end; i++) {
    size_t block = i % a->blocks, first = moecc_cut(queries, a->blocks, block);
    size_t rows = moecc_cut(queries, a->blocks, block + 1) - first;
    KERNEL_queries(a, i / a->blocks, first, rows, a->scratch + thread * MR * a->score_row);
  }
}

void KERNEL(const moecc_pool *pool, const float *q, const float *k, const float *v, const float *mask, float *y,
            float *packed, float *scratch, const int64_t *shape, float scale) {
  KERNEL_shape s;
  memcpy(&s, shape, sizeof s);
  const size_t keys = (size_t)s.keys, panels = ((size_t)s.width + NR - 1) / NR, heads = (size_t)(s.batches * s.heads);
  const size_t score_row = (keys + NR - 1) / NR * NR, key_size = score_row * (size_t)s.depth;
  const size_t blocks = ((size_t)s.queries + MR - 1) / MR;
  const KERNEL_args a = {q,        k,      v,    mask, y, packed, scratch, &s, score_row, key_size + panels * NR * keys,
                         key_size, blocks, scale};
  moecc_for(pool, KERNEL_pack, &a, heads);
  moecc_for(pool, KERNEL_part, &a, heads * blocks);
}
