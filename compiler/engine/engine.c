/* Builds and runs drivers.
 *
 * With a compiler of the system the driver becomes a program in the user's cache folder; what it was made of decides its
 * name there, so that the same network is built once. libtcc compiles within a child process, and runs there: whatever a
 * driver does, this process goes on.
 */
#include "engine/engine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libtcc.h>
#include <limits.h>
#include <poll.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

struct Engine {
  Ctx *ctx;
  EngineKind kind;
  const char *folder, *name;
  const char *program; /* ENGINE_CC */
  const char **source; size_t n_sources, cap_sources;
};

/* ---- folders ---- */

static void remove_tree(void *arg) {
  const char *path = arg;
  DIR *d = opendir(path);
  if (!d) {
    (void)unlink(path);
    return;
  }
  for (struct dirent *entry; (entry = readdir(d));) {
    char inner[PATH_MAX];
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name) >= (int)sizeof inner) continue;
    if (entry->d_type == DT_DIR) remove_tree(inner);
    else (void)unlink(inner);
  }
  (void)closedir(d);
  (void)rmdir(path);
}

const char *engine_temporary(Ctx *c) {
  const char *base = getenv("TMPDIR");
  char *path = ctx_format(c, "%s/moecc-XXXXXX", base && *base ? base : "/tmp");
  if (!mkdtemp(path)) ctx_fail_status(c, EXIT_MACHINE, "cannot make a temporary folder \"%s\": %s", path, strerror(errno));
  ctx_defer(c, remove_tree, path);
  return path;
}

/* ~/.cache/moecc, or a temporary folder where there is no such place. */
static const char *cache_folder(Ctx *c) {
  const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  char *path = base && *base ? ctx_strdup(c, base) : home && *home ? ctx_format(c, "%s/.cache", home) : NULL;
  if (!path) return engine_temporary(c);
  (void)mkdir(path, 0777);
  path = ctx_format(c, "%s/moecc", path);
  if (mkdir(path, 0777) != 0 && errno != EEXIST) return engine_temporary(c);
  return path;
}

static char *read_file(Ctx *c, const char *path, size_t *bytes) {
  FILE *f = fopen(path, "rb");
  if (!f) ctx_fail_status(c, EXIT_MACHINE, "cannot read \"%s\": %s", path, strerror(errno));
  Text t = {.ctx = c};
  char block[16384];
  for (size_t n; (n = fread(block, 1, sizeof block, f)) > 0;) text_write(&t, block, n);
  (void)fclose(f);
  *bytes = t.len;
  return t.text ? t.text : ctx_strdup(c, "");
}

/* ---- processes ---- */

