/* Shape rules of products: MatMul, Gemm, attention and the mixtures of experts. */
#include "shapes.h"

#include <inttypes.h>
#include <string.h>

static _Noreturn void inner_mismatch(const Node *n, Dim a, Dim b) {
  shape_error(n, "the inner dimensions differ: %" PRId64 " of %s and %" PRId64 " of %s", a.n, input_text(n, 0), b.n,
              input_text(n, 1));
}

/* A vector on the left is one row, on the right one column; that dimension is left out of the result. */
bool infer_matmul(Node *n) {
  need_same_type(n, 1);
  need_rank_within(n, 0, 1, MAX_RANK);
  need_rank_within(n, 1, 1, MAX_RANK);
  const Shape *a = input_shape(n, 0), *b = input_shape(n, 1);
  Dim inner_a = a->dim[a->rank - 1], inner_b = b->dim[b->rank > 1 ? b->rank - 2 : 0];
  if (!dim_may_equal(inner_a, inner_b)) inner_mismatch(n, inner_a, inner_b);
  Shape batch = *a, other = *b;
  batch.rank = a->rank > 2 ? a->rank - 2 : 0;
  other.rank = b->rank > 2 ? b->rank - 2 : 0;
  broadcast_into(n, &batch, &other);
  if (a->rank > 1) batch.dim[batch.rank++] = a->dim[a->rank - 2];
  if (b->rank > 1) batch.dim[batch.rank++] = b->dim[b->rank - 1];
  set_output(n, 0, n->in[0]->dtype, &batch);
  return true;
}

