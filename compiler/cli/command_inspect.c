/* moecc inspect: what a model is, and how the compiler understands it; and a trace as a page. */
#include "cli/cli.h"
#include "cli/timeline.h"
#include "io/io.h"

#include <errno.h>
#include <string.h>

typedef struct {
  size_t nodes;
  size_t of[OP_COUNT];
  int64_t weight_bytes;
} Census;

static Census count_nodes(const Graph *g) {
  Census k = {0};
  for (const Node *n = g->first; n; n = n->next) {
    k.nodes++;
    k.of[n->op]++;
  }
  for (size_t i = 0; i < g->n_values; i++)
    if (g->values[i]->tensor && g->values[i]->n_uses) k.weight_bytes += (int64_t)g->values[i]->tensor->bytes;
  return k;
}

static const char *operator_name(Op op) { return op_info(op)->name; }

static void print_values(Ctx *c, const char *key, Value *const *v, size_t n) {
  printf("  \"%s\": [", key);
  for (size_t i = 0; i < n; i++) {
    printf("%s\n    {\"name\": %s, \"type\": \"%s\", \"shape\": [", i ? "," : "", json_text(c, v[i]->name),
           dtype_name(v[i]->dtype));
    for (int d = 0; d < v[i]->shape.rank; d++) printf("%s%lld", d ? ", " : "", (long long)v[i]->shape.dim[d].n);
    printf("]}");
  }
  printf("%s],\n", n ? "\n  " : "");
}

static void print_moe(Ctx *c, const Graph *g) {
  bool first = true;
  printf("  \"moe\": [");
  for (const Node *n = g->first; n; n = n->next) {
    if (n->op != OP_MOE) continue;
    printf("%s\n    {\"layer\": %s, \"tasks\": %llu, \"experts\": %lld, \"k\": %lld, \"gate\": \"%s\", \"normalize\": "
           "%lld, "
           "\"activation\": \"%s\", \"width\": %lld, \"hidden\": %lld, \"tokens\": %lld}",
           first ? "" : ",", json_text(c, n->scope), (unsigned long long)n->tasks, (long long)n->in[2]->shape.dim[0].n,
           (long long)node_int(n, "k", 0), node_string(n, "gate", ""), (long long)node_int(n, "normalize", 0),
           node_string(n, "activation", ""), (long long)n->in[0]->shape.dim[1].n, (long long)n->in[2]->shape.dim[1].n,
           (long long)n->in[0]->shape.dim[0].n);
    first = false;
  }
  printf("%s],\n", first ? "" : "\n  ");
}

static void print_json(Options *o, const Graph *g, const Census *before) {
  Census after = count_nodes(g);
  Ctx *c = o->ctx;
  printf("{\n  \"model\": %s,\n", json_text(c, g->name));
  print_values(c, "inputs", g->inputs, g->n_inputs);
  print_values(c, "outputs", g->outputs, g->n_outputs);
  printf("  \"tasks\": [");
  for (size_t i = 0; i < g->n_tasks; i++) {
    printf("%s\n    {\"name\": %s, \"outputs\": [", i ? "," : "", json_text(c, g->tasks[i].name));
    for (size_t k = 0; k < g->tasks[i].n_outputs; k++)
      printf("%s%s", k ? ", " : "", json_text(c, g->tasks[i].outputs[k]));
    printf("]}");
  }
  printf("\n  ],\n");
  print_moe(c, g);
  printf("  \"nodes_read\": %zu,\n  \"nodes\": %zu,\n  \"weight_bytes\": %lld,\n  \"operators\": {", before->nodes,
         after.nodes, (long long)after.weight_bytes);
  bool first = true;
  for (int op = 0; op < OP_COUNT; op++) {
    if (!after.of[op]) continue;
    printf("%s\"%s\": %zu", first ? "" : ", ", operator_name((Op)op), after.of[op]);
    first = false;
  }
  printf("}\n}\n");
}

static void print_summary(Options *o, const Graph *g, const Census *before) {
  Census after = count_nodes(g);
  printf("%s: %zu nodes, %zu after the passes, %.1f MB of weights\n", g->name, before->nodes, after.nodes,
         (double)after.weight_bytes / 1e6);
  for (size_t i = 0; i < g->n_inputs; i++)
    printf("  input  %s %s\n", g->inputs[i]->name, shape_text(o->ctx, g->inputs[i]->dtype, &g->inputs[i]->shape));
  for (size_t i = 0; i < g->n_outputs; i++)
    printf("  output %s %s\n", g->outputs[i]->name, shape_text(o->ctx, g->outputs[i]->dtype, &g->outputs[i]->shape));
  for (size_t i = 0; i < g->n_tasks; i++) {
    printf("  task   %s:", g->tasks[i].name);
    for (size_t k = 0; k < g->tasks[i].n_outputs; k++) printf(" %s", g->tasks[i].outputs[k]);
    for (size_t k = 0; k < g->tasks[i].n_bind; k++)
      printf(" (%s = %s)", g->tasks[i].bind[k].input, g->tasks[i].bind[k].value);
    printf("\n");
  }
  for (const Node *n = g->first; n; n = n->next)
    if (n->op == OP_MOE)
      printf("  MoE    %s: top-%lld of %lld experts, %lld -> %lld, gate %s, tasks %#llx\n", n->scope,
             (long long)node_int(n, "k", 0), (long long)n->in[2]->shape.dim[0].n, (long long)n->in[0]->shape.dim[1].n,
             (long long)n->in[2]->shape.dim[1].n, node_string(n, "gate", ""), (unsigned long long)n->tasks);
  for (int op = 0; op < OP_COUNT; op++)
    if (after.of[op]) printf("  %6zu %s\n", after.of[op], operator_name((Op)op));
}

/* Does the file begin as JSON does, and no model? */
static bool is_json(Ctx *c, const char *path) {
  char first = 0;
  FILE *f = fopen(path, "rbe");
  if (!f) ctx_fail_status(c, EXIT_MODEL, "cannot read \"%s\": %s", path, strerror(errno));
  int n = fscanf(f, " %c", &first);
  (void)fclose(f);
  return n == 1 && first == '{';
}

static void write_timeline(Options *o, const char *trace) {
  Ctx *c = o->ctx;
  const char *slash = strrchr(trace, '/');
  Trace t = trace_read(c, trace);
  char *making;
  FILE *f = text_file_begin(c, o->html, &making);
  text_file_finish(c, f, o->html, making, timeline_page(&t, slash ? slash + 1 : trace));
}

void command_inspect(Options *o) {
  Ctx *c = o->ctx;
  ctx_set_file(c, o->compile.model);
  if (o->html) {
    if (!is_json(c, o->compile.model))
      ctx_fail_status(c, EXIT_USAGE, "--html of a model is not built yet; it takes a trace: moecc run --trace FILE");
    write_timeline(o, o->compile.model);
    return;
  }
  Graph *g = onnx_read(c, o->compile.model, o->compile.dims, o->compile.n_dims);
  if (o->text) {
    Text t = {.ctx = c};
    onnx_text_print(g, &t);
    fputs(t.text, stdout);
    return;
  }
  Census before = count_nodes(g);
  g = pipeline_graph(c, &o->compile);
  if (o->json)
    print_json(o, g, &before);
  else
    print_summary(o, g, &before);
}
