/* Rules about indices: masks made from the chosen experts' numbers, lists of the rows that chose an expert, gathering
 * rows and weights, and scattering results back. */
#include "moe.h"

#include <math.h>

static int64_t norm_axis(const Node *n, int rank, int64_t fallback) {
  int64_t axis = node_int(n, "axis", fallback);
  return axis < 0 ? axis + rank : axis;
}

static Fact *elementwise(Mo *m, const Node *n, FactKind kind, const Fact *a, const Value *va, const Axes *b,
                         const Value *vb) {
  Labelled la = {.axes = &a->axes, .shape = &va->shape}, lb = {.axes = b, .shape = &vb->shape};
  int out[MAX_RANK], rank = n->out[0]->shape.rank;
  Axes axes, summed;
  if (rank < va->shape.rank || rank < vb->shape.rank) return NULL;
  labels_broadcast(&la, rank);
  labels_broadcast(&lb, rank);
  for (int d = 0; d < rank; d++) out[d] = d;
  return axes_product(&la, &lb, out, rank, &axes, &summed) ? fact_new(m, kind, &axes) : NULL;
}

/* ---- indicators ---- */

/* What an index says of the experts: all of them, in its slots. */
static Cover index_cover(Mo *m, const Fact *index) {
  return index->slot < 0 ? cover_full(m) : cover_of_slot(m, index->slot);
}

Fact *rule_equal(Mo *m, Node *n) {
  int i = fact_of(m, n->in[0]) ? 0 : 1;
  Fact *index = fact_of(m, n->in[i]);
  Value *other = n->in[1 - i];
  double e;
  if (!index || index->kind != FK_INDEX) return NULL;
  if (is_number(other, &e)) {
    int64_t expert = (int64_t)e - index->offset;
    if (expert < 0 || expert >= m->experts || e != floor(e) || !shape_equal(&n->in[i]->shape, &n->out[0]->shape))
      return NULL;
    Fact *r = fact_new(m, FK_TERM, &index->axes);
    r->cover = cover_and(m, cover_of_expert(m, expert), index_cover(m, index));
    return r;
  }
  if (!other->tensor || tensor_count(other->tensor) != m->experts)
    return NULL; /* 0, 1, … along one dimension: every expert */
  for (int64_t j = 0; j < m->experts; j++)
    if (tensor_number(other->tensor, j) != (double)(j + index->offset)) return NULL;
  Axes axes = {0};
  axes_add(&axes, (Axis){AX_EXPERT, 0, m->experts});
  Fact *r = elementwise(m, n, FK_TERM, index, n->in[i], &axes, other);
  if (r && !axes_has(&r->axes, AX_EXPERT)) return NULL;
  if (r) r->cover = index_cover(m, index);
  return r;
}

Fact *rule_one_hot(Mo *m, Node *n) {
  Fact *index = fact_of(m, n->in[0]);
  const Tensor *depth = node_const(n, 1), *values = node_const(n, 2);
  int start[MAX_RANK + 1], rank = n->in[0]->shape.rank;
  if (!index || index->kind != FK_INDEX || index->offset || !depth || !values || tensor_count(values) != 2) return NULL;
  if (tensor_count(depth) != 1 || tensor_number(depth, 0) != (double)m->experts) return NULL;
  if (tensor_number(values, 0) != 0 || tensor_number(values, 1) != 1) return NULL;
  int64_t axis = norm_axis(n, rank + 1, -1);
  if (axis < 0 || axis > rank || !axes_by_dim(&n->in[0]->shape, &index->axes, start)) return NULL;
  Axes axes = {0};
  axes_add_part(&axes, &index->axes, 0, start[axis]);
  axes_add(&axes, (Axis){AX_EXPERT, 0, m->experts});
  if (!axes_add_part(&axes, &index->axes, start[axis], index->axes.n)) return NULL;
  Fact *r = fact_new(m, FK_TERM, &axes);
  r->cover = index_cover(m, index);
  return r;
}

/* ---- lists of rows ---- */

