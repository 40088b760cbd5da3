/* Transposed convolution in any number of dimensions up to three, any element type, groups, any strides of x:
 *   y[i][g n + c][o] = bias + sum over k, taps t with o + pad - t * step = stride * p of x[i][g k_count + k][p] * w[g
 * k_count + k][c][t] w and y dense; bias may be NULL. The sum runs over the channels, within them over the taps row by
 * row. A work item is one line (x) of one channel's output.
 */
#include "defaults.h"
/* holes */
#define KERNEL conv_transpose_f32
#define T      float
/* end holes */

/* What the table `shape` holds: z, y, x in this order. */
typedef struct {
  int64_t images, groups, k, n, image_stride, channel_stride;
  int64_t in[3], in_stride[3], out[3], taps[3], stride[3], step[3], pad[3];
} KERNEL_shape;

typedef struct {
  const T *x, *w, *bias;
  T *y;
  const KERNEL_shape *s;
} KERNEL_args;

/* The input position that tap t of dimension d takes to output o, or -1. */
static int64_t KERNEL_from(const KERNEL_shape *s, int d, int64_t o, int64_t t) {
  int64_t at = o + s->pad[d] - t * s->step[d];
  return at >= 0 && at % s->stride[d] == 0 && at / s->stride[d] < s->in[d] ? at / s->stride[d] : -1;
}

static T KERNEL_sum(const KERNEL_args *a, const T *x, const T *w, int64_t z, int64_t y, int64_t ox) {
  const KERNEL_shape *s = a->s;
  const int64_t taps = s->taps[0] * s->taps[1] * s->taps[2];
  T sum = 0;
  for (int64_t tz = 0; tz < s->taps[0]; tz++)
    for (int64_t ty = 0; ty < s->taps[1]; ty++)
      for (int64_t tx = 0; tx < s->taps[2]; tx++) {
        int64_t iz = KERNEL_from(s, 0, z, tz), iy = KERNEL_from(s, 1, y, ty), ix = KERNEL_from(s, 2, ox, tx);
        if (iz < 0 || iy < 0 || ix < 0) continue;
        const T *u = x + iz * s->in_stride[0] + iy * s->in_stride[1] + ix * s->in_stride[2];
        const T *v = w + (tz * s->taps[1] + ty) * s->taps[2] + tx;
        for (int64_t k = 0; k < s->k; k++) sum += u[k * s->channel_stride] * v[k * s->n * taps];
      }
  return sum;
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const KERNEL_shape *s = a->s;
  const int64_t taps = s->taps[0] * s->taps[1] * s->taps[2];
  (void)thread;
  for (size_t i = begin; i < end; i++) {
    int64_t line = (int64_t)i, oy = line % s->out[1], oz = line / s->out[1] % s->out[0];
    int64_t channel = line / s->out[1] / s->out[0], c = channel % (s->groups * s->n), group = c / s->n;
    const T *x = a->x + channel / (s->groups * s->n) * s->image_stride + group * s->k * s->channel_stride;
    const T *w = a->w + (group * s->k * s->n + c % s->n) * taps;
    T *y = a->y + line * s->out[2];
    for (int64_t ox = 0; ox < s->out[2]; ox++) {
      T sum = KERNEL_sum(a, x, w, oz, oy, ox);
      y[ox] = a->bias ? sum + a->bias[c] : sum;
    }
  }
}

void KERNEL(const moecc_pool *pool, const T *x, const T *w, const T *bias, T *y, const int64_t *shape) {
  KERNEL_shape s;
  memcpy(&s, shape, sizeof s);
  const KERNEL_args a = {x, w, bias, y, &s};
  moecc_for(pool, KERNEL_part, &a, (size_t)(s.images * s.groups * s.n * s.out[0] * s.out[1]));
}
