/* Shapes, types and folding, as one walk over the graph.
 *
 * A node's result depends on its operands alone, and the order is topological: so when a node is reached, everything it
 * could learn from (shapes, symbolic contents, constants folded before it) is final, and one visit per node in order is
 * the whole worklist. What folding adds (an Identity for a graph output that is constant) goes to the end, ahead of the
 * walk.
 *
 * needs:  graph inputs of known type and shape; declared types and shapes of other values, where the model has them,
 * are in the values and are checked (so a pass that changes a value's type or shape must say so in the value) gives:
 * every value has a type, and a shape of numbers or bounded symbols; nodes of constants are folded; windows are
 *         explicit (see shapes_window.c); CastLike is Cast
 */
#include "recognise.h"
#include "shapes.h"

#include <inttypes.h>
#include <string.h>

enum { FOLD_BYTES = 64 << 20, VIEW_BYTES = 1 << 20, MOST_BOUND = 64 /* numbers that one would give by hand */ };

static const struct {
  bool (*infer)(Node *n);
  const char *types, *lowering;
} rules[OP_COUNT] = {
#define OP(id, name, domain, in_min, in_max, out_min, out_max, since, until, rule, lowering, types, doc)               \
  [OP_##id] = {infer_##rule, types, #lowering},
#include "ir/ops.def"
};

_Noreturn void shape_error(const Node *n, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  const char *text = ctx_vformat(n->graph->ctx, fmt, ap);
  va_end(ap);
  ctx_fail(n->graph->ctx, n, "%s", text);
}

/* ---- one node ---------------------------------------------------------------------------------------------------- */

static bool inputs_known(const Node *n) {
  for (int i = 0; i < n->n_in; i++) {
    if (!n->in[i]) {
      if (!op_may_lack(n->op, i)) shape_error(n, "operand %d is missing", i);
      continue;
    }
    if (n->in[i]->dtype == DT_NONE || n->in[i]->shape.rank < 0) return false;
    for (int d = 0; d < n->in[i]->shape.rank; d++)
      if (n->in[i]->shape.dim[d].n < 0) return false;
  }
  return true;
}

/* The element type that the operator is about. */
static DType main_type(const Node *n) {
  switch (n->op) {
  case OP_WHERE: return n->in[1]->dtype;
  case OP_ONE_HOT: return n->in[2]->dtype;
  case OP_CONSTANT_OF_SHAPE: return n->out[0]->dtype;
  default: return n->n_in ? n->in[0]->dtype : n->out[0]->dtype;
  }
}

static bool lists(const char *types, const char *name) {
  size_t len = strlen(name);
  for (const char *s = types; s; s = strchr(s, ',')) {
    s += strspn(s, ", ");
    if (strncmp(s, name, len) == 0 && (s[len] == 0 || s[len] == ',')) return true;
  }
  return false;
}

static void check_type(const Node *n) {
  DType t = main_type(n);
  if (!lists(rules[n->op].types, dtype_name(t)))
    ctx_report(n->graph->ctx, n, "is not supported for elements of type %s, only for %s", dtype_name(t),
               rules[n->op].types);
}

static bool declaration_holds(DType t, const Shape *declared, const Value *v) {
  if (t != DT_NONE && t != v->dtype) return false;
  if (declared->rank < 0) return true;
  if (declared->rank != v->shape.rank) return false;
  for (int i = 0; i < declared->rank; i++) {
    Dim d = declared->dim[i], found = v->shape.dim[i];
    if (!d.sym && d.n >= 0 && (found.sym ? d.n > found.n : d.n != found.n)) return false;
  }
  return true;
}

static void check_output(const Node *n, const Value *v, DType t, const Shape *declared) {
  Ctx *c = n->graph->ctx;
  int64_t bytes, count = shape_count(&v->shape);
  if (count < 0 || !size_mul(count, (int64_t)dtype_size(v->dtype), &bytes) || bytes > INT64_MAX / 4)
    shape_error(n, "the result \"%s\" %s is too large to count", v->name, shape_text(c, v->dtype, &v->shape));
  if (!declaration_holds(t, declared, v))
    shape_error(n, "\"%s\" is declared as %s but the operands make it %s", v->name, shape_text(c, t, declared),
                shape_text(c, v->dtype, &v->shape));
}

bool infer_node(Node *n) {
  if (!inputs_known(n)) return false;
  DType *type = ctx_array(n->graph->ctx, (size_t)n->n_out + 1, sizeof *type);
  Shape *declared = ctx_array(n->graph->ctx, (size_t)n->n_out + 1, sizeof *declared);
  for (int i = 0; i < n->n_out; i++) {
    if (!n->out[i]) continue;
    type[i] = n->out[i]->dtype;
    declared[i] = n->out[i]->shape;
  }
  if (!rules[n->op].infer(n)) return false;
  if (n->expr && n->op != OP_FUSED) n->out[0]->dtype = n->expr->dtype;
  check_type(n);
  for (int i = 0; i < n->n_out; i++)
    if (n->out[i]) check_output(n, n->out[i], type[i], &declared[i]);
  infer_content(n);
  return true;
}

/* ---- folding ----------------------------------------------------------------------------------------------------- */

static bool all_constant(const Node *n) {
  for (int i = 0; i < n->n_in; i++)
    if (n->in[i] && !n->in[i]->tensor) return false;
  return n->n_in > 0;
}

/* Half precision is only moved and converted until the pass `widen` has made arithmetic on it float32. */
static bool is_half_arithmetic(const Node *n) {
  static const char *const moving[] = {"view", "copy", "concat", "pad", "gather", "constant_of_shape"};
  bool half = false;
  for (int i = 0; i < n->n_in; i++) half |= n->in[i] && (n->in[i]->dtype == DT_F16 || n->in[i]->dtype == DT_BF16);
  for (size_t i = 0; i < sizeof moving / sizeof moving[0]; i++) half &= strcmp(rules[n->op].lowering, moving[i]) != 0;
  return half && n->op != OP_CAST;
}

static bool worth_folding(const Node *n) {
  bool grows = n->op == OP_EXPAND || n->op == OP_TILE || n->op == OP_CONSTANT_OF_SHAPE;
  for (int i = 0; i < n->n_out; i++) {
    const Value *v = n->out[i];
    if (!v) continue;
    int64_t bytes = shape_count(&v->shape) * (int64_t)dtype_size(v->dtype);
    if (!shape_known(&v->shape) || bytes > (grows ? VIEW_BYTES : FOLD_BYTES)) return false;
  }
  bool kept =
      n->op == OP_IDENTITY && n->out[0] && n->out[0]->is_output; /* a constant graph output must have a producer */
  return !kept && !is_half_arithmetic(n) && n->op != OP_MOE && n->op != OP_MS_MOE && n->op != OP_MS_QMOE;
}

/* Output i becomes a constant; a graph output keeps a producer, an Identity at the end of the graph. */
static void become_constant(Node *n, int i, Tensor *t) {
  Value *v = n->out[i];
  if (v->is_output) {
    value_replace(v, graph_constant(n->graph, v->name, t));
    return;
  }
  v->tensor = t;
  v->producer = NULL;
}

static void replace_node(Node *n, Tensor **results) {
  for (int i = 0; i < n->n_out; i++)
    if (n->out[i]) become_constant(n, i, results[i]);
  node_remove(n);
}

/* The content of a vector as a constant, if it is numbers throughout. */
static Tensor *known_content(const Value *v) {
  if (!v || !v->content) return NULL;
  for (int i = 0; i < v->n_content; i++)
    if (v->content[i].sym) return NULL;
  int64_t dims[MAX_RANK];
  for (int i = 0; i < v->shape.rank; i++) dims[i] = v->shape.dim[i].n;
  Tensor *t = tensor_new(v->graph->ctx, v->dtype, v->shape.rank, dims, NULL);
  for (int i = 0; i < v->n_content; i++) {
    if (v->dtype == DT_I32)
      ((int32_t *)tensor_writable(t))[i] = (int32_t)v->content[i].n;
    else
      ((int64_t *)tensor_writable(t))[i] = v->content[i].n;
  }
  return t;
}

/* True if the node is gone. */
static bool fold(Node *n) {
  Tensor *content = known_content(n->out[0]);
  Tensor **results = content ? &content : NULL;
  if (!results && all_constant(n) && worth_folding(n)) results = fold_node(n);
  if (results) replace_node(n, results);
  return results != NULL;
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

/* Marks in `seen` (by Value.id) what v is computed from. */
static void mark_sources(const Value *v, bool *seen) {
  seen[v->id] = true;
  for (const Node *n = v->producer; n; n = n->prev) {
    bool wanted = false;
    for (int i = 0; i < n->n_out; i++) wanted |= n->out[i] && seen[n->out[i]->id];
    for (int i = 0; i < n->n_in && wanted; i++)
      if (n->in[i] && !n->in[i]->tensor) seen[n->in[i]->id] = true;
  }
}

/* What would make the value v a constant: the graph inputs it is computed from, if they are few numbers. */
static const char *how_to_bind(const Graph *g, const Value *v) {
  Ctx *c = g->ctx;
  bool *seen = ctx_array(c, g->n_values, sizeof *seen);
  mark_sources(v, seen);
  Text t = {.ctx = c};
  for (size_t i = 0; i < g->n_inputs; i++) {
    const Value *in = g->inputs[i];
    if (!seen[in->id]) continue;
    if (dtype_is_float(in->dtype) || shape_count(&in->shape) > MOST_BOUND)
      return ctx_format(c, "is computed from \"%s\" %s at run time: shapes must be known before", in->name,
                        shape_text(c, in->dtype, &in->shape));
    text_add(&t, "%s--bind %s=VALUE", t.len ? " " : "", in->name);
  }
  return ctx_format(c, "is not constant: make it so with %s", t.len ? t.text : "a constant in the model");
}

static void report_unknown(Node *n) {
  Ctx *c = n->graph->ctx;
  for (int i = n->n_own - 1; i > 0; i--) {
    const Value *v = n->in[i];
    if (!v || v->tensor || dtype_is_float(v->dtype) != (n->op == OP_RESIZE && i < 3)) continue;
    ctx_report(c, n, "the shape of the result depends on \"%s\" %s, which %s", v->name,
               shape_text(c, v->dtype, &v->shape), how_to_bind(n->graph, v));
    return;
  }
  ctx_report(c, n,
             "the shape of the result depends on values that are not constant: bind the graph inputs they are "
             "computed from (--bind INPUT=VALUE)");
}

static void check_inputs(const Graph *g) {
  for (size_t i = 0; i < g->n_inputs; i++) {
    const Value *v = g->inputs[i];
    bool known = v->dtype != DT_NONE && v->shape.rank >= 0;
    for (int d = 0; known && d < v->shape.rank; d++) known = v->shape.dim[d].n >= 0;
    if (!known)
      ctx_report(g->ctx, NULL,
                 "graph input \"%s\" %s has no complete type and shape: free dimensions are set with --dim NAME=N",
                 v->name, shape_text(g->ctx, v->dtype, &v->shape));
  }
}

void infer_shapes(Graph *g) {
  check_inputs(g);
  ctx_stop_on_errors(g->ctx);
  for (Node *n = g->first; n;) {
    Node *before = n->prev;
    bool known = infer_node(n);
    if (!known && inputs_known(n)) report_unknown(n);
    bool gone = known && fold(n);
    n = !gone ? n->next : before ? before->next : g->first;
  }
  ctx_stop_on_errors(g->ctx);
}

/* Where a dimension stops being a number: none of the node's operands has such a dimension already. */
static bool is_origin(const Node *n) {
  for (int i = 0; i < n->n_in; i++)
    if (n->in[i] && !shape_known(&n->in[i]->shape)) return false;
  return true;
}

void check_static(Graph *g) {
  for (Node *n = g->first; n; n = n->next)
    for (int i = 0; i < n->n_out; i++) {
      const Value *v = n->out[i];
      if (!v || shape_known(&v->shape) || !is_origin(n)) continue;
      const char *why = moe_why_not(n);
      ctx_report(g->ctx, n,
                 "the number of elements of \"%s\" %s is decided by values at run time; this is supported only "
                 "inside a mixture of experts that the compiler recognises%s%s",
                 v->name, shape_text(g->ctx, v->dtype, &v->shape), why ? ", and here it does not: " : "",
                 why ? why : "");
    }
  ctx_stop_on_errors(g->ctx);
}
