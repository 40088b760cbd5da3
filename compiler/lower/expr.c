/* Elementwise expressions (Node.expr) as C text, and from that the EPILOGUE holes of kernels.
 *
 * Every operator of an expression becomes one `const` temporary, in order, so that the emitted text reads like the
 * formula; numbers stand in place. Types are found from the operands: an expression may mix them (comparisons give
 * bool, Cast what it says), but vector forms are for float throughout, a bool inside them being 0.0f or 1.0f.
 */
#include "expr.h"
#include "loops.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 40 }; /* longest list of operators spelled out in a kernel's name */

/* ---- types ----------------------------------------------------------------------------------------------------------
 */

static bool op_gives_bool(Op op) {
  switch (op) {
  case OP_EQUAL:
  case OP_GREATER:
  case OP_GREATER_OR_EQUAL:
  case OP_LESS:
  case OP_LESS_OR_EQUAL:
  case OP_AND:
  case OP_OR:
  case OP_XOR:
  case OP_NOT:
  case OP_IS_NAN:
  case OP_IS_INF: return true;
  default: return false;
  }
}

/* The type of the operands of step i, conditions and numbers aside: what op_expression is asked for. */
static DType operand_type(const Expr *e, size_t i, const DType *type) {
  const ExprStep *s = &e->step[i];
  for (int k = s->op->op == OP_WHERE ? 1 : 0; k < 3; k++)
    if (s->arg[k] >= 0 && (size_t)s->arg[k] < i && e->step[s->arg[k]].kind != EX_NUMBER) return type[s->arg[k]];
  return e->dtype;
}

void expr_types(const Node *n, const Expr *e, DType *type) {
  for (size_t i = 0; i < e->n; i++) {
    const ExprStep *s = &e->step[i];
    if (s->kind == EX_INPUT)
      type[i] = n->in[s->input]->dtype;
    else if (s->kind != EX_OP)
      type[i] = e->dtype;
    else if (op_gives_bool(s->op->op))
      type[i] = DT_BOOL;
    else if (s->op->op == OP_CAST)
      type[i] = op_cast_type(s->op);
    else
      type[i] = operand_type(e, i, type);
  }
}

static DType *types_of(Ctx *c, const Node *n, const Expr *e) {
  DType *type = ctx_array(c, e->n, sizeof *type);
  expr_types(n, e, type);
  return type;
}

bool expr_is_vector(const Node *n, const Expr *e) {
  DType *type = types_of(n->graph->ctx, n, e);
  for (size_t i = 0; i < e->n; i++) {
    const ExprStep *s = &e->step[i];
    if (s->kind != EX_OP && type[i] != DT_F32) return false;
    if (s->kind == EX_OP && type[i] != DT_F32 && type[i] != DT_BOOL) return false;
    if (s->kind == EX_OP && op_expression(s->op, DT_F32, true) == NULL) return false;
  }
  return e->n > 0 && type[e->n - 1] == DT_F32;
}

/* ---- text -----------------------------------------------------------------------------------------------------------
 */

static const char *float_number(Ctx *c, DType t, double v) {
  bool single = t != DT_F64;
  if (isnan(v)) return single ? "NAN" : "(double)NAN";
  if (isinf(v))
    return v < 0 ? (single ? "(-INFINITY)" : "(-(double)INFINITY)") : single ? "INFINITY" : "(double)INFINITY";
  char *s = ctx_format(c, single ? "%.9g" : "%.17g", v);
  if (strtod(ctx_format(c, single ? "%.7g" : "%.15g", v), NULL) == v) s = ctx_format(c, single ? "%.7g" : "%.15g", v);
  bool plain = strpbrk(s, ".e") == NULL;
  s = ctx_format(c, "%s%s%s", s, plain ? ".0" : "", single ? "f" : "");
  return v < 0 || s[0] == '-' ? ctx_format(c, "(%s)", s) : s;
}

const char *expr_number(Ctx *c, DType t, double v) {
  if (dtype_is_float(t)) return float_number(c, t, v);
  if (isnan(v)) v = 0;
  if (t == DT_I64 || t == DT_I32) {
    if (v <= -9.2233720368547758e18) return "INT64_MIN";
    if (v <= -2147483648.0 && t == DT_I32) return "INT32_MIN";
  }
  return ctx_format(c, v < 0 ? "(%.0f)" : t == DT_U64 || t == DT_U32 ? "%.0fu" : "%.0f", v);
}

