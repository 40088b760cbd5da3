/* Constant folding of one node.
 *
 * There is one meaning of an operator, its kernel's: folding lowers the node alone and runs that kernel in this process
 * (engine/jit.c). Operators that only give the same bytes another shape need no run, and no copy of mapped weights.
 */
#include "engine/jit.h"

static bool same_bytes(Op op) {
  return op == OP_IDENTITY || op == OP_RESHAPE || op == OP_FLATTEN || op == OP_SQUEEZE || op == OP_UNSQUEEZE;
}

Tensor **fold_node(Node *n) {
  if (!same_bytes(n->op)) return jit_fold(n);
  Ctx *c = n->graph->ctx;
  const Value *v = n->out[0];
  int64_t dims[MAX_RANK];
  for (int i = 0; i < v->shape.rank; i++) dims[i] = v->shape.dim[i].n;
  Tensor **result = ctx_alloc(c, sizeof *result);
  *result = tensor_new(c, v->dtype, v->shape.rank, dims, n->in[0]->tensor->data);
  return result;
}
