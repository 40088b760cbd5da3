/* Loop nests over strided views: see loops.h. */
#include "loops.h"

const int ROW_MAJOR[MAX_RANK] = {0, 1, 2, 3, 4, 5, 6, 7};

static bool mergeable(const Loops *l, int64_t dim, const int64_t *stride) {
  int last = l->rank - 1;
  for (int k = 0; k < l->n_views; k++)
    if (l->stride[k][last] != stride[k] * dim) return false;
  return true;
}

Loops loops_of(int rank, const int64_t *dim, const int *order, int n_views, const View *const *view) {
  Loops l = {.n_views = n_views};
  for (int i = 0; i < rank; i++) {
    int d = order ? order[i] : i;
    int64_t stride[LOOP_VIEWS];
    if (dim[d] == 1) continue;
    for (int k = 0; k < n_views; k++) stride[k] = view[k]->stride[d];
    bool merge = l.rank > 0 && mergeable(&l, dim[d], stride);
    int at = merge ? l.rank - 1 : l.rank++;
    l.dim[at] = merge ? l.dim[at] * dim[d] : dim[d];
    for (int k = 0; k < n_views; k++) l.stride[k][at] = stride[k];
  }
  return l;
}

Rows loops_rows(const Loops *l, const int64_t *scale) {
  Rows r = {.rows = 1, .n = 1};
  int outer = l->rank > 0 ? l->rank - 1 : 0;
  if (l->rank > 0) {
    r.n = l->dim[outer];
    for (int k = 0; k < l->n_views; k++) r.step[k] = l->stride[k][outer];
  }
  r.table[r.n_table++] = outer;
  for (int i = 0; i < outer; i++) {
    r.rows *= l->dim[i];
    r.table[r.n_table++] = l->dim[i];
    for (int k = 0; k < l->n_views; k++) r.table[r.n_table++] = l->stride[k][i] * (scale ? scale[k] : 1);
  }
  return r;
}

int64_t view_count(const View *w) {
  int64_t count = 1;
  for (int i = 0; i < w->rank; i++) count *= w->dim[i];
  return count;
}

void value_dims(Ctx *c, const Node *n, const Value *v, int64_t *dim) {
  if (v->shape.rank < 0 || shape_count(&v->shape) < 0) ctx_fail(c, n, "the shape of %s is not known", v->name);
  for (int i = 0; i < v->shape.rank; i++) dim[i] = v->shape.dim[i].n;
}

View low_dense(Program *p, const Node *n, const View *w, const int *order, bool full) {
  View from = *w;
  for (int i = 0; i < w->rank && !full; i++)
    if (w->stride[i] == 0) from.dim[i] = 1;
  View to = low_temp(p, n->out[0] ? n->out[0]->name : "copy", w->dtype, view_count(&from));
  to.rank = w->rank;
  int64_t stride = 1;
  for (int i = w->rank - 1; i >= 0; i--) {
    int d = order ? order[i] : i;
    to.dim[d] = from.dim[d];
    to.stride[d] = from.dim[d] == 1 ? 0 : stride;
    stride *= from.dim[d];
  }
  low_copy(p, n, &from, &to);
  for (int i = 0; i < w->rank; i++) to.dim[i] = w->dim[i];
  return to;
}

int normal_axis(Ctx *c, const Node *n, int64_t axis, int rank) {
  if (axis < -rank || axis >= rank) ctx_fail(c, n, "axis %lld is out of range for rank %d", (long long)axis, rank);
  return (int)(axis < 0 ? axis + rank : axis);
}

void no_expression(Program *p, const Node *n) {
  if (n->expr != NULL) ctx_fail(p->ctx, n, "nothing can be fused to this operator");
}
