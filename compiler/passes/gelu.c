/* Recognises GELU by what is computed, not by how it is written.
 *
 * Needs: shapes; tasks marked.
 * Gives: Gelu, approximate "none" (erf) or "tanh".
 * Breaks: nothing.
 *
 * Around every Erf, Tanh or Sigmoid there are few candidates for the argument x (values before it) and the result y
 * (values after it) of the whole formula. For each pair in which y depends on x and numbers alone, y is evaluated as a
 * function of x at some points and compared with both forms of GELU. So any order of operands and factors, any
 * spelling of powers and quotients and the sigmoid spelling of the tanh form are found, and nothing else is.
 * Constants that are sqrt(2), 1/sqrt(2), sqrt(2/pi) or 0.044715 rounded to half precision count as those numbers.
 */
#include "match.h"
#include "recognise.h"
#include <math.h>

enum { MAX_CANDIDATES = 16, MAX_DEPTH = 8 };

typedef struct {
  Value *item[MAX_CANDIDATES];
  int n;
} Candidates;

/* A formula's value at x = at; adds the nodes passed to match if that is not NULL. */
typedef struct {
  const Value *x;
  double at;
  Match *match;
} Formula;

/* ---- evaluation ---- */

static double known_number(double v) {
  static const double known[] = {1.4142135623730951, 0.70710678118654752, 0.79788456080286536, 0.044715};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (same_number(v, known[i])) return known[i];
  return v;
}

static double apply(Op op, double a, double b) {
  switch (op) {
  case OP_ADD: return a + b;
  case OP_SUB: return a - b;
  case OP_MUL: return a * b;
  case OP_DIV: return a / b;
  case OP_POW: return pow(a, b);
  case OP_NEG: return -a;
  case OP_RECIPROCAL: return 1 / a;
  case OP_ERF: return erf(a);
  case OP_TANH: return tanh(a);
  case OP_SIGMOID: return 1 / (1 + exp(-a));
  case OP_EXP: return exp(a);
  case OP_IDENTITY: return a;
  default: return NAN;
  }
}

static int arity(Op op) {
  switch (op) {
  case OP_ADD:
  case OP_SUB:
  case OP_MUL:
  case OP_DIV:
  case OP_POW: return 2;
  case OP_NEG:
  case OP_RECIPROCAL:
  case OP_ERF:
  case OP_TANH:
  case OP_SIGMOID:
  case OP_EXP:
  case OP_IDENTITY: return 1;
  default: return 0;
  }
}

/* NaN if v is not a formula in x. */
static double evaluate(const Formula *f, const Value *v, int depth) {
  double number;
  if (v == f->x) return f->at;
  if (value_is_number(v, &number)) return known_number(number);
  const Node *n = v->producer;
  if (depth == 0 || !n || n->expr || arity(n->op) == 0) return NAN;
  if (!shape_equal(&v->shape, &f->x->shape)) return NAN;
  if (f->match) match_add(f->match, n);
  double a = evaluate(f, n->in[0], depth - 1);
  if (isnan(a)) return NAN;
  return apply(n->op, a, arity(n->op) == 2 ? evaluate(f, n->in[1], depth - 1) : 0);
}

static double gelu_erf(double x) { return 0.5 * x * (1 + erf(x * 0.70710678118654752)); }
static double gelu_tanh(double x) { return 0.5 * x * (1 + tanh(0.79788456080286536 * (x + 0.044715 * x * x * x))); }

static bool agrees(const Value *y, const Value *x, double (*wanted)(double)) {
  for (int i = -24; i <= 24; i++) {
    double at = 0.25 * i + 0.01, w = wanted(at);
    Formula f = {.x = x, .at = at};
    if (!(fabs(evaluate(&f, y, MAX_DEPTH) - w) <= 4e-6 * fmax(1, fabs(at)))) return false;
  }
  return true;
}

/* ---- candidates ---- */

static void add_candidate(Candidates *c, Value *v) {
  for (int i = 0; i < c->n; i++)
    if (c->item[i] == v) return;
  if (c->n < MAX_CANDIDATES && !v->tensor) c->item[c->n++] = v;
}

/* What v is computed from, v included, nearest first. */
static Candidates arguments(Value *v) {
  Candidates c = {0};
  add_candidate(&c, v);
  for (int i = 0; i < c.n; i++) {
    const Node *n = c.item[i]->producer;
    for (int k = 0; n && !n->expr && k < arity(n->op); k++) add_candidate(&c, n->in[k]);
  }
  return c;
}

/* What is computed from v by elementwise operators, nearest first. */
static Candidates results(Value *v) {
  Candidates c = {0};
  add_candidate(&c, v);
  for (int i = 0; i < c.n; i++)
    for (size_t u = 0; u < c.item[i]->n_uses && u < 4; u++) {
      const Node *n = c.item[i]->uses[u].node;
      if (arity(n->op) > 0 && !n->expr && n->tasks == v->producer->tasks) add_candidate(&c, n->out[0]);
    }
  return c;
}

static bool try_pair(Value *x, Value *y) {
  if (x == y || !y->producer || !shape_equal(&x->shape, &y->shape) || x->dtype != y->dtype) return false;
  Formula probe = {.x = x, .at = 1};
  double one = evaluate(&probe, y, MAX_DEPTH);
  if (!(fabs(one - gelu_erf(1)) < 1e-3)) return false;
  const char *form = agrees(y, x, gelu_erf) ? "none" : agrees(y, x, gelu_tanh) ? "tanh" : NULL;
  if (!form) return false;
  Match match = {0};
  probe.match = &match;
  evaluate(&probe, y, MAX_DEPTH);
  if (!match_closed(&match, y->producer)) return false;
  node_set_string(take_over(y, OP_GELU, 1, &x), "approximate", form);
  return true;
}

static bool recognise(Node *n) {
  if (n->op != OP_ERF && n->op != OP_TANH && n->op != OP_SIGMOID) return false;
  if (n->expr || !n->out[0] || !dtype_is_float(n->out[0]->dtype)) return false;
  Candidates xs = arguments(n->in[0]), ys = results(n->out[0]);
  for (int i = 0; i < xs.n; i++)
    for (int k = 0; k < ys.n; k++)
      if (try_pair(xs.item[i], ys.item[k])) return true;
  return false;
}

void pass_gelu(Graph *g) {
  size_t count;
  Node **list = node_list(g, &count);
  for (size_t i = 0; i < count; i++)
    if (!node_gone(list[i])) recognise(list[i]);
}
