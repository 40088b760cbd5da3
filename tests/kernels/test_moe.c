/* The kernels of a mixture of experts: choice and weights of every gate, ties, NaN; queues; an expert's layers on a
 * queue; and the whole against the formula, expert-major and token-major with the same bits. */
#include "kernel_test.h"

void moe_route_f32(const moecc_pool *pool, const float *scores, float *weight, uint32_t *expert, uint32_t *token,
                   float *sums, uint32_t *flags, size_t score_row, size_t tokens, size_t first, size_t count,
                   size_t all, size_t k, size_t gate, size_t normalize);
void moe_queue(const uint32_t *expert, const float *weight, uint32_t *begin, uint32_t *token, float *queued,
               size_t tokens, size_t experts, size_t k);
void moe_expert_in_f32(const moecc_pool *pool, const float *x, const float *w, const float *b, const uint32_t *token,
                       float *hidden, size_t first, size_t count, size_t x_row, size_t k, size_t n, size_t hidden_row,
                       size_t block);
void moe_expert_out_f32(const moecc_pool *pool, const float *hidden, const float *w, const float *b,
                        const uint32_t *token, const float *weight, float *y, size_t first, size_t count, size_t k,
                        size_t n, size_t y_row, size_t block);

static void choice(void **state) {
  (void)state;
  const float scores[] = {1, 3, 3, 0, 2, 3, 9, 5, NAN, 5, 5, -1, 7, 9, NAN, NAN, 1, NAN, NAN, NAN, 9};
  uint32_t expert[9], token[9], flags = 0;
  float weight[9];
  moe_route_f32(NULL, scores, weight, expert, token, NULL, &flags, 7, 1, 0, 6, 6, 3, 2, 0);
  assert_int_equal(flags, 0);
  moe_route_f32(&awkward_pool, scores, weight, expert, token, NULL, &flags, 7, 3, 0, 6, 6, 3, 2, 0);
  const uint32_t want[] = {1, 2, 5, 0, 2, 5, 0, 1, 2};
  const float weights[] = {3, 3, 3, 5, 5, 7, 0, 0, 1};
  for (size_t i = 0; i < 9; i++) {
    assert_int_equal(expert[i], want[i]);
    assert_int_equal(token[i], i / 3);
    assert_true(weight[i] == weights[i]);
  }
  assert_int_equal(flags, MOECC_FLAG_NAN_SCORE);
}

/* Many experts: against a choice by counting, with equal scores and NaN anywhere, and all NaN. */
static void choice_of_many(void **state) {
  (void)state;
  enum { MOST = 150, K = 7 };
  for (size_t round = 0; round < 400; round++) {
    const size_t experts = K + round % (MOST - K);
    float scores[MOST], weight[K];
    uint32_t expert[K], token[K], flags = 0;
    int nan = 0;
    for (size_t e = 0; e < experts; e++) {
      const int is_nan = round % 4 == 3 && (round % 16 == 15 || random_float() > 0.5f);
      scores[e] = is_nan ? NAN : floorf(20 * random_float()) / 4;
      nan |= is_nan;
    }
    moe_route_f32(&awkward_pool, scores, weight, expert, token, NULL, &flags, experts, 1, 0, experts, experts, K, 2, 0);
    assert_int_equal(flags, nan ? MOECC_FLAG_NAN_SCORE : 0);
    for (size_t e = 0, i = 0; e < experts; e++) {
      size_t before = 0; /* experts to be chosen before this one */
      for (size_t o = 0; o < experts; o++) {
        const int same = scores[o] == scores[e] || (isnan(scores[o]) && isnan(scores[e]));
        before += scores[o] > scores[e] || (isnan(scores[e]) && !isnan(scores[o])) || (same && o < e);
      }
      if (before < K) assert_int_equal(expert[i++], e);
    }
  }
}

static void gates(void **state) {
  (void)state;
  enum { EXPERTS = 37, K = 5 };
  for (size_t gate = 0; gate < 3; gate++)
    for (size_t normalize = 0; normalize < 2; normalize++) {
      float scores[EXPERTS], weight[K];
      uint32_t expert[K], token[K], flags = 0;
      double all = 0, chosen = 0, total = 0;
      for (size_t e = 0; e < EXPERTS; e++) scores[e] = 4 + 4 * random_float();
      moe_route_f32(NULL, scores, weight, expert, token, NULL, &flags, EXPERTS, 1, 0, EXPERTS, EXPERTS, K, gate,
                    normalize);
      for (size_t e = 0; e < EXPERTS; e++) all += exp((double)scores[e]);
      for (size_t i = 0; i < K; i++) {
        size_t better = 0;
        for (size_t e = 0; e < EXPERTS; e++) better += scores[e] > scores[expert[i]];
        assert_true(better < K && (i == 0 || expert[i] > expert[i - 1]));
        chosen += exp((double)scores[expert[i]]);
      }
      double want[K];
      for (size_t i = 0; i < K; i++) {
        double s = (double)scores[expert[i]];
        total += want[i] = gate == 0 ? exp(s) / all : gate == 1 ? exp(s) / chosen : s;
      }
      for (size_t i = 0; i < K; i++) {
        double w = normalize ? want[i] / total : want[i];
        assert_true(fabs((double)weight[i] - w) <= 1e-6 * fabs(w));
      }
    }
}

