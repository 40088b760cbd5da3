/* Loop nests over strided views: dimensions in a chosen order, those of 1 dropped and neighbours merged where every
 * view allows it. What kernels that read through strides get as their tables.
 */
#ifndef MOECC_LOWER_LOOPS_H
#define MOECC_LOWER_LOOPS_H

#include "lower.h"

enum { LOOP_VIEWS = 16 };

typedef struct {
  int rank; /* loops left, outermost first; 0 for a single element */
  int64_t dim[MAX_RANK];
  int n_views;
  int64_t stride[LOOP_VIEWS][MAX_RANK];
} Loops;

/* The loops over dims dim[order[0]], dim[order[1]], … of views of one shape. order NULL: 0, 1, 2 … */
Loops loops_of(int rank, const int64_t *dim, const int *order, int n_views, const View *const *view);
/* Splits the innermost loop off: its length (1 if there is none) with strides, and the outer ones as a table: their
 * number, then for each its length and every view's stride times scale[view] (NULL: 1). Returns the rows, their
 * product. */
typedef struct {
  int64_t rows, n;
  int64_t step[LOOP_VIEWS];
  int64_t table[1 + MAX_RANK * (1 + LOOP_VIEWS)];
  size_t n_table;
} Rows;
Rows loops_rows(const Loops *l, const int64_t *scale);

int64_t view_count(const View *w);
/* A view of the node's dimensions as int64, for shapes that are known by now (fails otherwise). */
void value_dims(Ctx *c, const Node *n, const Value *v, int64_t *dim);
/* A copy of w with its dimensions dense in `order`; broadcast dimensions stay broadcast unless `full`. */
View low_dense(Program *p, const Node *n, const View *w, const int *order, bool full);
void low_fill_tensor(Program *p, const Node *n, const Tensor *value, const View *to); /* with its one element */
/* out[i0,i1,…] = x[pick[0][i0], pick[1][i1], …]; pick[a] NULL: the index itself. */
void low_pick(Program *p, const Node *n, const View *x, Value *out, int64_t *const *pick);
/* BatchNormalization at inference, as an elementwise step (lower_elementwise.c). */
void low_batch_normalization(Program *p, Node *n);
int normal_axis(Ctx *c, const Node *n, int64_t axis, int rank);
/* Fails if the node carries fused work that its lowering cannot do. */
void no_expression(Program *p, const Node *n);
extern const int ROW_MAJOR[MAX_RANK];

#endif