/* The positions where an indicator of one expert holds. */
Fact *rule_non_zero(Mo *m, Node *n) {
  Fact *f = fact_of(m, n->in[0]);
  const Shape *s = &n->in[0]->shape;
  int start[MAX_RANK + 1];
  if (!f || f->kind != FK_TERM || f->weighted || fact_has_body(f) || f->negated || f->inverse || !f->cover) return NULL;
  if (cover_expert(m, f->cover) < 0 || axes_has(&f->axes, AX_EXPERT) || axes_has(&f->axes, AX_ROW) || s->rank > 4)
    return NULL;
  if (axes_has(&f->axes, AX_FREE) || !axes_by_dim(s, &f->axes, start)) return NULL;
  RowList *list = ctx_alloc(m->c, sizeof *list);
  list->cover = f->cover;
  list->expert = cover_expert(m, f->cover);
  Axes axes = {0};
  axes_add(&axes, (Axis){AX_COORD, 0, s->rank});
  axes_add(&axes, (Axis){AX_ROW, 0, 0});
  Fact *r = fact_new(m, FK_COORD, &axes);
  r->list = list;
  r->n_coord = s->rank;
  r->coord = ctx_array(m->c, 4, sizeof *r->coord);
  for (int d = 0; d < s->rank; d++) axes_add_part(&r->coord[d], &f->axes, start[d], start[d + 1]);
  return r;
}

/* The coordinates as one sequence; false if this fact is not exactly that: rows, and coordinates last if there are
 * several. */
static bool coords_last(const Fact *f) {
  int n = f->n_coord > 1;
  if (f->kind != FK_COORD || f->axes.n != 1 + n || f->axes.a[0].kind != AX_ROW) return false;
  return !n || f->axes.a[1].kind == AX_COORD;
}

static bool is_all_tokens(const Mo *m, const Fact *coords, int n) {
  int at = 0;
  for (int c = 0; c < n; c++)
    for (int i = 0; i < coords->coord[c].n; i++, at++)
      if (at >= m->token_axes.n || coords->coord[c].a[i].kind != AX_TOKEN ||
          coords->coord[c].a[i].index != m->token_axes.a[at].index)
        return false;
  return at == m->token_axes.n;
}

/* Do the coordinates index these dimensions of s, each with its own length? */
static bool coords_fit(const Fact *coords, const Shape *s, int dim) {
  for (int c = 0; c < coords->n_coord; c++)
    if (dim + c >= s->rank || s->dim[dim + c].sym ||
        s->dim[dim + c].n != axes_count(&coords->coord[c], 0, coords->coord[c].n))
      return false;
  return true;
}

/* x[token(r)]: rows of anything. */
static Fact *gather_tokens(Mo *m, Value *data, const Fact *coords, const Axes *row_axes, int dim) {
  Fact *rows = rows_of_value(m, data);
  if (!rows || !is_all_tokens(m, coords, coords->n_coord)) return NULL;
  for (int d = 0; d < dim; d++)
    if (data->shape.dim[d].n != 1) return NULL;
  Axes axes = *row_axes;
  if (!axes_add_part(&axes, &rows->axes, m->token_axes.n, rows->axes.n)) return NULL;
  Fact *r = fact_copy(m, rows);
  r->axes = axes;
  r->cover = coords->list->cover;
  r->list = coords->list;
  m->saw_expert = true;
  return r;
}

/* Weights at the rows of a list: those of the pair (slot, expert) that made the row. */
static Fact *gather_choice(Mo *m, const Fact *f, const Shape *s, const Fact *coords, const Axes *row_axes, int dim) {
  const RowList *list = coords->list;
  int start[MAX_RANK + 1];
  Axes indexed = {0}, rest = {0};
  if (f->negated || f->inverse || f->plus || f->n_base || !axes_by_dim(s, &f->axes, start)) return NULL;
  for (int c = 0; c < coords->n_coord; c++) {
    Axes now = {0};
    axes_add_part(&now, &f->axes, start[dim + c], start[dim + c + 1]);
    if (now.n && !axes_equal(&now, &coords->coord[c])) return NULL;
    axes_add_part(&indexed, &now, 0, now.n);
  }
  axes_add_part(&rest, &f->axes, 0, start[dim]);
  axes_add_part(&rest, &f->axes, start[dim + coords->n_coord], f->axes.n);
  if (rest.n || fact_has_body(f)) return NULL;
  Fact *r = fact_new(m, FK_TERM, row_axes);
  r->list = list;
  r->cover = list->cover;
  r->weighted = true;
  r->gate = f->gate;
  if (f->kind == FK_SCORES) return f->expert == list->expert && !f->masked ? r : NULL;
  if (f->kind != FK_TERM || !f->cover || !cover_contains(m, f->cover, list->cover)) return NULL;
  bool one_pair = cover_expert(m, f->cover) >= 0 || /* of those it sums over, just the row's own is not 0 */
                  (cover_slot(m, f->cover) >= 0 && cover_slot(m, f->cover) == cover_slot(m, list->cover));
  if (m->k > 1 && !axes_has(&f->axes, AX_SLOT) && !one_pair) return NULL;
  r->weighted = f->weighted;
  r->scale = f->scale;
  return r;
}

