/* Axes: what the dimensions of a value run over, kept apart from where the dimensions begin and end (moe.h). */
#include "moe.h"

bool axes_add(Axes *x, Axis a) {
  if (a.n == 1 && a.kind != AX_ROW) return true;
  if (x->n == MAX_AXES) return false;
  x->a[x->n++] = a;
  return true;
}

bool axes_add_part(Axes *x, const Axes *from, int first, int end) {
  for (int i = first; i < end; i++)
    if (!axes_add(x, from->a[i])) return false;
  return true;
}

int axes_find(const Axes *x, AxisKind kind) {
  for (int i = 0; i < x->n; i++)
    if (x->a[i].kind == kind) return i;
  return -1;
}

bool axes_has(const Axes *x, AxisKind kind) { return axes_find(x, kind) >= 0; }

static bool axis_equal(Axis a, Axis b) { return a.kind == b.kind && a.index == b.index && a.n == b.n; }

bool axes_equal(const Axes *x, const Axes *y) {
  if (x->n != y->n) return false;
  for (int i = 0; i < x->n; i++)
    if (!axis_equal(x->a[i], y->a[i])) return false;
  return true;
}

void axes_remove(Axes *x, int at) {
  for (int i = at + 1; i < x->n; i++) x->a[i - 1] = x->a[i];
  x->n--;
}

/* -1 if the product is too large, or runs over a row list, whose length is not known. */
int64_t axes_count(const Axes *x, int first, int end) {
  int64_t n = 1;
  for (int i = first; i < end; i++)
    if (x->a[i].kind == AX_ROW || !size_mul(n, x->a[i].n, &n)) return -1;
  return n;
}

bool axes_by_dim(const Shape *s, const Axes *x, int start[MAX_RANK + 1]) {
  int at = 0;
  if (s->rank < 0) return false;
  for (int d = 0; d < s->rank; d++) {
    start[d] = at;
    if (s->dim[d].sym || s->dim[d].n < 0) {
      if (at == x->n || x->a[at].kind != AX_ROW) return false;
      at++;
      continue;
    }
    int64_t n = 1;
    while (n < s->dim[d].n && at < x->n && x->a[at].kind != AX_ROW)
      if (!size_mul(n, x->a[at++].n, &n)) return false;
    if (n != s->dim[d].n) return false;
  }
  start[s->rank] = at;
  return at == x->n;
}

bool axes_transpose(const Node *n, const Axes *x, Axes *out) {
  const Shape *s = &n->in[0]->shape;
  int start[MAX_RANK + 1];
  const int64_t *perm;
  if (!axes_by_dim(s, x, start)) return false;
  size_t given = node_ints(n, "perm", &perm);
  if (given && (int)given != s->rank) return false;
  *out = (Axes){0};
  for (int d = 0; d < s->rank; d++) {
    int from = given ? (int)perm[d] : s->rank - 1 - d;
    if (from < 0 || from >= s->rank || !axes_add_part(out, x, start[from], start[from + 1])) return false;
  }
  return true;
}

/* Dimensions of length 1 that become longer gain a free axis; Tile of a longer one repeats the whole of it. */
bool axes_expand(const Shape *from, const Shape *to, const Axes *x, Axes *out) {
  int start[MAX_RANK + 1];
  if (!axes_by_dim(from, x, start) || to->rank < from->rank) return false;
  *out = (Axes){0};
  for (int d = 0; d < to->rank; d++) {
    int f = d - (to->rank - from->rank);
    int64_t old = f < 0 ? 1 : from->dim[f].n, now = to->dim[d].n;
    bool rows = f >= 0 && (from->dim[f].sym || old < 0);
    if (!rows) {
      if (to->dim[d].sym || old < 1 || now < old || now % old) return false;
      if (!axes_add(out, (Axis){AX_FREE, 0, now / old})) return false;
    }
    if (f >= 0 && !axes_add_part(out, x, start[f], start[f + 1])) return false;
  }
  return true;
}

static bool unify_axis(Axis a, Axis b, Axis *out) {
  if (a.n != b.n && a.kind != AX_ROW) return false;
  if (a.kind == AX_FREE || b.kind == AX_FREE) {
    *out = a.kind == AX_FREE ? b : a;
    return true;
  }
  if (a.kind != b.kind) return false;
  *out = a.index ? a : b; /* a weight's feature says which of its dimensions it is */
  return a.kind == AX_FEATURE || a.index == b.index;
}

/* Two runs of axes over the same dimension; an empty one is broadcast, a single free one takes any of its length. */
static bool unify_runs(const Axes *a, int a0, int a1, const Axes *b, int b0, int b1, Axes *out) {
  *out = (Axes){0};
  if (a0 == a1) return axes_add_part(out, b, b0, b1);
  if (b0 == b1) return axes_add_part(out, a, a0, a1);
  if (a1 - a0 == 1 && a->a[a0].kind == AX_FREE && axes_count(b, b0, b1) == a->a[a0].n)
    return axes_add_part(out, b, b0, b1);
  if (b1 - b0 == 1 && b->a[b0].kind == AX_FREE && axes_count(a, a0, a1) == b->a[b0].n)
    return axes_add_part(out, a, a0, a1);
  if (a1 - a0 != b1 - b0) return false;
  for (int i = 0; i < a1 - a0; i++) {
    Axis u;
    if (!unify_axis(a->a[a0 + i], b->a[b0 + i], &u) || !axes_add(out, u)) return false;
  }
  return true;
}

static int label_dim(const Labelled *x, int label) {
  for (int d = 0; d < x->shape->rank; d++)
    if (x->label[d] == label) return d;
  return -1;
}

/* A token, slot, expert or row axis can only occur once. */
static bool axes_distinct(const Axes *x) {
  for (int i = 0; i < x->n; i++)
    for (int j = 0; j < i; j++)
      if (x->a[i].kind <= AX_ROW && x->a[i].kind == x->a[j].kind && x->a[i].index == x->a[j].index) return false;
  return true;
}

bool axes_product(const Labelled *a, const Labelled *b, const int *out, int n_out, Axes *result, Axes *summed) {
  int sa[MAX_RANK + 1], sb[MAX_RANK + 1];
  if (!axes_by_dim(a->shape, a->axes, sa) || !axes_by_dim(b->shape, b->axes, sb)) return false;
  *result = *summed = (Axes){0};
  bool used[2 * MAX_RANK] = {false};
  for (int pass = 0; pass < 2; pass++) /* first the labels of the result, then those that are summed over */
    for (int i = 0; i < (pass ? 2 * MAX_RANK : n_out); i++) {
      int label = pass ? i : out[i];
      if (used[label]) continue;
      used[label] = true;
      int da = label_dim(a, label), db = label_dim(b, label);
      Axes run;
      if (!unify_runs(a->axes, da < 0 ? 0 : sa[da], da < 0 ? 0 : sa[da + 1], b->axes, db < 0 ? 0 : sb[db],
                      db < 0 ? 0 : sb[db + 1], &run))
        return false;
      if (!axes_add_part(pass ? summed : result, &run, 0, run.n)) return false;
    }
  return axes_distinct(result);
}

void labels_broadcast(Labelled *x, int rank) {
  for (int d = 0; d < x->shape->rank; d++) x->label[d] = rank - x->shape->rank + d;
}
