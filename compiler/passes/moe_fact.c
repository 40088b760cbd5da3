/* The algebra of facts: what products, sums, reductions and parts of values with known facts are.
 *
 * Everything rests on two truths about a router's choice: a slot holds one expert ([idx[t,s]==e] · [idx[t,s]==f] is 0
 * unless e == f), and no two slots of a token hold the same expert. A product of two sums over (slot, expert) pairs is
 * therefore the sum over their common pairs as soon as both sides fix the slot, or both fix the expert; anything else
 * is refused. */
#include "moe.h"

/* ---- covers ---- */

static size_t cover_words(const Mo *m) { return (size_t)((m->k * m->experts + 63) / 64); }

static Cover cover_new(Mo *m) { return ctx_array(m->c, cover_words(m), sizeof(uint64_t)); }

static void cover_set(const Mo *m, Cover a, int64_t slot, int64_t expert) {
  int64_t bit = slot * m->experts + expert;
  a[bit / 64] |= (uint64_t)1 << (bit % 64);
}

bool cover_has(const Mo *m, Cover a, int64_t slot, int64_t expert) {
  int64_t bit = slot * m->experts + expert;
  return a[bit / 64] >> (bit % 64) & 1;
}

Cover cover_full(Mo *m) {
  Cover a = cover_new(m);
  for (int64_t s = 0; s < m->k; s++)
    for (int64_t e = 0; e < m->experts; e++) cover_set(m, a, s, e);
  return a;
}

Cover cover_of_expert(Mo *m, int64_t e) {
  Cover a = cover_new(m);
  for (int64_t s = 0; s < m->k; s++) cover_set(m, a, s, e);
  return a;
}

Cover cover_of_slot(Mo *m, int64_t s) {
  Cover a = cover_new(m);
  for (int64_t e = 0; e < m->experts; e++) cover_set(m, a, s, e);
  return a;
}

Cover cover_and(Mo *m, Cover a, Cover b) {
  Cover r = cover_new(m);
  for (size_t i = 0; i < cover_words(m); i++) r[i] = a[i] & b[i];
  return r;
}

static Cover cover_or(Mo *m, Cover a, Cover b) {
  Cover r = cover_new(m);
  for (size_t i = 0; i < cover_words(m); i++) r[i] = a[i] | b[i];
  return r;
}

static bool cover_disjoint(const Mo *m, Cover a, Cover b) {
  for (size_t i = 0; i < cover_words(m); i++)
    if (a[i] & b[i]) return false;
  return true;
}

bool cover_equal(const Mo *m, Cover a, Cover b) { return cover_contains(m, a, b) && cover_contains(m, b, a); }

bool cover_contains(const Mo *m, Cover a, Cover b) {
  for (size_t i = 0; i < cover_words(m); i++)
    if (b[i] & ~a[i]) return false;
  return true;
}

bool cover_is_full(const Mo *m, Cover a) {
  for (int64_t s = 0; s < m->k; s++)
    for (int64_t e = 0; e < m->experts; e++)
      if (!cover_has(m, a, s, e)) return false;
  return true;
}

int cover_expert(const Mo *m, Cover a) {
  int found = -1;
  for (int64_t s = 0; s < m->k; s++)
    for (int64_t e = 0; e < m->experts; e++)
      if (cover_has(m, a, s, e)) {
        if (found >= 0 && found != e) return -1;
        found = (int)e;
      }
  return found;
}

int cover_slot(const Mo *m, Cover a) {
  int found = -1;
  for (int64_t s = 0; s < m->k; s++)
    for (int64_t e = 0; e < m->experts; e++)
      if (cover_has(m, a, s, e)) {
        if (found >= 0 && found != s) return -1;
        found = (int)s;
      }
  return found;
}

/* ---- facts ---- */

Fact *fact_new(Mo *m, FactKind kind, const Axes *axes) {
  Fact *f = ctx_alloc(m->c, sizeof *f);
  f->kind = kind;
  f->axes = *axes;
  f->expert = f->slot = -1;
  f->scale = 1;
  return f;
}

Fact *fact_copy(Mo *m, const Fact *f) {
  Fact *r = ctx_alloc(m->c, sizeof *r);
  *r = *f;
  return r;
}

Fact *fact_of(const Mo *m, const Value *v) { return v && (size_t)v->id < m->n_fact ? m->fact[v->id] : NULL; }

