/* The graph: nodes in topological order, values with their uses, attributes. Structure is only changed through the
 * functions here, which keep uses and order right; passes read the fields directly. */
#include "compiler.h"

#include <string.h>

Graph *graph_new(Ctx *c, const char *name) {
  Graph *g = ctx_alloc(c, sizeof *g);
  g->ctx = c;
  g->name = ctx_strdup(c, name ? name : "");
  return g;
}

int graph_symbol(Graph *g, const char *name) {
  for (size_t i = 0; i < g->n_symbols; i++)
    if (strcmp(g->symbols[i], name) == 0) return (int)i + 1;
  g->symbols = ctx_grow(g->ctx, g->symbols, g->n_symbols, &g->cap_symbols, sizeof *g->symbols);
  g->symbols[g->n_symbols++] = ctx_strdup(g->ctx, name);
  return (int)g->n_symbols;
}

/* ---- names: an open hash table from name to value, rebuilt as it fills ---- */

struct NameTable {
  Value **slot;
  size_t size, used;
};

static size_t name_slot(const struct NameTable *t, const char *name) {
  size_t i = (size_t)hash_bytes(name, strlen(name), 1) & (t->size - 1);
  while (t->slot[i] && strcmp(t->slot[i]->name, name) != 0) i = (i + 1) & (t->size - 1);
  return i;
}

static void name_insert(Graph *g, Value *v) {
  struct NameTable *t = g->names;
  if (!t) t = g->names = ctx_alloc(g->ctx, sizeof *t);
  if (2 * (t->used + 1) > t->size) {
    struct NameTable old = *t;
    t->size = old.size ? 2 * old.size : 256;
    t->slot = ctx_array(g->ctx, t->size, sizeof *t->slot);
    for (size_t i = 0; i < old.size; i++)
      if (old.slot[i]) t->slot[name_slot(t, old.slot[i]->name)] = old.slot[i];
  }
  t->slot[name_slot(t, v->name)] = v;
  t->used++;
}

Value *graph_find(const Graph *g, const char *name) {
  return g->names && g->names->size ? g->names->slot[name_slot(g->names, name)] : NULL;
}

static const char *unique_name(Graph *g, const char *name) {
  if (name && *name && !graph_find(g, name)) return ctx_strdup(g->ctx, name);
  const char *stem = name && *name ? name : "t";
  for (size_t i = g->n_values;; i++) {
    char *candidate = ctx_format(g->ctx, "%s_%zu", stem, i);
    if (!graph_find(g, candidate)) return candidate;
  }
}

/* ---- values ---- */

Value *graph_value(Graph *g, const char *name, DType t, Shape s) {
  Value *v = ctx_alloc(g->ctx, sizeof *v);
  v->id = (int)g->n_values;
  v->graph = g;
  v->name = unique_name(g, name);
  v->dtype = t;
  v->shape = s;
  g->values = ctx_grow(g->ctx, g->values, g->n_values, &g->cap_values, sizeof *g->values);
  g->values[g->n_values++] = v;
  name_insert(g, v);
  return v;
}

Value *graph_constant(Graph *g, const char *name, Tensor *t) {
  Value *v = graph_value(g, name ? name : "c", t->dtype, shape_of(t->rank, t->dim));
  v->tensor = t;
  return v;
}

Value *graph_constant_ints(Graph *g, const char *name, int rank, int64_t n, const int64_t *x) {
  Tensor *t = tensor_new(g->ctx, DT_I64, rank, &n, NULL);
  memcpy(tensor_writable(t), x, t->bytes);
  return graph_constant(g, name, t);
}

Value *graph_constant_float(Graph *g, const char *name, float x) {
  Tensor *t = tensor_new(g->ctx, DT_F32, 0, NULL, NULL);
  memcpy(tensor_writable(t), &x, sizeof x);
  return graph_constant(g, name, t);
}

void graph_add_input(Graph *g, Value *v) {
  g->inputs = ctx_grow(g->ctx, g->inputs, g->n_inputs, &g->cap_inputs, sizeof(Value *));
  g->inputs[g->n_inputs++] = v;
}

void graph_add_output(Graph *g, Value *v) {
  g->outputs = ctx_grow(g->ctx, g->outputs, g->n_outputs, &g->cap_outputs, sizeof(Value *));
  g->outputs[g->n_outputs++] = v;
  v->is_output = true;
}

