/* Test data in ONNX's layout: test_data_set_0, test_data_set_1, …, each with input_I.pb and output_J.pb in the model's
 * order. */
#include "cli/verify.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool exists(const char *path) {
  struct stat s;
  return stat(path, &s) == 0;
}

const char *tensor_text(Ctx *c, const Tensor *t) {
  Shape s = shape_of(t->rank, t->dim);
  return shape_text(c, t->dtype, &s);
}

/* ---- finding them ---- */

/* The N of "test_data_set_N"; -1 for other names. */
static long set_number(const char *name) {
  static const char prefix[] = "test_data_set_";
  size_t n = sizeof prefix - 1;
  if (strncmp(name, prefix, n) != 0 || !name[n] || strspn(name + n, "0123456789") != strlen(name + n)) return -1;
  return strtol(name + n, NULL, 10);
}

static int by_number(const void *a, const void *b) {
  long x = set_number(((const DataSet *)a)->name), y = set_number(((const DataSet *)b)->name);
  return (x > y) - (x < y);
}

static bool is_data_set(const char *name) {
  size_t n = strlen(name);
  bool begins = strncmp(name, "input_", 6) == 0 || strncmp(name, "output_", 7) == 0;
  return begins && n > 3 && strcmp(name + n - 3, ".pb") == 0;
}

DataSet *data_sets_find(Ctx *c, const char *folder, size_t *n) {
  DIR *d = opendir(folder);
  if (!d) ctx_fail(c, NULL, "the folder of test data \"%s\": %s", folder, strerror(errno));
  DataSet *sets = NULL;
  size_t cap = 0;
  bool itself = false;
  *n = 0;
  for (struct dirent *entry; (entry = readdir(d));) {
    itself |= is_data_set(entry->d_name);
    if (set_number(entry->d_name) < 0) continue;
    sets = ctx_grow(c, sets, *n, &cap, sizeof *sets);
    sets[(*n)++] =
        (DataSet){.name = ctx_strdup(c, entry->d_name), .folder = ctx_format(c, "%s/%s", folder, entry->d_name)};
  }
  (void)closedir(d);
  if (*n)
    qsort(sets, *n, sizeof *sets, by_number);
  else if (!itself)
    ctx_fail(c, NULL, "\"%s\" holds no test_data_set_0, and no input_0.pb of its own", folder);
  if (*n) return sets;
  sets = ctx_alloc(c, sizeof *sets);
  *sets = (DataSet){.name = "data", .folder = folder};
  *n = 1;
  return sets;
}

/* ---- reading one ---- */

static const Value *input_named(const Graph *g, const char *name) {
  for (size_t i = 0; i < g->n_inputs; i++)
    if (strcmp(g->inputs[i]->name, name) == 0) return g->inputs[i];
  return NULL;
}

static bool fits(const Tensor *t, const Value *v) {
  if (t->dtype != v->dtype || t->rank != v->shape.rank) return false;
  for (int i = 0; i < t->rank; i++)
    if (v->shape.dim[i].sym == 0 && v->shape.dim[i].n >= 0 && t->dim[i] != v->shape.dim[i].n) return false;
  return true;
}

void data_set_read(Options *o, DataSet *s, const Graph *model, const Graph *graph) {
  Ctx *c = o->ctx;
  s->input = ctx_array(c, model->n_inputs + 1, sizeof *s->input);
  for (size_t i = 0; i < model->n_inputs; i++) {
    const char *path = ctx_format(c, "%s/input_%zu.pb", s->folder, i);
    const Value *v = model->inputs[i], *taken = input_named(graph, v->name);
    if (taken) v = taken;
    const char *what =
        ctx_format(c, "input %zu of the model, \"%s\" %s", i, v->name, shape_text(c, v->dtype, &v->shape));
    if (!exists(path) && taken) ctx_fail(c, NULL, "%s is missing: %s", path, what);
    if (!exists(path)) continue; /* every task binds it */
    s->input[i] = tensor_read(o, path);
    if (!fits(s->input[i], v)) ctx_fail(c, NULL, "%s is %s, but it is for %s", path, tensor_text(c, s->input[i]), what);
  }
}

const char *data_set_output(Ctx *c, const DataSet *s, size_t output) {
  const char *path = ctx_format(c, "%s/output_%zu.pb", s->folder, output);
  return exists(path) ? path : NULL;
}
