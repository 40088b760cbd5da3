/* moecc_math.h: the mathematics of emitted kernels, the same bits wherever the arithmetic is the same.
 *
 * vf_<fn> works on vectors; moecc_<fn>_f32 is its first lane, so scalar and vector results never differ;
 * moecc_<fn>_f64 is in moecc_math_f64.h; moecc_<fn>_<integer type> are total: nothing traps, results wrap, a division
 * by zero gives 0. Of libm only exact functions are used (sqrt, floor, ceil, trunc, rint, fmod).
 *
 * Errors (largest, against the exact value):  exp, log, erf, tanh, sigmoid, softplus under 3 ULP (exp under 1);
 * gelu and gelu_tanh within 2e-7 (1 + |x|); gelu by a table (see vf_gelu) has no tail below -5.8. Polynomials are
 * minimax fits of our own.
 */
#ifndef MOECC_MATH_H
#define MOECC_MATH_H

#include <math.h>
#include <stdint.h>
#include "moecc_simd.h"
#include "moecc_math_f64.h"

/* ---- vectors of floats ------------------------------------------------------------------------------------------ */

/* exp(r) for |r| <= ln(2)/2. */
static inline vf vf_exp_core(vf r) {
  vf p = vf_fma(vf_set1(0x1.6a1a74p-10f), r, vf_set1(0x1.123fc6p-7f));
  p = vf_fma(p, r, vf_set1(0x1.555916p-5f));
  p = vf_fma(p, r, vf_set1(0x1.55548ap-3f));
  p = vf_fma(p, r, vf_set1(0x1.fffffcp-2f));
  return vf_fma(p * r, r, r) + vf_set1(1.0f);
}

/* x - n ln(2) for n = round(x / ln(2)), ln(2) in two parts the first of which has few bits. */
static inline vf vf_exp_reduce(vf x, vf n) {
  return vf_fma(n, vf_set1(-0x1.7f7d1cp-20f), vf_fma(n, vf_set1(-0x1.62e4p-1f), x));
}

/* e^x: overflows to infinity, underflows gradually to 0. */
static inline vf vf_exp(vf x) {
  x = vf_min(vf_set1(89.0f), vf_max(vf_set1(-105.0f), x));
  vf n = vf_round(x * vf_set1(0x1.715476p+0f));
  return vf_scale(vf_exp_core(vf_exp_reduce(x, n)), n);
}

/* e^x for x <= 0, cheaper: 0 below -87. For softmax. */
static inline vf vf_exp_neg(vf x) {
  vf n = vf_round(vf_max(vf_set1(-87.0f), x) * vf_set1(0x1.715476p+0f));
  vf scaled = vf_scale_near(vf_exp_core(vf_exp_reduce(x, n)), n);
  return vf_select(x < vf_set1(-87.0f), vf_zero(), scaled);
}

/* 2^x. */
static inline vf vf_exp2(vf x) {
  x = vf_min(vf_set1(129.0f), vf_max(vf_set1(-151.0f), x));
  vf n = vf_round(x);
  return vf_scale(vf_exp_core((x - n) * vf_set1(0x1.62e43p-1f)), n);
}

/* 2^x for x <= 0 within 1.6e-7 of it, the cheapest: from -100 on it falls no further. For softmax, where what is that
 * small does not count, but products with it have to stay clear of denormal numbers, which are slow. n = round(x)
 * stands in the low bits of x + 1.5 * 2^23. */
static inline vf vf_exp2_neg(vf x) {
  const vf magic = vf_set1(0x1.8p23f);
  x = vf_max(vf_set1(-100.0f), x);
  const vf n = x + magic, r = x - (n - magic);
  vf p = vf_fma(vf_set1(0x1.5bba14p-10f), r, vf_set1(0x1.3cea88p-7f));
  p = vf_fma(p, r, vf_set1(0x1.c6b752p-5f));
  p = vf_fma(p, r, vf_set1(0x1.ebf9bcp-3f));
  p = vf_fma(p, r, vf_set1(0x1.62e42ap-1f));
  p = vf_fma(p, r, vf_set1(1.0f));
  return vf_scale_low(p, n);
}

