/* What a Resize node's attributes say of one axis, for lowerings that resample themselves (lower_resize.c); and which
 * convolutions of resized pictures are computed together with the next one. */
#ifndef MOECC_LOWER_RESIZE_H
#define MOECC_LOWER_RESIZE_H

#include "lower.h"

/* Element i of the result is the sum of n elements: index[i * n + k] of the axis, times weight[i * n + k]. */
typedef struct {
  size_t n;
  int64_t *index;
  double *weight;
} ResizeTaps;
/* An axis of `from` elements resampled to `to`, by the modes that node n names (not tf_crop_and_resize). */
ResizeTaps resize_taps(Program *p, const Node *n, int64_t from, int64_t to);

/* The pointwise convolution that is computed together with a node, a moecc.ResizeConv whose result nobody else reads
 * and that then is never made as a whole; NULL if there is none, or that does not pay. */
Node *resize_conv_point(const Program *p, const Node *n);
/* Both, in one step (lower_resize_conv.c). */
void lower_resize_conv_point(Program *p, Node *point);

#endif
