/* For each token the k experts of the largest scores, ascending by expert, and their weights, float32:
 *   gate 0: softmax over all scores, of which the k are taken; 1: softmax over the k; 2: the k scores themselves;
 *   normalize: the k weights divided by their sum.
 * scores: of experts first … first + count - 1 of `all`, rows score_row apart. The calls for a set of tokens go through the
 * experts in order, and the last of them gives the result. Until then expert and weight hold the k best so far, best
 * first, with their scores, and `sums` each token's sum of exp(score - largest so far); NULL, if there is but one call.
 * expert, token, weight: tokens * k entries, token by token. Equal scores: the lower index. A NaN comes last, weighs 0
 * and sets MOECC_FLAG_NAN_SCORE. 1 <= k <= all. Threads share out tokens.
 */
#include "defaults.h"
/* holes */
#define KERNEL moe_route_f32
/* end holes */

typedef struct {
  const float *scores;
  float *weight, *sums;
  uint32_t *expert, *token, *nan; /* nan: of each thread, whether it met one */
  size_t score_row, first, count, all, k, gate, normalize;
} KERNEL_args;

/* Is score a of expert i better than score b of expert j < i? */
static int KERNEL_better(float a, float b) { return a > b || (b != b && a == a); }

/* Puts an expert where it belongs among the n best. */
static void KERNEL_put(float *best, uint32_t *chosen, size_t at, float score, uint32_t e) {
  for (; at > 0 && KERNEL_better(score, best[at - 1]); at--) {
    best[at] = best[at - 1];
    chosen[at] = chosen[at - 1];
  }
  best[at] = score;
  chosen[at] = e;
}

/* Brings the k best up to date, in descending order. A vector of scores of which none is better than the k so far is
 * passed over. Whether one is no number. */
static int KERNEL_choose(const KERNEL_args *a, const float *score, float *best, uint32_t *chosen) {
  size_t n = a->first < a->k ? a->first : a->k;
  int nan = 0;
  for (size_t e = 0; e < a->count; e += VF_LANES) {
    const size_t lanes = a->count - e < VF_LANES ? a->count - e : VF_LANES;
    const vf x = vf_load_some(score + e, lanes);
    nan |= vm_any(vf_is_nan(x));
    if (n == a->k && best[n - 1] == best[n - 1] && !vm_any(x > vf_set1(best[n - 1]))) continue;
    for (size_t i = e; i < e + lanes; i++) {
      if (n == a->k && !KERNEL_better(score[i], best[n - 1])) continue;
      if (n < a->k) n++;
      KERNEL_put(best, chosen, n - 1, score[i], (uint32_t)(a->first + i));
    }
  }
  return nan;
}

/* The k best in the order of the experts. */
static void KERNEL_sort(float *best, uint32_t *chosen, size_t k) {
  for (size_t i = 1; i < k; i++) {
    const uint32_t e = chosen[i];
    const float score = best[i];
    size_t at = i;
    for (; at > 0 && chosen[at - 1] > e; at--) {
      chosen[at] = chosen[at - 1];
      best[at] = best[at - 1];
    }
    chosen[at] = e;
    best[at] = score;
  }
}

/* exp(x - largest) of one number. */
static float KERNEL_exp(float x, float largest) { return vf_get(vf_exp_neg(vf_set1(x - largest)), 0); }

/* The sum of exp(score - largest); NaN counts as 0. */
static float KERNEL_sum(const float *score, size_t count, float largest) {
  vf sum = vf_zero();
  for (size_t e = 0; e < count; e += VF_LANES) {
    const size_t lanes = count - e < VF_LANES ? count - e : VF_LANES;
    const vf x = vf_exp_neg(vf_load_some(score + e, lanes) - vf_set1(largest));
    sum = sum + vf_select(vm_or(vf_is_nan(x), vf_iota() >= vf_set1((float)lanes)), vf_zero(), x);
  }
  return vf_sum(sum);
}

/* The k scores become weights. */
static void KERNEL_weigh(const KERNEL_args *a, float sum, float largest, float *weight) {
  float total = 0.0f;
  for (size_t i = 0; i < a->k; i++) {
    const float s = weight[i];
    weight[i] = s != s ? 0.0f : a->gate == 2 ? s : KERNEL_exp(s, largest);
    if (weight[i] != weight[i]) weight[i] = 0.0f;
    if (a->gate == 1) sum += weight[i];
  }
  for (size_t i = 0; i < a->k; i++) {
    if (a->gate != 2 && sum > 0.0f) weight[i] = weight[i] / sum;
    total += weight[i];
  }
  for (size_t i = 0; i < a->k && a->normalize && total != 0.0f; i++) weight[i] = weight[i] / total;
}

/* Of one token. Whether a score is no number. */
static int KERNEL_route(const KERNEL_args *a, size_t t) {
  const float *score = a->scores + t * a->score_row;
  uint32_t *expert = a->expert + t * a->k;
  float *weight = a->weight + t * a->k, sum = a->first > 0 && a->gate == 0 ? a->sums[t] : 0.0f;
  const float before = a->first > 0 ? weight[0] : 0.0f;
  const int nan = KERNEL_choose(a, score, weight, expert);
  const float largest = weight[0];
  if (sum > 0.0f) sum = sum * KERNEL_exp(before, largest);
  if (a->gate == 0) sum = sum + KERNEL_sum(score, a->count, largest);
  if (a->first + a->count < a->all) {
    if (a->gate == 0) a->sums[t] = sum;
    return nan;
  }
  KERNEL_sort(weight, expert, a->k);
  KERNEL_weigh(a, sum, largest, weight);
  for (size_t i = 0; i < a->k; i++) a->token[t * a->k + i] = (uint32_t)t;
  return nan;
}

static void KERNEL_part(const void *args, size_t begin, size_t end, unsigned thread) {
  const KERNEL_args *a = args;
  for (size_t t = begin; t < end; t++)
    if (KERNEL_route(a, t)) a->nan[thread] = 1;
}

void KERNEL(const moecc_pool *pool, const float *scores, float *weight, uint32_t *expert, uint32_t *token, float *sums,
            uint32_t *flags, size_t score_row, size_t tokens, size_t first, size_t count, size_t all, size_t k,
            size_t gate, size_t normalize) {
  uint32_t nan[MOECC_MAX_THREADS] = {0};
  const KERNEL_args a = {scores, weight, sums, expert, token, nan, score_row, first, count, all, k, gate, normalize};
  moecc_for(pool, KERNEL_part, &a, tokens);
  for (size_t i = 0; i < MOECC_MAX_THREADS; i++)
    if (nan[i]) *flags |= MOECC_FLAG_NAN_SCORE;
}
