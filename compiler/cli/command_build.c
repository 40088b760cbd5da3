/* moecc build: runs the compiler that a folder was made for, through its Makefile. */
#include "cli/cli.h"

#include "engine/process.h"
#include "progress.h"

#include <string.h>
#include <sys/stat.h>

static bool works(Ctx *c, const char *program) {
  Text unused = {.ctx = c};
  return process_run(c, (const char *const[]){program, "--version", NULL}, &unused, true) == 0;
}

/* Debian's package of a cross compiler PREFIX-gcc is gcc-PREFIX. */
static const char *package_of(Ctx *c, const char *compiler) {
  size_t n = strlen(compiler);
  if (n > 4 && strcmp(compiler + n - 4, "-gcc") == 0) return ctx_format(c, "gcc-%.*s", (int)n - 4, compiler);
  return compiler;
}

/* The folder's own compiler if that is a cross compiler, else this machine's. */
static const char *choose_compiler(Ctx *c, const char *folder) {
  const char *compiler = folder_setting(c, folder, "CC");
  if (!*compiler || strcmp(compiler, "cc") == 0) return engine_compiler(c, NULL);
  if (!works(c, compiler))
    ctx_fail_status(c, EXIT_MACHINE, "%s is missing, for which \"%s\" was made: install the package %s", compiler,
                    folder, package_of(c, compiler));
  return compiler;
}

static void print_product(Ctx *c, const char *folder, const char *name) {
  const char *path = ctx_format(c, "%s/build/%s", folder, name);
  struct stat s;
  if (stat(path, &s) == 0) printf("%s: %lld bytes\n", path, (long long)s.st_size);
}

void command_build(Options *o) {
  Ctx *c = o->ctx;
  const char *folder = o->argument[0], *network = folder_network(c, folder), *compiler = choose_compiler(c, folder);
  if (!works(c, "make")) ctx_fail_status(c, EXIT_MACHINE, "make is missing: install the package make");
  progress_step("building with %s", strlen(compiler) < 40 ? compiler : "the compiler");
  Text messages = {.ctx = c};
  const char *const line[] = {"make", "-C", folder, "-j2", ctx_format(c, "CC=%s", compiler), NULL};
  int status = process_run(c, line, &messages, true);
  progress_pause();
  if (o->verbose || status != 0) fputs(messages.text ? messages.text : "", stderr);
  if (status != 0) ctx_fail_status(c, EXIT_MACHINE, "%s does not build \"%s\"", compiler, folder);
  printf("built with %s:\n", compiler);
  print_product(c, folder, ctx_format(c, "lib%s.a", network));
  print_product(c, folder, ctx_format(c, "%s_main", network));
}
