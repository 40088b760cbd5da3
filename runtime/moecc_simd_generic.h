/* moecc_simd_generic.h: the vector of one float, for compilers without vector extensions (tcc) and for any machine.
 *
 * The closed list of operations that every vector header has, and the only ones kernels use:
 *   VF_LANES              floats in a vector, a constant
 *   vf, vi, vm            a vector of floats, of int32, and a mask (from comparisons only)
 *   + - * / unary -       on vf; on vi also & | ^ ~ << >>; both operands vectors
 *   vf_zero vf_set1 vf_load vf_store                  any alignment
 *   vf_load_some vf_store_some (p, n)                 the first n lanes, 0 <= n <= VF_LANES; the others load as 0
 *   vf_load_step (p, step)                            lane i from p[i * step]
 *   vf_load_step_some (p, step, n)
 *   vf_transpose (p, row, q, to)  q[j * to + i] = p[i * row + j] for i, j < VF_LANES
 *   vf_get (v, i)         lane i
 *   vf_pick (table, z)    only where VF_TABLE, the table's length, is defined: table[i], i in the low bits of z
 *   vf_iota               0, 1, 2 ...
 *   vf_fma (a, b, c)      a * b + c, one rounding where the target has it
 *   vf_max vf_min (a, b)  a > b ? a : b and a < b ? a : b: b if one of them is NaN
 *   vf_abs vf_sqrt vf_floor vf_ceil vf_trunc vf_round (to nearest, ties to even)
 *   < <= > >= == !=       on vf: masks, as vf_lt vf_le vf_gt vf_ge vf_eq vf_ne
 *   vf_is_nan             a mask; comparisons with NaN are false, but for vf_ne
 *   vm_and vm_or vm_not vm_any
 *   vf_select (m, a, b)   m ? a : b
 *   vi_set1 vi_round vi_trunc (from vf, in range)  vf_of_int  vf_bits  vf_of_bits
 *   vf_scale (x, n)       x * 2^n for whole n in [-252, 254], with overflow to infinity and gradual underflow
 *   vf_scale_near (x, n)  the same, cheaper, for x in (1/2, 2) and n in [-126, 126]
 *   vf_scale_low (x, z)   the same, for n in the low bits of z as after adding 1.5 * 2^23 to it
 *   vf_sum vf_hmax vf_hmin                            over the lanes, in a fixed order
 */
#ifndef MOECC_SIMD_LANES_H
#define MOECC_SIMD_LANES_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define VF_LANES 1
typedef float vf;
typedef int32_t vi;
typedef int vm;

static inline vf vf_zero(void) { return 0.0f; }
static inline vf vf_set1(float x) { return x; }
static inline vf vf_load(const float *p) { return *p; }
static inline void vf_store(float *p, vf v) { *p = v; }
static inline vf vf_load_some(const float *p, size_t n) { return n ? *p : 0.0f; }
static inline void vf_store_some(float *p, vf v, size_t n) {
  if (n) *p = v;
}
static inline vf vf_load_step(const float *p, ptrdiff_t step) {
  (void)step;
  return *p;
}
static inline vf vf_load_step_some(const float *p, ptrdiff_t step, size_t n) {
  (void)step;
  return n ? *p : 0.0f;
}
static inline void vf_transpose(const float *p, ptrdiff_t row, float *q, ptrdiff_t to) {
  (void)row;
  (void)to;
  *q = *p;
}
static inline float vf_get(vf v, size_t i) {
  (void)i;
  return v;
}
static inline vf vf_iota(void) { return 0.0f; }

/* Where the target has the instruction it is asked for by name: left to the compiler, some sums would be fused and others
 * not, by how the loops around them come out. */
#if defined(__FP_FAST_FMAF) && !defined(__TINYC__)
static inline vf vf_fma(vf a, vf b, vf c) { return __builtin_fmaf(a, b, c); }
#else
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
#endif
static inline vf vf_max(vf a, vf b) { return a > b ? a : b; }
static inline vf vf_min(vf a, vf b) { return a < b ? a : b; }

static inline vi vf_bits(vf x) {
  union {
    float f;
    int32_t i;
  } u;
  u.f = x;
  return u.i;
}
static inline vf vf_of_bits(vi x) {
  union {
    float f;
    int32_t i;
  } u;
  u.i = x;
  return u.f;
}
static inline vf vf_abs(vf x) { return vf_of_bits(vf_bits(x) & 0x7fffffff); }
/* Through double: a float's root is never close enough to a rounding boundary for the second rounding to matter. */
static inline vf vf_sqrt(vf x) { return (float)sqrt((double)x); }

static inline vi vi_set1(int32_t x) { return x; }
static inline vi vi_trunc(vf x) { return (int32_t)x; }
static inline vf vf_of_int(vi x) { return (float)x; }

static inline vm vf_lt(vf a, vf b) { return a < b; }
static inline vm vf_le(vf a, vf b) { return a <= b; }
static inline vm vf_gt(vf a, vf b) { return a > b; }
static inline vm vf_ge(vf a, vf b) { return a >= b; }
static inline vm vf_eq(vf a, vf b) { return a == b; }
static inline vm vf_ne(vf a, vf b) { return a != b; }
static inline vm vf_is_nan(vf a) { return (vf_bits(a) & 0x7fffffff) > 0x7f800000; }
static inline vm vm_and(vm a, vm b) { return a & b; }
static inline vm vm_or(vm a, vm b) { return a | b; }
static inline vm vm_not(vm a) { return !a; }
static inline int vm_any(vm a) { return a; }
static inline vf vf_select(vm m, vf a, vf b) { return m ? a : b; }

/* Rounding: from 2^23 on every float is whole, and the sign of zero is kept. */
static inline vf vf_whole(vf x, vf whole) {
  if (!(vf_abs(x) < 8388608.0f)) return x;
  return vf_of_bits(vf_bits(whole) | (vf_bits(x) & (int32_t)0x80000000u));
}
static inline vf vf_trunc(vf x) { return vf_whole(x, vf_abs(x) < 8388608.0f ? (float)(int32_t)x : x); }
static inline vf vf_floor(vf x) {
  vf t = vf_trunc(x);
  return vf_whole(x, t > x ? t - 1.0f : t);
}
static inline vf vf_ceil(vf x) {
  vf t = vf_trunc(x);
  return vf_whole(x, t < x ? t + 1.0f : t);
}
static inline vf vf_round(vf x) {
  vf t = vf_floor(x), d = x - t;
  if (d > 0.5f || (d == 0.5f && vf_abs(x) < 8388608.0f && ((int32_t)t & 1))) t += 1.0f;
  return vf_whole(x, t);
}
static inline vi vi_round(vf x) { return (int32_t)vf_round(x); }
static inline vf vf_scale(vf x, vf n) {
  int32_t k = (int32_t)n, half = k >> 1;
  return x * vf_of_bits((vi)((uint32_t)(half + 127) << 23)) * vf_of_bits((vi)((uint32_t)(k - half + 127) << 23));
}
/* x 2^n for x in (1/2, 2) and whole n in [-126, 126], cheaper. */
static inline vf vf_scale_near(vf x, vf n) {
  return vf_of_bits((vi)((uint32_t)vf_bits(x) + ((uint32_t)(int32_t)n << 23)));
}
static inline vf vf_scale_low(vf x, vf z) {
  return vf_of_bits((vi)((uint32_t)vf_bits(x) + ((uint32_t)vf_bits(z) << 23)));
}

static inline float vf_sum(vf v) { return v; }
static inline float vf_hmax(vf v) { return v; }
static inline float vf_hmin(vf v) { return v; }

#endif
