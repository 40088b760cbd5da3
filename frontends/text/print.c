/* Prints a graph in ONNX's own text syntax, so that Python's onnx.parser and onnx_text_read both read it back: names
 * that are not identifiers are quoted, numbers are the shortest that give the same value, float16 and bfloat16 data is
 * given by its bits. A large constant is printed as external data with the location "elided" and its hash: a parser
 * takes it, and two constants print alike exactly if they are alike.
 */
#include "text.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  Text *out;
  const Graph *g;
  const TextStyle *style;
  const char **name; /* by value id; NULL: the value's own. Renaming: equal constants get one name */
  bool *repeated;    /* by value id: a constant that has been named before */
  int depth;
} Printer;

static void print_graph(Printer *p);

/* ---- words and numbers ---- */

static bool is_plain_name(const char *s) {
  static const char *const keywords[] = {"seq", "map", "optional", "sparse_tensor", "opaque"};
  size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
  if (n == 0 || s[n] || (*s >= '0' && *s <= '9') || dtype_from_name(s) != DT_NONE) return false;
  for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
    if (strcmp(s, keywords[i]) == 0) return false;
  return true;
}

void text_quoted(Text *t, const char *s) {
  text_add(t, "\"");
  for (; *s; s++) {
    if (*s == '"' || *s == '\\') text_add(t, "\\");
    text_write(t, s, 1);
  }
  text_add(t, "\"");
}

static void print_name(Text *t, const char *s) {
  if (is_plain_name(s)) {
    text_add(t, "%s", s);
  } else {
    text_quoted(t, s);
  }
}

static void print_shortest(Text *t, double v, bool single) {
  char buf[40];
  if (isnan(v)) {
    text_add(t, "nan");
    return;
  }
  if (isinf(v)) {
    text_add(t, v < 0 ? "-inf" : "inf");
    return;
  }
  for (int digits = single ? 6 : 15; digits <= 17; digits++) {
    snprintf(buf, sizeof buf, "%.*g", digits, v);
    if (single ? strtof(buf, NULL) == (float)v : strtod(buf, NULL) == v) break;
  }
  text_add(t, "%s", buf);
}

void text_float(Text *t, double v) { print_shortest(t, v, (double)(float)v == v); }

/* ---- types and constants ---- */

static void print_dim(Printer *p, const Dim *d) {
  if (d->sym == 0) {
    if (d->n < 0) text_add(p->out, "?");
    if (d->n >= 0) text_add(p->out, "%" PRId64, d->n);
    return;
  }
  const char *name = p->g->symbols[d->sym - 1];
  if (d->n >= 0) name = ctx_format(p->g->ctx, "%s<=%" PRId64, name, d->n);
  print_name(p->out, name);
}

static void print_type(Printer *p, DType t, const Shape *s) {
  text_add(p->out, "%s", dtype_name(t));
  if (s->rank == 0) return;
  text_add(p->out, "[");
  for (int i = 0; i < s->rank; i++) {
    if (i) text_add(p->out, ",");
    print_dim(p, &s->dim[i]);
  }
  text_add(p->out, "]");
}

static void print_element(Text *out, const Tensor *t, int64_t i) {
  uint16_t half;
  uint64_t wide;
  switch (t->dtype) {
  case DT_F32: print_shortest(out, tensor_number(t, i), true); break;
  case DT_F64: print_shortest(out, tensor_number(t, i), false); break;
  case DT_F16:
  case DT_BF16:
    memcpy(&half, (const char *)t->data + 2 * i, sizeof half);
    text_add(out, "%u", half);
    break;
  case DT_U64:
    memcpy(&wide, (const char *)t->data + 8 * i, sizeof wide);
    text_add(out, "%" PRIu64, wide);
    break;
  default: text_add(out, "%" PRId64, tensor_integer(t, i)); break;
  }
}

static void print_data(Text *out, Tensor *t, int64_t full) {
  int64_t n = tensor_count(t);
  if (n > full) {
    text_add(out, "[\"location\": \"elided\", \"hash\": \"%016" PRIx64 "\"]", tensor_hash(t));
    return;
  }
  text_add(out, "{");
  for (int64_t i = 0; i < n; i++) {
    if (i) text_add(out, ",");
    print_element(out, t, i);
  }
  text_add(out, "}");
}

/* ---- attributes ---- */

