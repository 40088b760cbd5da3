/* What shape rules share: operands, axes, arithmetic on bounded symbolic dimensions, broadcasting. */
#include "shapes.h"

#include <inttypes.h>
#include <string.h>

/* ---- operands ---------------------------------------------------------------------------------------------------- */

const char *input_text(const Node *n, int i) { return shape_text(n->graph->ctx, n->in[i]->dtype, &n->in[i]->shape); }

bool has_input(const Node *n, int i) { return i < n->n_own && n->in[i]; }

const Shape *input_shape(const Node *n, int i) { return &n->in[i]->shape; }

void set_output(Node *n, int i, DType t, const Shape *s) {
  if (i >= n->n_out || !n->out[i]) return;
  n->out[i]->dtype = t;
  n->out[i]->shape = *s;
}

bool input_content(const Node *n, int i, Dim *out, int *count) {
  if (!has_input(n, i)) return false;
  const Value *v = n->in[i];
  if (v->tensor) {
    int64_t elements = tensor_count(v->tensor);
    if (v->tensor->rank > 1 || elements > MAX_CONTENT || dtype_is_float(v->dtype)) return false;
    for (int64_t k = 0; k < elements; k++) out[k] = dim_of(tensor_integer(v->tensor, k));
    *count = (int)elements;
    return true;
  }
  if (!v->content) return false;
  memcpy(out, v->content, (size_t)v->n_content * sizeof *out);
  *count = v->n_content;
  return true;
}

bool input_ints(const Node *n, int i, int64_t *out, int most, int *count) {
  const Tensor *t = has_input(n, i) ? node_const(n, i) : NULL;
  if (!t) return false;
  if (dtype_is_float(t->dtype) || t->rank > 1)
    shape_error(n, "operand %d must be a vector of integers, not %s", i, input_text(n, i));
  int64_t elements = tensor_count(t);
  if (elements > most) shape_error(n, "operand %d has %" PRId64 " elements: at most %d make sense", i, elements, most);
  for (int64_t k = 0; k < elements; k++) out[k] = tensor_integer(t, k);
  *count = (int)elements;
  return true;
}

bool input_int(const Node *n, int i, int64_t *out) {
  int count;
  if (!input_ints(n, i, out, 1, &count)) return false;
  if (count != 1) shape_error(n, "operand %d must be one integer, not %s", i, input_text(n, i));
  return true;
}

void need_rank_within(const Node *n, int i, int least, int most) {
  int rank = input_shape(n, i)->rank;
  if (rank >= least && rank <= most) return;
  if (least == most) shape_error(n, "operand %d must have %d dimensions, not %s", i, least, input_text(n, i));
  shape_error(n, "operand %d must have %d to %d dimensions, not %s", i, least, most, input_text(n, i));
}

void need_rank(const Node *n, int i, int rank) { need_rank_within(n, i, rank, rank); }

void need_same_type(const Node *n, int i) {
  if (n->in[i]->dtype != n->in[0]->dtype)
    shape_error(n, "operands 0 and %d must have one element type: %s and %s", i, input_text(n, 0), input_text(n, i));
}

void need_index_type(const Node *n, int i) {
  if (n->in[i]->dtype != DT_I64 && n->in[i]->dtype != DT_I32)
    shape_error(n, "operand %d holds indices and must be int64 or int32, not %s", i, input_text(n, i));
}

/* ---- axes -------------------------------------------------------------------------------------------------------- */

int need_axis(const Node *n, int64_t axis, int rank) {
  if (axis < -rank || axis >= rank)
    shape_error(n, "axis %" PRId64 " is out of range for %d dimensions: %s", axis, rank,
                n->n_in && n->in[0] ? input_text(n, 0) : "");
  return (int)(axis < 0 ? axis + rank : axis);
}

void need_axes(const Node *n, const int64_t *axes, int count, int rank, bool out[MAX_RANK]) {
  memset(out, 0, MAX_RANK * sizeof *out);
  for (int i = 0; i < count; i++) {
    int axis = need_axis(n, axes[i], rank);
    if (out[axis]) shape_error(n, "axis %d is given twice", axis);
    out[axis] = true;
  }
}

/* ---- dimensions -------------------------------------------------------------------------------------------------- */

bool dim_equal(Dim a, Dim b) { return a.n == b.n && a.sym == b.sym; }

bool dim_is(Dim a, int64_t n) { return a.sym == 0 && a.n == n; }

bool dim_may_equal(Dim a, Dim b) {
  if (a.sym && b.sym) return true;
  if (a.sym) return b.n <= a.n;
  if (b.sym) return a.n <= b.n;
  return a.n == b.n;
}

Dim dim_symbol(const Node *n, int64_t bound, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  const char *text = ctx_vformat(n->graph->ctx, fmt, ap);
  va_end(ap);
  return (Dim){.n = bound, .sym = graph_symbol(n->graph, text)};
}

static const char *dim_text(const Node *n, Dim d) {
  return d.sym ? n->graph->symbols[d.sym - 1] : ctx_format(n->graph->ctx, "%" PRId64, d.n);
}

Dim dim_add(const Node *n, Dim a, Dim b) {
  int64_t sum;
  if (!size_add(a.n, b.n, &sum)) shape_error(n, "a dimension does not fit 63 bits: %" PRId64 " + %" PRId64, a.n, b.n);
  if (!a.sym && !b.sym) return dim_of(sum);
  if (dim_is(a, 0)) return b;
  if (dim_is(b, 0)) return a;
  return dim_symbol(n, sum, "(%s+%s)", dim_text(n, a), dim_text(n, b));
}

Dim dim_mul(const Node *n, Dim a, Dim b) {
  int64_t product;
  if (!size_mul(a.n, b.n, &product))
    shape_error(n, "a dimension does not fit 63 bits: %" PRId64 " * %" PRId64, a.n, b.n);
  if (!a.sym && !b.sym) return dim_of(product);
  if (dim_is(a, 0) || dim_is(b, 0)) return dim_of(0);
  if (dim_is(a, 1)) return b;
  if (dim_is(b, 1)) return a;
  return dim_symbol(n, product, "%s*%s", dim_text(n, a), dim_text(n, b));
}

Dim dim_product(const Node *n, const Shape *s, int begin, int end) {
  Dim product = dim_of(1);
  for (int i = begin; i < end; i++) product = dim_mul(n, product, s->dim[i]);
  return product;
}

/* A dimension of 1 stretches; of a symbol and a number other than 1 the number is what it must be at run time. */
static bool broadcast_dim(Dim *a, Dim b) {
  if (dim_equal(*a, b) || dim_is(b, 1)) return true;
  if (dim_is(*a, 1)) {
    *a = b;
    return true;
  }
  if (!dim_may_equal(*a, b)) return false;
  if (!b.sym || (a->sym && b.n < a->n)) *a = b;
  return true;
}

void broadcast_into(const Node *n, Shape *a, const Shape *b) {
  Shape whole = a->rank >= b->rank ? *a : *b;
  const Shape *other = a->rank >= b->rank ? b : a;
  int shift = whole.rank - other->rank;
  for (int i = 0; i < other->rank; i++)
    if (!broadcast_dim(&whole.dim[shift + i], other->dim[i])) {
      Ctx *c = n->graph->ctx;
      shape_error(n, "the shapes %s and %s do not broadcast", shape_text(c, n->in[0]->dtype, a),
                  shape_text(c, n->in[0]->dtype, b));
    }
  *a = whole;
}
