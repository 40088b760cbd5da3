/* Reads a graph written in ONNX's own text syntax, as Python's onnx.parser takes it: header, inputs, outputs,
 * initializers, nodes. Operators are expected in their newest form, as onnx_text_print writes them; nothing is upgraded
 * here. Beyond that syntax only what fits into it: the attributes `expr` and `own` of a node are its fused elementwise
 * work, a quoted dimension "n<=258" is a bounded symbol, and a constant whose data is ["location": "elided", …] gets
 * made-up values that follow from its hash.
 */
#include "text.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  Scanner s;
  Graph *g;
  size_t cap_meta;
} Reader;

static void read_graph(Reader *r);

/* ---- types ---- */

static bool next_is_type(Scanner *s) {
  const char *id = scan_peek_identifier(s);
  return id && dtype_from_name(id) != DT_NONE;
}

/* "n<=258" is a symbol with a bound, anything else a symbol without one. */
static Dim quoted_dim(Reader *r, const char *text) {
  const char *bound = strstr(text, "<=");
  char *end = NULL;
  long long n = bound ? strtoll(bound + 2, &end, 10) : -1;
  if (bound && (end == bound + 2 || *end || n < 0)) bound = NULL;
  const char *name = bound ? ctx_strndup(r->s.ctx, text, (size_t)(bound - text)) : text;
  return (Dim){.n = bound ? n : -1, .sym = graph_symbol(r->g, name)};
}

static Dim read_dim(Reader *r) {
  Scanner *s = &r->s;
  if (scan_accept(s, '?')) return (Dim){.n = -1};
  if (scan_peek(s) == '"') return quoted_dim(r, scan_name(s));
  const char *id = scan_identifier(s);
  if (id) return (Dim){.n = -1, .sym = graph_symbol(r->g, id)};
  const char *at = s->p;
  int64_t n = scan_integer(s);
  if (n < 0) scan_fail(s, at, "a dimension cannot be %lld", (long long)n);
  return (Dim){.n = n};
}

/* float: a scalar; float[]: unknown rank; float[2,N]: rank 2. */
static DType read_type(Reader *r, Shape *shape) {
  Scanner *s = &r->s;
  DType t = dtype_from_name(scan_identifier(s));
  *shape = shape_of(0, NULL);
  if (!scan_accept(s, '[')) return t;
  if (scan_accept(s, ']')) {
    *shape = shape_unknown();
    return t;
  }
  do {
    if (shape->rank == MAX_RANK) scan_fail(s, NULL, "more than %d dimensions", MAX_RANK);
    Dim d = read_dim(r);
    shape->dim[shape->rank++] = d;
  } while (scan_accept(s, ','));
  scan_expect(s, ']');
  return t;
}

/* ---- constant data ---- */

static void store_integer(Scanner *s, const Literal *l, DType t, void *at) {
  if (l->kind != LIT_INT) scan_fail(s, l->at, "an integer is expected in data of type %s", dtype_name(t));
  errno = 0;
  if (t == DT_U64) {
    uint64_t u = strtoull(l->at, NULL, 10);
    if (errno == ERANGE || *l->at == '-') scan_fail(s, l->at, "%.*s does not fit uint64", (int)l->len, l->at);
    memcpy(at, &u, sizeof u);
    return;
  }
  int64_t v = literal_integer(s, l), low = INT64_MIN, high = INT64_MAX;
  size_t bits = 8 * dtype_size(t);
  if (t == DT_BOOL) {
    low = 0;
    high = 1;
  } else if (bits < 64) {
    bool is_signed = dtype_is_signed(t) && !dtype_is_float(t);
    high = (INT64_C(1) << (bits - (is_signed ? 1 : 0))) - 1;
    low = is_signed ? -high - 1 : 0;
  }
  if (v < low || v > high) scan_fail(s, l->at, "%lld does not fit %s", (long long)v, dtype_name(t));
  memcpy(at, &v, dtype_size(t)); /* little endian */
}

static void store_element(Scanner *s, DType t, void *at) {
  Literal l = scan_literal(s);
  if (l.kind == LIT_STRING) scan_fail(s, l.at, "a number is expected");
  if (t == DT_F32) {
    float f = strtof(l.at, NULL);
    memcpy(at, &f, sizeof f);
  } else if (t == DT_F64) {
    double d = strtod(l.at, NULL);
    memcpy(at, &d, sizeof d);
  } else {
    store_integer(s, &l, t, at); /* float16 and bfloat16 are given by their bits */
  }
}

