/* What ops.def says, as tables and functions: arity, attributes, and the C expressions of elementwise operators.
 *
 * The tables are made from the one file by the preprocessor. Expressions are patterns (the head of ops.def has their
 * grammar); what depends on the element type, on attributes or on absent operands is put in here, so that only $0, $1
 * and $2 are left for the user.
 */
#include "compiler.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const OpInfo infos[OP_COUNT] = {
    [OP_NONE] = {"(none)", "", 0, 0, 0, 0, 0, 0, "", ""},
#define OP(id, name, domain, in_min, in_max, out_min, out_max, since, until, rule, lowering, types, doc)               \
  [OP_##id] = {name, domain, in_min, in_max, out_min, out_max, since, until, types, doc},
#include "ir/ops.def"
};

static const AttrInfo attrs[] = {
#define ATTR(id, name, kind, fallback) {OP_##id, name, kind, fallback},
#include "ir/ops.def"
};

typedef struct {
  Op op;
  const char *attr, *value; /* the row holds only where the attribute has this value; NULL: always */
  const char *real, *integer, *vector;
} Pattern;

static const Pattern patterns[] = {
#define ELEMENTWISE(id, real, integer, vector)                 {OP_##id, NULL, NULL, real, integer, vector},
#define ELEMENTWISE_IF(id, attr, value, real, integer, vector) {OP_##id, attr, value, real, integer, vector},
#include "ir/ops.def"
};

enum { N_ATTRS = sizeof attrs / sizeof attrs[0], N_PATTERNS = sizeof patterns / sizeof patterns[0] };

const OpInfo *op_info(Op op) { return &infos[op < OP_COUNT ? op : OP_NONE]; }

Op op_find(const char *domain, const char *name) {
  if (!domain || strcmp(domain, "ai.onnx") == 0) domain = "";
  for (int op = OP_NONE + 1; op < OP_COUNT; op++)
    if (strcmp(infos[op].name, name) == 0 && strcmp(infos[op].domain, domain) == 0) return (Op)op;
  return OP_NONE;
}

const AttrInfo *op_attr(Op op, const char *name) {
  for (int i = 0; i < N_ATTRS; i++)
    if (attrs[i].op == op && strcmp(attrs[i].name, name) == 0) return &attrs[i];
  return NULL;
}

const AttrInfo *op_attr_at(size_t i) { return i < N_ATTRS ? &attrs[i] : NULL; }

/* Among the first operands of the expert layers some may be absent, biases and scales. */
bool op_may_lack(Op op, int input) {
  if (input >= infos[op].min_inputs) return true;
  return (input == 3 && (op == OP_MOE || op == OP_MS_MOE || op == OP_MS_QMOE)) || (input == 4 && op == OP_MS_QMOE);
}

bool op_is_elementwise(Op op) {
  for (int i = 0; i < N_PATTERNS; i++)
    if (patterns[i].op == op) return true;
  return op == OP_FUSED;
}

/* ---- Cast -----------------------------------------------------------------------------------------------------------
 */

DType op_cast_type(const Node *n) {
  static const DType of_code[] = {DT_NONE, DT_F32, DT_U8,  DT_I8,  DT_U16, DT_I16,  DT_I32,  DT_I64, DT_STRING,
                                  DT_BOOL, DT_F16, DT_F64, DT_U32, DT_U64, DT_NONE, DT_NONE, DT_BF16};
  int64_t code = node_int(n, "to", 0);
  return code > 0 && code < (int64_t)(sizeof of_code / sizeof of_code[0]) ? of_code[code] : DT_NONE;
}

/* Half precision goes through float. Integers wrap, except that floats saturate. */
static const char *cast_pattern(Ctx *c, DType from, DType to) {
  const char *x = from == DT_F16 ? "moecc_f16_to_f32($0)" : from == DT_BF16 ? "moecc_bf16_to_f32($0)" : "$0";
  if (to == DT_BOOL) return ctx_format(c, "%s != 0", x);
  if (to == DT_F16 || to == DT_BF16) return ctx_format(c, "moecc_f32_to_%s((float)%s)", dtype_short(to), x);
  if (dtype_is_float(from) && !dtype_is_float(to))
    return ctx_format(c, "moecc_trunc_%s((double)%s)", dtype_short(to), x);
  return ctx_format(c, "(%s)%s", dtype_c(to), x);
}

/* ---- patterns ---------------------------------------------------------------------------------------------------- */

typedef struct {
  Ctx *ctx;
  const Node *node;
  int operands; /* of the operator itself */
  DType type;
  bool vector;
} Pasting;

