/* y[index[i][0]][index[i][1]]…[j] = COMBINE(itself, u[i][j]), i ascending: the last of equal ones wins.
 * index: [count, width], u: [count, inner], y: packed, holding the data already. `dims`: for each coordinate its range
 * and its stride in y. Tuples out of range are left out.
 */
#include "defaults.h"
/* holes */
#define KERNEL scatter_nd_f32_i64
#define T      float
#define I      int64_t
static inline float COMBINE(float old, float update) {
  (void)old;
  return update;
}
/* end holes */

void KERNEL(const I *index, const T *u, T *y, size_t count, size_t width, size_t inner, const int64_t *dims) {
  for (size_t item = 0; item < count; item++, index += width, u += inner) {
    T *to = y;
    int inside = 1;
    for (size_t k = 0; k < width; k++) {
      int64_t i = (int64_t)index[k], n = dims[2 * k];
      if (i < 0) i += n;
      inside &= i >= 0 && i < n;
      to += inside ? i * dims[2 * k + 1] : 0;
    }
    for (size_t j = 0; inside && j < inner; j++) to[j] = COMBINE(to[j], u[j]);
  }
}