static void add_use(Graph *g, Value *v, Node *n, int input) {
  if (!v) return;
  v->uses = ctx_grow(g->ctx, v->uses, v->n_uses, &v->cap_uses, sizeof *v->uses);
  v->uses[v->n_uses++] = (Use){.node = n, .input = input};
}

static void drop_use(Value *v, const Node *n, int input) {
  if (!v) return;
  for (size_t i = 0; i < v->n_uses; i++)
    if (v->uses[i].node == n && v->uses[i].input == input) {
      memmove(v->uses + i, v->uses + i + 1, (v->n_uses - i - 1) * sizeof *v->uses);
      v->n_uses--;
      return;
    }
}

static void swap_names(Value *a, Value *b) {
  struct NameTable *t = a->graph->names;
  size_t i = name_slot(t, a->name), j = name_slot(t, b->name);
  t->slot[i] = b;
  t->slot[j] = a;
  const char *name = a->name;
  a->name = b->name;
  b->name = name;
}

static void replace_output(Value *from, Value *to) {
  Graph *g = from->graph;
  if (!to->producer || to->is_output) {
    Value *copy = graph_value(g, from->name, to->dtype, to->shape);
    Node *identity = graph_node(g, NULL, OP_IDENTITY, from->name, 1, &to, 1, &copy);
    if (from->producer) identity->scope = from->producer->scope;
    to = copy;
  }
  swap_names(from, to);
  for (size_t i = 0; i < g->n_outputs; i++)
    if (g->outputs[i] == from) g->outputs[i] = to;
  from->is_output = false;
  to->is_output = true;
}

void value_replace(Value *from, Value *to) {
  if (from == to) return;
  while (from->n_uses) {
    Use u = from->uses[from->n_uses - 1];
    node_set_input(u.node, u.input, to);
  }
  if (from->is_output) replace_output(from, to);
}

bool value_single_use(const Value *v) { return v->n_uses == 1 && !v->is_output; }

bool value_is_number(const Value *v, double *out) {
  if (!v || !v->tensor || v->dtype == DT_STRING || v->dtype == DT_NONE) return false;
  int64_t n = tensor_count(v->tensor);
  if (n < 1) return false;
  double x = tensor_number(v->tensor, 0);
  for (int64_t i = 1; i < n; i++)
    if (tensor_number(v->tensor, i) != x) return false;
  *out = x;
  return true;
}

/* ---- nodes ---- */

static void link_node(Graph *g, Node *before, Node *n) {
  n->next = before;
  n->prev = before ? before->prev : g->last;
  *(n->prev ? &n->prev->next : &g->first) = n;
  *(n->next ? &n->next->prev : &g->last) = n;
}

static void unlink_node(Node *n) {
  Graph *g = n->graph;
  *(n->prev ? &n->prev->next : &g->first) = n->next;
  *(n->next ? &n->next->prev : &g->last) = n->prev;
  n->prev = n->next = NULL;
}

Node *graph_node(Graph *g, Node *before, Op op, const char *name, int n_in, Value *const *in, int n_out,
                 Value *const *out) {
  Ctx *c = g->ctx;
  Node *n = ctx_alloc(c, sizeof *n);
  n->op = op;
  n->op_type = op_info(op)->name;
  n->id = g->n_nodes++;
  n->graph = g;
  n->name = ctx_strdup(c, name ? name : before ? before->name : "");
  n->scope = before ? before->scope : "";
  n->tasks = before ? before->tasks : 0;
  n->in = ctx_array(c, (size_t)n_in, sizeof *n->in);
  n->n_in = n->n_own = n_in;
  for (int i = 0; i < n_in; i++) {
    n->in[i] = in[i];
    add_use(g, in[i], n, i);
  }
  n->n_out = n_out;
  n->out = ctx_array(c, (size_t)(n_out ? n_out : 1), sizeof *n->out);
  for (int i = 0; i < n_out; i++) {
    n->out[i] = out ? out[i] : graph_value(g, name ? name : op_info(op)->name, DT_NONE, shape_unknown());
    if (!n->out[i]) continue;
    n->out[i]->producer = n;
    n->out[i]->output = i;
    n->out[i]->tasks = n->tasks;
  }
  link_node(g, before, n);
  return n;
}

