/* Pooling and resampling against loops written from the definitions. */
#include "general.h"

void max_pool_nhwc_f32(const moecc_pool *pool, const float *x, float *y, size_t n, size_t channels,
                       const int64_t *shape);
void average_pool_f32(const moecc_pool *pool, const float *x, float *y, size_t channels, const int64_t *shape);
void resize_axis_f32(const moecc_pool *pool, const float *x, const float *weight, float *y, size_t outer, size_t n,
                     size_t m, size_t inner, size_t taps, const int64_t *index);
void resize_axis_f64(const moecc_pool *pool, const double *x, const double *weight, double *y, size_t outer, size_t n,
                     size_t m, size_t inner, size_t taps, const int64_t *index);
void resize_bilinear_f32(const moecc_pool *pool, const float *x, const float *wy, const float *wx, float *y, size_t n,
                         size_t h, size_t w, size_t oh, size_t ow, size_t channels, size_t pitch, const int64_t *rows,
                         const int64_t *columns);
void grid_sample_f32(const moecc_pool *pool, const float *x, const float *grid, float *y, size_t samples,
                     size_t channels, const int64_t *shape);
void col2im_f32(const moecc_pool *pool, const float *x, float *y, size_t channels, const int64_t *shape);

enum { H = 7, W = 9 };

static int64_t out_length(int64_t n, int64_t window, int64_t stride, int64_t dilation, int64_t pad) {
  return (n + 2 * pad - (window - 1) * dilation - 1) / stride + 1;
}

static void max_pool_one(size_t channels, int64_t window, int64_t stride, int64_t dilation, int64_t pad) {
  int64_t oh = out_length(H, window, stride, dilation, pad), ow = out_length(W, window, stride, dilation, pad);
  const int64_t shape[] = {H,      W,        oh,       ow,  window, window,  stride,
                           stride, dilation, dilation, pad, pad,    H + pad, W + pad};
  size_t out = 2 * (size_t)(oh * ow) * channels;
  float *x = numbers(2 * H * W * channels), *y = room(out);
  max_pool_nhwc_f32(&three_threads, x, y, 2, channels, shape);
  for (size_t at = 0; at < out; at++) {
    int64_t c = (int64_t)(at % channels), j = (int64_t)(at / channels) % ow, i = (int64_t)(at / channels) / ow % oh;
    const float *sample = x + at / ((size_t)(oh * ow) * channels) * H * W * channels;
    float best = -INFINITY;
    for (int64_t a = 0; a < window; a++)
      for (int64_t b = 0; b < window; b++) {
        int64_t p = i * stride - pad + a * dilation, q = j * stride - pad + b * dilation;
        if (p >= 0 && q >= 0 && p < H && q < W) best = fmaxf(best, sample[(p * W + q) * (int64_t)channels + c]);
      }
    assert_true(y[at] == best);
  }
  assert_guard(y, out);
  free(x);
  free(y);
}

static void test_max_pool(void **state) {
  (void)state;
  for (size_t channels = 1; channels < 40; channels += 6) {
    max_pool_one(channels, 2, 2, 1, 0);
    max_pool_one(channels, 3, 2, 1, 1);
    max_pool_one(channels, 3, 1, 2, 2);
  }
}

/* Two channels of 4 x 5, window 3, stride 2, padding 1: padded positions do not count. */
static void test_average_pool(void **state) {
  (void)state;
  const int64_t shape[] = {1, 4, 5, 1, 2, 3, 1, 3, 3, 1, 2, 2, 1, 1, 1, 0, 1, 1, 1, 5, 6};
  float *x = numbers(40), *y = room(12);
  average_pool_f32(&three_threads, x, y, 2, shape);
  for (int c = 0; c < 2; c++)
    for (int i = 0; i < 2; i++)
      for (int j = 0; j < 3; j++) {
        double sum = 0;
        int count = 0;
        for (int p = 2 * i - 1; p < 2 * i + 2; p++)
          for (int q = 2 * j - 1; q < 2 * j + 2; q++)
            if (p >= 0 && q >= 0 && p < 4 && q < 5) {
              sum += (double)x[c * 20 + p * 5 + q];
              count++;
            }
        assert_near(y[(c * 2 + i) * 3 + j], sum / count, 1e-6);
      }
  assert_guard(y, 12);
  free(x);
  free(y);
}

static void resize_axis_one(size_t inner) {
  static const int64_t index[] = {0, 1, 2, 4, 3, 3};
  const float weight[] = {0.25f, 0.75f, 0.5f, 0.5f, -0.25f, 1.25f};
  double weight64[6], *x64 = malloc(10 * inner * sizeof *x64), *y64 = malloc(6 * inner * sizeof *y64);
  float *x = numbers(10 * inner), *y = room(6 * inner);
  assert_true(x64 != NULL && y64 != NULL);
  for (size_t i = 0; i < 6; i++) weight64[i] = (double)weight[i];
  for (size_t i = 0; i < 10 * inner; i++) x64[i] = (double)x[i];
  resize_axis_f32(&three_threads, x, weight, y, 2, 5, 3, inner, 2, index);
  resize_axis_f64(&three_threads, x64, weight64, y64, 2, 5, 3, inner, 2, index);
  for (size_t at = 0; at < 6 * inner; at++) {
    size_t o = at / (3 * inner), i = at / inner % 3, c = at % inner;
    double e = 0;
    for (size_t t = 0; t < 2; t++) e += weight64[i * 2 + t] * x64[(o * 5 + (size_t)index[i * 2 + t]) * inner + c];
    assert_near(y[at], e, 1e-6);
    assert_near((float)y64[at], (double)(float)e, 1e-7);
  }
  assert_guard(y, 6 * inner);
  free(x);
  free(y);
  free(x64);
  free(y64);
}