/* The experts in several calls: the same choice, and weights as near as sums are that were rescaled. */
static void choice_in_pieces(void **state) {
  (void)state;
  enum { MOST = 130, TOKENS = 3, K = 6 };
  for (size_t round = 0; round < 200; round++) {
    const size_t experts = K + round % (MOST - K), piece = 1 + round % 17, gate = round % 3, normalize = round % 2;
    float scores[TOKENS * MOST], whole[TOKENS * K], weight[TOKENS * K], sums[TOKENS];
    uint32_t expert[TOKENS * K], wanted[TOKENS * K], token[TOKENS * K], flags = 0, other = 0;
    for (size_t i = 0; i < TOKENS * experts; i++)
      scores[i] = round % 5 == 4 && random_float() > 0.8f ? NAN : floorf(40 * random_float()) / 4;
    moe_route_f32(NULL, scores, whole, wanted, token, NULL, &flags, experts, TOKENS, 0, experts, experts, K, gate,
                  normalize);
    for (size_t first = 0; first < experts; first += piece) {
      const size_t count = experts - first < piece ? experts - first : piece;
      moe_route_f32(&awkward_pool, scores + first, weight, expert, token, sums, &other, experts, TOKENS, first, count,
                    experts, K, gate, normalize);
    }
    assert_int_equal(flags, other);
    for (size_t i = 0; i < TOKENS * K; i++) {
      assert_int_equal(expert[i], wanted[i]);
      assert_int_equal(token[i], i / K);
      assert_true(fabsf(weight[i] - whole[i]) <= 1e-6f * fabsf(whole[i]));
    }
  }
}

typedef struct {
  size_t tokens, experts, k, hidden, inner;
} Layer;

static double gelu(double x) { return 0.5 * x * erfc(-x / sqrt(2.0)); }

static void one_layer(const Layer *l) {
  size_t T = l->tokens, E = l->experts, K = l->k, H = l->hidden, I = l->inner, x_row = H + 3;
  float *x = random_buffer(T * x_row), *scores = random_buffer(T * E), *y = buffer(T * H), *again = buffer(T * H);
  float *hidden = buffer(T * I), *w1 = random_buffer(E * H * I), *w2 = random_buffer(E * I * H),
        *b1 = random_buffer(E * I), *b2 = random_buffer(E * H);
  float *p1[64], *p2[64], *weight = buffer(T * K), *queued = buffer(T * K);
  uint32_t *expert = malloc(T * K * 4), *token = malloc(T * K * 4), *begin = malloc((E + 1) * 4),
           *queue = malloc(T * K * 4), flags = 0;
  for (size_t e = 0; e < E; e++) {
    p1[e] = pack_panels(w1 + e * H * I, H, I, TEST_NR);
    p2[e] = pack_panels(w2 + e * I * H, I, H, TEST_NR);
  }
  moe_route_f32(&awkward_pool, scores, weight, expert, token, NULL, &flags, E, T, 0, E, E, K, 0, 0);
  moe_queue(expert, weight, begin, queue, queued, T, E, K);
  assert_int_equal(begin[0], 0);
  assert_int_equal(begin[E], T * K);
  for (size_t i = 0; i < T * H; i++) y[i] = again[i] = 0.0f;
  for (size_t e = 0; e < E; e++) {
    size_t first = begin[e], count = begin[e + 1] - first;
    for (size_t i = first; i + 1 < begin[e + 1]; i++) assert_true(queue[i] < queue[i + 1]);
    if (count == 0) continue;
    moe_expert_in_f32(&awkward_pool, x, p1[e], b1 + e * I, queue, hidden, first, count, x_row, H, I, I, 3);
    moe_expert_out_f32(&awkward_pool, hidden, p2[e], b2 + e * H, queue, queued, y, first, count, I, H, H, 3);
    check_guard(hidden, T * I);
  }
  for (size_t i = 0; i < T * K; i++) { /* token-major */
    moe_expert_in_f32(NULL, x, p1[expert[i]], b1 + expert[i] * I, token, hidden, i, 1, x_row, H, I, I, 64);
    moe_expert_out_f32(NULL, hidden, p2[expert[i]], b2 + expert[i] * H, token, weight, again, i, 1, I, H, H, 64);
  }
  check_same(again, y, T * H, "token-major");
  for (size_t t = 0; t < T; t++)
    for (size_t c = 0; c < H; c++) {
      double want = 0;
      for (size_t i = 0; i < K; i++) {
        size_t e = expert[t * K + i];
        double sum = (double)b2[e * H + c];
        for (size_t j = 0; j < I; j++) {
          double h = (double)b1[e * I + j];
          for (size_t d = 0; d < H; d++) h += (double)x[t * x_row + d] * (double)w1[(e * H + d) * I + j];
          sum += gelu(h) * (double)w2[(e * I + j) * H + c];
        }
        want += (double)weight[t * K + i] * sum;
      }
      check_near(y[t * H + c], want, (double)(H * I) * 0.2, 4, "moe", t * H + c);
    }
  check_guard(y, T * H);
  for (size_t e = 0; e < E; e++) free(p1[e]), free(p2[e]);
  free(x), free(scores), free(y), free(again), free(hidden), free(w1), free(w2), free(b1), free(b2), free(weight),
      free(queued);
  free(expert), free(token), free(begin), free(queue);
}

static void layers(void **state) {
  (void)state;
  static const Layer all[] = {{17, 4, 2, 24, 33}, {1, 5, 5, 7, 3}, {30, 16, 1, 12, 48}, {9, 1, 1, 5, 40}};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) one_layer(&all[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(choice), cmocka_unit_test(choice_of_many),
                                     cmocka_unit_test(choice_in_pieces), cmocka_unit_test(gates),
                                     cmocka_unit_test(layers)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
