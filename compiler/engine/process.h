/* Programs of the system, and temporary folders. */
#ifndef MOECC_ENGINE_PROCESS_H
#define MOECC_ENGINE_PROCESS_H

#include "compiler.h"

#include <sys/types.h>

/* A folder in the system's temporary folder, removed with the Ctx; mode 0700. */
const char *temporary_folder(Ctx *c);

/* Runs a program; its stdout (and stderr, if asked) are appended to *out, or stay ours where out is NULL. Returns its
 * exit status, 128 + the signal that ended it, or -1 if it does not start. An interrupt ends it, and leaves. */
int process_run(Ctx *c, const char *const *argv, Text *out, bool errors_too);
/* The same for body(arg) in a copy of this process; body does not return. */
int process_fork(Ctx *c, void (*body)(void *arg), void *arg, Text *out);

#endif
