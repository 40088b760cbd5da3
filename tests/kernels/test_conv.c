/* The convolution kernels against the definition: strides, dilation, padding on any side, groups, three dimensions,
 * runs of a kernel row given as one tap, tails. */
#include "kernel_test.h"
#include "moecc_simd.h"

void conv_f32(const moecc_pool *pool, const float *x, const float *w, float *y, const moecc_operand *o,
              int64_t *scratch, size_t scratch_size, const int64_t *shape, size_t y_row, size_t length, size_t x_group,
              size_t groups, size_t n, size_t depth, size_t block);
void conv_depthwise_f32(const moecc_pool *pool, const float *x, const float *w, float *y, const moecc_operand *o,
                        int64_t *scratch, size_t scratch_size, const int64_t *shape, size_t channels, size_t row);
typedef void depthwise_tile(const moecc_pool *pool, const float *x, const float *w, float *y, const moecc_operand *o,
                            int64_t *scratch, size_t scratch_size, const int64_t *shape, size_t channels, size_t band);
depthwise_tile conv_depthwise_f32_3s1x6, conv_depthwise_f32_3s2x4, conv_depthwise_f32_7s1x7, conv_depthwise_f32_2s3x14;
void conv_any_f64(const moecc_pool *pool, const double *x, const double *w, const double *bias, double *y,
                  const int64_t *shape);
void conv_transpose_f32(const moecc_pool *pool, const float *x, const float *w, const float *bias, float *y,
                        const int64_t *shape);

