/* Kernels that choose elements by index, on small cases worked out by hand, with indices out of range among them. */
#include "general.h"

void gather_f32_i64(const moecc_pool *pool, const float *x, const int64_t *index, float *y, size_t outer, size_t n,
                    size_t count, size_t inner);
void gather_elements_f32_i64(const moecc_pool *pool, const float *x, const int64_t *index, float *y, size_t count,
                             int64_t n, int64_t step, size_t rank, const int64_t *dims);
void gather_nd_f32_i64(const moecc_pool *pool, const float *x, const int64_t *index, float *y, size_t batches,
                       size_t count, size_t width, size_t inner, size_t xb, const int64_t *dims);
void scatter_elements_f32_i64(const int64_t *index, const float *u, float *y, size_t count, int64_t n, int64_t step,
                              size_t rank, const int64_t *dims);
void scatter_nd_f32_i64(const int64_t *index, const float *u, float *y, size_t count, size_t width, size_t inner,
                        const int64_t *dims);
void trilu_f32(const moecc_pool *pool, const float *x, float *y, size_t count, size_t rows, size_t columns, int64_t low,
               int64_t high);
void onehot_f32_i64(const moecc_pool *pool, const int64_t *index, const float *values, float *y, size_t outer,
                    size_t depth, size_t inner);
void range_i64(int64_t start, int64_t delta, int64_t *y, size_t n);
void nonzero_f32(const float *x, int64_t *y, size_t n, size_t bound, size_t rank, const int64_t *dims);

#define CHECK(got, ...)                                                                                                \
  do {                                                                                                                 \
    const float expected_[] = {__VA_ARGS__};                                                                           \
    assert_memory_equal(got, expected_, sizeof expected_);                                                             \
  } while (0)

static const float table[] = {10, 11, 12, 20, 21, 22, 30, 31, 32}; /* [3, 3] */

static void test_gather(void **state) {
  (void)state;
  const int64_t index[] = {2, -3, 7, -9};
  float y[12];
  gather_f32_i64(&three_threads, table, index, y, 1, 3, 4, 3);
  CHECK(y, 30, 31, 32, 10, 11, 12, 30, 31, 32, 10, 11, 12);
  gather_f32_i64(&three_threads, table, index, y, 3, 3, 4, 1);
  CHECK(y, 12, 10, 12, 10, 22, 20, 22, 20, 32, 30, 32, 30);
}

static void test_gather_elements(void **state) {
  (void)state;
  const int64_t index[] = {2, 0, -1, 1}, dims[] = {2, 3, 2, 0}; /* [2, 2], axis 1 */
  float y[4];
  gather_elements_f32_i64(&three_threads, table, index, y, 4, 3, 1, 2, dims);
  CHECK(y, 12, 10, 22, 21);
}

static void test_gather_nd(void **state) {
  (void)state;
  const int64_t index[] = {2, 1, 0, -1, 9, 0}, both[] = {3, 3, 3, 1}, rows[] = {3, 3};
  float y[9];
  gather_nd_f32_i64(&three_threads, table, index, y, 1, 3, 2, 1, 9, both);
  CHECK(y, 31, 12, 30);
  gather_nd_f32_i64(&three_threads, table, index + 1, y, 1, 2, 1, 3, 9, rows);
  CHECK(y, 20, 21, 22, 10, 11, 12);
}

static void test_scatter(void **state) {
  (void)state;
  float y[9];
  const float updates[] = {1, 2, 3, 4};
  memcpy(y, table, sizeof y);
  scatter_elements_f32_i64((const int64_t[]){2, 2, -3, 5}, updates, y, 4, 3, 1, 2, (const int64_t[]){2, 3, 2, 0});
  CHECK(y, 10, 11, 2, 3, 21, 22, 30, 31, 32);
  memcpy(y, table, sizeof y);
  scatter_nd_f32_i64((const int64_t[]){1, 1, -1, 0, 3, 0, 0, -4}, updates, y, 4, 2, 1, (const int64_t[]){3, 3, 3, 1});
  CHECK(y, 10, 11, 12, 20, 1, 22, 2, 31, 32);
  memcpy(y, table, sizeof y);
  scatter_nd_f32_i64((const int64_t[]){-1}, updates, y, 1, 1, 3, (const int64_t[]){3, 3});
  CHECK(y, 10, 11, 12, 20, 21, 22, 1, 2, 3);
}

static void test_trilu(void **state) {
  (void)state;
  float y[9];
  trilu_f32(&three_threads, table, y, 1, 3, 3, 1, 3);
  CHECK(y, 0, 11, 12, 0, 0, 22, 0, 0, 0);
  trilu_f32(&three_threads, table, y, 1, 3, 3, -3, 0);
  CHECK(y, 10, 0, 0, 20, 21, 0, 30, 31, 32);
}

static void test_onehot(void **state) {
  (void)state;
  const int64_t index[] = {1, -1, 3};
  const float values[] = {5, 7};
  float y[9];
  onehot_f32_i64(&three_threads, index, values, y, 3, 3, 1);
  CHECK(y, 5, 7, 5, 5, 5, 7, 5, 5, 5);
  onehot_f32_i64(&three_threads, index, values, y, 1, 3, 3);
  CHECK(y, 5, 5, 5, 7, 5, 5, 5, 7, 5);
}

static void test_range_and_nonzero(void **state) {
  (void)state;
  int64_t r[4], found[6];
  range_i64(5, -2, r, 4);
  for (int64_t i = 0; i < 4; i++) assert_int_equal(r[i], 5 - 2 * i);
  const float x[] = {0, 1, 0, 2, 0, -3};
  nonzero_f32(x, found, 6, 3, 2, (const int64_t[]){2, 3});
  const int64_t expected[] = {0, 1, 1, 1, 0, 2};
  assert_memory_equal(found, expected, sizeof expected);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gather),
      cmocka_unit_test(test_gather_elements),
      cmocka_unit_test(test_gather_nd),
      cmocka_unit_test(test_scatter),
      cmocka_unit_test(test_trilu),
      cmocka_unit_test(test_onehot),
      cmocka_unit_test(test_range_and_nonzero),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
