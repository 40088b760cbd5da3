/* Recognition of mixture-of-experts layers: every form of them becomes one moecc.Moe node (compiler.h; MOE.md
 * explains). Needs shapes inferred, constants folded and GELU recognised. Keeps shapes and types of everything; a layer
 * that is not understood stays as it is. Weights are stacked without a second copy where they already lie together.
 *
 * The driver: for each TopK (or ArgMax: the choice of one), facts are made for all that depends on it, in topological
 * order, until one says "the whole layer". Which values a router speaks of is thus never searched for, and layers may
 * overlap in any way. */
#include "moe.h"
#include "recognise.h"

#include <string.h>

void moe_blame(Mo *m, int rank, const Node *n, const char *fmt, ...) {
  if (rank <= m->why_rank) return;
  va_list ap;
  va_start(ap, fmt);
  m->why = ctx_vformat(m->c, fmt, ap);
  va_end(ap);
  m->why_rank = rank;
  m->why_node = n;
}

/* ---- the router ---- */

enum { MAX_EXPERTS = 4096, MAX_K = 64 }; /* beyond, a TopK is no router */

static bool is_choice(const Node *n) { return n->op == OP_TOP_K || n->op == OP_ARG_MAX; }

/* How many are chosen, the larger first and of equals the first; 0: not known. */
static int64_t chosen_count(const Node *n) {
  if (n->op == OP_ARG_MAX) return !node_int(n, "select_last_index", 0);
  const Tensor *k = node_const(n, 1);
  return k && tensor_count(k) == 1 && node_int(n, "largest", 1) ? tensor_integer(k, 0) : 0;
}

static bool read_choice(Mo *m, Node *topk) {
  const Shape *s = &topk->in[0]->shape;
  if (!chosen_count(topk) || !shape_known(s) || s->rank < 1) return false;
  int64_t axis = node_int(topk, "axis", topk->op == OP_ARG_MAX ? 0 : -1);
  axis += axis < 0 ? s->rank : 0;
  if (axis < 0 || axis >= s->rank) return false;
  m->topk = topk;
  m->scores = topk->in[0];
  m->k = chosen_count(topk);
  m->experts = s->dim[axis].n;
  if (m->k < 1 || m->k > m->experts || m->experts > MAX_EXPERTS || m->k > MAX_K) return false;
  m->tokens = 1;
  for (int d = 0; d < s->rank; d++) {
    Axis a = d == axis ? (Axis){AX_EXPERT, 0, m->experts} : (Axis){AX_TOKEN, m->token_axes.n, s->dim[d].n};
    if (!axes_add(&m->score_axes, a) || (d != axis && !axes_add(&m->token_axes, a))) return false;
    if (d != axis && (s->dim[d].n < 1 || !size_mul(m->tokens, s->dim[d].n, &m->tokens))) return false;
  }
  return m->token_axes.n < MAX_AXES - 3;
}

/* The scores are the softmax over all experts of these, or NULL. */
static Value *logits_of(const Mo *m) {
  Value *v = value_root(m->scores);
  Node *n = v->producer;
  int start[MAX_RANK + 1];
  if (!n || n->op != OP_SOFTMAX || !axes_by_dim(&v->shape, &m->score_axes, start)) return NULL;
  int64_t axis = node_int(n, "axis", -1);
  axis += axis < 0 ? v->shape.rank : 0;
  if (axis < 0 || axis >= v->shape.rank || start[axis + 1] - start[axis] != 1) return NULL;
  return m->score_axes.a[start[axis]].kind == AX_EXPERT ? n->in[0] : NULL;
}

static Fact *state(Mo *m, const Value *v, FactKind kind, const Axes *axes) {
  Fact *f = fact_new(m, kind, axes);
  if ((size_t)v->id < m->n_fact) m->fact[v->id] = f;
  return f;
}

/* What is known from the start: the scores, and what the choice gives. */
static void state_choice(Mo *m) {
  m->logits = logits_of(m);
  Gate plain = {GATE_NONE, m->scores, m->scores, false};
  Gate gate = m->logits ? (Gate){GATE_SOFTMAX, m->logits, m->scores, false} : plain;
  for (Value *v = m->scores;; v = v->producer->in[0]) { /* the scores and what they are a view of */
    state(m, v, FK_SCORES, &m->score_axes)->gate = gate;
    if (v == value_root(v)) break;
  }
  if (m->logits) state(m, m->logits, FK_SCORES, &m->score_axes)->gate = (Gate){GATE_NONE, m->logits, m->logits, false};
  Axes axes = {0};
  for (int i = 0; i < m->score_axes.n; i++) {
    Axis a = m->score_axes.a[i];
    axes_add(&axes, a.kind == AX_EXPERT ? (Axis){AX_SLOT, 0, m->k} : a);
  }
  bool both = m->topk->op == OP_TOP_K;
  Value *weights = both ? m->topk->out[0] : NULL;
  Value *indices = !both ? m->topk->out[0] : m->topk->n_out > 1 ? m->topk->out[1] : NULL;
  if (weights) {
    Fact *w = state(m, weights, FK_TERM, &axes);
    w->cover = cover_full(m);
    w->weighted = true;
    w->gate = gate;
  }
  if (indices) state(m, indices, FK_INDEX, &axes);
}

