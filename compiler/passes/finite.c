/* Looks for weights that are not numbers: a sign of a training run gone wrong, which no later check would notice.
 *
 * Infinities that are meant are let be: a scalar, or a mask, which is a tensor of infinities and zeros only.
 *
 * needs:  a graph as read
 * gives:  one warning that counts and names the tensors, or an error if `strict`; the graph is not changed
 */
#include "compiler.h"

#include <math.h>

typedef struct {
  int64_t nan, infinite, zero, count;
} Census;

/* Most weights are finite, and there are many: looks at exponents before it looks at numbers. */
static bool all_finite(const Tensor *t) {
  int64_t n = tensor_count(t);
  bool finite = true;
  if (t->dtype == DT_F32) {
    const uint32_t *bits = t->data;
    for (int64_t i = 0; i < n; i++) finite &= (bits[i] & 0x7f800000u) != 0x7f800000u;
  } else if (t->dtype == DT_F64) {
    const uint64_t *bits = t->data;
    for (int64_t i = 0; i < n; i++) finite &= (bits[i] >> 52 & 0x7ffu) != 0x7ffu;
  } else {
    const uint16_t *bits = t->data;
    uint16_t exponent = t->dtype == DT_F16 ? 0x7c00u : 0x7f80u;
    for (int64_t i = 0; i < n; i++) finite &= (bits[i] & exponent) != exponent;
  }
  return finite;
}

static Census census_of(const Tensor *t) {
  Census s = {.count = tensor_count(t)};
  for (int64_t i = 0; i < s.count; i++) {
    double v = t->dtype == DT_F32 ? (double)((const float *)t->data)[i] : tensor_number(t, i);
    s.nan += isnan(v) != 0;
    s.infinite += isinf(v) != 0; /* it tells the sign */
    s.zero += v == 0;
  }
  bool meant = s.count == 1 || s.infinite + s.zero == s.count;
  if (meant) s.infinite = 0;
  return s;
}

void check_finite(Graph *g, bool strict) {
  enum { NAMED = 8 };
  Text names = {.ctx = g->ctx};
  size_t tensors = 0;
  int64_t nan = 0, infinite = 0;
  for (size_t i = 0; i < g->n_values; i++) {
    const Value *v = g->values[i];
    if (!v->tensor || !dtype_is_float(v->dtype) || all_finite(v->tensor)) continue;
    Census s = census_of(v->tensor);
    if (!s.nan && !s.infinite) continue;
    nan += s.nan;
    infinite += s.infinite;
    if (tensors++ < NAMED) text_add(&names, "%s\"%s\"", tensors > 1 ? ", " : "", v->name);
  }
  if (!tensors) return;
  const char *more = tensors > NAMED ? ", …" : "";
  const char *text = ctx_format(g->ctx, "%zu constant%s %s NaN or infinite elements (%lld NaN, %lld infinite): %s%s",
                                tensors, tensors == 1 ? "" : "s", tensors == 1 ? "has" : "have", (long long)nan,
                                (long long)infinite, names.text, more);
  if (strict)
    ctx_fail(g->ctx, NULL, "%s", text);
  else
    ctx_warn(g->ctx, NULL, "%s", text);
}
