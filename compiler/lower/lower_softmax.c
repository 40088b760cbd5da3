/* Softmax and LogSoftmax: vectors along a contiguous last axis, else one scalar template for any axis. */
#include "loops.h"

static void softmax_rows(Program *p, Node *n, const View *x, int64_t rows, int64_t xs) {
  View y = low_output(p, n->out[0], NULL);
  Step *s = low_call(p, n, low_kernel(p, "softmax_vf", "softmax_f32", NULL));
  low_read(s, x);
  low_write(s, &y);
  low_size(s, rows);
  low_size(s, x->dim[x->rank - 1]);
  low_int(s, xs);
}

static Kernel *any_kernel(Program *p, const Node *n, DType t) {
  Ctx *c = p->ctx;
  const char *type = dtype_c(t), *suffix = dtype_short(t);
  bool log = n->op == OP_LOG_SOFTMAX;
  const char *result =
      log ? "(double)shifted - moecc_log_f64(sum)" : ctx_format(c, "moecc_exp_%s(shifted) / sum", suffix);
  const char *finish = ctx_format(c, "static inline %s FINISH(%s shifted, double sum)\n{\n  return (%s)(%s);\n}\n",
                                  type, type, type, result);
  const Hole holes[] = {{"T", type}, {"EXP", ctx_format(c, "moecc_exp_%s", suffix)}, {"FINISH", finish}, {0}};
  return low_kernel(p, "softmax_any", ctx_format(c, log ? "log_softmax_%s" : "softmax_any_%s", suffix), holes);
}

void lower_softmax(Program *p, Node *n) {
  no_expression(p, n);
  int rank = n->in[0]->shape.rank, axis = normal_axis(p->ctx, n, node_int(n, "axis", -1), rank ? rank : 1);
  View x = low_packed(p, n->in[0]);
  int64_t outer = 1, inner = 1, length = rank ? x.dim[axis] : 1;
  for (int i = 0; i < axis; i++) outer *= x.dim[i];
  for (int i = axis + 1; i < rank; i++) inner *= x.dim[i];
  if (n->op == OP_SOFTMAX && x.dtype == DT_F32 && inner == 1 && rank > 0 && axis == rank - 1 && length > 0) {
    softmax_rows(p, n, &x, outer, length);
    return;
  }
  View y = low_output(p, n->out[0], NULL);
  Step *s = low_call(p, n, any_kernel(p, n, x.dtype));
  low_read(s, &x);
  low_write(s, &y);
  low_size(s, outer);
  low_size(s, length);
  low_size(s, inner);
}
