/* Operators that lay the same elements elsewhere and cannot be views: Concat, Tile, DepthToSpace, SpaceToDepth, Pad. */
#include "loops.h"

#include <string.h>

/* ---- Concat ------------------------------------------------------------------------------------------------------ */

static int64_t value_count(const Value *v) { return shape_count(&v->shape); }

/* The result, in the order of the largest input; it may be there already, with parts of it: see place.c. */
static View concat_output(Program *p, Node *n) {
  int order[MAX_RANK], largest = -1;
  if (p->view[n->out[0]->id].storage) return low_view(p, n->out[0]);
  for (int i = 0; i < n->n_in; i++)
    if (n->in[i]->tensor == NULL && (largest < 0 || value_count(n->in[i]) > value_count(n->in[largest]))) largest = i;
  View like = low_view(p, n->in[largest < 0 ? 0 : largest]);
  view_order(&like, order);
  return low_output(p, n->out[0], order);
}

void lower_concat(Program *p, Node *n) {
  no_expression(p, n);
  int axis = normal_axis(p->ctx, n, node_int(n, "axis", 0), n->out[0]->shape.rank);
  View out = concat_output(p, n);
  int64_t start = 0;
  for (int i = 0; i < n->n_in; i++) {
    View x = low_view(p, n->in[i]), part = view_slice(&out, axis, start, x.dim[axis], 1);
    if (!low_in_place(p, n, i)) low_copy(p, n, &x, &part);
    start += x.dim[axis];
  }
}

/* ---- Tile, DepthToSpace, SpaceToDepth: copies between views of more dimensions ----------------------------------- */

/* Each repeated axis becomes two, (repeats, length), the input being broadcast along the first. */
static void tile(Program *p, const Node *n) {
  const Tensor *repeats = node_const(n, 1);
  if (repeats == NULL) ctx_fail(p->ctx, n, "the repeats must be constants");
  View x = low_view(p, n->in[0]), from = x, out = low_output(p, n->out[0], NULL), to;
  int rank = 0;
  for (int i = 0; i < x.rank; i++) {
    int64_t times = tensor_integer(repeats, i);
    if (rank + 1 + (times != 1) > MAX_RANK) ctx_fail(p->ctx, n, "too many repeated axes: split it into two nodes");
    if (times != 1) {
      from.dim[rank] = times;
      from.stride[rank++] = 0;
    }
    from.dim[rank] = x.dim[i];
    from.stride[rank++] = x.stride[i];
  }
  from.rank = rank;
  if (!view_reshape(&out, rank, from.dim, &to)) ctx_fail(p->ctx, n, "the result's shape does not fit its repeats");
  low_copy(p, n, &from, &to);
}

/* DepthToSpace: [N, b, b, C, H, W] or (mode CRD) [N, C, b, b, H, W] to [N, C, H, b, W, b]. */
static void depth_to_space(Program *p, Node *n) {
  static const int dcr[6] = {0, 3, 4, 1, 5, 2}, crd[6] = {0, 1, 4, 2, 5, 3};
  bool is_crd = strcmp(node_string(n, "mode", "DCR"), "CRD") == 0;
  int64_t b = node_int(n, "blocksize", 1);
  View x = low_view(p, n->in[0]), six, to;
  int64_t c = x.dim[1] / (b * b);
  const int64_t dim_dcr[6] = {x.dim[0], b, b, c, x.dim[2], x.dim[3]},
                dim_crd[6] = {x.dim[0], c, b, b, x.dim[2], x.dim[3]};
  const int64_t *dim = is_crd ? dim_crd : dim_dcr;
  if (!view_reshape(&x, 6, dim, &six)) {
    x = low_packed(p, n->in[0]);
    view_reshape(&x, 6, dim, &six);
  }
  View from = view_transpose(&six, is_crd ? crd : dcr);
  int order[MAX_RANK];
  view_order(&x, order);
  View out = low_output(p, n->out[0], order);
  if (!view_reshape(&out, 6, from.dim, &to)) ctx_fail(p->ctx, n, "the result's shape does not fit its block size");
  low_copy(p, n, &from, &to);
}

/* SpaceToDepth: [N, C, H, b, W, b] to [N, b, b, C, H, W] (mode CRD: [N, C, b, b, H, W]). */
static void space_to_depth(Program *p, Node *n) {
  static const int dcr[6] = {0, 3, 5, 1, 2, 4}, crd[6] = {0, 1, 3, 5, 2, 4};
  bool is_crd = strcmp(node_string(n, "mode", "DCR"), "CRD") == 0;
  int64_t b = node_int(n, "blocksize", 1);
  View x = low_view(p, n->in[0]), six, to;
  const int64_t dim[6] = {x.dim[0], x.dim[1], x.dim[2] / b, b, x.dim[3] / b, b};
  if (!view_reshape(&x, 6, dim, &six)) {
    x = low_packed(p, n->in[0]);
    view_reshape(&x, 6, dim, &six);
  }
  View from = view_transpose(&six, is_crd ? crd : dcr);
  int order[MAX_RANK];
  view_order(&x, order);
  View out = low_output(p, n->out[0], order);
  if (!view_reshape(&out, 6, from.dim, &to)) ctx_fail(p->ctx, n, "the result's shape does not fit its block size");
  low_copy(p, n, &from, &to);
}

