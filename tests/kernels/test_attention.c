/* The kernel attention against the formula: odd sizes, strided operands, masks of every broadcast, causality. */
#include "kernel_test.h"

void attention_f32(const moecc_pool *pool, const float *q, const float *k, const float *v, const float *mask,
                   const float *factor, float *y, float *scratch, const int64_t *shape, size_t block, size_t score_row,
                   size_t scratch_size, float scale, float least);
/* The same with wider panels of values. */
void attention_f32_wide(const moecc_pool *pool, const float *q, const float *k, const float *v, const float *mask,
                        const float *factor, float *y, float *scratch, const int64_t *shape, size_t block,
                        size_t score_row, size_t scratch_size, float scale, float least);
typedef void Attention(const moecc_pool *pool, const float *q, const float *k, const float *v, const float *mask,
                       const float *factor, float *y, float *scratch, const int64_t *shape, size_t block,
                       size_t score_row, size_t scratch_size, float scale, float least);

typedef struct {
  size_t batches, heads, queries, keys, depth, width;
  int causal, mask; /* mask: 0 none, 1 [B,1,1,S], 2 [1,H,T,S], 3 [1,1,T,1], 4 with -inf */
  int negative;     /* the scale */
  int cosine;       /* 0 no, 1 with lengths, 2 where `least` is longer than all of them */
  int factor;       /* 0 none, 1 for each head, 2 for each head of each batch */
} Case;
static const Case cases[] = {
    {1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0},       {2, 3, 65, 65, 16, 16, 0, 0, 0, 0, 0},
    {1, 2, 7, 33, 24, 40, 0, 1, 0, 0, 0},    {2, 2, 19, 19, 8, 8, 1, 0, 0, 0, 0},
    {1, 3, 30, 17, 5, 3, 0, 2, 0, 0, 0},     {2, 1, 13, 50, 64, 64, 0, 3, 0, 0, 0},
    {1, 2, 129, 129, 64, 64, 0, 0, 0, 0, 0}, {2, 2, 10, 37, 12, 33, 0, 4, 0, 0, 0},
    {1, 1, 40, 70, 32, 32, 1, 2, 0, 0, 0},   {1, 2, 20, 23, 18, 7, 0, 0, 1, 0, 0},
    {1, 1, 5, 200, 48, 96, 0, 0, 0, 0, 0},   {1, 2, 31, 31, 96, 48, 1, 0, 1, 0, 0},
    {2, 3, 21, 35, 32, 32, 0, 2, 0, 1, 1},   {3, 2, 64, 64, 33, 16, 0, 0, 0, 1, 2},
    {1, 3, 9, 40, 7, 20, 0, 1, 1, 2, 0},     {2, 2, 17, 17, 8, 8, 1, 0, 1, 0, 2},
};

static double length(const float *x, size_t n, double least) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
  return sqrt(sum) > least ? sqrt(sum) : least;
}

static size_t padded(size_t n) { return (n + TEST_NR - 1) / TEST_NR * TEST_NR; }

