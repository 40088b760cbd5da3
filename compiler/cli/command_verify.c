/* moecc verify: runs a model on test data in ONNX's layout and compares.
 *
 * The folder holds test_data_set_0, test_data_set_1, … (or is one of them), each with input_I.pb and output_J.pb in the
 * model's order. Where a task binds an input, a data set speaks of the tasks whose bound value is the one it gives.
 */
#include "cli/cli.h"
#include "io/io.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST = 64 };

typedef struct {
  Options *o;
  Ctx *c;
  Graph *model;        /* as read: the order of inputs and outputs */
  Runnable run;
  size_t outputs, wrong;
  double worst;
} Verify;

static bool exists(const char *path) {
  struct stat s;
  return stat(path, &s) == 0;
}

/* ---- comparing ---- */

typedef struct {
  bool ok;
  double error, largest; /* of |a-b|, of |b| */
  int64_t at;
} Comparison;

static bool both_same(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

static Comparison compare(const Options *o, const Tensor *a, const Tensor *b) {
  Comparison r = {.ok = true};
  int64_t n = tensor_count(b);
  bool real = dtype_is_float(b->dtype), within = true;
  for (int64_t i = 0; i < n; i++) {
    double x = real ? tensor_number(a, i) : (double)tensor_integer(a, i), y = real ? tensor_number(b, i) : (double)tensor_integer(b, i);
    if (!real && tensor_integer(a, i) != tensor_integer(b, i)) within = false;
    if (both_same(x, y)) {
      if (isfinite(y) && fabs(y) > r.largest) r.largest = fabs(y);
      continue;
    }
    double error = fabs(x - y);
    if (!(error <= r.error)) r.error = error, r.at = i;
    if (fabs(y) > r.largest) r.largest = fabs(y);
    if (o->tolerance_given && !(error <= o->atol + o->rtol * fabs(y))) within = false;
  }
  if (real && !o->tolerance_given) within = r.error <= 1e-5 * r.largest;
  r.ok = within;
  return r;
}

static bool same_shape(const Tensor *a, const Tensor *b) {
  return a->dtype == b->dtype && a->rank == b->rank && memcmp(a->dim, b->dim, sizeof(int64_t) * (size_t)a->rank) == 0;
}

static const char *tensor_text(Ctx *c, const Tensor *t) {
  Shape s = shape_of(t->rank, t->dim);
  return shape_text(c, t->dtype, &s);
}

static void judge(Verify *v, const char *set, const char *task, const char *name, const Tensor *got, const Tensor *expected) {
  v->outputs++;
  if (!same_shape(got, expected)) {
    v->wrong++;
    printf("%s %s %s: FAILED: is %s, expected %s\n", set, task, name, tensor_text(v->c, got), tensor_text(v->c, expected));
    return;
  }
  Comparison r = compare(v->o, got, expected);
  double relative = r.largest > 0 ? r.error / r.largest : r.error;
  if (!(relative <= v->worst)) v->worst = relative;
  v->wrong += !r.ok;
  printf("%s %s %s: %s error %.3g of largest %.3g (%.2g)", set, task, name, r.ok ? "ok:" : "FAILED:", r.error, r.largest, relative);
  if (!r.ok) printf(", largest at element %lld: is %.9g, expected %.9g", (long long)r.at, tensor_number(got, r.at), tensor_number(expected, r.at));
  printf("\n");
}

/* ---- one data set ---- */

/* Does the task's bound value for the input agree with what the data set gives? */
static bool binding_agrees(Verify *v, const Task *t, const Value *input, const Tensor *given) {
  for (size_t i = 0; i < t->n_bind; i++) {
    if (strcmp(t->bind[i].input, input->name) != 0) continue;
    const Tensor *bound = task_bound_tensor(v->run.graph, input, t->bind[i].value);
    if (bound->bytes != given->bytes || memcmp(bound->data, given->data, given->bytes) != 0) return false;
  }
  return true;
}

static const Task *task_of_output(const Verify *v, const Task *t, const char *name, const char **is_called) {
  /* tasks_join may have renamed an output that several tasks give: position decides. */
  const Task *joined = &v->run.graph->tasks[t - v->model->tasks];
  for (size_t i = 0; i < t->n_outputs; i++)
    if (strcmp(t->outputs[i], name) == 0) {
      *is_called = joined->outputs[i];
      return joined;
    }
  return NULL;
}

static const char *output_file(Ctx *c, const Graph *g, const char *name) {
  size_t i = 0;
  while (strcmp(g->outputs[i]->name, name) != 0) i++;
  return port_file_name(c, g->outputs, i);
}

static void run_set(Verify *v, const char *folder, const char *set) {
  Ctx *c = v->c;
  const char *temporary = engine_temporary(c), *arguments[2 * MOST + 16];
  Tensor *given[MOST] = {NULL};
  size_t n = 0;
  for (size_t i = 0; i < v->model->n_inputs && i < MOST; i++) {
    const char *path = ctx_format(c, "%s/input_%zu.pb", folder, i);
    if (!exists(path)) ctx_fail(c, NULL, "%s is missing: input \"%s\"", path, v->model->inputs[i]->name);
    given[i] = onnx_read_tensor(c, path, NULL);
    bool wanted = false;
    for (size_t k = 0; k < v->run.graph->n_inputs; k++) wanted |= strcmp(v->run.graph->inputs[k]->name, v->model->inputs[i]->name) == 0;
    if (!wanted) continue;
    const char *npy = ctx_format(c, "%s/in%zu.npy", temporary, i);
    npy_write(c, npy, given[i]);
    arguments[n++] = "--input";
    arguments[n++] = ctx_format(c, "%s=%s", v->model->inputs[i]->name, npy);
  }
  const char *threads = ctx_format(c, "%ld", v->o->threads);
  const char *const rest[] = {"--threads", threads, "--quiet", "-o", temporary};
  for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) arguments[n++] = rest[i];
  arguments[n] = NULL;
  if (engine_run(v->run.engine, arguments, NULL) != 0) ctx_fail(c, NULL, "%s: the network does not run on this data", set);
  for (size_t j = 0; j < v->model->n_outputs; j++) {
    const char *name = v->model->outputs[j]->name, *path = ctx_format(c, "%s/output_%zu.pb", folder, j);
    if (!exists(path)) continue;
    Tensor *expected = onnx_read_tensor(c, path, NULL);
    for (size_t t = 0; t < v->model->n_tasks; t++) {
      const char *called;
      const Task *task = task_of_output(v, &v->model->tasks[t], name, &called);
      bool speaks = task != NULL;
      for (size_t i = 0; speaks && i < v->model->n_inputs; i++) speaks = binding_agrees(v, task, v->model->inputs[i], given[i]);
      if (!speaks) continue;
      Tensor *got = npy_read(c, ctx_format(c, "%s/%s.npy", temporary, output_file(c, v->run.graph, called)));
      judge(v, set, task->name, name, got, expected);
    }
  }
}

