/* What part of its input a Slice, Split or Gather with constant operands takes, told in one way for all three: a range
 * of one dimension. The recognisers read weights and masks through it, and folding sees which parts lie together in
 * memory. */
#include "match.h"

/* One range of one dimension; all of the first if there is none. */
static bool slice_range(const Node *n, int *dim, int64_t *first, int64_t *step, int64_t *count) {
  const Shape *s = &n->in[0]->shape;
  int64_t start[MAX_RANK], counts[MAX_RANK], steps[MAX_RANK];
  if (s->rank < 1 || !slice_ranges(n, start, counts, steps)) return false;
  *dim = -1;
  for (int d = 0; d < s->rank; d++) {
    if (steps[d] < 1 || counts[d] < 1) return false;
    if (counts[d] == s->dim[d].n) continue;
    if (*dim >= 0 || s->dim[d].sym) return false;
    *dim = d;
  }
  *dim = *dim < 0 ? 0 : *dim;
  *first = start[*dim];
  *step = steps[*dim];
  *count = counts[*dim];
  return true;
}

static bool split_range(const Value *v, int *dim, int64_t *first, int64_t *count) {
  const Node *n = v->producer;
  int rank = n->in[0]->shape.rank;
  int64_t axis = node_int(n, "axis", 0);
  axis += axis < 0 ? rank : 0;
  if (axis < 0 || axis >= rank) return false;
  *dim = (int)axis;
  *first = 0;
  for (int i = 0; i < v->output; i++) {
    if (!n->out[i] || n->out[i]->shape.rank != rank || n->out[i]->shape.dim[axis].sym) return false;
    *first += n->out[i]->shape.dim[axis].n;
  }
  if (v->shape.rank != rank || v->shape.dim[axis].sym || *first < 0) return false;
  *count = v->shape.dim[axis].n;
  return *count > 0;
}

static bool gather_range(const Node *n, int *dim, int64_t *first, int64_t *count) {
  const Tensor *index = node_const(n, 1);
  const Shape *s = &n->in[0]->shape;
  int64_t axis = node_int(n, "axis", 0);
  axis += axis < 0 ? s->rank : 0;
  if (!index || tensor_count(index) < 1 || axis < 0 || axis >= s->rank || s->dim[axis].sym) return false;
  int64_t n_index = tensor_count(index), start = tensor_integer(index, 0);
  start += start < 0 ? s->dim[axis].n : 0;
  for (int64_t i = 0; i < n_index; i++) {
    int64_t at = tensor_integer(index, i);
    if (at + (at < 0 ? s->dim[axis].n : 0) != start + i) return false;
  }
  if (index->rank > 1 && n_index > 1) return false;
  *dim = (int)axis;
  *first = start;
  *count = n_index;
  return true;
}

bool part_range(const Value *v, int *dim, int64_t *first, int64_t *step, int64_t *count) {
  const Node *n = v->producer;
  *step = 1;
  if (n->op == OP_SLICE) return slice_range(n, dim, first, step, count);
  if (n->op == OP_SPLIT) return split_range(v, dim, first, count);
  return n->op == OP_GATHER && gather_range(n, dim, first, count);
}
