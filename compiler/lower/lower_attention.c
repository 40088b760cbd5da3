/* moecc.Attention: one kernel for all heads; operands are read through their strides as long as rows are contiguous.
 * The output lies [B, T, H, V], which is what the projection behind it wants. */
#include "gemm.h"

#include <math.h>
#include <string.h>

/* The tile for q k' and softmax v together: both have the queries as rows, keys or the head's width as columns. */
static Tile attention_tile(const Target *t, int64_t queries, int64_t keys, int64_t width) {
  return gemm_tile(t, queries, width < keys ? width : keys);
}

static void put_strides(int64_t *table, const View *w) { memcpy(table, w->stride, 3 * sizeof *table); }

void lower_attention(Program *p, Node *n) {
  static const int heads_inside[] = {0, 2, 1, 3};
  if (gemm_unfused(p, n, lower_attention)) return;
  View q = low_last_dense(p, n->in[0]), k = low_last_dense(p, n->in[1]), v = low_last_dense(p, n->in[2]);
  View y = low_output(p, n->out[0], heads_inside);
  int64_t batches = q.dim[0], heads = q.dim[1], queries = q.dim[2], depth = q.dim[3], keys = k.dim[2], width = v.dim[3];
  if (batches * heads * queries * width == 0) return;
  if (keys == 0 || depth == 0) ctx_fail(p->ctx, n, "attention over no keys, or keys of no elements, is not supported");
  const int64_t head[] = {batches, heads};
  k = view_broadcast(&k, 4, (int64_t[]){head[0], head[1], keys, depth});
  v = view_broadcast(&v, 4, (int64_t[]){head[0], head[1], keys, width});
  Tile tile = attention_tile(p->target, queries, keys, width);
  const char *mr = ctx_format(p->ctx, "%d", tile.mr), *nr = ctx_format(p->ctx, "%d", tile.nr);
  const Hole holes[] = {{"MR", mr}, {"NR", nr}, {0}};
  Step *s = low_call(p, n, low_kernel(p, "attention", ctx_format(p->ctx, "attention_f32_%sx%s", mr, nr), holes));
  s->macs = batches * heads * queries * keys * (depth + width);
  int64_t table[7 + 4 * 3 + 4] = {batches, heads, queries, keys, depth, width, node_int(n, "causal", 0)};
  put_strides(table + 7, &q);
  put_strides(table + 10, &k);
  put_strides(table + 13, &v);
  put_strides(table + 16, &y);
  low_read(s, &q);
  low_read(s, &k);
  low_read(s, &v);
  if (n->n_own > 3 && n->in[3]) {
    View mask = low_view(p, n->in[3]);
    mask = view_broadcast(&mask, 4, (int64_t[]){batches, heads, queries, keys});
    memcpy(table + 19, mask.stride, 4 * sizeof *table);
    low_read(s, &mask);
  } else {
    low_null(s, DT_F32);
  }
  low_write(s, &y);
  int64_t row = round_up(keys, tile.nr), packed = row * depth + round_up(width, tile.nr) * keys;
  low_scratch(s, DT_F32, batches * heads * packed * 4);
  low_scratch_each(s, DT_F32, tile.mr * row * 4);
  low_table(s, table, sizeof table / sizeof *table);
  low_float(s, node_float(n, "scale", 1 / sqrt((double)depth)));
}
