/* y[b][r][n] = EPILOGUE(sum over k of x[b][r][k] * w[b][k][n]), float32, both operands computed.
 * x: rows of k contiguous elements, x_row apart. w: any strides. y: dense. Batch dimensions lie as the table `batch`
 * says: their number, then for each its length and the strides of x and w. Any sizes >= 1. A work item is a panel of NR
 * columns of one batch: packed into the thread's scratch (scratch_size floats each), then multiplied with all rows. The
 * epilogue's row counts through the batches.
 */
#include "defaults.h"
/* holes */
#define KERNEL bmm_f32
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
  float *y, *scratch;
  const moecc_operand *o;
  const int64_t *batch;
  size_t scratch_size, rows, k, n, x_row, panels;
  int64_t w_row, w_column;
} KERNEL_args;

MOECC_APART void KERNEL_tile(size_t rows, const float *const *x, size_t k, const float *w, float *out) {
  const moecc_fetch none = {w, 0, 0};
  moecc_tile_on(MR, NR / VF_LANES, rows, x, 1, k, w, NR, none, 0, out, NR);
}

/* Columns col … of w as a panel, filled up with zeros. */
static void KERNEL_pack(const KERNEL_args *a, const float *w, size_t col, float *panel) {
  size_t columns = a->n - col < NR ? a->n - col : NR;
  w += (int64_t)col * a->w_column;
  for (size_t k = 0; k < a->k; k++, w += a->w_row, panel += NR) {
    const float *from = w;
    for (size_t c = 0; c < columns; c++, from += a->w_column) panel[c] = *from;
    for (size_t c = columns; c < NR; c++) panel[c] = 0.0f;
  }
}

/* The epilogue of a tile of sums, and its columns that exist; row counts through the batches. */
static void KERNEL_finish(const KERNEL_args *a, const float *sum, size_t row, size_t rows, size_t col) {
  size_t columns = a->n - col < NR ? a->n - col : NR;
  for (size_t r = 0; r < rows; r++, sum += NR) {
    float *y = a->y + (row + r) * a->n + col;
    size_t c = 0;
    for (; c + VF_LANES <= columns; c += VF_LANES)
      vf_store(y + c, EPILOGUE(vf_load(sum + c), a->o, row + r, col + c, VF_LANES));
    if (c < columns) vf_store_some(y + c, EPILOGUE(vf_load(sum + c), a->o, row + r, col + c, columns - c), columns - c);
  }
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  float sum[MR * NR], *panel = a->scratch + thread * a->scratch_size;
  for (size_t i = begin; i < end; i++) {
    size_t b = i / a->panels, col = i % a->panels * NR, left = b, tiles = (a->rows + MR - 1) / MR;
    const float *x = a->x, *w = a->w;
    for (int64_t d = a->batch[0]; d-- > 0; left /= (size_t)a->batch[1 + 3 * d]) {
      int64_t at = (int64_t)(left % (size_t)a->batch[1 + 3 * d]);
      x += at * a->batch[2 + 3 * d];
      w += at * a->batch[3 + 3 * d];
    }
    KERNEL_pack(a, w, col, panel);
    for (size_t t = 0; t < tiles; t++) {
      size_t row = moecc_cut(a->rows, tiles, t), count = moecc_cut(a->rows, tiles, t + 1) - row;
      const float *at[MR];
      for (size_t r = 0; r < count; r++) at[r] = x + (row + r) * a->x_row;
      KERNEL_tile(count, at, a->k, panel, sum);
      KERNEL_finish(a, sum, b * a->rows + row, count, col);
    }
  }
}

void KERNEL(const moecc_pool *pool, const float *x, const float *w, float *y, const moecc_operand *o, float *scratch,
            size_t scratch_size, const int64_t *batch, size_t batches, size_t rows, size_t k, size_t n, size_t x_row,
            int64_t w_row, int64_t w_column) {
  size_t panels = (n + NR - 1) / NR;
  const KERNEL_args a = {x, w, y, scratch, o, batch, scratch_size, rows, k, n, x_row, panels, w_row, w_column};
  moecc_for(pool, KERNEL_part, &a, batches * panels);
}