static Fact *gather_rows(Mo *m, Value *data, const Fact *coords, const Axes *row_axes, int dim) {
  Fact *f = fact_of(m, data);
  if (!coords_fit(coords, &data->shape, dim)) return NULL;
  if (f && (f->kind == FK_SCORES || (f->kind == FK_TERM && !fact_has_body(f))))
    return gather_choice(m, f, &data->shape, coords, row_axes, dim);
  double zero = 1; /* rows of zeros to which an expert is added are fine, other constants are no tokens */
  if (data->tensor && (!is_number(data, &zero) || zero != 0)) return NULL;
  return gather_tokens(m, data, coords, row_axes, dim);
}

/* ---- gathering ---- */

/* Constants of the chosen experts: W[idx[t, s]]. */
static Fact *gather_weights(Mo *m, Tensor *t, const Fact *index) {
  int features = t->rank - 1;
  if (features < 1 || features > 2 || t->dim[0] < index->offset + m->experts || index->offset < 0) return NULL;
  Axes axes = index->axes;
  for (int i = 0; i < features; i++)
    if (t->dim[i + 1] < 2 || !axes_add(&axes, (Axis){AX_FEATURE, i + 1, t->dim[i + 1]})) return NULL;
  Fact *r = fact_new(m, FK_WEIGHT, &axes);
  r->tensor = t;
  r->gathered = true;
  r->offset = index->offset;
  r->cover = index_cover(m, index);
  m->saw_expert = true;
  return r;
}

/* The same of experts' matrices [experts, …] that are a view of a constant. */
static Fact *gather_matrices(Mo *m, Value *v, const Fact *index) {
  Fact *w = weight_of(m, v, 2);
  if (!w || w->gathered || index->offset || w->axes.n != 3 || w->axes.a[0].kind != AX_EXPERT) return NULL;
  int start[MAX_RANK + 1];
  if (v->shape.rank != 3 || !axes_by_dim(&v->shape, &w->axes, start)) return NULL;
  Fact *r = fact_copy(m, w);
  r->axes = index->axes;
  if (!axes_add_part(&r->axes, &w->axes, 1, 3)) return NULL;
  r->gathered = true;
  r->cover = index_cover(m, index);
  m->saw_expert = true;
  return r;
}

Fact *rule_gather(Mo *m, Node *n) {
  Fact *index = fact_of(m, n->in[1]);
  const Shape *s = &n->in[0]->shape;
  int64_t axis = norm_axis(n, s->rank, 0);
  if (axis < 0 || axis >= s->rank) return NULL;
  if (index && index->kind == FK_INDEX) {
    if (axis != 0) return NULL;
    return n->in[0]->tensor ? gather_weights(m, n->in[0]->tensor, index) : gather_matrices(m, n->in[0], index);
  }
  if (index && index->kind == FK_COORD && index->n_coord == 1 && index->axes.n == 1)
    return gather_rows(m, n->in[0], index, &index->axes, (int)axis);
  Fact *f = fact_of(m, n->in[0]);
  int dim;
  int64_t first, step, count;
  if (!f || index || !part_range(n->out[0], &dim, &first, &step, &count)) return NULL;
  return fact_take(m, s, f, dim, first, count);
}

