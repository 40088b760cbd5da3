/* Kernels that work along rows: softmax, normalisation, reduction, running sums and selection, against loops in double;
 * and that a division among threads changes no bit. */
#include "general.h"

void softmax_f32(const moecc_pool *pool, const float *x, float *y, size_t rows, size_t n, int64_t xs);
void softmax_any_f32(const moecc_pool *pool, const float *x, float *y, size_t outer, size_t n, size_t inner);
void layer_norm_f32(const moecc_pool *pool, const float *x, const float *scale, const float *bias, float *y,
                    const moecc_operand *o, size_t rows, size_t n, int64_t xs, float epsilon);
void rms_norm_f32(const moecc_pool *pool, const float *x, const float *scale, float *y, size_t rows, size_t n,
                  int64_t xs, float epsilon);
void normalize_f32(const moecc_pool *pool, const float *x, const float *scale, const float *bias, float *y, size_t rows,
                   size_t n, size_t period, size_t per_row, size_t run, double epsilon);
void reduce_mean_f32(const moecc_pool *pool, const float *x, float *y, size_t rows, size_t n, const int64_t *outer);
void reduce_mean_columns_f32(const moecc_pool *pool, const float *x, float *y, size_t outer, size_t n, size_t columns,
                             int64_t xo, int64_t xs);
void reduce_sum_f32(const moecc_pool *pool, const float *x, float *y, size_t outputs, size_t count,
                    const int64_t *loops);
void log_sum_exp_f32(const moecc_pool *pool, const float *x, float *y, size_t outputs, size_t count,
                     const int64_t *loops);
void arg_max_f32(const moecc_pool *pool, const float *x, int64_t *y, size_t outer, size_t n, size_t inner);
void topk_f32(const moecc_pool *pool, const float *x, float *values, int64_t *index, size_t outer, size_t n,
              size_t inner, size_t k);
void cumsum_f32(const moecc_pool *pool, const float *x, float *y, size_t outer, size_t n, size_t inner,
                size_t exclusive, size_t reverse);

static const size_t sizes[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 48, 64, 100, 129, 1000};
enum { N_SIZES = sizeof sizes / sizeof sizes[0], ROWS = 5 };

static void expected_softmax(const float *x, double *y, size_t n) {
  double m = -INFINITY, sum = 0;
  for (size_t i = 0; i < n; i++) m = fmax(m, (double)x[i]);
  for (size_t i = 0; i < n; i++) sum += y[i] = exp((double)x[i] - m);
  for (size_t i = 0; i < n; i++) y[i] /= sum;
}

static void test_softmax(void **state) {
  (void)state;
  double expected[1000];
  for (int k = 0; k < N_SIZES; k++) {
    size_t n = sizes[k], xs = n + 3;
    float *x = numbers(ROWS * xs), *y = room(ROWS * n), *z = room(ROWS * n), *w = room(n);
    for (size_t i = 0; i < xs; i++) x[i] *= 20;
    softmax_f32(NULL, x, y, ROWS, n, (int64_t)xs);
    softmax_f32(&three_threads, x, z, ROWS, n, (int64_t)xs);
    assert_memory_equal(y, z, ROWS * n * sizeof *y);
    assert_guard(y, ROWS * n);
    for (size_t r = 0; r < ROWS; r++) {
      expected_softmax(x + r * xs, expected, n);
      for (size_t i = 0; i < n; i++) assert_near(y[r * n + i], expected[i], 3e-7);
      softmax_any_f32(NULL, x + r * xs, w, 1, n, 1);
      for (size_t i = 0; i < n; i++) assert_near(w[i], expected[i], 3e-7);
    }
    free(x);
    free(y);
    free(z);
    free(w);
  }
}

static void test_softmax_masked(void **state) {
  (void)state;
  float x[20], y[20];
  for (size_t i = 0; i < 20; i++) x[i] = i % 3 ? -INFINITY : 1.0f;
  softmax_f32(NULL, x, y, 1, 20, 20);
  for (size_t i = 0; i < 20; i++) assert_near(y[i], i % 3 ? 0 : 1.0 / 7, 1e-7);
}

static void test_layer_norm(void **state) {
  (void)state;
  for (int k = 0; k < N_SIZES; k++) {
    size_t n = sizes[k], xs = n + 3;
    float *x = numbers(ROWS * xs), *s = numbers(n), *b = numbers(n), *y = room(ROWS * n), *z = room(ROWS * n);
    float *w = room(n), *v = room(ROWS * n), *c = numbers(n), *r = numbers(ROWS * xs);
    const moecc_operand o[] = {{c, 0}, {r, xs}}; /* the instance's epilogue adds a row of columns and a matrix */
    for (size_t i = 0; i < ROWS * xs; i++) x[i] += 10;
    layer_norm_f32(NULL, x, s, b, y, o, ROWS, n, (int64_t)xs, 1e-3f);
    layer_norm_f32(&three_threads, x, s, b, z, o, ROWS, n, (int64_t)xs, 1e-3f);
    assert_memory_equal(y, z, ROWS * n * sizeof *y);
    rms_norm_f32(&three_threads, x, s, v, ROWS, n, (int64_t)xs, 1e-3f);
    assert_guard(y, ROWS * n);
    assert_guard(v, ROWS * n);
    for (size_t j = 0; j < ROWS; j++) {
      const float *row = x + j * xs;
      double mean = 0, square = 0, variance = 0;
      for (size_t i = 0; i < n; i++) mean += (double)row[i] / (double)n;
      for (size_t i = 0; i < n; i++) square += (double)row[i] * (double)row[i] / (double)n;
      for (size_t i = 0; i < n; i++) variance += ((double)row[i] - mean) * ((double)row[i] - mean) / (double)n;
      normalize_f32(NULL, row, s, b, w, 1, n, 1, n, 1, 1e-3);
      for (size_t i = 0; i < n; i++) {
        double e = ((double)row[i] - mean) / sqrt(variance + 1e-3) * (double)s[i] + (double)b[i];
        assert_near(y[j * n + i], e + (double)c[i] + (double)r[j * xs + i], 3e-5);
        assert_near(w[i], e, 1e-6);
        assert_near(v[j * n + i], (double)row[i] / sqrt(square + 1e-3) * (double)s[i], 2e-6);
      }
    }
    free(c);
    free(r);
    free(x);
    free(s);
    free(b);
    free(y);
    free(z);
    free(w);
    free(v);
  }
}

