/* Fuses elementwise work into the operator that computes its operand, or into one node of its own.
 *
 * Needs: shapes, all numbers; tasks marked; after every pass that recognises something.
 * Gives: MatMul, Gemm, Conv, LayerNormalization along the last axis and moecc.ResizeConv with Node.expr (EX_ACC is
 *        their own result, further operands are inputs from n_own on);
 *        moecc.Elementwise for what remains of two and more elementwise nodes. Reshape and Transpose move behind
 *        elementwise nodes where that lets them join.
 * Breaks: every pass that matches elementwise nodes.
 *
 * A region starts with the operator's result and takes in, in topological order, every reader of what it has computed
 * so far, as long as all is float32 of the same shape and the same tasks. Whenever only one of its values is still read
 * by others, the region could be one node; the last such state is taken. Operators are visited last to first, so that a
 * sum of two results goes to the later one.
 */
#include "match.h"
#include "recognise.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NODES = 24, MAX_EXTRA = 6 };

typedef struct {
  Graph *g;
  int *order; /* by node id: position in the list */
} Fuser;

typedef struct {
  const Fuser *f;
  Node *head; /* the operator with the epilogue; NULL for a region of elementwise nodes alone */
  Shape shape;
  uint64_t tasks;
  Node *node[MAX_NODES];
  int n;
  Value *result; /* of the last state that could be one node, of `taken` nodes */
  int taken;
} Region;

/* A convolution with computed weights has a kernel without one. */
static bool takes_epilogue(const Node *n) {
  bool product = n->op == OP_MATMUL || n->op == OP_GEMM || n->op == OP_RESIZE_CONV;
  product = product || ((n->op == OP_CONV || n->op == OP_CONV_TRANSPOSE) && node_const(n, 1));
  product = product || (n->op == OP_LAYER_NORMALIZATION &&
                        axis_at(node_int(n, "axis", -1), n->in[0]->shape.rank) == n->in[0]->shape.rank - 1);
  return product && !n->expr && n->out[0] && n->out[0]->dtype == DT_F32;
}

/* ---- what may join ---- */

static bool region_has(const Region *r, const Node *n) {
  if (n && n == r->head) return true;
  for (int i = 0; i < r->n; i++)
    if (r->node[i] == n) return true;
  return false;
}

static bool operands_are_float(const Node *n) {
  for (int i = 0; i < n->n_in; i++)
    if (n->in[i] && (n->in[i]->dtype != DT_F32 || n->in[i]->shape.rank > n->out[0]->shape.rank)) return false;
  return true;
}

/* An elementwise float32 node with a vector form. */
static bool is_elementwise(const Node *n) {
  if (!n || n->expr || !op_is_elementwise(n->op) || n->op == OP_FUSED || n->n_out != 1 || !n->out[0]) return false;
  if (n->n_in < 1 || n->n_in > 3 || n->out[0]->dtype != DT_F32 || !shape_known(&n->out[0]->shape)) return false;
  if (n->in[0] == NULL || (n->n_in == 3 && !n->in[1] && n->op != OP_CLIP)) return false;
  return operands_are_float(n) && op_expression(n, DT_F32, true) != NULL;
}

static bool may_join(const Region *r, const Node *n) {
  return is_elementwise(n) && n->tasks == r->tasks && shape_equal(&n->out[0]->shape, &r->shape);
}

/* Will this elementwise node, or one before it that only it reads, become part of an operator? */
static bool has_own_head(const Node *n, int depth) {
  for (int i = 0; i < n->n_in; i++) {
    const Value *v = n->in[i];
    if (!v || !v->producer || depth == 0 || v->producer->tasks != n->tasks) continue;
    if (!shape_equal(&v->shape, &n->out[0]->shape)) continue;
    if (takes_epilogue(v->producer)) return true;
    if (value_single_use(v) && is_elementwise(v->producer) && has_own_head(v->producer, depth - 1)) return true;
  }
  return false;
}

/* ---- growing ---- */

static bool is_live(const Region *r, const Value *v) {
  if (v->is_output) return true;
  for (size_t u = 0; u < v->n_uses; u++)
    if (!region_has(r, v->uses[u].node)) return true;
  return false;
}

static Value *region_value(const Region *r, int i) {
  return i < r->n ? r->node[i]->out[0] : r->head ? r->head->out[0] : NULL;
}

