/* moecc.Attention: one kernel for all heads; operands are read through their strides as long as rows are contiguous.
 * The output lies [B, T, H, V], which is what the projection behind it wants. */
#include "gemm.h"

#include <math.h>
#include <string.h>

static int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* How the kernel goes about it: tiles for q k' and for softmax times v, both with queries as rows, the queries that it
 * takes at a time, and where things lie in a thread's scratch. */
typedef struct {
  Tile score, value;
  int64_t block, score_row, scratch;
} Plan;

/* Cycles for all queries, `block` at a time. A tile costs its sums going in and out of registers, too. */
static double plan_cost(const Target *t, const Plan *plan, const int64_t *table, int64_t block) {
  const double start = 40; /* of a tile */
  int64_t queries = table[2], keys = table[3], depth = table[4], width = table[5];
  int64_t blocks = up(queries, block), rows = up(queries, blocks);
  double starts = (double)(up(rows, plan->score.mr) * up(keys, plan->score.nr) +
                           up(rows, plan->value.mr) * up(width, plan->value.nr));
  return (double)blocks * ((double)depth * gemm_cost(t, plan->score, rows, keys) +
                           (double)keys * gemm_cost(t, plan->value, rows, width) + start * starts);
}

enum { WAY = 4096 }; /* bytes after which the sets of L1 repeat */

/* Are the values read where they lie: rows of whole panels, which do not all begin in the same set of L1, and are near
 * enough to one another to stay in L2? For few queries it is quicker to pack them, which brings them near in one go. */
static bool in_place(const Target *t, const View *v, Tile tile, int64_t queries) {
  enum { FEW = 128 };
  int64_t row = v->stride[2] * 4;
  return queries >= FEW && v->dim[3] % tile.nr == 0 && v->stride[2] >= v->dim[3] && row % WAY != 0 &&
         v->dim[2] * row <= t->l2 / 2;
}

/* Scores of a block stay in most of L1 if they can; rows must not all begin in the same set of it. */
static Plan plan_attention(Program *p, const int64_t *table, const View *v) {
  const Target *t = p->target;
  int64_t queries = table[2], keys = table[3], depth = table[4], width = table[5];
  Plan plan = {.score = gemm_tile(p, "attention", queries, keys, depth),
               .value = gemm_tile_model(t, queries, width, INT64_MAX)};
  plan.score_row = round_up(keys, plan.score.nr);
  if (plan.score_row * 4 % WAY == 0) plan.score_row += round_up(16, t->lanes);
  int64_t most = t->l1 * 3 / 4 / (plan.score_row * 4);
  if (most < plan.score.mr) most = plan.score.mr;
  if (most > 64) most = 64;
  double least = -1;
  for (int64_t block = 1; block <= most; block++) {
    double cost = plan_cost(t, &plan, table, block);
    if (least >= 0 && cost >= least) continue;
    least = cost;
    plan.block = block;
  }
  int64_t values = in_place(t, v, plan.value, queries) ? 0 : round_up(width, plan.value.nr) * keys;
  int64_t packed = round_up(keys, plan.score.nr) * depth + values;
  plan.scratch = round_up(packed + plan.block * (plan.score_row + 3), 16);
  return plan;
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
  int64_t table[7 + 4 * 3 + 4 + 2 + 1] = {batches, heads, queries, keys, depth, width, node_int(n, "causal", 0)};
  Plan plan = plan_attention(p, table, &v);
  const char *mr = ctx_format(p->ctx, "%d", plan.score.mr), *nr = ctx_format(p->ctx, "%d", plan.score.nr);
  const char *vr = ctx_format(p->ctx, "%d", plan.value.mr), *vn = ctx_format(p->ctx, "%d", plan.value.nr);
  const Hole holes[] = {{"MR", mr}, {"NR", nr}, {"VR", vr}, {"VN", vn}, {0}};
  const char *name = ctx_format(p->ctx, "attention_f32_%sx%s_%sx%s", mr, nr, vr, vn);
  Step *s = low_call(p, n, low_kernel(p, "attention", name, holes));
  s->macs = batches * heads * queries * keys * (depth + width);
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
  if (n->n_own > 4 && n->in[4]) {
    View factor = low_view(p, n->in[4]);
    factor = view_broadcast(&factor, 4, (int64_t[]){batches, heads, 1, 1});
    memcpy(table + 23, factor.stride, 2 * sizeof *table);
    low_read(s, &factor);
  } else {
    low_null(s, DT_F32);
  }
  table[25] = in_place(p->target, &v, plan.value, queries);
  low_write(s, &y);
  low_scratch_each(s, DT_F32, plan.scratch * 4);
  low_table(s, table, sizeof table / sizeof *table);
  low_size(s, plan.block);
  low_size(s, plan.score_row);
  low_size(s, plan.scratch);
  low_float(s, node_float(n, "scale", 1 / sqrt((double)depth)));
  low_float(s, node_float(n, "cosine", 0));
}
