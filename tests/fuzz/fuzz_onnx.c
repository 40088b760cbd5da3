/* A model's bytes through everything but the writing: reading, tasks, all passes (folding runs kernels), lowering, and
 * the plan of memory. */
#include "fuzz.h"

#include "lower/lower.h"
#include "schedule/schedule.h"

enum { LARGEST = 64 * 1024 };

static void compile(Ctx *c, void *arg) {
  const FuzzInput *in = arg;
  Graph *model = onnx_read_memory(c, in->data, in->bytes, NULL);
  tasks_find(model, NULL, 0);
  Graph *g = tasks_join(model, NULL, 0);
  PassOptions options = {0};
  passes_run(g, &options);
  ctx_stop_on_errors(c);
  Program *p = program_new(c, g, target_find("x86-64-v3"));
  program_lower(p);
  (void)schedule_make(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  if (bytes <= LARGEST) fuzz_run(compile, data, bytes);
  return 0;
}