static void test_resize_axis(void **state) {
  (void)state;
  for (size_t inner = 1; inner < 40; inner += 5) resize_axis_one(inner);
}

static void resize_bilinear_one(size_t channels, size_t pitch) {
  static const int64_t rows[] = {0, 0, 0, 1, 1, 2, 2, 2}, columns[] = {0, 1, 2, 3, 3, 3};
  const float wy[] = {0.25f, 0.75f, 0.75f, 0.25f, 0.5f, 0.5f, 1.0f, 0.0f},
              wx[] = {0.5f, 0.5f, 0.125f, 0.875f, 0.75f, 0.25f};
  float *x = numbers(2 * 12 * channels), *y = room(2 * 12 * pitch);
  resize_bilinear_f32(&three_threads, x, wy, wx, y, 2, 3, 4, 4, 3, channels, pitch, rows, columns);
  for (size_t at = 0; at < 2 * 12 * channels; at++) {
    size_t c = at % channels, j = at / channels % 3, i = at / channels / 3 % 4, s = at / channels / 12;
    double e = 0;
    for (size_t a = 0; a < 2; a++)
      for (size_t b = 0; b < 2; b++) {
        size_t p = (size_t)rows[2 * i + a], q = (size_t)columns[2 * j + b];
        e += (double)wy[2 * i + a] * (double)wx[2 * j + b] * (double)x[((s * 3 + p) * 4 + q) * channels + c];
      }
    assert_near(y[at / channels * pitch + c], e, 1e-6);
  }
  assert_guard(y, 2 * 12 * pitch);
  free(x);
  free(y);
}

static void test_resize_bilinear(void **state) {
  (void)state;
  for (size_t channels = 1; channels < 40; channels += 6) {
    resize_bilinear_one(channels, channels);
    resize_bilinear_one(channels, channels + 5);
  }
}

/* The element of a picture, 0 outside of it. */
static double pixel(const float *x, int64_t h, int64_t w, size_t channels, double row, double column, size_t c) {
  if (!(row >= 0 && row < (double)h && column >= 0 && column < (double)w)) return 0;
  return (double)x[((size_t)row * (size_t)w + (size_t)column) * channels + c];
}

static double sampled(const float *x, int64_t h, int64_t w, size_t channels, double row, double column, size_t c) {
  double r = floor(row), k = floor(column), v = 0;
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 2; j++)
      v += (1 - fabs(row - r - i)) * (1 - fabs(column - k - j)) * pixel(x, h, w, channels, r + i, k + j, c);
  return v;
}

/* Two pictures of 3 x 5, four positions in each, the last ones far or nowhere. */
static void grid_sample_one(size_t channels) {
  static const float grid[] = {0,    0,    -0.9f, 0.3f, 1,          -1, 1e30f, 0,
                               0.5f, 0.7f, -1.1f, 0,    (float)NAN, 0,  0,     (float)INFINITY};
  static const int64_t shape[] = {1, 3, 5, 2, 4};
  float *x = numbers(30 * channels), *y = room(8 * channels);
  grid_sample_f32(&three_threads, x, grid, y, 2, channels, shape);
  for (size_t at = 0; at < 8 * channels; at++) {
    size_t item = at / channels;
    double column = (((double)grid[2 * item] + 1) * 5 - 1) / 2, row = (((double)grid[2 * item + 1] + 1) * 3 - 1) / 2;
    double e = fabs(row) < 100 && fabs(column) < 100
                   ? sampled(x + item / 4 * 15 * channels, 3, 5, channels, row, column, at % channels)
                   : 0;
    assert_near(y[at], e, 2e-6);
  }
  assert_guard(y, 8 * channels);
  free(x);
  free(y);
}

static void test_grid_sample(void **state) {
  (void)state;
  for (size_t channels = 1; channels < 40; channels += 6) grid_sample_one(channels);
}

/* A picture of 5 x 6 of two channels from blocks of 2 x 3, 2 and 1 apart, the columns dilated by 2 and padded by 1. */
static void test_col2im(void **state) {
  (void)state;
  enum { OH = 5, OW = 6, KH = 2, KW = 3, BH = 2, BW = 4, C = 2 };
  static const int64_t shape[] = {1, OH, OW, 1, BH, BW, 1, KH, KW, 1, 2, 1, 1, 1, 2, 0, 0, 1};
  float *x = numbers(C * KH * KW * BH * BW), *y = room(C * OH * OW);
  double e[C * OH * OW] = {0};
  for (size_t at = 0; at < C * KH * KW * BH * BW; at++) {
    size_t bw = at % BW, bh = at / BW % BH, kw = at / (BW * BH) % KW, kh = at / (BW * BH * KW) % KH;
    size_t c = at / (BW * BH * KW * KH), row = 2 * bh + kh, column = bw + 2 * kw; /* counted in the padded picture */
    if (column >= 1 && column <= OW) e[(c * OH + row) * OW + column - 1] += (double)x[at];
  }
  col2im_f32(&three_threads, x, y, C, shape);
  for (size_t at = 0; at < C * OH * OW; at++) assert_near(y[at], e[at], 1e-5);
  assert_guard(y, C * OH * OW);
  free(x);
  free(y);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_max_pool),        cmocka_unit_test(test_average_pool), cmocka_unit_test(test_resize_axis),
      cmocka_unit_test(test_resize_bilinear), cmocka_unit_test(test_grid_sample),  cmocka_unit_test(test_col2im),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
