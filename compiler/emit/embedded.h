/* Files that travel inside the compiler: kernel templates and the runtime. */
#ifndef MOECC_EMBEDDED_H
#define MOECC_EMBEDDED_H

#include <stddef.h>

typedef struct {
  const char *path; /* "codegen_templates/softmax.c" */
  const char *text; /* zero-terminated */
  size_t bytes;
} EmbeddedFile;

extern const EmbeddedFile embedded_files[];
extern const size_t n_embedded_files;
const EmbeddedFile *embedded_find(const char *path); /* NULL: none */

#endif
