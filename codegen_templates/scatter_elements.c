/* y[i0]…[index[i0][i1]…]… = COMBINE(itself, u[i0][i1]…), in the order of the index: the last of equal ones wins.
 * index and u: packed; y: packed, holding the data already. `dims`: for each of `rank` dimensions the length of the
 * index and the stride of y, which is 0 at the axis; the axis of y has `n` elements, `step` apart. Out of range: left
 * out.
 */
#include "defaults.h"
/* holes */
#define KERNEL scatter_elements_f32_i64
#define T      float
#define I      int64_t
static inline float COMBINE(float old, float update) {
  (void)old;
  return update;
}
/* end holes */

void KERNEL(const I *index, const T *u, T *y, size_t count, int64_t n, int64_t step, size_t rank, const int64_t *dims) {
  for (size_t item = 0; item < count; item++) {
    T *to = y;
    size_t place = item;
    for (size_t d = rank; d-- > 0;) {
      to += (int64_t)(place % (size_t)dims[2 * d]) * dims[2 * d + 1];
      place /= (size_t)dims[2 * d];
    }
    int64_t i = (int64_t)index[item];
    if (i < 0) i += n;
    if (i < 0 || i >= n) continue;
    to += i * step;
    *to = COMBINE(*to, u[item]);
  }
}
