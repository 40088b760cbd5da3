/* Builds and runs drivers.
 *
 * With a compiler of the system the driver becomes a program in the user's cache folder; what it was made of decides
 * its name there, so that the same network is built once. libtcc compiles within a child process, and runs there:
 * whatever a driver does, this process goes on.
 */
#include "engine/engine.h"

#include "engine/process.h"
#include "io/io.h"
#include "lower/lower.h"
#include "progress.h"

#include <errno.h>
#include <libtcc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct Engine {
  Ctx *ctx;
  EngineKind kind;
  const char *folder, *name;
  const char *program; /* ENGINE_CC */
  const char **source;
  size_t n_sources, cap_sources; /* .c, .h, .S, and the .bin that a .S includes */
  bool assembly;
  bool traced; /* built with MOECC_TRACE */
};

/* ---- what is in the folder ---- */

static const char *read_manifest(Ctx *c, const char *folder) {
  const char *path = ctx_format(c, "%s/MANIFEST", folder);
  size_t bytes;
  if (access(path, F_OK) != 0)
    ctx_fail(c, NULL, "\"%s\" is not a folder that moecc compile wrote: it has no MANIFEST", folder);
  return text_file_read(c, path, &bytes);
}

static const char *next_line(const char *line) {
  const char *end = strchr(line, '\n');
  return end ? end + 1 : line + strlen(line);
}

const char *folder_network(Ctx *c, const char *folder) {
  static const char end[] = "_internal.h\n";
  for (const char *line = read_manifest(c, folder); *line; line = next_line(line)) {
    size_t n = (size_t)(next_line(line) - line), tail = sizeof end - 1;
    if (n > tail && strncmp(line + n - tail, end, tail) == 0 && !memchr(line, '/', n))
      return ctx_strndup(c, line, n - tail);
  }
  ctx_fail(c, NULL, "\"%s\" is not a folder that moecc compile wrote: its MANIFEST names no network", folder);
}

const char *folder_setting(Ctx *c, const char *folder, const char *variable) {
  size_t bytes;
  const char *line =
      strstr(text_file_read(c, ctx_format(c, "%s/Makefile", folder), &bytes), ctx_format(c, "\n%s := ", variable));
  if (!line) return "";
  line += strlen(variable) + 5;
  return ctx_strndup(c, line, strcspn(line, "\n"));
}

static bool ends_with(const char *s, const char *end) {
  size_t n = strlen(s), m = strlen(end);
  return n >= m && strcmp(s + n - m, end) == 0;
}

static void add_source(Engine *e, const char *name) {
  e->source = ctx_grow(e->ctx, e->source, e->n_sources, &e->cap_sources, sizeof *e->source);
  e->source[e->n_sources++] = ctx_format(e->ctx, "%s/%s", e->folder, name);
}

/* What the MANIFEST lists, so that a stranger's file in the folder does no harm. */
static void list_sources(Engine *e) {
  for (const char *line = read_manifest(e->ctx, e->folder); *line; line = next_line(line)) {
    const char *name = ctx_strndup(e->ctx, line, strcspn(line, "\n"));
    bool assembly = ends_with(name, ".S");
    if (strchr(name, '/') || !(ends_with(name, ".c") || ends_with(name, ".h") || assembly)) continue;
    add_source(e, name);
    e->assembly |= assembly;
  }
  if (e->assembly) add_source(e, ctx_format(e->ctx, "%s_weights.bin", e->name));
}

/* ---- the system's compiler ---- */

const char *engine_compiler(Ctx *c, Text *version) {
  static const char *const names[] = {"clang",    "clang-21", "clang-20", "clang-19", "clang-18",
                                      "clang-17", "clang-16", "gcc",      "cc"};
  const char *wanted = getenv("CC");
  Text unused = {.ctx = c};
  if (!version) version = &unused;
  for (size_t i = 0; i <= sizeof names / sizeof *names; i++) {
    const char *name = i == 0 ? wanted : names[i - 1];
    if (!name || !*name || strchr(name, ' ')) continue;
    version->len = 0;
    if (process_run(c, (const char *const[]){name, "--version", NULL}, version, true) == 0) return ctx_strdup(c, name);
  }
  ctx_fail_status(c, EXIT_MACHINE, "no C compiler: install the package clang or gcc, or use --engine tcc");
}

