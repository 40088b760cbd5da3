/* Tensors made of nothing: Range and ConstantOfShape. */
#include "loops.h"

static void pass_number(Step *s, DType t, const Tensor *v) {
  if (t == DT_F32)
    low_float(s, tensor_number(v, 0));
  else if (t == DT_F64)
    low_double(s, tensor_number(v, 0));
  else
    low_int(s, tensor_integer(v, 0));
}

void lower_range(Program *p, Node *n) {
  no_expression(p, n);
  Ctx *c = p->ctx;
  const Tensor *start = node_const(n, 0), *delta = node_const(n, 2);
  if (start == NULL || delta == NULL) ctx_fail(c, n, "start, limit and delta must be constants");
  View y = low_output(p, n->out[0], NULL);
  DType t = y.dtype;
  const char *passed = t == DT_F32 ? "float" : t == DT_F64 ? "double" : "int64_t";
  const Hole holes[] = {{"T", dtype_c(t)}, {"V", passed}, {0}};
  Step *s = low_call(p, n, low_kernel(p, "range", ctx_format(c, "range_%s", dtype_short(t)), holes));
  pass_number(s, t, start);
  pass_number(s, t, delta);
  low_write(s, &y);
  low_size(s, view_count(&y));
}

void lower_constant_of_shape(Program *p, Node *n) {
  no_expression(p, n);
  View y = low_output(p, n->out[0], NULL);
  const Attr *value = node_attr(n, "value");
  if (value && value->tensor)
    low_fill_tensor(p, n, value->tensor, &y);
  else
    low_fill(p, n, 0, &y);
}
