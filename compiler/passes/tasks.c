/* Tasks: which there are, and one graph for all of them.
 *
 * A task is a set of outputs together with values bound to inputs. Tasks with the same bindings share their nodes from
 * the start; for each other set of bindings the cone of its outputs is cloned with the bound inputs as constants. What
 * does not depend on a bound input is equal in all clones and is joined again by share_equal.
 */
#include "compiler.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TASKS = 32 };

/* ---- finding them ---- */

static bool starts_with(const char *s, const char *prefix) { return strncmp(s, prefix, strlen(prefix)) == 0; }

static void add_output(Graph *g, Task *t, const char *name, size_t len) {
  char *output = ctx_strndup(g->ctx, name, len);
  const Value *v = graph_find(g, output);
  if (!v || !v->is_output) {
    Text have = {.ctx = g->ctx};
    for (size_t i = 0; i < g->n_outputs; i++) text_add(&have, "%s\"%s\"", i ? ", " : "", g->outputs[i]->name);
    ctx_fail(g->ctx, NULL, "task \"%s\" names the output \"%s\", which the graph does not have; it has %s", t->name,
             output, have.text);
  }
  const char **bigger = ctx_array(g->ctx, t->n_outputs + 1, sizeof *bigger);
  if (t->n_outputs) memcpy(bigger, t->outputs, t->n_outputs * sizeof *bigger);
  bigger[t->n_outputs++] = output;
  t->outputs = bigger;
}

static bool is_input(const Graph *g, const char *name) {
  for (size_t i = 0; i < g->n_inputs; i++)
    if (strcmp(g->inputs[i]->name, name) == 0) return true;
  return false;
}

static void add_binding(Graph *g, Task *t, const char *input, const char *value) {
  if (!is_input(g, input))
    ctx_fail(g->ctx, NULL, "task \"%s\" binds \"%s\", which is not an input of the graph", t->name, input);
  Binding *bigger = ctx_array(g->ctx, t->n_bind + 1, sizeof *bigger);
  if (t->n_bind) memcpy(bigger, t->bind, t->n_bind * sizeof *bigger);
  bigger[t->n_bind++] = (Binding){input, value};
  t->bind = bigger;
}

/* "outputs=A,B bind=INPUT:VALUE bind=…" */
static void parse_task(Graph *g, Task *t, const char *text) {
  while (*text) {
    size_t len = strcspn(text, " ");
    const char *end = text + len;
    if (starts_with(text, "outputs=")) {
      for (const char *p = text + 8; p < end; p += *p == ',') {
        size_t n = strcspn(p, ", ");
        add_output(g, t, p, n);
        p += n;
      }
    } else if (starts_with(text, "bind=") && memchr(text, ':', len)) {
      const char *colon = memchr(text, ':', len);
      add_binding(g, t, ctx_strndup(g->ctx, text + 5, (size_t)(colon - text) - 5),
                  ctx_strndup(g->ctx, colon + 1, (size_t)(end - colon) - 1));
    } else if (len) {
      ctx_fail(g->ctx, NULL, "metadata moecc.task.%s: \"%.*s\" is neither outputs=A,B nor bind=INPUT:VALUE", t->name,
               (int)len, text);
    }
    text = *end ? end + 1 : end;
  }
  if (!t->n_outputs) ctx_fail(g->ctx, NULL, "metadata moecc.task.%s names no outputs (outputs=A,B)", t->name);
}

static Task *add_task(Graph *g, const char *name) {
  for (size_t i = 0; i < g->n_tasks; i++)
    if (strcmp(g->tasks[i].name, name) == 0) ctx_fail(g->ctx, NULL, "task \"%s\" is given twice", name);
  if (g->n_tasks == MAX_TASKS) ctx_fail(g->ctx, NULL, "more than %d tasks; choose some with --task", MAX_TASKS);
  g->tasks[g->n_tasks] = (Task){.name = name};
  return &g->tasks[g->n_tasks++];
}

/* What is asked for on the command line but is not there, or twice. */
_Noreturn static void not_a_task(Graph *g, const char *what, const char *name) {
  Text have = {.ctx = g->ctx};
  for (size_t i = 0; i < g->n_tasks; i++) text_add(&have, "%s%s", i ? ", " : "", g->tasks[i].name);
  ctx_fail_status(g->ctx, EXIT_USAGE, "%s \"%s\"; the model has: %s", what, name, have.text);
}