/* The values still read from outside: how many, and one of them. */
static int live_values(const Region *r, Value **one) {
  int count = 0;
  for (int i = 0; i <= r->n; i++) {
    Value *v = region_value(r, i);
    if (v && is_live(r, v)) {
      count++;
      *one = v;
    }
  }
  return count;
}

/* The first reader of the region's values that is not in it; NULL if there is none, or one value is a graph output. */
static Node *next_reader(const Region *r) {
  Node *first = NULL;
  for (int i = 0; i <= r->n; i++) {
    const Value *v = region_value(r, i);
    if (!v) continue;
    if (v->is_output) return NULL;
    for (size_t u = 0; u < v->n_uses; u++) {
      Node *n = v->uses[u].node;
      if (!region_has(r, n) && (!first || r->f->order[n->id] < r->f->order[first->id])) first = n;
    }
  }
  return first;
}

static bool add_node(Region *r, Node *n) {
  if (r->n == MAX_NODES) return false;
  r->node[r->n++] = n;
  return true;
}

/* Takes n in, and before it what only it reads and has no better place. */
static bool join(Region *r, Node *n) {
  for (int i = 0; i < n->n_in; i++) {
    Value *v = n->in[i];
    if (!v || !v->producer || region_has(r, v->producer) || !value_single_use(v)) continue;
    if (may_join(r, v->producer) && !(r->head && has_own_head(v->producer, 6)) && !join(r, v->producer)) return false;
  }
  return add_node(r, n);
}

static bool is_single_number(const Value *v) { return v->tensor && tensor_count(v->tensor) == 1; }

/* The region's operands that are neither computed in it nor numbers. Returns how many; at most `max` are stored. */
static int extra_operands(const Region *r, Value **extra, int max) {
  int count = 0;
  for (int i = 0; i < r->n; i++)
    for (int k = 0; k < r->node[i]->n_in; k++) {
      Value *v = r->node[i]->in[k];
      bool known = !v || is_single_number(v) || (v->producer && region_has(r, v->producer));
      for (int e = 0; e < count && e < max; e++) known = known || extra[e] == v;
      if (!known && count < max) extra[count] = v;
      count += !known;
    }
  return count;
}

static void grow(Region *r) {
  for (;;) {
    Node *n = next_reader(r);
    if (!n || !may_join(r, n) || !join(r, n)) break;
    Value *extra[MAX_EXTRA], *one = NULL;
    if (live_values(r, &one) == 1 && extra_operands(r, extra, MAX_EXTRA) <= MAX_EXTRA) {
      r->result = one;
      r->taken = r->n;
    }
  }
  r->n = r->taken;
}

/* ---- the expression ---- */

typedef struct {
  Region *region;
  Expr *e;
  Value **extra;
  int n_extra, n_own;
} Builder;

static int add_step(Builder *b, ExprStep s) {
  Expr *e = b->e;
  e->step = ctx_grow(b->region->f->g->ctx, e->step, e->n, &e->cap, sizeof s);
  e->step[e->n++] = s;
  return (int)e->n - 1;
}

/* An operator with its attributes but without operands. */
static Node *detached(const Node *n) {
  Node *copy = ctx_alloc(n->graph->ctx, sizeof *copy);
  copy->op = n->op;
  copy->op_type = n->op_type;
  copy->name = n->name;
  copy->scope = n->scope;
  copy->attr = n->attr;
  copy->n_attr = n->n_attr;
  copy->n_in = copy->n_own = n->n_in;
  copy->graph = n->graph;
  return copy;
}

/* An operand from outside, as a step: it may be there already. */
static int leaf_step(Builder *b, const Value *v) {
  ExprStep s = {.kind = EX_INPUT, .arg = {-1, -1, -1}};
  if (is_single_number(v)) {
    s.kind = EX_NUMBER;
    s.number = tensor_number(v->tensor, 0);
  } else {
    for (int i = 0; i < b->n_extra; i++)
      if (b->extra[i] == v) s.input = b->n_own + i;
  }
  for (size_t i = 0; i < b->e->n; i++)
    if (b->e->step[i].kind == s.kind && s.kind == EX_INPUT && b->e->step[i].input == s.input) return (int)i;
  return add_step(b, s);
}

static int operand_step(Builder *b, const Node *n, int k, const int *step_of) {
  const Value *v = n->in[k];
  if (!v)
    return add_step(b, (ExprStep){.kind = EX_NUMBER, .number = k == 1 ? -INFINITY : INFINITY, .arg = {-1, -1, -1}});
  for (int i = 0; i < b->region->n; i++)
    if (b->region->node[i] == v->producer) return step_of[i];
  if (b->region->head && v->producer == b->region->head) return 0;
  return leaf_step(b, v);
}

