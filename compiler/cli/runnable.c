/* A model, or a folder compiled before, as something to run. */
#include "cli/runnable.h"

#include "cli/inspect.h"
#include "engine/process.h"
#include "progress.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool is_folder(const char *path) {
  struct stat s;
  return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

Tensor *tensor_read(Options *o, const char *path) {
  ctx_set_file(o->ctx, path);
  Tensor *t = onnx_read_tensor(o->ctx, path, NULL);
  ctx_set_file(o->ctx, o->argument[0]);
  return t;
}

Runnable runnable_build(Ctx *c, Graph *g, const CompileOptions *compile, EngineKind kind, bool traced) {
  CompileOptions o = *compile;
  Runnable r = {.ctx = c, .graph = g, .has_all = g->n_tasks > 1};
  r.folder = o.out = ctx_format(c, "%s/out", temporary_folder(c));
  if (kind == ENGINE_TCC) { /* scalar code, for which other tiles are right */
    o.target = target_find("generic");
    o.tuning = NULL;
  }
  r.program = pipeline_emit(c, g, &o);
  r.output = pipeline_outputs(c, g, &o, &r.n_outputs);
  r.output_file = port_file_names(c, r.output, r.n_outputs);
  r.name = name_identifier(c, g->name);
  r.engine = engine_open(c, r.folder, r.name, kind, traced);
  return r;
}

const char *runnable_file(const Runnable *r, const Value *v) {
  for (size_t i = 0; i < r->n_outputs; i++)
    if (r->output[i] == v) return r->output_file[i];
  return NULL;
}

/* What options say of weights must fit a folder that was compiled before. */
static void check_folder(const Options *o, const char *folder) {
  Ctx *c = o->ctx;
  const char *for_compiler =
      o->weights_given && o->compile.weights == WEIGHTS_EMBED ? "--weights embed" : o->for_streaming;
  if (for_compiler)
    ctx_fail_status(c, EXIT_USAGE, "%s is for the compiler: \"%s\" is compiled already", for_compiler, folder);
  if (!o->source && !o->weights_given) return;
  if (strcmp(json_member_text(folder_report_read(c, folder), "weights", ""), "embed") == 0)
    ctx_fail_status(
        c, EXIT_USAGE,
        "%s is for weights in a file: those of \"%s\" are in its code, since it was compiled with --weights "
        "embed",
        o->source ? "--source" : "--weights", folder);
}

Runnable runnable_open(Options *o, const char *model_or_folder) {
  Ctx *c = o->ctx;
  ctx_set_file(c, model_or_folder);
  bool traced = o->trace || o->kernels;
  if (!is_folder(model_or_folder))
    return runnable_build(c, pipeline_graph(c, &o->compile), &o->compile, o->engine, traced);
  Runnable r = {.ctx = c, .folder = model_or_folder};
  check_folder(o, r.folder);
  r.name = folder_network(c, r.folder);
  r.has_all = access(ctx_format(c, "%s/%s_all.c", r.folder, r.name), F_OK) == 0;
  r.engine = engine_open(c, r.folder, r.name, o->engine, traced);
  return r;
}

void argument_add(Arguments *a, const char *text) {
  a->item = ctx_grow(a->ctx, a->item, a->n, &a->cap, sizeof *a->item);
  a->item[a->n++] = text;
  a->item = ctx_grow(a->ctx, a->item, a->n, &a->cap, sizeof *a->item);
  a->item[a->n] = NULL;
}

void argument_pair(Arguments *a, const char *option, const char *value) {
  argument_add(a, option);
  argument_add(a, value);
}

void argument_weights(Arguments *a, const Options *o, const Runnable *r) {
  if (o->source)
    argument_pair(a, "--source", o->source);
  else if (!r->graph && o->weights_given)
    argument_add(a, o->compile.weights == WEIGHTS_STREAM ? "--stream" : "--load");
}

void runnable_read(const Runnable *r, const Arguments *a, const char *task, const char *trouble, Text *out) {
  Arguments all = {.ctx = a->ctx};
  for (size_t i = 0; i < a->n; i++) argument_add(&all, a->item[i]);
  if (task) argument_pair(&all, "--task", task);
  progress_pause();
  int status = engine_run(r->engine, all.item, out);
  if (status != 0) ctx_fail_status(r->ctx, status <= EXIT_MACHINE ? (ExitStatus)status : EXIT_MACHINE, "%s", trouble);
}

void runnable_run(const Runnable *r, const Arguments *a, const char *task, const char *trouble) {
  runnable_read(r, a, task, trouble, NULL);
}

const char **runnable_tasks(const Runnable *r, size_t *n) {
  Arguments names = {.ctx = r->ctx}, list = {.ctx = r->ctx};
  for (size_t i = 0; r->graph && i < r->graph->n_tasks; i++) argument_add(&names, r->graph->tasks[i].name);
  Text text = {.ctx = r->ctx};
  argument_add(&list, "--list");
  if (!r->graph &&
      engine_run(r->engine, list.item, &text) == 0) /* a task's name, then its tensors, indented; last all at once */
    for (char *save = NULL, *line = strtok_r(text.text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
      if (*line != ' ') argument_add(&names, line);
  *n = names.n;
  if (!r->graph && r->has_all) --*n;
  return names.item;
}