static void keep_wanted(Graph *g, const char *const *wanted, size_t n_wanted) {
  Task *kept = ctx_array(g->ctx, MAX_TASKS, sizeof *kept);
  size_t n = 0;
  for (size_t w = 0; w < n_wanted; w++) {
    const Task *found = NULL;
    for (size_t i = 0; i < g->n_tasks; i++)
      if (strcmp(g->tasks[i].name, wanted[w]) == 0) found = &g->tasks[i];
    for (size_t i = 0; i < w; i++)
      if (strcmp(wanted[i], wanted[w]) == 0) not_a_task(g, "--task names twice the task", wanted[w]);
    if (!found) not_a_task(g, "there is no task", wanted[w]);
    kept[n++] = *found;
  }
  g->tasks = kept;
  g->n_tasks = n;
}

void tasks_find(Graph *g, const char *const *wanted, size_t n_wanted) {
  g->tasks = ctx_array(g->ctx, MAX_TASKS, sizeof *g->tasks);
  g->n_tasks = 0;
  for (size_t i = 0; i < g->n_meta; i++)
    if (starts_with(g->meta[i].key, "moecc.task.")) parse_task(g, add_task(g, g->meta[i].key + 11), g->meta[i].value);
  if (!g->n_tasks && g->n_outputs == 1) {
    add_output(g, add_task(g, g->name), g->outputs[0]->name, strlen(g->outputs[0]->name));
  } else if (!g->n_tasks) {
    for (size_t i = 0; i < g->n_outputs; i++)
      add_output(g, add_task(g, g->outputs[i]->name), g->outputs[i]->name, strlen(g->outputs[i]->name));
  }
  if (n_wanted) keep_wanted(g, wanted, n_wanted);
}

/* ---- joining them ---- */

/* The tensor of a bound input: `text` is one number for all elements or one for each, with commas. */
Tensor *task_bound_tensor(Graph *g, const Value *input, const char *text) {
  Ctx *c = g->ctx;
  if (!shape_known(&input->shape))
    ctx_fail(c, NULL, "input \"%s\" has the shape %s: fix it with --dim before binding it", input->name,
             shape_text(c, input->dtype, &input->shape));
  int64_t dims[MAX_RANK], count = shape_count(&input->shape);
  for (int i = 0; i < input->shape.rank; i++) dims[i] = input->shape.dim[i].n;
  Tensor *t = tensor_new(c, input->dtype, input->shape.rank, dims, NULL);
  size_t given = 1;
  for (const char *p = text; *p; p++) given += *p == ',';
  if (given != 1 && (int64_t)given != count)
    ctx_fail(c, NULL, "input \"%s\" has %lld elements, but %zu values are bound to it", input->name, (long long)count,
             given);
  const char *p = text;
  double x = 0;
  for (int64_t i = 0; i < count; i++) {
    if (i < (int64_t)given) {
      char *end;
      x = strtod(p, &end);
      if (end == p || (*end && *end != ','))
        ctx_fail(c, NULL, "\"%s\" bound to \"%s\" is not a number", text, input->name);
      p = *end ? end + 1 : end;
    }
    tensor_set_number(t, i, x);
  }
  return t;
}

static bool same_bindings(const Task *a, const Task *b) {
  if (a->n_bind != b->n_bind) return false;
  for (size_t i = 0; i < a->n_bind; i++)
    if (strcmp(a->bind[i].input, b->bind[i].input) != 0 || strcmp(a->bind[i].value, b->bind[i].value) != 0)
      return false;
  return true;
}

typedef struct {
  const Graph *from;
  Graph *to;
  Value **map;  /* from's values to those of the clone being made */
  bool *needed; /* from's nodes */
} Clone;

static void need(Clone *k, const Value *v) {
  if (v && v->producer) k->needed[v->producer->id] = true;
}

static Value *clone_value(Clone *k, Value *v) {
  if (!v) return NULL;
  if (!k->map[v->id]) {
    Value *twin = graph_value(k->to, v->name, v->dtype, v->shape);
    twin->tensor = v->tensor;
    k->map[v->id] = twin;
  }
  return k->map[v->id];
}

static void clone_node(Clone *k, const Node *n) {
  Ctx *c = k->to->ctx;
  Value **in = ctx_array(c, (size_t)n->n_in + 1, sizeof *in), **out = ctx_array(c, (size_t)n->n_out + 1, sizeof *out);
  for (int i = 0; i < n->n_in; i++) in[i] = clone_value(k, n->in[i]);
  for (int i = 0; i < n->n_out; i++) out[i] = clone_value(k, n->out[i]);
  Node *twin = graph_node(k->to, NULL, n->op, n->name, n->n_in, in, n->n_out, out);
  twin->scope = n->scope;
  twin->op_type = n->op_type;
  twin->attr = n->attr;
  twin->n_attr = n->n_attr;
  twin->expr = n->expr;
  twin->n_own = n->n_own;
}

