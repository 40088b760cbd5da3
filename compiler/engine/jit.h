/* Runs lowered steps in this process: kernels are compiled in memory with libtcc, once per signature. Constant folding
 * is built on it, so that an operator has one meaning only: that of its template. */
#ifndef MOECC_ENGINE_JIT_H
#define MOECC_ENGINE_JIT_H

#include "lower/lower.h"

/* One output tensor per output of a node whose inputs are all constants (absent outputs: NULL). */
Tensor **jit_fold(Node *n);

#endif
