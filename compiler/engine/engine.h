/* Runs an emitted folder on this machine: its driver is built by clang or gcc, or by libtcc in a child process. */
#ifndef MOECC_ENGINE_ENGINE_H
#define MOECC_ENGINE_ENGINE_H

#include "compiler.h"

typedef enum { ENGINE_CC, ENGINE_TCC } EngineKind;
typedef struct Engine Engine;

/* Builds the driver of an emitted folder; name: the network's identifier; traced: with MOECC_TRACE. With ENGINE_CC what
 * was built is kept in the user's cache folder, keyed by content. Leaves with EXIT_MACHINE if there is no compiler or it
 * fails. */
Engine *engine_open(Ctx *c, const char *folder, const char *name, EngineKind kind, bool traced);
/* Runs the driver with arguments (NULL behind the last), its stdout being appended to *out (NULL: goes to ours).
 * Returns the driver's exit status; its messages go to our stderr. */
int engine_run(Engine *e, const char *const *arguments, Text *out);

/* The compiler of this machine: $CC if it works, else clang, else gcc; *version (may be NULL) gets what it says of
 * itself. Leaves with EXIT_MACHINE if there is none. */
const char *engine_compiler(Ctx *c, Text *version);
/* What a folder's Makefile says after "VARIABLE := "; "" if it does not. */
const char *folder_setting(Ctx *c, const char *folder, const char *variable);
/* The network's identifier: its file N_internal.h in the folder's MANIFEST has it. Leaves if there is none. */
const char *folder_network(Ctx *c, const char *folder);

#endif
