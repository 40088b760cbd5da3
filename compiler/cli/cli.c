/* Chooses the command. */
#include "cli/cli.h"

#include "pipeline.h"

#include <string.h>

static void run_compile(Ctx *c, void *arg) {
  char **argv = arg;
  CompileOptions o = {.model = argv[2], .out = argv[4], .target = target_find(argv[5] ? argv[5] : "native")};
  ctx_set_file(c, o.model);
  pipeline_compile(c, &o);
}

int cli_main(int argc, char **argv) {
  if (argc < 5) return EXIT_USAGE;
  Ctx *c = ctx_new();
  ExitStatus s = ctx_run(c, run_compile, argv);
  for (size_t i = 0; i < ctx_message_count(c); i++) fprintf(stderr, "%s\n", ctx_message(c, i));
  ctx_free(c);
  return (int)s;
}
