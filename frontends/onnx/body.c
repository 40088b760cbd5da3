/* The nodes of one body: the model's graph, a branch, or a function at one of its calls.
 *
 * First every name is defined, with a Value, then the nodes are converted in order. So a name that is not defined is
 * dangling, and one whose definer has not been converted is used too early, by an unsorted or cyclic graph.
 */
#include "frontend.h"

#include <string.h>

enum { MOST_ERRORS = 100, MOST_NODES = 1 << 18 };

/* ---- descriptions ---- */

static const char *text(const char *s) { return s ? s : ""; }

const char *node_where(Ctx *c, const Body *b, size_t i) {
  const Onnx__NodeProto *n = b->node[i];
  const char *in = "";
  if (b->function)
    in = ctx_format(c, " in function %s", quoted(c, text(b->function->name)));
  else if (b->outer)
    in = " in a branch of If";
  const char *op = quoted(c, text(n->op_type)); /* shown without its quotes */
  return ctx_format(c, "node %zu %s (%.*s)%s", i, quoted(c, text(n->name)), (int)strlen(op) - 2, op + 1, in);
}

static const char *definer(Ctx *c, const Body *b, Definer by, size_t index) {
  switch (by) {
  case BY_INPUT: return ctx_format(c, "input %zu", index);
  case BY_INITIALIZER: return ctx_format(c, "initializer %zu", index);
  default: return node_where(c, b, index);
  }
}

/* ---- definitions ---- */

Def *body_define(Reader *r, Body *b, const char *name, Definer by, size_t index) {
  const Def *first = names_find(&b->names, name);
  if (!first) return names_add(r->ctx, &b->names, name, by, index);
  ctx_report(r->ctx, NULL, "the name %s is defined twice: by %s and by %s", quoted(r->ctx, name),
             definer(r->ctx, b, first->by, first->index), definer(r->ctx, b, by, index));
  return NULL;
}

static Value *result_named(const Body *b, const char *name) {
  for (size_t i = 0; i < b->n_out_name; i++)
    if (b->result[i] && strcmp(b->out_name[i], name) == 0) return b->result[i];
  return NULL;
}

void body_define_outputs(Reader *r, Body *b) {
  for (size_t i = 0; i < b->n_node; i++)
    for (size_t k = 0; k < b->node[i]->n_output; k++) {
      const char *name = b->node[i]->output[k];
      Def *d = *name ? body_define(r, b, name, BY_NODE, i) : NULL;
      if (!d) continue;
      d->value = result_named(b, name);
      if (d->value) continue;
      const char *full = *b->prefix ? ctx_format(r->ctx, "%s%s", b->prefix, name) : name;
      d->value = graph_value(r->graph, full, DT_NONE, shape_unknown());
    }
}

void body_define_initializers(Reader *r, Body *b, const Onnx__GraphProto *g) {
  if (g->n_sparse_initializer)
    ctx_report(r->ctx, NULL, "has %zu sparse initializers, which are not supported: store them dense",
               g->n_sparse_initializer);
  for (size_t i = 0; i < g->n_initializer; i++) {
    const char *name = text(g->initializer[i]->name);
    if (*name)
      body_define(r, b, name, BY_INITIALIZER, i);
    else
      ctx_report(r->ctx, NULL, "initializer %zu has no name", i);
  }
}

static void load_initializer(Reader *r, Body *b, const Onnx__TensorProto *t, Def *d) {
  Ctx *c = r->ctx;
  d->ready = true;
  Tensor *loaded = tensor_load(&r->source, t, ctx_format(c, "initializer %s", quoted(c, d->name)));
  const char *type = onnx_type_name(t->data_type);
  if (loaded)
    d->value = graph_constant(r->graph, *b->prefix ? ctx_format(c, "%s%s", b->prefix, d->name) : d->name, loaded);
  else if (type)
    d->refused =
        ctx_format(c, "initializer %s has elements of %s, a type that is not supported", quoted(c, d->name), type);
  else
    d->refused = ctx_format(c, "initializer %s has elements of the unknown type %d", quoted(c, d->name), t->data_type);
}

void body_load_initializers(Reader *r, Body *b, const Onnx__GraphProto *g) {
  for (size_t i = 0; i < g->n_initializer; i++) {
    Def *d = names_find(&b->names, text(g->initializer[i]->name));
    if (d && d->by == BY_INITIALIZER && d->index == i) load_initializer(r, b, g->initializer[i], d);
  }
}

