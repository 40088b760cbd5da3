/* moecc_rows.h: rows that lie anywhere, for kernels that go over elements one by one. A table `outer` says where rows
 * begin: the number of loops around them, outermost first, then for each loop its length and the strides of the
 * kernel's operands. Work items are blocks of a long row, or a group of short ones. Offsets are in the table's units.
 */
#ifndef MOECC_ROWS_H
#define MOECC_ROWS_H

#include <stddef.h>
#include <stdint.h>

enum { MOECC_ROWS_LOOPS = 8 };

typedef struct {
  size_t rows, n;       /* rows of n elements */
  size_t block;         /* elements in an item, at most */
  size_t blocks, group; /* blocks in a row; rows in an item, if that is 1 */
  const int64_t *outer;
} moecc_rows;

/* An item: rows row … row + rows - 1, of each the elements from … to - 1. */
typedef struct {
  size_t row, rows, from, to;
} moecc_rows_item;

/* Any rows and n but 0. */
static inline moecc_rows moecc_rows_of(size_t rows, size_t n, size_t block, const int64_t *outer) {
  const size_t blocks = (n + block - 1) / block;
  const moecc_rows r = {rows, n, block, blocks, blocks == 1 ? block / n : 1, outer};
  return r;
}

static inline size_t moecc_rows_items(const moecc_rows *r) { return (r->rows + r->group - 1) / r->group * r->blocks; }

static inline moecc_rows_item moecc_rows_at(const moecc_rows *r, size_t item) {
  moecc_rows_item i = {item / r->blocks * r->group, r->group, item % r->blocks * r->block, r->n};
  if (r->rows - i.row < i.rows) i.rows = r->rows - i.row;
  if (r->n - i.from > r->block) i.to = i.from + r->block;
  return i;
}

/* The loops' counters at a row, and how far from its first element each operand is there. */
static inline void moecc_rows_seek(const int64_t *outer, size_t operands, size_t row, int64_t *index, int64_t *at) {
  for (size_t k = 0; k < operands; k++) at[k] = 0;
  for (int64_t d = outer[0] - 1; d >= 0; d--) {
    const int64_t *loop = outer + 1 + d * (int64_t)(1 + operands);
    index[d] = (int64_t)(row % (size_t)loop[0]);
    row /= (size_t)loop[0];
    for (size_t k = 0; k < operands; k++) at[k] += index[d] * loop[1 + k];
  }
}

/* The same for the next row. */
static inline void moecc_rows_next(const int64_t *outer, size_t operands, int64_t *index, int64_t *at) {
  for (int64_t d = outer[0] - 1; d >= 0; d--) {
    const int64_t *loop = outer + 1 + d * (int64_t)(1 + operands);
    const int64_t back = ++index[d] == loop[0] ? loop[0] : 0;
    for (size_t k = 0; k < operands; k++) at[k] += (1 - back) * loop[1 + k];
    if (back == 0) return;
    index[d] = 0;
  }
}

#endif
