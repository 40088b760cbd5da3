/* The text form of a graph: what is read is printed, the print is read, and printed as before. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "../../frontends/text/text.h"

static char *text_of(Ctx *c, Graph *g) {
  Text t = {.ctx = c};
  text_print_styled(g, &t, &(TextStyle){.full = INT64_MAX, .types = true, .node_names = true});
  return t.text;
}

static void round_trip(Ctx *c, void *arg) {
  const FuzzInput *in = arg;
  char *text = ctx_strndup(c, (const char *)in->data, in->bytes);
  char *once = text_of(c, onnx_text_read(c, text, "fuzz"));
  ctx_set_file(c, "internal error: the print of a graph is refused");
  char *twice = text_of(c, onnx_text_read(c, once, "print"));
  if (strcmp(once, twice) == 0) return;
  fprintf(stderr, "printed as\n%s\nand then as\n%s\n", once, twice);
  abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  fuzz_run(round_trip, data, bytes);
  return 0;
}