bool value_one_number(const Value *v, double *out) {
  if (v->tensor == NULL || tensor_count(v->tensor) != 1) return false;
  *out = tensor_number(v->tensor, 0);
  return dtype_is_float(v->dtype) || fabs(*out) < 9.0e15;
}

/* Puts operand texts into an expression's $0, $1, $2. */
static const char *paste(Ctx *c, const char *pattern, const char *const arg[3]) {
  Text t = {.ctx = c};
  for (const char *s = pattern; *s; s++) {
    if (s[0] == '$' && s[1] >= '0' && s[1] <= '2')
      text_add(&t, "%s", arg[*++s - '0']);
    else
      text_write(&t, s, 1);
  }
  return t.len ? t.text : "";
}

typedef struct {
  Ctx *ctx;
  const Node *node;
  const Expr *expr;
  bool vector;
  const int *slot;
  const char *const *literal;
  DType *type;
} Printer;

static const char *constant_text(const Printer *p, DType t, const char *number) {
  (void)t;
  return p->vector ? ctx_format(p->ctx, "vf_set1(%s)", number) : number;
}

/* Step k as an operand of a step that works on `wanted`. */
static const char *operand_text(const Printer *p, int k, DType wanted) {
  const ExprStep *s = &p->expr->step[k];
  switch (s->kind) {
  case EX_ACC: return "acc";
  case EX_NUMBER: return constant_text(p, wanted, expr_number(p->ctx, wanted, s->number));
  case EX_INPUT:
    if (p->literal != NULL && p->literal[s->input] != NULL) return constant_text(p, wanted, p->literal[s->input]);
    return ctx_format(p->ctx, "x%d", p->slot[s->input]);
  default: return ctx_format(p->ctx, "t%d", k);
  }
}

static const char *step_text(const Printer *p, size_t i) {
  const ExprStep *s = &p->expr->step[i];
  DType t = operand_type(p->expr, i, p->type);
  const char *pattern = op_expression(s->op, p->vector ? DT_F32 : t, p->vector);
  if (pattern == NULL) ctx_fail(p->ctx, p->node, "%s does not work on %s", op_info(s->op->op)->name, dtype_name(t));
  const char *arg[3];
  for (int k = 0; k < 3; k++) arg[k] = s->arg[k] >= 0 && (size_t)s->arg[k] < i ? operand_text(p, s->arg[k], t) : "";
  const char *text = paste(p->ctx, pattern, arg);
  bool convert = !p->vector && (!dtype_is_float(p->type[i]) || s->op->op == OP_CAST);
  return convert ? ctx_format(p->ctx, "(%s)(%s)", dtype_c(p->type[i]), text) : text;
}

void expr_body(Text *t, const Node *n, const Expr *e, bool vector, const int *slot, const char *const *literal) {
  Printer p = {t->ctx, n, e, vector, slot, literal, types_of(t->ctx, n, e)};
  size_t last = e->n - 1;
  for (size_t i = 0; i < last; i++)
    if (e->step[i].kind == EX_OP)
      text_add(t, "  const %s t%zu = %s;\n", vector ? "vf" : dtype_c(p.type[i]), i, step_text(&p, i));
  if (e->step[last].kind == EX_OP)
    text_add(t, "  return %s;\n", step_text(&p, last));
  else
    text_add(t, "  return %s;\n", operand_text(&p, (int)last, p.type[last]));
}

const char *expr_name(Ctx *c, const Node *n, const Expr *e) {
  (void)n;
  Text t = {.ctx = c};
  for (size_t i = 0; i < e->n; i++) {
    if (e->step[i].kind != EX_OP) continue;
    if (t.len) text_add(&t, "_");
    for (const char *s = op_info(e->step[i].op->op)->name; *s; s++) text_add(&t, "%c", tolower((unsigned char)*s));
  }
  if (t.len == 0) return "copy";
  if (t.len <= MAX_NAME) return t.text;
  size_t cut = MAX_NAME - 16;
  while (cut > 0 && t.text[cut] != '_') cut--;
  uint32_t h = (uint32_t)hash_bytes(t.text, t.len, 0);
  return ctx_format(c, "%.*s_etc_%08x", (int)(cut ? cut : MAX_NAME - 16), t.text, h);
}

