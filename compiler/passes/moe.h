/* Inside of the recognition of mixture-of-experts layers (moe*.c); nobody else includes this.
 *
 * The idea: starting from a router's choice (TopK), every value that depends on it gets a Fact, a true statement of
 * what its elements are: "element (t, s) is the weight of token t's choice s", "element (t, h) is the sum over experts
 * 0 and 2 of weight times expert". Each operator has a rule that makes the fact of its result from those of its
 * operands; a layer has been recognised when a value's fact says "the sum over all experts". No exporter's pattern
 * occurs anywhere, so the forms mix freely. MOE.md tells it at length.
 */
#ifndef MOECC_PASSES_MOE_H
#define MOECC_PASSES_MOE_H

#include "compiler.h"
#include "match.h"

/* ---- moe_axes.c: which dimension runs over what ------------------------------------------------------------------ */

typedef enum {
  AX_TOKEN,   /* tokens; index i is the i-th of the router's token dimensions ([B,S,E]: 0 and 1) */
  AX_SLOT,    /* the k choices of a token */
  AX_EXPERT,  /* experts */
  AX_ROW,     /* rows of a list of tokens (Fact.list), as NonZero makes them */
  AX_COORD,   /* the coordinates of such a row */
  AX_SUM,     /* parts that can only be added up */
  AX_FREE,    /* nothing: a broadcast that was carried out */
  AX_FEATURE, /* features. Of a weight: index 1 the first, 2 the second dimension */
} AxisKind;
typedef struct {
  AxisKind kind;
  int index;
  int64_t n;
} Axis; /* AX_ROW: n is 0, nobody knows it */

/* The axes of a value's elements in row-major order, without those of length 1. Where the dimensions of its shape begin
 * and end is not part of it, so that Reshape, Squeeze and Unsqueeze change nothing. */
enum { MAX_AXES = 8 };
typedef struct {
  int n;
  Axis a[MAX_AXES];
} Axes;

/* One operand of a product: its axes in its shape, each dimension with a label; equal labels run together. */
typedef struct {
  const Axes *axes;
  const Shape *shape;
  int label[MAX_RANK];
} Labelled;

bool axes_add(Axes *x, Axis a); /* false: too many. Length 1 is dropped */
bool axes_add_part(Axes *x, const Axes *from, int first, int end);
int axes_find(const Axes *x, AxisKind kind); /* position, or -1 */
bool axes_has(const Axes *x, AxisKind kind);
bool axes_equal(const Axes *x, const Axes *y);
void axes_remove(Axes *x, int at);
int64_t axes_count(const Axes *x, int first, int end);
/* start[d] … start[d+1]: the axes of dimension d; false if they do not fall on the shape's borders. */
bool axes_by_dim(const Shape *s, const Axes *x, int start[MAX_RANK + 1]);
bool axes_transpose(const Node *n, const Axes *x, Axes *out);
bool axes_expand(const Shape *from, const Shape *to, const Axes *x, Axes *out);
/* The axes of a product with the labels `out` (n_out of them), and those it sums over. */
bool axes_product(const Labelled *a, const Labelled *b, const int *out, int n_out, Axes *result, Axes *summed);
void labels_broadcast(Labelled *x, int rank); /* dimensions aligned at the right, as elementwise operators do */

/* ---- facts ------------------------------------------------------------------------------------------------------- */

/* Where in an expert a value stands; LIN: fc1 done, OUT: fc2 done. */
typedef enum { ST_NONE, ST_ROWS, ST_LIN, ST_HIDDEN, ST_OUT } Stage;
typedef enum { ACT_IDENTITY, ACT_RELU, ACT_GELU, ACT_GELU_TANH, ACT_SILU, ACT_SWIGLU } Activation;
enum { FC1, FC2, FC3 };

/* A linear layer: rows `first`, `first + step`, … (count of them) of a matrix [out,in] (out_first) or columns of
 * [in,out]. */
typedef struct {
  Tensor *w;
  bool out_first;
  bool stacked; /* w has a leading dimension: expert e's matrix is number expert0 + e */
  int64_t expert0;
  int64_t first, step, count, in;
  int64_t per_expert; /* added to first for each expert: several experts' outputs in one matrix */
  Tensor *b;          /* or NULL */
  bool b_stacked;
  int64_t b_expert0, b_len, b_first, b_step, b_per_expert; /* the same of the bias, whose vectors are b_len long */
} Linear;

