/* The kernel matmul: odd sizes, tails, strides, epilogue operands, blocks; the same bits for any division of the work.
 */
#include "kernel_test.h"

void matmul_f32(const moecc_pool *pool, const float *x, const float *w, float *y, const moecc_operand *o, size_t x_row,
                size_t y_row, size_t rows, size_t k, size_t n, size_t depth, size_t block);

static void one_size(size_t rows, size_t k, size_t n, size_t x_gap, size_t y_gap, size_t block) {
  size_t x_row = k + x_gap, y_row = n + y_gap;
  float *x = random_buffer(rows * x_row), *w = random_buffer(k * n), *panels = pack_panels(w, k, n, TEST_NR);
  float *bias = random_buffer(n), *residual = random_buffer(rows * n);
  float *y = buffer(rows * y_row), *again = buffer(rows * y_row);
  const moecc_operand o[] = {{bias, 0}, {residual, n}};
  matmul_f32(NULL, x, panels, y, o, x_row, y_row, rows, k, n, k, block);
  for (size_t r = 0; r < rows; r++) {
    for (size_t c = 0; c < n; c++) {
      double sum = (double)bias[c] + (double)residual[r * n + c], size = 2;
      for (size_t i = 0; i < k; i++) {
        sum += (double)x[r * x_row + i] * (double)w[i * n + c];
        size += fabs((double)x[r * x_row + i] * (double)w[i * n + c]);
      }
      check_near(y[r * y_row + c], sum, size, k, "matmul", r * n + c);
    }
    for (size_t c = n; c < y_row; c++) assert_true(y[r * y_row + c] == GUARD_VALUE);
  }
  check_guard(y, rows * y_row);
  matmul_f32(&awkward_pool, x, panels, again, o, x_row, y_row, rows, k, n, k, block);
  check_same(again, y, rows * y_row, "four threads");
  matmul_f32(NULL, x, panels, again, o, x_row, y_row, rows, k, n, k, 1);
  check_same(again, y, rows * y_row, "blocks of one row");
  for (size_t depth = 1; depth < k; depth += depth < 4 ? 1 : depth) {
    matmul_f32(&awkward_pool, x, panels, again, o, x_row, y_row, rows, k, n, depth, block);
    check_same(again, y, rows * y_row, "k in pieces");
  }
  free(x), free(w), free(panels), free(bias), free(residual), free(y), free(again);
}

static void sizes(void **state) {
  (void)state;
  for (size_t rows = 1; rows <= 2 * TEST_MR + 1; rows++)
    for (size_t n = 1; n <= 2 * TEST_NR + 1; n += n < 5 ? 1 : 7)
      one_size(rows, 5 + rows % 7, n, rows % 3, n % 2 * 3, 1 + rows / 2);
  one_size(129, 192, 3 * TEST_NR, 0, 0, 64);
  one_size(65, 301, 2 * TEST_NR - 1, 5, 1, 16);
  one_size(3, 1, 1, 0, 0, 8);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(sizes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
