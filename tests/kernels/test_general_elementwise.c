/* Elementwise kernels, copies, transpositions, fills and picks against plain loops, over odd sizes and strides. */
#include "general.h"

void add_f32(const moecc_pool *pool, const float *x0, const float *x1, float *y, size_t rows, size_t n,
             const int64_t *outer);
void where_f32(const moecc_pool *pool, const unsigned char *x0, const float *x1, const float *x2, float *y, size_t rows,
               size_t n, const int64_t *outer);
void copy_rows_f32(const moecc_pool *pool, const float *x, float *y, size_t rows, size_t n, const int64_t *outer);
void copy_strided_f32(const moecc_pool *pool, const float *x, float *y, size_t rows, size_t n, int64_t xs, int64_t ys,
                      const int64_t *outer);
void transpose_f32(const moecc_pool *pool, const float *x, float *y, size_t rows, size_t columns, int64_t xs,
                   int64_t ys, size_t count, const int64_t *outer);
void fill_f32(const moecc_pool *pool, float v, float *y, size_t rows, size_t n, int64_t step, const int64_t *outer);
void pick_f32(const moecc_pool *pool, const float *x, float *y, size_t rows, size_t n, size_t run,
              const int64_t *tables);

static const size_t sizes[] = {1, 2, 3, 7, 8, 9, 16, 31, 100, 2047, 2048, 2049, 5000};
enum { N_SIZES = sizeof sizes / sizeof sizes[0] };

/* x0: [5, 3, n] packed, x1: [3, n] broadcast along the first loop. */
static void add_one(size_t n, const moecc_pool *pool) {
  float *a = numbers(15 * n), *b = numbers(3 * n), *y = room(15 * n);
  const int64_t outer[] = {2, 5, (int64_t)(3 * n), 0, 3, (int64_t)n, (int64_t)n};
  add_f32(pool, a, b, y, 15, n, outer);
  for (size_t i = 0; i < 15 * n; i++) assert_true(y[i] == a[i] + b[i % (3 * n)]);
  assert_guard(y, 15 * n);
  free(a);
  free(b);
  free(y);
}

static void test_add(void **state) {
  (void)state;
  for (int i = 0; i < N_SIZES; i++) {
    add_one(sizes[i], NULL);
    add_one(sizes[i], &three_threads);
  }
  const int64_t none[] = {0};
  add_f32(NULL, NULL, NULL, NULL, 0, 0, none);
}

/* The condition contiguous, x1 by a step of 3, x2 one element in a row. */
static void where_one(size_t n, const moecc_pool *pool) {
  unsigned char *c = malloc(4 * n);
  float *a = numbers(12 * n), *b = numbers(4), *y = room(4 * n);
  assert_non_null(c);
  for (size_t i = 0; i < 4 * n; i++) c[i] = number() > 0;
  const int64_t outer[] = {1, 4, (int64_t)n, (int64_t)(12 * n), 4, 1, 3, 0};
  where_f32(pool, c, a, b, y, 4, n, outer);
  for (size_t r = 0; r < 4; r++)
    for (size_t i = 0; i < n; i++) assert_true(y[r * n + i] == (c[r * n + i] ? a[(r * n + i) * 3] : b[r]));
  assert_guard(y, 4 * n);
  free(a);
  free(b);
  free(c);
  free(y);
}

static void test_where(void **state) {
  (void)state;
  for (int i = 0; i < N_SIZES; i++) {
    where_one(sizes[i], NULL);
    where_one(sizes[i], &three_threads);
  }
}

/* [7, 2, n] into a wider destination, the first two dimensions exchanged. */
static void test_copy_rows(void **state) {
  (void)state;
  for (int k = 0; k < N_SIZES; k++) {
    size_t n = sizes[k], wide = n + 5;
    float *x = numbers(14 * n), *y = room(14 * wide);
    const int64_t outer[] = {2, 2, (int64_t)n, (int64_t)(7 * wide), 7, (int64_t)(2 * n), (int64_t)wide};
    copy_rows_f32(&three_threads, x, y, 14, n, outer);
    for (size_t i = 0; i < 2; i++)
      for (size_t j = 0; j < 7; j++) {
        assert_memory_equal(y + (i * 7 + j) * wide, x + (j * 2 + i) * n, n * sizeof *x);
        assert_true(isnan(y[(i * 7 + j) * wide + n]));
      }
    free(x);
    free(y);
  }
}

static void test_copy_strided(void **state) {
  (void)state;
  for (int k = 0; k < N_SIZES; k++) {
    size_t n = sizes[k];
    float *x = numbers(3 * n), *y = room(6 * n);
    const int64_t outer[] = {1, 3, (int64_t)n, (int64_t)(2 * n)};
    copy_strided_f32(&three_threads, x + n - 1, y, 3, n, -1, 2, outer);
    for (size_t r = 0; r < 3; r++)
      for (size_t i = 0; i < n; i++) assert_true(y[r * 2 * n + 2 * i] == x[r * n + n - 1 - i]);
    free(x);
    free(y);
  }
}

static void test_transpose(void **state) {
  (void)state;
  for (size_t rows = 1; rows < 70; rows += 11)
    for (size_t columns = 1; columns < 2500; columns += columns < 50 ? 7 : 1200) { /* also beyond one strip */
      size_t size = rows * columns;
      float *x = numbers(3 * size), *y = room(3 * size);
      const int64_t outer[] = {1, 3, (int64_t)size, (int64_t)size};
      transpose_f32(&three_threads, x, y, rows, columns, (int64_t)rows, (int64_t)columns, 3, outer);
      for (size_t m = 0; m < 3; m++)
        for (size_t r = 0; r < rows; r++)
          for (size_t c = 0; c < columns; c++) assert_true(y[m * size + r * columns + c] == x[m * size + c * rows + r]);
      assert_guard(y, 3 * size);
      free(x);
      free(y);
    }
}

static void test_fill(void **state) {
  (void)state;
  float *y = room(60);
  const int64_t outer[] = {2, 2, 30, 3, 10};
  fill_f32(NULL, 2.5f, y, 6, 4, 2, outer);
  for (size_t i = 0; i < 60; i++) {
    if (i % 10 < 8 && i % 2 == 0)
      assert_true(y[i] == 2.5f);
    else
      assert_true(isnan(y[i]));
  }
  free(y);
}

/* Rows 2, 0, 0 and columns 1, 3, 3, 0 of [3, 4, run]. */
static void test_pick(void **state) {
  (void)state;
  static const int64_t rows[] = {2, 0, 0}, columns[] = {1, 3, 3, 0};
  for (size_t run = 1; run < 20; run += 6) {
    float *x = numbers(12 * run), *y = room(12 * run);
    int64_t tables[3 + 4 + 3] = {1, 3, 7};
    for (int i = 0; i < 4; i++) tables[3 + i] = columns[i] * (int64_t)run;
    for (int i = 0; i < 3; i++) tables[7 + i] = rows[i] * 4 * (int64_t)run;
    pick_f32(&three_threads, x, y, 3, 4, run, tables);
    for (size_t r = 0; r < 3; r++)
      for (size_t c = 0; c < 4; c++)
        assert_memory_equal(y + (r * 4 + c) * run, x + (size_t)(rows[r] * 4 + columns[c]) * run, run * sizeof *x);
    assert_guard(y, 12 * run);
    free(x);
    free(y);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_add),          cmocka_unit_test(test_where),     cmocka_unit_test(test_copy_rows),
      cmocka_unit_test(test_copy_strided), cmocka_unit_test(test_transpose), cmocka_unit_test(test_fill),
      cmocka_unit_test(test_pick),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
