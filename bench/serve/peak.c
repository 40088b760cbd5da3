/* What the machine can do: `run N fma` multiplies and adds in registers, `run N read` reads memory. THREADS BYTES are the
 * arguments: how many do it at once, and how much they read between them, in each call. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "serve.h"

#if defined(__x86_64__)
#define IN_REGISTER "+v"
#elif defined(__aarch64__)
#define IN_REGISTER "+w"
#else
#define IN_REGISTER "+m"
#endif

#if defined(__AVX512F__)
typedef float Vector __attribute__((vector_size(64)));
#elif defined(__AVX__)
typedef float Vector __attribute__((vector_size(32)));
#else
typedef float Vector __attribute__((vector_size(16)));
#endif

enum { LANES = sizeof(Vector) / sizeof(float), CHAINS = 12, MAX_THREADS = 64 };
/* Twelve chains hide the latency of an FMA (4 cycles, 2 a cycle), and fit 16 registers beside two operands. */

static int n_threads;
static const Vector *memory;
static size_t vectors; /* of a thread's part */
static pthread_barrier_t start, end;
static char job; /* f or r */
static volatile float sink[MAX_THREADS][16];

static void multiply(int me) {
  Vector sum[CHAINS], a, b;
  float total = 0;
  for (int l = 0; l < LANES; l++) a[l] = 0.999f, b[l] = 0.001f;
  for (int i = 0; i < CHAINS; i++) sum[i] = b * (float)(i + 1);
  for (long k = 0; k < PEAK_FLOPS / (2L * CHAINS * LANES); k++) {
#pragma GCC unroll 12
    for (int i = 0; i < CHAINS; i++) sum[i] = sum[i] * a + b;
    __asm__ volatile("" : IN_REGISTER(a)); /* so that no step is left out */
  }
  for (int i = 0; i < CHAINS; i++)
    for (int l = 0; l < LANES; l++) total += sum[i][l];
  sink[me][0] = total;
}

static void read_memory(int me) {
  const Vector *p = memory + (size_t)me * vectors;
  Vector sum[8];
  float total = 0;
  memset(sum, 0, sizeof sum);
  for (size_t k = 0; k + 8 <= vectors; k += 8)
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) sum[i] += p[k + (size_t)i];
  for (int i = 0; i < 8; i++)
    for (int l = 0; l < LANES; l++) total += sum[i][l];
  sink[me][0] = total;
}

static void work(int me) { (job == 'f' ? multiply : read_memory)(me); }

static void *worker(void *argument) {
  for (;;) {
    (void)pthread_barrier_wait(&start);
    work((int)(intptr_t)argument);
    (void)pthread_barrier_wait(&end);
  }
  return NULL;
}

const char *serve_load(int count, char **arguments) {
  size_t bytes;
  void *p = NULL;
  pthread_t thread;
  if (count != 3) return "arguments are THREADS BYTES";
  n_threads = atoi(arguments[1]);
  bytes = (size_t)strtoull(arguments[2], NULL, 10);
  if (n_threads < 1 || n_threads > MAX_THREADS) return "that is no number of threads";
  vectors = bytes / sizeof(Vector) / (size_t)n_threads;
  if (posix_memalign(&p, 4096, bytes + 4096) != 0) return "no memory to read";
  memset(p, 0, bytes + 4096);
  memory = p;
  (void)pthread_barrier_init(&start, NULL, (unsigned)n_threads);
  (void)pthread_barrier_init(&end, NULL, (unsigned)n_threads);
  for (int i = 1; i < n_threads; i++)
    if (pthread_create(&thread, NULL, worker, (void *)(intptr_t)i) != 0) return "no thread can be started";
  return NULL;
}

const char *serve_run(const char *what) {
  job = *what;
  (void)pthread_barrier_wait(&start);
  work(0);
  (void)pthread_barrier_wait(&end);
  return NULL;
}

const char *serve_outputs(const char *folder) { return folder ? "a machine has no outputs" : NULL; }
