/* The output folder: whole or not at all. Files are written into a sibling folder, which takes the place of the old one
 * at the end. */
#ifndef MOECC_EMIT_FOLDER_H
#define MOECC_EMIT_FOLDER_H

#include "compiler.h"

typedef struct Folder Folder;
/* Locks the name, clears what a killed run left, refuses a folder with files that are not in its MANIFEST. */
Folder *folder_begin(Ctx *c, const char *path);
/* Starts a file; writes go to it until the next folder_file or folder_commit. Every failure leaves through
 * ctx_fail_status with EXIT_MACHINE, and nothing of the new folder remains. */
void folder_file(Folder *f, const char *name);
void folder_write(Folder *f, const void *data, size_t bytes);
void folder_text(Folder *f, const char *name, const char *text); /* a whole file */
void folder_commit(Folder *f);                                   /* MANIFEST, sync, exchange, remove the old one */

#endif
