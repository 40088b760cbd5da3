/* One table of options: what each means, which commands take it, and where its value goes. */
#include "cli/cli.h"
#include "lower/tuning.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  const char *name;
  const char *value; /* what --help calls it; NULL: takes none */
  unsigned commands;
  void (*set)(Options *o, const char *value);
  const char *help;
} OptionInfo;

_Noreturn static void usage_error(Options *o, const char *fmt, const char *a, const char *b) {
  Text t = {.ctx = o->ctx};
  text_add(&t, fmt, a, b);
  ctx_fail_status(o->ctx, EXIT_USAGE, "%s", t.text);
}

static void append(Options *o, const char *const **list, size_t *n, const char *value) {
  const char **bigger = ctx_array(o->ctx, *n + 1, sizeof *bigger);
  if (*n) memcpy(bigger, *list, *n * sizeof *bigger);
  bigger[(*n)++] = value;
  *list = bigger;
}

static int64_t whole_number(Options *o, const char *option, const char *text, int64_t least) {
  char *end;
  errno = 0;
  long long x = strtoll(text, &end, 10);
  if (errno || end == text || *end || x < least)
    usage_error(o, least > 0 ? "%s wants a whole number from 1 on, not \"%s\"" : "%s wants a whole number, not \"%s\"",
                option, text);
  return x;
}

static double real_number(Options *o, const char *option, const char *text) {
  char *end;
  double x = strtod(text, &end);
  if (end == text || *end || !(x >= 0) || !isfinite(x))
    usage_error(o, "%s wants a number from 0 on, not \"%s\"", option, text);
  return x;
}

static const char *one_of(Options *o, const char *option, const char *value, const char *const *choices) {
  for (const char *const *c = choices; *c; c++)
    if (strcmp(*c, value) == 0) return *c;
  Text t = {.ctx = o->ctx};
  for (const char *const *c = choices; *c; c++) text_add(&t, "%s%s", c == choices ? "" : ", ", *c);
  usage_error(o, ctx_format(o->ctx, "%s wants one of %s, not \"%%s\"%%s", option, t.text), value, "");
}

/* ---- what each option sets ---- */