const Body *fact_body(const Fact *f, int64_t e) { return f->by ? f->by[e] : f->one; }

bool fact_has_body(const Fact *f) { return f->one || f->by; }

/* The slot is the same throughout an element: by an axis, or because there is only one. */
static bool fixes_slot(const Mo *m, const Fact *f) {
  return m->k == 1 || axes_has(&f->axes, AX_SLOT) || cover_slot(m, f->cover) >= 0;
}

static bool fixes_expert(const Mo *m, const Fact *f) {
  return axes_has(&f->axes, AX_EXPERT) || axes_has(&f->axes, AX_ROW) || cover_expert(m, f->cover) >= 0;
}

bool fact_is_plain(const Mo *m, const Fact *f) {
  if (f->weighted || f->inverse || f->negated || f->scale != 1 || f->n_base || f->plus) return false;
  if (!f->cover || axes_has(&f->axes, AX_ROW)) return true;
  if (!fixes_slot(m, f)) return false;
  for (int64_t s = 0; s < m->k; s++) { /* in each slot every expert or none: then exactly one is chosen */
    bool some = false, all = true;
    for (int64_t e = 0; e < m->experts; e++) {
      some |= cover_has(m, f->cover, s, e);
      all &= cover_has(m, f->cover, s, e);
    }
    if (some != all || (!some && axes_has(&f->axes, AX_SLOT))) return false;
  }
  return !axes_has(&f->axes, AX_EXPERT);
}

static bool same_gate(const Gate *a, const Gate *b) {
  return a->kind == b->kind && a->of == b->of && a->value == b->value && a->normalize == b->normalize;
}

/* One factor is a constant layer and the other goes through it. */
static Fact *through_layer(Mo *m, const Fact *f, const Fact *w, const Axes *axes, const Axes *summed) {
  if (summed->n != 1 || summed->a[0].kind != AX_FEATURE || !summed->a[0].index || !f->one || f->by) return NULL;
  if (f->stage != ST_ROWS && f->stage != ST_HIDDEN) return NULL;
  if (f->stage == ST_ROWS && !fact_is_plain(m, f)) return NULL;
  if (f->plus || f->n_base || f->inverse || f->negated || w->tensor->dtype != DT_F32) return NULL;
  bool stacked = w->gathered || axes_has(&w->axes, AX_EXPERT);
  Tensor *t = w->tensor;
  int rank = t->rank;
  Linear fc = {.w = t, .out_first = summed->a[0].index == 2, .stacked = stacked, .expert0 = w->offset, .step = 1};
  int64_t rows = t->dim[rank - 2], columns = t->dim[rank - 1];
  fc.count = fc.out_first ? rows : columns;
  fc.in = fc.out_first ? columns : rows;
  Body *body = ctx_alloc(m->c, sizeof *body);
  *body = *f->one;
  body->fc[f->stage == ST_ROWS ? FC1 : FC2] = fc;
  Fact *r = fact_copy(m, f);
  r->axes = *axes;
  r->one = body;
  r->stage = f->stage == ST_ROWS ? ST_LIN : ST_OUT;
  if (w->gathered) {
    if (f->cover && !cover_equal(m, f->cover, w->cover)) return NULL;
    r->cover = w->cover;
  }
  for (int i = 0; i < r->axes.n; i++)
    if (r->axes.a[i].kind == AX_FEATURE) r->axes.a[i].index = 0;
  return r;
}

/* Scores times an indicator: the weight of what was chosen. */
static Fact *scores_product(Mo *m, const Fact *p, const Fact *t, const Axes *axes) {
  if (t->kind != FK_TERM || !t->cover || t->weighted || t->negated || t->inverse || p->masked) return NULL;
  bool by_axis = axes_has(&p->axes, AX_EXPERT) && axes_has(&t->axes, AX_EXPERT);
  if (!by_axis && (p->expert < 0 || cover_expert(m, t->cover) != p->expert)) return NULL;
  Fact *r = fact_copy(m, t);
  r->axes = *axes;
  r->weighted = true;
  r->gate = p->gate;
  return r;
}

