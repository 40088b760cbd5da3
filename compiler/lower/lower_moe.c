/* moecc.Moe: route (scores to the k chosen experts and weights of each token), queue (tokens by expert, one counting
 * sort), then the expert loop, whose body is two or three matrix multiplications on an expert's queue: fc1 reads
 * tokens' rows in place, fc2 adds to them. Experts ascend, so that a token's sum has one order.
 *
 * All of an expert's weights are one unit, or, if that would be too large, pieces of its layers are. Token-major, the loop runs over the (token, expert) pairs as the router
 * wrote them: a token's experts ascend there too, so the bits are the same. The loop's queue_begin is then the expert
 * of each pair.
 */
#include "expr.h"
#include "gemm.h"

#include <math.h>
#include <string.h>

enum { FC1 = 2, FC2 = 4, FC3 = 6 }; /* inputs of the node; biases behind them */

typedef struct {
  Program *p;
  Node *n;
  int64_t tokens, hidden, experts, inner, k;
  View x, y, token, weight, queue, inside;
  bool whole; /* an expert is one unit */
} Moe;

static Value *input(const Node *n, int i) { return i < n->n_own ? n->in[i] : NULL; }

static const Tensor *expert_tensor(Moe *m, int i) {
  Value *v = input(m->n, i);
  if (v && !v->tensor) ctx_fail(m->p->ctx, m->n, "the experts' weights must be constant: \"%s\" is computed", v->name);
  return v ? v->tensor : NULL;
}

/* ---- routing ----------------------------------------------------------------------------------------------------- */

static int64_t gate_number(Moe *m) {
  static const char *const names[] = {"softmax", "topk_softmax", "none"};
  const char *gate = node_string(m->n, "gate", "softmax");
  for (int i = 0; i < 3; i++)
    if (strcmp(gate, names[i]) == 0) return i;
  ctx_fail(m->p->ctx, m->n, "gate \"%s\" does not exist: softmax, topk_softmax and none do", gate);
}

/* Of experts, by token: the chosen ones, their weights, and the token once more. */
typedef struct {
  View expert, weight, token;
} Choice;

/* The scores of experts first … first + count - 1. sums: NULL, if these are all. */
static void route_some(Moe *m, const Choice *c, const View *scores, const View *sums, int64_t first, int64_t count) {
  Program *p = m->p;
  Step *s = low_call(p, m->n, low_kernel(p, "moe_route", "moe_route_f32", NULL));
  low_read(s, scores);
  gemm_result(s, &c->weight, first > 0);
  gemm_result(s, &c->expert, first > 0);
  gemm_result(s, &c->token, first > 0);
  if (sums)
    gemm_result(s, sums, first > 0);
  else
    low_null(s, DT_F32);
  low_flags(s);
  low_size(s, scores->stride[0]);
  low_size(s, m->tokens);
  low_size(s, first);
  low_size(s, count);
  low_size(s, m->experts);
  low_size(s, m->k);
  low_size(s, gate_number(m));
  low_size(s, node_int(m->n, "normalize", 0) != 0);
}

/* How many experts' scores are computed at a time: as many as take no more memory than an expert's hidden rows, which
 * come later. */
static int64_t scores_at_once(const Node *n) {
  enum { FEWEST = 64 };
  int64_t inner = n->in[FC1]->shape.dim[1].n / FEWEST * FEWEST;
  return inner > FEWEST ? inner : FEWEST;
}

bool moe_has_router(const Program *p, const Node *n) {
  const Value *scores = n->out[0];
  if (p->folding || !value_single_use(scores)) return false;
  const Use *use = &scores->uses[0];
  const Node *moe = use->node;
  if (moe->op != OP_MOE || use->input != 1 || moe->tasks != n->tasks || moe->expr) return false;
  return scores->shape.rank == 2 && scores->shape.dim[1].n > scores_at_once(moe) && matmul_can_part(n);
}

static Choice route(Moe *m) {
  Program *p = m->p;
  Choice c;
  c.expert = low_temp(p, "chosen", DT_U32, m->tokens * m->k);
  c.token = low_temp(p, "chosen_by", DT_U32, m->tokens * m->k);
  c.weight = low_temp(p, "gate", DT_F32, m->tokens * m->k);
  Node *router = m->n->in[1]->producer;
  if (!router || !moe_has_router(p, router)) {
    View scores = low_last_dense(p, m->n->in[1]);
    route_some(m, &c, &scores, NULL, 0, m->experts);
    return c;
  }
  int64_t piece = scores_at_once(m->n);
  View some = low_temp(p, "scores", DT_F32, m->tokens * piece), sums = low_temp(p, "gate_sum", DT_F32, m->tokens);
  for (int64_t first = 0; first < m->experts; first += piece) {
    const int64_t count = m->experts - first < piece ? m->experts - first : piece, dim[2] = {m->tokens, count};
    View scores = some;
    scores.rank = 2;
    memcpy(scores.dim, dim, sizeof dim);
    scores.stride[0] = count;
    scores.stride[1] = 1;
    matmul_part(p, router, first, &scores);
    route_some(m, &c, &scores, &sums, first, count);
  }
  return c;
}