/* log(x): NaN below 0. m 2^e with m in [sqrt(1/2), sqrt(2)]. */
static inline vf vf_log(vf x) {
  vm tiny = x < vf_set1(0x1p-126f);
  vi bits = vf_bits(vf_select(tiny, x * vf_set1(0x1p23f), x));
  vi e = (bits - vi_set1(0x3f3504f3)) >> vi_set1(23);
  vf f = vf_of_bits(bits - e * vi_set1(1 << 23)) - vf_set1(1.0f);
  vf n = vf_of_int(e) - vf_select(tiny, vf_set1(23.0f), vf_zero());
  vf p = vf_fma(vf_set1(0x1.145e3ep-4f), f, vf_set1(-0x1.de36ecp-4f));
  p = vf_fma(p, f, vf_set1(0x1.e6ea3p-4f));
  p = vf_fma(p, f, vf_set1(-0x1.fc2282p-4f));
  p = vf_fma(p, f, vf_set1(0x1.2337eap-3f));
  p = vf_fma(p, f, vf_set1(-0x1.555c4ep-3f));
  p = vf_fma(p, f, vf_set1(0x1.99a4aep-3f));
  p = vf_fma(p, f, vf_set1(-0x1.000006p-2f));
  p = vf_fma(p, f, vf_set1(0x1.555548p-2f));
  vf f2 = f * f;
  vf low = vf_fma(n, vf_set1(-0x1.bd0106p-13f), vf_fma(f2, vf_set1(-0.5f), f2 * f * p)); /* ln(2) = 0.693359375 - … */
  vf r = vf_fma(n, vf_set1(0.693359375f), f + low);
  r = vf_select(x > vf_set1(3.4028234e38f), x, r);
  r = vf_select(x == vf_zero(), vf_set1(-INFINITY), r);
  return vf_select(vm_or(x < vf_zero(), vf_is_nan(x)), vf_set1(NAN), r);
}

/* log(1 + x) for x >= 0. */
static inline vf vf_log1p_pos(vf x) {
  vf y = x + vf_set1(1.0f);
  return vf_log(y) + (x - (y - vf_set1(1.0f))) / y;
}

/* The normal distribution's share below -a, for a >= 0: 2^(R(a) - a^2 / (2 ln 2)), R being a polynomial up to 6 and
 * constant beyond, where the share is under 1e-9 and only its order of magnitude matters. */
static inline vf vf_normal_tail(vf a) {
  vf b = vf_min(vf_set1(6.0f), a);
  vf p = vf_fma(vf_set1(0x1.21338ap-23f), b, vf_set1(-0x1.cb758ep-19f));
  p = vf_fma(p, b, vf_set1(0x1.1e7fb8p-15f));
  p = vf_fma(p, b, vf_set1(-0x1.274a96p-13f));
  p = vf_fma(p, b, vf_set1(-0x1.1dab02p-12f));
  p = vf_fma(p, b, vf_set1(0x1.dbd5bep-8f));
  p = vf_fma(p, b, vf_set1(-0x1.af3d44p-5f));
  p = vf_fma(p, b, vf_set1(0x1.0c7b66p-2f));
  p = vf_fma(p, b, vf_set1(-0x1.26af4p+0f));
  p = vf_fma(p, b, vf_set1(-0x1.fffffcp-1f));
  vf t = vf_max(vf_set1(-125.0f), vf_fma(a * vf_set1(-0x1.715476p-1f), a, p));
  vf n = vf_round(t);
  return vf_scale_near(vf_exp_core((t - n) * vf_set1(0x1.62e43p-1f)), n);
}

#ifdef VF_TABLE

/* x times the normal distribution's share below x (the erf form of GELU): max(x, 0) less |x| times the share below
 * -|x|, which is a table of polynomials, each about the middle of its piece of |x|, the last of them 0 (from 5.8 or 5.7
 * on less than 6e-8 is left). The number of the piece stands in the low bits of z. */