/* The pairs common to both factors, if the product is the sum over just those. */
static Cover product_cover(Mo *m, const Fact *a, const Fact *b) {
  if (a->cover && b->cover) {
    bool slot_axes = axes_has(&a->axes, AX_SLOT) && axes_has(&b->axes, AX_SLOT);
    bool expert_axes = axes_has(&a->axes, AX_EXPERT) && axes_has(&b->axes, AX_EXPERT);
    bool rows = axes_has(&a->axes, AX_ROW) && axes_has(&b->axes, AX_ROW) && a->list == b->list;
    int sa = cover_slot(m, a->cover), sb = cover_slot(m, b->cover);
    int ea = cover_expert(m, a->cover), eb = cover_expert(m, b->cover);
    if (m->k == 1 || slot_axes || expert_axes || rows || (sa >= 0 && sa == sb) || (ea >= 0 && ea == eb))
      return cover_and(m, a->cover, b->cover);
    return NULL;
  }
  const Fact *routed = a->cover ? a : b, *expert = a->cover ? b : a;
  if (!routed->cover) return NULL;
  if (axes_has(&expert->axes, AX_EXPERT)) return axes_has(&routed->axes, AX_EXPERT) ? routed->cover : NULL;
  return axes_has(&routed->axes, AX_EXPERT) ? NULL : routed->cover; /* so far the same for each expert in it */
}

static void take_body(Fact *to, const Fact *from) {
  to->one = from->one;
  to->by = from->by;
  to->stage = from->stage;
}

static Fact *term_product(Mo *m, const Fact *a, const Fact *b, const Axes *axes) {
  if (a->inverse || b->inverse) return a->inverse ? fact_divide(m, b, a, axes) : fact_divide(m, a, b, axes);
  if (a->negated || b->negated || a->plus || b->plus || a->n_base || b->n_base) return NULL;
  if (a->weighted && b->weighted) return NULL;
  const Fact *body = fact_has_body(a) ? a : b;
  if (fact_has_body(a) && fact_has_body(b)) return NULL;
  if (fact_has_body(body) && body->stage != ST_HIDDEN && body->stage != ST_OUT) return NULL;
  if (a->list && b->list && a->list != b->list) return NULL;
  Cover cover = product_cover(m, a, b);
  if (!cover) return NULL;
  Fact *r = fact_copy(m, a->weighted ? a : b);
  r->axes = *axes;
  r->cover = cover;
  r->scale = a->scale * b->scale;
  r->list = a->list ? a->list : b->list;
  take_body(r, body);
  return r;
}

Fact *fact_product(Mo *m, const Fact *a, const Fact *b, const Axes *axes, const Axes *summed) {
  if (a->kind == FK_WEIGHT && b->kind == FK_TERM) return through_layer(m, b, a, axes, summed);
  if (b->kind == FK_WEIGHT && a->kind == FK_TERM) return through_layer(m, a, b, axes, summed);
  Axes every = *axes;
  for (int i = 0; i < summed->n; i++) {
    if (summed->a[i].kind != AX_SLOT && summed->a[i].kind != AX_EXPERT) return NULL;
    if (!axes_add(&every, summed->a[i])) return NULL;
  }
  Fact *r = NULL;
  if (a->kind == FK_SCORES && b->kind == FK_TERM) r = scores_product(m, a, b, &every);
  if (b->kind == FK_SCORES && a->kind == FK_TERM) r = scores_product(m, b, a, &every);
  if (a->kind == FK_TERM && b->kind == FK_TERM) r = term_product(m, a, b, &every);
  if (r && summed->n && !r->cover) return NULL;
  if (r) r->axes = *axes;
  return r;
}

static bool same_tensor(Tensor *a, Tensor *b) { return a == b || (a && b && tensor_equal(a, b)); }

bool same_weights(const Linear *a, const Linear *b) {
  return a->out_first == b->out_first && a->stacked == b->stacked && a->expert0 == b->expert0 && a->first == b->first &&
         a->step == b->step && a->count == b->count && a->in == b->in && a->per_expert == b->per_expert &&
         same_tensor(a->w, b->w);
}

bool same_biases(const Linear *a, const Linear *b) {
  return a->b_stacked == b->b_stacked && a->b_expert0 == b->b_expert0 && a->b_len == b->b_len &&
         a->b_first == b->b_first && a->b_step == b->b_step && a->b_per_expert == b->b_per_expert &&
         a->count == b->count && same_tensor(a->b, b->b);
}

static bool same_linear(const Linear *a, const Linear *b) { return same_weights(a, b) && same_biases(a, b); }

static bool same_body(const Body *a, const Body *b) {
  return a->x == b->x && a->has_fc3 == b->has_fc3 && a->act == b->act && same_linear(&a->fc[FC1], &b->fc[FC1]) &&
         same_linear(&a->fc[FC2], &b->fc[FC2]) && same_linear(&a->fc[FC3], &b->fc[FC3]);
}

