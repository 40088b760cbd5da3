/* y[r][n] = EPILOGUE(sum over k of x[r][k] * w[k][n]), float32.
 * x: rows of k contiguous elements, x_row apart. w: panels of NR columns, each k times NR elements, the last filled up
 * with zeros. y: rows of n contiguous elements, y_row apart. Any rows, k, n >= 1.
 * Rows go in tiles of at most MR, evenly cut; `block` rows (what L2 holds) share a panel before the next one is read.
 * Threads share out pairs of a row block and a panel.
 */
#include "defaults.h"
/* holes */
#define KERNEL matmul_f32
#define MR     6
#define NR     16
static inline vf EPILOGUE(vf acc, const moecc_operand *o, size_t row, size_t col, size_t lanes) {
  (void)o;
  (void)row;
  (void)col;
  (void)lanes;
  return acc;
}
/* end holes */

typedef struct {
  const float *x, *w;
  float *y;
  const moecc_operand *o;
  size_t x_row, y_row, rows, k, n, panels, blocks;
} KERNEL_args;

static void KERNEL_tile(size_t rows, const float *const *x, size_t k, const float *w, const float *ahead, float *out) {
  moecc_tile(MR, NR / VF_LANES, rows, x, 1, k, w, NR, ahead, out, NR);
}

/* The epilogue of a tile of sums, and its columns that exist. */
static void KERNEL_finish(const KERNEL_args *a, const float *sum, size_t row, size_t rows, size_t col) {
  size_t columns = a->n - col < NR ? a->n - col : NR;
  for (size_t r = 0; r < rows; r++, sum += NR) {
    float *y = a->y + (row + r) * a->y_row + col;
    size_t c = 0;
    for (; c + VF_LANES <= columns; c += VF_LANES)
      vf_store(y + c, EPILOGUE(vf_load(sum + c), a->o, row + r, col + c, VF_LANES));
    if (c < columns) vf_store_some(y + c, EPILOGUE(vf_load(sum + c), a->o, row + r, col + c, columns - c), columns - c);
  }
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  float sum[MR * NR];
  (void)thread;
  for (size_t i = begin; i < end; i++) {
    size_t panel = i % a->panels, first = moecc_cut(a->rows, a->blocks, i / a->panels);
    size_t rows = moecc_cut(a->rows, a->blocks, i / a->panels + 1) - first, tiles = (rows + MR - 1) / MR;
    const float *w = a->w + panel * a->k * NR, *next = i + 1 < end ? a->w + (i + 1) % a->panels * a->k * NR : NULL;
    for (size_t t = 0; t < tiles; t++) {
      size_t row = first + moecc_cut(rows, tiles, t), count = first + moecc_cut(rows, tiles, t + 1) - row;
      const float *x[MR];
      for (size_t r = 0; r < count; r++) x[r] = a->x + (row + r) * a->x_row;
      KERNEL_tile(count, x, a->k, w, moecc_ahead(w, next, a->k, NR, t), sum);
      KERNEL_finish(a, sum, row, count, panel * NR);
    }
  }
}

void KERNEL(const moecc_pool *pool, const float *x, const float *w, float *y, const moecc_operand *o, size_t x_row,
            size_t y_row, size_t rows, size_t k, size_t n, size_t block) {
  size_t panels = (n + NR - 1) / NR, blocks = (rows + block - 1) / block;
  const KERNEL_args a = {x, w, y, o, x_row, y_row, rows, k, n, panels, blocks};
  moecc_for(pool, KERNEL_part, &a, blocks * panels);
}