static void set_out(Options *o, const char *v) {
  if (!*v || strcmp(v, "-") == 0) usage_error(o, "-o wants a name of a folder or file, not \"%s\"%s", v, "");
  o->out = v;
}
static void set_name(Options *o, const char *v) { o->compile.name = v; }
static void set_bind(Options *o, const char *v) {
  if (!strchr(v, '=') || v[0] == '=') usage_error(o, "--bind wants INPUT=VALUE, not \"%s\"%s", v, "");
  append(o, &o->compile.bind, &o->compile.n_bind, v);
}
static void set_input(Options *o, const char *v) {
  const char *equals = strchr(v, '=');
  if (!equals || equals == v || !equals[1]) usage_error(o, "--input wants NAME=FILE, not \"%s\"%s", v, "");
  if (strcmp(equals, "=-") == 0)
    usage_error(o, "--input wants a file, not \"-\": its name says what it holds (.npy, .pb, .png, .jpg)%s%s", "", "");
  append(o, &o->input, &o->n_inputs, v);
}
static void set_task(Options *o, const char *v) {
  for (const char *p = v; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
    size_t n = strcspn(p, ",");
    if (!n) usage_error(o, "--task wants names of tasks with commas between them, not \"%s\"%s", v, "");
    if (n == 3 && strncmp(p, "all", 3) == 0)
      o->all_tasks = true;
    else
      append(o, &o->compile.tasks, &o->compile.n_tasks, ctx_strndup(o->ctx, p, n));
  }
}
static void set_dim(Options *o, const char *v) {
  const char *equals = strchr(v, '=');
  if (!equals || equals == v) usage_error(o, "--dim wants NAME=N, not \"%s\"%s", v, "");
  DimBinding *bigger = ctx_array(o->ctx, o->compile.n_dims + 1, sizeof *bigger);
  if (o->compile.n_dims) memcpy(bigger, o->compile.dims, o->compile.n_dims * sizeof *bigger);
  bigger[o->compile.n_dims++] =
      (DimBinding){ctx_strndup(o->ctx, v, (size_t)(equals - v)), whole_number(o, "--dim", equals + 1, 1)};
  o->compile.dims = bigger;
}
static void set_target(Options *o, const char *v) {
  static const char *const later[] = {"cortex-m7", "cortex-m55", "wasm32"};
  o->compile.target = target_find(v);
  if (o->compile.target) return;
  for (size_t i = 0; i < sizeof later / sizeof *later; i++)
    if (strcmp(later[i], v) == 0) usage_error(o, "--target %s is not built yet%s", v, "");
  Text t = {.ctx = o->ctx};
  text_add(&t, "native");
  for (size_t i = 0; target_at(i); i++) text_add(&t, ", %s", target_at(i)->name);
  usage_error(o, "there is no target \"%s\"; there are: %s", v, t.text);
}
static void set_weights(Options *o, const char *v) {
  static const char *const choices[] = {"file", "embed", "stream", NULL};
  o->compile.weights = one_of(o, "--weights", v, choices)[0] == 'f' ? WEIGHTS_FILE
                       : v[0] == 'e'                                ? WEIGHTS_EMBED
                                                                    : WEIGHTS_STREAM;
  o->weights_given = true;
}
static void set_arena(Options *o, const char *v) { o->compile.arena = whole_number(o, "--arena", v, 1); }
static void set_stream_buffer(Options *o, const char *v) {
  o->compile.stream_buffer = whole_number(o, "--stream-buffer", v, 1);
  o->for_streaming = "--stream-buffer";
}
static void set_resident(Options *o, const char *v) {
  o->compile.resident = whole_number(o, "--resident", v, 0);
  o->for_streaming = "--resident";
}
static void set_source(Options *o, const char *v) {
  static const char *const choices[] = {"memory", "map", "loader", "file", "direct", "copy", NULL};
  o->source = one_of(o, "--source", v, choices);
}
static void set_precision(Options *o, const char *v) {
  static const char *const choices[] = {"f32", "bf16", "int8", NULL};
  if (strcmp(one_of(o, "--precision", v, choices), "f32") != 0)
    usage_error(o, "--precision %s is not built yet; f32 is%s", v, "");
}
static void set_moe(Options *o, const char *v) {
  static const char *const choices[] = {"expert-major", "token-major", NULL};
  o->compile.token_major = one_of(o, "--moe", v, choices)[0] == 't';
}
static void set_gelu(Options *o, const char *v) {
  static const char *const choices[] = {"model", "erf", "tanh", NULL};
  o->compile.passes.gelu = one_of(o, "--gelu", v, choices)[0] == 'm' ? NULL : v;
}
static void set_strict(Options *o, const char *v) { (void)v, o->compile.passes.strict = true; }
static void set_dump(Options *o, const char *v) {
  if (!pass_find(v)) {
    Text t = {.ctx = o->ctx};
    for (size_t i = 0; i < n_passes; i++) text_add(&t, "%s%s", i ? ", " : "", passes[i].name);
    usage_error(o, "there is no pass \"%s\"; there are: %s", v, t.text);
  }
  o->compile.passes.dump = v;
}
static void set_engine(Options *o, const char *v) {
  static const char *const choices[] = {"cc", "tcc", NULL};
  o->engine = one_of(o, "--engine", v, choices)[0] == 't' ? ENGINE_TCC : ENGINE_CC;
}
static void set_layers(Options *o, const char *v) { (void)v, o->layers = true; }
static void set_json(Options *o, const char *v) { (void)v, o->json = true; }
static void set_text(Options *o, const char *v) { (void)v, o->text = true; }
static void set_quiet(Options *o, const char *v) { (void)v, o->quiet = true; }
static void set_verbose(Options *o, const char *v) { (void)v, o->verbose = true; }
static void set_rtol(Options *o, const char *v) { o->rtol = real_number(o, "--rtol", v), o->tolerance_given = true; }
static void set_atol(Options *o, const char *v) { o->atol = real_number(o, "--atol", v), o->tolerance_given = true; }
static void set_threads(Options *o, const char *v) {
  o->threads = (long)whole_number(o, "--threads", v, 1);
  if (o->threads > 64) usage_error(o, "%s wants at most 64, not %s", "--threads", v);
}
static void set_runs(Options *o, const char *v) { o->runs = (long)whole_number(o, "--runs", v, 1); }
static void set_kernels(Options *o, const char *v) { (void)v, o->kernels = true; }
static void set_cpu_time(Options *o, const char *v) { (void)v, o->cpu_time = true; }
static void set_trace(Options *o, const char *v) {
  if (!*v || strcmp(v, "-") == 0) usage_error(o, "--trace wants a file, not \"%s\"%s", v, "");
  o->trace = v;
}
static void set_html(Options *o, const char *v) {
  if (!*v || strcmp(v, "-") == 0) usage_error(o, "--html wants a file, not \"%s\"%s", v, "");
  o->html = v;
}
static void set_tune(Options *o, const char *v) { o->tune = v; }