/* ~/.cache/moecc, or a temporary folder where there is no such place. */
static const char *cache_folder(Ctx *c) {
  const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  char *path = base && *base == '/' ? ctx_strdup(c, base) : home && *home ? ctx_format(c, "%s/.cache", home) : NULL;
  if (!path) return temporary_folder(c);
  (void)mkdir(path, 0700);
  path = ctx_format(c, "%s/moecc", path);
  if (mkdir(path, 0700) != 0 && errno != EEXIST) return temporary_folder(c);
  return access(path, W_OK | X_OK) == 0 ? path : temporary_folder(c);
}

static uint64_t source_hash(Engine *e, const Text *version, const char *flags) {
  uint64_t h = hash_bytes(version->text, version->len, 3);
  h = hash_bytes(flags, strlen(flags), h);
  for (size_t i = 0; i < e->n_sources; i++) {
    size_t bytes;
    const char *text = text_file_read(e->ctx, e->source[i], &bytes), *name = strrchr(e->source[i], '/');
    h = hash_bytes(name, strlen(name) + 1, h);
    h = hash_bytes(text, bytes, h);
  }
  return h;
}

static void check_machine(Engine *e) {
  const char *compiler = folder_setting(e->ctx, e->folder, "CC"), *native = target_find("native")->compiler;
  if (!*compiler || strcmp(compiler, "cc") == 0 || strcmp(compiler, native) == 0) return;
  ctx_fail_status(e->ctx, EXIT_MACHINE,
                  "\"%s\" was compiled for another machine, whose compiler is %s: use --engine tcc here, or "
                  "moecc build and run it there",
                  e->folder, compiler);
}

static void remove_file(void *path) { (void)unlink(path); }

/* The compiler's arguments, NULL behind the last. */
static const char **compiler_line(Engine *e, const char *compiler, const char *flags, const char *output) {
  static const char *const fixed[] = {"-std=gnu99", "-O3", "-ffp-contract=fast", "-w", "-o"};
  enum { MOST_FLAGS = 32 };
  Ctx *c = e->ctx;
  const char **argv = ctx_array(c, e->n_sources + MOST_FLAGS + 16, sizeof *argv);
  size_t n = 0;
  argv[n++] = compiler;
  for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) argv[n++] = fixed[i];
  argv[n++] = output;
  for (char *save = NULL, *flag = strtok_r(ctx_strdup(c, flags), " ", &save); flag && n < MOST_FLAGS;
       flag = strtok_r(NULL, " ", &save))
    argv[n++] = flag;
  argv[n++] = ctx_format(c, "-I%s", e->folder);
  for (size_t i = 0; i < e->n_sources; i++)
    if (ends_with(e->source[i], ".c") || ends_with(e->source[i], ".S")) argv[n++] = e->source[i];
  argv[n++] = "-lm";
  argv[n++] = "-lpthread";
  return argv;
}