void command_verify(Options *o) {
  Ctx *c = o->ctx;
  Verify v = {.o = o, .c = c};
  if (o->layers) ctx_fail_status(c, EXIT_USAGE, "--layers is not built yet");
  v.run = runnable_open(o, o->argument[0]);
  if (!v.run.graph) ctx_fail_status(c, EXIT_USAGE, "verify wants a model, not a folder");
  v.model = onnx_read(c, o->argument[0], o->compile.dims, o->compile.n_dims);
  v.model->name = v.run.graph->name;
  tasks_find(v.model, o->compile.tasks, o->compile.n_tasks);
  const char *folder = o->argument[1];
  size_t sets = 0;
  for (size_t i = 0; i < 1000; i++) {
    const char *set = ctx_format(c, "test_data_set_%zu", i), *path = ctx_format(c, "%s/%s", folder, set);
    if (!exists(path)) break;
    run_set(&v, path, set);
    sets++;
  }
  if (!sets && exists(ctx_format(c, "%s/output_0.pb", folder))) {
    run_set(&v, folder, "data");
    sets++;
  }
  if (!sets) ctx_fail(c, NULL, "\"%s\" holds no test_data_set_0 and no output_0.pb", folder);
  if (!v.outputs) ctx_fail(c, NULL, "no data set of \"%s\" speaks of a chosen task", folder);
  printf("%zu outputs in %zu data sets, %zu wrong; largest relative error %.2g\n", v.outputs, sets, v.wrong, v.worst);
  if (v.wrong) ctx_fail(c, NULL, "%zu of %zu outputs differ from what \"%s\" expects", v.wrong, v.outputs, folder);
}
