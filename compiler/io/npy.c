/* .npy files as tensors. The format is taken apart by runtime/moecc_npy.c, which the emitted driver uses as well. */
#include "io/io.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "moecc_npy.h"

static const struct {
  DType dtype;
  char name[4];
} types[] = {
    {DT_F32, "f4"}, {DT_F64, "f8"}, {DT_F16, "f2"}, {DT_BF16, "V2"}, {DT_I8, "i1"},  {DT_U8, "u1"},   {DT_I16, "i2"},
    {DT_U16, "u2"}, {DT_I32, "i4"}, {DT_U32, "u4"}, {DT_I64, "i8"},  {DT_U64, "u8"}, {DT_BOOL, "b1"},
};
enum { TYPES = sizeof types / sizeof *types };

const char *dtype_npy(DType t) {
  for (size_t i = 0; i < TYPES; i++)
    if (types[i].dtype == t) return types[i].name;
  return NULL;
}

static DType dtype_from_npy(const char *name) {
  for (size_t i = 0; i < TYPES; i++)
    if (strcmp(types[i].name, name) == 0) return types[i].dtype;
  return DT_NONE;
}

static void close_file(void *f) { (void)fclose(f); }

/* The bytes from here to the file's end; -1 if it is not a regular file. */
static int64_t bytes_left(FILE *f) {
  struct stat st;
  long at = ftell(f);
  if (at < 0 || fstat(fileno(f), &st) != 0 || !S_ISREG(st.st_mode)) return -1;
  return (int64_t)st.st_size - at;
}

/* Booleans are 0 or 1 everywhere else; a file may say otherwise. */
static void clean_booleans(uint8_t *p, size_t n) {
  for (size_t i = 0; i < n; i++) p[i] = p[i] != 0;
}

Tensor *npy_read(Ctx *c, const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f) ctx_fail(c, NULL, "%s: cannot be opened: %s", path, strerror(errno));
  ctx_defer(c, close_file, f);
  moecc_npy head;
  const char *wrong = moecc_npy_read_head(f, &head);
  if (wrong) ctx_fail(c, NULL, "%s: %s", path, wrong);
  size_t bytes = moecc_npy_bytes(&head);
  int64_t left = bytes_left(f), dim[MAX_RANK];
  if (left < 0) ctx_fail(c, NULL, "%s: not a regular file", path);
  if ((uint64_t)left != bytes)
    ctx_fail(c, NULL, "%s: its shape needs %zu bytes, the file has %lld", path, bytes, (long long)left);
  for (int i = 0; i < head.rank; i++) dim[i] = (int64_t)head.dim[i];
  Tensor *t = tensor_new(c, dtype_from_npy(head.type), head.rank, dim, NULL);
  if (bytes > 0 && fread(tensor_writable(t), 1, bytes, f) != bytes) ctx_fail(c, NULL, "%s: reading failed", path);
  if (t->dtype == DT_BOOL) clean_booleans(tensor_writable(t), bytes);
  ctx_undefer(c, close_file, f);
  (void)fclose(f);
  return t;
}

void npy_write(Ctx *c, const char *path, const Tensor *t) {
  moecc_npy head = {.rank = t->rank};
  const char *name = dtype_npy(t->dtype);
  if (!name) ctx_fail(c, NULL, "%s: %s cannot be written as .npy", path, dtype_name(t->dtype));
  memcpy(head.type, name, strlen(name) + 1);
  for (int i = 0; i < t->rank; i++) head.dim[i] = (uint64_t)t->dim[i];
  const char *wrong = moecc_npy_write(path, &head, t->data);
  if (wrong) ctx_fail_status(c, EXIT_MACHINE, "%s: %s", path, wrong);
}
