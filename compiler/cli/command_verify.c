/* moecc verify: runs a model on test data in ONNX's layout and compares.
 *
 * Where a task binds an input, a data set speaks of the tasks whose bound value is the one that it gives.
 */
#include "cli/verify.h"

#include "engine/process.h"
#include "io/io.h"
#include "progress.h"

#include <string.h>

/* So many values are compared at a time: a function that gives out all of them has as many parameters, of which libtcc
 * takes about 250. */
enum { PART = 150 };

typedef struct {
  Runnable run, plain;
  const char *const *name;
  size_t n; /* of the values that both give out */
} Part;

typedef struct {
  Options *o;
  Ctx *c;
  Tolerance tolerance;
  Graph *model; /* as read: the order of inputs and outputs */
  Runnable run;
  Part *part;
  size_t n_parts, cap_parts;         /* with --layers */
  const char *folder, *plain_folder; /* for inputs and outputs; each data set's replace the last one's */
  Report report;
} Verify;

/* ---- compiling ---- */

static bool has_moe(const Graph *g) {
  for (const Node *n = g->first; n; n = n->next)
    if (n->op == OP_MOE) return true;
  return false;
}

static void build_part(Verify *v, Graph *g, Graph *plain, const char *const *name, size_t n) {
  CompileOptions fast = v->o->compile, slow = v->o->compile;
  fast.outputs = slow.outputs = name;
  fast.n_outputs = slow.n_outputs = n;
  v->part = ctx_grow(v->c, v->part, v->n_parts, &v->cap_parts, sizeof *v->part);
  Part *p = &v->part[v->n_parts++];
  *p = (Part){.name = name, .n = n};
  p->run = runnable_build(v->c, g, &fast, v->o->engine, false);
  p->plain = runnable_build(v->c, plain, &slow, ENGINE_TCC, false);
}

static void build_layers(Verify *v, Graph *g) {
  CompileOptions o = v->o->compile;
  o.passes.plain = true;
  o.passes.dump = NULL;
  const char **names = NULL;
  size_t n = 0, cap = 0;
  Graph *plain = pipeline_graph(v->c, &o);
  layers_common(v->c, g, plain, &names, &n, &cap);
  for (size_t i = 0; i < n; i += PART) build_part(v, g, plain, names + i, n - i < PART ? n - i : PART);
}

/* The model, the routers' scores being given out as well; and, for --layers, both graphs with what they have in common.
 */
static void build(Verify *v) {
  CompileOptions compile = v->o->compile;
  v->model = pipeline_read(v->c, &compile);
  Graph *g = pipeline_passes(v->c, v->model, &compile);
  const char **names = NULL;
  size_t cap = 0;
  routing_wanted(g, &names, &compile.n_outputs, &cap);
  compile.outputs = names;
  v->report.has_moe = has_moe(g);
  v->run = runnable_build(v->c, g, &compile, v->o->engine, false);
  if (v->o->layers) build_layers(v, g);
}

/* ---- one data set ---- */

/* Does the task's bound value for the input agree with what the data set gives? */
static bool binding_agrees(Verify *v, const Task *t, const Value *input, const Tensor *given) {
  for (size_t i = 0; given && i < t->n_bind; i++) {
    if (strcmp(t->bind[i].input, input->name) != 0) continue;
    const Tensor *bound = task_bound_tensor(v->run.graph, input, t->bind[i].value);
    if (bound->bytes != given->bytes || memcmp(bound->data, given->data, given->bytes) != 0) return false;
  }
  return true;
}

/* The tasks that the data set speaks of. */
static uint64_t tasks_meant(Verify *v, const DataSet *s) {
  uint64_t tasks = 0;
  for (size_t t = 0; t < v->model->n_tasks; t++) {
    bool speaks = true;
    for (size_t i = 0; i < v->model->n_inputs; i++)
      speaks = speaks && binding_agrees(v, &v->run.graph->tasks[t], v->model->inputs[i], s->input[i]);
    if (speaks) tasks |= (uint64_t)1 << t;
  }
  return tasks;
}

/* What the driver calls the file of a task's output of this name; NULL: the task does not have it. Tasks that are bound
 * otherwise call their outputs otherwise, in the model's order. */
static const char *file_of(Verify *v, size_t task, const char *name) {
  const Task *asked = &v->model->tasks[task], *joined = &v->run.graph->tasks[task];
  for (size_t i = 0; i < asked->n_outputs; i++) {
    if (strcmp(asked->outputs[i], name) != 0) continue;
    return runnable_file(&v->run, graph_find(v->run.graph, joined->outputs[i]));
  }
  return NULL;
}

static void judge(Verify *v, SetResult *r, size_t task, const char *name, const Tensor *got, const Tensor *expected) {
  Ctx *c = v->c;
  OutputResult o = {
      .task = v->run.graph->tasks[task].name, .output = name, .r = compare_tensors(&v->tolerance, got, expected)};
  bool same = o.r.same_shape, any = same && tensor_count(got) > 0;
  o.got = !same ? tensor_text(c, got) : any ? ctx_format(c, "%.9g", tensor_number(got, o.r.at)) : "";
  o.expected = !same ? tensor_text(c, expected) : any ? ctx_format(c, "%.9g", tensor_number(expected, o.r.at)) : "";
  r->output = ctx_grow(c, r->output, r->n_outputs, &r->cap_outputs, sizeof o);
  r->output[r->n_outputs++] = o;
  v->report.outputs++;
  v->report.wrong += !o.r.ok;
  if (o.r.relative > v->report.worst) v->report.worst = o.r.relative;
}

