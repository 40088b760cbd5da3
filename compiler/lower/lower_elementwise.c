/* Elementwise operators and chains of them (moecc.Elementwise): one step whatever the number of operands.
 *
 * A single operator is an expression of one operator step (Max, Min, Sum and Mean of many operands: a chain). The
 * result is dense, in the memory order of the largest operand, so that channels-last tensors stay so. All float: the
 * vector template, operands that are neither contiguous nor constant along the innermost loop being made so; else the
 * scalar one.
 */
#include "expr.h"
#include "gemm.h"

/* ---- the expression ---------------------------------------------------------------------------------------------- */

static int add_step(Ctx *c, Expr *e, ExprStep s) {
  e->step = ctx_grow(c, e->step, e->n, &e->cap, sizeof *e->step);
  e->step[e->n] = s;
  return (int)e->n++;
}

static int add_op(Ctx *c, Expr *e, const Node *op, int a, int b, int d) {
  return add_step(c, e, (ExprStep){.kind = EX_OP, .op = op, .arg = {a, b, d}});
}

static Node *detached(Ctx *c, const Node *like, Op op) {
  Node *n = ctx_alloc(c, sizeof *n);
  *n = (Node){.op = op, .name = like->name, .scope = "", .op_type = op_info(op)->name, .graph = like->graph};
  n->n_in = n->n_own = 2; /* the binary form of Max, Min and Sum */
  return n;
}

/* The operator that a chain over many operands repeats; NULL: n has a fixed number of operands. */
static const Node *chain_operator(Ctx *c, const Node *n) {
  bool chain = n->op == OP_MAX || n->op == OP_MIN || n->op == OP_SUM || n->op == OP_MEAN;
  return chain ? detached(c, n, n->op == OP_MEAN ? OP_SUM : n->op) : NULL;
}

/* A node's own operator as an expression; the expression fused to it, if any, goes on from there. */
static Expr *own_expression(Ctx *c, const Node *n) {
  Expr *e = ctx_alloc(c, sizeof *e);
  e->dtype = n->in[0]->dtype;
  if (n->op == OP_WHERE) e->dtype = n->in[1]->dtype;
  const Node *chain = chain_operator(c, n);
  int own = n->expr ? n->n_own : n->n_in, arg[3] = {-1, -1, -1}, result = -1;
  for (int i = 0; i < own; i++) {
    if (n->in[i] == NULL) continue;
    int x = add_step(c, e, (ExprStep){.kind = EX_INPUT, .input = i});
    if (chain)
      result = result < 0 ? x : add_op(c, e, chain, result, x, -1);
    else if (i < 3)
      arg[i] = x;
  }
  if (!chain) result = add_op(c, e, n, arg[0], arg[1], arg[2]);
  if (n->op == OP_MEAN && own > 1) {
    int count = add_step(c, e, (ExprStep){.kind = EX_NUMBER, .number = own});
    result = add_op(c, e, detached(c, n, OP_DIV), result, count, -1);
  }
  if (n->expr == NULL) return e;
  int *to = ctx_array(c, n->expr->n, sizeof *to);
  for (size_t i = 0; i < n->expr->n; i++) {
    ExprStep s = n->expr->step[i];
    for (int k = 0; k < 3 && s.kind == EX_OP; k++)
      if (s.arg[k] >= 0) s.arg[k] = to[s.arg[k]];
    to[i] = s.kind == EX_ACC ? result : add_step(c, e, s);
  }
  return e;
}

/* ---- operands ---------------------------------------------------------------------------------------------------- */

typedef struct {
  const Expr *expr;
  bool vector;
  bool per_channel;      /* operands from the second on are vectors along axis 1 */
  int n;                 /* operands */
  int input[LOOP_VIEWS]; /* which of the node's */
  View view[LOOP_VIEWS]; /* broadcast to the result's shape */
  ReadKind kind[LOOP_VIEWS];
  int *slot;
  const char **literal; /* by input: constants of one element stand in the text */
  int rank;
  int64_t dim[MAX_RANK];
  int order[MAX_RANK];
} Elementwise;

