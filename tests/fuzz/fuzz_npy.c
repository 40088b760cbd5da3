/* An .npy file, as the compiler and as an emitted network's driver read it. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "io/io.h"
#include "moecc_npy.h"

static void read_array(Ctx *c, void *arg) {
  const char *path = fuzz_file(c, arg);
  moecc_npy head;
  FILE *f = fopen(path, "rb");
  if (!f) ctx_fail_status(c, EXIT_MACHINE, "no file");
  bool good = !moecc_npy_read_head(f, &head);
  (void)fclose(f);
  size_t bytes = good ? moecc_npy_bytes(&head) : 0;
  if (good && bytes < 1 << 20) {
    char line[64];
    moecc_npy found;
    moecc_npy_text(&head, line, sizeof line);
    (void)moecc_npy_read(path, &head, ctx_alloc(c, bytes + 1), &found);
  }
  Tensor *t = npy_read(c, path);
  double sum = 0;
  for (int64_t i = 0; i < tensor_count(t); i++) sum += tensor_number(t, i) > 0;
  if (sum < 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  fuzz_run(read_array, data, bytes);
  return 0;
}