/* ---- epilogues ------------------------------------------------------------------------------------------------------
 */

/* How a broadcast view is read by rows of columns: *row is the stride from row to row. False if no one stride does it.
 */
static bool row_stride(const View *w, const int *order, int64_t *row, ReadKind *kind) {
  int rank = w->rank;
  int64_t columns = rank > 0 ? w->dim[order[rank - 1]] : 1;
  int64_t column = rank > 0 ? w->stride[order[rank - 1]] : 0;
  *kind = columns == 1 || column == 0 ? READ_SAME : READ_DENSE;
  if (columns > 1 && column != 0 && column != 1) return false;
  *row = 0;
  int64_t span = 1; /* rows covered so far, from the innermost row dimension outwards */
  for (int i = rank - 2; i >= 0; i--) {
    int d = order[i];
    if (w->dim[d] == 1) continue;
    if (span == 1)
      *row = w->stride[d];
    else if (w->stride[d] != *row * span)
      return false;
    span *= w->dim[d];
  }
  return *row >= 0;
}

typedef struct {
  Program *program;
  const Node *node;
  const int *order;
  int rank;
  const int64_t *dim;
  bool row_used, column_used;
} EpilogueMaker;

/* Adds the node's input i as an operand of the epilogue and the line of C that loads it. */
static void add_operand(EpilogueMaker *m, Epilogue *e, int i, Text *loads) {
  Ctx *c = m->program->ctx;
  View w = low_view(m->program, m->node->in[i]);
  if (w.dtype != DT_F32)
    ctx_fail(c, m->node, "operand %d of a fused expression is %s: only float can be read there", i,
             dtype_name(w.dtype));
  View b = view_broadcast(&w, m->rank, m->dim);
  int64_t row;
  ReadKind kind;
  if (!row_stride(&b, m->order, &row, &kind)) {
    b = low_dense(m->program, m->node, &b, m->order, true);
    if (!row_stride(&b, m->order, &row, &kind))
      ctx_fail(c, m->node, "operand %d of a fused expression has no row stride", i);
  }
  int k = e->n_operands++;
  if (e->n_operands > 8) ctx_fail(c, m->node, "a fused expression reads more than 8 operands");
  e->operand[k] = b;
  e->row_stride[k] = row;
  e->by_column[k] = kind == READ_DENSE;
  const char *at = row ? ctx_format(c, " + row * o[%d].row", k) : "";
  m->row_used |= row != 0;
  m->column_used |= kind == READ_DENSE;
  if (kind == READ_DENSE)
    text_add(loads,
             "  const float *p%d = o[%d].p%s + col;\n  const vf x%d = lanes == VF_LANES ? vf_load(p%d) : "
             "vf_load_some(p%d, lanes);\n",
             k, k, at, k, k, k);
  else if (row)
    text_add(loads, "  const vf x%d = vf_set1(o[%d].p[row * o[%d].row]);\n", k, k, k);
  else
    text_add(loads, "  const vf x%d = vf_set1(*o[%d].p);\n", k, k);
}

/* "_bias_relu": an Add whose operand varies along columns only is a bias. */
static const char *epilogue_suffix(Ctx *c, const Node *n, const Expr *x, const Epilogue *e, const int *slot) {
  Text t = {.ctx = c};
  for (size_t i = 0; i < x->n; i++) {
    const ExprStep *s = &x->step[i];
    if (s->kind != EX_OP) continue;
    const char *name = NULL;
    for (int k = 0; s->op->op == OP_ADD && k < 2; k++) {
      const ExprStep *a = &x->step[s->arg[k]];
      if (a->kind == EX_INPUT && slot[a->input] >= 0 && e->row_stride[slot[a->input]] == 0) name = "bias";
    }
    text_add(&t, "_%s", name ? name : op_info(s->op->op)->name);
  }
  for (char *s = t.text; s && *s; s++) *s = (char)tolower((unsigned char)*s);
  (void)n;
  if (t.len <= MAX_NAME) return t.len ? t.text : "";
  return ctx_format(c, "_%s", expr_name(c, n, x));
}

