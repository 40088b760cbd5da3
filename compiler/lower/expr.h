/* Elementwise expressions as C text; shared by the epilogues of kernels and by the elementwise lowering. */
#ifndef MOECC_LOWER_EXPR_H
#define MOECC_LOWER_EXPR_H

#include "lower.h"

/* How operand k of an expression is read in the innermost loop. */
typedef enum { READ_DENSE, READ_SAME, READ_STRIDED, READ_NUMBER } ReadKind;

/* The element types of the steps of e, an expression of node n. type has e->n entries. */
void expr_types(const Node *n, const Expr *e, DType *type);
/* True if all is float and every operator has a vector form. */
bool expr_is_vector(const Node *n, const Expr *e);
/* A number as a C constant of type t; exact. */
const char *expr_number(Ctx *c, DType t, double v);
/* Statements that compute e from `acc` and variables x0, x1, … (input i of the node is x<slot[i]>), and the return. An
 * input with literal[i] != NULL is that constant. */
void expr_body(Text *t, const Node *n, const Expr *e, bool vector, const int *slot, const char *const *literal);
/* The operators' names in order, "mul_add"; shortened with a hash if long. */
const char *expr_name(Ctx *c, const Node *n, const Expr *e);
/* The only element of a constant of one element. */
bool value_one_number(const Value *v, double *out);

#endif
