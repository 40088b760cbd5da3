/* Reads and writes .npy files: a magic, a version, the length of a head that is a Python dictionary, the elements. The
 * head is taken apart by its three keys; nothing in the file is believed that has not been checked. */
#include "moecc_npy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_MAX = 4096 };

static size_t element_bytes(const moecc_npy *a) {
  static const char known[][4] = {"f4", "f8", "f2", "V2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"};
  size_t i;
  for (i = 0; i < sizeof known / sizeof *known; i++)
    if (strcmp(a->type, known[i]) == 0) return (size_t)(known[i][1] - '0');
  return 0;
}

size_t moecc_npy_bytes(const moecc_npy *a) {
  size_t bytes = element_bytes(a);
  int i, empty = bytes == 0;
  for (i = 0; i < a->rank; i++) empty |= a->dim[i] == 0;
  if (empty) return 0;
  for (i = 0; i < a->rank; i++) {
    if (a->dim[i] > (SIZE_MAX / 2) / bytes) return SIZE_MAX;
    bytes *= (size_t)a->dim[i];
  }
  return bytes;
}

void moecc_npy_text(const moecc_npy *a, char *text, size_t n) {
  size_t used = 0;
  int i;
  if (n == 0) return;
  text[0] = 0;
  for (i = -1; i <= a->rank && used < n; i++) {
    int more;
    if (i < 0)
      more = snprintf(text, n, "%s [", a->type);
    else if (i == a->rank)
      more = snprintf(text + used, n - used, "]");
    else
      more = snprintf(text + used, n - used, "%s%llu", i ? "," : "", (unsigned long long)a->dim[i]);
    used += more > 0 ? (size_t)more : 0;
  }
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* What stands behind 'key': in the head; NULL if it is not there. */
static const char *value_of(const char *head, const char *key) {
  const char *p = strstr(head, key);
  if (!p) return NULL;
  p += strlen(key);
  p += strspn(p, " ");
  if (*p++ != ':') return NULL;
  return p + strspn(p, " ");
}

static const char *parse_type(const char *head, moecc_npy *a) {
  const char *p = value_of(head, "'descr'");
  char order;
  if (!p || *p != '\'') return "the head has no plain 'descr'";
  order = p[1];
  if (order != '<' && order != '|' && order != '=' && order != '>') return "the head has no plain 'descr'";
  if (!p[2] || !p[3] || p[4] != '\'') return "elements of a type that is not supported";
  a->type[0] = p[2], a->type[1] = p[3], a->type[2] = 0;
  if (element_bytes(a) == 0) return "elements of a type that is not supported";
  if (order == '>' && element_bytes(a) > 1)
    return "the elements are big endian: save them with .astype('<f4') or the like";
  return NULL;
}

static const char *parse_shape(const char *head, moecc_npy *a) {
  const char *p = value_of(head, "'shape'");
  a->rank = 0;
  if (!p || *p != '(') return "the head has no 'shape'";
  p++;
  for (p += strspn(p, " "); *p != ')'; p += strspn(p, " ,")) {
    uint64_t n = 0;
    if (*p < '0' || *p > '9') return "the head's 'shape' is not a tuple of numbers";
    if (a->rank == MOECC_NPY_RANK) return "more than 8 dimensions";
    for (; *p >= '0' && *p <= '9'; p++) {
      if (n > (UINT64_MAX >> 1) / 10 - 9) return "a dimension is too large";
      n = n * 10 + (uint64_t)(*p - '0');
    }
    a->dim[a->rank++] = n;
  }
  return moecc_npy_bytes(a) == SIZE_MAX ? "the array is too large" : NULL;
}

/* Fortran order is C order if at most one dimension is larger than 1. */
static const char *parse_order(const char *head, const moecc_npy *a) {
  const char *p = value_of(head, "'fortran_order'");
  int i, wide = 0;
  if (!p) return "the head has no 'fortran_order'";
  if (strncmp(p, "False", 5) == 0) return NULL;
  for (i = 0; i < a->rank; i++) wide += a->dim[i] > 1;
  return wide > 1 ? "the array is in Fortran order: save numpy.ascontiguousarray of it" : NULL;
}

const char *moecc_npy_read_head(FILE *f, moecc_npy *a) {
  unsigned char start[12];
  char head[HEAD_MAX + 1];
  size_t length;
  const char *wrong;
  memset(a, 0, sizeof *a);
  a->rank = -1;
  if (fread(start, 1, 10, f) != 10 || memcmp(start, "\x93NUMPY", 6) != 0) return "not a .npy file";
  if (start[6] < 1 || start[6] > 3) return "a .npy file of an unknown version";
  length = (size_t)(start[8] | start[9] << 8);
  if (start[6] > 1) {
    if (fread(start + 10, 1, 2, f) != 2) return "the file ends in its head";
    length |= (size_t)start[10] << 16 | (size_t)start[11] << 24;
  }
  if (length > HEAD_MAX) return "the head is too long";
  if (fread(head, 1, length, f) != length) return "the file ends in its head";
  head[length] = 0;
  wrong = parse_type(head, a);
  if (!wrong) wrong = parse_shape(head, a);
  if (!wrong) wrong = parse_order(head, a);
  if (wrong) a->rank = -1;
  return wrong;
}

static int same(const moecc_npy *a, const moecc_npy *b) {
  int i;
  if (strcmp(a->type, b->type) != 0 || a->rank != b->rank) return 0;
  for (i = 0; i < a->rank; i++)
    if (a->dim[i] != b->dim[i]) return 0;
  return 1;
}

static const char *read_elements(FILE *f, const moecc_npy *a, void *data) {
  size_t bytes = moecc_npy_bytes(a);
  if (bytes > 0 && fread(data, 1, bytes, f) != bytes) return ferror(f) ? "reading failed" : "the file ends too early";
  return fgetc(f) == EOF ? NULL : "the file is longer than its shape says";
}

const char *moecc_npy_read(const char *path, const moecc_npy *want, void *data, moecc_npy *found) {
  moecc_npy here;
  const char *wrong;
  FILE *f = fopen(path, "rb");
  if (!found) found = &here;
  found->rank = -1;
  if (!f) return errno == ENOENT ? "there is no such file" : "it cannot be opened";
  wrong = moecc_npy_read_head(f, found);
  if (!wrong && !same(found, want)) wrong = "its type or shape is another";
  if (!wrong) wrong = read_elements(f, found, data);
  (void)fclose(f);
  return wrong;
}

/* ---- writing -------------------------------------------------------------------------------------------------------
 */

/* The dictionary, padded so that the elements start at a multiple of 64. Returns its length. */
static size_t format_head(const moecc_npy *a, char *head, size_t room) {
  char shape[MOECC_NPY_RANK * 22 + 4];
  size_t used = 0, length;
  int i;
  shape[0] = 0;
  for (i = 0; i < a->rank; i++)
    used += (size_t)snprintf(shape + used, sizeof shape - used,
                             a->rank == 1 ? "%llu,"
                             : i          ? ", %llu"
                                          : "%llu",
                             (unsigned long long)a->dim[i]);
  length = (size_t)snprintf(head, room, "{'descr': '%c%s', 'fortran_order': False, 'shape': (%s), }",
                            element_bytes(a) > 1 && a->type[0] != 'V' ? '<' : '|', a->type, shape);
  while ((10 + length + 1) % 64 != 0) head[length++] = ' ';
  head[length++] = '\n';
  return length;
}

const char *moecc_npy_write(const char *path, const moecc_npy *a, const void *data) {
  char head[HEAD_MAX];
  unsigned char start[10] = "\x93NUMPY\x01";
  size_t length = format_head(a, head, sizeof head - 80), bytes = moecc_npy_bytes(a);
  int good;
  FILE *f = fopen(path, "wb");
  if (!f) return "it cannot be created";
  start[8] = (unsigned char)(length & 255), start[9] = (unsigned char)(length >> 8);
  good = fwrite(start, 1, sizeof start, f) == sizeof start && fwrite(head, 1, length, f) == length &&
         (bytes == 0 || fwrite(data, 1, bytes, f) == bytes);
  good &= fclose(f) == 0;
  if (!good) (void)remove(path);
  return good ? NULL : "writing failed: is the disk full?";
}
