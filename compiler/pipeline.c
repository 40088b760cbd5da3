/* The whole way from a model's bytes to a folder, in one place. */
#include "pipeline.h"

#include <string.h>

const char *model_name(Ctx *c, const char *path) {
  const char *file = strrchr(path, '/');
  file = file ? file + 1 : path;
  if (strcmp(file, "model.onnx") == 0 && file > path + 1) {
    const char *end = file - 1, *start = end;
    while (start > path && start[-1] != '/') start--;
    if (end > start && *start != '.') return name_identifier(c, ctx_strndup(c, start, (size_t)(end - start)));
  }
  const char *dot = strrchr(file, '.');
  return name_identifier(c, dot && dot > file ? ctx_strndup(c, file, (size_t)(dot - file)) : file);
}

Graph *pipeline_graph(Ctx *c, const CompileOptions *o) {
  Graph *g = onnx_read(c, o->model, o->dims, o->n_dims);
  g->name = o->name ? o->name : model_name(c, o->model);
  check_finite(g, o->passes.strict);
  tasks_find(g, o->tasks, o->n_tasks);
  g = tasks_join(g, o->bind, o->n_bind);
  g->gelu = o->passes.gelu;
  passes_run(g, &o->passes);
  ctx_stop_on_errors(c);
  return g;
}

Program *pipeline_program(Ctx *c, Graph *g, const CompileOptions *o, Schedule **schedule) {
  Program *p = program_new(c, g, o->target);
  p->moe_token_major = o->token_major;
  program_lower(p);
  *schedule = schedule_make(p);
  return p;
}

Graph *pipeline_compile(Ctx *c, const CompileOptions *o) {
  Folder *folder = folder_begin(c, o->out);
  Graph *g = pipeline_graph(c, o);
  Schedule *schedule;
  Program *p = pipeline_program(c, g, o, &schedule);
  emit_network(p, schedule, folder, g->name, o->weights);
  folder_commit(folder);
  return g;
}
