/* A PNG or JPEG file as an input of a network. */
#include "fuzz.h"

#include "io/io.h"

static void read_picture(Ctx *c, void *arg) {
  const int64_t dims[] = {1, 3, 8, 8};
  const char *path = fuzz_file(c, arg);
  if (!picture_is(path)) return;
  Picture *p = picture_read(c, path);
  ImageInput format = image_input_parse(c, "x", "image resize=crop", 4, dims);
  (void)image_to_tensor(c, p, &format, DT_F32, 4, dims);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  fuzz_run(read_picture, data, bytes);
  return 0;
}