/* q, k and v lie in one buffer as a fused projection leaves them: [B][T][3][H][D]. */
static void one_case(const Case *c, Attention *attention, size_t vn) {
  size_t row_q = c->heads * c->depth, row_v = c->heads * c->width, B = c->batches, H = c->heads, T = c->queries,
         S = c->keys;
  const size_t block = 1 + (B + T + S) % 11, score_row = padded(S);
  float *q = random_buffer(B * T * row_q), *k = random_buffer(B * S * row_q), *v = random_buffer(B * S * row_v);
  const int in_place = c->width % vn == 0 && (S + T) % 2 == 0;
  size_t outputs = B * T * row_v, values = in_place ? 0 : (c->width + vn - 1) / vn * vn * S;
  size_t scratch_size = (score_row * c->depth + values + block * (score_row + 3) + 15) / 16 * 16;
  float *y = buffer(outputs), *again = buffer(outputs), *scratch = buffer(4 * scratch_size);
  float *mask = random_buffer(B * H * T * S);
  if (c->mask == 4)
    for (size_t i = 0; i < B * S; i++)
      if (i % S % 3 == 1) mask[i] = -INFINITY;
  const int64_t mask_strides[5][4] = {
      {0}, {(int64_t)S, 0, 0, 1}, {0, (int64_t)(T * S), (int64_t)S, 1}, {0, 0, 1, 0}, {(int64_t)S, 0, 0, 1}};
  const int64_t *m = mask_strides[c->mask];
  int64_t shape[] = {(int64_t)B,
                     (int64_t)H,
                     (int64_t)T,
                     (int64_t)S,
                     (int64_t)c->depth,
                     (int64_t)c->width,
                     c->causal,
                     (int64_t)(T * row_q),
                     (int64_t)c->depth,
                     (int64_t)row_q,
                     (int64_t)(S * row_q),
                     (int64_t)c->depth,
                     (int64_t)row_q,
                     (int64_t)(S * row_v),
                     (int64_t)c->width,
                     (int64_t)row_v,
                     (int64_t)(T * row_v),
                     (int64_t)c->width,
                     (int64_t)row_v,
                     m[0],
                     m[1],
                     m[2],
                     m[3],
                     c->factor == 2 ? (int64_t)H : 0,
                     1,
                     in_place};
  float scale = (c->negative ? -3.0f : 3.0f) / sqrtf((float)c->depth);
  float *factors = random_buffer(B * H);
  const float *masked = c->mask ? mask : NULL, *factor = c->factor ? factors : NULL;
  const float least = c->cosine == 0 ? 0.0f : c->cosine == 1 ? 1e-12f : 50.0f;
  attention(NULL, q, k, v, masked, factor, y, scratch, shape, block, score_row, scratch_size, scale, least);
  double *e = malloc(S * sizeof *e);
  for (size_t b = 0; b < B; b++)
    for (size_t h = 0; h < H; h++)
      for (size_t t = 0; t < T; t++) {
        double sum = 0, most = -INFINITY;
        size_t seen = c->causal && t + 1 < S ? t + 1 : S;
        for (size_t s = 0; s < seen; s++) {
          e[s] = 0;
          for (size_t d = 0; d < c->depth; d++)
            e[s] +=
                (double)q[(b * T + t) * row_q + h * c->depth + d] * (double)k[(b * S + s) * row_q + h * c->depth + d];
          e[s] *= (double)scale * (factor ? (double)factor[(c->factor == 2 ? b * H : 0) + h] : 1.0);
          if (c->cosine) e[s] /= length(&q[(b * T + t) * row_q + h * c->depth], c->depth, (double)least);
          if (c->cosine) e[s] /= length(&k[(b * S + s) * row_q + h * c->depth], c->depth, (double)least);
          if (masked)
            e[s] += (double)mask[(int64_t)b * m[0] + (int64_t)h * m[1] + (int64_t)t * m[2] + (int64_t)s * m[3]];
          if (e[s] > most) most = e[s];
        }
        for (size_t s = 0; s < seen; s++) sum += e[s] = exp(e[s] - most);
        for (size_t w = 0; w < c->width; w++) {
          double want = 0;
          for (size_t s = 0; s < seen; s++) want += e[s] / sum * (double)v[(b * S + s) * row_v + h * c->width + w];
          check_near(y[(b * T + t) * row_v + h * c->width + w], want, 3, S, "attention", t);
        }
      }
  check_guard(y, outputs), check_guard(scratch, 4 * scratch_size);
  attention(&awkward_pool, q, k, v, masked, factor, again, scratch, shape, block, score_row, scratch_size, scale,
            least);
  check_same(again, y, outputs, "four threads");
  shape[2] = 1; /* a single query gives the bits it gave among others */
  attention(NULL, q, k, v, masked, factor, again, scratch, shape, block, score_row, scratch_size, scale, least);
  check_same(again, y, row_v, "one query");
  free(q), free(k), free(v), free(y), free(again), free(scratch), free(mask), free(e), free(factors);
}

static void all_cases(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    one_case(&cases[i], attention_f32, 16);
    one_case(&cases[i], attention_f32_wide, 32);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(all_cases)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