static void queue(Moe *m, const View *expert, const View *weight) {
  Program *p = m->p;
  m->queue = low_temp(p, "queue_begin", DT_U32, m->experts + 1);
  m->token = low_temp(p, "queue", DT_U32, m->tokens * m->k);
  m->weight = low_temp(p, "queue_weight", DT_F32, m->tokens * m->k);
  Step *s = low_call(p, m->n, low_kernel(p, "moe_queue", "moe_queue", NULL));
  low_read(s, expert);
  low_read(s, weight);
  low_write(s, &m->queue);
  low_write(s, &m->token);
  low_write(s, &m->weight);
  low_size(s, m->tokens);
  low_size(s, m->experts);
  low_size(s, m->k);
}

/* ---- experts ----------------------------------------------------------------------------------------------------- */

/* A layer of all experts: of its n columns, each a sum of k, those from `first` on. */
typedef struct {
  int input; /* of the node: its weights, and behind them its bias */
  int64_t k, n, first, count;
} Columns;

static void write_bias(const UnitPart *part, int64_t expert, void *dst) {
  int64_t count = part->param[0], first = part->param[1] + expert * part->param[2];
  float *out = dst;
  for (int64_t i = 0; i < count; i++) out[i] = gemm_number(part->source, first + i);
}

/* The panels and the bias of some columns, as the next two arguments. */
static void expert_weights(Moe *m, Step *s, const Columns *l, Tile tile) {
  const Matrix all = {l->k, l->n, 1, l->k, 0, l->k * l->n};
  gemm_weight(m->p, s, expert_tensor(m, l->input), matrix_columns(all, l->first, l->count), tile);
  const Tensor *bias = expert_tensor(m, l->input + 1);
  const int64_t param[UNIT_PARAMS] = {l->count, l->first, l->n};
  if (bias)
    low_weight(m->p, s, DT_F32, l->count * 4, bias, write_bias, param, LAYOUT_FLOAT);
  else
    low_null(s, DT_F32);
}

/* Calls `step` for pieces of a layer's columns that units have room for; for all of them if the expert is one unit. */
static void in_pieces(Moe *m, Step *loop, Columns l, int nr, void (*step)(Moe *m, Step *loop, const Columns *l)) {
  int64_t piece = m->whole ? l.n : gemm_piece(m->p, l.n, nr, 4 * l.k + 4, 0);
  for (l.first = 0; l.first < l.n; l.first += piece) {
    l.count = l.n - l.first < piece ? l.n - l.first : piece;
    step(m, loop, &l);
  }
}

/* Does a unit have room for a whole expert? */
static bool fits_whole(const Moe *m, int nr) {
  enum { GAPS = 512 };
  int64_t room = m->p->unit_bytes - GAPS, layers = input(m->n, FC3) ? 2 : 1;
  int64_t in = round_up(m->inner, nr) * (m->hidden + 1), out = round_up(m->hidden, nr) * (m->inner + 1);
  return m->p->unit_bytes == 0 || 4 * (layers * in + out) <= room;
}

/* The number of rows that a queue has on average decides the tile. */
static int64_t expected_rows(const Moe *m) {
  int64_t rows = m->p->moe_token_major ? 1 : m->tokens * m->k / m->experts;
  return rows > 0 ? rows : 1;
}

/* The COMBINE hole of the layer that gives the hidden row (`times`: the one that multiplies it), and its name. */
static const char *combine(Moe *m, bool times, const char **name) {
  static const char *const plain[][2] = {{"relu", "vf_max(vf_zero(), sum)"},
                                         {"gelu", "vf_gelu(sum)"},
                                         {"gelu_tanh", "vf_gelu_tanh(sum)"},
                                         {"silu", "vf_silu(sum)"},
                                         {"identity", "sum"}};
  Ctx *c = m->p->ctx;
  const char *activation = node_string(m->n, "activation", "gelu"), *body = NULL;
  *name = times ? "times" : activation;
  double limit = node_float(m->n, "limit", INFINITY);
  const char *alpha = expr_number(c, DT_F32, node_float(m->n, "alpha", 1)), *high = expr_number(c, DT_F32, limit);
  if (strcmp(activation, "swiglu") == 0)
    body = times ? ctx_format(c,
                              "  const vf up = vf_max(vf_set1(%s), vf_min(vf_set1(%s), sum));\n"
                              "  return before * (up + vf_set1(%s));\n",
                              expr_number(c, DT_F32, -limit), high, expr_number(c, DT_F32, node_float(m->n, "beta", 0)))
                 : ctx_format(c,
                              "  const vf gate = vf_min(vf_set1(%s), sum);\n  (void)before;\n"
                              "  return gate * vf_sigmoid(vf_set1(%s) * gate);\n",
                              high, alpha);
  else if (times)
    body = "  return sum * before;\n";
  for (size_t i = 0; !body && i < sizeof plain / sizeof *plain; i++)
    if (strcmp(activation, plain[i][0]) == 0) body = ctx_format(c, "  (void)before;\n  return %s;\n", plain[i][1]);
  if (!body) ctx_fail(c, m->n, "activation \"%s\" is not known", activation);
  return ctx_format(c, "static inline vf COMBINE(vf sum, vf before)\n{\n%s}\n", body);
}