static bool all_constant(const Node *n) {
  for (int i = 0; i < n->n_in; i++)
    if (n->in[i] != NULL && n->in[i]->tensor == NULL) return false;
  return true;
}

/* A view of [C] as [C, 1, 1, …], which broadcasts along the channels of `rank` dimensions. */
static View along_channels(const View *w, int rank) {
  View out = *w;
  out.rank = rank - 1;
  for (int i = 1; i < out.rank; i++) {
    out.dim[i] = 1;
    out.stride[i] = 0;
  }
  return out;
}

static void find_operands(Program *p, Node *n, Elementwise *w) {
  Ctx *c = p->ctx;
  bool inline_numbers = !all_constant(n);
  for (size_t i = 0; i < w->expr->n; i++) {
    const ExprStep *s = &w->expr->step[i];
    double v;
    if (s->kind != EX_INPUT || w->slot[s->input] >= 0 || w->literal[s->input] != NULL) continue;
    Value *x = n->in[s->input];
    if (inline_numbers && x->dtype != DT_F16 && x->dtype != DT_BF16 && value_one_number(x, &v)) {
      w->literal[s->input] = expr_number(c, x->dtype, v);
      continue;
    }
    if (w->n == LOOP_VIEWS) ctx_fail(c, n, "more than %d operands", LOOP_VIEWS);
    View own = low_view(p, x);
    if (w->per_channel && s->input > 0 && own.rank == 1) own = along_channels(&own, w->rank);
    w->slot[s->input] = w->n;
    w->input[w->n] = s->input;
    w->view[w->n++] = view_broadcast(&own, w->rank, w->dim);
  }
}

/* The memory order of the largest operand, one that is not broadcast or constant if possible. */
static void find_order(Elementwise *w) {
  int64_t best = -1;
  for (int i = 0; i < w->rank; i++) w->order[i] = i;
  for (int k = 0; k < w->n; k++) {
    const View *v = &w->view[k];
    int64_t elements = 1;
    for (int i = 0; i < v->rank; i++)
      if (v->stride[i] != 0) elements *= v->dim[i];
    elements = 2 * elements - (v->constant != NULL);
    if (elements <= best) continue;
    best = elements;
    view_order(v, w->order);
  }
}

/* The loops over all operands; in the vector case operands of another step along the innermost loop are copied first.
 */