/* ---- uses ---- */

/* Which node of the body makes a name; n_node if none does. */
static size_t maker(const Body *b, const char *name) {
  const Def *d = *name ? names_find(&b->names, name) : NULL;
  return d && d->by == BY_NODE ? d->index : b->n_node;
}

/* Walks from node `from` against the edges until it meets node `to`: the path as text, NULL if there is none. */
static const char *path_back(Ctx *c, const Body *b, size_t from, size_t to) {
  size_t *next = ctx_array(c, b->n_node, sizeof *next), *queue = ctx_array(c, b->n_node, sizeof *queue);
  size_t n = 0, done = 0;
  for (size_t i = 0; i < b->n_node; i++) next[i] = b->n_node;
  queue[n++] = from;
  next[from] = from;
  while (done < n && next[to] == b->n_node) {
    size_t at = queue[done++];
    for (size_t k = 0; k < b->node[at]->n_input; k++) {
      size_t m = maker(b, b->node[at]->input[k]);
      if (m == b->n_node || next[m] != b->n_node) continue;
      next[m] = at;
      queue[n++] = m;
    }
  }
  if (next[to] == b->n_node) return NULL;
  Text t = {.ctx = c};
  text_add(&t, "%s", node_where(c, b, to));
  for (size_t at = to, shown = 0; at != from && shown < 20; shown++) {
    at = next[at];
    text_add(&t, " -> %s", node_where(c, b, at));
  }
  return t.text;
}

/* Node `user` of `b` reads what a later node of `in`, the same body or one around it, defines. */
static void report_early(Reader *r, const Body *b, const Body *in, const Def *d, size_t user) {
  Ctx *c = r->ctx;
  const char *where = node_where(c, b, user), *cycle = NULL;
  if (in == b) cycle = d->index == user ? where : path_back(c, b, d->index, user);
  if (cycle)
    ctx_report(c, NULL, "%s: is in a cycle: %s -> %s (over %s); a graph must be acyclic", where, cycle, where,
               quoted(c, d->name));
  else
    ctx_report(c, NULL, "%s: reads %s, which only %s after it makes: nodes must be sorted topologically", where,
               quoted(c, d->name), node_where(c, in, d->index));
}

/* The value of a name as node `user` sees it: NULL if it is absent, or wrong, which is reported. */
static Value *use(Reader *r, const Body *b, const char *name, size_t user) {
  Ctx *c = r->ctx;
  if (!*name) return NULL;
  for (const Body *in = b; in; in = in->outer) {
    Def *d = names_find(&in->names, name);
    if (!d) continue;
    if (d->refused) ctx_report(c, NULL, "%s: %s", node_where(c, b, user), d->refused);
    if (!d->ready) report_early(r, b, in, d, user);
    return d->value;
  }
  ctx_report(c, NULL, "%s: reads %s, which no node, input or initializer defines", node_where(c, b, user),
             quoted(c, name));
  return NULL;
}

/* ---- operator sets ---- */

static const char *domain_of(const char *domain) { return !domain || strcmp(domain, "ai.onnx") == 0 ? "" : domain; }

int body_opset(const Reader *r, const Body *b, const char *domain) {
  for (size_t i = 0; i < b->n_opset; i++)
    if (strcmp(domain_of(b->opset[i]->domain), domain) == 0) return (int)b->opset[i]->version;
  for (size_t i = 0; b->function && i < r->model->n_opset_import; i++)
    if (strcmp(domain_of(r->model->opset_import[i]->domain), domain) == 0)
      return (int)r->model->opset_import[i]->version;
  return 0;
}

