/* moecc_simd_512.h: sixteen floats, AVX-512 F, DQ and VL (x86-64-v4). What the operations mean: moecc_simd_generic.h.
 */
#ifndef MOECC_SIMD_LANES_H
#define MOECC_SIMD_LANES_H

#if defined(__TINYC__) || !defined(__GNUC__)
#error "moecc_simd_512.h needs GCC's vector extensions: compile for the target generic"
#endif
#if !defined(__AVX512F__) || !defined(__AVX512VL__) || !defined(__AVX512DQ__)
#error "tell the compiler the target: -march=x86-64-v4 (AVX-512 F, DQ and VL)"
#endif

#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define VF_LANES 16
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef vi vm; /* lanes of 0 or -1 */

static inline vf vf_zero(void) { return (vf)_mm512_setzero_ps(); }
static inline vf vf_set1(float x) { return (vf)_mm512_set1_ps(x); }
static inline vf vf_load(const float *p) { return (vf)_mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf v) { _mm512_storeu_ps(p, (__m512)v); }
static inline __mmask16 vf_first(size_t n) { return (__mmask16)((1u << n) - 1u); } /* mask of the first n lanes */
static inline vf vf_load_some(const float *p, size_t n) { return (vf)_mm512_maskz_loadu_ps(vf_first(n), p); }
static inline void vf_store_some(float *p, vf v, size_t n) { _mm512_mask_storeu_ps(p, vf_first(n), (__m512)v); }
static inline vf vf_load_step(const float *p, ptrdiff_t s) {
  return (vf){p[0],     p[s],     p[2 * s],  p[3 * s],  p[4 * s],  p[5 * s],  p[6 * s],  p[7 * s],
              p[8 * s], p[9 * s], p[10 * s], p[11 * s], p[12 * s], p[13 * s], p[14 * s], p[15 * s]};
}
static inline vf vf_load_step_some(const float *p, ptrdiff_t s, size_t n) {
  vf v = vf_zero();
  for (size_t i = 0; i < n; i++) v[i] = p[(ptrdiff_t)i * s];
  return v;
}
/* Four columns at a time; quarter h of vector i starts as row 4h + i. */
static inline __m512 vf_quarters(const float *p, ptrdiff_t row) {
  const __m512 a = _mm512_castps128_ps512(_mm_loadu_ps(p)), b = _mm512_insertf32x4(a, _mm_loadu_ps(p + 4 * row), 1);
  return _mm512_insertf32x4(_mm512_insertf32x4(b, _mm_loadu_ps(p + 8 * row), 2), _mm_loadu_ps(p + 12 * row), 3);
}
static inline void vf_transpose(const float *p, ptrdiff_t row, float *q, ptrdiff_t to) {
  for (int j = 0; j < 16; j += 4, p += 4, q += 4 * to) {
    const __m512 a = vf_quarters(p, row), b = vf_quarters(p + row, row);
    const __m512 c = vf_quarters(p + 2 * row, row), d = vf_quarters(p + 3 * row, row);
    const __m512 ab = _mm512_unpacklo_ps(a, b), AB = _mm512_unpackhi_ps(a, b);
    const __m512 cd = _mm512_unpacklo_ps(c, d), CD = _mm512_unpackhi_ps(c, d);
    _mm512_storeu_ps(q, _mm512_shuffle_ps(ab, cd, 0x44));
    _mm512_storeu_ps(q + to, _mm512_shuffle_ps(ab, cd, 0xee));
    _mm512_storeu_ps(q + 2 * to, _mm512_shuffle_ps(AB, CD, 0x44));
    _mm512_storeu_ps(q + 3 * to, _mm512_shuffle_ps(AB, CD, 0xee));
  }
}
#define VF_TABLE 16
static inline vf vf_pick(const float *table, vf z) {
  return (vf)_mm512_permutexvar_ps((__m512i)z, _mm512_loadu_ps(table));
}
static inline float vf_get(vf v, size_t i) { return v[i]; }
static inline vf vf_iota(void) { return (vf){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }

static inline vi vi_set1(int32_t x) { return (vi)_mm512_set1_epi32(x); }
static inline vi vf_bits(vf x) { return (vi)x; }
static inline vf vf_of_bits(vi x) { return (vf)x; }
static inline vf vf_of_int(vi x) { return (vf)_mm512_cvtepi32_ps((__m512i)x); }
static inline vi vi_trunc(vf x) { return (vi)_mm512_cvttps_epi32((__m512)x); }
static inline vi vi_round(vf x) { return (vi)_mm512_cvtps_epi32((__m512)x); }

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
static inline int vm_any(vm a) { return _mm512_movepi32_mask((__m512i)a) != 0; }
static inline vf vf_select(vm m, vf a, vf b) { return (vf)((m & (vi)a) | (~m & (vi)b)); }

static inline vf vf_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
static inline vf vf_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
static inline vf vf_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
static inline vf vf_abs(vf x) { return (vf)((vi)x & vi_set1(0x7fffffff)); }
static inline vf vf_sqrt(vf x) { return (vf)_mm512_sqrt_ps((__m512)x); }
static inline vf vf_floor(vf x) {
  return (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
static inline vf vf_ceil(vf x) {
  return (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
}
static inline vf vf_trunc(vf x) { return (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC); }
static inline vf vf_round(vf x) {
  return (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf vf_scale(vf x, vf n) { return (vf)_mm512_scalef_ps((__m512)x, (__m512)n); }
/* x 2^n for x in (1/2, 2) and whole n in [-126, 126], cheaper. */
static inline vf vf_scale_near(vf x, vf n) { return (vf)_mm512_scalef_ps((__m512)x, (__m512)n); }
static inline vf vf_scale_low(vf x, vf z) { return (vf)((vi)x + (vi)_mm512_slli_epi32((__m512i)z, 23)); }

static inline float vf_sum(vf v) { return _mm512_reduce_add_ps((__m512)v); }
static inline float vf_hmax(vf v) { return _mm512_reduce_max_ps((__m512)v); }
static inline float vf_hmin(vf v) { return _mm512_reduce_min_ps((__m512)v); }

#endif