static bool attr_has(const Node *n, const char *name, const char *value) {
  const Attr *a = node_attr(n, name);
  const AttrInfo *info = op_attr(n->op, name);
  if (!a) return info && info->fallback && strcmp(info->fallback, value) == 0;
  if (a->kind == ATTR_STRING) return strcmp(a->s, value) == 0;
  return (a->kind == ATTR_INT ? (double)a->i : a->f) == strtod(value, NULL);
}

static const Pattern *find_pattern(const Node *n) {
  for (int i = 0; i < N_PATTERNS; i++)
    if (patterns[i].op == n->op && (!patterns[i].attr || attr_has(n, patterns[i].attr, patterns[i].value)))
      return &patterns[i];
  return NULL;
}

/* A literal that reads back as exactly v, in parentheses where a minus would meet another sign. */
static const char *literal(const Pasting *p, double v) {
  Ctx *c = p->ctx;
  bool single = p->type != DT_F64;
  const char *s = isinf(v) ? "INFINITY" : isnan(v) ? "NAN" : NULL;
  if (!s) {
    s = ctx_format(c, single ? "%.7g" : "%.15g", fabs(v));
    if (single ? strtof(s, NULL) != (float)fabs(v) : strtod(s, NULL) != fabs(v))
      s = ctx_format(c, single ? "%.9g" : "%.17g", fabs(v));
    if (!strpbrk(s, ".e")) s = ctx_format(c, "%s.0", s);
    if (single) s = ctx_format(c, "%sf", s);
  }
  if (signbit(v)) s = ctx_format(c, p->vector ? "-%s" : "(-%s)", s);
  return p->vector ? ctx_format(c, "vf_set1(%s)", s) : s;
}

static size_t word_length(const char *s) {
  size_t n = 0;
  while (isalnum((unsigned char)s[n]) || s[n] == '_') n++;
  return n;
}

/* Puts in the value of an attribute: `$alpha`. Returns what follows. */
static const char *paste_attr(const Pasting *p, const char *s, Text *out) {
  size_t len = word_length(s);
  const char *name = ctx_strndup(p->ctx, s, len);
  const AttrInfo *info = op_attr(p->node->op, name);
  const char *fallback = info && info->fallback ? info->fallback : "0";
  if (info && info->kind == ATTR_INT)
    text_add(out, "%lld", (long long)node_int(p->node, name, strtoll(fallback, NULL, 10)));
  else
    text_add(out, "%s", literal(p, node_float(p->node, name, (double)strtof(fallback, NULL))));
  return s + len;
}

/* Puts in a number: `0.5`, `-1`, `INFINITY`. Returns what follows. */
static const char *paste_number(const Pasting *p, const char *s, Text *out) {
  char *end;
  double v = strtod(s, &end);
  text_add(out, "%s", literal(p, v));
  return end;
}

static void paste(const Pasting *p, const char *s, Text *out);

/* Puts in `1:text]`: operand 1, or the text where the node lacks it. Returns what follows. */
static const char *paste_optional(const Pasting *p, const char *s, Text *out) {
  int i = *s - '0';
  const char *end = strchr(s, ']');
  const Node *n = p->node;
  bool absent = i >= p->operands || (n->in && !n->in[i]);
  if (absent)
    paste(p, ctx_strndup(p->ctx, s + 2, (size_t)(end - s - 2)), out);
  else
    text_add(out, "$%d", i);
  return end + 1;
}

static void paste(const Pasting *p, const char *s, Text *out) {
  while (*s) {
    if (*s == '#')
      s = paste_number(p, s + 1, out);
    else if (*s != '$')
      text_write(out, s++, 1);
    else if (s[1] == '[')
      s = paste_optional(p, s + 2, out);
    else if (s[1] == 'T' && word_length(s + 1) == 1)
      text_add(out, "%s", dtype_short(p->type)), s += 2;
    else if (s[1] == 'C' && word_length(s + 1) == 1)
      text_add(out, "%s", dtype_c(p->type)), s += 2;
    else if (isdigit((unsigned char)s[1]))
      text_write(out, s, 2), s += 2;
    else
      s = paste_attr(p, s + 1, out);
  }
}

const char *op_expression(const Node *n, DType t, bool vector) {
  Ctx *c = n->graph->ctx;
  if (n->op == OP_CAST) return vector ? NULL : cast_pattern(c, t, op_cast_type(n));
  if (vector && t != DT_F32) return NULL;
  if (t == DT_F16 || t == DT_BF16 || t == DT_NONE || t == DT_STRING) return NULL;
  const Pattern *row = find_pattern(n);
  if (!row) return NULL;
  const char *pattern = vector ? row->vector : dtype_is_float(t) ? row->real : row->integer;
  if (!pattern) return NULL;
  Pasting p = {c, n, n->n_own ? n->n_own : n->n_in, t, vector};
  Text out = {.ctx = c};
  paste(&p, pattern, &out);
  return out.text;
}
