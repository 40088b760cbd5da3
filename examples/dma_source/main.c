/* Runs a network whose weights a DMA engine brings from flash, piece by piece through two buffers, and compares the
 * result with that of weights in memory. Then the engine breaks down once, as hardware does.
 *
 *   main nano_weights.bin
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dma_source.h"
#include "nano.h"

enum { TIMEOUT_MS = 2000 };

static float image[NANO_IMAGE_LEN], expected[NANO_DEPTH_LEN], depth[NANO_DEPTH_LEN];
/* All memory that streaming takes: values, and the two buffers. The flash is larger than this. */
static _Alignas(MOECC_ALIGN) unsigned char arena[NANO_DEPTH_ARENA_BYTES(1) + NANO_STREAM_BYTES];

static int fail(const char *what, moecc_status status, const moecc_fault *fault) {
  fprintf(stderr, "%s: %s%s%s\n", what, moecc_status_text(status), fault && fault->unit ? ": " : "",
          fault && fault->unit ? fault->unit->name : "");
  return EXIT_FAILURE;
}

/* What the flash holds; a firmware would have programmed it. */
static void *read_flash(const char *path, moecc_file *file) {
  (void)moecc_file_load(file, path, NULL, 0, NULL, NULL); /* says how large it is */
  size_t bytes = (size_t)file->bytes;
  void *flash = aligned_alloc(MOECC_ALIGN, (bytes + MOECC_ALIGN - 1) / MOECC_ALIGN * MOECC_ALIGN);
  moecc_status status = moecc_file_load(file, path, flash, bytes, NULL, NULL);
  if (status == MOECC_OK) return flash;
  (void)fail(path, status, NULL);
  free(flash);
  return NULL;
}

static moecc_status run_once(nano *net, const moecc_source *weights, float *to) {
  const moecc_options options = {.timeout_ms = TIMEOUT_MS};
  moecc_status status = nano_init(net, NANO_TASK_DEPTH, arena, sizeof arena, weights, &options);
  return status == MOECC_OK ? nano_depth(net, image, to) : status;
}

/* The result is that of weights in memory, and has not been there before. */
static int same(const char *when) {
  int is = memcmp(depth, expected, sizeof depth) == 0;
  printf("%s: %s\n", when, is ? "the same bits as with weights in memory" : "ANOTHER RESULT");
  memset(depth, 0, sizeof depth);
  return is;
}

static int compare(nano *net, Engine *engine, const moecc_source *source) {
  moecc_status status = run_once(net, source, depth);
  if (status != MOECC_OK) return fail("from flash", status, &net->c.weights.fault);
  printf("%lu transfers, %zu bytes of memory\n", engine->transfers, sizeof arena);
  if (!same("from flash")) return EXIT_FAILURE;

  engine_interrupts_off(engine);
  engine->breaks_at = engine->transfers + 10;
  engine_interrupts_on(engine);
  status = nano_depth(net, image, depth);
  if (status != MOECC_ERROR_TIMEOUT) return fail("from a broken engine", status, NULL);
  printf("the engine breaks down: %s: %s\n", moecc_status_text(status), net->c.weights.fault.unit->name);

  status = nano_depth(net, image, depth);
  if (status != MOECC_OK) return fail("afterwards", status, &net->c.weights.fault);
  return same("afterwards") ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv) {
  static nano net;
  static DmaSource source;
  static Engine engine;
  moecc_file file;
  void *flash = read_flash(argc > 1 ? argv[1] : "nano_weights.bin", &file);
  if (!flash) return EXIT_FAILURE;
  for (size_t i = 0; i < NANO_IMAGE_LEN; i++) image[i] = (float)(i % 256) / 256;
  moecc_status status = run_once(&net, &file.source, expected);
  nano_close(&net);
  if (status != MOECC_OK) return fail("from memory", status, NULL);

  dma_source_open(&source, &engine, file.bytes);
  if (!engine_power_on(&engine, flash, (size_t)file.bytes, dma_source_interrupt, &source)) return EXIT_FAILURE;
  int result = compare(&net, &engine, &source.source);
  nano_close(&net);
  engine_power_off(&engine);
  moecc_file_close(&file);
  free(flash);
  return result;
}