Node *node_new(Graph *g, Node *before, Op op, int n_in, ...) {
  Value *in[16];
  va_list ap;
  va_start(ap, n_in);
  for (int i = 0; i < n_in && i < 16; i++) in[i] = va_arg(ap, Value *);
  va_end(ap);
  return graph_node(g, before, op, NULL, n_in, in, 1, NULL);
}

void node_set_input(Node *n, int i, Value *v) {
  Ctx *c = n->graph->ctx;
  if (i >= n->n_in) {
    Value **in = ctx_array(c, (size_t)i + 1, sizeof *in);
    if (n->n_in) memcpy(in, n->in, (size_t)n->n_in * sizeof *in);
    n->in = in;
    n->n_in = i + 1;
    if (!n->expr) n->n_own = n->n_in;
  }
  drop_use(n->in[i], n, i);
  n->in[i] = v;
  add_use(n->graph, v, n, i);
}

void node_remove(Node *n) {
  for (int i = 0; i < n->n_in; i++) drop_use(n->in[i], n, i);
  for (int i = 0; i < n->n_out; i++)
    if (n->out[i] && n->out[i]->producer == n) n->out[i]->producer = NULL;
  n->n_in = n->n_own = 0;
  unlink_node(n);
}

static bool node_needed(const Node *n) {
  for (int i = 0; i < n->n_out; i++)
    if (n->out[i] && (n->out[i]->n_uses || n->out[i]->is_output)) return true;
  return false;
}

void graph_remove_dead(Graph *g) {
  for (Node *n = g->last, *prev; n; n = prev) {
    prev = n->prev;
    if (!node_needed(n)) node_remove(n);
  }
}

/* ---- order ---- */

/* Takes nodes whose inputs are ready, smallest old position first, until none is left; what remains is a cycle. */
void graph_sort(Graph *g) {
  Ctx *c = g->ctx;
  size_t count = 0;
  for (Node *n = g->first; n; n = n->next) count++;
  if (!count) return;
  int *waiting = ctx_array(c, (size_t)g->n_nodes, sizeof *waiting);
  Node **ready = ctx_array(c, count, sizeof *ready), **order = ctx_array(c, count, sizeof *order);
  size_t n_order = 0, n_ready = 0, taken = 0;
  for (Node *n = g->first; n; n = n->next) {
    for (int i = 0; i < n->n_in; i++) waiting[n->id] += n->in[i] && n->in[i]->producer;
    if (!waiting[n->id]) ready[n_ready++] = n;
  }
  while (taken < n_ready) {
    Node *n = order[n_order++] = ready[taken++];
    for (int o = 0; o < n->n_out; o++)
      for (size_t u = 0; n->out[o] && u < n->out[o]->n_uses; u++)
        if (--waiting[n->out[o]->uses[u].node->id] == 0) ready[n_ready++] = n->out[o]->uses[u].node;
  }
  if (n_order < count) {
    for (Node *n = g->first; n; n = n->next)
      if (waiting[n->id]) ctx_report(c, n, "is part of a cycle or depends on one: a graph must be acyclic");
    ctx_stop_on_errors(c);
  }
  g->first = g->last = NULL;
  for (size_t i = 0; i < n_order; i++) link_node(g, NULL, order[i]);
}

void graph_mark_tasks(Graph *g) {
  for (size_t i = 0; i < g->n_values; i++) g->values[i]->tasks = 0;
  for (size_t o = 0; o < g->n_outputs; o++) {
    Value *v = g->outputs[o];
    if (!g->n_tasks) v->tasks = 1;
    for (size_t t = 0; t < g->n_tasks; t++)
      for (size_t i = 0; i < g->tasks[t].n_outputs; i++)
        if (strcmp(g->tasks[t].outputs[i], v->name) == 0) v->tasks |= (uint64_t)1 << t;
  }
  for (Node *n = g->last; n; n = n->prev) {
    n->tasks = 0;
    for (int i = 0; i < n->n_out; i++) n->tasks |= n->out[i] ? n->out[i]->tasks : 0;
    for (int i = 0; i < n->n_out; i++)
      if (n->out[i]) n->out[i]->tasks = n->tasks;
    for (int i = 0; i < n->n_in; i++)
      if (n->in[i]) n->in[i]->tasks |= n->tasks;
  }
}