static inline vf vf_gelu(vf x) {
#if VF_TABLE == 16
  enum { DEGREE = 5 };
  const float per_unit = 2.5f, most = 6.1f;
  static const float c[DEGREE + 1][VF_TABLE] __attribute__((aligned(64))) = {
      {0, 0x1.1a474ap-3f, 0x1.5b1a9ap-3f, 0x1.1acb96p-3f, 0x1.6721f6p-4f, 0x1.74bcf8p-5f, 0x1.425714p-6f,
       0x1.d4de48p-8f, 0x1.2034dap-9f, 0x1.2c4ebap-11f, 0x1.09ada2p-13f, 0x1.8f8e24p-16f, 0x1.ff1ae6p-19f,
       0x1.162ffap-21f, 0x1.01ca42p-24f, 0},
      {0x1.999996p-3f, 0x1.433522p-4f, -0x1.04cdfcp-7f, -0x1.8282a6p-5f, -0x1.91fa76p-5f, -0x1.1749ap-5f,
       -0x1.2a831cp-6f, -0x1.0101f6p-7f, -0x1.6bf528p-9f, -0x1.ac9a54p-11f, -0x1.a67dfep-13f, -0x1.5e16c2p-15f,
       -0x1.e91e16p-18f, -0x1.20a3p-20f, -0x1.203596p-23f, 0},
      {-0x1.05728p-4f, -0x1.bc13b4p-5f, -0x1.0233f6p-5f, -0x1.1d1928p-7f, 0x1.45a126p-8f, 0x1.1b11f4p-7f,
       0x1.b97cb4p-8f, 0x1.e4bdf6p-9f, 0x1.9bfeeap-10f, 0x1.1947ccp-11f, 0x1.3a4c16p-13f, 0x1.227d2p-15f,
       0x1.bf325cp-18f, 0x1.2000fcp-20f, 0x1.376694p-23f, 0},
      {-0x1.0cb364p-17f, 0x1.8b674cp-8f, 0x1.102984p-7f, 0x1.a1032cp-8f, 0x1.6553cp-9f, 0x1.1b4f94p-23f,
       -0x1.088106p-10f, -0x1.dbfa24p-11f, -0x1.0a3efap-11f, -0x1.b98988p-13f, -0x1.1f6376p-14f, -0x1.2d9ed8p-16f,
       -0x1.030e84p-18f, -0x1.6f9324p-21f, -0x1.b1836ep-24f, 0},
      {0x1.c6aec8p-10f, 0x1.291b4ap-10f, -0x1.1750d6p-16f, -0x1.ada104p-11f, -0x1.c5eaap-11f, -0x1.e3cb42p-12f,
       -0x1.4794d8p-14f, 0x1.6e65dep-14f, 0x1.8a65c6p-14f, 0x1.be3cp-15f, 0x1.66448ap-16f, 0x1.ba5b16p-18f,
       0x1.b2e104p-20f, 0x1.5ae092p-22f, 0x1.c6314ep-25f, 0},
      {-0x1.f21e3cp-15f, -0x1.a7b268p-13f, -0x1.d335cap-13f, -0x1.618a02p-14f, 0x1.beddbp-15f, 0x1.7eb2c6p-14f,
       0x1.d4690ep-15f, 0x1.b88e02p-17f, -0x1.afcdf4p-18f, -0x1.0ff5a6p-17f, -0x1.2d7adap-18f, -0x1.c975dap-20f,
       -0x1.06738ep-21f, -0x1.da9d04p-24f, -0x1.599fdcp-26f, 0}};
#else
  enum { DEGREE = 6 };
  const float per_unit = 1.13636364f, most = 6.38f;
  static const float c[DEGREE + 1][VF_TABLE] __attribute__((aligned(64))) = {
      {0, 0x1.5565d2p-3f, 0x1.1a9e8ep-4f, 0x1.669984p-7f, 0x1.8e3586p-11f, 0x1.8f8d32p-16f, 0x1.6e2a5ap-22f, 0},
      {0x1.c28f56p-2f, -0x1.60ba44p-5f, -0x1.8c819ap-4f, -0x1.95cd7p-6f, -0x1.316642p-9f, -0x1.812a9cp-14f,
       -0x1.a8fd94p-20f, 0},
      {-0x1.3c5a0cp-2f, -0x1.074062p-3f, 0x1.27273ap-5f, 0x1.819f38p-6f, 0x1.acf94ep-9f, 0x1.5f9e4ep-13f,
       0x1.da78a4p-19f, 0},
      {-0x1.7b6632p-15f, 0x1.65804ep-4f, 0x1.f6431ep-7f, -0x1.6518b6p-7f, -0x1.65fa78p-9f, -0x1.90673p-13f,
       -0x1.4e57c2p-18f, 0},
      {0x1.48b5e2p-5f, -0x1.6a64fp-8f, -0x1.18c9b2p-6f, 0x1.2e77d2p-10f, 0x1.79bc1ep-10f, 0x1.3dc16ap-13f,
       0x1.576938p-18f, 0},
      {-0x1.61764ep-11f, -0x1.4e6786p-7f, 0x1.0400ccp-8f, 0x1.856bfp-10f, -0x1.be8d34p-12f, -0x1.7e14acp-14f,
       -0x1.2f712cp-18f, 0},
      {-0x1.fc7fc2p-9f, 0x1.06c6a6p-9f, 0x1.ddd64cp-11f, -0x1.9728cep-11f, 0x1.572fap-16f, 0x1.321a4ep-15f,
       0x1.65f1e4p-19f, 0}};
#endif
  const vf magic = vf_set1(0x1.8p23f), a = vf_min(vf_set1(most), vf_abs(x));
  const vf z = vf_fma(a, vf_set1(per_unit), magic), r = vf_fma(a, vf_set1(per_unit), magic - z);
  vf p = vf_pick(c[DEGREE], z);
#if VF_TABLE == 8
  p = vf_fma(p, r, vf_pick(c[5], z));
#endif
  p = vf_fma(p, r, vf_pick(c[4], z));
  p = vf_fma(p, r, vf_pick(c[3], z));
  p = vf_fma(p, r, vf_pick(c[2], z));
  p = vf_fma(p, r, vf_pick(c[1], z));
  p = vf_fma(p, r, vf_pick(c[0], z));
  return vf_max(vf_zero(), x) - p;
}

