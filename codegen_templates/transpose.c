/* y[r][c] = x[c][r] for `count` matrices: x's elements follow each other along r, y's along c.
 * Element (r, c) is at x + r + c * xs and y + r * ys + c. Where matrices lie says the table `outer`: the number of
 * outer loops, then per loop its length, x's stride and y's stride. Goes by square tiles so that both sides stay in the
 * cache.
 */
#include "defaults.h"
/* holes */
#define KERNEL transpose_f32
#define T      float
/* end holes */

enum { KERNEL_TILE = 8, KERNEL_ROWS = 64, KERNEL_COLUMNS = 1024 };

typedef struct {
  const T *x;
  T *y;
  size_t rows, columns, bands, strips;
  int64_t xs, ys;
  const int64_t *outer;
} KERNEL_args;

/* A full tile: loads go along x's rows, stores along y's. */
static void KERNEL_tile(const T *x, T *y, int64_t xs, int64_t ys) {
  T tile[KERNEL_TILE][KERNEL_TILE];
  for (size_t c = 0; c < KERNEL_TILE; c++)
    for (size_t r = 0; r < KERNEL_TILE; r++) tile[c][r] = x[(int64_t)c * xs + (int64_t)r];
  for (size_t r = 0; r < KERNEL_TILE; r++)
    for (size_t c = 0; c < KERNEL_TILE; c++) y[(int64_t)r * ys + (int64_t)c] = tile[c][r];
}

/* What is left at the sides, and matrices of few columns (pictures becoming channels-last). */
static void KERNEL_edge(const T *x, T *y, size_t rows, size_t columns, int64_t xs, int64_t ys) {
  for (size_t c = 0; c < columns; c++)
    for (size_t r = 0; r < rows; r++) y[(int64_t)r * ys + (int64_t)c] = x[(int64_t)c * xs + (int64_t)r];
}

static void KERNEL_band(const T *x, T *y, size_t rows, size_t columns, int64_t xs, int64_t ys) {
  size_t r = 0;
  for (; r + KERNEL_TILE <= rows; r += KERNEL_TILE) {
    size_t c = 0;
    for (; c + KERNEL_TILE <= columns; c += KERNEL_TILE)
      KERNEL_tile(x + (int64_t)c * xs + (int64_t)r, y + (int64_t)r * ys + (int64_t)c, xs, ys);
    KERNEL_edge(x + (int64_t)c * xs + (int64_t)r, y + (int64_t)r * ys + (int64_t)c, KERNEL_TILE, columns - c, xs, ys);
  }
  KERNEL_edge(x + r, y + (int64_t)r * ys, rows - r, columns, xs, ys);
}

/* An item is KERNEL_ROWS rows by KERNEL_COLUMNS columns of one matrix. */
static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    size_t strip = item / a->bands, row = item % a->bands * KERNEL_ROWS;
    size_t matrix = strip / a->strips, column = strip % a->strips * KERNEL_COLUMNS;
    size_t rows = a->rows - row < KERNEL_ROWS ? a->rows - row : KERNEL_ROWS;
    size_t columns = a->columns - column < KERNEL_COLUMNS ? a->columns - column : KERNEL_COLUMNS;
    const T *x = a->x + row + (int64_t)column * a->xs;
    T *y = a->y + (int64_t)row * a->ys + column;
    for (int64_t d = a->outer[0] - 1; d >= 0; d--) {
      const int64_t *loop = a->outer + 1 + d * 3;
      int64_t index = (int64_t)(matrix % (size_t)loop[0]);
      matrix /= (size_t)loop[0];
      x += index * loop[1];
      y += index * loop[2];
    }
    if (columns < KERNEL_TILE)
      KERNEL_edge(x, y, rows, columns, a->xs, a->ys);
    else
      KERNEL_band(x, y, rows, columns, a->xs, a->ys);
  }
}

void KERNEL(const moecc_pool *pool, const T *x, T *y, size_t rows, size_t columns, int64_t xs, int64_t ys, size_t count,
            const int64_t *outer) {
  if (rows == 0 || columns == 0) return;
  size_t bands = (rows + KERNEL_ROWS - 1) / KERNEL_ROWS, strips = (columns + KERNEL_COLUMNS - 1) / KERNEL_COLUMNS;
  const KERNEL_args a = {x, y, rows, columns, bands, strips, xs, ys, outer};
  moecc_for(pool, KERNEL_part, &a, count * strips * bands);
}
