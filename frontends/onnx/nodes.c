/* From a RawNode to a Node: the checks against ops.def, the list of what is unsupported, and helpers for upgrade.c. */
#include "frontend.h"

#include <string.h>

/* Nodes of one operator that cannot be taken, for one reason. */
struct Unsupported {
  const char *what;
  Text nodes;
  size_t n;
};

static const char *operator_name(Ctx *c, const char *domain, const char *op_type) {
  return *domain ? quoted(c, ctx_format(c, "%s.%s", domain, op_type)) : quoted(c, op_type);
}

void unsupported_add(RawNode *n, const char *why) {
  enum { SHOWN = 20 };
  Reader *r = n->reader;
  const char *what = ctx_format(r->ctx, "operator %s %s", operator_name(r->ctx, n->domain, n->op_type), why);
  struct Unsupported *u = NULL;
  for (size_t i = 0; i < r->n_unsupported && !u; i++)
    if (strcmp(r->unsupported[i].what, what) == 0) u = &r->unsupported[i];
  if (!u) {
    r->unsupported = ctx_grow(r->ctx, r->unsupported, r->n_unsupported, &r->cap_unsupported, sizeof *r->unsupported);
    u = &r->unsupported[r->n_unsupported++];
    *u = (struct Unsupported){.what = what, .nodes = {.ctx = r->ctx}};
  }
  if (u->n++ < SHOWN) text_add(&u->nodes, "%s%s", u->n > 1 ? ", " : "", n->where);
  if (u->n == SHOWN + 1) text_add(&u->nodes, ", …");
}

void unsupported_report(Reader *r) {
  for (size_t i = 0; i < r->n_unsupported; i++) {
    const struct Unsupported *u = &r->unsupported[i];
    ctx_report(r->ctx, NULL, "%s (%zu node%s): %s", u->what, u->n, u->n == 1 ? "" : "s", u->nodes.text);
  }
}

bool raw_fault(const RawNode *n, const char *fmt, ...) {
  Ctx *c = n->reader->ctx;
  va_list ap;
  va_start(ap, fmt);
  ctx_report(c, NULL, "%s: %s", n->where, ctx_vformat(c, fmt, ap));
  va_end(ap);
  return false;
}

/* ---- changing a RawNode ---- */

const Attr *raw_attr(const RawNode *n, const char *name) {
  for (size_t i = 0; i < n->n_attr; i++)
    if (strcmp(n->attr[i].name, name) == 0) return &n->attr[i];
  return NULL;
}

void raw_drop_attr(RawNode *n, const char *name) {
  for (size_t i = 0; i < n->n_attr; i++)
    if (strcmp(n->attr[i].name, name) == 0) {
      memmove(n->attr + i, n->attr + i + 1, (n->n_attr - i - 1) * sizeof *n->attr);
      n->n_attr--;
      return;
    }
}

void raw_set_attr(RawNode *n, Attr a) {
  raw_drop_attr(n, a.name);
  Attr *bigger = ctx_array(n->reader->ctx, n->n_attr + 1, sizeof *bigger);
  if (n->n_attr) memcpy(bigger, n->attr, n->n_attr * sizeof *bigger);
  bigger[n->n_attr++] = a;
  n->attr = bigger;
}

void raw_set_input(RawNode *n, int i, Value *v) {
  if (i >= n->n_in) {
    Value **in = ctx_array(n->reader->ctx, (size_t)i + 1, sizeof *in);
    if (n->n_in) memcpy(in, n->in, (size_t)n->n_in * sizeof *in);
    n->in = in;
    n->n_in = i + 1;
  }
  n->in[i] = v;
}

double raw_number(const RawNode *n, const char *name, double fallback) {
  const Attr *a = raw_attr(n, name);
  if (!a) return fallback;
  return a->kind == ATTR_INT ? (double)a->i : a->kind == ATTR_FLOAT ? a->f : fallback;
}

const char *raw_string(const RawNode *n, const char *name, const char *fallback) {
  const Attr *a = raw_attr(n, name);
  return a && a->kind == ATTR_STRING ? a->s : fallback;
}

void raw_set_string(RawNode *n, const char *name, const char *s) {
  raw_set_attr(n, (Attr){.name = name, .kind = ATTR_STRING, .s = s, .n = strlen(s)});
}

void raw_set_int(RawNode *n, const char *name, int64_t i) {
  raw_set_attr(n, (Attr){.name = name, .kind = ATTR_INT, .i = i});
}

bool raw_has(const RawNode *n, int i) { return i < n->n_in && n->in[i]; }

DType raw_float_type(const RawNode *n) {
  DType t = raw_has(n, 0) ? n->in[0]->dtype : DT_NONE;
  return dtype_is_float(t) ? t : DT_F32;
}

void raw_become(RawNode *n, const char *domain, const char *op_type) {
  n->domain = domain;
  n->op_type = op_type;
  n->n_attr = 0;
}

/* ---- making constants and nodes ---- */

void value_set_constant(Value *v, Tensor *t) {
  v->tensor = t;
  v->dtype = t->dtype;
  v->shape = shape_of(t->rank, t->dim);
}