/* Picks each token's chosen experts out of something that has all of them along `dim`. */
static Fact *pick_chosen(Mo *m, Value *data, const Fact *index, int dim, const Axes *out) {
  int start[MAX_RANK + 1];
  Fact *f = fact_of(m, data);
  if (!f) f = expert_of(m, data);
  if (!f || index->offset || !axes_by_dim(&data->shape, &f->axes, start) || start[dim + 1] - start[dim] != 1)
    return NULL;
  if (f->axes.a[start[dim]].kind != AX_EXPERT) return NULL;
  Fact *r = fact_copy(m, f);
  r->axes = *out;
  r->kind = FK_TERM;
  if (f->kind == FK_SCORES && !f->masked)
    r->weighted = true;
  else if (f->kind != FK_TERM || f->cover || f->stage < ST_HIDDEN)
    return NULL;
  r->cover = index_cover(m, index);
  return r;
}

Fact *rule_gather_elements(Mo *m, Node *n) {
  Fact *index = fact_of(m, n->in[1]);
  const Shape *s = &n->in[0]->shape, *si = &n->in[1]->shape;
  int si_start[MAX_RANK + 1];
  int64_t axis = norm_axis(n, s->rank, 0);
  if (!index || axis < 0 || axis >= s->rank || s->rank != si->rank || !axes_by_dim(si, &index->axes, si_start))
    return NULL;
  if (index->kind == FK_COORD && index->n_coord == 1 && index->axes.n == 2 && index->axes.a[0].kind == AX_ROW &&
      axis == 0 && s->rank == 2 && index->axes.a[1].kind == AX_FREE && s->dim[1].n == si->dim[1].n) {
    Axes rows = {0};
    axes_add(&rows, index->axes.a[0]);
    return gather_rows(m, n->in[0], index, &rows, 0);
  }
  if (index->kind != FK_INDEX) return NULL;
  Fact *f = fact_of(m, n->in[0]);
  if (!f) f = expert_of(m, n->in[0]);
  int start[MAX_RANK + 1];
  if (!f || !axes_by_dim(s, &f->axes, start)) return NULL;
  Axes out = {0};
  for (int d = 0; d < s->rank; d++) { /* every other dimension must run over the same in both */
    Axes a = {0}, b = {0};
    axes_add_part(&a, &f->axes, start[d], start[d + 1]);
    axes_add_part(&b, &index->axes, si_start[d], si_start[d + 1]);
    if (d != axis && !(b.n == 1 && a.n == 1 && b.a[0].kind == AX_FREE && a.a[0].n == b.a[0].n) && !axes_equal(&a, &b))
      return NULL;
    if (!axes_add_part(&out, d == axis ? &b : &a, 0, d == axis ? b.n : a.n)) return NULL;
  }
  return pick_chosen(m, n->in[0], index, (int)axis, &out);
}

/* data[b…, idx[b…, s]] with batch dimensions: the same without the repetition over features. */
static Fact *gather_nd_batched(Mo *m, Node *n, const Fact *index, int batch) {
  const Shape *s = &n->in[0]->shape, *si = &n->in[1]->shape;
  Fact *f = fact_of(m, n->in[0]);
  if (!f) f = expert_of(m, n->in[0]);
  int start[MAX_RANK + 1], si_start[MAX_RANK + 1];
  if (!f || si->dim[si->rank - 1].n != 1 || batch >= s->rank) return NULL;
  if (!axes_by_dim(s, &f->axes, start) || !axes_by_dim(si, &index->axes, si_start)) return NULL;
  Axes a = {0}, b = {0}, out = index->axes;
  axes_add_part(&a, &f->axes, 0, start[batch]);
  axes_add_part(&b, &index->axes, 0, si_start[batch]);
  if (!axes_equal(&a, &b) || !axes_add_part(&out, &f->axes, start[batch + 1], f->axes.n)) return NULL;
  return pick_chosen(m, n->in[0], index, batch, &out);
}

Fact *rule_gather_nd(Mo *m, Node *n) {
  Fact *index = fact_of(m, n->in[1]);
  int64_t batch = node_int(n, "batch_dims", 0);
  int rank = n->in[1]->shape.rank;
  if (!index || rank < 1) return NULL;
  if (index->kind == FK_COORD && !batch && coords_last(index)) {
    Axes rows = {0};
    axes_add(&rows, index->axes.a[0]);
    return gather_rows(m, n->in[0], index, &rows, 0);
  }
  if (index->kind != FK_INDEX) return NULL;
  if (batch) return gather_nd_batched(m, n, index, (int)batch);
  bool single = n->in[1]->shape.dim[rank - 1].n == 1;
  return single && n->in[0]->tensor ? gather_weights(m, n->in[0]->tensor, index) : NULL;
}

