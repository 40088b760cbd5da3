/* Runs an emitted folder on this machine: its driver is built by clang or gcc, or by libtcc in a child process. */
#ifndef MOECC_ENGINE_ENGINE_H
#define MOECC_ENGINE_ENGINE_H

#include "compiler.h"

typedef enum { ENGINE_CC, ENGINE_TCC } EngineKind;
typedef struct Engine Engine;

/* A folder in the system's temporary folder, removed with the Ctx; mode 0700. */
const char *engine_temporary(Ctx *c);
/* Builds the driver of an emitted folder; name: the network's identifier. With ENGINE_CC what was built is kept in the
 * user's cache folder, keyed by content. Leaves with EXIT_MACHINE if there is no compiler or it fails. */
Engine *engine_open(Ctx *c, const char *folder, const char *name, EngineKind kind);
/* Runs the driver with arguments (NULL behind the last), its stdout being appended to *out (NULL: goes to ours). Returns
 * the driver's exit status; its messages go to our stderr. */
/* Runs a program of the system with our stdout and stderr; its exit status, or -1 if it does not start. */
int engine_program(Ctx *c, const char *const *argv);
int engine_run(Engine *e, const char *const *arguments, Text *out);

#endif
