/* Comparing a result with what was expected. */
#include "cli/compare.h"

#include <math.h>
#include <string.h>

static bool same_shape(const Tensor *a, const Tensor *b) {
  if (a->dtype != b->dtype || a->rank != b->rank) return false;
  for (int i = 0; i < a->rank; i++)
    if (a->dim[i] != b->dim[i]) return false;
  return true;
}

static double difference(double a, double b) {
  if (a == b || (isnan(a) && isnan(b))) return 0;
  double d = fabs(a - b);
  return isfinite(d) ? d : INFINITY;
}

/* What max|a-b| may be for every unit of max|b|. */
static double relative_tolerance(DType t) { return t == DT_F16 ? 0x1p-10 : t == DT_BF16 ? 0x1p-7 : 1e-5; }

static void compare_reals(const Tolerance *t, const Tensor *a, const Tensor *b, Comparison *r) {
  int64_t n = tensor_count(b);
  bool within = true;
  for (int64_t i = 0; i < n; i++) {
    double y = tensor_number(b, i), d = difference(tensor_number(a, i), y);
    if (d > r->error) r->error = d, r->at = i;
    if (isfinite(y) && fabs(y) > r->largest) r->largest = fabs(y);
    within = within && (d == 0 || (isfinite(d) && d <= t->atol + t->rtol * fabs(y)));
  }
  r->ok = t->given ? within : isfinite(r->error) && r->error <= relative_tolerance(b->dtype) * r->largest;
}

static void compare_integers(const Tensor *a, const Tensor *b, Comparison *r) {
  int64_t n = tensor_count(b);
  r->ok = true;
  for (int64_t i = 0; i < n; i++) {
    int64_t x = tensor_integer(a, i), y = tensor_integer(b, i);
    double d = fabs((double)x - (double)y);
    if (x != y && d == 0) d = 1; /* more digits than a double has */
    if (d > r->error) r->error = d, r->at = i;
    if (fabs((double)y) > r->largest) r->largest = fabs((double)y);
    r->ok = r->ok && x == y;
  }
}

Comparison compare_tensors(const Tolerance *t, const Tensor *a, const Tensor *b) {
  Comparison r = {.same_shape = same_shape(a, b)};
  if (!r.same_shape) return r;
  if (dtype_is_float(b->dtype))
    compare_reals(t, a, b, &r);
  else
    compare_integers(a, b, &r);
  r.relative = r.largest > 0 ? r.error / r.largest : r.error;
  return r;
}
