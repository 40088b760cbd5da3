/* What the recognising passes share: looking at operands by meaning, whatever their order and spelling, and putting a
 * new node in the place of the ones it stands for.
 */
#ifndef MOECC_MATCH_H
#define MOECC_MATCH_H

#include "compiler.h"

/* ---- looking ---- */

/* Is x the constant `wanted`, as typed with six digits or rounded to float16 or bfloat16? */
bool same_number(double x, double wanted);
/* Does an unfused node of this operator make v? v may be NULL. */
bool made_by(const Value *v, Op op);
/* v = op(*a, *b) for an operator of two operands. */
bool match_binary(const Value *v, Op op, Value **a, Value **b);
/* v = op(*x, c) or, for commutative operators, op(c, *x), with c a number that does not change the shape. */
bool match_number(const Value *v, Op op, Value **x, double *c);
/* v = *x times a number: Mul by it, Div by its inverse, Neg. */
bool match_scaled(const Value *v, Value **x, double *factor);
/* v = *x squared: Mul by itself or Pow 2. */
bool match_square(const Value *v, Value **x);
/* The axes that a Reduce*, Squeeze or Unsqueeze node names in input 1, as a bit set of the given rank; all for a Reduce
 * that names none. False if they are not constant. */
bool node_axes(const Node *n, int rank, unsigned *axes);
/* An attribute or constant axis, counted from the end if negative, as 0 … rank-1; -1 if out of range. */
int axis_at(int64_t axis, int rank);
/* The permutation of a Transpose node of known rank. */
bool transpose_perm(const Node *n, int64_t perm[MAX_RANK]);
/* Are the last n dimensions of both equal numbers? */
bool same_tail(const Shape *a, const Shape *b, int n);

/* v, from a Slice, Split or Gather with constant operands, is `count` elements of one dimension of its input, every
 * step-th from `first` on, all other dimensions whole (part.c). False if it is anything else. */
bool part_range(const Value *v, int *dim, int64_t *first, int64_t *step, int64_t *count);

/* The nodes that one new node is to replace. */
typedef struct {
  const Node *node[32];
  int n;
} Match;
void match_add(Match *m, const Node *n); /* once; n may be NULL */
/* May `root` take the place of all: are they few enough, serve the same tasks, and is no result but root's read
 * outside? */
bool match_closed(const Match *m, const Node *root);
/* The only reader of v, which is of this operator, unfused and needed by the same tasks; or NULL. */
Node *sole_reader(const Value *v, Op op);

/* ---- changing ---- */

/* The nodes of the graph, to visit while nodes come and go; whether one of them has been removed since. */
Node **node_list(Graph *g, size_t *count);
bool node_gone(const Node *n);
/* Removes n if nobody needs it, and then what only it needed. */
void prune(Node *n);
/* A new node right before v's producer, which from then on computes v in its place (one output only). Name and scope
 * are the old producer's, which is pruned. */
Node *take_over(Value *v, Op op, int n_in, Value *const *in);
/* A new node before `before` with one output of the given type and shape, needed by before's tasks. */
Value *insert_value(Node *before, Op op, DType t, Shape s, int n_in, ...);
Value *shape_constant(const Node *n, const Shape *s); /* for a Reshape or Expand of n's tasks */
/* Views of x; what would undo or repeat the view that x is reads that view's source instead. */
Value *insert_reshape(Node *before, Value *x, const Shape *s);
Value *insert_transpose(Node *before, Value *x, const int64_t *perm);
Value *insert_swap_last(Node *before, Value *x); /* the last two axes exchanged */
/* Lets `to` be read wherever `from` is, serve from's tasks too, and prunes from's producer. */
void replace_value(Value *from, Value *to);

/* ---- constants ---- */

double *tensor_doubles(Ctx *c, const Tensor *t);
/* A constant of a float type from doubles; `like` gives name and tasks, or is NULL. */
Value *constant_doubles(Graph *g, const Value *like, DType t, int rank, const int64_t *dims, const double *x);
/* The constant t broadcast to a shape of numbers; false if it does not broadcast to it. */
bool broadcast_doubles(Ctx *c, const Tensor *t, const Shape *to, double **out);

#endif
