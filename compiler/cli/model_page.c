/* The page of a model: what the compiler reads and makes of it, as tables. It can be read without its script, which only
 * finds nodes (model.html).
 */
#include "cli/inspect.h"
#include "cli/page.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
  const ModelFacts *facts;
  const char *file;
} Page;

/* ---- cells ------------------------------------------------------------------------------------------------------- */

static void add_left(Text *t, const char *s) {
  text_add(t, "<td class=\"left\">");
  page_text(t, s);
  text_add(t, "</td>");
}

static void add_number(Text *t, const char *s) { text_add(t, "<td>%s</td>", s); }

static void add_share(Text *t, const Share *s) {
  add_number(t, count_text(t->ctx, (int64_t)s->nodes));
  add_number(t, count_text(t->ctx, s->parameters));
  add_number(t, bytes_text(t->ctx, (double)s->bytes));
}

/* A bar of so much of the most. */
static void add_bar(Text *t, double part, double most) {
  text_add(t, "<td class=\"bar\"><i style=\"width:%.1f%%\"></i></td>", most > 0 ? 100 * part / most : 0.0);
}

static const char *tasks_text(const Graph *g, uint64_t tasks) {
  Text t = {.ctx = g->ctx};
  size_t n = 0;
  for (size_t i = 0; i < g->n_tasks; i++)
    if (tasks >> i & 1) text_add(&t, "%s%s", n++ ? ", " : "", g->tasks[i].name);
  if (g->n_tasks > 1 && n == g->n_tasks) return "all";
  return n ? t.text : "";
}

static const char *opsets_text(const Graph *g) {
  Text t = {.ctx = g->ctx};
  for (size_t i = 0; i < g->n_opsets; i++)
    text_add(&t, "%s%s %lld", i ? ", " : "", *g->opsets[i].domain ? g->opsets[i].domain : "ai.onnx",
             (long long)g->opsets[i].version);
  return t.text ? t.text : "";
}

/* ---- what there is of it ----------------------------------------------------------------------------------------- */

static void add_fact(Text *t, const char *key, const char *value) {
  text_add(t, "<div><dt>%s</dt><dd>", key);
  page_text(t, value);
  text_add(t, "</dd></div>\n");
}

static void add_facts(Text *t, const ModelFacts *m) {
  Ctx *c = t->ctx;
  add_fact(t, "opsets", opsets_text(m->graph));
  add_fact(t, "parameters", count_text(c, m->all.parameters));
  add_fact(t, "weights", bytes_text(c, (double)m->all.bytes));
  add_fact(t, "tasks", count_text(c, (int64_t)m->graph->n_tasks));
  add_fact(t, "mixtures of experts", count_text(c, (int64_t)m->of[OP_MOE]));
  add_fact(t, "nodes in the model", count_text(c, (int64_t)m->nodes_read));
  add_fact(t, "nodes after the passes", count_text(c, (int64_t)m->all.nodes));
}

static void add_ports(Text *t, const Graph *g, const char *kind, Value *const *v, size_t n) {
  for (size_t i = 0; i < n; i++) {
    text_add(t, "<tr>");
    add_left(t, kind);
    add_left(t, v[i]->name);
    add_left(t, shape_text(t->ctx, v[i]->dtype, &v[i]->shape));
    add_left(t, tasks_text(g, v[i]->tasks));
    text_add(t, "</tr>\n");
  }
}

static void add_tasks(Text *t, const ModelFacts *m) {
  for (size_t i = 0; i < m->graph->n_tasks; i++) {
    const Task *task = &m->graph->tasks[i];
    const Share all = share_of_task(m, i, false), own = share_of_task(m, i, true);
    Text outputs = {.ctx = t->ctx}, bound = {.ctx = t->ctx};
    for (size_t k = 0; k < task->n_outputs; k++) text_add(&outputs, "%s%s", k ? ", " : "", task->outputs[k]);
    for (size_t k = 0; k < task->n_bind; k++)
      text_add(&bound, "%s%s = %s", k ? ", " : "", task->bind[k].input, task->bind[k].value);
    text_add(t, "<tr>");
    add_left(t, task->name);
    add_left(t, outputs.text ? outputs.text : "");
    add_left(t, bound.text ? bound.text : "");
    add_share(t, &all);
    add_share(t, &own);
    text_add(t, "</tr>\n");
  }
}

static void add_shares(Text *t, const ModelFacts *m) {
  for (size_t i = 0; i < m->n_shares; i++) {
    text_add(t, "<tr>");
    add_left(t, tasks_text(m->graph, m->share[i].tasks));
    add_share(t, &m->share[i]);
    add_bar(t, (double)m->share[i].bytes, (double)m->all.bytes);
    text_add(t, "</tr>\n");
  }
}

/* ---- layers of experts ------------------------------------------------------------------------------------------- */

static const char *form_text(Ctx *c, const MoeFacts *m) {
  return ctx_format(c, "gate %s%s, %s%s", m->gate, m->normalize ? ", weights add up to 1" : "", m->activation,
                    m->gated ? ", gated" : "");
}