#else

/* x times the normal distribution's share below x (the erf form of GELU). The share under 2^-125 counts as 0. */
static inline vf vf_gelu(vf x) {
  vf below = x * vf_normal_tail(vf_abs(x));
  below = vf_select(x < vf_set1(-13.0f), vf_zero(), below);
  return vf_select(x > vf_zero(), x - below, below);
}

#endif

static inline vf vf_erf(vf x) {
  vf a = vf_abs(x), t = x * x;
  vf p = vf_fma(vf_set1(0x1.491b0cp-14f), t, vf_set1(-0x1.a3f6ffp-11f));
  p = vf_fma(p, t, vf_set1(0x1.5405b2p-8f));
  p = vf_fma(p, t, vf_set1(-0x1.b7f90cp-6f));
  p = vf_fma(p, t, vf_set1(0x1.ce2cf8p-4f));
  p = vf_fma(p, t, vf_set1(-0x1.81273ep-2f));
  vf small = vf_fma(x * vf_fma(p, t, vf_set1(0x1.06eba8p-3f)), vf_set1(1.0f), x);
  vf large = vf_set1(1.0f) - vf_set1(2.0f) * vf_normal_tail(a * vf_set1(0x1.6a09e6p+0f));
  large = vf_select(x < vf_zero(), -large, large);
  return vf_select(a < vf_set1(1.0f), small, vf_select(vf_is_nan(x), x, large));
}