/* Sizes of a convolution; all in the order z, y, x. */
typedef struct {
  int64_t images, groups, c, n; /* channels of a group */
  int64_t in[3], taps[3], stride[3], step[3], pad[3], pad_end[3];
} Conv;
static const Conv convs[] = {
    {1, 1, 3, 5, {1, 7, 9}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
    {2, 1, 4, 17, {1, 8, 8}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
    {1, 1, 16, 33, {1, 5, 11}, {1, 3, 3}, {1, 1, 1}, {1, 2, 2}, {0, 2, 2}, {0, 2, 2}},
    {1, 3, 2, 3, {1, 6, 6}, {1, 3, 2}, {1, 1, 1}, {1, 1, 1}, {0, 1, 0}, {0, 0, 1}},
    {2, 1, 3, 8, {1, 8, 12}, {1, 4, 4}, {1, 4, 4}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}},
    {1, 1, 2, 4, {4, 5, 6}, {2, 3, 3}, {1, 2, 1}, {2, 1, 1}, {1, 1, 1}, {1, 1, 1}},
    {3, 1, 5, 7, {1, 1, 20}, {1, 1, 5}, {1, 1, 3}, {1, 1, 1}, {0, 0, 2}, {0, 0, 2}},
    {1, 13, 1, 1, {1, 9, 10}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
    {2, 32, 1, 1, {1, 7, 19}, {1, 5, 3}, {1, 2, 2}, {1, 1, 2}, {0, 2, 3}, {0, 2, 3}},
};
enum { CONVS = sizeof convs / sizeof convs[0] };

static int64_t out_size(const Conv *k, int d) {
  return (k->in[d] + k->pad[d] + k->pad_end[d] - k->step[d] * (k->taps[d] - 1) - 1) / k->stride[d] + 1;
}
static size_t product(const int64_t *v) { return (size_t)(v[0] * v[1] * v[2]); }

/* The sum at output channel o of position at: x channels-last, w [o][c][taps]; *size: of the magnitudes. */
static double definition(const Conv *k, const float *x, const float *w, size_t image, int64_t o, const int64_t *at,
                         double *size) {
  double sum = 0;
  int64_t channels = k->groups * k->c;
  *size = 0;
  for (int64_t c = 0; c < k->c; c++)
    for (int64_t t = 0; t < (int64_t)product(k->taps); t++) {
      const int64_t tap[3] = {t / (k->taps[1] * k->taps[2]), t / k->taps[2] % k->taps[1], t % k->taps[2]};
      int64_t pixel = (int64_t)image;
      int inside = 1;
      for (int d = 0; d < 3; d++) {
        int64_t i = at[d] * k->stride[d] + tap[d] * k->step[d] - k->pad[d];
        inside &= i >= 0 && i < k->in[d];
        pixel = pixel * k->in[d] + i;
      }
      if (!inside) continue;
      double v =
          (double)x[pixel * channels + o / k->n * k->c + c] * (double)w[(o * k->c + c) * (int64_t)product(k->taps) + t];
      sum += v;
      *size += fabs(v);
    }
  return sum;
}

static void put(int64_t **t, const int64_t *v, int from) {
  for (int d = from; d < 3; d++) *(*t)++ = v[d];
}
/* The kernels' table; from 1: without z. */
static void make_table(const Conv *k, int64_t *t, int from) {
  int64_t channels = k->groups * k->c, out[3],
          strides[3] = {k->in[1] * k->in[2] * channels, k->in[2] * channels, channels};
  for (int d = 0; d < 3; d++) out[d] = out_size(k, d);
  *t++ = k->images;
  put(&t, k->in, from);
  *t++ = k->in[0] * strides[0];
  put(&t, strides, from);
  put(&t, out, from);
  put(&t, k->taps, from);
  put(&t, k->stride, from);
  put(&t, k->step, from);
  put(&t, k->pad, from);
}

static void check_conv(const Conv *k, const float *x, const float *w, const float *y, const float *bias,
                       const float *residual, const char *what) {
  int64_t out[3], at[3], channels = k->groups * k->n;
  for (int d = 0; d < 3; d++) out[d] = out_size(k, d);
  size_t row = 0;
  for (size_t image = 0; image < (size_t)k->images; image++)
    for (at[0] = 0; at[0] < out[0]; at[0]++)
      for (at[1] = 0; at[1] < out[1]; at[1]++)
        for (at[2] = 0; at[2] < out[2]; at[2]++, row++)
          for (int64_t o = 0; o < channels; o++) {
            size_t i = row * (size_t)channels + (size_t)o;
            double size, sum = definition(k, x, w, image, o, at, &size);
            check_near(y[i], sum + (double)bias[o] + (double)residual[i], size + 2, product(k->taps), what, i);
          }
}

/* w [groups n][c][taps] as panels of each group, taps outside channels. */
static float *pack_conv(const Conv *k, const float *w) {
  size_t taps = product(k->taps), c = (size_t)k->c, n = (size_t)k->n, panels = (n + TEST_NR - 1) / TEST_NR;
  float *out = buffer((size_t)k->groups * panels * taps * c * TEST_NR), *p = out;
  for (size_t g = 0; g < (size_t)k->groups; g++)
    for (size_t panel = 0; panel < panels; panel++)
      for (size_t t = 0; t < taps; t++)
        for (size_t i = 0; i < c; i++)
          for (size_t j = panel * TEST_NR; j < (panel + 1) * TEST_NR; j++)
            *p++ = j < n ? w[((g * n + j) * c + i) * taps + t] : 0.0f;
  return out;
}

/* Every other pixel of y, from the second on, with gaps between them: what phases of a transposed convolution write. */
static void scattered(const Conv *k, const float *x, const float *packed, const float *bias, const float *residual,
                      const float *y, int64_t *table, int64_t *scratch, size_t scratch_size) {
  size_t c = (size_t)k->c, groups = (size_t)k->groups, n = (size_t)k->n, channels = groups * n, pitch = channels + 5;
  size_t pixels = (size_t)(table[0] * table[23 + 1]);
  float *wide = buffer(2 * pixels * pitch), *spread = buffer(2 * pixels * channels);
  for (size_t r = 0; r < pixels; r++)
    memcpy(spread + (2 * r + 1) * channels, residual + r * channels, channels * sizeof *spread);
  const moecc_operand o[] = {{bias, 0}, {spread, channels}};
  table[23] = 1;
  for (int i = 24; i < 28; i++) table[i] *= 2;
  conv_f32(&awkward_pool, x, packed, wide, o, scratch, scratch_size, table, pitch, c, c, groups, n, 1000, 7);
  for (size_t r = 0; r < pixels; r++) {
    check_same(wide + (2 * r + 1) * pitch, y + r * channels, channels, "scattered");
    for (size_t i = 0; i < pitch; i++)
      if (wide[2 * r * pitch + i] != GUARD_VALUE || (i >= channels && wide[(2 * r + 1) * pitch + i] != GUARD_VALUE))
        fail_msg("written beside pixel %zu", r);
  }
  check_guard(wide, 2 * pixels * pitch);
  free(wide), free(spread);
}

static void implicit(void **state) {
  (void)state;
  for (int i = 0; i < CONVS; i++) {
    const Conv *k = &convs[i];
    int64_t table[28], out[3];
    for (int d = 0; d < 3; d++) out[d] = out_size(k, d);
    make_table(k, table, 0);
    const int64_t numbers[5] = {0, (int64_t)product(out), out[1] * out[2], out[2], 1};
    memcpy(table + 23, numbers, sizeof numbers);
    size_t pixels = (size_t)k->images * product(out), outputs = pixels * (size_t)(k->groups * k->n),
           taps = product(k->taps);
    float *x = random_buffer((size_t)(k->images * k->groups * k->c) * product(k->in));
    float *w = random_buffer((size_t)(k->groups * k->n * k->c) * taps), *packed = pack_conv(k, w);
    float *bias = random_buffer((size_t)(k->groups * k->n)), *residual = random_buffer(outputs);
    float *y = buffer(outputs), *again = buffer(outputs);
    const moecc_operand o[] = {{bias, 0}, {residual, (size_t)(k->groups * k->n)}};
    size_t c = (size_t)k->c, groups = (size_t)k->groups, n = (size_t)k->n;
    size_t scratch_size = pixels * (taps + 1 + TEST_NR) + c * taps + TEST_MR * TEST_NR;
    int64_t *scratch = malloc(4 * scratch_size * sizeof *scratch);
    conv_f32(NULL, x, packed, y, o, scratch, scratch_size, table, groups * n, c, c, groups, n, c * taps, pixels);
    check_conv(k, x, w, y, bias, residual, "conv");
    check_guard(y, outputs);
    static const size_t depths[] = {1, 2, 3, 7, 20, 1000};
    for (size_t d = 0; d < sizeof depths / sizeof *depths; d++) {
      conv_f32(&awkward_pool, x, packed, again, o, scratch, scratch_size, table, groups * n, c, c, groups, n, depths[d],
               5 + 9 * d);
      check_same(again, y, outputs, "four threads, blocks, k in pieces");
    }
    if (groups == 1 && k->pad[2] == 0 && k->pad_end[2] == 0 && k->step[2] == 1) { /* kernel rows as runs */
      table[13] = 1;
      conv_f32(NULL, x, packed, again, o, scratch, scratch_size, table, n, c * (size_t)k->taps[2], 0, 1, n, 10, 9);
      check_same(again, y, outputs, "runs");
      table[13] = k->taps[2];
    }
    scattered(k, x, packed, bias, residual, y, table, scratch, scratch_size);
    free(x), free(w), free(packed), free(bias), free(residual), free(y), free(again), free(scratch);
  }
}

static void depthwise(void **state) {
  (void)state;
  int tested = 0;
  for (int i = 0; i < CONVS; i++) {
    const Conv *k = &convs[i];
    if (k->c != 1 || k->n != 1) continue;
    int64_t table[16], out[3];
    for (int d = 0; d < 3; d++) out[d] = out_size(k, d);
    make_table(k, table, 1);
    size_t channels = (size_t)k->groups, row = (channels + 15) / 16 * 16, taps = product(k->taps);
    size_t outputs = (size_t)k->images * product(out) * channels, scratch_size = taps * 16 + row;
    float *x = random_buffer((size_t)k->images * channels * product(k->in)), *w = random_buffer(channels * taps);
    float *packed = buffer(taps * row), *bias = random_buffer(channels), *residual = random_buffer(outputs);
    float *y = buffer(outputs), *again = buffer(outputs);
    int64_t *scratch = malloc(4 * scratch_size * sizeof *scratch);
    for (size_t t = 0; t < taps; t++)
      for (size_t c = 0; c < row; c++) packed[t * row + c] = c < channels ? w[c * taps + t] : 0.0f;
    const moecc_operand o[] = {{bias, 0}, {residual, channels}};
    conv_depthwise_f32(NULL, x, packed, y, o, scratch, scratch_size, table, channels, row);
    check_conv(k, x, w, y, bias, residual, "depthwise");
    check_guard(y, outputs);
    conv_depthwise_f32(&awkward_pool, x, packed, again, o, scratch, scratch_size, table, channels, row);
    check_same(again, y, outputs, "four threads");
    free(x), free(w), free(packed), free(bias), free(residual), free(y), free(again), free(scratch);
    tested++;
  }
  assert_int_equal(tested, 2);
}

/* The tiled kernels, each with its taps, stride and pixels; lines may be dilated. */
static const struct {
  depthwise_tile *kernel;
  size_t pixels;
  Conv k;
} tiles[] = {
    {conv_depthwise_f32_3s1x6, 6, {1, 13, 1, 1, {1, 9, 10}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}},
    {conv_depthwise_f32_3s1x6, 6, {2, 70, 1, 1, {1, 4, 12}, {1, 5, 3}, {1, 2, 1}, {1, 3, 1}, {0, 7, 0}, {0, 6, 2}}},
    {conv_depthwise_f32_3s2x4, 4, {1, 48, 1, 1, {1, 11, 13}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}},
    {conv_depthwise_f32_3s2x4, 4, {3, 5, 1, 1, {1, 1, 30}, {1, 1, 3}, {1, 1, 2}, {1, 1, 1}, {0, 0, 2}, {0, 0, 3}}},
    {conv_depthwise_f32_7s1x7, 7, {1, 33, 1, 1, {1, 7, 7}, {1, 7, 7}, {1, 1, 1}, {1, 1, 1}, {0, 3, 3}, {0, 3, 3}}},
    {conv_depthwise_f32_7s1x7, 7, {1, 16, 1, 1, {1, 20, 23}, {1, 7, 7}, {1, 1, 1}, {1, 1, 1}, {0, 3, 3}, {0, 3, 3}}},
    {conv_depthwise_f32_2s3x14, 14, {2, 17, 1, 1, {1, 3, 50}, {1, 2, 2}, {1, 3, 3}, {1, 1, 1}, {0, 4, 1}, {0, 3, 0}}},
};

static void depthwise_tiles(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++) {
    const Conv *k = &tiles[i].k;
    int64_t table[16], out[3];
    for (int d = 0; d < 3; d++) out[d] = out_size(k, d);
    make_table(k, table, 1);
    size_t channels = (size_t)k->groups, vectors = (channels + VF_LANES - 1) / VF_LANES, taps = product(k->taps);
    size_t outputs = (size_t)k->images * product(out) * channels, wide = (size_t)out[2] + tiles[i].pixels;
    size_t lines = (size_t)((out[1] - 1) * k->stride[1] + (k->taps[1] - 1) * k->step[1] + 1);
    size_t scratch_size = lines * (wide * (size_t)k->stride[2] + (size_t)k->taps[2]) + channels + 16;
    float *x = random_buffer((size_t)k->images * channels * product(k->in)), *w = random_buffer(channels * taps);
    float *packed = buffer(vectors * VF_LANES * taps), *bias = random_buffer(channels);
    float *residual = random_buffer(outputs), *y = buffer(outputs), *again = buffer(outputs);
    int64_t *scratch = malloc(4 * scratch_size * sizeof *scratch);
    for (size_t c = 0; c < vectors * VF_LANES; c++)
      for (size_t t = 0; t < taps; t++)
        packed[(c / VF_LANES * taps + t) * VF_LANES + c % VF_LANES] = c < channels ? w[c * taps + t] : 0.0f;
    const moecc_operand o[] = {{bias, 0}, {residual, channels}};
    tiles[i].kernel(NULL, x, packed, y, o, scratch, scratch_size, table, channels, (size_t)out[1]);
    check_conv(k, x, w, y, bias, residual, "depthwise tile");
    check_guard(y, outputs);
    for (size_t band = 1; band < 4; band++) {
      tiles[i].kernel(&awkward_pool, x, packed, again, o, scratch, scratch_size, table, channels, band);
      check_same(again, y, outputs, "four threads, bands");
    }
    free(x), free(w), free(packed), free(bias), free(residual), free(y), free(again), free(scratch);
  }
}

/* The table of conv_any and conv_transpose for x channels-last. */
static void plain_table(const Conv *k, const int64_t *in, const int64_t *out, int64_t channels, int64_t *t) {
  const int64_t strides[3] = {in[1] * in[2] * channels, in[2] * channels, channels};
  const int64_t head[] = {k->images, k->groups, k->c, k->n, in[0] * strides[0], 1};
  memcpy(t, head, sizeof head);
  t += 6;
  put(&t, in, 0);
  put(&t, strides, 0);
  put(&t, out, 0);
  put(&t, k->taps, 0);
  put(&t, k->stride, 0);
  put(&t, k->step, 0);
  put(&t, k->pad, 0);
}

static void any_type(void **state) {
  (void)state;
  for (int i = 0; i < CONVS; i++) {
    const Conv *k = &convs[i];
    int64_t table[27], out[3], at[3];
    for (int d = 0; d < 3; d++) out[d] = out_size(k, d);
    size_t inputs = (size_t)(k->images * k->groups * k->c) * product(k->in), positions = product(out);
    size_t weights = (size_t)(k->groups * k->n * k->c) * product(k->taps), channels = (size_t)(k->groups * k->n);
    float *x = random_buffer(inputs), *w = random_buffer(weights);
    double *xd = malloc(inputs * sizeof *xd), *wd = malloc(weights * sizeof *wd);
    double *y = malloc((size_t)k->images * channels * positions * sizeof *y);
    for (size_t j = 0; j < inputs; j++) xd[j] = (double)x[j];
    for (size_t j = 0; j < weights; j++) wd[j] = (double)w[j];
    plain_table(k, k->in, out, k->groups * k->c, table);
    conv_any_f64(&awkward_pool, xd, wd, NULL, y, table);
    size_t row = 0;
    for (size_t image = 0; image < (size_t)k->images; image++)
      for (row = 0; row < positions; row++)
        for (int64_t o = 0; o < (int64_t)channels; o++) {
          double size;
          at[0] = (int64_t)row / (out[1] * out[2]);
          at[1] = (int64_t)row / out[2] % out[1];
          at[2] = (int64_t)row % out[2];
          assert_true(fabs(y[(image * channels + (size_t)o) * positions + row] -
                           definition(k, x, w, image, o, at, &size)) < 1e-12);
        }
    free(x), free(w), free(xd), free(wd), free(y);
  }
}

/* The transposed convolution is the adjoint: each input spreads over the outputs. */
static void transposed(void **state) {
  (void)state;
  for (int i = 0; i < CONVS; i++) {
    const Conv *k = &convs[i];
    int64_t table[27], out[3];
    for (int d = 0; d < 3; d++)
      out[d] = (k->in[d] - 1) * k->stride[d] + k->step[d] * (k->taps[d] - 1) + 1 - k->pad[d] - k->pad_end[d];
    size_t taps = product(k->taps), positions = product(out), places = product(k->in);
    int64_t ins = k->groups * k->c, outs = k->groups * k->n;
    float *x = random_buffer((size_t)(k->images * ins) * places), *w = random_buffer((size_t)(ins * k->n) * taps);
    float *bias = random_buffer((size_t)outs), *y = buffer((size_t)(k->images * outs) * positions);
    double *want = zeros(positions * (size_t)(k->images * outs));
    for (size_t image = 0; image < (size_t)k->images; image++)
      for (size_t p = 0; p < places; p++)
        for (int64_t c = 0; c < ins; c++)
          for (int64_t o = 0; o < k->n; o++)
            for (size_t t = 0; t < taps; t++) {
              const int64_t tap[3] = {(int64_t)t / (k->taps[1] * k->taps[2]), (int64_t)t / k->taps[2] % k->taps[1],
                                      (int64_t)t % k->taps[2]};
              const int64_t from[3] = {(int64_t)p / (k->in[1] * k->in[2]), (int64_t)p / k->in[2] % k->in[1],
                                       (int64_t)p % k->in[2]};
              int64_t to = (int64_t)image * outs + c / k->c * k->n + o;
              int inside = 1;
              for (int d = 0; d < 3; d++) {
                int64_t at = from[d] * k->stride[d] + tap[d] * k->step[d] - k->pad[d];
                inside &= at >= 0 && at < out[d];
                to = to * out[d] + at;
              }
              if (inside)
                want[to] += (double)x[((size_t)image * places + p) * (size_t)ins + (size_t)c] *
                            (double)w[(size_t)(c * k->n + o) * taps + t];
            }
    plain_table(k, k->in, out, ins, table);
    conv_transpose_f32(&awkward_pool, x, w, bias, y, table);
    for (size_t j = 0; j < (size_t)(k->images * outs) * positions; j++)
      check_near(y[j], want[j] + (double)bias[j / positions % (size_t)outs], 20, 100, "transposed", j);
    check_guard(y, (size_t)(k->images * outs) * positions);
    free(x), free(w), free(bias), free(y), free(want);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(implicit), cmocka_unit_test(depthwise),
                                     cmocka_unit_test(depthwise_tiles), cmocka_unit_test(any_type),
                                     cmocka_unit_test(transposed)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
