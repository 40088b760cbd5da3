/* y = x, rows of n elements, x going by the step xs (0: one element for all) and y by ys.
 * Rows lie as the table `outer` says: the number of outer loops, then per loop its length, x's stride and y's stride.
 * Any rows and n, also 0.
 */
#include "defaults.h"
/* holes */
#define KERNEL copy_strided_f32
#define T      float
/* end holes */

enum { KERNEL_BLOCK = 4096, KERNEL_LOOPS = 8 };

typedef struct {
  const T *x;
  T *y;
  size_t rows, n, blocks, group;
  int64_t xs, ys;
  const int64_t *outer;
} KERNEL_args;

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    size_t row = item / a->blocks * a->group, from = item % a->blocks * KERNEL_BLOCK;
    size_t rows = a->rows - row < a->group ? a->rows - row : a->group;
    size_t n = a->n - from < KERNEL_BLOCK || a->blocks == 1 ? a->n - from : KERNEL_BLOCK;
    const T *x = a->x + (int64_t)from * a->xs;
    T *y = a->y + (int64_t)from * a->ys;
    int64_t index[KERNEL_LOOPS];
    for (int64_t d = a->outer[0] - 1; d >= 0; d--) {
      const int64_t *loop = a->outer + 1 + d * 3;
      index[d] = (int64_t)(row % (size_t)loop[0]);
      row /= (size_t)loop[0];
      x += index[d] * loop[1];
      y += index[d] * loop[2];
    }
    for (; rows > 0; rows--) {
      for (int64_t i = 0; i < (int64_t)n; i++) y[i * a->ys] = x[i * a->xs];
      for (int64_t d = a->outer[0] - 1; d >= 0; d--) {
        const int64_t *loop = a->outer + 1 + d * 3;
        int64_t back = ++index[d] == loop[0] ? loop[0] : 0;
        x += (1 - back) * loop[1];
        y += (1 - back) * loop[2];
        if (back == 0) break;
        index[d] = 0;
      }
    }
  }
}

void KERNEL(const moecc_pool *pool, const T *x, T *y, size_t rows, size_t n, int64_t xs, int64_t ys,
            const int64_t *outer) {
  if (rows == 0 || n == 0) return;
  size_t blocks = (n + KERNEL_BLOCK - 1) / KERNEL_BLOCK, group = blocks == 1 ? KERNEL_BLOCK / n : 1;
  const KERNEL_args a = {x, y, rows, n, blocks, group, xs, ys, outer};
  moecc_for(pool, KERNEL_part, &a, (rows + group - 1) / group * blocks);
}