static inline vf vf_tanh(vf x) {
  vf a = vf_abs(x), t = x * x, one = vf_set1(1.0f);
  vf p = vf_fma(vf_set1(-0x1.723282p-8f), t, vf_set1(0x1.5159fp-6f));
  p = vf_fma(p, t, vf_set1(-0x1.b81e1ep-5f));
  p = vf_fma(p, t, vf_set1(0x1.110648p-3f));
  p = vf_fma(p, t, vf_set1(-0x1.55552ep-2f));
  vf small = vf_fma(p * t, x, x);
  vf large = one - vf_set1(2.0f) / (vf_exp(a + a) + one);
  large = vf_select(x < vf_zero(), -large, large);
  return vf_select(a < vf_set1(0.625f), small, large);
}

static inline vf vf_sigmoid(vf x) {
  vf one = vf_set1(1.0f);
  return one / (one + vf_exp(-x));
}

static inline vf vf_silu(vf x) { return x / (vf_set1(1.0f) + vf_exp(-x)); }

/* x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3): what 0.5 x (1 + tanh u) is. */
static inline vf vf_gelu_tanh(vf x) {
  vf t = vf_fma(x * x, vf_set1(-0.07135481627260025f), vf_set1(-1.5957691216057308f));
  return x / (vf_set1(1.0f) + vf_exp(x * t));
}

/* log(1 + e^x). */
static inline vf vf_softplus(vf x) { return vf_max(vf_zero(), x) + vf_log1p_pos(vf_exp(-vf_abs(x))); }

/* ---- one float: the first lane of the above ---------------------------------------------------------------------- */

#define MOECC_FIRST_LANE(fn)                                                                                           \
  static inline float moecc_##fn##_f32(float x) { return vf_get(vf_##fn(vf_set1(x)), 0); }
MOECC_FIRST_LANE(abs)
MOECC_FIRST_LANE(sqrt)
MOECC_FIRST_LANE(floor)
MOECC_FIRST_LANE(ceil)
MOECC_FIRST_LANE(trunc)
MOECC_FIRST_LANE(round)
MOECC_FIRST_LANE(exp)
MOECC_FIRST_LANE(exp2)
MOECC_FIRST_LANE(log)
MOECC_FIRST_LANE(erf)
MOECC_FIRST_LANE(tanh)
MOECC_FIRST_LANE(sigmoid)
MOECC_FIRST_LANE(silu)
MOECC_FIRST_LANE(gelu)
MOECC_FIRST_LANE(gelu_tanh)
MOECC_FIRST_LANE(softplus)
#undef MOECC_FIRST_LANE

static inline float moecc_fma_f32(float a, float b, float c) {
  return vf_get(vf_fma(vf_set1(a), vf_set1(b), vf_set1(c)), 0);
}

/* Seldom used functions, rounded from double. */
#define MOECC_FROM_DOUBLE(fn)                                                                                          \
  static inline float moecc_##fn##_f32(float x) { return (float)moecc_##fn##_f64((double)x); }
MOECC_FROM_DOUBLE(log1p)
MOECC_FROM_DOUBLE(expm1)
MOECC_FROM_DOUBLE(sin)
MOECC_FROM_DOUBLE(cos)
MOECC_FROM_DOUBLE(tan)
MOECC_FROM_DOUBLE(asin)
MOECC_FROM_DOUBLE(acos)
MOECC_FROM_DOUBLE(atan)
MOECC_FROM_DOUBLE(sinh)
MOECC_FROM_DOUBLE(cosh)
MOECC_FROM_DOUBLE(asinh)
MOECC_FROM_DOUBLE(acosh)
MOECC_FROM_DOUBLE(atanh)
#undef MOECC_FROM_DOUBLE

static inline float moecc_pow_f32(float x, float y) { return (float)moecc_pow_f64((double)x, (double)y); }
static inline float moecc_fmod_f32(float a, float b) { return (float)fmod((double)a, (double)b); }
static inline float moecc_mod_f32(float a, float b) { return (float)moecc_mod_f64((double)a, (double)b); }

