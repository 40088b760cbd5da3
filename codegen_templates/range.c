/* y[i] = start + i * delta for i < n; V is the type that start and delta are passed in. */
#include "defaults.h"
/* holes */
#define KERNEL range_i64
#define T      int64_t
#define V      int64_t
/* end holes */

void KERNEL(V start, V delta, T *y, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] = (T)(start + (V)i * delta);
}
