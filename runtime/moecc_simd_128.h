/* moecc_simd_128.h: four floats, by GCC's vector extensions: x86-64-v2, AArch64, and any other target (RISC-V,
 * WebAssembly), for which the compiler splits what the machine lacks. Intrinsics stand where the extensions have no
 * word (root, rounding, min and max). What the operations mean: moecc_simd_generic.h.
 */
#ifndef MOECC_SIMD_LANES_H
#define MOECC_SIMD_LANES_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__TINYC__) || !defined(__GNUC__)
#error "moecc_simd_128.h needs GCC's vector extensions: compile for the target generic"
#endif
#if (defined(__x86_64__) || defined(__i386__)) && !defined(__SSE4_1__)
#error "tell the compiler the target: -march=x86-64-v2"
#endif
#if defined(__SSE4_1__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define VF_LANES 4
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef vi vm;
typedef float vf_any __attribute__((vector_size(16), aligned(4), may_alias));

static inline vf vf_zero(void) { return (vf){0, 0, 0, 0}; }
static inline vf vf_set1(float x) { return (vf){x, x, x, x}; }
static inline vf vf_load(const float *p) { return (vf) * (const vf_any *)p; }
static inline void vf_store(float *p, vf v) { *(vf_any *)p = (vf_any)v; }
static inline vf vf_load_some(const float *p, size_t n) {
  if (n >= 4) return vf_load(p);
  return (vf){n > 0 ? p[0] : 0.0f, n > 1 ? p[1] : 0.0f, n > 2 ? p[2] : 0.0f, 0.0f};
}
static inline void vf_store_some(float *p, vf v, size_t n) {
  if (n >= 4) {
    vf_store(p, v);
    return;
  }
  if (n > 0) p[0] = v[0];
  if (n > 1) p[1] = v[1];
  if (n > 2) p[2] = v[2];
}
static inline vf vf_load_step(const float *p, ptrdiff_t s) { return (vf){p[0], p[s], p[2 * s], p[3 * s]}; }
static inline vf vf_load_step_some(const float *p, ptrdiff_t s, size_t n) {
  return (vf){n > 0 ? p[0] : 0.0f, n > 1 ? p[s] : 0.0f, n > 2 ? p[2 * s] : 0.0f, n > 3 ? p[3 * s] : 0.0f};
}
static inline void vf_transpose(const float *p, ptrdiff_t row, float *q, ptrdiff_t to) {
  for (ptrdiff_t j = 0; j < 4; j++) vf_store(q + j * to, vf_load_step(p + j, row));
}
static inline float vf_get(vf v, size_t i) { return v[i]; }
static inline vf vf_iota(void) { return (vf){0, 1, 2, 3}; }

static inline vi vi_set1(int32_t x) { return (vi){x, x, x, x}; }
static inline vi vf_bits(vf x) { return (vi)x; }
static inline vf vf_of_bits(vi x) { return (vf)x; }
static inline vf vf_of_int(vi x) { return __builtin_convertvector(x, vf); }
static inline vi vi_trunc(vf x) { return __builtin_convertvector(x, vi); }

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
static inline int vm_any(vm a) { return (a[0] | a[1] | a[2] | a[3]) != 0; }
static inline vf vf_abs(vf x) { return (vf)((vi)x & vi_set1(0x7fffffff)); }

#if defined(__SSE4_1__)