/* ---- following it ---- */

static bool has_fact(const Mo *m, const Node *n) {
  for (int i = 0; i < n->n_in; i++)
    if (fact_of(m, n->in[i])) return true;
  return false;
}

static void blame_stop(Mo *m, const Node *n) {
  for (int i = 0; i < n->n_in; i++) {
    Fact *f = fact_of(m, n->in[i]);
    if (!f || f->kind != FK_TERM || f->stage == ST_ROWS) continue;
    if (fact_has_body(f))
      moe_blame(m, 3, n, "what %s does with the experts' results is not part of a known form", n->op_type);
    else if (f->weighted && n->op == OP_MUL)
      moe_blame(m, 2, n, "what is weighted here is not two linear layers with constant weights of the same tokens");
  }
}

static void blame_missing(Mo *m, const Value *v, const Fact *f) {
  if (f->kind != FK_TERM || f->stage != ST_OUT || !f->cover || axes_has(&f->axes, AX_ROW) ||
      axes_has(&f->axes, AX_SLOT))
    return;
  if (axes_has(&f->axes, AX_EXPERT) || axes_has(&f->axes, AX_SUM) || cover_is_full(m, f->cover)) return;
  Text missing = {.ctx = m->c};
  int64_t present = 0;
  for (int64_t e = 0; e < m->experts; e++) {
    bool all = true;
    for (int64_t s = 0; s < m->k; s++) all &= cover_has(m, f->cover, s, e);
    present += all;
    if (!all && missing.len < 60) text_add(&missing, "%s%lld", missing.len ? ", " : "", (long long)e);
  }
  moe_blame(m, 4 + (int)(present < 1000 ? present : 1000), v->producer,
            "only %lld of %lld experts are added up here: missing %s", (long long)present, (long long)m->experts,
            missing.text ? missing.text : "");
}

static void follow_node(Mo *m, Node *n) {
  bool known = false;
  for (int o = 0; o < n->n_out; o++) {
    Value *v = n->out[o];
    if (!v || (size_t)v->id >= m->n_fact || m->fact[v->id]) continue;
    Fact *f = moe_rule(m, n, o);
    if (!f) continue;
    known = true;
    m->saw_expert |= fact_has_body(f);
    if (moe_complete(m, v, f) && moe_build(m, v, f)) {
      m->built++;
      continue;
    }
    m->fact[v->id] = f;
    blame_missing(m, v, f);
  }
  if (!known) blame_stop(m, n);
}

/* Everything about one choice. memo NULL: nothing is changed. facts: room for one per value, `count` of them, to be
 * reused; values that come into being on the way have none. */
static void follow(Mo *m, Node *topk, struct MoeMemo *memo, Fact **facts, size_t count) {
  Graph *g = topk->graph;
  *m = (Mo){.g = g, .c = g->ctx, .memo = memo, .fact = facts, .n_fact = count};
  memset(facts, 0, count * sizeof *facts);
  if (!read_choice(m, topk)) return;
  state_choice(m);
  for (Node *n = g->first; n; n = n->next)
    if (n != topk && has_fact(m, n)) follow_node(m, n);
}

static const char *explanation(const Mo *m) {
  if (m->built || !m->saw_expert || !m->why) return NULL;
  const char *where = m->why_node ? m->why_node->name : "";
  return ctx_format(m->c, "looks like the router of a mixture-of-experts layer, but %s%s%s%s", m->why,
                    *where ? " (\"" : "", where, *where ? "\")" : "");
}

void pass_moe(Graph *g) {
  struct MoeMemo *memo = moe_memo_new(g);
  moe_from_contrib(g, memo);
  size_t count = g->n_values;
  Fact **facts = ctx_array(g->ctx, count + 1, sizeof *facts);
  for (Node *n = g->first; n; n = n->next) {
    if (!is_choice(n)) continue;
    Mo m;
    follow(&m, n, memo, facts, count);
    const char *why = explanation(&m);
    if (why) ctx_warn(g->ctx, n, "%s; it stays as it is", why);
  }
  graph_remove_dead(g);
}

/* The nearest choice that n depends on, within reason. */
static Node *topk_above(Node *n, int depth) {
  if (is_choice(n)) return n;
  for (int i = 0; depth > 0 && i < n->n_in; i++) {
    Node *found = n->in[i] && n->in[i]->producer ? topk_above(n->in[i]->producer, depth - 1) : NULL;
    if (found) return found;
  }
  return NULL;
}

const char *moe_why_not(Node *n) {
  for (int depth = 1; depth <= 8; depth++) {
    Node *topk = topk_above(n, depth);
    if (!topk) continue;
    Mo m;
    size_t count = n->graph->n_values;
    follow(&m, topk, NULL, ctx_array(n->graph->ctx, count + 1, sizeof(Fact *)), count);
    return explanation(&m);
  }
  return NULL;
}
