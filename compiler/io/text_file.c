/* Files of text, read and written as a whole. */
#include "io/io.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *text_file_read(Ctx *c, const char *path, size_t *bytes) {
  FILE *f = fopen(path, "rbe");
  if (!f) ctx_fail_status(c, EXIT_MACHINE, "cannot read \"%s\": %s", path, strerror(errno));
  Text t = {.ctx = c};
  char block[16384];
  for (size_t n = sizeof block; n == sizeof block;) { /* a short read is the end, or an error */
    n = fread(block, 1, sizeof block, f);
    text_write(&t, block, n);
  }
  bool bad = ferror(f) != 0;
  (void)fclose(f);
  if (bad) ctx_fail_status(c, EXIT_MACHINE, "cannot read \"%s\": it is no file, or the disk fails", path);
  *bytes = t.len;
  return t.text ? t.text : ctx_strdup(c, "");
}

static void remove_file(void *path) { (void)unlink(path); }

FILE *text_file_begin(Ctx *c, const char *path, char **making) {
  struct stat s;
  bool replaced = stat(path, &s) != 0 || S_ISREG(s.st_mode);
  *making = replaced ? ctx_format(c, "%s.%ld", path, (long)getpid()) : NULL;
  FILE *f = fopen(replaced ? *making : path, replaced ? "wbxe" : "wbe");
  if (!f) ctx_fail_status(c, EXIT_MACHINE, "cannot write \"%s\": %s", path, strerror(errno));
  if (replaced) ctx_defer(c, remove_file, *making);
  return f;
}

void text_file_finish(Ctx *c, FILE *f, const char *path, char *making, const char *text) {
  bool bad = fputs(text, f) < 0;
  bad |= fclose(f) != 0;
  if (bad || (making && rename(making, path) != 0))
    ctx_fail_status(c, EXIT_MACHINE, "cannot write \"%s\": %s", path, strerror(errno));
  if (making) ctx_undefer(c, remove_file, making);
}
