/* Chains of operators on pictures, computed in bands of the last one's rows, so that of the pictures between them only
 * the rows that a band needs are in memory. See bands.c. */
#ifndef MOECC_LOWER_BANDS_H
#define MOECC_LOWER_BANDS_H

#include "lower.h"

/* Rows first … first + view.dim[2] - 1 of a picture [1, C, H, W], which lie in view. */
typedef struct {
  View view;
  int64_t first;
} RowBand;

/* The operators that can be computed for some rows: their first and last row of input for `rows` rows of output from
 * `from` on, and the step itself. False: this node cannot. */
bool resize_conv_can_band(const Program *p, const Node *n);
void resize_conv_reach(Program *p, const Node *n, int64_t from, int64_t rows, int64_t *first, int64_t *count);
void resize_conv_band(Program *p, Node *n, const RowBand *x, const RowBand *y);
bool resize_can_band(const Program *p, const Node *n);
void resize_reach(Program *p, const Node *n, int64_t from, int64_t rows, int64_t *first, int64_t *count);
void resize_band(Program *p, Node *n, const RowBand *x, const RowBand *y);

/* Is n a part of a chain that is computed when the last node of it comes? Its steps then are not made. */
bool bands_waits(const Program *p, const Node *n);
/* If n ends a chain: its steps, band by band, and true. */
bool bands_lower(Program *p, Node *n);
/* The operators of the longest chain of the graph; 0: there is none. */
int bands_longest(Program *p);

#endif
