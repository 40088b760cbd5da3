/* One expert's first layer on its queue: hidden[r] = COMBINE(x[token[first + r]] W + b, hidden[r]), float32.
 * x: rows of k contiguous elements, x_row apart, read in place. w: panels of NR columns as for matmul. b: n elements or
 * NULL. hidden: `count` rows of n, hidden_row apart. COMBINE is the activation; for a second layer that multiplies the first one's
 * result it uses `before`. Any sizes >= 1. Tiles and threads as in matmul.
 */
#include "defaults.h"
/* holes */
#define KERNEL moe_expert_in_f32
#define MR     6
#define NR     16
static inline vf COMBINE(vf sum, vf before) {
  (void)before;
  return vf_gelu(sum);
}
/* end holes */

typedef struct {
  const float *x, *w, *b;
  const uint32_t *token;
  float *hidden;
  size_t x_row, count, k, n, hidden_row, panels, blocks;
} KERNEL_args;

MOECC_APART void KERNEL_tile(size_t rows, const float *const *x, size_t k, const float *w, moecc_fetch fetch,
                             float *out) {
  moecc_tile_on(MR, NR / VF_LANES, rows, x, 1, k, w, NR, fetch, 0, out, NR);
}

/* Bias and activation of a tile of sums, and its columns that exist. */
static void KERNEL_finish(const KERNEL_args *a, const float *sum, size_t row, size_t rows, size_t col) {
  const size_t columns = a->n - col < NR ? a->n - col : NR;
  for (size_t r = 0; r < rows; r++, sum += NR) {
    float *h = a->hidden + (row + r) * a->hidden_row + col;
    for (size_t c = 0; c < columns; c += VF_LANES) {
      const size_t lanes = columns - c < VF_LANES ? columns - c : VF_LANES;
      const vf bias = a->b ? vf_load_some(a->b + col + c, lanes) : vf_zero();
      vf_store_some(h + c, COMBINE(vf_load(sum + c) + bias, vf_load_some(h + c, lanes)), lanes);
    }
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
      for (size_t r = 0; r < here; r++) x[r] = a->x + a->token[row + r] * a->x_row;
      KERNEL_tile(here, x, a->k, w, moecc_fetch_wide(w, next, a->k, NR, t, tiles), sum);
      KERNEL_finish(a, sum, row, here, panel * NR);
    }
  }
}

void KERNEL(const moecc_pool *pool, const float *x, const float *w, const float *b, const uint32_t *token,
            float *hidden, size_t first, size_t count, size_t x_row, size_t k, size_t n, size_t hidden_row,
            size_t block) {
  size_t panels = (n + NR - 1) / NR, blocks = (count + block - 1) / block;
  const KERNEL_args a = {x, w, b, token + first, hidden, x_row, count, k, n, hidden_row, panels, blocks};
  moecc_for(pool, KERNEL_part, &a, blocks * panels);
}
