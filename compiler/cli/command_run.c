/* moecc run: inputs from .npy, .pb or pictures; outputs as .npy, and as pictures where the model says what they are. */
#include "cli/cli.h"
#include "io/io.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST = 64 };

static bool ends_with(const char *s, const char *end) {
  size_t n = strlen(s), m = strlen(end);
  return n >= m && strcmp(s + n - m, end) == 0;
}

static const char *metadata(const Graph *g, const char *key) {
  for (size_t i = 0; i < g->n_meta; i++)
    if (strcmp(g->meta[i].key, key) == 0) return g->meta[i].value;
  return NULL;
}

static Value *find_input(Options *o, const Graph *g, const char *name) {
  Text have = {.ctx = o->ctx};
  for (size_t i = 0; i < g->n_inputs; i++) {
    if (strcmp(g->inputs[i]->name, name) == 0) return g->inputs[i];
    text_add(&have, "%s\"%s\"", i ? ", " : "", g->inputs[i]->name);
  }
  ctx_fail_status(o->ctx, EXIT_USAGE, "the model has no input \"%s\"; it has %s", name, have.text ? have.text : "none");
}

static Tensor *picture_tensor(Options *o, const Graph *g, const Value *v, const char *path) {
  int64_t dims[MAX_RANK];
  for (int i = 0; i < v->shape.rank; i++) dims[i] = v->shape.dim[i].n;
  const char *about = metadata(g, ctx_format(o->ctx, "moecc.input.%s", v->name));
  ImageInput format = image_input_parse(o->ctx, v->name, about, v->shape.rank, dims);
  return image_to_tensor(o->ctx, picture_read(o->ctx, path), &format, v->dtype, v->shape.rank, dims);
}

/* The argument NAME=FILE.npy for the driver; what is not .npy is converted into the temporary folder. */
static const char *driver_input(Options *o, const Graph *g, const char *given, const char *temporary, size_t index) {
  Ctx *c = o->ctx;
  const char *path = strchr(given, '=') + 1, *name = ctx_strndup(c, given, (size_t)(path - given) - 1);
  bool array = ends_with(path, ".npy"), proto = ends_with(path, ".pb");
  if (array && !g) return given;
  if (!g && !proto) ctx_fail_status(c, EXIT_USAGE, "an emitted folder takes .npy and .pb; for pictures give the model itself");
  if (g) (void)find_input(o, g, name);
  if (array) return given;
  Tensor *t = proto ? onnx_read_tensor(c, path, NULL) : picture_tensor(o, g, find_input(o, g, name), path);
  const char *npy = ctx_format(c, "%s/in%zu.npy", temporary, index);
  npy_write(c, npy, t);
  return ctx_format(c, "%s=%s", name, npy);
}

static bool given_as_picture(const Options *o, const char **path) {
  for (size_t i = 0; i < o->n_inputs; i++) {
    *path = strchr(o->input[i], '=') + 1;
    if (!ends_with(*path, ".npy") && !ends_with(*path, ".pb")) return true;
  }
  return false;
}

/* Each output that the model describes as a picture, and all of them beside the input picture. */
static void render_outputs(Options *o, const Graph *g) {
  Ctx *c = o->ctx;
  const Picture *pictures[MOST + 1];
  const char *captions[MOST + 1], *photo;
  size_t n = 0;
  if (given_as_picture(o, &photo)) {
    pictures[n] = picture_read(c, photo);
    captions[n++] = "input";
  }
  for (size_t i = 0; i < g->n_outputs && n < MOST; i++) {
    const char *name = g->outputs[i]->name, *about = metadata(g, ctx_format(c, "moecc.output.%s", name));
    const char *stem = ctx_format(c, "%s/%s", o->out, port_file_name(c, g->outputs, i)), *caption;
    struct stat s;
    if (!about || !render_known(about) || stat(ctx_format(c, "%s.npy", stem), &s) != 0) continue;
    pictures[n] = render_output(c, name, about, npy_read(c, ctx_format(c, "%s.npy", stem)), &caption);
    captions[n] = ctx_format(c, "%s: %s", name, caption);
    picture_write(c, ctx_format(c, "%s.png", stem), pictures[n++]);
    printf("%s.png\n", stem);
  }
  if (n < 2) return;
  picture_write(c, ctx_format(c, "%s/all.png", o->out), contact_sheet(c, n, pictures, captions));
  printf("%s/all.png\n", o->out);
}

void command_run(Options *o) {
  Ctx *c = o->ctx;
  if (!o->out) ctx_fail_status(c, EXIT_USAGE, "run wants the folder for outputs: -o OUT");
  if (mkdir(o->out, 0777) != 0 && errno != EEXIST)
    ctx_fail_status(c, EXIT_MACHINE, "cannot make the folder \"%s\": %s", o->out, strerror(errno));
  Runnable run = runnable_open(o, o->argument[0]);
  const char *temporary = engine_temporary(c), *threads = ctx_format(c, "%ld", o->threads);
  const char *arguments[2 * MOST + 16];
  size_t n = 0;
  if (o->n_inputs > MOST) ctx_fail_status(c, EXIT_USAGE, "more than %d inputs", MOST);
  for (size_t i = 0; i < o->n_inputs; i++) {
    arguments[n++] = "--input";
    arguments[n++] = driver_input(o, run.graph, o->input[i], temporary, i);
  }
  const char *const rest[] = {"--threads", threads, "-o", o->out};
  for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) arguments[n++] = rest[i];
  if (o->quiet) arguments[n++] = "--quiet";
  if (!run.graph && o->compile.n_tasks == 1) {
    arguments[n++] = "--task";
    arguments[n++] = o->compile.tasks[0];
  }
  arguments[n] = NULL;
  int status = engine_run(run.engine, arguments, NULL);
  if (status != 0) ctx_fail_status(c, (ExitStatus)status, "the network does not run on these inputs");
  if (run.graph) render_outputs(o, run.graph);
}
