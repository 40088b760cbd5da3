/* Indices of the elements that are not zero, in row-major order: y[d][c] is coordinate d of the c-th of them.
 * x: packed, n elements; y: [rank, bound]; elements beyond the bound are left out. `dims`: the lengths of x.
 */
#include "defaults.h"
/* holes */
#define KERNEL nonzero_f32
#define T      float
/* end holes */

void KERNEL(const T *x, int64_t *y, size_t n, size_t bound, size_t rank, const int64_t *dims) {
  size_t found = 0;
  for (size_t i = 0; i < n && found < bound; i++) {
    if (x[i] == 0) continue;
    size_t place = i;
    for (size_t d = rank; d-- > 0;) {
      y[d * bound + found] = (int64_t)(place % (size_t)dims[d]);
      place /= (size_t)dims[d];
    }
    found++;
  }
}
