/* Shared by the shape rules (shapes_*.c) and by infer.c; nothing outside includes it.
 *
 * A rule bool infer_<rule>(Node *n) sets dtype and shape of n's outputs. It is called with every present input's type
 * and shape known (dimensions are numbers or bounded symbols) and attributes of the right kinds. It returns false where
 * the shape depends on a value that is not constant; an error in the model leaves through shape_error.
 */
#ifndef MOECC_SHAPES_H
#define MOECC_SHAPES_H

#include "compiler.h"

#define OP(id, name, domain, in_min, in_max, out_min, out_max, since, until, rule, ...) bool infer_##rule(Node *n);
#include "ir/ops.def"

enum { MAX_CONTENT = 64 }; /* longest integer vector whose symbolic content is followed */

/* Reports an error of the node and ends its inference (infer_node then returns false). */
_Noreturn void shape_error(const Node *n, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* "f32[2,3]": type and shape of input i. */
const char *input_text(const Node *n, int i);

/* Operands. */
bool has_input(const Node *n, int i);
const Shape *input_shape(const Node *n, int i);
/* Sets output i, if the node has it. */
void set_output(Node *n, int i, DType t, const Shape *s);
/* What is known of an integer vector or scalar: the elements as numbers or symbols; false if nothing is. */
bool input_content(const Node *n, int i, Dim *out, int *count);
/* A constant vector (or scalar) of at most `most` integers; false if it is not constant. */
bool input_ints(const Node *n, int i, int64_t *out, int most, int *count);
/* One constant integer; false if it is not constant. */
bool input_int(const Node *n, int i, int64_t *out);
/* Makes sure that input i has rank `rank`, or a rank within least … most, or the element type of input 0. */
void need_rank(const Node *n, int i, int rank);
void need_rank_within(const Node *n, int i, int least, int most);
void need_same_type(const Node *n, int i);
void need_index_type(const Node *n, int i); /* int32 or int64 */

/* An axis counted from the end if negative; an error if outside 0 … rank-1. */
int need_axis(const Node *n, int64_t axis, int rank);
/* The axes as flags; duplicates are errors. */
void need_axes(const Node *n, const int64_t *axes, int count, int rank, bool out[MAX_RANK]);

/* Dimensions. */
static inline Dim dim_of(int64_t n) { return (Dim){.n = n}; }
bool dim_equal(Dim a, Dim b);
bool dim_is(Dim a, int64_t n);
/* May the two be equal at run time? A symbol may be anything up to its bound. */
bool dim_may_equal(Dim a, Dim b);
Dim dim_add(const Node *n, Dim a, Dim b);
Dim dim_mul(const Node *n, Dim a, Dim b);
/* A symbol for some function of others, by its text, so that equal texts give equal symbols. */
Dim dim_symbol(const Node *n, int64_t bound, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Multi-directional broadcasting of b into a, aligned at the last dimension; an error names both. */
void broadcast_into(const Node *n, Shape *a, const Shape *b);
/* The product of dimensions begin … end-1. */
Dim dim_product(const Node *n, const Shape *s, int begin, int end);

/* shapes_layout.c: the dimensions that a Shape gives; what a Pad adds. */
void shape_bounds(const Node *n, int *begin, int *end);

/* shapes_content.c: sets the content of output 0 if something is known of it. */
void infer_content(Node *n);

#endif
