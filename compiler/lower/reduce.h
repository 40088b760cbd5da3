/* Reduction over a set of axes, for operators that are one under another name. */
#ifndef MOECC_LOWER_REDUCE_H
#define MOECC_LOWER_REDUCE_H

#include "lower.h"

/* Reduces the node's input 0 to its output 0 by the node's operator; keep: the reduced axes stay, of length 1. */
void low_reduce(Program *p, Node *n, const bool *reduced, bool keep);

#endif