/* Values that stand for data which the printer left out: small, and the same for the same hash. */
static void make_up(Tensor *t, uint64_t hash) {
  unsigned char *out = tensor_writable(t);
  size_t size = dtype_size(t->dtype);
  uint64_t state = hash | 1;
  for (int64_t i = 0, n = tensor_count(t); i < n; i++, out += size) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    int k = (int)(state >> 57) & 63;
    float f = (float)(k - 32) / 64.0f;
    uint16_t half = t->dtype == DT_F16 ? float_to_half(f) : float_to_bfloat(f);
    double d = f;
    int64_t v = t->dtype == DT_BOOL ? k & 1 : k;
    memcpy(out, t->dtype == DT_F32 ? (void *)&f : t->dtype == DT_F64 ? (void *)&d : (void *)&v, size);
    if (t->dtype == DT_F16 || t->dtype == DT_BF16) memcpy(out, &half, size);
  }
  t->hash = hash;
}

static void read_elided(Reader *r, Tensor *t) {
  Scanner *s = &r->s;
  const char *location = "", *hash = "0", *at = s->p;
  do {
    const char *key = scan_literal(s).s;
    scan_expect(s, ':');
    const char *value = scan_literal(s).s;
    if (!key || !value) scan_fail(s, at, "strings are expected");
    if (strcmp(key, "location") == 0) location = value;
    if (strcmp(key, "hash") == 0) hash = value;
  } while (scan_accept(s, ','));
  scan_expect(s, ']');
  if (strcmp(location, "elided") != 0) scan_fail(s, at, "external data (\"%s\") cannot be read from text", location);
  make_up(t, strtoull(hash, NULL, 16));
}

static Tensor *read_tensor(Reader *r, DType dtype, const Shape *shape) {
  Scanner *s = &r->s;
  if (dtype == DT_STRING || dtype == DT_NONE) scan_fail(s, NULL, "constants of this type are not supported");
  int64_t dims[MAX_RANK] = {0}, count = shape_count(shape);
  if (!shape_known(shape)) scan_fail(s, NULL, "a constant needs numbers as dimensions");
  if (count < 0 || count > (INT64_C(1) << 31)) scan_fail(s, NULL, "the constant is too large");
  for (int i = 0; i < shape->rank; i++) dims[i] = shape->dim[i].n;
  Tensor *t = tensor_new(s->ctx, dtype, shape->rank, dims, NULL);
  if (scan_accept(s, '[')) {
    read_elided(r, t);
    return t;
  }
  scan_expect(s, '{');
  char *out = tensor_writable(t);
  for (int64_t i = 0; i < count; i++) {
    if (i) scan_expect(s, ',');
    store_element(s, dtype, out + (size_t)i * dtype_size(dtype));
  }
  scan_expect(s, '}');
  return t;
}

/* ---- attributes ---- */

static AttrKind kind_of_word(Scanner *s, const char *at, const char *word) {
  static const char *const words[] = {"int", "float", "string", "ints", "floats", "strings", "tensor", "graph"};
  for (int k = 0; k < 8; k++)
    if (strcmp(word, words[k]) == 0) return (AttrKind)k;
  scan_fail(s, at, "attributes of type %s are not supported", word);
}

static void set_literal(Scanner *s, Attr *a, const Literal *l, bool as_float) {
  if (l->kind == LIT_STRING) {
    a->kind = ATTR_STRING;
    a->s = l->s;
  } else if (l->kind == LIT_FLOAT || as_float) {
    a->kind = ATTR_FLOAT;
    a->f = (double)strtof(l->at, NULL);
  } else {
    a->kind = ATTR_INT;
    a->i = literal_integer(s, l);
  }
}