/* Clones the cones of all tasks that are bound like `first`. Constants and unbound inputs are common to all clones. */
static void clone_tasks(Clone *k, const Task *first, Value *const *common) {
  Graph *g = k->to;
  memcpy(k->map, common, k->from->n_values * sizeof *k->map);
  memset(k->needed, 0, (size_t)k->from->n_nodes * sizeof *k->needed);
  for (size_t b = 0; b < first->n_bind; b++) {
    Value *input = graph_find(k->from, first->bind[b].input);
    k->map[input->id] = graph_constant(g, input->name, task_bound_tensor(g, input, first->bind[b].value));
  }
  for (size_t t = 0; t < g->n_tasks; t++)
    for (size_t i = 0; same_bindings(&g->tasks[t], first) && i < g->tasks[t].n_outputs; i++)
      need(k, graph_find(k->from, g->tasks[t].outputs[i]));
  for (const Node *n = k->from->last; n; n = n->prev)
    for (int i = 0; k->needed[n->id] && i < n->n_in; i++) need(k, n->in[i]);
  for (const Node *n = k->from->first; n; n = n->next)
    if (k->needed[n->id]) clone_node(k, n);
}

/* Makes the clone's values outputs; a task whose output name is taken by another's gets its own in Task.outputs. */
static void add_outputs(Clone *k, Task *t, Task *renamed) {
  Graph *g = k->to;
  for (size_t i = 0; i < t->n_outputs; i++) {
    Value *from = graph_find(k->from, t->outputs[i]), *v = k->map[from->id];
    if (!v->producer) {
      Value *copy = graph_value(g, from->name, v->dtype, v->shape);
      graph_node(g, NULL, OP_IDENTITY, from->name, 1, &v, 1, &copy);
      v = copy;
    }
    if (!v->is_output) graph_add_output(g, v);
    renamed->outputs[i] = v->name;
  }
}

Graph *tasks_join(Graph *from, const char *const *bind, size_t n_bind) {
  Ctx *c = from->ctx;
  for (size_t b = 0; b < n_bind; b++) {
    const char *equals = strchr(bind[b], '='), *input = ctx_strndup(c, bind[b], (size_t)(equals - bind[b]));
    if (!is_input(from, input))
      ctx_fail_status(c, EXIT_USAGE, "--bind %s: the model has no input \"%s\"", bind[b], input);
    for (size_t t = 0; t < from->n_tasks; t++) add_binding(from, &from->tasks[t], input, equals + 1);
  }
  Graph *g = graph_new(c, from->name);
  g->meta = from->meta, g->n_meta = from->n_meta;
  g->opsets = from->opsets, g->n_opsets = from->n_opsets;
  g->tasks = from->tasks, g->n_tasks = from->n_tasks;
  g->symbols = from->symbols, g->n_symbols = from->n_symbols, g->cap_symbols = from->cap_symbols;
  g->model_hash = from->model_hash;
  Clone k = {.from = from, .to = g};
  k.map = ctx_array(c, from->n_values + 1, sizeof *k.map);
  k.needed = ctx_array(c, (size_t)from->n_nodes + 1, sizeof *k.needed);
  for (size_t i = 0; i < from->n_inputs; i++) graph_add_input(g, clone_value(&k, from->inputs[i]));
  for (size_t i = 0; i < from->n_values; i++)
    if (from->values[i]->tensor) clone_value(&k, from->values[i]);
  Value **common = ctx_array(c, from->n_values + 1, sizeof *common);
  memcpy(common, k.map, from->n_values * sizeof *common);
  Task *tasks = ctx_array(c, MAX_TASKS, sizeof *tasks);
  bool done[MAX_TASKS] = {false};
  for (size_t t = 0; t < g->n_tasks; t++) {
    if (done[t]) continue;
    clone_tasks(&k, &g->tasks[t], common);
    for (size_t u = t; u < g->n_tasks; u++) {
      if (done[u] || !same_bindings(&g->tasks[u], &g->tasks[t])) continue;
      tasks[u] = g->tasks[u];
      tasks[u].outputs = ctx_array(c, tasks[u].n_outputs, sizeof *tasks[u].outputs);
      add_outputs(&k, &g->tasks[u], &tasks[u]);
      done[u] = true;
    }
  }
  g->tasks = tasks;
  for (size_t i = g->n_inputs; i-- > 0;) { /* an input that every task binds is none any more */
    bool free_somewhere = false;
    for (size_t t = 0; t < g->n_tasks; t++) free_somewhere |= !task_binds(&g->tasks[t], g->inputs[i]->name);
    if (free_somewhere) continue;
    memmove(g->inputs + i, g->inputs + i + 1, (g->n_inputs - i - 1) * sizeof *g->inputs);
    g->n_inputs--;
  }
  graph_mark_tasks(g);
  return g;
}

bool task_binds(const Task *t, const char *input) {
  for (size_t i = 0; i < t->n_bind; i++)
    if (strcmp(t->bind[i].input, input) == 0) return true;
  return false;
}