/* Reads what a child writes until it ends; returns its exit status, 128 + signal if one killed it. */
static int collect(Ctx *c, pid_t child, int fd, Text *out) {
  char block[4096];
  for (ssize_t n; (n = read(fd, block, sizeof block)) != 0;) {
    if (n > 0) text_write(out, block, (size_t)n);
    else if (errno != EINTR) break;
  }
  (void)close(fd);
  int status = 0;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) ctx_fail_status(c, EXIT_MACHINE, "lost a child process: %s", strerror(errno));
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Runs a program; its stdout (and stderr, if asked) go to *out, or stay ours where out is NULL. -1: it does not start. */
static int run_program(Ctx *c, const char *const *argv, Text *out, bool errors_too) {
  int pipes[2];
  if (out && pipe2(pipes, O_CLOEXEC) != 0) ctx_fail_status(c, EXIT_MACHINE, "no pipe: %s", strerror(errno));
  posix_spawn_file_actions_t actions;
  (void)posix_spawn_file_actions_init(&actions);
  if (out) (void)posix_spawn_file_actions_adddup2(&actions, pipes[1], 1);
  if (out && errors_too) (void)posix_spawn_file_actions_adddup2(&actions, pipes[1], 2);
  (void)fflush(NULL);
  pid_t child;
  int error = posix_spawnp(&child, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
  (void)posix_spawn_file_actions_destroy(&actions);
  if (out) (void)close(pipes[1]);
  if (error) {
    if (out) (void)close(pipes[0]);
    return -1;
  }
  Text unused = {.ctx = c};
  return collect(c, child, out ? pipes[0] : open("/dev/null", O_RDONLY | O_CLOEXEC), out ? out : &unused);
}

/* ---- the system's compiler ---- */

static const char *find_compiler(Ctx *c, Text *version) {
  static const char *const names[] = {"clang", "clang-21", "clang-20", "clang-19", "clang-18", "clang-17", "clang-16", "gcc", "cc"};
  const char *wanted = getenv("CC");
  for (size_t i = 0; i <= sizeof names / sizeof *names; i++) {
    const char *name = i == 0 ? wanted : names[i - 1];
    if (!name || !*name || strchr(name, ' ')) continue;
    version->len = 0;
    if (run_program(c, (const char *const[]){name, "--version", NULL}, version, true) == 0) return ctx_strdup(c, name);
  }
  ctx_fail_status(c, EXIT_MACHINE, "no C compiler: install clang or gcc, or use --engine tcc");
}

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static void list_sources(Engine *e) {
  DIR *d = opendir(e->folder);
  if (!d) ctx_fail_status(e->ctx, EXIT_MACHINE, "cannot read the folder \"%s\": %s", e->folder, strerror(errno));
  for (struct dirent *entry; (entry = readdir(d));) {
    size_t n = strlen(entry->d_name);
    if (n < 3 || entry->d_name[n - 2] != '.' || !strchr("chS", entry->d_name[n - 1])) continue;
    e->source = ctx_grow(e->ctx, e->source, e->n_sources, &e->cap_sources, sizeof *e->source);
    e->source[e->n_sources++] = ctx_format(e->ctx, "%s/%s", e->folder, entry->d_name);
  }
  (void)closedir(d);
  if (e->n_sources) qsort(e->source, e->n_sources, sizeof *e->source, by_name);
}

static bool is_header(const char *path) { return path[strlen(path) - 1] == 'h'; }

/* The target's flags as the folder's Makefile has them. */
static const char *target_flags(Engine *e) {
  size_t bytes;
  const char *makefile = read_file(e->ctx, ctx_format(e->ctx, "%s/Makefile", e->folder), &bytes);
  const char *line = strstr(makefile, "\nTARGET_FLAGS := ");
  if (!line) return "";
  line += 17;
  return ctx_strndup(e->ctx, line, strcspn(line, "\n"));
}

static uint64_t source_hash(Engine *e, const Text *version, const char *flags) {
  uint64_t h = hash_bytes(version->text, version->len, 3);
  h = hash_bytes(flags, strlen(flags), h);
  for (size_t i = 0; i < e->n_sources; i++) {
    size_t bytes;
    const char *text = read_file(e->ctx, e->source[i], &bytes);
    h = hash_bytes(text, bytes, h);
  }
  return h;
}

static void build_with_compiler(Engine *e) {
  Ctx *c = e->ctx;
  Text version = {.ctx = c}, messages = {.ctx = c};
  const char *compiler = find_compiler(c, &version), *flags = target_flags(e);
  const char *cache = cache_folder(c);
  e->program = ctx_format(c, "%s/%s-%016llx", cache, e->name, (unsigned long long)source_hash(e, &version, flags));
  if (access(e->program, X_OK) == 0) return;
  const char *making = ctx_format(c, "%s.%ld", e->program, (long)getpid());
  const char **argv = ctx_array(c, e->n_sources + 64, sizeof *argv);
  size_t n = 0;
  argv[n++] = compiler;
  static const char *const fixed[] = {"-std=gnu99", "-O3", "-ffp-contract=fast", "-w", "-o"};
  for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) argv[n++] = fixed[i];
  argv[n++] = making;
  for (char *save = NULL, *flag = strtok_r(ctx_strdup(c, flags), " ", &save); flag && n < 40; flag = strtok_r(NULL, " ", &save))
    argv[n++] = flag;
  argv[n++] = ctx_format(c, "-I%s", e->folder);
  for (size_t i = 0; i < e->n_sources; i++)
    if (!is_header(e->source[i])) argv[n++] = e->source[i];
  argv[n++] = "-lm";
  argv[n++] = "-lpthread";
  if (run_program(c, argv, &messages, true) != 0)
    ctx_fail_status(c, EXIT_MACHINE, "%s does not compile the network's C:\n%s", compiler, messages.text ? messages.text : "");
  if (rename(making, e->program) != 0) ctx_fail_status(c, EXIT_MACHINE, "cannot write \"%s\": %s", e->program, strerror(errno));
}

