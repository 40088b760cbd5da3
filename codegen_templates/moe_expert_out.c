/* One expert's last layer on its queue: y[token[first + r]] += weight[first + r] * (hidden[r] W + b), float32.
 * hidden: `count` dense rows of k. w: panels of NR columns as for matmul. b: n elements or NULL. y: rows of n, y_row
 * apart; a token is at most once in a queue, so rows never meet. Any sizes >= 1. Tiles and threads as in matmul.
 */
#include "defaults.h"
/* holes */
#define KERNEL moe_expert_out_f32
#define MR     6
#define NR     16
/* end holes */

typedef struct {
  const float *hidden, *w, *b, *weight;
  const uint32_t *token;
  float *y;
  size_t count, k, n, y_row, panels, blocks;
} KERNEL_args;

MOECC_APART void KERNEL_tile(size_t rows, const float *const *x, size_t k, const float *w, moecc_fetch fetch,
                             float *out) {
  moecc_tile_on(MR, NR / VF_LANES, rows, x, 1, k, w, NR, fetch, 0, out, NR);
}

/* Adds a tile of sums, weighted, to its tokens' rows. */
static void KERNEL_finish(const KERNEL_args *a, const float *sum, size_t row, size_t rows, size_t col) {
  const size_t columns = a->n - col < NR ? a->n - col : NR;
  for (size_t r = 0; r < rows; r++, sum += NR) {
    float *y = a->y + a->token[row + r] * a->y_row + col;
    const vf weight = vf_set1(a->weight[row + r]);
    for (size_t c = 0; c < columns; c += VF_LANES) {
      const size_t lanes = columns - c < VF_LANES ? columns - c : VF_LANES;
      const vf bias = a->b ? vf_load_some(a->b + col + c, lanes) : vf_zero();
      vf_store_some(y + c, vf_fma(weight, vf_load(sum + c) + bias, vf_load_some(y + c, lanes)), lanes);
    }
  }
}

/* Brings the tokens' rows of a tile near, while it is computed: they lie anywhere. */
static void KERNEL_touch(const KERNEL_args *a, size_t row, size_t rows, size_t col) {
  for (size_t r = row; r < row + rows; r++) {
    const float *y = a->y + a->token[r] * a->y_row;
    for (size_t c = col; c < col + NR && c < a->n; c += MOECC_LINE) moecc_touch(y + c);
  }
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  float sum[MR * NR];
  (void)thread;
  for (size_t i = begin; i < end; i++) {
    size_t panel = i % a->panels, first = moecc_cut(a->count, a->blocks, i / a->panels);
    size_t rows = moecc_cut(a->count, a->blocks, i / a->panels + 1) - first, tiles = (rows + MR - 1) / MR;
    const float *w = a->w + panel * a->k * NR,
                *next = moecc_next_panel(a->w, a->k * NR, a->panels, i, end, a->panels * a->blocks);
    for (size_t t = 0; t < tiles; t++) {
      size_t row = first + moecc_cut(rows, tiles, t), here = first + moecc_cut(rows, tiles, t + 1) - row;
      const float *x[MR] = {0};
      for (size_t r = 0; r < here; r++) x[r] = a->hidden + (row + r) * a->k;
      KERNEL_touch(a, row, here, panel * NR);
      KERNEL_tile(here, x, a->k, w, moecc_fetch_wide(w, next, a->k, NR, t, tiles), sum);
      KERNEL_finish(a, sum, row, here, panel * NR);
    }
  }
}

void KERNEL(const moecc_pool *pool, const float *hidden, const float *w, const float *b, const uint32_t *token,
            const float *weight, float *y, size_t first, size_t count, size_t k, size_t n, size_t y_row, size_t block) {
  size_t panels = (n + NR - 1) / NR, blocks = (count + block - 1) / block;
  const KERNEL_args a = {hidden, w, b, weight + first, token + first, y, count, k, n, y_row, panels, blocks};
  moecc_for(pool, KERNEL_part, &a, blocks * panels);
}