typedef struct {
  Value *x; /* row-major [tokens, features], whatever its shape */
  Linear fc[3];
  bool has_fc3;
  Activation act;
} Body;

typedef enum { GATE_NONE, GATE_SOFTMAX, GATE_TOPK_SOFTMAX } GateKind;
typedef struct {
  GateKind kind;
  Value *of;    /* the scores that kind is applied to */
  Value *value; /* the scores whose elements these are before any softmax over the chosen */
  bool normalize;
} Gate;

/* The pairs (slot, expert) that a fact speaks of, one bit each: slot * experts + expert. */
typedef uint64_t *Cover;

/* The rows of one NonZero: all (token, slot) with idx[token, slot] == expert, or all such tokens. */
typedef struct {
  Cover cover;
  int expert;
} RowList;

typedef enum {
  FK_SCORES, /* [t, e]: score of the expert, as `gate` says; column `expert` alone if that is not -1 */
  FK_INDEX,  /* [t, s]: the number of the chosen expert plus `offset`; of slot `slot` alone if that is not -1 */
  FK_COORD,  /* rows of a list: the coordinates coord[0 … n_coord-1] of each */
  FK_FALSE,  /* false everywhere */
  FK_WEIGHT, /* a constant, or (gathered) its part for expert idx[t, s] - offset, for the slots in cover */
  FK_TERM,   /* the sum over all (s, e) in cover (s and e fixed where the value has that axis) of
                [idx[t,s] == e] · weight[t,s] (if weighted) · expert e of row t as far as `stage` · scale;
                without a cover: just the expert, or (ST_ROWS) the tokens */
} FactKind;

typedef struct {
  FactKind kind;
  Axes axes;
  Gate gate;
  int expert, slot;
  int64_t offset;
  bool masked; /* FK_SCORES: -inf where not chosen */
  int n_coord;
  Axes *coord;         /* four of them */
  const RowList *list; /* what AX_ROW runs over */
  Tensor *tensor;
  bool gathered;
  Cover cover;
  bool weighted, inverse, negated; /* inverse: one over it; negated: logical not */
  double scale;
  Stage stage;
  const Body *one; /* the expert (or, its weights being stacked, all of them) */
  const Body **by; /* instead: one per expert */
  Value *plus;     /* rows of this value have been added (AX_ROW) */
  Value *base[2];  /* values that have been added on top */
  int n_base;
} Fact;

/* The work on one router. */
typedef struct {
  Graph *g;
  Ctx *c;
  Node *topk;
  int64_t tokens, k, experts;
  Axes token_axes, score_axes; /* score_axes: the tokens and the experts, in the order the router's scores have them */
  Value *scores, *logits;      /* logits: what scores is the softmax of, or NULL */
  Fact **fact;                 /* by Value.id */
  size_t n_fact;
  bool saw_expert; /* an expert, or rows gathered for one, has been met: this router is one of a MoE layer */
  int budget;      /* values that may still be read backwards */
  bool in_stack;   /* reading one of many experts side by side */
  int why_rank;    /* why the layer was not recognised: the best explanation so far */
  const Node *why_node;
  const char *why;
  struct MoeMemo *memo; /* NULL: only look */
  int built;
} Mo;

/* Keeps the explanation with the highest rank, the first of equals. */
void moe_blame(Mo *m, int rank, const Node *n, const char *fmt, ...) PRINTF_LIKE(4, 5);

/* ---- moe_fact.c: the algebra of facts ---------------------------------------------------------------------------- */
Fact *fact_new(Mo *m, FactKind kind, const Axes *axes);
Fact *fact_copy(Mo *m, const Fact *f);
Fact *fact_of(const Mo *m, const Value *v); /* NULL: nothing known */
Cover cover_full(Mo *m);
Cover cover_of_expert(Mo *m, int64_t e);
Cover cover_of_slot(Mo *m, int64_t s);
bool cover_equal(const Mo *m, Cover a, Cover b);
Cover cover_and(Mo *m, Cover a, Cover b);
bool cover_is_full(const Mo *m, Cover a);
bool cover_contains(const Mo *m, Cover a, Cover b);
int cover_expert(const Mo *m, Cover a); /* the one expert in it, or -1 */
int cover_slot(const Mo *m, Cover a);   /* the one slot in it, or -1 */
bool cover_has(const Mo *m, Cover a, int64_t slot, int64_t expert);
const Body *fact_body(const Fact *f, int64_t e);
bool fact_has_body(const Fact *f);
bool same_weights(const Linear *a, const Linear *b); /* by content */
bool same_biases(const Linear *a, const Linear *b);
/* Every element is one expert's value as it is: no weight, no zeros for what was not chosen. */
bool fact_is_plain(const Mo *m, const Fact *f);
Fact *fact_product(Mo *m, const Fact *a, const Fact *b, const Axes *axes, const Axes *summed);
Fact *fact_sum(Mo *m, const Fact *a, const Fact *b, const Axes *axes);
Fact *fact_divide(Mo *m, const Fact *a, const Fact *norm, const Axes *axes);
Fact *fact_reduce(Mo *m, const Node *n, const Fact *f);
Fact *fact_take(Mo *m, const Shape *s, const Fact *f, int dim, int64_t first,
                int64_t count); /* a range of a dimension */
