/* NaN and infinite weights: counted in one warning, or, strictly, an error.
 *
 * Infinity has honest uses, which are no fault: a single number (a bound of Clip, a value to fill with), and a mask, which
 * holds nothing but 0 and -infinity.
 *
 * needs: constants
 * gives: nothing; the graph stays as it is
 */
#include "compiler.h"

#include <inttypes.h>
#include <math.h>

typedef struct {
  int64_t bad, nan;
  bool mask; /* 0 and -infinity only */
} Count;

static void count_number(Count *k, double x) {
  k->bad += !isfinite(x);
  k->nan += isnan(x);
  k->mask = k->mask && (x == 0 || x == -INFINITY);
}

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

static Count count_bad(const Tensor *t) {
  Count k = {.mask = true};
  int64_t n = tensor_count(t);
  if (n == 0 || !dtype_is_float(t->dtype) || all_finite(t)) return k;
  for (int64_t i = 0; i < n; i++) count_number(&k, tensor_number(t, i));
  if (!k.nan && (n == 1 || k.mask)) k.bad = 0;
  return k;
}

void check_weights(Graph *g, bool strict) {
  enum { NAMED = 5 };
  Text list = {.ctx = g->ctx};
  int64_t numbers = 0, tensors = 0;
  for (size_t i = 0; i < g->n_values; i++) {
    const Value *v = g->values[i];
    Count k = v->tensor && v->n_uses ? count_bad(v->tensor) : (Count){0};
    if (!k.bad) continue;
    numbers += k.bad;
    if (tensors++ < NAMED)
      text_add(&list, "\n    \"%s\" %s: %" PRId64, v->name, shape_text(g->ctx, v->dtype, &v->shape), k.bad);
  }
  if (!numbers) return;
  if (tensors > NAMED) text_add(&list, "\n    and %" PRId64 " more", tensors - NAMED);
  static const char *const text = "%" PRId64 " weights are NaN or infinite, in %" PRId64 " tensors:%s";
  if (strict) ctx_fail(g->ctx, NULL, text, numbers, tensors, list.text);
  ctx_warn(g->ctx, NULL, text, numbers, tensors, list.text);
}