static void attr_value(Text *t, const Attr *a, size_t i) {
  switch (a->kind) {
  case ATTR_INT: text_add(t, "%" PRId64, a->i); break;
  case ATTR_INTS: text_add(t, "%" PRId64, a->ints[i]); break;
  case ATTR_FLOAT: text_float(t, a->f); break;
  case ATTR_FLOATS: text_float(t, a->floats[i]); break;
  case ATTR_STRING: text_quoted(t, a->s ? a->s : ""); break;
  case ATTR_STRINGS: text_quoted(t, a->strings[i]); break;
  case ATTR_TENSOR: {
    Shape shape = shape_of(a->tensor->rank, a->tensor->dim);
    Printer p = {.out = t};
    print_type(&p, a->tensor->dtype, &shape);
    text_add(t, " ");
    print_data(t, a->tensor, 64);
    break;
  }
  case ATTR_GRAPH: {
    TextStyle style = {.full = 64, .types = true, .node_names = true};
    Printer p = {.out = t, .g = a->graph, .style = &style, .depth = 1};
    print_graph(&p);
    break;
  }
  }
}

void text_attr(Text *t, const Attr *a) {
  static const char *const kinds[] = {"int", "float", "string", "ints", "floats", "strings", "tensor", "graph"};
  text_add(t, "%s: %s = ", a->name, kinds[a->kind]);
  bool is_list = a->kind == ATTR_INTS || a->kind == ATTR_FLOATS || a->kind == ATTR_STRINGS;
  if (!is_list) {
    attr_value(t, a, 0);
    return;
  }
  text_add(t, "[");
  for (size_t i = 0; i < a->n; i++) {
    if (i) text_add(t, ", ");
    attr_value(t, a, i);
  }
  text_add(t, "]");
}

static int by_name(const void *a, const void *b) {
  return strcmp((*(const Attr *const *)a)->name, (*(const Attr *const *)b)->name);
}

/* In order of their names; `own` only where the node has operands beyond the operator's. */
static void print_attrs(Text *t, const Node *n) {
  const char *sep = " <";
  const Attr **sorted = ctx_array(t->ctx, n->n_attr + 1, sizeof *sorted);
  for (size_t i = 0; i < n->n_attr; i++) sorted[i] = &n->attr[i];
  qsort(sorted, n->n_attr, sizeof *sorted, by_name);
  for (size_t i = 0; i < n->n_attr; i++) {
    if (sorted[i]->kind == ATTR_STRINGS && sorted[i]->n == 0) continue; /* unreadable, says nothing */
    text_add(t, "%s", sep);
    text_attr(t, sorted[i]);
    sep = ", ";
  }
  if (n->expr) {
    text_add(t, "%sexpr: string = ", sep);
    text_quoted(t, text_of_expr(t->ctx, n->expr));
    if (n->n_own != n->n_in) text_add(t, ", own: int = %d", n->n_own);
    sep = ", ";
  }
  if (*sep == ',') text_add(t, ">");
}

/* ---- nodes and values ---- */

static const char *name_of(Printer *p, const Value *v) {
  return v ? p->name && p->name[v->id] ? p->name[v->id] : v->name : "";
}

static void print_names(Printer *p, Value *const *v, int n) {
  while (n > 0 && !v[n - 1]) n--;
  for (int i = 0; i < n; i++) {
    if (i) text_add(p->out, ", ");
    print_name(p->out, name_of(p, v[i]));
  }
}

static void indent(Printer *p, int more) { text_add(p->out, "%*s", 3 * (p->depth + more), ""); }

static void print_node(Printer *p, const Node *n) {
  const OpInfo *info = op_info(n->op);
  indent(p, 1);
  if (p->style->node_names && n->name && *n->name) {
    text_add(p->out, "[");
    print_name(p->out, n->name);
    text_add(p->out, "] ");
  }
  if (n->n_out == 0 || (n->n_out == 1 && !n->out[0])) text_add(p->out, "\"\"");
  print_names(p, n->out, n->n_out);
  text_add(p->out, " = %s%s%s", info->domain, *info->domain ? "." : "", info->name);
  print_attrs(p->out, n);
  text_add(p->out, " (");
  print_names(p, n->in, n->n_in);
  text_add(p->out, ")\n");
}

static void print_nodes(Printer *p) {
  const char *scope = "";
  for (const Node *n = p->g->first; n; n = n->next) {
    if (p->style->scopes && n->scope && strcmp(n->scope, scope) != 0) {
      indent(p, 1);
      text_add(p->out, "# %.*s\n", (int)strcspn(n->scope, "\r\n"), n->scope);
      scope = n->scope;
    }
    print_node(p, n);
  }
}

static void print_infos(Printer *p, Value *const *v, size_t n) {
  text_add(p->out, "(");
  for (size_t i = 0; i < n; i++) {
    if (i) text_add(p->out, ", ");
    if (v[i]->dtype != DT_NONE) {
      print_type(p, v[i]->dtype, &v[i]->shape);
      text_add(p->out, " ");
    }
    print_name(p->out, name_of(p, v[i]));
  }
  text_add(p->out, ")");
}

