/* y[r][c] = x[c][r] for `count` matrices: x's elements follow each other along r, y's along c.
 * Element (r, c) is at x + r + c * xs and y + r * ys + c. Where matrices lie says the table `outer`: the number of outer
 * loops, then per loop its length, x's stride and y's stride. Goes by square tiles so that both sides stay in the cache.
 */
#include "defaults.h"
/* holes */
#define KERNEL transpose_f32
#define T float
/* end holes */

enum { KERNEL_TILE = 16 };

typedef struct {
  const T *x;
  T *y;
  size_t rows, columns, bands;
  int64_t xs, ys;
  const int64_t *outer;
} KERNEL_args;

static void KERNEL_tile(const T *x, T *y, size_t rows, size_t columns, int64_t xs, int64_t ys)
{
  T tile[KERNEL_TILE * KERNEL_TILE];
  for (size_t c = 0; c < columns; c++)
    for (size_t r = 0; r < rows; r++) tile[r * KERNEL_TILE + c] = x[(int64_t)r + (int64_t)c * xs];
  for (size_t r = 0; r < rows; r++)
    for (size_t c = 0; c < columns; c++) y[(int64_t)r * ys + (int64_t)c] = tile[r * KERNEL_TILE + c];
}

/* An item is a band of KERNEL_TILE rows of one matrix. */
static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread)
{
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    size_t matrix = item / a->bands, row = item % a->bands * KERNEL_TILE;
    const T *x = a->x + row;
    T *y = a->y + (int64_t)row * a->ys;
    for (int64_t d = a->outer[0] - 1; d >= 0; d--) {
      const int64_t *loop = a->outer + 1 + d * 3;
      int64_t index = (int64_t)(matrix % (size_t)loop[0]);
      matrix /= (size_t)loop[0];
      x += index * loop[1];
      y += index * loop[2];
    }
    size_t rows = a->rows - row < KERNEL_TILE ? a->rows - row : KERNEL_TILE;
    for (size_t c = 0; c < a->columns; c += KERNEL_TILE) {
      size_t columns = a->columns - c < KERNEL_TILE ? a->columns - c : KERNEL_TILE;
      KERNEL_tile(x + (int64_t)c * a->xs, y + c, rows, columns, a->xs, a->ys);
    }
  }
}

void KERNEL(const moecc_pool *pool, const T *x, T *y, size_t rows, size_t columns, int64_t xs, int64_t ys, size_t count,
            const int64_t *outer)
{
  if (rows == 0 || columns == 0) return;
  size_t bands = (rows + KERNEL_TILE - 1) / KERNEL_TILE;
  const KERNEL_args a = {x, y, rows, columns, bands, xs, ys, outer};
  moecc_for(pool, KERNEL_part, &a, count * bands);
}