static void build(Builder *b) {
  const Region *r = b->region;
  int step_of[MAX_NODES] = {0};
  b->e->dtype = DT_F32;
  if (r->head) add_step(b, (ExprStep){.kind = EX_ACC, .arg = {-1, -1, -1}});
  for (int i = 0; i < r->n; i++) {
    ExprStep s = {.kind = EX_OP, .op = detached(r->node[i]), .arg = {-1, -1, -1}};
    for (int k = 0; k < r->node[i]->n_in; k++) s.arg[k] = operand_step(b, r->node[i], k, step_of);
    step_of[i] = add_step(b, s);
  }
}

/* ---- the new node ---- */

static void sort_nodes(Region *r) {
  for (int i = 1; i < r->n; i++)
    for (int k = i; k > 0 && r->f->order[r->node[k]->id] < r->f->order[r->node[k - 1]->id]; k--) {
      Node *n = r->node[k];
      r->node[k] = r->node[k - 1];
      r->node[k - 1] = n;
    }
}

static void copy_attrs(Node *to, const Node *from) {
  for (size_t i = 0; i < from->n_attr; i++) node_set_attr(to, from->attr[i]);
}

static void replace_region(Region *r) {
  Node *head = r->head, *last = r->result->producer;
  Value *extra[MAX_EXTRA];
  sort_nodes(r);
  int n_own = head ? head->n_in : 0, n_extra = extra_operands(r, extra, MAX_EXTRA);
  Builder b = {
      .region = r, .e = ctx_alloc(r->f->g->ctx, sizeof(Expr)), .extra = extra, .n_extra = n_extra, .n_own = n_own};
  build(&b);
  Value **in = ctx_array(r->f->g->ctx, (size_t)(n_own + n_extra + 1), sizeof *in);
  for (int i = 0; i < n_own; i++) in[i] = head->in[i];
  for (int i = 0; i < n_extra; i++) in[n_own + i] = extra[i];
  int position = r->f->order[last->id];
  const Node *first = head ? head : r->node[0];
  const char *scope = first->scope;
  Node *n = take_over(r->result, head ? head->op : OP_FUSED, n_own + n_extra, in);
  if (head) {
    copy_attrs(n, head);
    n->name = head->name;
    n->op_type = head->op_type;
  }
  n->scope = scope;
  n->n_own = head ? n_own : n->n_in;
  n->expr = b.e;
  r->f->order[n->id] = position;
}

/* From the operator `head`, or else from the elementwise node `seed`. */
static void fuse_from(const Fuser *f, Node *head, Node *seed) {
  const Node *start = head ? head : seed;
  Region r = {.f = f, .head = head, .shape = start->out[0]->shape, .tasks = start->tasks};
  if (!shape_known(&r.shape)) return;
  if (seed) add_node(&r, seed);
  r.taken = r.n;
  grow(&r);
  if (r.n >= (head ? 1 : 2) && r.result) replace_region(&r);
}

/* ---- views out of the way ---- */

/* The constant or vector v, broadcast along axis `axis` of the view's result, for the view's operand of rank `rank`. */
static Value *move_vector(Node *before, Value *v, int rank, int axis) {
  Shape s = {.rank = rank - axis};
  for (int i = 0; i < s.rank; i++) s.dim[i].n = 1;
  s.dim[0].n = shape_count(&v->shape);
  return insert_reshape(before, v, &s);
}

/* The one axis of a value of rank `rank` along which v, broadcast to it, is longer than 1; -1 if there is not just one.
 */
static int only_axis(const Value *v, int rank) {
  int axis = -1;
  for (int i = 0; i < v->shape.rank; i++) {
    if (v->shape.dim[i].n == 1) continue;
    if (axis >= 0) return -1;
    axis = rank - v->shape.rank + i;
  }
  return axis;
}

/* Is v a picture, which is stored with its channels last anyway, and asked for in that order? */
static bool stored_so(const Value *v, const int64_t *perm) {
  static const Op pictures[] = {OP_CONV, OP_RESIZE_CONV, OP_CONV_TRANSPOSE, OP_MAX_POOL, OP_AVERAGE_POOL, OP_RESIZE};
  static const int64_t channels_last[4] = {0, 2, 3, 1};
  bool picture = false;
  for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++) picture = picture || made_by(v, pictures[i]);
  return picture && v->shape.rank == 4 && memcmp(perm, channels_last, sizeof channels_last) == 0;
}