static Tile first_tile(const Moe *m) { return gemm_tile(m->p, "moe_expert_in", expected_rows(m), m->inner, m->hidden); }

static Tile last_tile(const Moe *m) { return gemm_tile(m->p, "moe_expert_out", expected_rows(m), m->hidden, m->inner); }

static void first_layer(Moe *m, Step *loop, const Columns *l) {
  Program *p = m->p;
  Ctx *c = p->ctx;
  Tile tile = first_tile(m);
  bool times = l->input == FC3;
  const char *mr = ctx_format(c, "%d", tile.mr), *nr = ctx_format(c, "%d", tile.nr), *name;
  const char *function = combine(m, times, &name);
  const Hole holes[] = {{"MR", mr}, {"NR", nr}, {"COMBINE", function}, {0}};
  Kernel *kernel = low_kernel(p, "moe_expert_in", ctx_format(c, "moe_expert_in_f32_%sx%s_%s", mr, nr, name), holes);
  Step *s = low_body_call(p, loop, kernel, m->whole);
  View inside = m->inside;
  inside.offset += l->first;
  inside.dim[0] = m->tokens * l->count;
  s->macs = m->tokens * m->k * m->hidden * l->count;
  low_read(s, &m->x);
  expert_weights(m, s, l, tile);
  low_read(s, &m->token);
  gemm_result(s, &inside, times || l->first > 0);
  low_expert(s, EXPERT_BEGIN);
  low_expert(s, EXPERT_COUNT);
  low_size(s, m->x.stride[0]);
  low_size(s, m->hidden);
  low_size(s, l->count);
  low_size(s, m->inner);
  low_size(s, gemm_block(p->target, tile, m->tokens, m->hidden, l->count));
}

static void last_layer(Moe *m, Step *loop, const Columns *l) {
  Program *p = m->p;
  Ctx *c = p->ctx;
  Tile tile = last_tile(m);
  const char *mr = ctx_format(c, "%d", tile.mr), *nr = ctx_format(c, "%d", tile.nr);
  const Hole holes[] = {{"MR", mr}, {"NR", nr}, {0}};
  Kernel *kernel = low_kernel(p, "moe_expert_out", ctx_format(c, "moe_expert_out_f32_%sx%s", mr, nr), holes);
  Step *s = low_body_call(p, loop, kernel, m->whole);
  View y = view_slice(&m->y, m->y.rank - 1, l->first, l->count, 1);
  s->macs = m->tokens * m->k * l->count * m->inner;
  low_read(s, &m->inside);
  expert_weights(m, s, l, tile);
  low_read(s, &m->token);
  low_read(s, &m->weight);
  low_update(s, &y);
  low_expert(s, EXPERT_BEGIN);
  low_expert(s, EXPERT_COUNT);
  low_size(s, m->inner);
  low_size(s, l->count);
  low_size(s, m->hidden);
  low_size(s, gemm_block(p->target, tile, m->tokens, m->inner, l->count));
}

void lower_moe(Program *p, Node *n) {
  if (gemm_unfused(p, n, lower_moe)) return;
  const Shape *w = &n->in[FC1]->shape;
  Moe m = {
      .p = p, .n = n, .k = node_int(n, "k", 1), .experts = w->dim[0].n, .inner = w->dim[1].n, .hidden = w->dim[2].n};
  m.tokens = n->in[0]->shape.dim[0].n;
  m.y = low_output(p, n->out[0], NULL);
  if (m.tokens * m.hidden == 0) return;
  m.x = low_last_dense(p, n->in[0]);
  const Choice c = route(&m);
  if (p->moe_token_major) {
    m.queue = c.expert;
    m.token = c.token;
    m.weight = c.weight;
  } else {
    queue(&m, &c.expert, &c.weight);
  }
  m.inside = low_temp(p, "hidden", DT_F32, m.tokens * m.inner);
  low_fill(p, n, 0, &m.y);
  Step *loop = low_expert_loop(p, n, m.queue.storage, m.experts, p->moe_token_major);
  loop->queue_entries = m.tokens * m.k;
  const Tile in = first_tile(&m), out = last_tile(&m);
  m.whole = fits_whole(&m, in.nr > out.nr ? in.nr : out.nr);
  in_pieces(&m, loop, (Columns){FC1, m.hidden, m.inner, 0, 0}, in.nr, first_layer);
  if (input(n, FC3)) in_pieces(&m, loop, (Columns){FC3, m.hidden, m.inner, 0, 0}, in.nr, first_layer);
  in_pieces(&m, loop, (Columns){FC2, m.inner, m.hidden, 0, 0}, out.nr, last_layer);
}
