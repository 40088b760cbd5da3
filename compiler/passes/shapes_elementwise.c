/* Shape rules of elementwise operators: the operands' shapes broadcast; only the result's type differs by rule. */
#include "shapes.h"

#include <inttypes.h>

/* The broadcast shape of operands from `first` on. */
static Shape broadcast_inputs(const Node *n, int first) {
  Shape s = *input_shape(n, first);
  for (int i = first + 1; i < n->n_own; i++)
    if (n->in[i]) broadcast_into(n, &s, input_shape(n, i));
  return s;
}

bool infer_same(Node *n) {
  set_output(n, 0, n->in[0]->dtype, input_shape(n, 0));
  return true;
}

bool infer_broadcast(Node *n) {
  for (int i = 1; i < n->n_own; i++)
    if (n->in[i]) need_same_type(n, i);
  Shape s = broadcast_inputs(n, 0);
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

bool infer_compare(Node *n) {
  infer_broadcast(n);
  n->out[0]->dtype = DT_BOOL;
  return true;
}

bool infer_logic(Node *n) {
  for (int i = 0; i < n->n_own; i++)
    if (n->in[i]->dtype != DT_BOOL) shape_error(n, "operand %d must be bool, not %s", i, input_text(n, i));
  return infer_broadcast(n);
}

bool infer_where(Node *n) {
  if (n->in[0]->dtype != DT_BOOL) shape_error(n, "the condition must be bool, not %s", input_text(n, 0));
  if (n->in[1]->dtype != n->in[2]->dtype)
    shape_error(n, "the two choices must have one element type: %s and %s", input_text(n, 1), input_text(n, 2));
  Shape s = broadcast_inputs(n, 0);
  set_output(n, 0, n->in[1]->dtype, &s);
  return true;
}

bool infer_pow(Node *n) {
  if (!dtype_is_float(n->in[0]->dtype) && dtype_is_float(n->in[1]->dtype))
    shape_error(n, "an integer to a floating-point power is not supported: Cast the base %s first", input_text(n, 0));
  Shape s = broadcast_inputs(n, 0);
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

/* The slope stretches to x, never the other way. */
bool infer_prelu(Node *n) {
  need_same_type(n, 1);
  Shape s = broadcast_inputs(n, 0);
  if (!shape_equal(&s, input_shape(n, 0)))
    shape_error(n, "the slope %s does not broadcast to %s", input_text(n, 1), input_text(n, 0));
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

bool infer_clip(Node *n) {
  for (int i = 1; i < n->n_own; i++) {
    if (!n->in[i]) continue;
    need_same_type(n, i);
    int64_t count = shape_count(input_shape(n, i));
    if (count != 1) shape_error(n, "bound %d must be one number, not %s", i, input_text(n, i));
  }
  return infer_same(n);
}

bool infer_cast(Node *n) {
  DType t = op_cast_type(n);
  if (t == DT_NONE || t == DT_STRING)
    shape_error(n, "casting to element type number %" PRId64 " is not supported", node_int(n, "to", 0));
  set_output(n, 0, t, input_shape(n, 0));
  return true;
}

/* Becomes the Cast it stands for as soon as the type is known. */
bool infer_cast_like(Node *n) {
  static const int code[DT_COUNT] = {
      [DT_F32] = 1,  [DT_U8] = 2,   [DT_I8] = 3,   [DT_U16] = 4,  [DT_I16] = 5,  [DT_I32] = 6,  [DT_I64] = 7,
      [DT_BOOL] = 9, [DT_F16] = 10, [DT_F64] = 11, [DT_U32] = 12, [DT_U64] = 13, [DT_BF16] = 16};
  int to = code[n->in[1]->dtype];
  if (!to) shape_error(n, "casting to %s is not supported", input_text(n, 1));
  node_set_input(n, 1, NULL);
  n->n_in = n->n_own = 1;
  n->op = OP_CAST;
  node_set_int(n, "to", to);
  return infer_cast(n);
}

/* A fused chain keeps its result's type in the expression. */
bool infer_fused(Node *n) {
  Shape s = *input_shape(n, 0);
  for (int i = 1; i < n->n_in; i++)
    if (n->in[i]) broadcast_into(n, &s, input_shape(n, i));
  set_output(n, 0, n->expr ? n->expr->dtype : n->in[0]->dtype, &s);
  return true;
}

bool infer_upgraded(Node *n) {
  shape_error(n, "internal error: this operator should have been rewritten when the model was read");
}
