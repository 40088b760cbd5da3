/* moecc compile, moecc build, and what run, verify and bench share. */
#include "cli/cli.h"

#include <string.h>
#include <sys/stat.h>

void command_compile(Options *o) {
  if (!o->out) ctx_fail_status(o->ctx, EXIT_USAGE, "compile wants the folder to write: -o DIR");
  ctx_set_file(o->ctx, o->compile.model);
  o->compile.out = o->out;
  pipeline_compile(o->ctx, &o->compile);
}

static bool is_folder(const char *path) {
  struct stat s;
  return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

/* The network's identifier: that of the one file N_internal.h in its MANIFEST. */
static const char *folder_network(Ctx *c, const char *folder) {
  FILE *f = fopen(ctx_format(c, "%s/MANIFEST", folder), "r");
  char line[512];
  const char *name = NULL;
  while (f && !name && fgets(line, sizeof line, f)) {
    char *end = strstr(line, "_internal.h");
    if (end) name = ctx_strndup(c, line, (size_t)(end - line));
  }
  if (f) (void)fclose(f);
  if (!name) ctx_fail_status(c, EXIT_MODEL, "\"%s\" is not a folder that moecc compile wrote: it has no MANIFEST", folder);
  return name;
}

Runnable runnable_open(Options *o, const char *model_or_folder) {
  Ctx *c = o->ctx;
  if (is_folder(model_or_folder))
    return (Runnable){.engine = engine_open(c, model_or_folder, folder_network(c, model_or_folder), o->engine), .folder = model_or_folder};
  ctx_set_file(c, model_or_folder);
  const char *folder = ctx_format(c, "%s/out", engine_temporary(c));
  CompileOptions compile = o->compile;
  compile.model = model_or_folder;
  compile.out = folder;
  if (o->engine == ENGINE_TCC) compile.target = target_find("generic");
  Graph *g = pipeline_compile(c, &compile);
  return (Runnable){.engine = engine_open(c, folder, name_identifier(c, g->name), o->engine), .folder = folder, .graph = g};
}

void command_build(Options *o) {
  const char *folder = o->argument[0];
  (void)folder_network(o->ctx, folder);
  if (engine_program(o->ctx, (const char *const[]){"make", "-s", "-C", folder, NULL}) != 0)
    ctx_fail_status(o->ctx, EXIT_MACHINE, "make fails in \"%s\"", folder);
}
