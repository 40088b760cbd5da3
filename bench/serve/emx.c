/* Gets code of emx-onnx-cgen ready, generated under the name `generated`: WEIGHTS INPUTS are the arguments. */
#include <stdlib.h>

#include "ports.h"
#include "serve.h"

_Bool generated_load(const char *path);

const char *serve_load(int count, char **arguments) {
  const char *wrong;
  if (count < 3) return "arguments are WEIGHTS INPUTS";
  wrong = ports_open(arguments[2]);
  if (wrong) return wrong;
  return generated_load(arguments[1]) ? NULL : "the weights could not be read";
}
