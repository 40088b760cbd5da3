/* For each token the k experts of the largest scores, ascending by expert, and their weights, float32:
 *   gate 0: softmax over all scores, of which the k are taken; 1: softmax over the k; 2: the k scores themselves;
 *   normalize: the k weights divided by their sum.
 * scores: rows of `experts` elements, score_row apart. expert, token, weight: tokens * k entries, token by token.
 * Equal scores: the lower index. A NaN comes last, weighs 0 and sets MOECC_FLAG_NAN_SCORE. 1 <= k <= experts.
 * Threads share out tokens.
 */
#include "defaults.h"
/* holes */
#define KERNEL moe_route_f32
/* end holes */

/* Is score a of expert i better than score b of expert j < i? */
static int KERNEL_better(float a, float b) { return a > b || (b != b && a == a); }

/* The k best in descending order. A vector of scores of which none is better than the k so far is passed over. Whether
 * one is no number. */
static int KERNEL_choose(const float *score, size_t experts, size_t k, uint32_t *chosen) {
  size_t n = 0;
  int nan = 0;
  for (size_t e = 0; e < experts; e += VF_LANES) {
    const size_t lanes = experts - e < VF_LANES ? experts - e : VF_LANES;
    const vf x = vf_load_some(score + e, lanes);
    const float worst = n < k ? 0.0f : score[chosen[k - 1]];
    nan |= vm_any(vf_is_nan(x));
    if (n == k && worst == worst && !vm_any(x > vf_set1(worst))) continue;
    for (size_t i = e; i < e + lanes; i++) {
      if (n == k && !KERNEL_better(score[i], score[chosen[n - 1]])) continue;
      size_t at = n < k ? n++ : n - 1;
      for (; at > 0 && KERNEL_better(score[i], score[chosen[at - 1]]); at--) chosen[at] = chosen[at - 1];
      chosen[at] = (uint32_t)i;
    }
  }
  return nan;
}

static void KERNEL_sort(uint32_t *chosen, size_t k) {
  for (size_t i = 1; i < k; i++) {
    uint32_t e = chosen[i];
    size_t at = i;
    for (; at > 0 && chosen[at - 1] > e; at--) chosen[at] = chosen[at - 1];
    chosen[at] = e;
  }
}

/* The sum of exp(score - largest) over all experts; NaN counts as 0. */
static float KERNEL_sum(const float *score, size_t experts, float largest) {
  vf sum = vf_zero();
  for (size_t e = 0; e < experts; e += VF_LANES) {
    size_t lanes = experts - e < VF_LANES ? experts - e : VF_LANES;
    const vf x = vf_exp_neg(vf_load_some(score + e, lanes) - vf_set1(largest));
    sum = sum + vf_select(vm_or(vf_is_nan(x), vf_iota() >= vf_set1((float)lanes)), vf_zero(), x);
  }
  return vf_sum(sum);
}

static void KERNEL_weigh(const float *score, size_t experts, const uint32_t *chosen, size_t k, size_t gate,
                         size_t normalize, float largest, float *weight) {
  float sum = gate == 0 ? KERNEL_sum(score, experts, largest) : 0.0f, total = 0.0f;
  for (size_t i = 0; i < k; i++) {
    float s = score[chosen[i]];
    weight[i] = s != s ? 0.0f : gate == 2 ? s : vf_get(vf_exp_neg(vf_set1(s - largest)), 0);
    if (weight[i] != weight[i]) weight[i] = 0.0f;
    if (gate == 1) sum += weight[i];
  }
  for (size_t i = 0; i < k; i++) {
    if (gate != 2 && sum > 0.0f) weight[i] = weight[i] / sum;
    total += weight[i];
  }
  for (size_t i = 0; i < k && normalize && total != 0.0f; i++) weight[i] = weight[i] / total;
}

typedef struct {
  const float *scores;
  float *weight;
  uint32_t *expert, *token, *nan; /* nan: of each thread, whether it met one */
  size_t score_row, experts, k, gate, normalize;
} KERNEL_args;

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  for (size_t t = begin; t < end; t++) {
    const float *score = a->scores + t * a->score_row;
    uint32_t *expert = a->expert + t * a->k;
    if (KERNEL_choose(score, a->experts, a->k, expert)) a->nan[thread] = 1;
    const float largest = score[expert[0]];
    KERNEL_sort(expert, a->k);
    KERNEL_weigh(score, a->experts, expert, a->k, a->gate, a->normalize, largest, a->weight + t * a->k);
    for (size_t i = 0; i < a->k; i++) a->token[t * a->k + i] = (uint32_t)t;
  }
}

void KERNEL(const moecc_pool *pool, const float *scores, float *weight, uint32_t *expert, uint32_t *token,
            uint32_t *flags, size_t score_row, size_t tokens, size_t experts, size_t k, size_t gate, size_t normalize) {
  uint32_t nan[MOECC_MAX_THREADS] = {0};
  const KERNEL_args a = {scores, weight, expert, token, nan, score_row, experts, k, gate, normalize};
  moecc_for(pool, KERNEL_part, &a, tokens);
  for (size_t i = 0; i < MOECC_MAX_THREADS; i++)
    if (nan[i]) *flags |= MOECC_FLAG_NAN_SCORE;
}