bool infer_gemm(Node *n) {
  need_same_type(n, 1);
  need_rank(n, 0, 2);
  need_rank(n, 1, 2);
  const Shape *a = input_shape(n, 0), *b = input_shape(n, 1);
  int trans_a = node_int(n, "transA", 0) != 0, trans_b = node_int(n, "transB", 0) != 0;
  Dim inner_a = a->dim[1 - trans_a], inner_b = b->dim[trans_b];
  if (!dim_may_equal(inner_a, inner_b)) inner_mismatch(n, inner_a, inner_b);
  Shape s = {.rank = 2, .dim = {a->dim[trans_a], b->dim[1 - trans_b]}};
  if (has_input(n, 2)) {
    need_same_type(n, 2);
    Shape whole = s;
    broadcast_into(n, &whole, input_shape(n, 2));
    if (whole.rank != 2 || !dim_may_equal(whole.dim[0], s.dim[0]) || !dim_may_equal(whole.dim[1], s.dim[1]))
      shape_error(n, "the addend %s does not broadcast to the product %s", input_text(n, 2),
                  shape_text(n->graph->ctx, n->in[0]->dtype, &s));
  }
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

bool infer_attention(Node *n) {
  for (int i = 0; i < 3; i++) need_rank(n, i, 4);
  const Shape *q = input_shape(n, 0), *k = input_shape(n, 1), *v = input_shape(n, 2);
  for (int d = 0; d < 2; d++)
    if (!dim_may_equal(q->dim[d], k->dim[d]) || !dim_may_equal(q->dim[d], v->dim[d]))
      shape_error(n, "batch and heads of q %s, k %s and v %s differ", input_text(n, 0), input_text(n, 1),
                  input_text(n, 2));
  if (!dim_may_equal(q->dim[3], k->dim[3]) || !dim_may_equal(k->dim[2], v->dim[2]))
    shape_error(n, "q %s, k %s and v %s do not fit each other", input_text(n, 0), input_text(n, 1), input_text(n, 2));
  if (has_input(n, 3)) {
    Shape scores = {.rank = 4, .dim = {q->dim[0], q->dim[1], q->dim[2], k->dim[2]}}, whole = scores;
    broadcast_into(n, &whole, input_shape(n, 3));
    if (!shape_equal(&whole, &scores))
      shape_error(n, "the mask %s does not broadcast to the scores %s", input_text(n, 3),
                  shape_text(n->graph->ctx, DT_F32, &scores));
  }
  if (has_input(n, 4)) {
    Shape heads = {.rank = 4, .dim = {q->dim[0], q->dim[1], {1, 0}, {1, 0}}}, whole = heads;
    broadcast_into(n, &whole, input_shape(n, 4));
    if (!shape_equal(&whole, &heads)) shape_error(n, "the factor %s is not one for each head", input_text(n, 4));
  }
  Shape s = *q;
  s.dim[3] = v->dim[3];
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

/* ---- mixtures of experts ---- */

/* Checks expert tensor i against the dimensions it should have; absent tensors are fine. */
static void need_expert_shape(const Node *n, int i, const char *what, int rank, const int64_t *dims) {
  if (!has_input(n, i)) return;
  Shape wanted = shape_of(rank, dims);
  if (!shape_equal(&wanted, input_shape(n, i)))
    shape_error(n, "%s is %s where the other operands ask for %s", what, input_text(n, i),
                shape_text(n->graph->ctx, n->in[i]->dtype, &wanted));
}

static void need_k(const Node *n, int64_t k, int64_t experts) {
  if (experts < 1) shape_error(n, "there are no experts: %s", input_text(n, 1));
  if (k < 1 || k > experts)
    shape_error(n, "k is %" PRId64 ": it must be 1 to %" PRId64 ", the number of experts", k, experts);
}

static void need_rows(const Node *n, Dim tokens) {
  if (!dim_may_equal(tokens, input_shape(n, 1)->dim[0]))
    shape_error(n, "the tokens of %s and the router's rows of %s differ in number", input_text(n, 0), input_text(n, 1));
}

bool infer_moe(Node *n) {
  need_rank(n, 0, 2);
  need_rank(n, 1, 2);
  need_rank(n, 2, 3);
  int64_t hidden = input_shape(n, 0)->dim[1].n, experts = input_shape(n, 1)->dim[1].n,
          inner = input_shape(n, 2)->dim[1].n;
  need_rows(n, input_shape(n, 0)->dim[0]);
  need_k(n, node_int(n, "k", 0), experts);
  need_expert_shape(n, 2, "fc1's weight", 3, (int64_t[]){experts, inner, hidden});
  need_expert_shape(n, 3, "fc1's bias", 2, (int64_t[]){experts, inner});
  need_expert_shape(n, 4, "fc2's weight", 3, (int64_t[]){experts, hidden, inner});
  need_expert_shape(n, 5, "fc2's bias", 2, (int64_t[]){experts, hidden});
  need_expert_shape(n, 6, "fc3's weight", 3, (int64_t[]){experts, inner, hidden});
  need_expert_shape(n, 7, "fc3's bias", 2, (int64_t[]){experts, inner});
  return infer_same(n);
}

/* Tokens and hidden width of x [T,H] or [B,S,H]; checks the router's [T,E] and k. */
static int64_t ms_hidden(const Node *n, int64_t *experts) {
  need_rank_within(n, 0, 2, 3);
  need_rank(n, 1, 2);
  const Shape *x = input_shape(n, 0);
  need_rows(n, dim_product(n, x, 0, x->rank - 1));
  *experts = input_shape(n, 1)->dim[1].n;
  need_k(n, node_int(n, "k", 1), *experts);
  return x->dim[x->rank - 1].n;
}

/* With swiglu fused, fc1 yields gate and up in one: twice the inner width. */
bool infer_ms_moe(Node *n) {
  int64_t experts, hidden = ms_hidden(n, &experts);
  need_rank(n, 2, 3);
  need_rank(n, 4, 3);
  int64_t inner = input_shape(n, 4)->dim[2].n, wide = input_shape(n, 2)->dim[1].n;
  bool fused = strcmp(node_string(n, "activation_type", "relu"), "swiglu") == 0 && node_int(n, "swiglu_fusion", 0) != 0;
  if (wide != (fused ? 2 * inner : inner))
    shape_error(n, "fc1's weight %s yields %" PRId64 " values and fc2's weight %s takes %" PRId64, input_text(n, 2),
                wide, input_text(n, 4), inner);
  need_expert_shape(n, 2, "fc1's weight", 3, (int64_t[]){experts, wide, hidden});
  need_expert_shape(n, 3, "fc1's bias", 2, (int64_t[]){experts, wide});
  need_expert_shape(n, 4, "fc2's weight", 3, (int64_t[]){experts, hidden, inner});
  need_expert_shape(n, 5, "fc2's bias", 2, (int64_t[]){experts, hidden});
  need_expert_shape(n, 6, "fc3's weight", 3, (int64_t[]){experts, inner, hidden});
  need_expert_shape(n, 7, "fc3's bias", 2, (int64_t[]){experts, inner});
  return infer_same(n);
}

/* The weights hold 8 / bits values a byte along the last axis; the recogniser checks scales and zero points. */
bool infer_ms_qmoe(Node *n) {
  int64_t experts, hidden = ms_hidden(n, &experts);
  int64_t bits = node_int(n, "expert_weight_bits", 4);
  if (bits != 2 && bits != 4 && bits != 8)
    shape_error(n, "weights of %" PRId64 " bits: 2, 4 and 8 are supported", bits);
  need_rank(n, 2, 3);
  need_rank(n, 5, 3);
  const Shape *fc1 = input_shape(n, 2), *fc2 = input_shape(n, 5);
  if (!dim_is(fc1->dim[0], experts) || !dim_is(fc2->dim[0], experts))
    shape_error(n, "the router chooses of %" PRId64 " experts, the weights are %s and %s", experts, input_text(n, 2),
                input_text(n, 5));
  if (fc1->dim[2].n * (8 / bits) != hidden || !dim_is(fc2->dim[1], hidden))
    shape_error(n, "weights %s and %s of %" PRId64 " bits do not fit a width of %" PRId64, input_text(n, 2),
                input_text(n, 5), bits, hidden);
  return infer_same(n);
}