#if defined(__FMA__)
static inline vf vf_fma(vf a, vf b, vf c) { return (vf)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)c); }
#else
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
#endif
static inline vf vf_select(vm m, vf a, vf b) { return (vf)_mm_blendv_ps((__m128)b, (__m128)a, (__m128)m); }
static inline vf vf_max(vf a, vf b) { return (vf)_mm_max_ps((__m128)a, (__m128)b); }
static inline vf vf_min(vf a, vf b) { return (vf)_mm_min_ps((__m128)a, (__m128)b); }
static inline vf vf_sqrt(vf x) { return (vf)_mm_sqrt_ps((__m128)x); }
static inline vf vf_floor(vf x) { return (vf)_mm_floor_ps((__m128)x); }
static inline vf vf_ceil(vf x) { return (vf)_mm_ceil_ps((__m128)x); }
static inline vf vf_trunc(vf x) { return (vf)_mm_round_ps((__m128)x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC); }
static inline vf vf_round(vf x) { return (vf)_mm_round_ps((__m128)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

#else

static inline vf vf_select(vm m, vf a, vf b) { return (vf)((m & (vi)a) | (~m & (vi)b)); }
static inline vf vf_max(vf a, vf b) { return vf_select(a > b, a, b); }
static inline vf vf_min(vf a, vf b) { return vf_select(a < b, a, b); }

#if defined(__aarch64__)

static inline vf vf_fma(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
static inline vf vf_sqrt(vf x) { return (vf)vsqrtq_f32((float32x4_t)x); }
static inline vf vf_floor(vf x) { return (vf)vrndmq_f32((float32x4_t)x); }
static inline vf vf_ceil(vf x) { return (vf)vrndpq_f32((float32x4_t)x); }
static inline vf vf_trunc(vf x) { return (vf)vrndq_f32((float32x4_t)x); }
static inline vf vf_round(vf x) { return (vf)vrndnq_f32((float32x4_t)x); }

#else

static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf vf_sqrt(vf x) {
  return (vf){__builtin_sqrtf(x[0]), __builtin_sqrtf(x[1]), __builtin_sqrtf(x[2]), __builtin_sqrtf(x[3])};
}
/* From 2^23 on every float is whole; the sign of zero is kept. */
static inline vf vf_whole(vf x, vf whole) {
  vf sign = (vf)((vi)x & vi_set1((int32_t)0x80000000u));
  return vf_select(vf_abs(x) < vf_set1(8388608.0f), (vf)((vi)whole | (vi)sign), x);
}
static inline vf vf_small(vf x) { return vf_select(vf_abs(x) < vf_set1(8388608.0f), x, vf_zero()); }
static inline vf vf_trunc(vf x) { return vf_whole(x, vf_of_int(vi_trunc(vf_small(x)))); }
static inline vf vf_floor(vf x) {
  vf t = vf_of_int(vi_trunc(vf_small(x)));
  return vf_whole(x, vf_select(t > x, t - vf_set1(1.0f), t));
}
static inline vf vf_ceil(vf x) {
  vf t = vf_of_int(vi_trunc(vf_small(x)));
  return vf_whole(x, vf_select(t < x, t + vf_set1(1.0f), t));
}
static inline vf vf_round(vf x) {
  vf t = vf_floor(x), d = x - t;
  vm odd = (vi_trunc(vf_small(t)) & vi_set1(1)) != vi_set1(0);
  vm up = (d > vf_set1(0.5f)) | ((d == vf_set1(0.5f)) & odd);
  return vf_whole(x, vf_select(up, t + vf_set1(1.0f), t));
}

#endif
#endif

static inline vi vi_round(vf x) { return vi_trunc(vf_round(x)); }
static inline vf vf_scale(vf x, vf n) {
  vi k = vi_trunc(n), half = k >> vi_set1(1), bias = vi_set1(127), shift = vi_set1(23);
  return x * (vf)((half + bias) << shift) * (vf)((k - half + bias) << shift);
}
/* x 2^n for x in (1/2, 2) and whole n in [-126, 126], cheaper. */
static inline vf vf_scale_near(vf x, vf n) { return (vf)((vi)x + (vi_trunc(n) << vi_set1(23))); }
static inline vf vf_scale_low(vf x, vf z) { return (vf)((vi)x + ((vi)z << vi_set1(23))); }

static inline float vf_sum(vf v) { return (v[0] + v[2]) + (v[1] + v[3]); }
static inline float vf_hmax(vf v) {
  float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];
  return a > b ? a : b;
}
static inline float vf_hmin(vf v) {
  float a = v[0] < v[2] ? v[0] : v[2], b = v[1] < v[3] ? v[1] : v[3];
  return a < b ? a : b;
}

#endif
