/* The whole way from a model's bytes to a folder, in one place. */
#include "pipeline.h"

#include "interrupt.h"
#include "progress.h"

#include <string.h>

const char *model_name(Ctx *c, const char *path) {
  const char *file = strrchr(path, '/');
  file = file ? file + 1 : path;
  if (strcmp(file, "model.onnx") == 0 && file > path + 1) {
    const char *end = file - 1, *start = end;
    while (start > path && start[-1] != '/') start--;
    if (end > start && *start != '.') return network_name(c, ctx_strndup(c, start, (size_t)(end - start)));
  }
  const char *dot = strrchr(file, '.');
  return network_name(c, dot && dot > file ? ctx_strndup(c, file, (size_t)(dot - file)) : file);
}

Graph *pipeline_read(Ctx *c, const CompileOptions *o) {
  progress_step("reading the model");
  Graph *model = onnx_read(c, o->model, o->dims, o->n_dims);
  model->name = o->name ? network_name(c, o->name) : model_name(c, o->model);
  tasks_find(model, o->tasks, o->n_tasks);
  return model;
}

Graph *pipeline_passes(Ctx *c, Graph *model, const CompileOptions *o) {
  if (!o->passes.plain) check_finite(model, o->passes.strict);
  progress_step("joining the tasks");
  Graph *g = tasks_join(model, o->bind, o->n_bind);
  g->gelu = o->passes.gelu;
  passes_run(g, &o->passes);
  ctx_stop_on_errors(c);
  return g;
}

Graph *pipeline_graph(Ctx *c, const CompileOptions *o) { return pipeline_passes(c, pipeline_read(c, o), o); }

Value **pipeline_outputs(Ctx *c, const Graph *g, const CompileOptions *o, size_t *n) {
  Value **list = ctx_array(c, g->n_outputs + o->n_outputs + 1, sizeof *list);
  *n = g->n_outputs;
  if (*n) memcpy(list, g->outputs, *n * sizeof *list);
  for (size_t i = 0; i < o->n_outputs; i++) {
    Value *v = graph_find(g, o->outputs[i]);
    if (!v || !v->producer || !v->tasks)
      ctx_fail(c, NULL, "\"%s\" is not computed, and cannot be given out", o->outputs[i]);
    if (!v->is_output) list[(*n)++] = v;
  }
  return list;
}

/* The value becomes an output of the first task that computes it anyway. */
static void give_out(Graph *g, Value *v) {
  Task *t = g->tasks;
  while (!(v->tasks >> (t - g->tasks) & 1)) t++;
  const char **outputs = ctx_array(g->ctx, t->n_outputs + 1, sizeof *outputs);
  memcpy(outputs, t->outputs, t->n_outputs * sizeof *outputs);
  outputs[t->n_outputs++] = v->name;
  t->outputs = outputs;
  graph_add_output(g, v);
}

typedef struct {
  Graph *graph;
  const CompileOptions *options;
} Lowering;

static Program *lower_in_bands(void *self, int bands, int links) {
  const Lowering *l = self;
  Program *p = program_new(l->graph->ctx, l->graph, l->options->target);
  p->moe_token_major = l->options->token_major;
  p->lockstep = l->options->weights == WEIGHTS_STREAM;
  p->tuning = l->options->tuning;
  p->bands = bands;
  p->band_links = links;
  p->unit_bytes = l->options->weights == WEIGHTS_STREAM ? l->options->stream_buffer : 0;
  program_lower(p);
  interrupt_check(l->graph->ctx);
  return p;
}

static Program *emit_as_it_is(Folder *folder, Graph *g, const CompileOptions *o) {
  progress_step("lowering and planning memory");
  Lowering lowering = {g, o};
  Program *p;
  Schedule *schedule = schedule_within(lower_in_bands, &lowering, o->arena, &p);
  if (o->weights == WEIGHTS_STREAM) schedule_resident(p, schedule, o->resident);
  interrupt_check(g->ctx);
  progress_step("writing C and weights");
  emit_network(p, schedule, folder, g->name, o->weights);
  folder_commit(folder);
  progress_pause();
  return p;
}

static Program *emit_into(Folder *folder, Graph *g, const CompileOptions *o) {
  size_t n, before = g->n_outputs;
  Value **outputs = pipeline_outputs(g->ctx, g, o, &n);
  Task *tasks = ctx_array(g->ctx, g->n_tasks + 1, sizeof *tasks);
  memcpy(tasks, g->tasks, g->n_tasks * sizeof *tasks);
  for (size_t i = before; i < n; i++)
    if (!outputs[i]->is_output) give_out(g, outputs[i]);
  Program *p = emit_as_it_is(folder, g, o);
  for (; g->n_outputs > before; g->n_outputs--) g->outputs[g->n_outputs - 1]->is_output = false;
  memcpy(g->tasks, tasks, g->n_tasks * sizeof *tasks);
  return p;
}

Program *pipeline_emit(Ctx *c, Graph *g, const CompileOptions *o) { return emit_into(folder_begin(c, o->out), g, o); }

Graph *pipeline_compile(Ctx *c, const CompileOptions *o) {
  Folder *folder = folder_begin(c, o->out);
  Graph *g = pipeline_graph(c, o);
  emit_into(folder, g, o);
  return g;
}
