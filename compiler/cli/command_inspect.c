/* moecc inspect: what a model is, and how the compiler understands it; what a compiled folder takes; a trace as a page.
 */
#include "cli/cli.h"
#include "cli/inspect.h"
#include "cli/page.h"
#include "cli/runnable.h"
#include "cli/timeline.h"

#include <errno.h>
#include <string.h>

static const char *operator_name(Op op) { return op_info(op)->name; }

/* ---- for programs ------------------------------------------------------------------------------------------------ */

static void json_values(Ctx *c, const char *key, Value *const *v, size_t n) {
  printf("  \"%s\": [", key);
  for (size_t i = 0; i < n; i++) {
    printf("%s\n    {\"name\": %s, \"type\": \"%s\", \"shape\": [", i ? "," : "", json_text(c, v[i]->name),
           dtype_name(v[i]->dtype));
    for (int d = 0; d < v[i]->shape.rank; d++) printf("%s%lld", d ? ", " : "", (long long)v[i]->shape.dim[d].n);
    printf("]}");
  }
  printf("%s],\n", n ? "\n  " : "");
}

static void json_moe(Ctx *c, const Graph *g) {
  bool first = true;
  printf("  \"moe\": [");
  for (const Node *n = g->first; n; n = n->next) {
    if (n->op != OP_MOE) continue;
    MoeFacts m = moe_facts(n);
    printf("%s\n    {\"layer\": %s, \"tasks\": %llu, \"experts\": %lld, \"k\": %lld, \"gate\": \"%s\", ",
           first ? "" : ",", json_text(c, m.layer), (unsigned long long)m.tasks, (long long)m.experts, (long long)m.k,
           m.gate);
    printf("\"normalize\": %lld, \"activation\": \"%s\", \"gated\": %s, \"width\": %lld, \"hidden\": %lld, "
           "\"tokens\": %lld, \"parameters_per_expert\": %lld}",
           (long long)m.normalize, m.activation, m.gated ? "true" : "false", (long long)m.width, (long long)m.hidden,
           (long long)m.tokens, (long long)m.parameters);
    first = false;
  }
  printf("%s],\n", first ? "" : "\n  ");
}

static void json_share(const char *prefix, const Share *s) {
  printf(", \"%snodes\": %zu, \"%sparameters\": %lld, \"%sweight_bytes\": %lld", prefix, s->nodes, prefix,
         (long long)s->parameters, prefix, (long long)s->bytes);
}

static void json_tasks(Ctx *c, const ModelFacts *m) {
  const Graph *g = m->graph;
  printf("  \"tasks\": [");
  for (size_t i = 0; i < g->n_tasks; i++) {
    const Share all = share_of_task(m, i, false), own = share_of_task(m, i, true);
    printf("%s\n    {\"name\": %s, \"outputs\": [", i ? "," : "", json_text(c, g->tasks[i].name));
    for (size_t k = 0; k < g->tasks[i].n_outputs; k++)
      printf("%s%s", k ? ", " : "", json_text(c, g->tasks[i].outputs[k]));
    printf("]");
    json_share("", &all);
    json_share("own_", &own);
    printf("}");
  }
  printf("\n  ],\n");
}

static void print_json(Ctx *c, const ModelFacts *m) {
  const Graph *g = m->graph;
  printf("{\n  \"model\": %s,\n  \"opsets\": {", json_text(c, g->name));
  for (size_t i = 0; i < g->n_opsets; i++)
    printf("%s%s: %lld", i ? ", " : "", json_text(c, *g->opsets[i].domain ? g->opsets[i].domain : "ai.onnx"),
           (long long)g->opsets[i].version);
  printf("},\n");
  json_values(c, "inputs", g->inputs, g->n_inputs);
  json_values(c, "outputs", g->outputs, g->n_outputs);
  json_tasks(c, m);
  json_moe(c, g);
  printf("  \"nodes_read\": %zu,\n  \"nodes\": %zu,\n  \"parameters\": %lld,\n  \"weight_bytes\": %lld,\n",
         m->nodes_read, m->all.nodes, (long long)m->all.parameters, (long long)m->all.bytes);
  printf("  \"operators\": {");
  bool first = true;
  for (int op = 0; op < OP_COUNT; op++) {
    if (!m->of[op]) continue;
    printf("%s\"%s\": %zu", first ? "" : ", ", operator_name((Op)op), m->of[op]);
    first = false;
  }
  printf("}\n}\n");
}

