/* Where outputs go: a value that is only going to be part of a Concat is computed right into the Concat's result, by
 * kernels that can write rows with gaps between them. */
#include "lower/lower.h"

/* Whether the node does nothing to v but copy it into its result, and does so whenever v is computed. */
static bool only_copies(const Program *p, const Node *n, const Value *v) {
  if (n->op != OP_CONCAT || n->expr || p->folding || !v->producer) return false;
  if (v->is_output || v->n_uses != 1 || v->dtype != n->out[0]->dtype) return false;
  return n->tasks == v->producer->tasks && v->tasks == n->tasks && n->out[0]->tasks == n->tasks;
}

/* The part of a Concat's result that is input i. */
static View part_of(Program *p, const Node *n, int i) {
  View w = low_view(p, n->out[0]);
  int64_t start = 0;
  const int rank = w.rank, axis = (int)((node_int(n, "axis", 0) + rank) % rank);
  for (int k = 0; k < i; k++) start += n->in[k]->shape.dim[axis].n;
  return view_slice(&w, axis, start, n->in[i]->shape.dim[axis].n, 1);
}

bool low_in_place(Program *p, const Node *n, int i) {
  const View *w = &p->view[n->in[i]->id], *out = &p->view[n->out[0]->id];
  if (!out->storage || w->storage != out->storage) return false;
  View part = part_of(p, n, i);
  if (w->offset != part.offset) return false;
  for (int d = 0; d < part.rank; d++)
    if (w->dim[d] != part.dim[d] || (w->dim[d] > 1 && w->stride[d] != part.stride[d])) return false;
  return true;
}

/* Rows (along the last dimension of `order`) that lie evenly: how far apart; 0: they do not. */
static int64_t row_pitch(const View *w, const int *order) {
  int last = order[w->rank - 1];
  if (w->stride[last] != 1) return 0;
  int64_t pitch = w->dim[last], next = 0;
  for (int i = w->rank - 2; i >= 0; i--) {
    int d = order[i];
    if (w->dim[d] == 1) continue;
    if (next == 0) next = pitch = w->stride[d];
    if (w->stride[d] != next) return 0;
    next *= w->dim[d];
  }
  return pitch >= w->dim[last] ? pitch : 0;
}

View low_output_rows(Program *p, Value *v, const int *order, int64_t *pitch) {
  const Node *n = v->n_uses == 1 ? v->uses[0].node : NULL;
  if (n && only_copies(p, n, v)) {
    Value *whole = n->out[0];
    if (!p->view[whole->id].storage) low_output(p, whole, order);
    View part = part_of(p, n, v->uses[0].input);
    *pitch = row_pitch(&part, order);
    if (*pitch) return p->view[v->id] = part;
  }
  View w = low_output(p, v, order);
  *pitch = w.dim[order[w.rank - 1]];
  return w;
}