static Loops operand_loops(Program *p, Node *n, Elementwise *w) {
  const View *view[LOOP_VIEWS];
  for (int k = 0; k < w->n; k++) view[k] = &w->view[k];
  Loops l = loops_of(w->rank, w->dim, w->order, w->n, view);
  bool copied = false;
  for (int k = 0; k < w->n; k++) {
    int64_t step = l.rank > 0 ? l.stride[k][l.rank - 1] : 0;
    w->kind[k] = step == 0 ? READ_SAME : step == 1 ? READ_DENSE : READ_STRIDED;
    if (w->kind[k] != READ_STRIDED || !w->vector) continue;
    w->view[k] = low_dense(p, n, &w->view[k], w->order, false);
    copied = true;
  }
  return copied ? operand_loops(p, n, w) : l;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static void load_vector(Text *t, int k, ReadKind kind) {
  if (kind == READ_SAME)
    text_add(t, "  const vf x%d = vf_set1(*x[%d]);\n", k, k);
  else
    text_add(t, "  const vf x%d = lanes == VF_LANES ? vf_load(x[%d] + i) : vf_load_some(x[%d] + i, lanes);\n", k, k, k);
}

static void load_scalar(Text *t, int k, ReadKind kind, const char *type) {
  if (kind == READ_SAME)
    text_add(t, "  const %s x%d = *(const %s *)(const void *)x[%d];\n", type, k, type, k);
  else if (kind == READ_DENSE)
    text_add(t, "  const %s x%d = ((const %s *)(const void *)x[%d])[i];\n", type, k, type, k);
  else
    text_add(t, "  const %s x%d = ((const %s *)(const void *)x[%d])[(int64_t)i * step[%d]];\n", type, k, type, k, k);
}

static const char *element_function(Program *p, const Node *n, const Elementwise *w, DType result) {
  Text t = {.ctx = p->ctx};
  bool i_used = false, step_used = false;
  for (int k = 0; k < w->n; k++) {
    i_used |= w->kind[k] != READ_SAME;
    step_used |= w->kind[k] == READ_STRIDED;
  }
  if (w->vector)
    text_add(&t, "static inline vf ELEMENT(const float *const *x, size_t i, size_t lanes)\n{\n");
  else
    text_add(&t, "static inline %s ELEMENT(const char *const *x, const int64_t *step, size_t i)\n{\n", dtype_c(result));
  if (!i_used) text_add(&t, "  (void)i;\n");
  if (!i_used && w->vector) text_add(&t, "  (void)lanes;\n");
  if (!step_used && !w->vector) text_add(&t, "  (void)step;\n");
  for (int k = 0; k < w->n; k++) {
    if (w->vector)
      load_vector(&t, k, w->kind[k]);
    else
      load_scalar(&t, k, w->kind[k], dtype_c(w->view[k].dtype));
  }
  expr_body(&t, n, w->expr, w->vector, w->slot, w->literal);
  text_add(&t, "}\n");
  return t.text;
}

/* "mul_add_f32", with the operands' ways of access behind it unless all are contiguous: d dense, s the same, t strided.
 */
static const char *kernel_name(Program *p, const Node *n, const Elementwise *w, DType result) {
  Text t = {.ctx = p->ctx};
  text_add(&t, "%s", expr_name(p->ctx, n, w->expr));
  bool mixed = false, dense = true;
  for (int k = 0; k < w->n; k++) {
    mixed |= w->view[k].dtype != w->view[0].dtype;
    dense &= w->kind[k] == READ_DENSE;
  }
  for (int k = 0; k < (mixed ? w->n : 1); k++) text_add(&t, "_%s", dtype_short(w->view[k].dtype));
  if (mixed || result != w->view[0].dtype) text_add(&t, "_to_%s", dtype_short(result));
  if (!dense) text_add(&t, "_");
  for (int k = 0; k < w->n && !dense; k++) text_add(&t, "%c", "dst"[w->kind[k]]);
  return t.text;
}

static Kernel *elementwise_kernel(Program *p, const Node *n, const Elementwise *w, DType result) {
  Ctx *c = p->ctx;
  Text parameters = {.ctx = c}, pointers = {.ctx = c};
  for (int k = 0; k < w->n; k++) {
    const char *comma = k ? ", " : "";
    text_add(&parameters, "%sconst %s *x%d", comma, dtype_c(w->view[k].dtype), k);
    text_add(&pointers, w->vector ? "%sx%d" : "%s(const char *)x%d", comma, k);
  }
  const Hole holes[] = {{"OPERANDS", ctx_format(c, "%d", w->n)},
                        {"PARAMETERS", parameters.text},
                        {"POINTERS", pointers.text},
                        {"ELEMENT", element_function(p, n, w, result)},
                        {w->vector ? NULL : "T", dtype_c(result)},
                        {0}};
  return low_kernel(p, w->vector ? "elementwise_vf" : "elementwise_any", kernel_name(p, n, w, result), holes);
}

/* ---- the step ---------------------------------------------------------------------------------------------------- */

static void add_call(Program *p, Node *n, const Elementwise *w, const Loops *l, const View *out, bool more) {
  int64_t scale[LOOP_VIEWS];
  for (int k = 0; k < w->n; k++) scale[k] = w->vector ? 1 : (int64_t)dtype_size(w->view[k].dtype);
  Rows r = loops_rows(l, scale);
  int64_t table[sizeof r.table / sizeof r.table[0] + LOOP_VIEWS];
  size_t n_table = 0;
  for (; n_table < r.n_table; n_table++) table[n_table] = r.table[n_table];
  for (int k = 0; k < w->n && !w->vector; k++) table[n_table++] = r.step[k];
  Step *s = low_call(p, n, elementwise_kernel(p, n, w, out->dtype));
  for (int k = 0; k < w->n; k++) low_read(s, &w->view[k]);
  gemm_result(s, out, more);
  low_size(s, r.rows);
  low_size(s, r.n);
  low_table(s, table, n_table);
}

/* Bytes of constants that vary along a dimension, for each of its indices. */
static int64_t constant_bytes(const Elementwise *w, int d) {
  int64_t bytes = 0;
  for (int k = 0; k < w->n; k++)
    if (w->view[k].constant && w->view[k].stride[d]) bytes += (int64_t)w->view[k].constant->bytes / w->dim[d];
  return bytes;
}

/* One call, or, where a weight unit has no room for all constants, calls for pieces of the outermost dimension. */
static void add_calls(Program *p, Node *n, const Elementwise *w, const Loops *l, const View *out) {
  int outer = 0;
  while (outer < w->rank && w->dim[w->order[outer]] == 1) outer++;
  int d = outer < w->rank ? w->order[outer] : 0;
  int64_t all = outer < w->rank ? w->dim[d] : 1, each = outer < w->rank ? constant_bytes(w, d) : 0;
  int64_t piece = each ? gemm_piece(p, all, 1, each, 0) : all;
  if (piece == all) {
    add_call(p, n, w, l, out, false);
    return;
  }
  for (int64_t at = 0; at < all; at += piece) {
    Elementwise part = *w;
    const View *view[LOOP_VIEWS];
    part.dim[d] = all - at < piece ? all - at : piece;
    for (int k = 0; k < w->n; k++) {
      part.view[k] = view_slice(&w->view[k], d, at, part.dim[d], 1);
      view[k] = &part.view[k];
    }
    const Loops loops = loops_of(w->rank, part.dim, w->order, w->n, view);
    const View here = view_slice(out, d, at, part.dim[d], 1);
    add_call(p, n, &part, &loops, &here, at > 0);
  }
}

static void lower_expression(Program *p, Node *n, const Expr *e, bool per_channel) {
  Ctx *c = p->ctx;
  Elementwise w = {.expr = e, .per_channel = per_channel, .rank = n->out[0]->shape.rank};
  value_dims(c, n, n->out[0], w.dim);
  w.vector = n->out[0]->dtype == DT_F32 && expr_is_vector(n, e);
  w.slot = ctx_array(c, (size_t)n->n_in, sizeof *w.slot);
  w.literal = ctx_array(c, (size_t)n->n_in, sizeof *w.literal);
  for (int i = 0; i < n->n_in; i++) w.slot[i] = -1;
  find_operands(p, n, &w);
  find_order(&w);
  Loops l = operand_loops(p, n, &w);
  View out = low_output(p, n->out[0], w.order);
  if (view_count(&out) > 0) add_calls(p, n, &w, &l, &out);
}

void lower_elementwise(Program *p, Node *n) {
  const Expr *e = n->op == OP_FUSED ? n->expr : own_expression(p->ctx, n);
  if (e == NULL || e->n == 0) ctx_fail(p->ctx, n, "an elementwise chain without an expression");
  lower_expression(p, n, e, false);
}

/* (x - mean) * (scale / sqrt(variance + epsilon)) + bias; the inputs are x, scale, bias, mean, variance. */
void low_batch_normalization(Program *p, Node *n) {
  no_expression(p, n);
  Ctx *c = p->ctx;
  Expr *e = ctx_alloc(c, sizeof *e);
  e->dtype = n->in[0]->dtype;
  int x[5];
  for (int i = 0; i < 5; i++) x[i] = add_step(c, e, (ExprStep){.kind = EX_INPUT, .input = i});
  int epsilon = add_step(c, e, (ExprStep){.kind = EX_NUMBER, .number = node_float(n, "epsilon", 1e-5)});
  int variance = add_op(c, e, detached(c, n, OP_ADD), x[4], epsilon, -1);
  int deviation = add_op(c, e, detached(c, n, OP_SQRT), variance, -1, -1);
  int factor = add_op(c, e, detached(c, n, OP_DIV), x[1], deviation, -1);
  int distance = add_op(c, e, detached(c, n, OP_SUB), x[0], x[3], -1);
  int scaled = add_op(c, e, detached(c, n, OP_MUL), distance, factor, -1);
  add_op(c, e, detached(c, n, OP_ADD), scaled, x[2], -1);
  lower_expression(p, n, e, true);
}
