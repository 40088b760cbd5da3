/* TopK, CumSum, Trilu, OneHot, NonZero: one typed template each, on packed tensors seen as [outer, n, inner]. */
#include "loops.h"

typedef struct {
  int64_t outer, n, inner;
} Lines;

static Lines lines_of(const View *x, int axis) {
  Lines l = {1, x->dim[axis], 1};
  for (int i = 0; i < axis; i++) l.outer *= x->dim[i];
  for (int i = axis + 1; i < x->rank; i++) l.inner *= x->dim[i];
  return l;
}

void lower_topk(Program *p, Node *n) {
  no_expression(p, n);
  Ctx *c = p->ctx;
  View x = low_packed(p, n->in[0]), values, index;
  DType t = x.dtype;
  int axis = normal_axis(c, n, node_int(n, "axis", -1), x.rank);
  Value *shown = n->out[0] ? n->out[0] : n->out[1];
  int64_t k = shown->shape.dim[axis].n;
  Lines l = lines_of(&x, axis);
  if (k > l.n) ctx_fail(c, n, "k is %lld but the axis has only %lld elements", (long long)k, (long long)l.n);
  if (n->out[0]) values = low_output(p, n->out[0], NULL);
  if (n->n_out > 1 && n->out[1])
    index = low_output(p, n->out[1], NULL);
  else
    index = low_temp(p, "topk indices", DT_I64, l.outer * k * l.inner);
  bool largest = node_int(n, "largest", 1) != 0;
  const char *nan = dtype_is_float(t) ? " || (b != b && a == a)" : "";
  const char *before = ctx_format(c, "static inline int BEFORE(%s a, %s b)\n{\n  return a %s b%s;\n}\n", dtype_c(t),
                                  dtype_c(t), largest ? ">" : "<", nan);
  const Hole holes[] = {{"T", dtype_c(t)}, {"BEFORE", before}, {0}};
  const char *name = ctx_format(c, "%s_%s", largest ? "topk" : "topk_smallest", dtype_short(t));
  Step *s = low_call(p, n, low_kernel(p, "topk", name, holes));
  low_read(s, &x);
  if (n->out[0])
    low_write(s, &values);
  else
    low_null(s, t);
  low_write(s, &index);
  low_size(s, l.outer);
  low_size(s, l.n);
  low_size(s, l.inner);
  low_size(s, k);
}

void lower_cumsum(Program *p, Node *n) {
  no_expression(p, n);
  Ctx *c = p->ctx;
  const Tensor *axis = node_const(n, 1);
  if (axis == NULL) ctx_fail(c, n, "the axis must be a constant");
  View x = low_packed(p, n->in[0]), y = low_output(p, n->out[0], NULL);
  Lines l = lines_of(&x, normal_axis(c, n, tensor_integer(axis, 0), x.rank));
  const Hole holes[] = {{"T", dtype_c(x.dtype)}, {"ACC", dtype_is_float(x.dtype) ? "double" : "uint64_t"}, {0}};
  Step *s = low_call(p, n, low_kernel(p, "cumsum", ctx_format(c, "cumsum_%s", dtype_short(x.dtype)), holes));
  low_read(s, &x);
  low_write(s, &y);
  low_size(s, l.outer);
  low_size(s, l.n);
  low_size(s, l.inner);
  low_size(s, node_int(n, "exclusive", 0) != 0);
  low_size(s, node_int(n, "reverse", 0) != 0);
}

void lower_trilu(Program *p, Node *n) {
  no_expression(p, n);
  const Tensor *diagonal = n->n_in > 1 ? node_const(n, 1) : NULL;
  if (n->n_in > 1 && n->in[1] && diagonal == NULL) ctx_fail(p->ctx, n, "k must be a constant");
  int64_t k = diagonal ? tensor_integer(diagonal, 0) : 0;
  bool upper = node_int(n, "upper", 1) != 0;
  View x = low_packed(p, n->in[0]), y = low_output(p, n->out[0], NULL);
  if (x.rank < 2) ctx_fail(p->ctx, n, "Trilu needs at least two dimensions");
  int64_t rows = x.dim[x.rank - 2], columns = x.dim[x.rank - 1], count = 1;
  for (int i = 0; i < x.rank - 2; i++) count *= x.dim[i];
  const Hole holes[] = {{"T", dtype_c(x.dtype)}, {0}};
  Step *s = low_call(p, n, low_kernel(p, "trilu", ctx_format(p->ctx, "trilu_%s", dtype_short(x.dtype)), holes));
  low_read(s, &x);
  low_write(s, &y);
  low_size(s, count);
  low_size(s, rows);
  low_size(s, columns);
  low_int(s, upper ? k : -rows);
  low_int(s, upper ? columns : k);
}

void lower_onehot(Program *p, Node *n) {
  no_expression(p, n);
  Ctx *c = p->ctx;
  View index = low_packed(p, n->in[0]), values = low_packed(p, n->in[2]), y = low_output(p, n->out[0], NULL);
  int axis = normal_axis(c, n, node_int(n, "axis", -1), y.rank);
  Lines l = lines_of(&y, axis);
  const Hole holes[] = {{"T", dtype_c(y.dtype)}, {"I", dtype_c(index.dtype)}, {0}};
  const char *name = ctx_format(c, "onehot_%s_%s", dtype_short(y.dtype), dtype_short(index.dtype));
  Step *s = low_call(p, n, low_kernel(p, "onehot", name, holes));
  low_read(s, &index);
  low_read(s, &values);
  low_write(s, &y);
  low_size(s, l.outer);
  low_size(s, l.n);
  low_size(s, l.inner);
}

/* The number of columns is in the result's shape, which is known for constants only; elsewhere low_output refuses. */
void lower_nonzero(Program *p, Node *n) {
  no_expression(p, n);
  View y = low_output(p, n->out[0], NULL), x = low_packed(p, n->in[0]);
  const Hole holes[] = {{"T", dtype_c(x.dtype)}, {0}};
  Step *s = low_call(p, n, low_kernel(p, "nonzero", ctx_format(p->ctx, "nonzero_%s", dtype_short(x.dtype)), holes));
  low_read(s, &x);
  low_write(s, &y);
  low_size(s, view_count(&x));
  low_size(s, y.dim[1]);
  low_size(s, y.dim[0]);
  low_table(s, x.dim, (size_t)x.rank);
}
