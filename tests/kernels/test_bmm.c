/* The kernels bmm and matmul_any: batches by strides, broadcasting, transposed operands, tails. */
#include "kernel_test.h"

void bmm_f32(const moecc_pool *pool, const float *x, const float *w, float *y, const moecc_operand *o, float *scratch,
             size_t scratch_size, const int64_t *batch, size_t batches, size_t rows, size_t k, size_t n, size_t x_row,
             int64_t w_row, int64_t w_column);
void matmul_f64(const moecc_pool *pool, const double *x, const double *w, const double *c, double *y,
                const int64_t *batch, size_t batches, size_t rows, size_t k, size_t n, int64_t x_row, int64_t x_column,
                int64_t w_row, int64_t w_column, int64_t c_row, int64_t c_column, double alpha, double beta);

/* Batches [2][3], x lacking the second dimension, w the first; w by rows or by columns. */
static void one_size(size_t rows, size_t k, size_t n, int by_columns) {
  const int64_t xs = (int64_t)(rows * k), ws = (int64_t)(k * n);
  const int64_t batch[] = {2, 2, xs, 0, 3, 0, ws};
  const int64_t w_row = by_columns ? 1 : (int64_t)n, w_column = by_columns ? (int64_t)k : 1;
  size_t total = 6 * rows * n, scratch_size = k * TEST_NR;
  float *x = random_buffer(2 * rows * k), *w = random_buffer(3 * k * n), *bias = random_buffer(n);
  float *residual = random_buffer(total), *y = buffer(total), *again = buffer(total),
        *scratch = buffer(4 * scratch_size);
  const moecc_operand o[] = {{bias, 0}, {residual, n}};
  bmm_f32(NULL, x, w, y, o, scratch, scratch_size, batch, 6, rows, k, n, k, w_row, w_column);
  for (size_t b = 0; b < 6; b++)
    for (size_t r = 0; r < rows; r++)
      for (size_t c = 0; c < n; c++) {
        size_t at = (b * rows + r) * n + c;
        double sum = (double)bias[c] + (double)residual[at], size = 2;
        for (size_t i = 0; i < k; i++) {
          double v = (double)x[(b / 3 * rows + r) * k + i] *
                     (double)w[b % 3 * k * n + (size_t)((int64_t)i * w_row + (int64_t)c * w_column)];
          sum += v;
          size += fabs(v);
        }
        check_near(y[at], sum, size, k, "bmm", at);
      }
  check_guard(y, total);
  bmm_f32(&awkward_pool, x, w, again, o, scratch, scratch_size, batch, 6, rows, k, n, k, w_row, w_column);
  check_same(again, y, total, "four threads");
  check_guard(scratch, 4 * scratch_size);
  free(x), free(w), free(bias), free(residual), free(y), free(again), free(scratch);
}

static void sizes(void **state) {
  (void)state;
  for (size_t rows = 1; rows <= TEST_MR + 2; rows++)
    for (size_t n = 1; n < 2 * TEST_NR + 3; n += 5) one_size(rows, 3 + rows, n, n % 2 == 0);
  one_size(50, 33, TEST_NR + 1, 1);
}

static void any_type(void **state) {
  (void)state;
  double x[2 * 3 * 4], w[4 * 5], c[5], y[2 * 3 * 5];
  for (size_t i = 0; i < 24; i++) x[i] = (double)random_float();
  for (size_t i = 0; i < 20; i++) w[i] = (double)random_float();
  for (size_t i = 0; i < 5; i++) c[i] = (double)random_float();
  const int64_t batch[] = {1, 2, 12, 0};
  matmul_f64(&awkward_pool, x, w, c, y, batch, 2, 3, 4, 5, 1, 3, 5, 1, 0, 1, 1.0, 1.0); /* x by columns */
  for (size_t b = 0; b < 2; b++)
    for (size_t r = 0; r < 3; r++)
      for (size_t n = 0; n < 5; n++) {
        double sum = 0;
        for (size_t k = 0; k < 4; k++) sum += x[b * 12 + r + 3 * k] * w[k * 5 + n];
        assert_true(fabs(y[(b * 3 + r) * 5 + n] - sum) < 1e-14);
      }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(any_type)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