/* ---- attributes ---- */

const Attr *node_attr(const Node *n, const char *name) {
  for (size_t i = 0; i < n->n_attr; i++)
    if (strcmp(n->attr[i].name, name) == 0) return &n->attr[i];
  return NULL;
}

int64_t node_int(const Node *n, const char *name, int64_t fallback) {
  const Attr *a = node_attr(n, name);
  return a && a->kind == ATTR_INT ? a->i : fallback;
}

double node_float(const Node *n, const char *name, double fallback) {
  const Attr *a = node_attr(n, name);
  return a && a->kind == ATTR_FLOAT ? a->f : fallback;
}

const char *node_string(const Node *n, const char *name, const char *fallback) {
  const Attr *a = node_attr(n, name);
  return a && a->kind == ATTR_STRING ? a->s : fallback;
}

size_t node_ints(const Node *n, const char *name, const int64_t **out) {
  const Attr *a = node_attr(n, name);
  if (!a || a->kind != ATTR_INTS) return 0;
  *out = a->ints;
  return a->n;
}

void node_set_attr(Node *n, Attr a) {
  Ctx *c = n->graph->ctx;
  node_drop_attr(n, a.name);
  Attr *bigger = ctx_array(c, n->n_attr + 1, sizeof *bigger);
  if (n->n_attr) memcpy(bigger, n->attr, n->n_attr * sizeof *bigger);
  a.name = ctx_strdup(c, a.name);
  bigger[n->n_attr++] = a;
  n->attr = bigger;
}

void node_drop_attr(Node *n, const char *name) {
  for (size_t i = 0; i < n->n_attr; i++)
    if (strcmp(n->attr[i].name, name) == 0) {
      Attr *rest = ctx_array(n->graph->ctx, n->n_attr, sizeof *rest); /* the array may be a twin's, too */
      memcpy(rest, n->attr, i * sizeof *rest);
      memcpy(rest + i, n->attr + i + 1, (n->n_attr - i - 1) * sizeof *rest);
      n->attr = rest;
      n->n_attr--;
      return;
    }
}

void node_set_int(Node *n, const char *name, int64_t v) {
  node_set_attr(n, (Attr){.name = name, .kind = ATTR_INT, .i = v});
}

void node_set_float(Node *n, const char *name, double v) {
  node_set_attr(n, (Attr){.name = name, .kind = ATTR_FLOAT, .f = v});
}

void node_set_string(Node *n, const char *name, const char *v) {
  v = ctx_strdup(n->graph->ctx, v);
  node_set_attr(n, (Attr){.name = name, .kind = ATTR_STRING, .s = v, .n = strlen(v)});
}

void node_set_ints(Node *n, const char *name, size_t count, const int64_t *v) {
  int64_t *copy = ctx_array(n->graph->ctx, count ? count : 1, sizeof *copy);
  if (count) memcpy(copy, v, count * sizeof *copy);
  node_set_attr(n, (Attr){.name = name, .kind = ATTR_INTS, .ints = copy, .n = count});
}

const Tensor *node_const(const Node *n, int i) { return i < n->n_in && n->in[i] ? n->in[i]->tensor : NULL; }

char *node_describe(Ctx *c, const Node *n) {
  const char *type = n->op_type ? n->op_type : op_info(n->op)->name;
  return ctx_format(c, "node %d \"%s\" (%s)", n->id, n->name ? n->name : "", type);
}

static void add_operand(Text *t, const Value *v, int i) {
  text_add(t, i ? ", " : "");
  if (v)
    text_add(t, "%%%s %s", v->name, shape_text(t->ctx, v->dtype, &v->shape));
  else
    text_add(t, "(absent)");
}

char *node_operands(Ctx *c, const Node *n) {
  enum { MOST = 8 }; /* the rest would hide the message */
  Text t = {.ctx = c};
  for (int i = 0; i < n->n_in && i < MOST; i++) add_operand(&t, n->in[i], i);
  text_add(&t, "%s -> ", n->n_in > MOST ? ", ..." : "");
  for (int i = 0; i < n->n_out && i < MOST; i++)
    text_add(&t, "%s%%%s", i ? ", " : "", n->out[i] ? n->out[i]->name : "(absent)");
  return t.text;
}