static void read_list(Scanner *s, Attr *a, bool as_float) {
  size_t cap_i = 0, cap_f = 0, cap_s = 0;
  int64_t *ints = NULL;
  double *floats = NULL;
  const char **strings = NULL;
  AttrKind kind = ATTR_INT;
  do {
    const char *at = (scan_peek(s), s->p);
    Literal l = scan_literal(s);
    Attr one = {0};
    set_literal(s, &one, &l, as_float);
    if (a->n && one.kind != kind) scan_fail(s, at, "the elements of a list are of one type");
    kind = one.kind;
    ints = ctx_grow(s->ctx, ints, a->n, &cap_i, sizeof *ints);
    floats = ctx_grow(s->ctx, floats, a->n, &cap_f, sizeof *floats);
    strings = ctx_grow(s->ctx, strings, a->n, &cap_s, sizeof *strings);
    ints[a->n] = one.i;
    floats[a->n] = one.f;
    strings[a->n++] = one.s;
  } while (scan_accept(s, ','));
  a->kind = kind == ATTR_INT ? ATTR_INTS : kind == ATTR_FLOAT ? ATTR_FLOATS : ATTR_STRINGS;
  a->ints = ints;
  a->floats = floats;
  a->strings = strings;
}

static void read_word_value(Scanner *s, Attr *a) {
  if (next_is_type(s)) {
    Reader r = {.s = *s, .g = graph_new(s->ctx, "")};
    Shape shape;
    DType t = read_type(&r, &shape);
    if (scan_peek(&r.s) != '{' && scan_peek(&r.s) != '=' && scan_peek(&r.s) != '[') scan_name(&r.s);
    scan_accept(&r.s, '=');
    a->kind = ATTR_TENSOR;
    a->tensor = read_tensor(&r, t, &shape);
    s->p = r.s.p;
    return;
  }
  const char *word = scan_peek_identifier(s);
  if (strcasecmp(word, "inf") == 0 || strcasecmp(word, "infinity") == 0 || strcasecmp(word, "nan") == 0) {
    Literal l = scan_literal(s);
    set_literal(s, a, &l, true);
    return;
  }
  Reader r = {.s = *s, .g = graph_new(s->ctx, "")};
  scan_enter(&r.s);
  read_graph(&r);
  a->kind = ATTR_GRAPH;
  a->graph = r.g;
  s->p = r.s.p;
}

static void check_attr(Scanner *s, const char *at, Op op, Attr *a) {
  const AttrInfo *info = op_attr(op, a->name);
  if (!info) {
    scan_report(s, at, "%s has no attribute %s", op_info(op)->name, a->name);
  } else if (info->kind != a->kind) {
    scan_report(s, at, "attribute %s of %s has another type", a->name, op_info(op)->name);
  }
}

Attr text_read_attr(Scanner *s, Op op) {
  Attr a = {0};
  const char *at = (scan_peek(s), s->p);
  a.name = scan_name(s);
  const AttrInfo *info = op == OP_NONE ? NULL : op_attr(op, a.name);
  bool typed = scan_accept(s, ':'), is_own = strcmp(a.name, "own") == 0 || strcmp(a.name, "expr") == 0;
  AttrKind kind = ATTR_INT;
  if (typed) {
    const char *word_at = (scan_peek(s), s->p);
    kind = kind_of_word(s, word_at, scan_name(s));
  } else if (info) {
    kind = info->kind;
    typed = true;
  }
  bool as_float = typed && (kind == ATTR_FLOAT || kind == ATTR_FLOATS);
  scan_expect(s, '=');
  char next = scan_peek(s);
  if (scan_accept(s, '[')) {
    a.kind = kind;
    if (scan_peek(s) != ']') read_list(s, &a, as_float);
    scan_expect(s, ']');
    if (!typed && a.n == 0) scan_fail(s, at, "the empty list %s needs a type", a.name);
  } else if (next == '@') {
    scan_fail(s, NULL, "a reference to an attribute of a function: inline the function first");
  } else if ((next >= 'a' && next <= 'z') || (next >= 'A' && next <= 'Z') || next == '_') {
    read_word_value(s, &a);
  } else {
    Literal l = scan_literal(s);
    set_literal(s, &a, &l, as_float);
  }
  if (typed && a.kind != kind) scan_fail(s, at, "the value of %s is not of the type given", a.name);
  if (op != OP_NONE && !is_own) check_attr(s, at, op, &a);
  return a;
}

/* ---- values ---- */