/* ---- scattering ---- */

/* A table [tokens, experts] filled with a number, into which the chosen experts' weights (or ones) are written. */
static Fact *scatter_choice(Mo *m, Node *n, const Fact *index) {
  const Shape *s = &n->in[0]->shape;
  int64_t axis = norm_axis(n, s->rank, 0);
  int start[MAX_RANK + 1];
  double fill, one = 0;
  if (axis < 0 || axis >= s->rank || !is_number(n->in[0], &fill) || index->offset || index->slot >= 0) return NULL;
  if (s->dim[axis].n != m->experts || !axes_by_dim(&n->in[1]->shape, &index->axes, start)) return NULL;
  Axes axes = {0};
  for (int d = 0; d < s->rank; d++) {
    if (d == axis)
      axes_add(&axes, (Axis){AX_EXPERT, 0, m->experts});
    else if (s->dim[d].n != n->in[1]->shape.dim[d].n)
      return NULL;
    else
      axes_add_part(&axes, &index->axes, start[d], start[d + 1]);
    for (int i = start[d]; d == axis && i < start[d + 1]; i++)
      if (index->axes.a[i].kind != AX_SLOT) return NULL;
  }
  if (axes_has(&axes, AX_SLOT)) return NULL;
  Fact *upd = fact_of(m, n->in[2]), *r = fact_new(m, FK_TERM, &axes);
  r->cover = cover_full(m);
  bool add = node_string(n, "reduction", "none")[0] == 'a';
  if (is_number(n->in[2], &one)) return fill == 0 && one == 1 ? r : NULL;
  if (!upd || upd->kind != FK_TERM || !upd->weighted || fact_has_body(upd) || upd->inverse || upd->n_base) return NULL;
  if (!axes_equal(&upd->axes, &index->axes) || !cover_is_full(m, upd->cover)) return NULL;
  r->weighted = true;
  r->gate = upd->gate;
  r->scale = upd->scale;
  if (fill == 0) return r;
  if (fill > -1e9 || add || upd->gate.kind != GATE_NONE || upd->gate.normalize || upd->scale != 1) return NULL;
  r->kind = FK_SCORES;
  r->masked = true;
  return r;
}

/* Results of a list's rows go back to their tokens (or to their token and slot). */
static Fact *scatter_rows(Mo *m, Node *n, const Fact *coords, int n_coord) {
  Value *data = n->in[0], *updates = n->in[2];
  const char *reduction = node_string(n, "reduction", "none");
  double fill = 1;
  bool zero = is_number(data, &fill) && fill == 0, add = reduction[0] == 'a';
  Fact *u = fact_of(m, updates);
  if (!u) u = expert_of(m, updates);
  if (!u || u->kind != FK_TERM || u->list != coords->list || u->axes.n < 1 || u->axes.a[0].kind != AX_ROW) return NULL;
  if ((fact_has_body(u) && u->stage < ST_HIDDEN) || (!add && reduction[0] != 'n') ||
      !coords_fit(coords, &data->shape, 0))
    return NULL;
  Fact *r = fact_copy(m, u);
  r->axes = (Axes){0};
  for (int c = 0; c < n_coord; c++) axes_add_part(&r->axes, &coords->coord[c], 0, coords->coord[c].n);
  if (!axes_add_part(&r->axes, &u->axes, 1, u->axes.n)) return NULL;
  r->list = NULL;
  r->plus = NULL;
  if (zero && !u->plus) return r;
  if (u->plus ? add || u->plus != value_root(data) : !add) return NULL; /* rows of data itself, or added to data */
  Fact *old = fact_of(m, data);
  if (zero) return r;
  if (old) return fact_sum(m, old, r, &r->axes);
  if (r->stage != ST_OUT || axes_has(&r->axes, AX_SLOT)) return NULL;
  r->base[r->n_base++] = data;
  return r;
}

