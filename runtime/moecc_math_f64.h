/* moecc_math_f64.h: elementary functions of one double, our own, so that folding and emitted code agree everywhere.
 *
 * Within a few units of the last place (1e-15 relative), pow within 1e-13 for large exponents; sin and cos lose digits
 * beyond 2^27. Written for size and clarity: double arithmetic is rare in the networks this is for.
 */
#ifndef MOECC_MATH_F64_H
#define MOECC_MATH_F64_H

#include <math.h>
#include <stdint.h>

static inline int64_t moecc_bits_f64(double x) {
  union {
    double f;
    int64_t i;
  } u;
  u.f = x;
  return u.i;
}
static inline double moecc_of_bits_f64(int64_t i) {
  union {
    double f;
    int64_t i;
  } u;
  u.i = i;
  return u.f;
}
/* x 2^n, n in [-2044, 2046]. */
static inline double moecc_scale_f64(double x, int64_t n) {
  int64_t half = n / 2;
  return x * moecc_of_bits_f64((half + 1023) << 52) * moecc_of_bits_f64((n - half + 1023) << 52);
}

static inline double moecc_abs_f64(double x) { return moecc_of_bits_f64(moecc_bits_f64(x) & INT64_MAX); }
static inline double moecc_sqrt_f64(double x) { return sqrt(x); }
static inline double moecc_floor_f64(double x) { return floor(x); }
static inline double moecc_ceil_f64(double x) { return ceil(x); }
static inline double moecc_trunc_f64(double x) { return trunc(x); }
static inline double moecc_round_f64(double x) { return rint(x); }
static inline double moecc_fmod_f64(double a, double b) { return fmod(a, b); }
static inline double moecc_mod_f64(double a, double b) {
  double r = fmod(a, b);
  return r != 0 && (r > 0) != (b > 0) ? r + b : r;
}
static inline double moecc_max_f64(double a, double b) { return a != a ? a : a > b ? a : b; }
static inline double moecc_min_f64(double a, double b) { return a != a ? a : a < b ? a : b; }
static inline double moecc_clip_f64(double x, double lo, double hi) {
  double y = lo > x ? lo : x;
  return hi < y ? hi : y;
}
static inline double moecc_fma_f64(double a, double b, double c) { return a * b + c; }

