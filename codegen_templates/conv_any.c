/* Convolution in any number of dimensions up to three, any element type, groups, any strides of x: short and right.
 *   y[i][g n + c][o] = bias + sum over k, taps t of x[i][g k_count + k][o * stride + t * step - pad] * w[g n + c][k][t]
 * w and y dense; bias may be NULL. The sum runs over the channels, within them over the taps row by row.
 * A work item is one channel of one image's output.
 */
#include "defaults.h"
/* holes */
#define KERNEL conv_any_f64
#define T      double
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

/* The sum over one channel's taps, added to `sum`. x: the channel; o: the output position. */
static T KERNEL_taps(const KERNEL_shape *s, const T *x, const T *w, const int64_t *o, T sum) {
  for (int64_t tz = 0; tz < s->taps[0]; tz++)
    for (int64_t ty = 0; ty < s->taps[1]; ty++)
      for (int64_t tx = 0; tx < s->taps[2]; tx++, w++) {
        int64_t iz = o[0] * s->stride[0] + tz * s->step[0] - s->pad[0];
        int64_t iy = o[1] * s->stride[1] + ty * s->step[1] - s->pad[1];
        int64_t ix = o[2] * s->stride[2] + tx * s->step[2] - s->pad[2];
        if (iz >= 0 && iz < s->in[0] && iy >= 0 && iy < s->in[1] && ix >= 0 && ix < s->in[2])
          sum += x[iz * s->in_stride[0] + iy * s->in_stride[1] + ix * s->in_stride[2]] * *w;
      }
  return sum;
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  const KERNEL_shape *s = a->s;
  const int64_t taps = s->taps[0] * s->taps[1] * s->taps[2], positions = s->out[0] * s->out[1] * s->out[2];
  (void)thread;
  for (size_t i = begin; i < end; i++) {
    int64_t c = (int64_t)i % (s->groups * s->n), image = (int64_t)i / (s->groups * s->n);
    const T *x = a->x + image * s->image_stride + c / s->n * s->k * s->channel_stride, *w = a->w + c * s->k * taps;
    T *y = a->y + (int64_t)i * positions;
    int64_t o[3];
    for (o[0] = 0; o[0] < s->out[0]; o[0]++)
      for (o[1] = 0; o[1] < s->out[1]; o[1]++)
        for (o[2] = 0; o[2] < s->out[2]; o[2]++, y++) {
          T sum = 0;
          for (int64_t k = 0; k < s->k; k++) sum = KERNEL_taps(s, x + k * s->channel_stride, w + k * taps, o, sum);
          *y = a->bias ? sum + a->bias[c] : sum;
        }
  }
}

void KERNEL(const moecc_pool *pool, const T *x, const T *w, const T *bias, T *y, const int64_t *shape) {
  KERNEL_shape s;
  memcpy(&s, shape, sizeof s);
  const KERNEL_args a = {x, w, bias, y, &s};
  moecc_for(pool, KERNEL_part, &a, (size_t)(s.images * s.groups * s.n));
}
