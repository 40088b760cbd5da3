/* Constant folding of one node.
 *
 * There is one meaning of an operator, its kernel's: folding lowers the node alone and runs that kernel in this process
 * (engine/jit.c). Operators that only give the same bytes another shape, or whole rows of them, need no run, and no
 * copy of mapped weights.
 */
#include "engine/jit.h"
#include "match.h"

static bool same_bytes(Op op) {
  return op == OP_IDENTITY || op == OP_RESHAPE || op == OP_FLATTEN || op == OP_SQUEEZE || op == OP_UNSQUEEZE;
}

/* Where the bytes of v lie in its producer's first operand, if they lie there together; NULL if not. */
static const char *bytes_within(const Value *v) {
  const Node *n = v->producer;
  const Tensor *t = n->in[0]->tensor;
  if (same_bytes(n->op)) return t->data;
  int dim;
  int64_t first, step, count, row = (int64_t)dtype_size(t->dtype);
  bool part = n->op == OP_SLICE || n->op == OP_SPLIT || n->op == OP_GATHER;
  if (!part || !part_range(v, &dim, &first, &step, &count) || step != 1) return NULL;
  for (int d = 0; d < dim; d++)
    if (t->dim[d] != 1) return NULL;
  for (int d = dim + 1; d < t->rank; d++) row *= t->dim[d];
  return (const char *)t->data + first * row;
}

Tensor **fold_node(Node *n) {
  Ctx *c = n->graph->ctx;
  Tensor **result = ctx_array(c, (size_t)n->n_out, sizeof *result);
  for (int o = 0; o < n->n_out; o++) {
    const Value *v = n->out[o];
    if (!v) continue;
    const char *bytes = bytes_within(v);
    if (!bytes) return jit_fold(n);
    int64_t dims[MAX_RANK];
    for (int i = 0; i < v->shape.rank; i++) dims[i] = v->shape.dim[i].n;
    result[o] = tensor_new(c, v->dtype, v->shape.rank, dims, bytes);
  }
  return result;
}