/* A value's declared type: the first declaration counts, a second has to agree where both say something. */
static Value *declare(Reader *r, const char *at, const char *name, DType t, Shape shape) {
  Value *v = graph_find(r->g, name);
  if (!v) return graph_value(r->g, name, t, shape);
  if (v->dtype == DT_NONE) v->dtype = t;
  if (t != DT_NONE && v->dtype != t) scan_fail(&r->s, at, "%s is declared with two types", name);
  if (v->shape.rank < 0) v->shape = shape;
  return v;
}

static bool is_defined(const Value *v) {
  if (v->tensor || v->producer) return true;
  const Graph *g = v->graph;
  for (size_t i = 0; i < g->n_inputs; i++)
    if (g->inputs[i] == v) return true;
  return false;
}

static void define_constant(Reader *r, const char *at, const char *name, DType t, const Shape *shape) {
  Value *v = graph_find(r->g, name);
  if (v && is_defined(v)) scan_fail(&r->s, at, "%s is defined twice", name);
  if (t == DT_NONE) scan_fail(&r->s, at, "the constant %s needs a type", name);
  Tensor *tensor = read_tensor(r, t, shape);
  v = declare(r, at, name, t, *shape);
  if (!shape_equal(&v->shape, shape)) scan_fail(&r->s, at, "%s is declared with two shapes", name);
  v->tensor = tensor;
}

/* [type] name [= data]; as an input, a value with data is a constant. */
static void read_value_info(Reader *r, bool is_input, bool is_output) {
  Scanner *s = &r->s;
  Shape shape = shape_unknown();
  DType t = next_is_type(s) ? read_type(r, &shape) : DT_NONE;
  const char *at = (scan_peek(s), s->p), *name = scan_name(s);
  if (!*name) scan_fail(s, at, "a value needs a name");
  if (!is_output && scan_accept(s, '=')) {
    define_constant(r, at, name, t, &shape);
    return;
  }
  Value *v = graph_find(r->g, name);
  if (v && is_input) scan_fail(s, at, "%s is defined twice", name);
  v = declare(r, at, name, t, shape);
  if (is_input) graph_add_input(r->g, v);
  if (is_output && v->is_output) scan_fail(s, at, "%s is an output twice", name);
  if (is_output && is_defined(v)) scan_fail(s, at, "%s is an input: an Identity must make the output", name);
  if (is_output) graph_add_output(r->g, v);
}

static void read_value_infos(Reader *r, char open, char close, bool is_input, bool is_output) {
  scan_expect(&r->s, open);
  if (scan_accept(&r->s, close)) return;
  do read_value_info(r, is_input, is_output);
  while (scan_accept(&r->s, ','));
  scan_expect(&r->s, close);
}

/* ---- nodes ---- */

typedef struct {
  const char **name;
  const char **at;
  size_t n, cap_name, cap_at;
} NameList;

static NameList read_names(Scanner *s, char end) {
  NameList l = {0};
  if (scan_peek(s) == end) return l;
  do {
    l.name = ctx_grow(s->ctx, (void *)l.name, l.n, &l.cap_name, sizeof *l.name);
    l.at = ctx_grow(s->ctx, (void *)l.at, l.n, &l.cap_at, sizeof *l.at);
    char next = scan_peek(s);
    l.at[l.n] = s->p;
    l.name[l.n] = next == ',' || next == end ? "" : scan_name(s);
    l.n++;
  } while (scan_accept(s, ','));
  return l;
}

static Op read_operator(Scanner *s) {
  const char *at = (scan_peek(s), s->p), *domain = "", *name = scan_identifier(s);
  if (!name) scan_fail(s, at, "an operator is expected");
  while (scan_accept(s, '.')) {
    domain = *domain ? ctx_format(s->ctx, "%s.%s", domain, name) : name;
    name = scan_identifier(s);
    if (!name) scan_fail(s, NULL, "the operator's name is expected after \"%s.\"", domain);
  }
  if (scan_accept(s, ':')) scan_fail(s, NULL, "overloads of functions are not supported");
  if (!*domain && strcmp(name, "Constant") == 0) return OP_NONE;
  Op op = op_find(domain, name);
  if (op == OP_NONE) scan_fail(s, at, "the operator %s%s%s is not supported", domain, *domain ? "." : "", name);
  return op;
}

typedef struct {
  Attr *item;
  size_t n, cap;
} AttrList;