/* The same terms for other pairs: their union. Bodies are kept per expert from here on. */
Fact *fact_sum(Mo *m, const Fact *a, const Fact *b, const Axes *axes) {
  if (a->kind != FK_TERM || b->kind != FK_TERM || !a->cover || !b->cover) return NULL;
  if (a->weighted != b->weighted || a->stage != b->stage || a->scale != b->scale ||
      !cover_disjoint(m, a->cover, b->cover))
    return NULL;
  if ((a->weighted && !same_gate(&a->gate, &b->gate)) || a->inverse || b->inverse || a->negated || b->negated)
    return NULL;
  if (axes_has(&a->axes, AX_ROW) || a->plus || b->plus || a->n_base + b->n_base > 2 || a->stage == ST_LIN ||
      a->stage == ST_ROWS)
    return NULL;
  if (!axes_equal(&a->axes, axes) || !axes_equal(&b->axes, axes)) return NULL;
  Fact *r = fact_copy(m, a);
  r->cover = cover_or(m, a->cover, b->cover);
  for (int i = 0; i < b->n_base; i++) r->base[r->n_base++] = b->base[i];
  if (!fact_has_body(a)) return r;
  r->one = NULL;
  r->by = ctx_array(m->c, (size_t)m->experts, sizeof *r->by);
  for (int64_t s = 0; s < m->k; s++)
    for (int64_t e = 0; e < m->experts; e++) {
      const Body *p = cover_has(m, a->cover, s, e) ? fact_body(a, e) : NULL;
      const Body *q = cover_has(m, b->cover, s, e) ? fact_body(b, e) : NULL;
      const Body *now = p ? p : q;
      if (!now) continue;
      if (r->by[e] && r->by[e] != now && !same_body(r->by[e], now)) return NULL;
      r->by[e] = now;
    }
  return r;
}

/* Weights over the sum of a token's weights. */
Fact *fact_divide(Mo *m, const Fact *a, const Fact *norm, const Axes *axes) {
  if (a->kind != FK_TERM || norm->kind != FK_TERM || !a->weighted || !norm->weighted || a->inverse) return NULL;
  if (fact_has_body(norm) || !cover_is_full(m, norm->cover) || !same_gate(&a->gate, &norm->gate)) return NULL;
  if (axes_has(&norm->axes, AX_SLOT) || axes_has(&norm->axes, AX_EXPERT) || axes_has(&norm->axes, AX_ROW)) return NULL;
  if (a->gate.normalize || axes_has(&a->axes, AX_ROW) || a->plus || a->n_base) return NULL;
  Fact *r = fact_copy(m, a);
  r->axes = *axes;
  r->scale = a->scale / norm->scale;
  r->gate.normalize = a->gate.kind != GATE_TOPK_SOFTMAX; /* those already add up to one */
  return r;
}

/* ---- reductions ---- */

/* Are these axes summed over by a reduction of this kind? The largest of terms of which at most one is not 0 is their
 * sum. */
static bool adds_up(const Mo *m, const Node *n, const Fact *f) {
  bool indicator = !f->weighted && !fact_has_body(f) && f->scale == 1;
  if (n->op == OP_REDUCE_SUM) return true;
  if (n->op == OP_REDUCE_L1) return indicator || (!fact_has_body(f) && f->gate.kind != GATE_NONE && f->scale > 0);
  return n->op == OP_REDUCE_MAX && indicator && (fixes_expert(m, f) || m->k == 1);
}

static bool reduced_dims(const Node *n, bool on[MAX_RANK]) {
  int rank = n->in[0]->shape.rank;
  const Tensor *axes = node_const(n, 1);
  if (n->n_in > 1 && n->in[1] && !axes) return false;
  int64_t count = axes ? tensor_count(axes) : 0;
  if (!count && node_int(n, "noop_with_empty_axes", 0)) return false;
  for (int d = 0; d < rank; d++) on[d] = count == 0;
  for (int64_t i = 0; i < count; i++) {
    int64_t d = tensor_integer(axes, i);
    d += d < 0 ? rank : 0;
    if (d < 0 || d >= rank) return false;
    on[d] = true;
  }
  return true;
}