/* ---- for people -------------------------------------------------------------------------------------------------- */

static void print_summary(Ctx *c, const ModelFacts *m) {
  const Graph *g = m->graph;
  printf("%s: %zu nodes, %zu after the passes, %.1f MB of weights\n", g->name, m->nodes_read, m->all.nodes,
         (double)m->all.bytes / 1e6);
  for (size_t i = 0; i < g->n_inputs; i++)
    printf("  input  %s %s\n", g->inputs[i]->name, shape_text(c, g->inputs[i]->dtype, &g->inputs[i]->shape));
  for (size_t i = 0; i < g->n_outputs; i++)
    printf("  output %s %s\n", g->outputs[i]->name, shape_text(c, g->outputs[i]->dtype, &g->outputs[i]->shape));
  for (size_t i = 0; i < g->n_tasks; i++) {
    printf("  task   %s:", g->tasks[i].name);
    for (size_t k = 0; k < g->tasks[i].n_outputs; k++) printf(" %s", g->tasks[i].outputs[k]);
    for (size_t k = 0; k < g->tasks[i].n_bind; k++)
      printf(" (%s = %s)", g->tasks[i].bind[k].input, g->tasks[i].bind[k].value);
    printf("\n");
  }
  for (const Node *n = g->first; n; n = n->next) {
    if (n->op != OP_MOE) continue;
    MoeFacts moe = moe_facts(n);
    printf("  MoE    %s: top-%lld of %lld experts, %lld -> %lld, gate %s, tasks %#llx\n", moe.layer, (long long)moe.k,
           (long long)moe.experts, (long long)moe.width, (long long)moe.hidden, moe.gate,
           (unsigned long long)moe.tasks);
  }
  for (int op = 0; op < OP_COUNT; op++)
    if (m->of[op]) printf("  %6zu %s\n", m->of[op], operator_name((Op)op));
}

/* ---- what it is -------------------------------------------------------------------------------------------------- */

/* Does the file begin as JSON does, and no model? */
static bool is_json(Ctx *c, const char *path) {
  char first = 0;
  FILE *f = fopen(path, "rbe");
  if (!f) ctx_fail_status(c, EXIT_MODEL, "cannot read \"%s\": %s", path, strerror(errno));
  int n = fscanf(f, " %c", &first);
  (void)fclose(f);
  return n == 1 && first == '{';
}

static const char *file_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

static void inspect_trace(Options *o, const char *path) {
  Trace t = trace_read(o->ctx, path);
  page_write(o->ctx, o->html, timeline_page(&t, file_name(path)));
}

static void inspect_folder(Options *o, const char *folder) {
  Ctx *c = o->ctx;
  if (o->html || o->text)
    ctx_fail_status(c, EXIT_USAGE, "%s is for a model; of a compiled folder there is a table, and --json",
                    o->html ? "--html" : "--text");
  const Json *report = folder_report_read(c, folder);
  if (o->json)
    folder_report_json(c, report);
  else
    folder_report_print(c, report);
}

static void inspect_model(Options *o, const char *path) {
  Ctx *c = o->ctx;
  if (o->text) {
    Text t = {.ctx = c};
    onnx_text_print(onnx_read(c, path, o->compile.dims, o->compile.n_dims), &t);
    fputs(t.text, stdout);
    return;
  }
  Graph *g = pipeline_read(c, &o->compile);
  size_t nodes_read = node_count(g);
  ModelFacts m = model_facts(pipeline_passes(c, g, &o->compile), nodes_read);
  if (o->html)
    page_write(c, o->html, model_page(&m, file_name(path)));
  else if (o->json)
    print_json(c, &m);
  else
    print_summary(c, &m);
}

void command_inspect(Options *o) {
  const char *path = o->argument[0];
  ctx_set_file(o->ctx, path);
  if (is_folder(path))
    inspect_folder(o, path);
  else if (o->html && is_json(o->ctx, path))
    inspect_trace(o, path);
  else
    inspect_model(o, path);
}
