/* A .pb file of input data: `moecc run --input x=x.pb`. */
#include "fuzz.h"

#include <stdlib.h>

static void read_tensor(Ctx *c, void *arg) {
  const char *name = NULL;
  Tensor *t = onnx_read_tensor(c, fuzz_file(c, arg), &name);
  double sum = 0; /* every element is there */
  for (int64_t i = 0; i < tensor_count(t); i++) sum += tensor_number(t, i) > 0;
  if (sum < 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  fuzz_run(read_tensor, data, bytes);
  return 0;
}