/* e^r - 1 by its series (Horner), |r| <= 0.35. */
static inline double moecc_expm1_core_f64(double r) {
  double p = 1;
  for (int k = 15; k > 1; k--) p = 1 + p * r / k;
  return r * p;
}
static inline double moecc_exp_f64(double x) {
  if (!(x < 710)) return x != x ? x : INFINITY;
  if (x < -746) return 0;
  double n = rint(x * 1.4426950408889634);
  double r = (x - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33; /* ln(2), its first part of 32 bits */
  return moecc_scale_f64(1 + moecc_expm1_core_f64(r), (int64_t)n);
}
static inline double moecc_exp2_f64(double x) { return moecc_exp_f64(x * 0.6931471805599453); }
static inline double moecc_expm1_f64(double x) {
  return moecc_abs_f64(x) < 0.35 ? moecc_expm1_core_f64(x) : moecc_exp_f64(x) - 1;
}

/* log: m 2^e with m in [sqrt(1/2), sqrt(2)], then 2 atanh((m - 1) / (m + 1)) by its series. */
static inline double moecc_log_f64(double x) {
  if (x != x || x < 0) return NAN;
  if (x == 0) return -INFINITY;
  if (x > 1.7976931348623157e+308) return x;
  int64_t tiny = x < 0x1p-1022 ? 54 : 0;
  int64_t bits = moecc_bits_f64(tiny ? x * 0x1p54 : x);
  int64_t e = (bits - 0x3fe6a09e667f3bcd) / ((int64_t)1 << 52);
  if (bits < 0x3fe6a09e667f3bcd) e--;
  double f = moecc_of_bits_f64(bits - e * ((int64_t)1 << 52)) - 1, s = f / (2 + f), z = s * s, p = 0;
  double n = (double)(e - tiny);
  for (int k = 25; k >= 3; k -= 2) p = (p + 2.0 / k) * z;
  double h = 0.5 * f * f; /* log(1 + f) = f - (h - s (h + p)) */
  return n * 0x1.62e42feep-1 + (f - (h - (s * (h + p) + n * 0x1.a39ef35793c76p-33)));
}
static inline double moecc_log1p_f64(double x) {
  double y = 1 + x;
  if (y == 1) return x;
  if (!(y > 0) || y > 1e300) return moecc_log_f64(y);
  return moecc_log_f64(y) + (x - (y - 1)) / y;
}

/* erf by a series of positive terms up to 2, by a continued fraction beyond. */
static inline double moecc_erf_f64(double x) {
  double a = moecc_abs_f64(x), r;
  if (x != x) return x;
  if (a < 2) {
    double term = x, sum = x, z = 2 * x * x;
    for (int n = 1; n < 60; n++) {
      term = term * z / (2 * n + 1);
      sum += term;
    }
    return sum * 1.1283791670955126 * moecc_exp_f64(-x * x);
  }
  if (a > 6) return x > 0 ? 1 : -1;
  r = 0;
  for (int n = 60; n > 0; n--) r = 0.5 * n / (a + r);
  r = 1 - moecc_exp_f64(-a * a) * 0.5641895835477563 / (a + r);
  return x > 0 ? r : -r;
}

/* The normal distribution's share below x. */
static inline double moecc_normal_f64(double x) {
  double a = moecc_abs_f64(x) * 0.7071067811865476, r = 0;
  if (a < 0.5 || x != x) return 0.5 + 0.5 * moecc_erf_f64(x * 0.7071067811865476);
  for (int n = a < 2 ? 800 : 60; n > 0; n--) r = 0.5 * n / (a + r);
  r = 0.5 * moecc_exp_f64(-a * a) * 0.5641895835477563 / (a + r);
  return x < 0 ? r : 1 - r;
}

static inline double moecc_tanh_f64(double x) {
  double a = moecc_abs_f64(x);
  double t = a > 20 ? 1 : moecc_expm1_f64(2 * a) / (moecc_expm1_f64(2 * a) + 2);
  return x != x ? x : x < 0 ? -t : t;
}
static inline double moecc_sigmoid_f64(double x) { return 1 / (1 + moecc_exp_f64(-x)); }
static inline double moecc_silu_f64(double x) { return x / (1 + moecc_exp_f64(-x)); }
static inline double moecc_gelu_f64(double x) { return x * moecc_normal_f64(x); }
static inline double moecc_gelu_tanh_f64(double x) {
  return x / (1 + moecc_exp_f64(-x * (1.5957691216057308 + 0.07135481627260025 * x * x)));
}
static inline double moecc_softplus_f64(double x) {
  return (x > 0 || x != x ? x : 0) + moecc_log1p_f64(moecc_exp_f64(-moecc_abs_f64(x)));
}

/* ---- trigonometry -------------------------------------------------------------------------------------------------
 */

/* sin and cos of |r| <= pi/4 by their series. */
static inline double moecc_sin_core_f64(double r) {
  double z = r * r, p = 1;
  for (int k = 18; k > 3; k -= 2) p = 1 - p * z / (k * (k + 1));
  return r - r * z / 6 * p;
}
static inline double moecc_cos_core_f64(double r) {
  double z = r * r, p = 1;
  for (int k = 19; k > 2; k -= 2) p = 1 - p * z / (k * (k + 1));
  return 1 - z / 2 * p;
}
/* sin(x + quarter pi/2): pi/2 in three parts, the first two of 33 bits. */
static inline double moecc_turn_f64(double x, int64_t quarter) {
  if (!(moecc_abs_f64(x) < 1e15)) {
    if (!(moecc_abs_f64(x) <= 1.7976931348623157e+308)) return NAN;
    x = fmod(x, 6.283185307179586);
  }
  double n = rint(x * 0.6366197723675814);
  double r = x - n * 0x1.921fb544p+0;
  r = r - n * 0x1.0b4611a6p-34;
  r = r - n * 0x1.3198a2e037073p-69;
  int64_t q = ((int64_t)n + quarter) & 3;
  double s = q & 1 ? moecc_cos_core_f64(r) : moecc_sin_core_f64(r);
  return q & 2 ? -s : s;
}
static inline double moecc_sin_f64(double x) { return moecc_turn_f64(x, 0); }
static inline double moecc_cos_f64(double x) { return moecc_turn_f64(x, 1); }
static inline double moecc_tan_f64(double x) { return moecc_sin_f64(x) / moecc_cos_f64(x); }

/* atan: |x| > 1 through its reciprocal, then twice the angle of half the size, then the series. */
static inline double moecc_atan_f64(double x) {
  double a = moecc_abs_f64(x), t = a > 1 ? 1 / a : a, p = 0;
  for (int halvings = 0; halvings < 2; halvings++) t = t / (1 + sqrt(1 + t * t));
  double z = t * t;
  for (int k = 25; k >= 3; k -= 2) p = z * (1.0 / k - p);
  double r = 4 * (t - t * p);
  if (a > 1) r = 1.5707963267948966 - r;
  return x != x ? x : x < 0 ? -r : r;
}
static inline double moecc_asin_f64(double x) {
  double a = moecc_abs_f64(x);
  if (!(a <= 1)) return NAN;
  return a == 1 ? x * 1.5707963267948966 : moecc_atan_f64(x / sqrt((1 - x) * (1 + x)));
}
static inline double moecc_acos_f64(double x) {
  if (!(moecc_abs_f64(x) <= 1)) return NAN;
  return x == -1 ? 3.141592653589793 : 2 * moecc_atan_f64(sqrt((1 - x) / (1 + x)));
}
static inline double moecc_sinh_f64(double x) {
  double a = moecc_abs_f64(x), e = moecc_expm1_f64(a > 700 ? a - 1 : a);
  double r = a > 700 ? 0.5 * 2.718281828459045 * e : 0.5 * (e + e / (e + 1));
  return x < 0 ? -r : x != x ? x : r;
}
static inline double moecc_cosh_f64(double x) {
  double a = moecc_abs_f64(x), e = moecc_exp_f64(a > 700 ? a - 1 : a);
  return a > 700 ? 0.5 * 2.718281828459045 * e : 0.5 * (e + 1 / e);
}
static inline double moecc_asinh_f64(double x) {
  double a = moecc_abs_f64(x), r;
  r = a > 1e8 ? moecc_log_f64(a) + 0.6931471805599453 : moecc_log1p_f64(a + a * a / (1 + sqrt(1 + a * a)));
  return x < 0 ? -r : r;
}
static inline double moecc_acosh_f64(double x) {
  double t = x - 1;
  return x > 1e8 ? moecc_log_f64(x) + 0.6931471805599453 : moecc_log1p_f64(t + sqrt(t * (x + 1)));
}
static inline double moecc_atanh_f64(double x) {
  double a = moecc_abs_f64(x), r = 0.5 * moecc_log1p_f64(2 * a / (1 - a));
  return a == 1 ? x * INFINITY : x < 0 ? -r : r;
}

/* x^y: by squaring for small whole y (so that x^2 is x * x), else exp(y log x). */
static inline double moecc_pow_f64(double x, double y) {
  double whole = rint(y), r = 1, f = x;
  if (y == 0 || x == 1) return 1;
  if (x != x || y != y) return NAN;
  if (y == whole && moecc_abs_f64(y) <= 64) {
    for (int64_t n = (int64_t)moecc_abs_f64(y); n; n >>= 1, f = f * f)
      if (n & 1) r *= f;
    return y < 0 ? 1 / r : r;
  }
  int odd = y == whole && moecc_abs_f64(y) < 0x1p53 && ((int64_t)y & 1);
  if (y == 0.5 && x >= 0) return sqrt(x) + 0.0;
  if (x < 0 && y != whole && x > -INFINITY && moecc_abs_f64(y) < INFINITY) return NAN;
  r = x == -1 ? 1 : moecc_exp_f64(y * moecc_log_f64(moecc_abs_f64(x)));
  return x < 0 && odd ? -r : r;
}

#endif
