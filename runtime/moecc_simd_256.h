/* moecc_simd_256.h: eight floats, AVX2 with FMA (x86-64-v3). What the operations mean: moecc_simd_generic.h. */
#ifndef MOECC_SIMD_LANES_H
#define MOECC_SIMD_LANES_H

#if defined(__TINYC__) || !defined(__GNUC__)
#error "moecc_simd_256.h needs GCC's vector extensions: compile for the target generic"
#endif
#if !defined(__AVX2__) || !defined(__FMA__)
#error "tell the compiler the target: -march=x86-64-v3 (AVX2 and FMA)"
#endif

#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define VF_LANES 8
typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef vi vm;

static inline vf vf_zero(void) { return (vf)_mm256_setzero_ps(); }
static inline vf vf_set1(float x) { return (vf)_mm256_set1_ps(x); }
static inline vf vf_load(const float *p) { return (vf)_mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf v) { _mm256_storeu_ps(p, (__m256)v); }
static inline vi vf_first(size_t n) { /* mask of the first n lanes */
  return (vi)_mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf vf_load_some(const float *p, size_t n) { return (vf)_mm256_maskload_ps(p, (__m256i)vf_first(n)); }
static inline void vf_store_some(float *p, vf v, size_t n) { _mm256_maskstore_ps(p, (__m256i)vf_first(n), (__m256)v); }
static inline vf vf_load_step(const float *p, ptrdiff_t s) {
  return (vf){p[0], p[s], p[2 * s], p[3 * s], p[4 * s], p[5 * s], p[6 * s], p[7 * s]};
}
static inline vf vf_load_step_some(const float *p, ptrdiff_t s, size_t n) {
  vf v = vf_zero();
  for (size_t i = 0; i < n; i++) v[i] = p[(ptrdiff_t)i * s];
  return v;
}
/* Four columns at a time; half h of vector i starts as row 4h + i. */
static inline __m256 vf_quarters(const float *p, ptrdiff_t row) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * row), 1);
}
static inline void vf_transpose(const float *p, ptrdiff_t row, float *q, ptrdiff_t to) {
  for (int j = 0; j < 8; j += 4, p += 4, q += 4 * to) {
    const __m256 a = vf_quarters(p, row), b = vf_quarters(p + row, row);
    const __m256 c = vf_quarters(p + 2 * row, row), d = vf_quarters(p + 3 * row, row);
    const __m256 ab = _mm256_unpacklo_ps(a, b), AB = _mm256_unpackhi_ps(a, b);
    const __m256 cd = _mm256_unpacklo_ps(c, d), CD = _mm256_unpackhi_ps(c, d);
    _mm256_storeu_ps(q, _mm256_shuffle_ps(ab, cd, 0x44));
    _mm256_storeu_ps(q + to, _mm256_shuffle_ps(ab, cd, 0xee));
    _mm256_storeu_ps(q + 2 * to, _mm256_shuffle_ps(AB, CD, 0x44));
    _mm256_storeu_ps(q + 3 * to, _mm256_shuffle_ps(AB, CD, 0xee));
  }
}
#define VF_TABLE 8
static inline vf vf_pick(const float *table, vf z) {
  return (vf)_mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)z);
}
static inline float vf_get(vf v, size_t i) { return v[i]; }
static inline vf vf_iota(void) { return (vf){0, 1, 2, 3, 4, 5, 6, 7}; }

static inline vi vi_set1(int32_t x) { return (vi)_mm256_set1_epi32(x); }
static inline vi vf_bits(vf x) { return (vi)x; }
static inline vf vf_of_bits(vi x) { return (vf)x; }
static inline vf vf_of_int(vi x) { return (vf)_mm256_cvtepi32_ps((__m256i)x); }
static inline vi vi_trunc(vf x) { return (vi)_mm256_cvttps_epi32((__m256)x); }
static inline vi vi_round(vf x) { return (vi)_mm256_cvtps_epi32((__m256)x); }

static inline vm vf_lt(vf a, vf b) { return a < b; }
static inline vm vf_le(vf a, vf b) { return a <= b; }
static inline vm vf_gt(vf a, vf b) { return a > b; }
static inline vm vf_ge(vf a, vf b) { return a >= b; }
static inline vm vf_eq(vf a, vf b) { return a == b; }
static inline vm vf_ne(vf a, vf b) { return a != b; }
static inline vm vf_is_nan(vf a) { return (vf_bits(a) & vi_set1(0x7fffffff)) > vi_set1(0x7f800000); }
static inline vm vm_and(vm a, vm b) { return a & b; }
static inline vm vm_or(vm a, vm b) { return a | b; }
static inline vm vm_not(vm a) { return ~a; }
static inline int vm_any(vm a) { return _mm256_movemask_ps((__m256)(vf)a) != 0; }
static inline vf vf_select(vm m, vf a, vf b) { return (vf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)(vf)m); }

static inline vf vf_fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
static inline vf vf_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
static inline vf vf_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
static inline vf vf_abs(vf x) { return (vf)((vi)x & vi_set1(0x7fffffff)); }
static inline vf vf_sqrt(vf x) { return (vf)_mm256_sqrt_ps((__m256)x); }
static inline vf vf_floor(vf x) { return (vf)_mm256_floor_ps((__m256)x); }
static inline vf vf_ceil(vf x) { return (vf)_mm256_ceil_ps((__m256)x); }
static inline vf vf_trunc(vf x) { return (vf)_mm256_round_ps((__m256)x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC); }
static inline vf vf_round(vf x) {
  return (vf)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf vf_scale(vf x, vf n) {
  vi k = vi_trunc(n), half = (vi)_mm256_srai_epi32((__m256i)k, 1), bias = vi_set1(127);
  vi a = (vi)_mm256_slli_epi32((__m256i)(half + bias), 23), b = (vi)_mm256_slli_epi32((__m256i)(k - half + bias), 23);
  return x * (vf)a * (vf)b;
}
/* x 2^n for x in (1/2, 2) and whole n in [-126, 126], cheaper. */
static inline vf vf_scale_near(vf x, vf n) { return (vf)((vi)x + (vi)_mm256_slli_epi32((__m256i)vi_trunc(n), 23)); }
static inline vf vf_scale_low(vf x, vf z) { return (vf)((vi)x + (vi)_mm256_slli_epi32((__m256i)z, 23)); }

static inline float vf_sum(vf v) {
  __m128 h = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  h = _mm_add_ps(h, _mm_movehl_ps(h, h));
  return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}
static inline float vf_hmax(vf v) {
  __m128 h = _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  h = _mm_max_ps(h, _mm_movehl_ps(h, h));
  return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
}
static inline float vf_hmin(vf v) {
  __m128 h = _mm_min_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  h = _mm_min_ps(h, _mm_movehl_ps(h, h));
  return _mm_cvtss_f32(_mm_min_ss(h, _mm_movehdup_ps(h)));
}

#endif
