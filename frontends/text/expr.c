/* Node.expr as text, the value of a node's attribute `expr`:
 *
 *   expr := { "%" number "=" term ";" } term
 *   term := "$acc" | "$" input | "%" number | literal | operator [ "<" attributes ">" ] "(" term { "," term } ")"
 *
 * "$acc" is the operator's own result, "$2" the node's input 2. A step that several others read is named with % and
 * written once, so that the text is never longer than the expression.
 */
#include "text.h"
#include <math.h>
#include <string.h>

/* ---- reading ---- */

typedef struct {
  Scanner s;
  Graph *g; /* of the node; detached nodes belong to it */
  Expr *e;
  int n_in;
  int *named;
  size_t n_named, cap_named;
} ExprReader;

static int add_step(ExprReader *r, ExprStep step) {
  Expr *e = r->e;
  e->step = ctx_grow(r->s.ctx, e->step, e->n, &e->cap, sizeof step);
  e->step[e->n++] = step;
  return (int)e->n - 1;
}

static int read_term(ExprReader *r);

static int read_operation(ExprReader *r) {
  Scanner *s = &r->s;
  const char *at = s->p, *domain = "", *name = scan_identifier(s);
  while (name && scan_accept(s, '.')) {
    domain = *domain ? ctx_format(s->ctx, "%s.%s", domain, name) : name;
    name = scan_identifier(s);
  }
  Op op = name ? op_find(domain, name) : OP_NONE;
  if (op == OP_NONE || !op_is_elementwise(op))
    scan_fail(s, at, "%s is not an elementwise operator", name ? name : "this");
  Node *n = ctx_alloc(s->ctx, sizeof *n);
  n->op = op;
  n->name = n->scope = "";
  n->op_type = op_info(op)->name;
  n->graph = r->g;
  if (scan_accept(s, '<')) {
    size_t cap = 0;
    do {
      n->attr = ctx_grow(s->ctx, n->attr, n->n_attr, &cap, sizeof *n->attr);
      n->attr[n->n_attr++] = text_read_attr(s, op);
    } while (scan_accept(s, ','));
    scan_expect(s, '>');
  }
  ExprStep step = {.kind = EX_OP, .op = n, .arg = {-1, -1, -1}};
  int args = 0;
  scan_expect(s, '(');
  do {
    if (args == 3) scan_fail(s, NULL, "an elementwise operator has at most 3 operands");
    step.arg[args++] = read_term(r);
  } while (scan_accept(s, ','));
  scan_expect(s, ')');
  n->n_in = n->n_own = args;
  const OpInfo *info = op_info(op);
  if (args < info->min_inputs || (info->max_inputs >= 0 && args > info->max_inputs))
    scan_fail(s, at, "%s with %d operands", name, args);
  return add_step(r, step);
}

static int read_dollar(ExprReader *r) {
  Scanner *s = &r->s;
  const char *at = s->p, *word = scan_identifier(s);
  if (word && strcmp(word, "acc") == 0) return add_step(r, (ExprStep){.kind = EX_ACC, .arg = {-1, -1, -1}});
  if (word) scan_fail(s, at, "$acc or the number of an input is expected");
  int64_t k = scan_integer(s);
  if (k < 0 || k >= r->n_in) scan_fail(s, at, "the node has no input %lld", (long long)k);
  return add_step(r, (ExprStep){.kind = EX_INPUT, .input = (int)k, .arg = {-1, -1, -1}});
}

static int read_term(ExprReader *r) {
  Scanner *s = &r->s;
  scan_enter(s);
  int result;
  char next = scan_peek(s);
  if (scan_accept(s, '$')) {
    result = read_dollar(r);
  } else if (scan_accept(s, '%')) {
    const char *at = s->p;
    int64_t k = scan_integer(s);
    if (k < 0 || k >= (int64_t)r->n_named) scan_fail(s, at, "%%%lld is not defined", (long long)k);
    result = r->named[k];
  } else if (next == '-' || (next >= '0' && next <= '9') || next == 'i' || next == 'n') {
    Literal l = scan_literal(s);
    result = add_step(r, (ExprStep){.kind = EX_NUMBER, .number = scan_number(&l), .arg = {-1, -1, -1}});
  } else {
    result = read_operation(r);
  }
  s->depth--;
  return result;
}

