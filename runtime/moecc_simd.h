/* moecc_simd.h: picks the vector header. Emitted code includes the header of its target directly; what is compiled
 * without a target (templates alone, folding, tests) says -DMOECC_SIMD=0, 128, 256 or 512, or takes what the compiler's
 * own target offers. The operations are the closed list at the top of moecc_simd_generic.h.
 */
#ifndef MOECC_SIMD_H
#define MOECC_SIMD_H

#ifndef MOECC_SIMD
#if defined(__TINYC__) || !defined(__GNUC__)
#define MOECC_SIMD 0
#elif defined(__AVX512F__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define MOECC_SIMD 512
#elif defined(__AVX2__) && defined(__FMA__)
#define MOECC_SIMD 256
#elif defined(__SSE4_1__) || defined(__ARM_NEON)
#define MOECC_SIMD 128
#else
#define MOECC_SIMD 0
#endif
#endif

#if MOECC_SIMD == 512
#include "moecc_simd_512.h"
#elif MOECC_SIMD == 256
#include "moecc_simd_256.h"
#elif MOECC_SIMD == 128
#include "moecc_simd_128.h"
#else
#include "moecc_simd_generic.h"
#endif

#endif
