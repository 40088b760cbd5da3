/* y[r][n] = EPILOGUE(sum over k of x[r][k] * w[k][n]), float32.
 * x: rows of k contiguous elements, x_row apart. w: panels of NR columns, each k times NR elements, the last filled up
 * with zeros. y: rows of n contiguous elements, y_row apart. Any rows, k, n >= 1.
 * Rows go in tiles of at most MR, evenly cut; `block` rows by `depth` elements of x (what L2 holds) share a panel
 * before the next one is read. With depth < k the sums wait in y for the next piece of k. Threads share out pairs of a
 * row block and a panel.
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
  size_t x_row, y_row, rows, k, n, depth, panels, blocks;
} KERNEL_args;

MOECC_APART void KERNEL_tile(size_t rows, const float *const *x, size_t k, const float *w, moecc_fetch fetch, int more,
                             float *out, size_t out_row) {
  moecc_tile_on(MR, NR / VF_LANES, rows, x, 1, k, w, NR, fetch, more, out, out_row);
}

/* The epilogue of a tile of sums, and its columns that exist; sum may be y itself. */
static void KERNEL_finish(const KERNEL_args *a, const float *sum, size_t sum_row, size_t row, size_t rows, size_t col) {
  size_t columns = a->n - col < NR ? a->n - col : NR;
  for (size_t r = 0; r < rows; r++, sum += sum_row) {
    float *y = a->y + (row + r) * a->y_row + col;
    size_t c = 0;
    for (; c + VF_LANES <= columns; c += VF_LANES)
      vf_store(y + c, EPILOGUE(vf_load(sum + c), a->o, row + r, col + c, VF_LANES));
    if (c < columns) vf_store_some(y + c, EPILOGUE(vf_load(sum + c), a->o, row + r, col + c, columns - c), columns - c);
  }
}

/* The first `columns` of a tile's rows. */
static void KERNEL_move(const float *from, size_t from_row, float *to, size_t to_row, size_t rows, size_t columns) {
  for (size_t r = 0; r < rows; r++, from += from_row, to += to_row)
    for (size_t c = 0; c < columns; c += VF_LANES) {
      const size_t lanes = columns - c < VF_LANES ? columns - c : VF_LANES;
      vf_store_some(to + c, vf_load_some(from + c, lanes), lanes);
    }
}

/* Elements from … from + depth - 1 of k for one tile; the sums so far are in y, and stay there until the last piece. */
static void KERNEL_piece(const KERNEL_args *a, size_t from, size_t depth, size_t row, size_t rows, size_t col,
                         const float *w, moecc_fetch fetch) {
  const size_t columns = a->n - col < NR ? a->n - col : NR;
  const int more = from > 0, last = from + depth == a->k, direct = columns == NR && (more || !last);
  float sum[MR * NR], *y = a->y + row * a->y_row + col, *out = direct ? y : sum;
  const size_t out_row = direct ? a->y_row : NR;
  const float *x[MR] = {0};
  for (size_t r = 0; r < rows; r++) x[r] = a->x + (row + r) * a->x_row + from;
  if (more && !direct) KERNEL_move(y, a->y_row, sum, NR, rows, columns);
  KERNEL_tile(rows, x, depth, w, fetch, more, out, out_row);
  if (last)
    KERNEL_finish(a, out, out_row, row, rows, col);
  else if (!direct)
    KERNEL_move(sum, NR, y, a->y_row, rows, columns);
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t from = 0; from < a->k; from += a->depth) {
    const size_t depth = a->k - from < a->depth ? a->k - from : a->depth;
    for (size_t i = begin; i < end; i++) {
      const size_t panel = i % a->panels, first = moecc_cut(a->rows, a->blocks, i / a->panels);
      const size_t rows = moecc_cut(a->rows, a->blocks, i / a->panels + 1) - first, tiles = (rows + MR - 1) / MR;
      const float *w0 = a->w + from * NR, *w = w0 + panel * a->k * NR;
      const float *next = moecc_next_panel(w0, a->k * NR, a->panels, i, end, a->panels * a->blocks);
      if (i + 1 == end && from + depth < a->k) next = a->w + (begin % a->panels * a->k + from + depth) * NR;
      for (size_t t = 0; t < tiles; t++) {
        const size_t row = first + moecc_cut(rows, tiles, t), here = first + moecc_cut(rows, tiles, t + 1) - row;
        KERNEL_piece(a, from, depth, row, here, panel * NR, w, moecc_fetch_wide(w, next, depth, NR, t, tiles));
      }
    }
  }
}

void KERNEL(const moecc_pool *pool, const float *x, const float *w, float *y, const moecc_operand *o, size_t x_row,
            size_t y_row, size_t rows, size_t k, size_t n, size_t depth, size_t block) {
  size_t panels = (n + NR - 1) / NR, blocks = (rows + block - 1) / block;
  const KERNEL_args a = {x, w, y, o, x_row, y_row, rows, k, n, depth, panels, blocks};
  moecc_for(pool, KERNEL_part, &a, blocks * panels);
}
