/* moecc run: inputs from .npy, .pb or pictures; outputs as .npy, and as pictures where the model says what they are. */
#include "cli/runnable.h"

#include "engine/process.h"
#include "io/io.h"
#include "progress.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

static const char *file_of(const char *given) { return strchr(given, '=') + 1; }
static const char *name_of(Ctx *c, const char *given) {
  return ctx_strndup(c, given, (size_t)(file_of(given) - given) - 1);
}

/* The files can be read: asked before the work of compiling. */
static void check_files(Options *o) {
  for (size_t i = 0; i < o->n_inputs; i++) {
    const char *path = file_of(o->input[i]);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct stat s;
    bool folder = fd >= 0 && fstat(fd, &s) == 0 && S_ISDIR(s.st_mode);
    if (fd < 0 || folder)
      ctx_fail(o->ctx, NULL, "input \"%s\": cannot read \"%s\": %s", name_of(o->ctx, o->input[i]), path,
               strerror(folder ? EISDIR : errno));
    (void)close(fd);
    for (size_t k = 0; k < i; k++)
      if (strcmp(name_of(o->ctx, o->input[k]), name_of(o->ctx, o->input[i])) == 0)
        ctx_fail_status(o->ctx, EXIT_USAGE, "input \"%s\" is given twice", name_of(o->ctx, o->input[i]));
  }
}

/* Every input of the graph is given, and nothing else. */
static void check_names(Options *o, const Graph *g) {
  for (size_t i = 0; i < o->n_inputs; i++) (void)find_input(o, g, name_of(o->ctx, o->input[i]));
  for (size_t i = 0; i < g->n_inputs; i++) {
    const Value *v = g->inputs[i];
    bool given = false;
    for (size_t k = 0; k < o->n_inputs; k++) given |= strcmp(name_of(o->ctx, o->input[k]), v->name) == 0;
    if (!given)
      ctx_fail_status(o->ctx, EXIT_USAGE, "the input \"%s\" %s is not given: --input '%s=FILE'", v->name,
                      shape_text(o->ctx, v->dtype, &v->shape), v->name);
  }
}

/* The argument NAME=FILE.npy for the driver; what is not .npy is converted into the temporary folder. */
static const char *driver_input(Options *o, const Graph *g, const char *given, const char *temporary, size_t index) {
  Ctx *c = o->ctx;
  const char *path = file_of(given), *name = name_of(c, given);
  if (ends_with(path, ".npy")) return given;
  bool proto = ends_with(path, ".pb");
  if (!g && !proto)
    ctx_fail_status(c, EXIT_USAGE, "an emitted folder takes .npy and .pb; for pictures give the model itself");
  const char *npy = ctx_format(c, "%s/in%zu.npy", temporary, index);
  npy_write(c, npy, proto ? tensor_read(o, path) : picture_tensor(o, g, find_input(o, g, name), path));
  return ctx_format(c, "%s=%s", name, npy);
}

static bool given_as_picture(const Options *o, const char **path) {
  for (size_t i = 0; i < o->n_inputs; i++) {
    *path = file_of(o->input[i]);
    if (!ends_with(*path, ".npy") && !ends_with(*path, ".pb")) return true;
  }
  return false;
}

/* Each output that the model describes as a picture, and all of them beside the input picture. */
static void render_outputs(Options *o, const Runnable *run) {
  Ctx *c = o->ctx;
  const Graph *g = run->graph;
  const Picture *pictures[MOST + 1];
  const char *captions[MOST + 1], *photo;
  size_t n = 0;
  if (given_as_picture(o, &photo)) {
    pictures[n] = picture_read(c, photo);
    captions[n++] = "input";
  }
  for (size_t i = 0; i < g->n_outputs && n < MOST; i++) {
    const char *name = g->outputs[i]->name, *about = metadata(g, ctx_format(c, "moecc.output.%s", name));
    const char *stem = ctx_format(c, "%s/%s", o->out, run->output_file[i]), *caption;
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

/* The model, or the folder; what was given is checked as early as it can be. */
static Runnable open_checked(Options *o) {
  Ctx *c = o->ctx;
  check_files(o);
  if (is_folder(o->argument[0])) return runnable_open(o, o->argument[0]);
  ctx_set_file(c, o->argument[0]);
  Graph *g = pipeline_graph(c, &o->compile);
  check_names(o, g);
  return runnable_build(c, g, &o->compile, o->engine, o->trace != NULL);
}

void command_run(Options *o) {
  Ctx *c = o->ctx;
  if (!o->out) ctx_fail_status(c, EXIT_USAGE, "run wants the folder for outputs: -o OUT");
  if (o->trace && is_folder(o->argument[0]) && o->compile.n_tasks > 1)
    ctx_fail_status(c, EXIT_USAGE, "--trace with a compiled folder wants one task at a time, or all of them");
  Runnable run = open_checked(o);
  const char *temporary = temporary_folder(c);
  Arguments a = {.ctx = c};
  for (size_t i = 0; i < o->n_inputs; i++)
    argument_pair(&a, "--input", driver_input(o, run.graph, o->input[i], temporary, i));
  argument_pair(&a, "--threads", ctx_format(c, "%ld", o->threads));
  argument_pair(&a, "-o", o->out);
  if (o->quiet) argument_add(&a, "--quiet");
  argument_weights(&a, o, &run);
  if (o->trace) argument_pair(&a, "--trace", o->trace);
  static const char trouble[] = "the network does not run on these inputs";
  size_t named = run.graph ? 0 : o->compile.n_tasks; /* a model was compiled for these only */
  for (size_t i = 0; i < named; i++) runnable_run(&run, &a, o->compile.tasks[i], trouble);
  if (!named) runnable_run(&run, &a, o->all_tasks && run.has_all ? "all" : NULL, trouble);
  progress_step("drawing pictures");
  if (run.graph) render_outputs(o, &run);
  progress_pause();
}