/* Operand v of an elementwise node on view(x), as it is to be on x; NULL if it does not move at no cost. */
static Value *move_operand(Node *before, const Node *view, Value *v) {
  const Shape *x = &view->in[0]->shape, *y = &view->out[0]->shape;
  bool whole = shape_equal(&v->shape, y), reshapes = view->op == OP_RESHAPE;
  if (v->tensor && tensor_count(v->tensor) == 1) return v;
  if (whole && reshapes) return insert_reshape(before, v, x);
  int64_t perm[MAX_RANK], inverse[MAX_RANK];
  int axis = only_axis(v, y->rank);
  if (reshapes) return axis == y->rank - 1 && v->shape.rank == 1 && same_tail(x, y, 1) ? v : NULL;
  transpose_perm(view, perm);
  for (int i = 0; i < y->rank; i++) inverse[perm[i]] = i;
  if (whole && (made_by(v, OP_TRANSPOSE) || stored_so(v, inverse))) return insert_transpose(before, v, inverse);
  return !whole && axis >= 0 ? move_vector(before, v, y->rank, (int)perm[axis]) : NULL;
}

static bool is_view(const Value *v) { return made_by(v, OP_RESHAPE) || made_by(v, OP_TRANSPOSE); }

/* Is x, views aside, computed by something that takes elementwise work, and read here alone? */
static bool leads_to_host(const Value *x, uint64_t tasks) {
  for (int depth = 0; depth < 8; depth++) {
    if (!x->producer || x->producer->tasks != tasks || !value_single_use(x)) return false;
    if (!is_view(x)) return takes_epilogue(x->producer) || is_elementwise(x->producer);
    x = x->producer->in[0];
  }
  return false;
}

static Node *repeat_view(Node *view, Node *n, Value *inner) {
  if (view->op == OP_RESHAPE)
    return take_over(n->out[0], OP_RESHAPE, 2, (Value *[]){inner, shape_constant(n, &view->out[0]->shape)});
  Node *moved = take_over(n->out[0], OP_TRANSPOSE, 1, &inner);
  copy_attrs(moved, view);
  return moved;
}

/* op(view(x), v) becomes view(op(x, v seen through the view)), if that brings op nearer to what computes x. Returns the
 * new view, or NULL. */
static Node *sink_view(Node *view) {
  Value *x = view->in[0], *y = view->out[0];
  if (!is_view(y) || !value_single_use(y)) return NULL;
  Node *n = y->uses[0].node;
  if (!leads_to_host(x, n->tasks) || view->tasks != n->tasks || !is_elementwise(n)) return NULL;
  if (!shape_equal(&n->out[0]->shape, &y->shape) || !shape_known(&x->shape)) return NULL;
  Value *in[3] = {NULL};
  for (int i = 0; i < n->n_in; i++) {
    if (!n->in[i]) continue;
    in[i] = n->in[i] == y ? x : move_operand(n, view, n->in[i]);
    if (!in[i]) return NULL;
  }
  Value *inner = graph_value(n->graph, n->out[0]->name, n->out[0]->dtype, x->shape);
  Node *moved = graph_node(n->graph, n, n->op, n->name, n->n_in, in, 1, &inner);
  copy_attrs(moved, n);
  return repeat_view(view, n, inner);
}

/* An elementwise node passes its views one by one, so until nothing moves. */
static void sink_views(Graph *g) {
  for (bool moved = true; moved;) {
    size_t count;
    Node **list = node_list(g, &count);
    moved = false;
    for (size_t i = 0; i < count; i++)
      if (!node_gone(list[i]) && list[i]->out[0]) moved = sink_view(list[i]) || moved;
  }
}

/* ---- the pass ---- */

void pass_fuse(Graph *g) {
  graph_remove_dead(g);
  sink_views(g);
  graph_remove_dead(g);
  size_t count;
  Node **list = node_list(g, &count);
  Fuser f = {.g = g, .order = ctx_array(g->ctx, (size_t)g->n_nodes + count + 1, sizeof(int))};
  for (size_t i = 0; i < count; i++) f.order[list[i]->id] = (int)i;
  for (size_t i = count; i-- > 0;)
    if (!node_gone(list[i]) && takes_epilogue(list[i])) fuse_from(&f, list[i], NULL);
  for (size_t i = 0; i < count; i++)
    if (!node_gone(list[i]) && is_elementwise(list[i])) fuse_from(&f, NULL, list[i]);
}