Epilogue low_epilogue(Program *p, Node *n, int rank, const int64_t *dim, const int *order) {
  Epilogue e = {.suffix = ""};
  if (n->expr == NULL) return e;
  Ctx *c = p->ctx;
  if (!expr_is_vector(n, n->expr)) ctx_fail(c, n, "an expression that has no vector form was fused to %s", n->op_type);
  EpilogueMaker m = {.program = p, .node = n, .order = order ? order : ROW_MAJOR, .rank = rank, .dim = dim};
  int *slot = ctx_array(c, (size_t)n->n_in, sizeof *slot);
  const char **literal = ctx_array(c, (size_t)n->n_in, sizeof *literal);
  for (int i = 0; i < n->n_in; i++) slot[i] = -1;
  Text loads = {.ctx = c}, text = {.ctx = c};
  bool acc = false;
  for (size_t i = 0; i < n->expr->n; i++) {
    const ExprStep *s = &n->expr->step[i];
    double v;
    acc |= s->kind == EX_ACC;
    if (s->kind != EX_INPUT || slot[s->input] >= 0 || literal[s->input] != NULL) continue;
    if (value_one_number(n->in[s->input], &v)) {
      literal[s->input] = expr_number(c, DT_F32, v);
      continue;
    }
    slot[s->input] = e.n_operands;
    add_operand(&m, &e, s->input, &loads);
  }
  text_add(&text,
           "static inline vf EPILOGUE(vf acc, const moecc_operand *o, size_t row, size_t col, size_t lanes)\n{\n");
  if (!acc) text_add(&text, "  (void)acc;\n");
  if (e.n_operands == 0) text_add(&text, "  (void)o;\n");
  if (!m.row_used) text_add(&text, "  (void)row;\n");
  if (!m.column_used) text_add(&text, "  (void)col;\n  (void)lanes;\n");
  text_write(&text, loads.text ? loads.text : "", loads.len);
  expr_body(&text, n, n->expr, true, slot, literal);
  text_add(&text, "}\n");
  e.function = text.text;
  e.suffix = epilogue_suffix(c, n, n->expr, &e, slot);
  return e;
}

/* Rows that a constant operand has. */
static int64_t constant_rows(const View *w, int64_t row) {
  return row > 0 ? (tensor_count(w->constant) - w->offset + row - 1) / row : 1;
}

/* Columns first … first + count - 1 of a constant operand, as a constant of their own. */
static View constant_columns(Program *p, const View *w, int64_t row, int64_t first, int64_t count) {
  const int64_t rows = constant_rows(w, row), dim[2] = {rows, count};
  const float *from = (const float *)w->constant->data + w->offset + first;
  Tensor *t = tensor_new(p->ctx, DT_F32, 2, dim, NULL);
  float *out = tensor_writable(t);
  for (int64_t r = 0; r < rows; r++) memcpy(out + r * count, from + r * row, (size_t)count * sizeof *out);
  return (View){.constant = t, .dtype = DT_F32, .rank = 2, .dim = {rows, count}, .stride = {count, 1}};
}

Epilogue low_epilogue_columns(Program *p, const Epilogue *e, int64_t first, int64_t count) {
  Epilogue part = *e;
  for (int i = 0; i < e->n_operands; i++) {
    if (!e->by_column[i]) continue;
    if (!e->operand[i].constant) {
      part.operand[i].offset += first;
      continue;
    }
    part.operand[i] = constant_columns(p, &e->operand[i], e->row_stride[i], first, count);
    if (e->row_stride[i]) part.row_stride[i] = count;
  }
  return part;
}

int64_t low_epilogue_bytes(const Epilogue *e) {
  int64_t bytes = 0;
  for (int i = 0; i < e->n_operands; i++)
    if (e->by_column[i] && e->operand[i].constant) bytes += 4 * constant_rows(&e->operand[i], e->row_stride[i]);
  return bytes;
}
