/* The functions of moecc_math.h against libm in higher precision: errors, special values, and that a vector's lanes and
 * the scalar function agree bit for bit. Built once per vector header. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "moecc_math.h"

static uint32_t bits_of(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}
static float float_of(uint32_t u) {
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}

/* Error of got in units of the last place of the exact value. */
static double ulp_error(float got, double exact) {
  if (isnan(exact)) return isnan(got) ? 0 : INFINITY;
  if (fabs(exact) > 3.4028235677973366e38) return isinf(got) || fabsf(got) > 3.40282e38f ? 0 : INFINITY;
  if (isnan(got) || isinf(got)) return INFINITY;
  int e;
  frexp(exact, &e);
  if (e < -125) e = -125;
  return fabs((double)got - exact) / ldexp(1.0, e - 24);
}

static double exact_exp(double x) { return exp(x); }
static double exact_exp2(double x) { return exp2(x); }
static double exact_log(double x) { return log(x); }
static double exact_erf(double x) { return erf(x); }
static double exact_tanh(double x) { return tanh(x); }
static double exact_sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double exact_silu(double x) { return x / (1 + exp(-x)); }
static double exact_softplus(double x) { return x > 30 ? x + exp(-x) : log1p(exp(x)); }
static double exact_sqrt(double x) { return sqrt(x); }
static double exact_gelu(double x) { return 0.5 * x * erfc(-x / sqrt(2.0)); }
static double exact_gelu_tanh(double x) {
  return x / (1 + exp(-2 * sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

typedef struct {
  const char *name;
  vf (*vector)(vf);
  float (*scalar)(float);
  double (*exact)(double);
  double lo, hi;
  double ulp;      /* allowed, or 0 */
  double absolute; /* allowed, in units of 1 + |x|, or 0 */
} MathCase;
static const MathCase math_cases[] = {
    {"exp", vf_exp, moecc_exp_f32, exact_exp, -110, 95, 1.0, 0},
    {"exp_neg", vf_exp_neg, NULL, exact_exp, -86.9, 0, 1.0, 0},
    {"exp2_neg", vf_exp2_neg, NULL, exp2, -100, 0, 2.6, 0},
    {"exp2", vf_exp2, moecc_exp2_f32, exact_exp2, -155, 130, 1.2, 0},
    {"log", vf_log, moecc_log_f32, exact_log, 0, 3e38, 1.2, 0},
    {"log near 1", vf_log, moecc_log_f32, exact_log, 0.5, 2, 1.2, 0},
    {"erf", vf_erf, moecc_erf_f32, exact_erf, -6, 6, 3, 0},
    {"tanh", vf_tanh, moecc_tanh_f32, exact_tanh, -12, 12, 2.5, 0},
    {"sigmoid", vf_sigmoid, moecc_sigmoid_f32, exact_sigmoid, -87, 40, 2.5, 0},
    {"silu", vf_silu, moecc_silu_f32, exact_silu, -80, 100, 3, 0},
    {"softplus", vf_softplus, moecc_softplus_f32, exact_softplus, -80, 100, 3, 0},
    {"sqrt", vf_sqrt, moecc_sqrt_f32, exact_sqrt, 0, 3e38, 0.5001, 0},
    {"gelu", vf_gelu, moecc_gelu_f32, exact_gelu, -20, 20, 0, 1e-7},
    {"gelu_tanh", vf_gelu_tanh, moecc_gelu_tanh_f32, exact_gelu_tanh, -20, 20, 0, 2e-7},
};

/* One block of lanes through both forms; returns the largest error in the case's measure. */
static double run_block(const MathCase *m, const float *x) {
  float y[VF_LANES];
  double worst = 0;
  vf_store(y, m->vector(vf_load(x)));
  for (size_t i = 0; i < VF_LANES; i++) {
    if (m->scalar && bits_of(m->scalar(x[i])) != bits_of(y[i]) && !isnan(y[i]))
      fail_msg("%s(%a): lane %a, scalar %a", m->name, (double)x[i], (double)y[i], (double)m->scalar(x[i]));
    double exact = m->exact((double)x[i]);
    double e = m->ulp > 0 ? ulp_error(y[i], exact) : fabs((double)y[i] - exact) / (1 + fabs((double)x[i]));
    if (!(e <= worst)) worst = e;
  }
  return worst;
}

static void accuracy(void **state) {
  (void)state;
  for (size_t c = 0; c < sizeof math_cases / sizeof math_cases[0]; c++) {
    const MathCase *m = &math_cases[c];
    double worst = 0;
    size_t n = 0;
    for (int sweep = 0; sweep < 2; sweep++)
      for (size_t i = 0; i < 200000; i += VF_LANES) {
        float x[VF_LANES];
        for (size_t l = 0; l < VF_LANES; l++) { /* evenly by value, then evenly by exponent */
          double t = (double)(i + l) / 200000, s = i % (2 * VF_LANES) ? m->lo : m->hi;
          x[l] = (float)(sweep == 0 ? m->lo + (m->hi - m->lo) * t : s * pow(2.0, -40 * t));
          if ((double)x[l] < m->lo || (double)x[l] > m->hi) x[l] = (float)m->hi;
        }
        double e = run_block(m, x);
        if (!(e <= worst)) worst = e;
        n += VF_LANES;
      }
    printf("  %-12s largest error %.3g %s over %zu values\n", m->name, worst, m->ulp > 0 ? "ULP" : "(1+|x|)", n);
    double allowed = m->ulp > 0 ? m->ulp : m->absolute;
#if VF_LANES <= 4
    allowed *= 1.6; /* without fused multiply-add */
#endif
    if (!(worst <= allowed)) fail_msg("%s: %g, allowed %g", m->name, worst, allowed);
  }
}

static void special_values(void **state) {
  (void)state;
  float inf = INFINITY, nan = NAN;
  assert_true(moecc_exp_f32(inf) == inf);
  assert_true(moecc_exp_f32(-inf) == 0.0f);
  assert_true(isnan(moecc_exp_f32(nan)));
  assert_true(moecc_exp_f32(0.0f) == 1.0f);
  assert_true(vf_get(vf_exp_neg(vf_set1(-inf)), 0) == 0.0f);
  assert_true(vf_get(vf_exp_neg(vf_set1(-1e30f)), 0) == 0.0f);
  assert_true(vf_get(vf_exp_neg(vf_set1(0.0f)), 0) == 1.0f);
  assert_true(vf_get(vf_exp2_neg(vf_set1(0.0f)), 0) == 1.0f);
  assert_true(vf_get(vf_exp2_neg(vf_set1(-inf)), 0) == vf_get(vf_exp2_neg(vf_set1(-100.0f)), 0));
  assert_true(isnan(vf_get(vf_exp2_neg(vf_set1(nan)), 0)));
  assert_true(isnan(vf_get(vf_gelu(vf_set1(nan)), 0)) && vf_get(vf_gelu(vf_set1(-inf)), 0) == 0.0f);
  assert_true(isnan(vf_get(vf_exp_neg(vf_set1(nan)), 0)));
  assert_true(moecc_log_f32(0.0f) == -inf);
  assert_true(moecc_log_f32(inf) == inf);
  assert_true(isnan(moecc_log_f32(-1.0f)));
  assert_true(isnan(moecc_log_f32(nan)));
  assert_true(moecc_log_f32(1.0f) == 0.0f);
  assert_true(moecc_erf_f32(inf) == 1.0f && moecc_erf_f32(-inf) == -1.0f);
  assert_true(isnan(moecc_erf_f32(nan)));
  assert_true(moecc_tanh_f32(inf) == 1.0f && moecc_tanh_f32(-inf) == -1.0f);
  assert_true(isnan(moecc_tanh_f32(nan)));
  assert_true(moecc_sigmoid_f32(inf) == 1.0f && moecc_sigmoid_f32(-inf) == 0.0f);
  assert_true(isnan(moecc_sigmoid_f32(nan)));
  assert_true(moecc_gelu_f32(1000.0f) == 1000.0f && moecc_gelu_f32(-1000.0f) == 0.0f);
  assert_true(isnan(moecc_gelu_f32(nan)));
  assert_true(moecc_gelu_tanh_f32(1000.0f) == 1000.0f && moecc_gelu_tanh_f32(-1000.0f) == 0.0f);
  assert_true(isnan(moecc_gelu_tanh_f32(nan)));
  assert_true(isnan(moecc_softplus_f32(nan)));
  assert_true(moecc_softplus_f32(inf) == inf);
  assert_true(isnan(moecc_sqrt_f32(-1.0f)));
  assert_true(isnan(moecc_max_f32(nan, 1)) && isnan(moecc_max_f32(1, nan)) && isnan(moecc_min_f32(1, nan)));
  assert_true(isnan(moecc_clip_f32(nan, 0, 1)));
}

static void rounding(void **state) {
  (void)state;
  for (uint64_t u = 0; u < UINT64_C(0x100000000); u += 65521) {
    float x = float_of((uint32_t)u);
    if (isnan(x)) continue;
    assert_int_equal(bits_of(moecc_floor_f32(x)), bits_of(floorf(x)));
    assert_int_equal(bits_of(moecc_ceil_f32(x)), bits_of(ceilf(x)));
    assert_int_equal(bits_of(moecc_trunc_f32(x)), bits_of(truncf(x)));
    assert_int_equal(bits_of(moecc_round_f32(x)), bits_of(rintf(x)));
  }
  for (int i = -21; i <= 21; i++)
    assert_int_equal(bits_of(moecc_round_f32((float)i / 2)), bits_of(rintf((float)i / 2)));
}

typedef struct {
  const char *name;
  double (*fn)(double), (*exact)(double);
  double lo, hi;
} DoubleCase;
static const DoubleCase double_cases[] = {
    {"exp", moecc_exp_f64, exp, -740, 709},       {"expm1", moecc_expm1_f64, expm1, -5, 5},
    {"log", moecc_log_f64, log, 1e-310, 10},      {"log1p", moecc_log1p_f64, log1p, -0.9, 3},
    {"erf", moecc_erf_f64, erf, -7, 7},           {"tanh", moecc_tanh_f64, tanh, -25, 25},
    {"sin", moecc_sin_f64, sin, -1000, 1000},     {"cos", moecc_cos_f64, cos, -1000, 1000},
    {"tan", moecc_tan_f64, tan, -30, 30},         {"asin", moecc_asin_f64, asin, -1, 1},
    {"acos", moecc_acos_f64, acos, -1, 1},        {"atan", moecc_atan_f64, atan, -100, 100},
    {"sinh", moecc_sinh_f64, sinh, -709, 709},    {"cosh", moecc_cosh_f64, cosh, -709, 709},
    {"asinh", moecc_asinh_f64, asinh, -1e4, 1e4}, {"acosh", moecc_acosh_f64, acosh, 1, 1e4},
    {"atanh", moecc_atanh_f64, atanh, -1, 1},     {"gelu", moecc_gelu_f64, exact_gelu, -10, 10},
};

static void doubles(void **state) {
  (void)state;
  for (size_t c = 0; c < sizeof double_cases / sizeof double_cases[0]; c++) {
    const DoubleCase *m = &double_cases[c];
    double worst = 0;
    for (int i = 0; i <= 20000; i++) {
      double x = m->lo + (m->hi - m->lo) * i / 20000, exact = m->exact(x);
      double e = isinf(exact) ? (m->fn(x) == exact ? 0 : 1) : fabs(m->fn(x) - exact) / (fabs(exact) + 1e-4);
      if (!(e <= worst)) worst = e;
    }
    printf("  %-6s largest relative error %.3g\n", m->name, worst);
    if (!(worst < 2e-14)) fail_msg("%s: %g", m->name, worst);
  }
  for (int i = -20; i <= 20; i++)
    for (int j = 1; j < 40; j++) {
      double x = j * 0.37, y = i * 0.71;
      assert_true(fabs(moecc_pow_f64(x, y) - pow(x, y)) <= 2e-13 * pow(x, y));
      assert_true(moecc_pow_f64(-x, (double)i) == (i & 1 ? -1 : 1) * moecc_pow_f64(x, (double)i));
    }
  const double edge[] = {0.0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, INFINITY, -INFINITY, NAN};
  for (size_t i = 0; i < sizeof edge / sizeof edge[0]; i++)
    for (size_t j = 0; j < sizeof edge / sizeof edge[0]; j++) {
      double got = moecc_pow_f64(edge[i], edge[j]), want = pow(edge[i], edge[j]);
      if (!(isnan(want) ? isnan(got) : fabs(got - want) <= 1e-14 * fabs(want) || got == want))
        fail_msg("pow(%g, %g) = %g, not %g", edge[i], edge[j], got, want);
    }
}

static void integers(void **state) {
  (void)state;
  assert_int_equal(moecc_div_i32(7, 0), 0);
  assert_int_equal(moecc_div_i32(-7, 2), -3);
  assert_int_equal(moecc_div_i32(INT32_MIN, -1), INT32_MIN);
  assert_true(moecc_div_i64(INT64_MIN, -1) == INT64_MIN);
  assert_int_equal(moecc_div_i8(-128, -1), -128);
  assert_int_equal(moecc_div_u8(200, 255), 0);
  assert_int_equal(moecc_div_u8(255, 255), 1);
  assert_int_equal(moecc_mod_i32(-7, 3), 2);
  assert_int_equal(moecc_mod_i32(7, -3), -2);
  assert_int_equal(moecc_mod_i32(7, 0), 0);
  assert_int_equal(moecc_mod_i32(INT32_MIN, -1), 0);
  assert_int_equal(moecc_mod_u8(7, 255), 7);
  assert_int_equal(moecc_fmod_i64(-7, 3), -1);
  assert_int_equal(moecc_add_i8(127, 1), -128);
  assert_int_equal(moecc_mul_u16(65535, 65535), 1);
  assert_int_equal(moecc_abs_i16(INT16_MIN), INT16_MIN);
  assert_int_equal(moecc_pow_i32(3, 4), 81);
  assert_int_equal(moecc_pow_i32(-1, -3), -1);
  assert_int_equal(moecc_pow_i32(2, -1), 0);
  assert_int_equal(moecc_pow_u8(255, -1), 0);
  assert_int_equal(moecc_shl_u8(1, 8), 0);
  assert_int_equal(moecc_shr_u32(UINT32_C(0x80000000), 31), 1);
  assert_int_equal(moecc_clip_i32(5, 7, 6), 6);
}

static void conversions(void **state) {
  (void)state;
  assert_int_equal(moecc_trunc_i8(-1000.0), -128);
  assert_int_equal(moecc_trunc_i8(127.9), 127);
  assert_int_equal(moecc_trunc_u8(-3.5), 0);
  assert_int_equal(moecc_trunc_u8(300.0), 255);
  assert_int_equal(moecc_trunc_i32((double)NAN), 0);
  assert_true(moecc_trunc_i64(1e30) == INT64_MAX && moecc_trunc_i64(-1e30) == INT64_MIN);
  assert_true(moecc_trunc_u64(1e30) == UINT64_MAX && moecc_trunc_u64(18446744073709549568.0) == 18446744073709549568u);
  for (uint32_t h = 0; h < 65536; h++) {
    float f = moecc_f16_to_f32((uint16_t)h), b = moecc_bf16_to_f32((uint16_t)h);
    uint32_t e = h >> 10 & 31;
    double m = (double)(h & 1023), want = e ? ldexp(1024 + m, (int)e - 25) : ldexp(m, -24);
    if (e < 31) assert_true((double)f == (h & 0x8000 ? -want : want));
    if (isnan(f))
      assert_true(e == 31 && m > 0 && isnan(moecc_f16_to_f32(moecc_f32_to_f16(f))));
    else
      assert_int_equal(moecc_f32_to_f16(f), h);
    if (!isnan(b)) assert_int_equal(moecc_f32_to_bf16(b), h);
    if (e < 30 && h < 0x8000) { /* halfway goes to even, a little more goes up */
      float up = moecc_f16_to_f32((uint16_t)(h + 1)), mid = (f + up) / 2;
      assert_int_equal(moecc_f32_to_f16(mid), h & 1 ? h + 1 : h);
      assert_int_equal(moecc_f32_to_f16(nextafterf(mid, 1e9f)), h + 1);
      assert_int_equal(moecc_f32_to_f16(nextafterf(mid, 0)), h);
    }
  }
  assert_int_equal(moecc_f32_to_f16(65520.0f), 0x7c00);
  assert_int_equal(moecc_f32_to_f16(65519.0f), 0x7bff);
  assert_int_equal(moecc_f32_to_bf16(float_of(0x3f808000)), 0x3f80);
  assert_int_equal(moecc_f32_to_bf16(float_of(0x3f818000)), 0x3f82);
}

static void lanes(void **state) {
  (void)state;
  float in[2 * VF_LANES], out[VF_LANES + 2];
  for (size_t i = 0; i < 2 * VF_LANES; i++) in[i] = (float)(i + 1);
  for (size_t n = 0; n <= VF_LANES; n++) {
    for (size_t i = 0; i < VF_LANES + 2; i++) out[i] = -1;
    vf v = vf_load_some(in, n);
    for (size_t i = 0; i < VF_LANES; i++) assert_true(vf_get(v, i) == (i < n ? in[i] : 0.0f));
    vf_store_some(out, vf_load(in), n);
    for (size_t i = 0; i < VF_LANES + 2; i++) assert_true(out[i] == (i < n ? in[i] : -1.0f));
    v = vf_load_step_some(in, 2, n);
    for (size_t i = 0; i < VF_LANES; i++) assert_true(vf_get(v, i) == (i < n ? in[2 * i] : 0.0f));
  }
  assert_true(vf_sum(vf_load(in)) == (float)(VF_LANES * (VF_LANES + 1) / 2));
  assert_true(vf_hmax(vf_load(in)) == (float)VF_LANES && vf_hmin(vf_load(in)) == 1.0f);
  assert_true(vf_get(vf_max(vf_set1(NAN), vf_set1(2)), 0) == 2 && isnan(vf_get(vf_max(vf_set1(2), vf_set1(NAN)), 0)));
  assert_true(vm_any(vf_iota() < vf_set1(0.5f)) && !vm_any(vf_iota() < vf_zero()));
  assert_true(vf_get(vf_scale(vf_set1(1.5f), vf_set1(-149)), 0) == 0x1p-148f);
  assert_true(isinf(vf_get(vf_scale(vf_set1(1.5f), vf_set1(128)), 0)));
}

/* A square of VF_LANES rows, with gaps before and after. */
static void transposed(void **state) {
  (void)state;
  float from[VF_LANES * (VF_LANES + 3)], to[VF_LANES * (VF_LANES + 5)];
  for (int i = 0; i < VF_LANES * (VF_LANES + 3); i++) from[i] = (float)i;
  for (int i = 0; i < VF_LANES * (VF_LANES + 5); i++) to[i] = -1.0f;
  vf_transpose(from, VF_LANES + 3, to, VF_LANES + 5);
  for (int j = 0; j < VF_LANES; j++)
    for (int i = 0; i < VF_LANES + 5; i++)
      assert_true(to[j * (VF_LANES + 5) + i] == (i < VF_LANES ? from[i * (VF_LANES + 3) + j] : -1.0f));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(lanes),       cmocka_unit_test(accuracy),   cmocka_unit_test(special_values),
      cmocka_unit_test(rounding),    cmocka_unit_test(doubles),    cmocka_unit_test(integers),
      cmocka_unit_test(conversions), cmocka_unit_test(transposed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
