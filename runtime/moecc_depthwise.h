/* moecc_depthwise.h: what the depthwise convolutions of channels-last maps share: their shape, arguments, and where the
 * pixels of a thread's tiles are.
 */
#ifndef MOECC_DEPTHWISE_H
#define MOECC_DEPTHWISE_H

#include <stddef.h>
#include <stdint.h>
#include "moecc_rt.h"

/* What the table `shape` holds: extents and strides of x, then extents of y, of the taps, their distances, and padding.
 */
typedef struct {
  int64_t images, in_y, in_x, image_stride, line_stride, pixel_stride;
  int64_t out_y, out_x, taps_y, taps_x, stride_y, stride_x, step_y, step_x, top, left;
} moecc_depthwise_shape;

typedef struct {
  const float *x, *w;
  float *y; /* dense */
  const moecc_operand *o;
  const moecc_depthwise_shape *s;
  int64_t *scratch;
  size_t scratch_size; /* of a thread */
  size_t channels;
} moecc_depthwise;

/* The pixel (iy, ix) of an image x, or `zeros` beside it. */
static inline const float *moecc_depthwise_pixel(const moecc_depthwise_shape *s, const float *x, int64_t iy, int64_t ix,
                                                 const float *zeros) {
  const int in = (iy >= 0) & (iy < s->in_y) & (ix >= 0) & (ix < s->in_x);
  return in ? x + (iy * s->line_stride + ix * s->pixel_stride) : zeros;
}

#endif
