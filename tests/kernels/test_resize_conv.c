/* The convolution of a resampled picture against the definition in double: the picture made first, padded with zeros,
 * then convolved. Any resampling is a table to the kernel: half pixels and corners, nearest, three and four elements
 * near, factors that are no whole numbers, rows that read nothing; strides, dilation, padding on any side. And the
 * kernel that multiplies the result at once against the two one after the other. */
#include "kernel_test.h"

void resize_conv_f32(const moecc_pool *pool, const float *x, const float *w, const float *wy, const float *wx, float *y,
                     const moecc_operand *o, float *scratch, size_t scratch_size, int64_t *lists, size_t lists_size,
                     const int64_t *shape, const int64_t *rows, const int64_t *columns);

void resize_conv_point_f32(const moecc_pool *pool, const float *x, const float *w, const float *wy, const float *wx,
                           const moecc_operand *o, const float *v, float *y, const moecc_operand *result_o,
                           float *scratch, size_t scratch_size, int64_t *lists, size_t lists_size, const int64_t *shape,
                           const int64_t *rows, const int64_t *columns, size_t q, size_t first, size_t all);

typedef enum { HALF_PIXEL, ASYMMETRIC, CORNERS, NEAREST, RANDOM_3 } Mode;

/* Sizes in the order y, x; block, band and run as given to the kernel. */
typedef struct {
  int64_t images, c, n, in[2], middle[2], taps[2], stride[2], step[2], pad[2], pad_end[2], block, band, run;
  Mode mode;
} Case;
static const Case cases[] = {
    {1, 3, 5, {4, 5}, {8, 10}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 2, 10, 1, HALF_PIXEL},
    {2, 17, 33, {5, 7}, {10, 14}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 4, 14, 2, HALF_PIXEL},
    {1, 1, 1, {1, 1}, {2, 2}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 2, 2, 1, HALF_PIXEL},
    {1, 2, 17, {2, 1}, {4, 2}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 4, 2, 3, HALF_PIXEL},
    {1, 256, 70, {6, 4}, {12, 8}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 2, 4, 4, HALF_PIXEL},
    {3, 3, 17, {9, 20}, {18, 40}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 6, 8, 2, HALF_PIXEL},
    {1, 5, 9, {4, 6}, {8, 12}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 2, 12, 1, ASYMMETRIC},
    {1, 5, 9, {4, 6}, {8, 12}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 2, 12, 1, NEAREST},
    {1, 4, 8, {5, 3}, {13, 11}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 4, 6, 3, CORNERS},
    {1, 6, 20, {3, 4}, {7, 6}, {1, 1}, {1, 1}, {1, 1}, {0, 0}, {0, 0}, 2, 6, 2, HALF_PIXEL},
    {1, 3, 18, {6, 5}, {12, 15}, {5, 3}, {2, 1}, {1, 2}, {2, 0}, {1, 3}, 4, 10, 5, HALF_PIXEL},
    {1, 2, 6, {3, 3}, {6, 6}, {3, 3}, {1, 1}, {1, 1}, {7, 6}, {6, 8}, 2, 4, 1, HALF_PIXEL},
    {2, 3, 11, {7, 6}, {9, 8}, {2, 4}, {1, 3}, {3, 1}, {1, 2}, {2, 1}, 4, 2, 2, RANDOM_3},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static size_t near_of(Mode mode) { return mode == NEAREST ? 1 : mode == RANDOM_3 ? 3 : 2; }

/* What element i of an axis resampled from n to m elements is made of. */
static void sample(Mode mode, int64_t n, int64_t m, int64_t i, int64_t *index, float *weight) {
  double scale = (double)n / (double)m, at = ((double)i + 0.5) * scale - 0.5;
  if (mode == ASYMMETRIC || mode == NEAREST) at = (double)i * scale;
  if (mode == CORNERS) at = m > 1 ? (double)(i * (n - 1)) / (double)(m - 1) : 0;
  int64_t base = (int64_t)floor(at);
  for (int64_t k = 0; k < (int64_t)near_of(mode); k++) {
    int64_t j = base + k;
    index[k] = j < 0 ? 0 : j >= n ? n - 1 : j;
    weight[k] = mode == RANDOM_3 ? random_float() : (float)fmax(0, 1 - fabs(at - (double)j));
    if (mode == NEAREST) weight[k] = 1;
  }
}

typedef struct {
  int64_t *index[2];
  float *weight[2];
} Samples;

static Samples make_samples(const Case *k) {
  Samples s;
  size_t near = near_of(k->mode);
  for (int d = 0; d < 2; d++) {
    s.index[d] = malloc((size_t)k->middle[d] * near * sizeof *s.index[d]);
    s.weight[d] = malloc((size_t)k->middle[d] * near * sizeof *s.weight[d]);
    for (size_t i = 0; i < (size_t)k->middle[d]; i++)
      sample(k->mode, k->in[d], k->middle[d], (int64_t)i, s.index[d] + i * near, s.weight[d] + i * near);
  }
  return s;
}

static int64_t out_size(const Case *k, int d) {
  return (k->middle[d] + k->pad[d] + k->pad_end[d] - k->step[d] * (k->taps[d] - 1) - 1) / k->stride[d] + 1;
}

/* The resampled picture at channel c. */
static double resampled(const Case *k, const Samples *s, const float *x, int64_t r, int64_t col, int64_t c) {
  size_t near = near_of(k->mode);
  double sum = 0;
  for (size_t i = 0; i < near; i++)
    for (size_t j = 0; j < near; j++) {
      size_t a = (size_t)r * near + i, b = (size_t)col * near + j;
      sum += (double)s->weight[0][a] * (double)s->weight[1][b] *
             (double)x[(s->index[0][a] * k->in[1] + s->index[1][b]) * k->c + c];
    }
  return sum;
}

/* middle [r][col][c] convolved at output channel o of pixel (r, c); w [n][c][taps]. */
static double convolved(const Case *k, const double *middle, const float *w, int64_t o, int64_t r, int64_t c) {
  double sum = 0;
  for (int64_t a = 0; a < k->taps[0]; a++)
    for (int64_t b = 0; b < k->taps[1]; b++) {
      int64_t i = r * k->stride[0] + a * k->step[0] - k->pad[0], j = c * k->stride[1] + b * k->step[1] - k->pad[1];
      if (i < 0 || i >= k->middle[0] || j < 0 || j >= k->middle[1]) continue;
      for (int64_t q = 0; q < k->c; q++)
        sum +=
            middle[(i * k->middle[1] + j) * k->c + q] * (double)w[((o * k->c + q) * k->taps[0] + a) * k->taps[1] + b];
    }
  return sum;
}

static void check_case(const Case *k, const Samples *s, const float *x, const float *w, const float *y,
                       const float *bias, const float *residual) {
  int64_t pixels = k->middle[0] * k->middle[1], oh = out_size(k, 0), ow = out_size(k, 1);
  double *middle = zeros((size_t)(pixels * k->c));
  size_t e = 0;
  for (int64_t image = 0; image < k->images; image++) {
    const float *from = x + image * k->in[0] * k->in[1] * k->c;
    for (int64_t p = 0; p < pixels * k->c; p++)
      middle[p] = resampled(k, s, from, p / k->c / k->middle[1], p / k->c % k->middle[1], p % k->c);
    for (int64_t p = 0; p < oh * ow; p++)
      for (int64_t o = 0; o < k->n; o++, e++)
        check_near(y[e], convolved(k, middle, w, o, p / ow, p % ow) + (double)bias[o] + (double)residual[e],
                   2 + (double)(k->c * k->taps[0] * k->taps[1]), 1, "resize_conv", e);
  }
  free(middle);
}

/* As the compiler packs a convolution's weights: panels, taps, channels. */
static float *pack(const Case *k, const float *w) {
  size_t taps = (size_t)(k->taps[0] * k->taps[1]), c = (size_t)k->c, n = (size_t)k->n;
  size_t panels = (n + TEST_NR - 1) / TEST_NR;
  float *out = buffer(panels * taps * c * TEST_NR), *p = out;
  for (size_t panel = 0; panel < panels; panel++)
    for (size_t t = 0; t < taps; t++)
      for (size_t i = 0; i < c; i++)
        for (size_t j = panel * TEST_NR; j < (panel + 1) * TEST_NR; j++)
          *p++ = j < n ? w[(j * c + i) * taps + t] : 0.0f;
  return out;
}

/* Elements of x that `count` of y need at most: counted by the table, from every multiple of count on. */
static int64_t needed(const Case *k, const Samples *s, int d, int64_t count) {
  int64_t most = 1, near = (int64_t)near_of(k->mode);
  for (int64_t from = 0; from < out_size(k, d); from += count) {
    int64_t first = k->in[d], last = 0;
    for (int64_t i = from; i < from + count && i < out_size(k, d); i++)
      for (int64_t t = 0; t < k->taps[d]; t++) {
        int64_t m = i * k->stride[d] + t * k->step[d] - k->pad[d];
        for (int64_t j = m * near; m >= 0 && m < k->middle[d] && j < (m + 1) * near; j++) {
          if (s->index[d][j] < first) first = s->index[d][j];
          if (s->index[d][j] >= last) last = s->index[d][j] + 1;
        }
      }
    if (last - first > most) most = last - first;
  }
  return most;
}

static void make_table(const Case *k, const Samples *s, int64_t pitch, int64_t *t) {
  const int64_t head[] = {k->images, k->c, k->n, k->in[0] * k->in[1] * k->c, k->in[1] * k->c, k->c, pitch};
  memcpy(t, head, sizeof head);
  t += 7;
  for (int d = 0; d < 2; d++, t += 8) {
    const int64_t extent[] = {k->in[d],     k->middle[d], out_size(k, d), k->taps[d],
                              k->stride[d], k->step[d],   k->pad[d],      (int64_t)near_of(k->mode)};
    memcpy(t, extent, sizeof extent);
  }
  const int64_t tail[] = {k->block, k->band, needed(k, s, 0, k->block), needed(k, s, 1, k->band), k->run};
  memcpy(t, tail, sizeof tail);
}

/* What a kernel needs besides: its table, and memory for four threads with guards behind it. */
typedef struct {
  int64_t table[28], *list;
  size_t floats, lists;
  float *scratch;
} Memory;

static Memory make_memory(const Case *k, const Samples *s, int64_t pitch, size_t more) {
  Memory m;
  make_table(k, s, pitch, m.table);
  int64_t near = (int64_t)near_of(k->mode), ring = m.table[25], wide = m.table[26], pairs = k->band / 2;
  m.floats = (size_t)((k->taps[0] * ring * k->band + k->taps[1] * k->run * wide) * TEST_NR) + more;
  m.lists = (size_t)(4 * (pairs * k->taps[1] + k->taps[0]) * near + k->run * wide + pairs);
  m.scratch = buffer(4 * m.floats);
  m.list = malloc((4 * m.lists + 1) * sizeof *m.list);
  m.list[4 * m.lists] = 4711;
  return m;
}

static void end_memory(Memory *m) {
  check_guard(m->scratch, 4 * m->floats);
  assert_int_equal(m->list[4 * m->lists], 4711);
  free(m->scratch), free(m->list);
}

static void run(const moecc_pool *pool, const Case *k, const Samples *s, const float *x, const float *packed,
                int64_t pitch, float *y, const moecc_operand *o) {
  Memory m = make_memory(k, s, pitch, 0);
  resize_conv_f32(pool, x, packed, s->weight[0], s->weight[1], y, o, m.scratch, m.floats, m.list, m.lists, m.table,
                  s->index[0], s->index[1]);
  end_memory(&m);
}

enum { POINT_ROWS = 6, POINT_COLUMNS = 16 }; /* the template's defaults */

static void run_point(const moecc_pool *pool, const Case *k, const Samples *s, const float *x, const float *packed,
                      const moecc_operand *o, const float *v, size_t q, int64_t pitch, float *y,
                      const moecc_operand *result) {
  Memory m = make_memory(k, s, pitch, 4 * POINT_ROWS * TEST_NR);
  resize_conv_point_f32(pool, x, packed, s->weight[0], s->weight[1], o, v, y, result, m.scratch, m.floats, m.list,
                        m.lists, m.table, s->index[0], s->index[1], q, 0, (size_t)k->n);
  end_memory(&m);
}

/* The same in calls for a panel of the columns between each, v being n rows of q. */
static void run_point_pieces(const Case *k, const Samples *s, const float *x, const float *packed,
                             const moecc_operand *o, const float *v, size_t q, int64_t pitch, float *y,
                             const moecc_operand *result) {
  const size_t n = (size_t)k->n, each = TEST_NR * (size_t)(k->c * k->taps[0] * k->taps[1]);
  for (size_t first = 0; first < n; first += TEST_NR) {
    Case part = *k;
    part.n = n - first < TEST_NR ? (int64_t)(n - first) : TEST_NR;
    float *rows = pack_panels(v + first * q, (size_t)part.n, q, POINT_COLUMNS);
    const moecc_operand own[] = {{o[0].p + first, 0}, {o[1].p + first, n}};
    Memory m = make_memory(&part, s, pitch, 4 * POINT_ROWS * TEST_NR);
    resize_conv_point_f32(NULL, x, packed + first / TEST_NR * each, s->weight[0], s->weight[1], own, rows, y, result,
                          m.scratch, m.floats, m.list, m.lists, m.table, s->index[0], s->index[1], q, first, n);
    end_memory(&m);
    free(rows);
  }
}

static void against_definition(void **state) {
  (void)state;
  for (int i = 0; i < CASES; i++) {
    const Case *k = &cases[i];
    Samples s = make_samples(k);
    size_t outputs = (size_t)(k->images * out_size(k, 0) * out_size(k, 1) * k->n);
    float *x = random_buffer((size_t)(k->images * k->in[0] * k->in[1] * k->c));
    float *w = random_buffer((size_t)(k->n * k->c * k->taps[0] * k->taps[1])), *packed = pack(k, w);
    float *bias = random_buffer((size_t)k->n), *residual = random_buffer(outputs);
    float *y = buffer(outputs), *again = buffer(outputs);
    const moecc_operand o[] = {{bias, 0}, {residual, (size_t)k->n}};
    run(NULL, k, &s, x, packed, k->n, y, o);
    check_case(k, &s, x, w, y, bias, residual);
    check_guard(y, outputs);
    run(&awkward_pool, k, &s, x, packed, k->n, again, o);
    check_same(again, y, outputs, "four threads");
    for (int d = 0; d < 2; d++) free(s.index[d]), free(s.weight[d]);
    free(x), free(w), free(packed), free(bias), free(residual), free(y), free(again);
  }
}

/* The same bits however the picture is cut, and with gaps between y's pixels. */
static void cuts(void **state) {
  (void)state;
  Case k = {1, 9, 40, {11, 13}, {22, 26}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 2, 26, 1, HALF_PIXEL};
  Samples s = make_samples(&k);
  size_t outputs = (size_t)(22 * 26 * k.n);
  float *x = random_buffer(11 * 13 * 9), *w = random_buffer(40 * 9 * 9), *packed = pack(&k, w), *y[4];
  float *bias = random_buffer(40), *residual = random_buffer(outputs);
  const moecc_operand o[] = {{bias, 0}, {residual, (size_t)k.n}};
  static const int64_t block[] = {2, 22, 6, 8}, band[] = {26, 26, 4, 10}, runs[] = {1, 3, 2, 11};
  for (int i = 0; i < 4; i++) {
    k.block = block[i];
    k.band = band[i];
    k.run = runs[i];
    run(i == 2 ? &awkward_pool : NULL, &k, &s, x, packed, k.n, y[i] = buffer(outputs), o);
    check_same(y[i], y[0], outputs, "blocks and bands");
  }
  float *wide = buffer(22 * 26 * 43);
  run(NULL, &k, &s, x, packed, 43, wide, o);
  for (size_t i = 0; i < 22 * 26; i++) {
    check_same(wide + i * 43, y[0] + i * 40, 40, "pixels with gaps");
    for (size_t c = 40; c < 43; c++) assert_true(wide[i * 43 + c] == GUARD_VALUE);
  }
  for (int i = 0; i < 4; i++) free(y[i]);
  free(wide);
  for (int d = 0; d < 2; d++) free(s.index[d]), free(s.weight[d]);
  free(x), free(w), free(packed), free(bias), free(residual);
}

/* Two kernels in one: y must be the pointwise product of what resize_conv makes, of the same bits however it is cut. */
static void check_point(const Case *k, size_t q, size_t pitch) {
  Samples s = make_samples(k);
  size_t n = (size_t)k->n, pixels = (size_t)(k->images * out_size(k, 0) * out_size(k, 1));
  float *x = random_buffer((size_t)(k->images * k->in[0] * k->in[1] * k->c));
  float *w = random_buffer(n * (size_t)(k->c * k->taps[0] * k->taps[1])), *packed = pack(k, w);
  float *v = random_buffer(n * q), *v_packed = pack_panels(v, n, q, POINT_COLUMNS);
  float *bias = random_buffer(n), *residual = random_buffer(pixels * n), *map = buffer(pixels * n);
  float *last_bias = random_buffer(q), *last_residual = random_buffer(pixels * q);
  float *y = buffer(pixels * pitch), *again = buffer(pixels * pitch);
  const moecc_operand o[] = {{bias, 0}, {residual, n}}, result[] = {{last_bias, 0}, {last_residual, q}};
  run(NULL, k, &s, x, packed, k->n, map, o);
  run_point(NULL, k, &s, x, packed, o, v_packed, q, (int64_t)pitch, y, result);
  check_guard(y, pixels * pitch);
  for (size_t i = 0; i < pixels; i++) {
    for (size_t j = 0; j < q; j++) {
      double sum = (double)last_bias[j] + (double)last_residual[i * q + j], size = 2;
      for (size_t c = 0; c < n; c++) {
        sum += (double)map[i * n + c] * (double)v[c * q + j];
        size += fabs((double)map[i * n + c]);
      }
      check_near(y[i * pitch + j], sum, size, n, "resize_conv_point", i * q + j);
    }
    for (size_t j = q; j < pitch; j++) assert_true(y[i * pitch + j] == GUARD_VALUE);
  }
  Case other = *k;
  run_point(&awkward_pool, k, &s, x, packed, o, v_packed, q, (int64_t)pitch, again, result);
  check_same(again, y, pixels * pitch, "four threads");
  other.block += 2;
  other.band = other.band > 2 ? other.band - 2 : 4;
  run_point(&awkward_pool, &other, &s, x, packed, o, v_packed, q, (int64_t)pitch, again, result);
  check_same(again, y, pixels * pitch, "other blocks and bands");
  run_point_pieces(k, &s, x, packed, o, v, q, (int64_t)pitch, again, result);
  check_same(again, y, pixels * pitch, "piece by piece");
  for (int d = 0; d < 2; d++) free(s.index[d]), free(s.weight[d]);
  free(x), free(w), free(packed), free(v), free(v_packed), free(bias), free(residual), free(map);
  free(last_bias), free(last_residual), free(y), free(again);
}

static void point(void **state) {
  (void)state;
  static const size_t columns[] = {1, POINT_COLUMNS, 21, 2 * POINT_COLUMNS + 3, 7};
  for (size_t i = 0; i < CASES; i++) {
    size_t q = columns[i % (sizeof columns / sizeof *columns)];
    check_point(&cases[i], q, i % 2 ? q : q + 3);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(against_definition), cmocka_unit_test(cuts),
                                     cmocka_unit_test(point)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