/* NaN if one of the operands is. */
static inline float moecc_max_f32(float a, float b) { return a != a ? a : a > b ? a : b; }
static inline float moecc_min_f32(float a, float b) { return a != a ? a : a < b ? a : b; }
/* The upper bound wins where the bounds cross; NaN stays. */
static inline float moecc_clip_f32(float x, float lo, float hi) {
  float y = lo > x ? lo : x;
  return hi < y ? hi : y;
}

/* ---- integers: total and wrapping ------------------------------------------------------------------------------- */

/* T: type, S: its short name, W: an unsigned type in which the arithmetic is done, BITS, LOW: lowest value. */
#define MOECC_INTEGER(T, S, W, BITS, LOW)                                                                              \
  static inline T moecc_add_##S(T a, T b) { return (T)((W)a + (W)b); }                                                 \
  static inline T moecc_sub_##S(T a, T b) { return (T)((W)a - (W)b); }                                                 \
  static inline T moecc_mul_##S(T a, T b) { return (T)((W)a * (W)b); }                                                 \
  static inline T moecc_neg_##S(T a) { return (T)((W)0 - (W)a); }                                                      \
  static inline T moecc_abs_##S(T a) { return a > 0 ? a : (T)((W)0 - (W)a); }                                          \
  static inline T moecc_max_##S(T a, T b) { return a > b ? a : b; }                                                    \
  static inline T moecc_min_##S(T a, T b) { return a < b ? a : b; }                                                    \
  static inline T moecc_clip_##S(T x, T lo, T hi) {                                                                    \
    T y = lo > x ? lo : x;                                                                                             \
    return hi < y ? hi : y;                                                                                            \
  }                                                                                                                    \
  /* towards zero; the lowest value by -1 wraps */                                                                     \
  static inline T moecc_div_##S(T a, T b) {                                                                            \
    if (b == 0) return 0;                                                                                              \
    if ((LOW) != 0 && b == (T) - 1) return (T)((W)0 - (W)a);                                                           \
    return (T)(a / b);                                                                                                 \
  }                                                                                                                    \
  /* with the sign of a */                                                                                             \
  static inline T moecc_fmod_##S(T a, T b) {                                                                           \
    if (b == 0 || ((LOW) != 0 && b == (T) - 1)) return 0;                                                              \
    return (T)(a % b);                                                                                                 \
  }                                                                                                                    \
  /* with the sign of b */                                                                                             \
  static inline T moecc_mod_##S(T a, T b) {                                                                            \
    T r = moecc_fmod_##S(a, b);                                                                                        \
    return (LOW) != 0 && r != 0 && (r > 0) != (b > 0) ? (T)(r + b) : r;                                                \
  }                                                                                                                    \
  /* a negative exponent rounds towards zero */                                                                        \
  static inline T moecc_pow_##S(T a, int64_t n) {                                                                      \
    W r = 1, f = (W)a;                                                                                                 \
    if (n < 0) return a == 1 ? 1 : (LOW) != 0 && a == (T) - 1 ? (n % 2 ? a : 1) : 0;                                   \
    for (; n; n /= 2, f = f * f)                                                                                       \
      if (n % 2) r = r * f;                                                                                            \
    return (T)r;                                                                                                       \
  }                                                                                                                    \
  static inline T moecc_shl_##S(T a, T n) { return (T)((uint64_t)n < (BITS) ? (W)a << n : 0); }                        \
  static inline T moecc_shr_##S(T a, T n) { return (T)((uint64_t)n < (BITS) ? a >> n : 0); }
MOECC_INTEGER(int8_t, i8, uint32_t, 8, INT8_MIN)
MOECC_INTEGER(uint8_t, u8, uint32_t, 8, 0)
MOECC_INTEGER(int16_t, i16, uint32_t, 16, INT16_MIN)
MOECC_INTEGER(uint16_t, u16, uint32_t, 16, 0)
MOECC_INTEGER(int32_t, i32, uint32_t, 32, INT32_MIN)
MOECC_INTEGER(uint32_t, u32, uint32_t, 32, 0)
MOECC_INTEGER(int64_t, i64, uint64_t, 64, INT64_MIN)
MOECC_INTEGER(uint64_t, u64, uint64_t, 64, 0)
#undef MOECC_INTEGER