void lower_copy(Program *p, Node *n) {
  no_expression(p, n);
  if (n->op == OP_TILE)
    tile(p, n);
  else if (n->op == OP_DEPTH_TO_SPACE)
    depth_to_space(p, n);
  else
    space_to_depth(p, n);
}

/* ---- Pad --------------------------------------------------------------------------------------------------------- */

typedef struct {
  int64_t before[MAX_RANK], after[MAX_RANK];
} Pads;

static Pads read_pads(Program *p, const Node *n, int rank) {
  Pads pads = {0};
  const Tensor *t = node_const(n, 1), *axes = n->n_in > 3 ? node_const(n, 3) : NULL;
  if (t == NULL || (n->n_in > 3 && n->in[3] && !axes)) ctx_fail(p->ctx, n, "the pads and axes must be constants");
  int64_t count = tensor_count(t) / 2;
  for (int64_t i = 0; i < count; i++) {
    int a = normal_axis(p->ctx, n, axes ? tensor_integer(axes, i) : i, rank);
    pads.before[a] = tensor_integer(t, i);
    pads.after[a] = tensor_integer(t, count + i);
  }
  return pads;
}

/* Filled all over, then the input copied into the middle; negative pads cut the input instead. */
static void pad_constant(Program *p, const Node *n, View x, const Pads *pads) {
  const Tensor *value = n->n_in > 2 ? node_const(n, 2) : NULL;
  if (n->n_in > 2 && n->in[2] && !value) ctx_fail(p->ctx, n, "the value to pad with must be a constant");
  int order[MAX_RANK];
  view_order(&x, order);
  View out = low_output(p, n->out[0], order), middle = out;
  if (value)
    low_fill_tensor(p, n, value, &out);
  else
    low_fill(p, n, 0, &out);
  for (int a = 0; a < x.rank; a++) {
    int64_t cut = pads->before[a] < 0 ? -pads->before[a] : 0, cut_end = pads->after[a] < 0 ? -pads->after[a] : 0;
    int64_t count = x.dim[a] - cut - cut_end;
    if (count <= 0) return;
    x = view_slice(&x, a, cut, count, 1);
    middle = view_slice(&middle, a, pads->before[a] > 0 ? pads->before[a] : 0, count, 1);
  }
  low_copy(p, n, &x, &middle);
}

/* Which of n elements an index outside of them means. */
static int64_t source_index(const char *mode, int64_t i, int64_t n) {
  if (strcmp(mode, "edge") == 0) return i < 0 ? 0 : i >= n ? n - 1 : i;
  if (strcmp(mode, "wrap") == 0) return (i % n + n) % n;
  if (n == 1) return 0;
  int64_t period = 2 * (n - 1), r = (i % period + period) % period; /* reflect */
  return r < n ? r : period - r;
}

static void pad_by_index(Program *p, const Node *n, const View *x, const Pads *pads, const char *mode) {
  int64_t *pick[MAX_RANK] = {NULL};
  for (int a = 0; a < x->rank; a++) {
    int64_t count = n->out[0]->shape.dim[a].n;
    if (pads->before[a] == 0 && pads->after[a] == 0) continue;
    if (x->dim[a] == 0) ctx_fail(p->ctx, n, "an empty axis cannot be padded by its elements");
    pick[a] = ctx_array(p->ctx, (size_t)count, sizeof *pick[a]);
    for (int64_t i = 0; i < count; i++) pick[a][i] = source_index(mode, i - pads->before[a], x->dim[a]);
  }
  low_pick(p, n, x, n->out[0], pick);
}

void lower_pad(Program *p, Node *n) {
  no_expression(p, n);
  View x = low_view(p, n->in[0]);
  Pads pads = read_pads(p, n, x.rank);
  const char *mode = node_string(n, "mode", "constant");
  if (strcmp(mode, "constant") == 0)
    pad_constant(p, n, x, &pads);
  else if (strcmp(mode, "edge") == 0 || strcmp(mode, "wrap") == 0 || strcmp(mode, "reflect") == 0)
    pad_by_index(p, n, &x, &pads, mode);
  else
    ctx_fail(p->ctx, n, "mode \"%s\" is not one of constant, edge, reflect, wrap", mode);
}