Fact *fact_reduce(Mo *m, const Node *n, const Fact *f) {
  bool on[MAX_RANK];
  int start[MAX_RANK + 1];
  if (f->kind != FK_TERM || !f->cover || f->inverse || f->negated || f->plus || f->n_base || !adds_up(m, n, f))
    return NULL;
  if (!axes_by_dim(&n->in[0]->shape, &f->axes, start) || !reduced_dims(n, on)) return NULL;
  Fact *r = fact_copy(m, f);
  r->axes = (Axes){0};
  for (int d = 0; d < n->in[0]->shape.rank; d++)
    for (int i = start[d]; i < start[d + 1]; i++) {
      AxisKind kind = f->axes.a[i].kind;
      if (!on[d])
        axes_add(&r->axes, f->axes.a[i]);
      else if (kind != AX_SLOT && kind != AX_EXPERT && kind != AX_SUM)
        return NULL;
    }
  return r;
}

/* ---- parts ---- */

static Fact *take_expert(Mo *m, const Fact *f, int64_t e) {
  Fact *r = fact_copy(m, f);
  if (f->kind == FK_SCORES && !f->masked)
    r->expert = (int)e;
  else if (f->kind == FK_TERM && f->cover)
    r->cover = cover_and(m, f->cover, cover_of_expert(m, e));
  else if (f->kind == FK_TERM && f->by) {
    r->one = f->by[e];
    r->by = NULL;
  } else
    return NULL;
  return r;
}

static Fact *take_slot(Mo *m, const Fact *f, int64_t s) {
  Fact *r = fact_copy(m, f);
  if (f->kind == FK_INDEX)
    r->slot = (int)s;
  else if (f->kind == FK_TERM && f->cover)
    r->cover = cover_and(m, f->cover, cover_of_slot(m, s));
  else
    return NULL;
  return r;
}

static Fact *take_coords(Mo *m, const Fact *f, int64_t first, int64_t count) {
  Fact *r = fact_copy(m, f);
  r->n_coord = (int)count;
  r->coord = f->coord + first;
  return r;
}

Fact *fact_take(Mo *m, const Shape *s, const Fact *f, int dim, int64_t first, int64_t count) {
  int start[MAX_RANK + 1];
  if (!axes_by_dim(s, &f->axes, start) || dim < 0 || dim >= s->rank || first < 0) return NULL;
  if (first == 0 && count == s->dim[dim].n && !s->dim[dim].sym) return fact_copy(m, f);
  if (start[dim + 1] - start[dim] != 1) return NULL;
  Axis a = f->axes.a[start[dim]];
  if (first + count > a.n || count < 1) return NULL;
  Fact *r = NULL;
  if (a.kind == AX_COORD)
    r = take_coords(m, f, first, count);
  else if (a.kind == AX_FREE)
    r = fact_copy(m, f);
  else if (count == 1 && a.kind == AX_EXPERT)
    r = take_expert(m, f, first);
  else if (count == 1 && a.kind == AX_SLOT)
    r = take_slot(m, f, first);
  if (!r) return NULL;
  if (count == 1)
    axes_remove(&r->axes, start[dim]);
  else
    r->axes.a[start[dim]].n = count;
  return r;
}

/* ---- biases ---- */

/* Adds a constant or gathered bias to the layer that has just been applied. */
Fact *fact_bias(Mo *m, const Fact *f, const Fact *b, const Axes *axes) {
  if (f->kind != FK_TERM || b->kind != FK_WEIGHT || !f->one || f->by || !fact_is_plain(m, f)) return NULL;
  if (f->stage != ST_LIN && f->stage != ST_OUT) return NULL;
  if (!axes_equal(axes, &f->axes) || b->tensor->dtype != DT_F32) return NULL;
  Body *body = ctx_alloc(m->c, sizeof *body);
  *body = *f->one;
  Linear *fc = &body->fc[f->stage == ST_LIN ? FC1 : FC2];
  int feature = axes_find(&b->axes, AX_FEATURE);
  if (fc->b || feature < 0 || b->axes.a[feature].n != fc->count) return NULL;
  fc->b = b->tensor;
  fc->b_stacked = b->gathered || axes_has(&b->axes, AX_EXPERT);
  fc->b_expert0 = b->offset;
  fc->b_len = fc->count;
  fc->b_first = 0;
  fc->b_step = 1;
  Fact *r = fact_copy(m, f);
  r->one = body;
  if (b->gathered && (!f->cover || !cover_equal(m, f->cover, b->cover))) return NULL;
  return r;
}
