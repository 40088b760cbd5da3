/* moecc compile. */
#include "cli/cli.h"

void command_compile(Options *o) {
  if (!o->out) ctx_fail_status(o->ctx, EXIT_USAGE, "compile wants the folder to write: -o DIR");
  ctx_set_file(o->ctx, o->compile.model);
  o->compile.out = o->out;
  pipeline_compile(o->ctx, &o->compile);
}