/* ---- libtcc ---- */

static void print_message(void *opaque, const char *message) {
  (void)opaque;
  fprintf(stderr, "tcc: %s\n", message);
}

/* In the child: compiles all and runs main. */
static _Noreturn void run_tcc(const Engine *e, int argc, char **argv) {
  TCCState *s = tcc_new();
  if (!s) _exit(EXIT_MACHINE);
  tcc_set_error_func(s, NULL, print_message);
  tcc_set_options(s, "-w");
  tcc_set_output_type(s, TCC_OUTPUT_MEMORY);
  tcc_add_include_path(s, e->folder);
  for (size_t i = 0; i < e->n_sources; i++)
    if (e->source[i][strlen(e->source[i]) - 1] == 'c' && tcc_add_file(s, e->source[i]) != 0) _exit(EXIT_MACHINE);
  tcc_add_library(s, "m");
  tcc_add_library(s, "pthread");
  int status = tcc_run(s, argc, argv);
  fflush(NULL);
  _exit(status);
}

static int run_in_child(Engine *e, const char **argv, int argc, Text *out) {
  int pipes[2];
  if (out && pipe2(pipes, O_CLOEXEC) != 0) ctx_fail_status(e->ctx, EXIT_MACHINE, "no pipe: %s", strerror(errno));
  (void)fflush(NULL);
  pid_t child = fork();
  if (child < 0) ctx_fail_status(e->ctx, EXIT_MACHINE, "cannot start a process: %s", strerror(errno));
  if (child == 0) {
    if (out) (void)dup2(pipes[1], 1);
    run_tcc(e, argc, (char **)(uintptr_t)argv);
  }
  if (out) (void)close(pipes[1]);
  Text unused = {.ctx = e->ctx};
  return collect(e->ctx, child, out ? pipes[0] : open("/dev/null", O_RDONLY | O_CLOEXEC), out ? out : &unused);
}

/* ---- engines ---- */

Engine *engine_open(Ctx *c, const char *folder, const char *name, EngineKind kind) {
  Engine *e = ctx_alloc(c, sizeof *e);
  *e = (Engine){.ctx = c, .kind = kind, .folder = folder, .name = name};
  list_sources(e);
  if (kind == ENGINE_CC) build_with_compiler(e);
  return e;
}

int engine_run(Engine *e, const char *const *arguments, Text *out) {
  Ctx *c = e->ctx;
  size_t n = 0;
  while (arguments[n]) n++;
  const char **argv = ctx_array(c, n + 4, sizeof *argv);
  argv[0] = e->kind == ENGINE_CC ? e->program : e->name;
  for (size_t i = 0; i < n; i++) argv[i + 1] = arguments[i];
  const char *pack = ctx_format(c, "%s/%s_weights.bin", e->folder, e->name);
  if (access(pack, R_OK) == 0) {
    argv[++n] = "--weights";
    argv[++n] = pack;
  }
  int status = e->kind == ENGINE_CC ? run_program(c, argv, out, false) : run_in_child(e, argv, (int)n + 1, out);
  if (status >= 128) ctx_fail_status(c, EXIT_MACHINE, "the compiled network was ended by signal %d", status - 128);
  if (status < 0) ctx_fail_status(c, EXIT_MACHINE, "cannot run \"%s\"", argv[0]);
  return status;
}

int engine_program(Ctx *c, const char *const *argv) { return run_program(c, argv, NULL, false); }