/* Two samples of six channels in three groups, five pixels: scale and bias by channel. */
static void test_group_norm(void **state) {
  (void)state;
  float *x = numbers(60), *s = numbers(6), *b = numbers(6), *y = room(60);
  normalize_f32(&three_threads, x, s, b, y, 6, 10, 3, 2, 5, 1e-5);
  for (size_t r = 0; r < 6; r++) {
    double mean = 0, variance = 0;
    for (size_t i = 0; i < 10; i++) mean += (double)x[r * 10 + i] / 10;
    for (size_t i = 0; i < 10; i++) variance += pow((double)x[r * 10 + i] - mean, 2) / 10;
    for (size_t i = 0; i < 10; i++) {
      size_t c = r % 3 * 2 + i / 5;
      assert_near(y[r * 10 + i], ((double)x[r * 10 + i] - mean) / sqrt(variance + 1e-5) * (double)s[c] + (double)b[c],
                  1e-6);
    }
  }
  free(x);
  free(s);
  free(b);
  free(y);
}

/* x: [n, columns]: means and sums of rows and of columns. */
static void reduce_one(size_t n, size_t columns) {
  float *x = numbers(n * columns), *row = room(n), *column = room(columns), *sum = room(columns), *log = room(columns);
  const int64_t outer[] = {1, (int64_t)n, (int64_t)columns},
                by_column[] = {1, 1, (int64_t)columns, 1, (int64_t)n, (int64_t)columns};
  reduce_mean_f32(&three_threads, x, row, n, columns, outer);
  reduce_mean_columns_f32(&three_threads, x, column, 1, n, columns, 0, (int64_t)columns);
  reduce_sum_f32(&three_threads, x, sum, columns, n, by_column);
  log_sum_exp_f32(&three_threads, x, log, columns, n, by_column);
  for (size_t r = 0; r < n; r++) {
    double e = 0;
    for (size_t c = 0; c < columns; c++) e += (double)x[r * columns + c];
    assert_near(row[r], e / (double)columns, 5e-7);
  }
  for (size_t c = 0; c < columns; c++) {
    double e = 0, l = 0;
    for (size_t r = 0; r < n; r++) e += (double)x[r * columns + c];
    for (size_t r = 0; r < n; r++) l += exp((double)x[r * columns + c]);
    assert_near(column[c], e / (double)n, 5e-7);
    assert_near(sum[c], e, 1e-7 * (1 + fabs(e)));
    assert_near(log[c], logf((float)l), 1e-6);
  }
  assert_guard(row, n);
  assert_guard(column, columns);
  free(x);
  free(row);
  free(column);
  free(sum);
  free(log);
}

static void test_reduce(void **state) {
  (void)state;
  for (int i = 0; i < N_SIZES; i++) {
    reduce_one(sizes[i], 1);
    reduce_one(7, sizes[i]);
    reduce_one(sizes[i], 37);
  }
}

static void test_arg_max(void **state) {
  (void)state;
  const float x[2][3][2] = {{{1, 5}, {3, 5}, {3, 4}}, {{-1, 0}, {-2, 0}, {-1, 1}}};
  const int64_t expected[] = {1, 0, 0, 2};
  int64_t y[4];
  arg_max_f32(&three_threads, &x[0][0][0], y, 2, 3, 2);
  assert_memory_equal(y, expected, sizeof y);
}

static void test_topk(void **state) {
  (void)state;
  const float x[2][6] = {{3, 1, 3, (float)NAN, 5, 1}, {1, 1, 1, 1, 1, 1}};
  const int64_t expected[2][6] = {{4, 0, 2, 1, 5, 3}, {0, 1, 2, 3, 4, 5}};
  for (size_t k = 1; k <= 6; k++) {
    int64_t index[12];
    float values[12];
    topk_f32(&three_threads, &x[0][0], values, index, 2, 6, 1, k);
    for (size_t r = 0; r < 2; r++)
      for (size_t i = 0; i < k; i++) {
        assert_int_equal(index[r * k + i], expected[r][i]);
        assert_memory_equal(&values[r * k + i], &x[r][expected[r][i]], sizeof(float));
      }
  }
}

static void test_cumsum(void **state) {
  (void)state;
  const float x[] = {1, 2, 3, 4};
  const float expected[2][2][4] = {{{1, 3, 6, 10}, {10, 9, 7, 4}}, {{0, 1, 3, 6}, {9, 7, 4, 0}}};
  for (size_t exclusive = 0; exclusive < 2; exclusive++)
    for (size_t reverse = 0; reverse < 2; reverse++) {
      float y[4];
      cumsum_f32(NULL, x, y, 1, 4, 1, exclusive, reverse);
      assert_memory_equal(y, expected[exclusive][reverse], sizeof y);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_softmax),    cmocka_unit_test(test_softmax_masked), cmocka_unit_test(test_layer_norm),
      cmocka_unit_test(test_group_norm), cmocka_unit_test(test_reduce),         cmocka_unit_test(test_arg_max),
      cmocka_unit_test(test_topk),       cmocka_unit_test(test_cumsum),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
