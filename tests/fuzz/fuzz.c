/* See fuzz.h. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* An input that holds the words itself is no find. */
static bool own_mistake(const FuzzInput *in, const char *message) {
  static const char words[] = "internal error";
  return strstr(message, words) && !memmem(in->data, in->bytes, words, sizeof words - 1);
}

void fuzz_run(void (*body)(Ctx *c, void *input), const uint8_t *data, size_t bytes) {
  FuzzInput input = {data, bytes};
  Ctx *c = ctx_new();
  if (!c) return;
  ExitStatus status = ctx_run(c, body, &input);
  if (status == EXIT_USAGE) abort();
  if (status == EXIT_MODEL && !ctx_message_count(c)) abort();
  for (size_t i = 0; i < ctx_message_count(c); i++)
    if (own_mistake(&input, ctx_message(c, i))) {
      fprintf(stderr, "%s\n", ctx_message(c, i));
      abort();
    }
  ctx_free(c);
}

static void close_file(void *arg) { (void)close((int)(intptr_t)arg); }

const char *fuzz_file(Ctx *c, const FuzzInput *input) {
  int fd = memfd_create("input", MFD_CLOEXEC);
  if (fd < 0) ctx_fail_status(c, EXIT_MACHINE, "no file");
  ctx_defer(c, close_file, (void *)(intptr_t)fd);
  if (write(fd, input->data, input->bytes) != (ssize_t)input->bytes) ctx_fail_status(c, EXIT_MACHINE, "no room");
  (void)lseek(fd, 0, SEEK_SET);
  return ctx_format(c, "/proc/self/fd/%d", fd);
}
