/* What the fuzz targets share: one input is worked on in a Ctx of its own, and may end in any of the documented ways; a
 * crash, a leak, an endless loop or a message about the compiler's own mistake is a find. */
#ifndef MOECC_FUZZ_H
#define MOECC_FUZZ_H

#include "compiler.h"

typedef struct {
  const uint8_t *data;
  size_t bytes;
} FuzzInput;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Runs body with a FuzzInput. */
void fuzz_run(void (*body)(Ctx *c, void *input), const uint8_t *data, size_t bytes);
/* The input as a file: a path that is good until the Ctx is freed. */
const char *fuzz_file(Ctx *c, const FuzzInput *input);

#endif
