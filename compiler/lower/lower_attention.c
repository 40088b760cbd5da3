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

/* Operands [batches, heads, positions, elements]; mask [batches, heads, queries, keys] and factor [batches, heads, 1, 1]
 * may be missing: rank 0. */
typedef struct {
  View q, k, v, y, mask, factor;
} Operands;

static Operands operands_of(Program *p, Node *n) {
  static const int heads_inside[] = {0, 2, 1, 3};
  Operands o = {.q = low_last_dense(p, n->in[0]), .k = low_last_dense(p, n->in[1]), .v = low_last_dense(p, n->in[2])};
  const int64_t *q = o.q.dim, keys = o.k.dim[2];
  o.y = low_output(p, n->out[0], heads_inside);
  o.k = view_broadcast(&o.k, 4, (int64_t[]){q[0], q[1], keys, q[3]});
  o.v = view_broadcast(&o.v, 4, (int64_t[]){q[0], q[1], keys, o.v.dim[3]});
  if (n->n_own > 3 && n->in[3]) {
    o.mask = low_view(p, n->in[3]);
    o.mask = view_broadcast(&o.mask, 4, (int64_t[]){q[0], q[1], q[2], keys});
  }
  if (n->n_own > 4 && n->in[4]) {
    o.factor = low_view(p, n->in[4]);
    o.factor = view_broadcast(&o.factor, 4, (int64_t[]){q[0], q[1], 1, 1});
  }
  return o;
}

static void put_strides(int64_t *table, const View *w, int n) { memcpy(table, w->stride, (size_t)n * sizeof *table); }

static void read_if_given(Step *s, const View *w, int64_t *table, int n) {
  if (!w->rank) {
    low_null(s, DT_F32);
    return;
  }
  put_strides(table, w, n);
  low_read(s, w);
}

static void add_call(Program *p, Node *n, const Operands *o, bool more) {
  const View *q = &o->q;
  int64_t depth = q->dim[3], keys = o->k.dim[2], width = o->v.dim[3];
  int64_t table[7 + 4 * 3 + 4 + 2 + 1] = {
      q->dim[0], q->dim[1], q->dim[2], keys, depth, width, node_int(n, "causal", 0)};
  Plan plan = plan_attention(p, table, &o->v);
  const char *mr = ctx_format(p->ctx, "%d", plan.score.mr), *nr = ctx_format(p->ctx, "%d", plan.score.nr);
  const char *vr = ctx_format(p->ctx, "%d", plan.value.mr), *vn = ctx_format(p->ctx, "%d", plan.value.nr);
  const Hole holes[] = {{"MR", mr}, {"NR", nr}, {"VR", vr}, {"VN", vn}, {0}};
  const char *name = ctx_format(p->ctx, "attention_f32_%sx%s_%sx%s", mr, nr, vr, vn);
  Step *s = low_call(p, n, low_kernel(p, "attention", name, holes));
  s->macs = q->dim[0] * q->dim[1] * q->dim[2] * keys * (depth + width);
  put_strides(table + 7, q, 3);
  put_strides(table + 10, &o->k, 3);
  put_strides(table + 13, &o->v, 3);
  put_strides(table + 16, &o->y, 3);
  low_read(s, q);
  low_read(s, &o->k);
  low_read(s, &o->v);
  read_if_given(s, &o->mask, table + 19, 4);
  read_if_given(s, &o->factor, table + 23, 2);
  table[25] = in_place(p->target, &o->v, plan.value, q->dim[2]);
  gemm_result(s, &o->y, more);
  low_scratch_each(s, DT_F32, plan.scratch * 4);
  low_table(s, table, sizeof table / sizeof *table);
  low_size(s, plan.block);
  low_size(s, plan.score_row);
  low_size(s, plan.scratch);
  low_float(s, node_float(n, "scale", 1 / sqrt((double)depth)));
  low_float(s, node_float(n, "cosine", 0));
}

/* Bytes of a constant mask for each index of a dimension. */
static int64_t mask_bytes(const View *mask, int d) {
  int64_t elements = 1;
  for (int i = 0; i < mask->rank; i++) elements *= i == d || !mask->stride[i] ? 1 : mask->dim[i];
  return mask->constant && mask->stride[d] ? 4 * elements : 0;
}

static View slice_if_given(const View *w, int d, int64_t at, int64_t count) {
  return w->rank ? view_slice(w, d, at, count, 1) : *w;
}

static Operands slice(const Operands *o, int d, int64_t at, int64_t count) {
  return (Operands){view_slice(&o->q, d, at, count, 1),     view_slice(&o->k, d, at, count, 1),
                    view_slice(&o->v, d, at, count, 1),     view_slice(&o->y, d, at, count, 1),
                    slice_if_given(&o->mask, d, at, count), slice_if_given(&o->factor, d, at, count)};
}

/* One call, or, where a weight unit has no room for a constant mask, calls for pieces of the batches or else heads: of
 * what is outermost in it. */
void lower_attention(Program *p, Node *n) {
  if (gemm_unfused(p, n, lower_attention)) return;
  const Operands o = operands_of(p, n);
  const int64_t *q = o.q.dim;
  if (q[0] * q[1] * q[2] * o.v.dim[3] == 0) return;
  if (o.k.dim[2] == 0 || q[3] == 0)
    ctx_fail(p->ctx, n, "attention over no keys, or keys of no elements, is not supported");
  int d = mask_bytes(&o.mask, 0) > 0 && q[0] > 1 ? 0 : 1;
  int64_t each = mask_bytes(&o.mask, d), piece = each ? gemm_piece(p, q[d], 1, each, 0) : q[d];
  if (piece == q[d]) {
    add_call(p, n, &o, false);
    return;
  }
  for (int64_t at = 0; at < q[d]; at += piece) {
    const Operands part = slice(&o, d, at, q[d] - at < piece ? q[d] - at : piece);
    add_call(p, n, &part, at > 0);
  }
}