enum {
  MODEL = FOR_COMPILE | FOR_RUN | FOR_VERIFY | FOR_BENCH | FOR_TUNE | FOR_INSPECT,
  RUNS = FOR_RUN | FOR_VERIFY | FOR_BENCH
};

static const OptionInfo options[] = {
    {"-o", "DIR", FOR_COMPILE | FOR_RUN, set_out,
     "compile: the folder to write, new or written by moecc before\n"
     "run: the folder for outputs, as DIR/<output>.npy and .png"},
    {"-o", "FILE", FOR_TUNE, set_out, "the file to write, a line for each kernel and shape"},
    {"--tune", "FILE", FOR_COMPILE | RUNS, set_tune,
     "kernels' tiles as moecc tune has measured them for this target; the results are the same"},
    {"--name", "N", FOR_COMPILE, set_name, "name of the network in the C (default: the model file's name)"},
    {"--task", "T[,T...]", MODEL, set_task,
     "only these tasks (default: all of them)\n"
     "all: all of them; run: by the function that computes them at once; bench: that as well"},
    {"--bind", "INPUT=VALUE", MODEL, set_bind,
     "make an input a constant: one number, or one for each element with commas"},
    {"--dim", "NAME=N", MODEL, set_dim, "fix a free dimension"},
    {"--target", "T", FOR_COMPILE | RUNS | FOR_TUNE, set_target,
     "machine to make code for (default: native; all of them are below)"},
    {"--weights", "MODE", FOR_COMPILE | FOR_RUN | FOR_BENCH, set_weights,
     "file: N_weights.bin, loaded before the first call (default)\n"
     "embed: in the C; stream: N_weights.bin, loaded while computing\n"
     "run, bench: the same of a compiled folder, but for embed (default: as it was compiled)"},
    {"--source", "WAY", FOR_RUN | FOR_BENCH, set_source,
     "where weights that are in a file come from; the results are the same\n"
     "memory: all of them are loaded before the first call (default, but for --weights stream)\n"
     "map: the file is mapped; it must not change meanwhile\n"
     "loader: piece by piece through two buffers, read by a thread (default with --weights stream)\n"
     "file: the same without a thread; direct: past the system's cache; copy: out of memory\n"
     "of a model, these last four mean --weights stream, if --weights is not given"},
    {"--arena", "BYTES", FOR_COMPILE | RUNS, set_arena,
     "the most memory that a task may take with one thread, stream buffers aside: chains of pictures\n"
     "are computed in bands as far as that takes; the results are the same (default: any)"},
    {"--stream-buffer", "BYTES", FOR_COMPILE | FOR_RUN | FOR_BENCH, set_stream_buffer,
     "with --weights stream: bytes of each of the two buffers (default: 1200000). Weights that do not fit\n"
     "are cut along output channels; what cannot be cut makes the buffers larger"},
    {"--resident", "BYTES", FOR_COMPILE | FOR_RUN | FOR_BENCH, set_resident,
     "with --weights stream: keep weights in memory from init on, up to so many bytes: those that save\n"
     "most waiting for their size; the results are the same (default: 0)"},
    {"--precision", "P", FOR_COMPILE, set_precision, "f32 (default; bf16 and int8 are not built yet)"},
    {"--moe", "ORDER", FOR_COMPILE | RUNS, set_moe,
     "expert-major: each expert's weights are read once (default)\n"
     "token-major: token by token; the results are the same"},
    {"--gelu", "FORM", MODEL, set_gelu,
     "model: as the model says; the gelu of com.microsoft::MoE, of which models say nothing,\n"
     "is the erf form, with a warning (default)\n"
     "erf, tanh: this form for every GELU of the network"},
    {"--strict", NULL, MODEL, set_strict, "NaN or infinite weights are an error, not a warning"},
    {"--dump", "PASS", FOR_COMPILE | FOR_INSPECT, set_dump, "print the graph in ONNX's text syntax after a pass"},
    {"--engine", "E", RUNS, set_engine, "cc: $CC, else clang, else gcc (default); tcc: at once, but slow code"},
    {"--input", "NAME=FILE", FOR_RUN, set_input, "an input: .npy, .pb (ONNX TensorProto); pictures: .png, .jpg"},
    {"--trace", "FILE", FOR_RUN, set_trace,
     "when each layer, kernel, expert and load of weights ran, and on which thread, as JSON for\n"
     "ui.perfetto.dev or chrome://tracing"},
    {"--rtol", "R", FOR_VERIFY, set_rtol,
     "with --atol ONNX's rule: |a-b| <= A + R|b| for every element\n"
     "(default: max|a-b| <= 1e-5 max|b|; integers and booleans exactly)"},
    {"--atol", "A", FOR_VERIFY, set_atol, "see --rtol; one without the other leaves the other 0"},
    {"--layers", NULL, FOR_VERIFY, set_layers,
     "compare layer by layer with the unoptimised graph, built by libtcc, and name the first\n"
     "value that differs"},
    {"--threads", "N", RUNS, set_threads, "threads, 1 to 64 (default: 1); the results do not depend on it"},
    {"--runs", "N", FOR_BENCH, set_runs, "timed calls after one warm-up (default: 20)"},
    {"--json", NULL, FOR_BENCH | FOR_INSPECT | FOR_OPS | FOR_VERIFY, set_json,
     "machine-readable output; times are in milliseconds, memory in bytes"},
    {"--kernels", NULL, FOR_BENCH, set_kernels,
     "each kernel's time, calls, GFLOP/s and share of this machine's multiply-add peak"},
    {"--cpu-time", NULL, FOR_BENCH, set_cpu_time,
     "the thread's processor time instead of elapsed time, which a busy machine stretches"},
    {"--text", NULL, FOR_INSPECT, set_text, "the graph as read, in ONNX's text syntax"},
    {"--html", "FILE", FOR_INSPECT, set_html,
     "write a page that needs nothing else\n"
     "of a model: its tasks and what they share, layers of experts, operators, nodes with their shapes\n"
     "of a trace that run --trace wrote: its timeline, kernels and loads of weights in tracks"},
    {"--quiet", NULL, FOR_ALL, set_quiet, "no warnings, no progress"},
    {"--verbose", NULL, FOR_ALL, set_verbose, "say what is being done, and how long it took"},
};
enum { N_OPTIONS = sizeof options / sizeof *options };

