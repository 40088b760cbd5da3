/* The k best along an axis, best first, BEFORE(a, b) saying whether a is strictly better; ties: the lower index first.
 * x: [outer, n, inner], packed; index and (unless NULL) values: [outer, k, inner]. 1 <= k <= n. A binary insertion into
 * the list of the best so far, which is kept in `index`.
 */
#include "defaults.h"
/* holes */
#define KERNEL topk_f32
#define T      float
static inline int BEFORE(float a, float b) { return a > b || (b != b && a == a); }
/* end holes */

typedef struct {
  const T *x;
  T *values;
  int64_t *index;
  size_t n, inner, k;
} KERNEL_args;

static void KERNEL_line(const KERNEL_args *a, const T *x, int64_t *list) {
  const size_t s = a->inner;
  size_t have = 0;
  for (size_t i = 0; i < a->n; i++) {
    const T v = x[i * s];
    if (have == a->k && !BEFORE(v, x[(size_t)list[(have - 1) * s] * s])) continue;
    size_t low = 0, high = have;
    while (low < high) {
      size_t middle = (low + high) / 2;
      if (BEFORE(v, x[(size_t)list[middle * s] * s]))
        high = middle;
      else
        low = middle + 1;
    }
    if (have < a->k) have++;
    for (size_t j = have - 1; j > low; j--) list[j * s] = list[(j - 1) * s];
    list[low * s] = (int64_t)i;
  }
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  (void)thread;
  for (size_t item = begin; item < end; item++) {
    const size_t o = item / a->inner, j = item % a->inner;
    const T *x = a->x + o * a->n * a->inner + j;
    int64_t *list = a->index + o * a->k * a->inner + j;
    KERNEL_line(a, x, list);
    if (a->values == NULL) continue;
    T *values = a->values + o * a->k * a->inner + j;
    for (size_t i = 0; i < a->k; i++) values[i * a->inner] = x[(size_t)list[i * a->inner] * a->inner];
  }
}

void KERNEL(const moecc_pool *pool, const T *x, T *values, int64_t *index, size_t outer, size_t n, size_t inner,
            size_t k) {
  if (k == 0) return;
  const KERNEL_args a = {x, values, index, n, inner, k};
  moecc_for(pool, KERNEL_part, &a, outer * inner);
}