static void build_with_compiler(Engine *e) {
  Ctx *c = e->ctx;
  check_machine(e);
  Text version = {.ctx = c}, messages = {.ctx = c};
  const char *compiler = engine_compiler(c, &version), *flags = folder_setting(c, e->folder, "TARGET_FLAGS");
  if (e->traced) flags = ctx_format(c, "%s -DMOECC_TRACE", flags);
  uint64_t hash = source_hash(e, &version, flags);
  e->program = ctx_format(c, "%s/%s-%016llx", cache_folder(c), e->name, (unsigned long long)hash);
  if (access(e->program, X_OK) == 0) return;
  char *making = ctx_format(c, "%s.%ld", e->program, (long)getpid());
  progress_step("compiling the C with %s", strlen(compiler) < 40 ? compiler : "$CC");
  ctx_defer(c, remove_file, making);
  if (process_run(c, compiler_line(e, compiler, flags, making), &messages, true) != 0)
    ctx_fail_status(c, EXIT_MACHINE, "%s does not compile the network's C:\n%s", compiler,
                    messages.text ? messages.text : "");
  if (rename(making, e->program) != 0)
    ctx_fail_status(c, EXIT_MACHINE, "cannot write \"%s\": %s", e->program, strerror(errno));
  ctx_undefer(c, remove_file, making);
  progress_pause();
}

/* ---- libtcc ---- */

static void print_message(void *opaque, const char *message) {
  (void)opaque;
  fprintf(stderr, "tcc: %s\n", message);
}

typedef struct {
  const Engine *engine;
  int argc;
  const char **argv;
} Call;

/* In the child: compiles all and runs main. */
static void run_tcc(void *arg) {
  const Call *call = arg;
  const Engine *e = call->engine;
  TCCState *s = tcc_new();
  if (!s) _exit(EXIT_MACHINE);
  tcc_set_error_func(s, NULL, print_message);
  tcc_set_options(s, "-w");
  tcc_set_output_type(s, TCC_OUTPUT_MEMORY);
  tcc_add_include_path(s, e->folder);
  if (e->traced) tcc_define_symbol(s, "MOECC_TRACE", "1");
  for (size_t i = 0; i < e->n_sources; i++)
    if (ends_with(e->source[i], ".c") && tcc_add_file(s, e->source[i]) != 0) _exit(EXIT_MACHINE);
  tcc_add_library(s, "m");
  tcc_add_library(s, "pthread");
  int status = tcc_run(s, call->argc, (char **)(uintptr_t)call->argv);
  fflush(NULL);
  _exit(status);
}

static void check_tcc(const Engine *e) {
  if (e->assembly)
    ctx_fail_status(e->ctx, EXIT_MACHINE,
                    "\"%s\" has its weights in assembly, which tcc cannot link: use --engine cc, or compile with "
                    "--weights file",
                    e->folder);
}

/* ---- engines ---- */

Engine *engine_open(Ctx *c, const char *folder, const char *name, EngineKind kind, bool traced) {
  Engine *e = ctx_alloc(c, sizeof *e);
  *e = (Engine){.ctx = c, .kind = kind, .folder = folder, .name = name, .traced = traced};
  list_sources(e);
  if (kind == ENGINE_CC)
    build_with_compiler(e);
  else
    check_tcc(e);
  return e;
}

static _Noreturn void killed(Engine *e, int number) {
  ctx_fail_status(e->ctx, EXIT_MACHINE, "the compiled network was ended by signal %d (%s)%s", number, strsignal(number),
                  number == SIGILL ? ": is its target this machine?" : "");
}

int engine_run(Engine *e, const char *const *arguments, Text *out) {
  Ctx *c = e->ctx;
  size_t n = 0;
  while (arguments[n]) n++;
  const char **argv = ctx_array(c, n + 4, sizeof *argv);
  argv[0] = e->kind == ENGINE_CC ? e->program : e->name;
  for (size_t i = 0; i < n; i++) argv[i + 1] = arguments[i];
  const char *pack = ctx_format(c, "%s/%s_weights.bin", e->folder, e->name);
  if (access(pack, F_OK) == 0) {
    argv[++n] = "--weights";
    argv[++n] = pack;
  }
  Call call = {e, (int)n + 1, argv};
  int status = e->kind == ENGINE_CC ? process_run(c, argv, out, false) : process_fork(c, run_tcc, &call, out);
  if (status >= 128) killed(e, status - 128);
  if (status < 0) ctx_fail_status(c, EXIT_MACHINE, "cannot run \"%s\"", argv[0]);
  return status;
}
