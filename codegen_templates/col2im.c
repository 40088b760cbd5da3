/* Overlapping blocks added up to a picture: y[p] = sum over the block's positions b, ascending, of x[b][l], l being the
 * block whose position b lies on p. x: [channels (samples times channels), block, blocks], y: [channels, o0, o1, o2],
 * packed. `shape`, three numbers each (leading ones for fewer axes): picture o, blocks along it, block, stride,
 * dilation, padding before.
 */
#include "defaults.h"
/* holes */
#define KERNEL col2im_f32
#define T      float
/* end holes */

typedef struct {
  const T *x;
  T *y;
  const int64_t *shape;
} KERNEL_args;

/* Which block has its position b on element p of an axis; -1: none. */
static int64_t KERNEL_block(const int64_t *axis, int64_t p, int64_t b) {
  const int64_t from = p + axis[15] - b * axis[12];
  return from < 0 || from % axis[9] != 0 || from / axis[9] >= axis[3] ? -1 : from / axis[9];
}

static T KERNEL_element(const T *x, const int64_t *shape, int64_t p, int64_t q, int64_t r) {
  const int64_t *blocks = shape + 3, *k = shape + 6;
  T acc = 0;
  for (int64_t i = 0; i < k[0]; i++) {
    const int64_t at = KERNEL_block(shape, p, i);
    for (int64_t j = 0; j < k[1] && at >= 0; j++) {
      const int64_t bt = KERNEL_block(shape + 1, q, j);
      for (int64_t l = 0; l < k[2] && bt >= 0; l++) {
        const int64_t ct = KERNEL_block(shape + 2, r, l), row = (i * k[1] + j) * k[2] + l;
        if (ct >= 0) acc += x[((row * blocks[0] + at) * blocks[1] + bt) * blocks[2] + ct];
      }
    }
  }
  return acc;
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const int64_t *o = a->shape, *n = o + 3, *k = o + 6;
  (void)thread;
  for (size_t c = begin; c < end; c++) {
    const T *x = a->x + (int64_t)c * n[0] * n[1] * n[2] * k[0] * k[1] * k[2];
    T *y = a->y + (int64_t)c * o[0] * o[1] * o[2];
    for (int64_t p = 0; p < o[0]; p++)
      for (int64_t q = 0; q < o[1]; q++)
        for (int64_t r = 0; r < o[2]; r++) *y++ = KERNEL_element(x, o, p, q, r);
  }
}

void KERNEL(const moecc_pool *pool, const T *x, T *y, size_t channels, const int64_t *shape) {
  const KERNEL_args a = {x, y, shape};
  moecc_for(pool, KERNEL_part, &a, channels);
}