static void read_attrs(Scanner *s, Op op, AttrList *l) {
  if (!scan_accept(s, '<')) return;
  do {
    const char *at = (scan_peek(s), s->p);
    Attr a = text_read_attr(s, op);
    for (size_t i = 0; i < l->n; i++)
      if (strcmp(l->item[i].name, a.name) == 0) scan_fail(s, at, "the attribute %s is given twice", a.name);
    l->item = ctx_grow(s->ctx, l->item, l->n, &l->cap, sizeof a);
    l->item[l->n++] = a;
  } while (scan_accept(s, ','));
  scan_expect(s, '>');
}

static Value *output_value(Reader *r, const char *name, const char *at) {
  if (!*name) return NULL;
  Value *v = graph_find(r->g, name);
  if (v && is_defined(v)) scan_fail(&r->s, at, "%s is defined twice", name);
  return v ? v : graph_value(r->g, name, DT_NONE, shape_unknown());
}

static Value *input_value(Reader *r, const char *name, const char *at) {
  if (!*name) return NULL;
  Value *v = graph_find(r->g, name);
  if (!v || !is_defined(v)) scan_fail(&r->s, at, "%s is used before it is defined", name);
  return v;
}

/* Constant <value = …> (): becomes a constant value at once. */
static void constant_node(Reader *r, const char *at, const NameList *outs, const AttrList *attrs) {
  if (outs->n != 1 || attrs->n != 1 || attrs->item[0].kind != ATTR_TENSOR)
    scan_fail(&r->s, at, "Constant is read with one output and the attribute value, a tensor");
  Value *v = output_value(r, outs->name[0], outs->at[0]);
  Tensor *t = attrs->item[0].tensor;
  Shape shape = shape_of(t->rank, t->dim);
  if (!v) return;
  if (v->dtype != DT_NONE && (v->dtype != t->dtype || (v->shape.rank >= 0 && !shape_equal(&v->shape, &shape))))
    scan_fail(&r->s, at, "the Constant is not of the type declared for %s", v->name);
  v->tensor = t;
  v->dtype = t->dtype;
  v->shape = shape;
}

static void attach_attrs(Reader *r, Node *n, const AttrList *attrs, const char *at) {
  const char *expr = NULL;
  int own = n->n_in;
  for (size_t i = 0; i < attrs->n; i++) {
    const Attr *a = &attrs->item[i];
    if (strcmp(a->name, "expr") == 0 && a->kind == ATTR_STRING) {
      expr = a->s;
    } else if (strcmp(a->name, "own") == 0 && a->kind == ATTR_INT && a->i >= 0 && a->i <= n->n_in) {
      own = (int)a->i;
    } else {
      node_set_attr(n, *a);
    }
  }
  n->n_own = own;
  if (expr) n->expr = text_read_expr(r->g, expr, ctx_format(r->s.ctx, "%s: expr", scan_place(&r->s, at)), n->n_in);
}

static void read_node(Reader *r) {
  Scanner *s = &r->s;
  const char *at = (scan_peek(s), s->p), *name = "";
  if (scan_accept(s, '[')) {
    if (scan_peek(s) != ']') name = scan_name(s);
    scan_expect(s, ']');
  }
  NameList outs = read_names(s, '=');
  scan_expect(s, '=');
  Op op = read_operator(s);
  AttrList attrs = {0};
  read_attrs(s, op, &attrs);
  scan_expect(s, '(');
  NameList ins = read_names(s, ')');
  scan_expect(s, ')');
  if (attrs.n == 0) read_attrs(s, op, &attrs);
  if (op == OP_NONE) {
    constant_node(r, at, &outs, &attrs);
    return;
  }
  Value **in = ctx_array(s->ctx, ins.n + 1, sizeof(Value *)), **out = ctx_array(s->ctx, outs.n + 1, sizeof(Value *));
  for (size_t i = 0; i < ins.n; i++) in[i] = input_value(r, ins.name[i], ins.at[i]);
  for (size_t i = 0; i < outs.n; i++) out[i] = output_value(r, outs.name[i], outs.at[i]);
  Node *n = graph_node(r->g, NULL, op, name, (int)ins.n, in, (int)outs.n, out);
  attach_attrs(r, n, &attrs, at);
}

/* ---- the whole ---- */