Fact *fact_bias(Mo *m, const Fact *f, const Fact *b, const Axes *axes);

/* ---- moe_expert.c: an expert read backwards from its result ------------------------------------------------------ */
Fact *expert_of(Mo *m, Value *v);     /* ST_OUT or ST_HIDDEN; NULL: not an expert */
Fact *rows_of_value(Mo *m, Value *v); /* v itself as tokens × features */
Fact *fact_layout(Mo *m, const Node *n,
                  const Fact *f); /* Identity, Reshape, Transpose, Expand, …; NULL: not so simple */
Fact *matmul_fact(Mo *m, const Node *n, const Fact *a, const Fact *b); /* MatMul or Gemm, C included */
Fact *add_bias(Mo *m, const Fact *f, const Shape *shape, Value *bias);
Value *value_root(Value *v); /* through Reshape and the like */
/* Is every element this number? Of a constant, and of what is too large to have been made one: zeros of [tokens, many
 * experts] stay a ConstantOfShape. */
bool is_number(const Value *v, double *x);
bool matmul_labels(const Node *n, Labelled *a, Labelled *b, int *out, int *n_out);
Fact *weight_of(Mo *m, Value *v, int features); /* FK_WEIGHT of a matrix (2) or vector (1); NULL: not a constant */

/* ---- moe_rules.c, moe_index.c: the fact of a node's output from those of its inputs ------------------------------ */
Fact *moe_rule(Mo *m, Node *n, int output);
Fact *rule_gather(Mo *m, Node *n);
Fact *rule_gather_nd(Mo *m, Node *n);
Fact *rule_gather_elements(Mo *m, Node *n);
Fact *rule_scatter_elements(Mo *m, Node *n);
Fact *rule_scatter_nd(Mo *m, Node *n);
Fact *rule_non_zero(Mo *m, Node *n);
Fact *rule_one_hot(Mo *m, Node *n);
Fact *rule_equal(Mo *m, Node *n);
Fact *rule_concat(Mo *m, Node *n);

/* ---- moe_build.c, moe_weights.c: the node ------------------------------------------------------------------------ */
bool moe_complete(const Mo *m, const Value *v, const Fact *f);
bool moe_build(Mo *m, Value *v, const Fact *f); /* false: a reason not to, blamed */

typedef struct {
  Value *x, *scores; /* x: row-major [tokens, hidden]; scores [tokens, experts] */
  int64_t tokens, hidden, experts, k;
  GateKind gate;
  bool normalize;
  Activation act;
  const Linear *fc[3];       /* one per expert; fc[FC3] NULL: none */
  double scale;              /* of the results */
  double alpha, beta, limit; /* of ACT_SWIGLU */
  Value *const *base;        /* added to the layer's result */
  int n_base;
} MoeLayer;
void moe_put(struct MoeMemo *memo, Value *v, const MoeLayer *l); /* in the place of v, which has its shape */

struct MoeMemo *moe_memo_new(Graph *g);
/* The matrices or biases of all experts, times scale, as one constant: [experts, out, in] or [experts, out]. */
Value *moe_stack_weights(struct MoeMemo *memo, const char *name, const Linear *fc, int64_t experts, double scale);
Value *moe_stack_biases(struct MoeMemo *memo, const char *name, const Linear *fc, int64_t experts, double scale);

/* ---- moe_contrib.c: com.microsoft MoE and QMoE ------------------------------------------------------------------- */
void moe_from_contrib(Graph *g, struct MoeMemo *memo);

#endif