#define MOECC_LOWEST_i8   INT8_MIN
#define MOECC_HIGHEST_i8  INT8_MAX
#define MOECC_LOWEST_u8   0
#define MOECC_HIGHEST_u8  UINT8_MAX
#define MOECC_LOWEST_i16  INT16_MIN
#define MOECC_HIGHEST_i16 INT16_MAX
#define MOECC_LOWEST_u16  0
#define MOECC_HIGHEST_u16 UINT16_MAX
#define MOECC_LOWEST_i32  INT32_MIN
#define MOECC_HIGHEST_i32 INT32_MAX
#define MOECC_LOWEST_u32  0
#define MOECC_HIGHEST_u32 UINT32_MAX
#define MOECC_LOWEST_i64  INT64_MIN
#define MOECC_HIGHEST_i64 INT64_MAX
#define MOECC_LOWEST_u64  0
#define MOECC_HIGHEST_u64 UINT64_MAX
#define MOECC_LOWEST_f32  (-3.402823466e+38f)
#define MOECC_HIGHEST_f32 3.402823466e+38f
#define MOECC_LOWEST_f64  (-1.7976931348623157e+308)
#define MOECC_HIGHEST_f64 1.7976931348623157e+308

/* ---- conversions ---------------------------------------------------------------------------------------------------
 */

/* Towards zero; what does not fit becomes the nearest that does, NaN becomes 0. HIGH: 2^bits, the first too large. */
#define MOECC_SATURATE(T, S, HIGH)                                                                                     \
  static inline T moecc_trunc_##S(double x) {                                                                          \
    if (!(x > (double)MOECC_LOWEST_##S)) return x != x ? 0 : (T)MOECC_LOWEST_##S;                                      \
    return x >= HIGH ? (T)MOECC_HIGHEST_##S : (T)x;                                                                    \
  }
MOECC_SATURATE(int8_t, i8, 128.0)
MOECC_SATURATE(uint8_t, u8, 256.0)
MOECC_SATURATE(int16_t, i16, 32768.0)
MOECC_SATURATE(uint16_t, u16, 65536.0)
MOECC_SATURATE(int32_t, i32, 2147483648.0)
MOECC_SATURATE(uint32_t, u32, 4294967296.0)
MOECC_SATURATE(int64_t, i64, 9223372036854775808.0)
MOECC_SATURATE(uint64_t, u64, 18446744073709551616.0)
#undef MOECC_SATURATE

static inline float moecc_bf16_to_f32(uint16_t h) {
  return vf_get(vf_of_bits(vi_set1((int32_t)((uint32_t)h << 16))), 0);
}
static inline uint32_t moecc_bits_f32(float x) {
  union {
    float f;
    uint32_t u;
  } b;
  b.f = x;
  return b.u;
}
/* To nearest, ties to even; NaN stays NaN. */
static inline uint16_t moecc_f32_to_bf16(float x) {
  uint32_t u = moecc_bits_f32(x);
  if (x != x) return (uint16_t)(u >> 16 | 0x40);
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
static inline float moecc_f16_to_f32(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3ff;
  union {
    uint32_t u;
    float f;
  } b;
  if (e == 0) {
    float tiny = (float)m * 0x1p-24f;
    return sign ? -tiny : tiny;
  }
  b.u = sign | (e == 31 ? 0x7f800000 : (e + 112) << 23) | m << 13;
  return b.f;
}
static inline uint16_t moecc_f32_to_f16(float x) {
  uint32_t u = moecc_bits_f32(x), a = u & 0x7fffffff, sign = u >> 16 & 0x8000;
  if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
  if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
  if (a >= 0x38800000) return (uint16_t)(sign | ((a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13));
  if (a < 0x33000000) return (uint16_t)sign;
  uint32_t shift = 126 - (a >> 23), m = (a & 0x7fffff) | 0x800000, half = (uint32_t)1 << (shift - 1);
  return (uint16_t)(sign | ((m + half - 1 + (m >> shift & 1)) >> shift));
}

#endif