Fact *rule_scatter_elements(Mo *m, Node *n) {
  Fact *index = fact_of(m, n->in[1]);
  if (!index) return NULL;
  if (index->kind == FK_INDEX) return scatter_choice(m, n, index);
  bool by_rows = index->kind == FK_COORD && index->n_coord == 1 && index->axes.n == 2 &&
                 index->axes.a[0].kind == AX_ROW && index->axes.a[1].kind == AX_FREE && n->in[0]->shape.rank == 2 &&
                 norm_axis(n, 2, 0) == 0 && n->in[0]->shape.dim[1].n == index->axes.a[1].n;
  return by_rows ? scatter_rows(m, n, index, 1) : NULL;
}

Fact *rule_scatter_nd(Mo *m, Node *n) {
  Fact *index = fact_of(m, n->in[1]);
  return index && coords_last(index) ? scatter_rows(m, n, index, index->n_coord) : NULL;
}

/* ---- Concat ---- */

static Fact *concat_coords(Mo *m, const Node *n, int axis) {
  Axes axes = {0};
  Fact *r = fact_new(m, FK_COORD, &axes);
  int start[MAX_RANK + 1], row_dim = -1;
  r->coord = ctx_array(m->c, 4, sizeof *r->coord);
  for (int i = 0; i < n->n_in; i++) {
    Fact *f = fact_of(m, n->in[i]);
    if (!f || f->kind != FK_COORD || (r->list && f->list != r->list) || !axes_by_dim(&n->in[i]->shape, &f->axes, start))
      return NULL;
    if (r->n_coord + f->n_coord > 4) return NULL;
    for (int d = 0; d < n->in[i]->shape.rank; d++)
      for (int j = start[d]; j < start[d + 1]; j++) {
        AxisKind kind = f->axes.a[j].kind;
        if (kind == AX_COORD && d != axis) return NULL;
        if (kind == AX_ROW && (d == axis || (row_dim >= 0 && row_dim != d))) return NULL;
        if (kind == AX_ROW)
          row_dim = d;
        else if (kind != AX_COORD)
          return NULL;
      }
    r->list = f->list;
    for (int c = 0; c < f->n_coord; c++) r->coord[r->n_coord++] = f->coord[c];
  }
  if (row_dim < 0) return NULL;
  Axis coord = {AX_COORD, 0, r->n_coord}, row = {AX_ROW, 0, 0};
  axes_add(&r->axes, axis < row_dim ? coord : row);
  axes_add(&r->axes, axis < row_dim ? row : coord);
  return r;
}

/* Terms side by side along a new dimension, which can only be summed over. */
static Fact *concat_terms(Mo *m, const Node *n, int axis) {
  Fact *sum = NULL;
  int start[MAX_RANK + 1];
  for (int i = 0; i < n->n_in; i++) {
    Fact *f = fact_of(m, n->in[i]);
    if (!f || f->kind != FK_TERM || axes_has(&f->axes, AX_SUM) || f->n_base ||
        !axes_by_dim(&n->in[i]->shape, &f->axes, start))
      return NULL;
    if (start[axis] != start[axis + 1]) return NULL;
    sum = sum ? fact_sum(m, sum, f, &sum->axes) : fact_copy(m, f);
    if (!sum) return NULL;
  }
  if (!sum) return NULL;
  Axes axes = {0};
  axes_add_part(&axes, &sum->axes, 0, start[axis]);
  axes_add(&axes, (Axis){AX_SUM, 0, n->n_in});
  if (!axes_add_part(&axes, &sum->axes, start[axis], sum->axes.n)) return NULL;
  sum->axes = axes;
  return sum;
}

Fact *rule_concat(Mo *m, Node *n) {
  int rank = n->out[0]->shape.rank;
  int64_t axis = norm_axis(n, rank, 0);
  if (n->n_in < 1 || axis < 0 || axis >= rank) return NULL;
  for (int i = 0; i < n->n_in; i++)
    if (!n->in[i] || n->in[i]->shape.rank != rank) return NULL;
  Fact *f = fact_of(m, n->in[0]);
  if (f && f->kind == FK_COORD) return concat_coords(m, n, (int)axis);
  return f && f->kind == FK_TERM ? concat_terms(m, n, (int)axis) : NULL;
}