/* Calls fn for every constant that is used and every inner value, in order of first appearance. */
static void each_inner(Printer *p, void (*fn)(Printer *p, Value *v, void *arg), void *arg) {
  bool *seen = ctx_array(p->g->ctx, p->g->n_values + 1, sizeof(bool));
  for (const Node *n = p->g->first; n; n = n->next)
    for (int i = 0; i < n->n_in + n->n_out; i++) {
      Value *v = i < n->n_in ? n->in[i] : n->out[i - n->n_in];
      if (!v || seen[v->id]) continue;
      seen[v->id] = true;
      if (v->tensor || (v->producer && !v->is_output)) fn(p, v, arg);
    }
  for (size_t i = 0; i < p->g->n_outputs; i++) {
    Value *v = p->g->outputs[i];
    if (v->tensor && !seen[v->id]) fn(p, v, arg);
  }
}

static void print_inner(Printer *p, Value *v, void *arg) {
  const char **sep = arg;
  if (!v->tensor && (!p->style->types || v->dtype == DT_NONE)) return;
  if (p->repeated && p->repeated[v->id]) return;
  text_add(p->out, "%s", *sep);
  indent(p, 1);
  print_type(p, v->dtype, &v->shape);
  text_add(p->out, " ");
  print_name(p->out, name_of(p, v));
  if (v->tensor) {
    text_add(p->out, " = ");
    print_data(p->out, v->tensor, p->style->full);
  }
  *sep = ",\n";
}

static void rename_inner(Printer *p, Value *v, void *arg) {
  int *count = arg; /* of constants, of others */
  bool is_constant = v->tensor != NULL;
  if (v->is_output) return;
  for (size_t i = 0; is_constant && i < p->g->n_values; i++) {
    Value *other = p->g->values[i];
    if (!p->name[other->id] || !other->tensor || !tensor_equal(other->tensor, v->tensor)) continue;
    p->name[v->id] = p->name[other->id];
    p->repeated[v->id] = true;
    return;
  }
  p->name[v->id] = ctx_format(p->g->ctx, "%c%d", is_constant ? 'c' : 'v', count[is_constant]++);
}

static void print_graph(Printer *p) {
  print_name(p->out, p->g->name);
  text_add(p->out, " ");
  print_infos(p, p->g->inputs, p->g->n_inputs);
  text_add(p->out, " => ");
  print_infos(p, p->g->outputs, p->g->n_outputs);
  const char *sep = " <\n";
  each_inner(p, print_inner, &sep);
  if (*sep == ',') text_add(p->out, ">");
  text_add(p->out, " {\n");
  print_nodes(p);
  indent(p, 0);
  text_add(p->out, "}");
}

static void print_opsets(Text *out, const Graph *g) {
  static const struct {
    const char *domain;
    int fallback;
  } domains[] = {{"", 1}, {"moecc", 1}, {"com.microsoft", 1}};
  const char *sep = "";
  text_add(out, "   opset_import: [");
  for (size_t d = 0; d < sizeof domains / sizeof *domains; d++) {
    int newest = 0;
    bool used = d == 0;
    for (int op = OP_NONE + 1; op < OP_COUNT; op++) {
      const OpInfo *o = op_info((Op)op);
      if (strcmp(o->domain, domains[d].domain) == 0 && o->until > newest) newest = o->until;
    }
    for (const Node *n = g->first; n; n = n->next)
      used = used || strcmp(op_info(n->op)->domain, domains[d].domain) == 0;
    if (!used) continue;
    text_add(out, "%s\"%s\" : %d", sep, domains[d].domain, newest ? newest : domains[d].fallback);
    sep = ", ";
  }
  text_add(out, "]");
}

static void print_header(Printer *p) {
  text_add(p->out, "<\n   ir_version: 13,\n");
  print_opsets(p->out, p->g);
  for (size_t i = 0; i < p->g->n_meta; i++) {
    text_add(p->out, i ? ",\n      " : ",\n   metadata_props: [");
    text_quoted(p->out, p->g->meta[i].key);
    text_add(p->out, ": ");
    text_quoted(p->out, p->g->meta[i].value);
  }
  text_add(p->out, p->g->n_meta ? "]\n>\n" : "\n>\n");
}

void text_print_styled(Graph *g, Text *out, const TextStyle *style) {
  Printer p = {.out = out, .g = g, .style = style};
  if (style->rename) {
    int count[2] = {0, 0};
    p.name = ctx_array(g->ctx, g->n_values + 1, sizeof(char *));
    p.repeated = ctx_array(g->ctx, g->n_values + 1, sizeof(bool));
    each_inner(&p, rename_inner, count);
  }
  print_header(&p);
  print_graph(&p);
  text_add(out, "\n");
}

void onnx_text_print(Graph *g, Text *out) {
  TextStyle style = {.full = 64, .types = true, .node_names = true, .scopes = true};
  text_print_styled(g, out, &style);
}