/* An output has a producer: one that is a constant becomes an Identity of it. */
static void constant_output(Graph *g, Value *v) {
  Value *c = graph_constant(g, v->name, v->tensor);
  v->tensor = NULL;
  while (v->n_uses) {
    Use u = v->uses[v->n_uses - 1];
    node_set_input(u.node, u.input, c);
  }
  graph_node(g, NULL, OP_IDENTITY, v->name, 1, &c, 1, &v);
}

static void read_graph(Reader *r) {
  Scanner *s = &r->s;
  r->g->name = scan_name(s);
  if (scan_peek(s) == '(') read_value_infos(r, '(', ')', true, false);
  scan_expect(s, '=');
  if (*s->p != '>') scan_fail(s, s->p, "'=>' is expected between inputs and outputs");
  s->p++;
  read_value_infos(r, '(', ')', false, true);
  if (scan_peek(s) == '<') read_value_infos(r, '<', '>', false, false);
  scan_expect(s, '{');
  while (!scan_accept(s, '}')) read_node(r);
  for (size_t i = 0; i < r->g->n_outputs; i++) {
    Value *v = r->g->outputs[i];
    if (!is_defined(v)) scan_fail(s, NULL, "nothing produces the output %s", v->name);
    if (v->tensor) constant_output(r->g, v);
  }
}

static void check_opset(Scanner *s, const char *at, const char *domain, int64_t version) {
  int newest = 0;
  for (int op = OP_NONE + 1; op < OP_COUNT; op++) {
    const OpInfo *o = op_info((Op)op);
    if (strcmp(o->domain, domain) == 0 && o->until > newest) newest = o->until;
  }
  if (newest == 0) scan_fail(s, at, "no operator of the domain \"%s\" is supported", domain);
  if (version > newest)
    scan_fail(s, at, "opset %lld of \"%s\": %d is the newest supported", (long long)version, domain, newest);
}

static void read_opsets(Scanner *s) {
  scan_expect(s, '[');
  if (scan_accept(s, ']')) return;
  do {
    const char *at = (scan_peek(s), s->p);
    const char *domain = scan_name(s);
    scan_expect(s, ':');
    check_opset(s, at, domain, scan_integer(s));
  } while (scan_accept(s, ','));
  scan_expect(s, ']');
}

static void read_metadata(Reader *r) {
  Scanner *s = &r->s;
  scan_expect(s, '[');
  if (scan_accept(s, ']')) return;
  do {
    r->g->meta = ctx_grow(s->ctx, r->g->meta, r->g->n_meta, &r->cap_meta, sizeof(Meta));
    Meta *m = &r->g->meta[r->g->n_meta++];
    m->key = scan_name(s);
    scan_expect(s, ':');
    m->value = scan_name(s);
  } while (scan_accept(s, ','));
  scan_expect(s, ']');
}

static void read_header(Reader *r) {
  Scanner *s = &r->s;
  if (!scan_accept(s, '<')) return;
  do {
    const char *at = (scan_peek(s), s->p), *key = scan_identifier(s);
    if (!key) scan_fail(s, at, "a keyword is expected");
    scan_expect(s, ':');
    if (strcmp(key, "opset_import") == 0) {
      read_opsets(s);
    } else if (strcmp(key, "metadata_props") == 0) {
      read_metadata(r);
    } else if (strcmp(key, "ir_version") == 0 || strcmp(key, "model_version") == 0) {
      scan_integer(s);
    } else if (strcmp(key, "doc_string") == 0 || strcmp(key, "domain") == 0 || strncmp(key, "producer_", 9) == 0) {
      scan_name(s);
    } else {
      scan_fail(s, at, "unknown keyword %s", key);
    }
  } while (scan_accept(s, ','));
  scan_expect(s, '>');
}

Graph *onnx_text_read(Ctx *c, const char *text, const char *origin) {
  Reader r = {.s = scan_start(c, text, origin), .g = graph_new(c, "")};
  read_header(&r);
  read_graph(&r);
  char next = scan_peek(&r.s);
  if (next == '<' || next == '"' || scan_peek_identifier(&r.s))
    scan_fail(&r.s, NULL, "model-local functions are not read from text: inline them first");
  if (next) scan_fail(&r.s, NULL, "'%c' after the end of the graph", next);
  r.g->model_hash = hash_bytes(text, strlen(text), 0);
  ctx_stop_on_errors(c);
  return r.g;
}