Expr *text_read_expr(Graph *g, const char *text, const char *origin, int n_in) {
  Ctx *c = g->ctx;
  ExprReader r = {.s = scan_start(c, text, origin), .g = g, .e = ctx_alloc(c, sizeof(Expr)), .n_in = n_in};
  Scanner *s = &r.s;
  r.e->dtype = DT_F32;
  for (;;) {
    const char *from = (scan_peek(s), s->p);
    bool naming = false;
    if (scan_accept(s, '%')) {
      const char *at = s->p;
      int64_t k = scan_integer(s);
      naming = scan_accept(s, '=');
      if (naming && k != (int64_t)r.n_named) scan_fail(s, at, "%%%zu is the next to define", r.n_named);
    }
    if (!naming) s->p = from;
    int step = read_term(&r);
    if (!naming) {
      if (step != (int)r.e->n - 1) add_step(&r, r.e->step[step]);
      break;
    }
    scan_expect(s, ';');
    r.named = ctx_grow(c, r.named, r.n_named, &r.cap_named, sizeof(int));
    r.named[r.n_named++] = step;
  }
  if (scan_peek(s)) scan_fail(s, NULL, "the expression should end here");
  return r.e;
}

/* ---- printing ---- */

typedef struct {
  const Expr *e;
  int *readers; /* of each step */
  int *name;    /* its number after %, or -1 */
  Text text;
} ExprPrinter;

static void print_term(ExprPrinter *p, int i);

static void print_operation(ExprPrinter *p, const ExprStep *s) {
  const OpInfo *info = op_info(s->op->op);
  text_add(&p->text, "%s%s%s", info->domain, *info->domain ? "." : "", info->name);
  for (size_t i = 0; i < s->op->n_attr; i++) {
    text_add(&p->text, i ? ", " : "<");
    text_attr(&p->text, &s->op->attr[i]);
  }
  text_add(&p->text, s->op->n_attr ? ">(" : "(");
  for (int i = 0; i < 3 && s->arg[i] >= 0; i++) {
    if (i) text_add(&p->text, ", ");
    print_term(p, s->arg[i]);
  }
  text_add(&p->text, ")");
}

static void print_step(ExprPrinter *p, int i) {
  const ExprStep *s = &p->e->step[i];
  switch (s->kind) {
  case EX_ACC: text_add(&p->text, "$acc"); break;
  case EX_INPUT: text_add(&p->text, "$%d", s->input); break;
  case EX_NUMBER: text_float(&p->text, s->number); break;
  case EX_OP: print_operation(p, s); break;
  }
}

static void print_term(ExprPrinter *p, int i) {
  if (p->name[i] >= 0) {
    text_add(&p->text, "%%%d", p->name[i]);
  } else {
    print_step(p, i);
  }
}

char *text_of_expr(Ctx *c, const Expr *e) {
  ExprPrinter p = {.e = e, .text = {.ctx = c}};
  p.readers = ctx_array(c, e->n, sizeof(int));
  p.name = ctx_array(c, e->n, sizeof(int));
  for (size_t i = 0; i < e->n; i++) {
    p.name[i] = -1;
    for (int k = 0; k < 3 && e->step[i].kind == EX_OP && e->step[i].arg[k] >= 0; k++) p.readers[e->step[i].arg[k]]++;
  }
  int named = 0;
  for (size_t i = 0; i + 1 < e->n; i++) {
    if (e->step[i].kind != EX_OP || p.readers[i] < 2) continue;
    text_add(&p.text, "%%%d = ", named);
    print_step(&p, (int)i);
    text_add(&p.text, "; ");
    p.name[i] = named++;
  }
  print_step(&p, (int)e->n - 1);
  return p.text.text;
}
