/* What is known about the machines code is made for. A new target is a line here and, if its vectors are new, a header
 * runtime/moecc_simd_<simd>.h. */
#include "lower/lower.h"

#include <string.h>
#include <unistd.h>

static const Target targets[] = {
    {"generic", "generic", 1, 16, 32 << 10, 256 << 10, 8, "", "cc", 0, 0},
    {"x86-64-v2", "128", 4, 16, 32 << 10, 256 << 10, 8, "-march=x86-64-v2", "cc", 0, 0},
    {"x86-64-v3", "256", 8, 16, 32 << 10, 512 << 10, 8, "-march=x86-64-v3", "cc", 0, 0},
    {"x86-64-v4", "512", 16, 32, 48 << 10, 1 << 20, 8, "-march=x86-64-v4 -mprefer-vector-width=512", "cc", 0, 0},
    {"aarch64", "128", 4, 32, 32 << 10, 512 << 10, 8, "-march=armv8-a", "aarch64-linux-gnu-gcc", 0, 0},
    {"riscv64", "generic", 1, 32, 32 << 10, 256 << 10, 8, "-march=rv64gc", "riscv64-linux-gnu-gcc", 0, 0},
};

const Target *target_at(size_t i) { return i < sizeof targets / sizeof *targets ? &targets[i] : NULL; }

static const char *native_name(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd"))
    return "x86-64-v4";
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "x86-64-v3";
  if (__builtin_cpu_supports("sse4.2")) return "x86-64-v2";
  return "generic";
#elif defined(__aarch64__)
  return "aarch64";
#elif defined(__riscv)
  return "riscv64";
#else
  return "generic";
#endif
}

/* The caches of this machine, where the system knows them. */
static const Target *with_own_caches(const Target *t) {
  static Target native;
  native = *t;
#if defined(_SC_LEVEL1_DCACHE_SIZE) && defined(_SC_LEVEL2_CACHE_SIZE)
  enum { LEAST_L1 = 16 << 10, LEAST_L2 = 128 << 10, MOST_L2 = 4 << 20 };
  long l1 = sysconf(_SC_LEVEL1_DCACHE_SIZE), l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (l1 >= LEAST_L1) native.l1 = l1;
  if (l2 >= LEAST_L2) native.l2 = l2 < MOST_L2 ? l2 : MOST_L2;
#endif
  return &native;
}

static const Target *find_name(const char *name) {
  for (const Target *t = targets; t < targets + sizeof targets / sizeof *targets; t++)
    if (strcmp(t->name, name) == 0) return t;
  return NULL;
}

const Target *target_find(const char *name) {
  return strcmp(name, "native") == 0 ? with_own_caches(find_name(native_name())) : find_name(name);
}
