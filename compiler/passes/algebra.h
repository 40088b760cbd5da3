/* The rules of the pass algebra that stand in files of their own. Each looks at one node, and returns whether it has
 * changed the graph; the node may be gone then.
 */
#ifndef MOECC_ALGEBRA_H
#define MOECC_ALGEBRA_H

#include "match.h"
#include "recognise.h"

bool gemm_as_matmul(Node *n);         /* algebra_matmul.c: Gemm -> MatMul and Add */
bool split_constant_columns(Node *n); /* algebra_matmul.c: MatMul(Concat(a, constant), W) -> MatMul(a, W_top) + row */

#endif