enum { HELP_COLUMN = 27, HELP_WIDTH = 110 };

static void print_option(const OptionInfo *option, FILE *f) {
  char left[64];
  (void)snprintf(left, sizeof left, "%s%s%s", option->name, option->value ? " " : "",
                 option->value ? option->value : "");
  fprintf(f, "  %-*s", HELP_COLUMN - 2, left);
  for (const char *line = option->help; line;) {
    size_t n = strcspn(line, "\n");
    fprintf(f, "%.*s\n", (int)n, line);
    line = line[n] ? line + n + 1 : NULL;
    if (line) fprintf(f, "%*s", HELP_COLUMN, "");
  }
}

static void print_passes(FILE *f) {
  int column = fprintf(f, "  %-*s%s", HELP_COLUMN - 2, "--no-PASS", "leave out a pass:");
  for (size_t i = 0; i < n_passes; i++) {
    if (passes[i].need == PASS_ALWAYS) continue;
    if (column + (int)strlen(passes[i].name) + 1 > HELP_WIDTH) column = fprintf(f, "\n%*s", HELP_COLUMN - 1, "");
    column += fprintf(f, " %s", passes[i].name);
  }
  fprintf(f, "\n");
}

static void print_targets(FILE *f) {
  fprintf(f, "targets: native");
  for (size_t i = 0; target_at(i); i++) fprintf(f, ", %s", target_at(i)->name);
  fprintf(f, "\n");
}

