/* .npy files (versions 1 to 3, little endian, C order): for the driver, not part of the runtime that networks need. */
#ifndef MOECC_NPY_H
#define MOECC_NPY_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { MOECC_NPY_RANK = 8 };

/* What an array is: NumPy's kind and bytes of its elements ("f4", "i8", "u1", "b1"; "V2" for bfloat16), and its shape.
 */
typedef struct moecc_npy {
  char type[4];
  int rank; /* 0 … MOECC_NPY_RANK */
  uint64_t dim[MOECC_NPY_RANK];
} moecc_npy;

/* Functions return NULL when all went well, else one line that says what is wrong. */

/* Bytes of the elements; SIZE_MAX if they do not fit in memory. */
size_t moecc_npy_bytes(const moecc_npy *a);
/* Reads the head and stops at the elements. */
const char *moecc_npy_read_head(FILE *f, moecc_npy *a);
/* Reads a file whose type and shape must be those of `want`; *found (may be NULL) is what it is, rank -1 if unknown. */
const char *moecc_npy_read(const char *path, const moecc_npy *want, void *data, moecc_npy *found);
const char *moecc_npy_write(const char *path, const moecc_npy *a, const void *data);
/* "f4 [1,3,224,224]", cut to n characters. */
void moecc_npy_text(const moecc_npy *a, char *text, size_t n);

#endif
