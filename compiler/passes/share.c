/* Hash-consing: equal constants become one value, equal nodes one node.
 *
 * Needs: topological order.
 * Gives: no two constants of the same type, shape and content, and no two nodes of the same operator, attributes, fused
 *        work and operands (in any order where the operator commutes), but where both results are graph outputs.
 *        What is shared serves the tasks of all it stands for. The operators supported are all deterministic.
 * Breaks: nothing.
 *
 * Nodes are met in topological order, so operands are already shared when their readers are compared.
 */
#include "match.h"
#include "recognise.h"
#include <string.h>

/* Open hash table; a slot holds the hash and the item. */
typedef struct {
  Ctx *ctx;
  struct {
    uint64_t hash;
    void *item;
  } *slot;
  size_t size;
} Table;

static Table table_new(Ctx *c, size_t items) {
  Table t = {.ctx = c, .size = 16};
  while (t.size < 2 * items + 2) t.size *= 2;
  t.slot = ctx_array(c, t.size, sizeof *t.slot);
  return t;
}

/* The item equal to this one that is there already, or NULL after putting it in. */
static void *table_meet(Table *t, uint64_t hash, void *item, bool (*equal)(void *a, void *b)) {
  size_t i = (size_t)hash & (t->size - 1);
  for (; t->slot[i].item; i = (i + 1) & (t->size - 1))
    if (t->slot[i].hash == hash && equal(t->slot[i].item, item)) return t->slot[i].item;
  t->slot[i].hash = hash;
  t->slot[i].item = item;
  return NULL;
}

/* ---- constants ---- */

static bool equal_constants(void *a, void *b) {
  Value *x = a, *y = b;
  return x->dtype == y->dtype && tensor_equal(x->tensor, y->tensor);
}

static void share_constants(Graph *g) {
  size_t count = 0;
  for (size_t i = 0; i < g->n_values; i++) count += g->values[i]->tensor && g->values[i]->n_uses;
  Table t = table_new(g->ctx, count);
  for (size_t i = 0; i < g->n_values; i++) {
    Value *v = g->values[i];
    if (!v->tensor || !v->n_uses || v->is_output) continue;
    Value *first = table_meet(&t, tensor_hash(v->tensor), v, equal_constants);
    if (!first) continue;
    first->tasks |= v->tasks;
    value_replace(v, first);
  }
}

/* ---- nodes ---- */

static bool commutes(const Node *n) {
  switch (n->op) {
  case OP_ADD:
  case OP_MUL:
  case OP_AND:
  case OP_OR:
  case OP_XOR:
  case OP_EQUAL: return n->n_in == 2 && !n->expr;
  default: return false;
  }
}

static uint64_t mix(uint64_t h, uint64_t x) { return hash_bytes(&x, sizeof x, h); }

static uint64_t hash_node(const Node *n) {
  uint64_t h = mix((uint64_t)n->op, (uint64_t)n->n_in << 32 | (uint64_t)n->n_out), sum = 0;
  for (int i = 0; i < n->n_in; i++) {
    uint64_t id = n->in[i] ? (uint64_t)n->in[i]->id + 1 : 0;
    if (commutes(n)) {
      sum += id * UINT64_C(0x9e3779b97f4a7c15);
    } else {
      h = mix(h, id);
    }
  }
  return mix(h, sum + n->n_attr);
}

static bool equal_attrs(const Attr *a, const Attr *b) {
  bool is_list = a->kind == ATTR_INTS || a->kind == ATTR_FLOATS || a->kind == ATTR_STRINGS;
  if (strcmp(a->name, b->name) != 0 || a->kind != b->kind || (is_list && a->n != b->n)) return false;
  switch (a->kind) {
  case ATTR_INT: return a->i == b->i;
  case ATTR_FLOAT: return a->f == b->f;
  case ATTR_STRING: return strcmp(a->s, b->s) == 0;
  case ATTR_INTS: return a->n == 0 || memcmp(a->ints, b->ints, a->n * sizeof *a->ints) == 0;
  case ATTR_FLOATS: return a->n == 0 || memcmp(a->floats, b->floats, a->n * sizeof *a->floats) == 0;
  case ATTR_STRINGS:
    for (size_t i = 0; i < a->n; i++)
      if (strcmp(a->strings[i], b->strings[i]) != 0) return false;
    return true;
  case ATTR_TENSOR: return tensor_equal(a->tensor, b->tensor);
  case ATTR_GRAPH: return a->graph == b->graph;
  }
  return false;
}

/* In any order; an attribute name occurs once. */
static bool same_attrs(const Node *a, const Node *b) {
  if (a->n_attr != b->n_attr) return false;
  for (size_t i = 0; i < a->n_attr; i++) {
    const Attr *other = node_attr(b, a->attr[i].name);
    if (!other || !equal_attrs(&a->attr[i], other)) return false;
  }
  return true;
}

/* Of the same bits: 0 and -0 are two numbers, a NaN is one. */
static bool same_bits(double a, double b) {
  uint64_t x, y;
  memcpy(&x, &a, sizeof x);
  memcpy(&y, &b, sizeof y);
  return x == y;
}

static bool same_expr(const Expr *a, const Expr *b) {
  if (!a || !b) return a == b;
  if (a->n != b->n || a->dtype != b->dtype) return false;
  for (size_t i = 0; i < a->n; i++) {
    const ExprStep *x = &a->step[i], *y = &b->step[i];
    if (x->kind != y->kind) return false;
    if (x->kind == EX_INPUT && x->input != y->input) return false;
    if (x->kind == EX_NUMBER && !same_bits(x->number, y->number)) return false;
    if (x->kind != EX_OP) continue;
    if (x->op->op != y->op->op || memcmp(x->arg, y->arg, sizeof x->arg) != 0 || !same_attrs(x->op, y->op)) return false;
  }
  return true;
}

static bool same_inputs(const Node *a, const Node *b) {
  bool straight = true;
  for (int i = 0; i < a->n_in; i++) straight = straight && a->in[i] == b->in[i];
  return straight || (commutes(a) && a->in[0] == b->in[1] && a->in[1] == b->in[0]);
}

static bool equal_nodes(void *p, void *q) {
  const Node *a = p, *b = q;
  if (a->op != b->op || a->n_in != b->n_in || a->n_own != b->n_own || a->n_out != b->n_out) return false;
  return same_inputs(a, b) && same_attrs(a, b) && same_expr(a->expr, b->expr);
}

/* Two graph outputs keep a node each; a missing output cannot stand for one that is there. */
static bool can_stand_for(const Node *first, const Node *n) {
  for (int i = 0; i < n->n_out; i++) {
    if (!n->out[i]) continue;
    if (!first->out[i] || (first->out[i]->is_output && n->out[i]->is_output)) return false;
  }
  return true;
}

static void merge(Node *first, Node *n) {
  for (int i = 0; i < n->n_out; i++)
    if (n->out[i]) value_replace(n->out[i], first->out[i]);
  first->tasks |= n->tasks;
  for (int i = 0; i < first->n_out; i++)
    if (first->out[i]) first->out[i]->tasks |= first->tasks;
  node_remove(n);
}

static void share_nodes(Graph *g) {
  size_t count = 0;
  for (const Node *n = g->first; n; n = n->next) count++;
  Table t = table_new(g->ctx, count);
  for (Node *n = g->first, *next; n; n = next) {
    next = n->next;
    Node *first = table_meet(&t, hash_node(n), n, equal_nodes);
    if (first && can_stand_for(first, n)) merge(first, n);
  }
}

void share_equal(Graph *g) {
  share_constants(g);
  share_nodes(g);
}