bool opset_check(Reader *r, Onnx__OperatorSetIdProto **opset, size_t n, const char *whose) {
  Ctx *c = r->ctx;
  for (size_t i = 0; i < n; i++) {
    const char *domain = domain_of(opset[i]->domain), *shown = *domain ? quoted(c, domain) : "ai.onnx";
    int64_t version = opset[i]->version;
    for (size_t k = 0; k < i; k++)
      if (strcmp(domain_of(opset[k]->domain), domain) == 0 && opset[k]->version != version)
        ctx_report(c, NULL, "%s imports opsets %lld and %lld of %s", whose, (long long)opset[k]->version,
                   (long long)version, shown);
    if (version < 1 || version > INT32_MAX)
      ctx_report(c, NULL, "%s imports opset %lld of %s, which does not exist", whose, (long long)version, shown);
    else if (!*domain && (version < OPSET_OLDEST || version > OPSET_NEWEST))
      ctx_report(c, NULL, "%s imports opset %lld of ai.onnx; %d to %d are supported", whose, (long long)version,
                 OPSET_OLDEST, OPSET_NEWEST);
  }
  return n > 0;
}

void opset_copy(Reader *r) {
  const Onnx__ModelProto *m = r->model;
  Opset *opset = ctx_array(r->ctx, m->n_opset_import + 1, sizeof *opset);
  size_t n = 0, k;
  for (size_t i = 0; i < m->n_opset_import; i++) {
    const char *domain = domain_of(m->opset_import[i]->domain);
    for (k = 0; k < n && strcmp(opset[k].domain, domain) != 0;) k++;
    if (k == n) opset[n++] = (Opset){domain, m->opset_import[i]->version};
  }
  r->graph->opsets = opset;
  r->graph->n_opsets = n;
}

/* ---- nodes ---- */

static RawNode start(Reader *r, const Body *b, size_t i) {
  const Onnx__NodeProto *p = b->node[i];
  Ctx *c = r->ctx;
  const char *domain = domain_of(p->domain);
  RawNode n = {.reader = r,
               .body = b,
               .proto = p,
               .where = node_where(c, b, i),
               .domain = domain,
               .op_type = p->op_type,
               .version = body_opset(r, b, domain)};
  n.name = p->name && *p->name && *b->prefix ? ctx_format(c, "%s%s", b->prefix, p->name) : text(p->name);
  n.scope = scope_join(c, b->scope, scope_of(c, p));
  n.n_in = (int)p->n_input;
  n.in = ctx_array(c, p->n_input + 1, sizeof *n.in);
  for (size_t k = 0; k < p->n_input; k++) n.in[k] = use(r, b, p->input[k], i);
  n.n_out = (int)p->n_output;
  n.out = ctx_array(c, p->n_output + 1, sizeof *n.out);
  for (size_t k = 0; k < p->n_output; k++) {
    const Def *d = *p->output[k] ? names_find(&b->names, p->output[k]) : NULL;
    n.out[k] = d && d->by == BY_NODE && d->index == i ? d->value : NULL;
  }
  return n;
}

static void convert_node(Reader *r, const Body *b, size_t i) {
  if (!b->node[i]->op_type || !*b->node[i]->op_type) {
    ctx_report(r->ctx, NULL, "%s: has no operator type", node_where(r->ctx, b, i));
    return;
  }
  size_t errors = ctx_message_count(r->ctx);
  RawNode n = start(r, b, i);
  const Onnx__FunctionProto *f = function_find(r, n.proto);
  bool good = attributes_read(&n, b->attr, b->n_attr) && ctx_message_count(r->ctx) == errors;
  if (f) {
    if (good) inline_call(&n, b, f);
  } else if (!n.version) {
    unsupported_add(&n, "is of an operator set that the model does not import");
  } else if (!*n.domain && strcmp(n.op_type, "If") == 0) {
    if (good && !inline_if(&n, b)) unsupported_add(&n, "is not supported unless its condition is a constant");
  } else if (good || op_find(n.domain, n.op_type) == OP_NONE) {
    node_finish(&n); /* lists an unsupported operator even where more is wrong with the node */
  }
}

void body_convert(Reader *r, Body *b) {
  for (size_t i = 0; i < b->n_node; i++) {
    if (++r->n_nodes > MOST_NODES) ctx_fail(r->ctx, NULL, "has more than %d nodes, functions inlined", MOST_NODES);
    convert_node(r, b, i);
    for (size_t k = 0; k < b->node[i]->n_output; k++) {
      Def *d = names_find(&b->names, b->node[i]->output[k]);
      if (d && d->index == i && d->by == BY_NODE) d->ready = true;
    }
    if (ctx_message_count(r->ctx) >= MOST_ERRORS) {
      unsupported_report(r);
      ctx_stop_on_errors(r->ctx);
    }
  }
}