static void add_moe(Text *t, const ModelFacts *m) {
  Ctx *c = t->ctx;
  for (const Node *n = m->graph->first; n; n = n->next) {
    if (n->op != OP_MOE) continue;
    MoeFacts moe = moe_facts(n);
    text_add(t, "<tr>");
    add_left(t, moe.layer);
    text_add(t, "<td>%lld of %lld</td>", (long long)moe.k, (long long)moe.experts);
    add_left(t, form_text(c, &moe));
    text_add(t, "<td>%lld</td><td>%lld → %lld → %lld</td>", (long long)moe.tokens, (long long)moe.width,
             (long long)moe.hidden, (long long)moe.width);
    add_number(t, count_text(c, moe.parameters));
    add_left(t, tasks_text(m->graph, moe.tasks));
    text_add(t, "</tr>\n");
  }
  if (!m->of[OP_MOE]) text_add(t, "<tr><td class=\"left\" colspan=\"7\">none</td></tr>\n");
}

/* ---- operators and nodes ----------------------------------------------------------------------------------------- */

typedef struct {
  Op op;
  size_t n;
} Count;

static int by_count(const void *a, const void *b) {
  const Count *x = a, *y = b;
  if (x->n != y->n) return x->n < y->n ? 1 : -1;
  return (x->op > y->op) - (x->op < y->op);
}

static void add_operators(Text *t, const ModelFacts *m) {
  Count count[OP_COUNT];
  size_t n = 0;
  for (int op = 0; op < OP_COUNT; op++)
    if (m->of[op]) count[n++] = (Count){(Op)op, m->of[op]};
  if (n) qsort(count, n, sizeof *count, by_count);
  for (size_t i = 0; i < n; i++) {
    const OpInfo *info = op_info(count[i].op);
    text_add(t, "<tr>");
    add_left(t, info->name);
    add_number(t, count_text(t->ctx, (int64_t)count[i].n));
    add_bar(t, (double)count[i].n, (double)count[0].n);
    add_left(t, *info->domain ? info->domain : "ai.onnx");
    text_add(t, "</tr>\n");
  }
}

/* The operator, and what is computed on its result at once. */
static void add_operator(Text *t, const Node *n) {
  text_add(t, "<td class=\"left\">%s", op_info(n->op)->name);
  for (size_t i = 0; n->expr && i < n->expr->n; i++)
    if (n->expr->step[i].kind == EX_OP) text_add(t, " <small>+ %s</small>", op_info(n->expr->step[i].op->op)->name);
  text_add(t, "</td>");
}

/* Its name, and the layer that it came from. */
static void add_place(Text *t, const Node *n) {
  text_add(t, "<td class=\"left\">");
  page_text(t, n->name);
  text_add(t, "<div><small>");
  page_text(t, n->scope);
  text_add(t, "</small></div></td>");
}

static void add_values(Text *t, Value *const *v, int n) {
  text_add(t, "<td class=\"left\">");
  for (int i = 0; i < n; i++) {
    if (!v[i]) continue;
    text_add(t, "<div%s>", v[i]->tensor ? " class=\"constant\"" : "");
    page_text(t, shape_text(t->ctx, v[i]->dtype, &v[i]->shape));
    text_add(t, " <small>");
    page_text(t, v[i]->name);
    text_add(t, "</small></div>");
  }
  text_add(t, "</td>");
}

static void add_nodes(Text *t, const Graph *g) {
  for (const Node *n = g->first; n; n = n->next) {
    text_add(t, "<tr>");
    add_operator(t, n);
    add_place(t, n);
    add_values(t, n->in, n->n_in);
    add_values(t, n->out, n->n_out);
    add_left(t, tasks_text(g, n->tasks));
    text_add(t, "</tr>\n");
  }
}

/* ---- the page ---------------------------------------------------------------------------------------------------- */

static void fill_hole(void *self, Text *t, const char *hole) {
  const Page *p = self;
  const Graph *g = p->facts->graph;
  if (strcmp(hole, "TITLE") == 0) page_text(t, g->name);
  if (strcmp(hole, "FILE") == 0) page_text(t, p->file);
  if (strcmp(hole, "FACTS") == 0) add_facts(t, p->facts);
  if (strcmp(hole, "TASKS") == 0) add_tasks(t, p->facts);
  if (strcmp(hole, "SHARES") == 0) add_shares(t, p->facts);
  if (strcmp(hole, "MOE") == 0) add_moe(t, p->facts);
  if (strcmp(hole, "OPERATORS") == 0) add_operators(t, p->facts);
  if (strcmp(hole, "NODES") == 0) add_nodes(t, g);
  if (strcmp(hole, "COUNT") == 0) page_text(t, count_text(t->ctx, (int64_t)p->facts->all.nodes));
  if (strcmp(hole, "PORTS") == 0) {
    add_ports(t, g, "input", g->inputs, g->n_inputs);
    add_ports(t, g, "output", g->outputs, g->n_outputs);
  }
}

const char *model_page(const ModelFacts *m, const char *file) {
  Page p = {.facts = m, .file = file};
  return page_make(m->graph->ctx, "compiler/cli/model.html", fill_hole, &p);
}
