/* What a Resize node's attributes say of one axis, for lowerings that resample themselves (lower_resize.c). */
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

#endif
