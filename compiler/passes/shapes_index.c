/* Shape rules of operators that choose elements by index, and of those that generate tensors. */
#include "shapes.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Constant indices must lie within -extent … extent-1. (`stride` apart, from `first` on.) */
static void check_indices(const Node *n, int64_t first, int64_t stride, Dim extent) {
  const Tensor *t = node_const(n, 1);
  if (!t || extent.sym) return;
  int64_t count = tensor_count(t);
  for (int64_t i = first; i < count; i += stride) {
    int64_t index = tensor_integer(t, i);
    if (index < -extent.n || index >= extent.n)
      shape_error(n, "index %" PRId64 " is out of range for a dimension of %" PRId64 ": %s", index, extent.n,
                  input_text(n, 0));
  }
}

static void need_result_rank(const Node *n, int rank) {
  if (rank > MAX_RANK) shape_error(n, "the result would have %d dimensions: at most %d are supported", rank, MAX_RANK);
}

static void append(Shape *s, const Shape *from, int begin, int end) {
  for (int i = begin; i < end; i++) s->dim[s->rank++] = from->dim[i];
}

bool infer_gather(Node *n) {
  need_rank_within(n, 0, 1, MAX_RANK);
  need_index_type(n, 1);
  const Shape *x = input_shape(n, 0), *index = input_shape(n, 1);
  int axis = need_axis(n, node_int(n, "axis", 0), x->rank);
  check_indices(n, 0, 1, x->dim[axis]);
  need_result_rank(n, x->rank - 1 + index->rank);
  Shape s = {.rank = 0};
  append(&s, x, 0, axis);
  append(&s, index, 0, index->rank);
  append(&s, x, axis + 1, x->rank);
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

bool infer_gather_elements(Node *n) {
  need_rank_within(n, 0, 1, MAX_RANK);
  need_index_type(n, 1);
  const Shape *x = input_shape(n, 0), *index = input_shape(n, 1);
  need_rank(n, 1, x->rank);
  int axis = need_axis(n, node_int(n, "axis", 0), x->rank);
  check_indices(n, 0, 1, x->dim[axis]);
  for (int i = 0; i < x->rank; i++)
    if (i != axis && index->dim[i].n > x->dim[i].n)
      shape_error(n, "the indices %s reach beyond %s", input_text(n, 1), input_text(n, 0));
  set_output(n, 0, n->in[0]->dtype, index);
  return true;
}

bool infer_gather_nd(Node *n) {
  need_rank_within(n, 0, 1, MAX_RANK);
  need_rank_within(n, 1, 1, MAX_RANK);
  need_index_type(n, 1);
  const Shape *x = input_shape(n, 0), *index = input_shape(n, 1);
  int64_t batch = node_int(n, "batch_dims", 0);
  Dim tuple = index->dim[index->rank - 1];
  if (batch < 0 || batch >= index->rank || batch >= x->rank)
    shape_error(n, "batch_dims is %" PRId64 ": it must be less than both ranks", batch);
  if (tuple.sym || tuple.n < 1 || tuple.n > x->rank - batch)
    shape_error(n, "index tuples of %s do not fit %s", input_text(n, 1), input_text(n, 0));
  for (int i = 0; i < batch; i++)
    if (!dim_may_equal(x->dim[i], index->dim[i]))
      shape_error(n, "batch dimension %d of %s and %s differs", i, input_text(n, 0), input_text(n, 1));
  for (int64_t i = 0; i < tuple.n; i++) check_indices(n, i, tuple.n, x->dim[batch + i]);
  int rest = (int)(batch + tuple.n);
  need_result_rank(n, index->rank - 1 + x->rank - rest);
  Shape s = {.rank = 0};
  append(&s, index, 0, index->rank - 1);
  append(&s, x, rest, x->rank);
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

static void need_reduction(const Node *n) {
  static const char *const known[] = {"none", "add", "mul", "max", "min"};
  const char *wanted = node_string(n, "reduction", "none");
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (strcmp(wanted, known[i]) == 0) return;
  shape_error(n, "reduction \"%s\" does not exist", wanted);
}

static void need_updates_type(const Node *n) {
  if (n->in[2]->dtype != n->in[0]->dtype)
    shape_error(n, "the updates %s and the data %s differ in element type", input_text(n, 2), input_text(n, 0));
}

bool infer_scatter_elements(Node *n) {
  need_rank_within(n, 0, 1, MAX_RANK);
  need_index_type(n, 1);
  need_reduction(n);
  need_updates_type(n);
  const Shape *x = input_shape(n, 0), *index = input_shape(n, 1), *updates = input_shape(n, 2);
  int axis = need_axis(n, node_int(n, "axis", 0), x->rank);
  need_rank(n, 1, x->rank);
  need_rank(n, 2, x->rank);
  check_indices(n, 0, 1, x->dim[axis]);
  for (int i = 0; i < x->rank; i++)
    if (!dim_may_equal(index->dim[i], updates->dim[i]) || (i != axis && index->dim[i].n > x->dim[i].n))
      shape_error(n, "the indices %s, the updates %s and the data %s do not fit", input_text(n, 1), input_text(n, 2),
                  input_text(n, 0));
  return infer_same(n);
}

bool infer_scatter_nd(Node *n) {
  need_rank_within(n, 0, 1, MAX_RANK);
  need_rank_within(n, 1, 1, MAX_RANK);
  need_index_type(n, 1);
  need_reduction(n);
  need_updates_type(n);
  const Shape *x = input_shape(n, 0), *index = input_shape(n, 1), *updates = input_shape(n, 2);
  Dim tuple = index->dim[index->rank - 1];
  if (tuple.sym || tuple.n < 1 || tuple.n > x->rank)
    shape_error(n, "index tuples of %s do not fit %s", input_text(n, 1), input_text(n, 0));
  for (int64_t i = 0; i < tuple.n; i++) check_indices(n, i, tuple.n, x->dim[i]);
  Shape wanted = {.rank = 0};
  need_result_rank(n, index->rank - 1 + x->rank - (int)tuple.n);
  append(&wanted, index, 0, index->rank - 1);
  append(&wanted, x, (int)tuple.n, x->rank);
  bool fits = wanted.rank == updates->rank;
  for (int i = 0; fits && i < wanted.rank; i++) fits = dim_may_equal(wanted.dim[i], updates->dim[i]);
  if (!fits)
    shape_error(n, "the updates are %s and should be %s", input_text(n, 2),
                shape_text(n->graph->ctx, n->in[2]->dtype, &wanted));
  return infer_same(n);
}

bool infer_one_hot(Node *n) {
  int64_t depth;
  const Tensor *t = node_const(n, 1);
  if (!t) return false;
  if (tensor_count(t) != 1) shape_error(n, "depth must be one number, not %s", input_text(n, 1));
  double number = tensor_number(t, 0);
  if (!(number >= 1 && number <= INT32_MAX)) shape_error(n, "depth is %g", number);
  depth = (int64_t)number;
  need_rank(n, 2, 1);
  if (!dim_is(input_shape(n, 2)->dim[0], 2)) shape_error(n, "the two values are %s", input_text(n, 2));
  const Shape *index = input_shape(n, 0);
  need_result_rank(n, index->rank + 1);
  int axis = need_axis(n, node_int(n, "axis", -1), index->rank + 1);
  Shape s = {.rank = 0};
  append(&s, index, 0, axis);
  s.dim[s.rank++] = dim_of(depth);
  append(&s, index, axis, index->rank);
  set_output(n, 0, n->in[2]->dtype, &s);
  return true;
}

static int64_t count_nonzero(const Tensor *t) {
  int64_t count = 0;
  for (int64_t i = 0; i < tensor_count(t); i++) count += tensor_number(t, i) != 0;
  return count;
}

/* One column per element that is not zero: as many as there are elements at most. */
bool infer_nonzero(Node *n) {
  const Shape *x = input_shape(n, 0);
  const Tensor *t = node_const(n, 0);
  Dim columns = t ? dim_of(count_nonzero(t)) : dim_symbol(n, shape_count(x), "count of %s", n->out[0]->name);
  Shape s = {.rank = 2, .dim = {dim_of(x->rank ? x->rank : 1), columns}};
  set_output(n, 0, DT_I64, &s);
  return true;
}

/* ---- generated tensors ---- */

static int64_t range_length(const Node *n, DType t) {
  const Tensor *start = node_const(n, 0), *limit = node_const(n, 1), *delta = node_const(n, 2);
  if (dtype_is_float(t)) {
    double a = tensor_number(start, 0), b = tensor_number(limit, 0), d = tensor_number(delta, 0);
    double length = d != 0 ? ceil((b - a) / d) : NAN;
    if (!(length <= INT32_MAX)) shape_error(n, "a range from %g to %g by %g has no sensible length", a, b, d);
    return length > 0 ? (int64_t)length : 0;
  }
  int64_t a = tensor_integer(start, 0), b = tensor_integer(limit, 0), d = tensor_integer(delta, 0);
  if (d == 0) shape_error(n, "a range cannot advance by 0");
  if (d > 0 ? b <= a : b >= a) return 0;
  uint64_t span = d > 0 ? (uint64_t)b - (uint64_t)a : (uint64_t)a - (uint64_t)b;
  uint64_t step = d > 0 ? (uint64_t)d : 0 - (uint64_t)d;
  uint64_t length = span / step + (span % step != 0);
  if (length > INT32_MAX) shape_error(n, "a range of %" PRIu64 " elements is too long", length);
  return (int64_t)length;
}

bool infer_range(Node *n) {
  for (int i = 0; i < 3; i++) {
    need_same_type(n, i);
    if (shape_count(input_shape(n, i)) != 1)
      shape_error(n, "operand %d must be one number, not %s", i, input_text(n, i));
    if (!node_const(n, i)) return false;
  }
  DType t = n->in[0]->dtype;
  Shape s = {.rank = 1, .dim = {dim_of(range_length(n, t))}};
  set_output(n, 0, t, &s);
  return true;
}

bool infer_constant_of_shape(Node *n) {
  Dim dims[MAX_CONTENT];
  int count;
  if (!input_content(n, 0, dims, &count)) return false;
  need_result_rank(n, count);
  Shape s = {.rank = count};
  for (int i = 0; i < count; i++) {
    if (dims[i].n < 0) shape_error(n, "a dimension cannot be %" PRId64, dims[i].n);
    s.dim[i] = dims[i];
  }
  const Attr *value = node_attr(n, "value");
  if (value && tensor_count(value->tensor) != 1) shape_error(n, "attribute value must hold one element");
  set_output(n, 0, value ? value->tensor->dtype : DT_F32, &s);
  return true;
}