static void judge_outputs(Verify *v, const DataSet *s, SetResult *r, const char *folder, uint64_t tasks) {
  Ctx *c = v->c;
  for (size_t j = 0; j < v->model->n_outputs; j++) {
    const char *name = v->model->outputs[j]->name, *path = data_set_output(c, s, j);
    Tensor *expected = path ? tensor_read(v->o, path) : NULL;
    bool skipped = false;
    for (size_t t = 0; t < v->model->n_tasks; t++) {
      const char *file = tasks >> t & 1 ? file_of(v, t, name) : NULL;
      if (!file) continue;
      if (expected) judge(v, r, t, name, npy_read(c, ctx_format(c, "%s/%s.npy", folder, file)), expected);
      skipped |= !expected;
    }
    if (!skipped) continue;
    r->skipped = ctx_grow(c, r->skipped, r->n_skipped, &r->cap_skipped, sizeof *r->skipped);
    r->skipped[r->n_skipped++] = name;
  }
}

/* Runs all tasks on the data set; returns the folder of what they gave. */
static const char *run_on(Verify *v, const Runnable *r, const DataSet *s, const char *folder, long threads) {
  Ctx *c = v->c;
  Arguments a = {.ctx = c};
  for (size_t i = 0; i < r->graph->n_inputs; i++) {
    const char *name = r->graph->inputs[i]->name, *npy = ctx_format(c, "%s/in%zu.npy", folder, i);
    for (size_t k = 0; k < v->model->n_inputs; k++)
      if (strcmp(v->model->inputs[k]->name, name) == 0) npy_write(c, npy, s->input[k]);
    argument_pair(&a, "--input", ctx_format(c, "%s=%s", name, npy));
  }
  argument_pair(&a, "--threads", ctx_format(c, "%ld", threads));
  argument_pair(&a, "-o", ctx_format(c, "%s/out", folder));
  argument_add(&a, "--quiet");
  int status = engine_run(r->engine, a.item, NULL);
  if (status != 0) ctx_fail(c, NULL, "%s: the network does not run on this data", s->name);
  return ctx_format(c, "%s/out", folder);
}

static LayerResults run_layers(Verify *v, const DataSet *s) {
  LayerResults all = {.first = -1};
  for (size_t i = 0; i < v->n_parts; i++) {
    Part *p = &v->part[i];
    const char *folder = run_on(v, &p->run, s, v->folder, v->o->threads),
               *plain = run_on(v, &p->plain, s, v->plain_folder, 1);
    layers_compare(&all, &p->run, &p->plain, p->name, p->n, &v->tolerance, folder, plain);
  }
  return all;
}

static void run_set(Verify *v, DataSet *s) {
  SetResult r = {.name = s->name};
  progress_step("running %s", s->name);
  data_set_read(v->o, s, v->model, v->run.graph);
  const char *folder = run_on(v, &v->run, s, v->folder, v->o->threads);
  uint64_t tasks = tasks_meant(v, s);
  judge_outputs(v, s, &r, folder, tasks);
  if (v->report.has_moe) r.routing = routing_margin(&v->run, v->model, s, folder, tasks ? tasks : UINT64_MAX);
  if (v->o->layers) r.layers = run_layers(v, s);
  v->report.diverging += v->o->layers && r.layers.first >= 0;
  v->report.set = ctx_grow(v->c, v->report.set, v->report.n_sets, &v->report.cap_sets, sizeof r);
  v->report.set[v->report.n_sets++] = r;
  progress_pause();
  if (!v->o->json) report_set_text(&v->report, &r);
}

/* ---- all of them ---- */

static void conclude(const Verify *v) {
  const char *folder = v->report.folder;
  if (!v->report.outputs && !v->o->layers)
    ctx_fail(v->c, NULL, "no data set of \"%s\" has an output of a chosen task", folder);
  if (v->o->json)
    report_json(&v->report);
  else
    report_text(&v->report);
  if (v->report.wrong)
    ctx_fail(v->c, NULL, "%zu of %zu outputs differ from what \"%s\" expects", v->report.wrong, v->report.outputs,
             folder);
  if (v->report.diverging)
    ctx_fail(v->c, NULL, "in %zu of %zu data sets a layer differs from the plain graph's", v->report.diverging,
             v->report.n_sets);
}

void command_verify(Options *o) {
  Ctx *c = o->ctx;
  Verify v = {.o = o, .c = c, .tolerance = {o->tolerance_given, o->rtol, o->atol}};
  if (is_folder(o->argument[0])) ctx_fail_status(c, EXIT_USAGE, "verify wants a model, not a folder");
  ctx_set_file(c, o->argument[0]);
  size_t n;
  DataSet *sets = data_sets_find(c, o->argument[1], &n);
  build(&v);
  v.folder = temporary_folder(c);
  v.plain_folder = temporary_folder(c);
  v.report.ctx = c;
  v.report.run = &v.run;
  v.report.model = v.run.graph->name;
  v.report.folder = o->argument[1];
  v.report.engine = o->engine == ENGINE_TCC ? "tcc" : "cc";
  v.report.has_layers = o->layers;
  for (size_t i = 0; i < n; i++) run_set(&v, &sets[i]);
  conclude(&v);
}
