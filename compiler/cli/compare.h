/* Comparing a result with what was expected. */
#ifndef MOECC_CLI_COMPARE_H
#define MOECC_CLI_COMPARE_H

#include "compiler.h"

/* By default max|a-b| <= 1e-5 max|b|; given: ONNX's rule, |a-b| <= atol + rtol |b| for every element. Integers and
 * booleans must be equal. Half precision is allowed one unit in the last place of the largest value. NaN equals NaN
 * alone, and an infinity itself alone. */
typedef struct {
  bool given;
  double rtol, atol;
} Tolerance;

typedef struct {
  bool ok, same_shape;   /* shapes or types that differ are not ok, and nothing else is known then */
  double error, largest; /* max|a-b|, infinite where one is no number and the other is; max|b| of finite b */
  double relative;       /* error / largest; 0 / 0 is 0 */
  int64_t at;            /* the element with the largest error */
} Comparison;

Comparison compare_tensors(const Tolerance *t, const Tensor *a, const Tensor *b);

#endif