static const char *helper_name(const RawNode *n, const char *what) {
  return ctx_format(n->reader->ctx, "%s%s%s", n->name, *n->name ? "/" : "", what);
}

Value *constant_ints(RawNode *n, size_t count, const int64_t *v) {
  static const int64_t none;
  return graph_constant_ints(n->reader->graph, helper_name(n, "const"), 1, (int64_t)count, count ? v : &none);
}

Value *constant_number(RawNode *n, DType type, double v) {
  Ctx *c = n->reader->ctx;
  Tensor *t = tensor_new(c, type, 0, NULL, NULL);
  void *p = tensor_writable(t);
  switch (type) {
  case DT_F64: *(double *)p = v; break;
  case DT_F16: *(uint16_t *)p = float_to_half((float)v); break;
  case DT_BF16: *(uint16_t *)p = float_to_bfloat((float)v); break;
  case DT_I64: *(int64_t *)p = (int64_t)v; break;
  case DT_BOOL: *(uint8_t *)p = v != 0; break;
  default: *(float *)p = (float)v; break;
  }
  return graph_constant(n->reader->graph, helper_name(n, "const"), t);
}

Node *raw_emit(RawNode *n, const char *op_type, int n_in, Value *const *in, Value *out) {
  Op op = op_find("", op_type);
  Graph *g = n->reader->graph;
  const char *name = helper_name(n, op_type);
  if (!out) {
    out = graph_value(g, name, DT_NONE, shape_unknown());
    name = out->name; /* unique among helpers as well */
  }
  Node *made = graph_node(g, NULL, op, name, n_in, in, 1, &out);
  made->scope = n->scope;
  return made;
}

/* ---- checks ---- */

static bool check_version(RawNode *n, const OpInfo *info) {
  if (n->version >= info->since && n->version <= info->until) return true;
  const char *domain = *info->domain ? info->domain : "ai.onnx";
  return raw_fault(n, "%s is supported in opsets %d to %d of %s; the model imports %d", info->name, info->since,
                   info->until, domain, n->version);
}

static bool check_count(RawNode *n, const char *what, int is, int min, int max) {
  if (is >= min && (max < 0 || is <= max)) return true;
  if (max < 0) return raw_fault(n, "has %d %s, but needs at least %d", is, what, min);
  if (min == max) return raw_fault(n, "has %d %s, but needs %d", is, what, min);
  return raw_fault(n, "has %d %s, but needs %d to %d", is, what, min, max);
}

static bool check_arity(RawNode *n, Op op) {
  const OpInfo *info = op_info(op);
  if (!check_count(n, n->n_in == 1 ? "input" : "inputs", n->n_in, info->min_inputs, info->max_inputs)) return false;
  for (int i = 0; i < info->min_inputs; i++)
    if (!n->in[i] && !op_may_lack(op, i)) return raw_fault(n, "input %d is missing", i);
  if (info->max_outputs == 1 && n->n_out > 1)
    return raw_fault(n, "has %d outputs, of which only the first is supported", n->n_out);
  if (!check_count(n, n->n_out == 1 ? "output" : "outputs", n->n_out, info->min_outputs, info->max_outputs))
    return false;
  for (int i = 0; i < info->min_outputs; i++)
    if (!n->out[i] && info->max_outputs >= 0) return raw_fault(n, "output %d is missing", i);
  return true;
}

/* Absent operands at the end are as good as not mentioned. */
static void trim(RawNode *n) {
  while (n->n_in && !n->in[n->n_in - 1]) n->n_in--;
  while (n->n_out && !n->out[n->n_out - 1]) n->n_out--;
}

/* Operators that are only met here, because upgrade.c makes others of them. */
static bool is_upgraded(Op op) {
  static const char *const rules[OP_COUNT] = {
#define OP(id, name, domain, in_min, in_max, out_min, out_max, since, until, rule, ...) [OP_##id] = #rule,
#include "ir/ops.def"
  };
  return op != OP_NONE && strcmp(rules[op], "upgraded") == 0;
}

static bool check(RawNode *n, Op op, bool version) {
  const OpInfo *info = op_info(op);
  bool good = !version || check_version(n, info);
  good = check_arity(n, op) && good;
  return attributes_check(n, op) && good;
}

void node_finish(RawNode *n) {
  trim(n);
  Op before = op_find(n->domain, n->op_type);
  if (is_upgraded(before) && !check(n, before, true)) return;
  const char *domain = n->domain, *op_type = n->op_type;
  if (!upgrade(n)) return;
  trim(n);
  bool same = domain == n->domain && op_type == n->op_type; /* else it came from one that the opset has */
  Op op = op_find(n->domain, n->op_type);
  if (op == OP_NONE || op == OP_FUSED) { /* the latter has no form in a file */
    unsupported_add(n, "is not supported");
    return;
  }
  if (!check(n, op, same)) return;
  Node *made = graph_node(n->reader->graph, NULL, op, n->name, n->n_in, n->in, n->n_out, n->out);
  made->scope = n->scope;
  made->op_type = n->proto->op_type;
  made->attr = n->attr;
  made->n_attr = n->n_attr;
}