void options_help(Command command, FILE *f) {
  fprintf(f, "options (an option's value may also be written --option=VALUE; -- ends the options):\n");
  for (int i = 0; i < N_OPTIONS; i++)
    if (options[i].commands & command) print_option(&options[i], f);
  if (command & MODEL) print_passes(f);
  if (command & (FOR_COMPILE | RUNS | FOR_TUNE)) print_targets(f);
}

bool options_want_help(int argc, char **argv) {
  for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
  return false;
}

/* -o is there more than once: it means another thing to each command. */
static const OptionInfo *find_option(const char *name, Command command) {
  for (int i = 0; i < N_OPTIONS; i++)
    if (strcmp(options[i].name, name) == 0 && (options[i].commands & (unsigned)command)) return &options[i];
  return NULL;
}

static void read_option(Options *o, Command command, char **argv, int *i) {
  char *name = argv[*i], *equals = strncmp(name, "--", 2) == 0 ? strchr(name, '=') : NULL;
  if (equals) name = ctx_strndup(o->ctx, name, (size_t)(equals - name));
  const Pass *pass = strncmp(name, "--no-", 5) == 0 && (command & MODEL) ? pass_find(name + 5) : NULL;
  if (pass) {
    if (pass->need == PASS_ALWAYS) usage_error(o, "%s: nothing can be compiled without this pass%s", name, "");
    append(o, &o->compile.passes.disabled, &o->compile.passes.n_disabled, name + 5);
    return;
  }
  const OptionInfo *option = find_option(name, command);
  if (!option) usage_error(o, "there is no option %s here; see --help%s", name, "");
  o->option = option->name;
  if (!option->value) {
    if (equals) usage_error(o, "%s takes no value%s", name, "");
    option->set(o, NULL);
    return;
  }
  const char *value = equals ? equals + 1 : argv[*i + 1];
  if (!value) usage_error(o, "%s wants a value: %s", name, option->value);
  if (!equals && strncmp(value, "--", 2) == 0)
    usage_error(o, "%s wants a value, and %s looks like an option: write OPTION=VALUE", name, value);
  if (!equals) ++*i;
  option->set(o, value);
}

static void add_argument(Options *o, const char *text) {
  if (strcmp(text, "-") == 0)
    usage_error(o, "\"-\" (stdin) is not read: give the path of a file or folder%s%s", "", "");
  if (!*text) usage_error(o, "an argument is empty%s%s", "", "");
  if (o->n_arguments == 2) usage_error(o, "\"%s\" is one argument too many%s", text, "");
  o->argument[o->n_arguments++] = text;
}

/* What excludes each other, once all is known. */
static void check_options(Options *o) {
  if (o->quiet && o->verbose) usage_error(o, "--quiet and --verbose exclude each other%s%s", "", "");
  if (o->json + o->text + (o->html != NULL) > 1)
    usage_error(o, "--json, --text and --html exclude each other%s%s", "", "");
  if (o->source && o->weights_given && o->compile.weights == WEIGHTS_EMBED)
    usage_error(o, "--source %s is for weights in a file; --weights embed puts them into the program%s", o->source, "");
  if (o->source && !o->weights_given && strcmp(o->source, "memory") != 0 && strcmp(o->source, "map") != 0)
    o->compile.weights = WEIGHTS_STREAM;
  if (o->for_streaming && o->compile.weights != WEIGHTS_STREAM)
    usage_error(o, "%s is for --weights stream%s", o->for_streaming, "");
  if (o->all_tasks && o->compile.n_tasks)
    usage_error(o, "--task all is all of them; do not name \"%s\" as well%s", o->compile.tasks[0], "");
}

void options_read(Options *o, Command command, int argc, char **argv) {
  bool ended = false;
  o->compile.target = target_find("native");
  o->threads = 1;
  o->runs = 20;
  for (int i = 0; i < argc; i++) {
    if (!ended && strcmp(argv[i], "--") == 0)
      ended = true;
    else if (!ended && argv[i][0] == '-' && argv[i][1])
      read_option(o, command, argv, &i);
    else
      add_argument(o, argv[i]);
  }
  check_options(o);
  if (!o->compile.stream_buffer) o->compile.stream_buffer = STREAM_BUFFER;
  if (o->tune) o->compile.tuning = tuning_read(o->ctx, o->tune, o->compile.target);
  o->compile.model = o->argument[0];
}
