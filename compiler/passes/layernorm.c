/* Recognises layer normalisation, and normalisation by the root mean square, spelled out in elementary operators.
 *
 * Needs: shapes; tasks marked.
 * Gives: LayerNormalization (x - mean over deviation, times scale, plus bias) and RMSNormalization (x over root mean
 *        square, times scale), the scale a vector of ones where the model has none.
 * Breaks: nothing; what was matched is gone.
 *
 * The core is d * r, where r is in any way 1 / sqrt(mean(d²) + eps) over trailing axes. If d = x - mean(x) over the
 * same axes it is a LayerNormalization of x, else an RMSNormalization of d. The variance may also be mean(x²) -
 * mean(x)².
 */
#include "match.h"
#include "recognise.h"

typedef struct {
  Match match;
  Value *x;
  Value *result; /* what the new node will compute */
  Value *scale, *bias;
  double epsilon;
  unsigned axes;
  int rank;
  bool centred;
} Norm;

/* v = mean of *x over trailing axes, dimensions kept; the axes must be those already known, if any are. */
static bool match_mean(Norm *k, const Value *v, Value **x) {
  if (!made_by(v, OP_REDUCE_MEAN) || !node_int(v->producer, "keepdims", 1)) return false;
  *x = v->producer->in[0];
  int rank = (*x)->shape.rank;
  unsigned axes;
  if (rank < 1 || !node_axes(v->producer, rank, &axes) || axes == 0) return false;
  unsigned all = (1u << rank) - 1, first = axes & ~(axes - 1);
  if (axes != (all & ~(first - 1)) || (k->axes && (k->axes != axes || k->rank != rank))) return false;
  k->axes = axes;
  k->rank = rank;
  match_add(&k->match, v->producer);
  return true;
}

/* d = x - mean(x) */
static bool match_centred(Norm *k, const Value *d, Value **x) {
  Value *mean, *of;
  if (!match_binary(d, OP_SUB, x, &mean) || !match_mean(k, mean, &of) || of != *x) return false;
  match_add(&k->match, d->producer);
  return true;
}

/* v = mean(d²), where d is the numerator, or the same difference computed once more. */
static bool match_mean_square(Norm *k, const Value *v, const Value *numerator) {
  Value *square, *d, *x1, *x2;
  if (!match_mean(k, v, &square) || !match_square(square, &d)) return false;
  match_add(&k->match, square->producer);
  if (d == numerator) return true;
  return match_centred(k, d, &x1) && match_centred(k, numerator, &x2) && x1 == x2;
}

/* v = mean(x²) - mean(x)², numerator = x - mean(x) */
static bool match_moments(Norm *k, const Value *v, const Value *numerator) {
  Value *of_square, *square_of, *square, *mean, *x1, *x2, *x3;
  if (!match_binary(v, OP_SUB, &of_square, &square_of) || !match_centred(k, numerator, &x1)) return false;
  if (!match_mean(k, of_square, &square) || !match_square(square, &x2) || x2 != x1) return false;
  if (!match_square(square_of, &mean) || !match_mean(k, mean, &x3) || x3 != x1) return false;
  match_add(&k->match, v->producer);
  match_add(&k->match, square->producer);
  match_add(&k->match, square_of->producer);
  return true;
}

/* v = mean(d²) [+ eps] */
static bool match_variance(Norm *k, Value *v, const Value *numerator) {
  Value *inner = v;
  k->epsilon = 0;
  if (match_number(v, OP_ADD, &inner, &k->epsilon)) match_add(&k->match, v->producer);
  Norm saved = *k;
  if (match_mean_square(k, inner, numerator)) return k->epsilon >= 0;
  *k = saved;
  return match_moments(k, inner, numerator) && k->epsilon >= 0;
}

/* v = sqrt(variance) */
static bool match_deviation(Norm *k, const Value *v, const Value *numerator) {
  Value *variance;
  double power;
  if (made_by(v, OP_SQRT)) {
    variance = v->producer->in[0];
  } else if (!match_number(v, OP_POW, &variance, &power) || power != 0.5) {
    return false;
  }
  match_add(&k->match, v->producer);
  return match_variance(k, variance, numerator);
}

/* v = 1 / sqrt(variance) */
static bool match_inverse(Norm *k, const Value *v, const Value *numerator) {
  Value *inner, *one;
  double number;
  if (made_by(v, OP_RECIPROCAL)) {
    inner = v->producer->in[0];
  } else if (match_binary(v, OP_DIV, &one, &inner)) {
    if (!value_is_number(one, &number) || number != 1) return false;
  } else if (match_number(v, OP_POW, &inner, &number) && number == -0.5) {
    match_add(&k->match, v->producer);
    return match_variance(k, inner, numerator);
  } else {
    return false;
  }
  match_add(&k->match, v->producer);
  return match_deviation(k, inner, numerator);
}

static bool match_core(Norm *k, Value *v) {
  Value *a, *b;
  Norm fresh = {.result = v};
  match_add(&fresh.match, v->producer);
  *k = fresh;
  if (match_binary(v, OP_DIV, &a, &b)) {
    k->x = a;
    return match_deviation(k, b, a);
  }
  if (!match_binary(v, OP_MUL, &a, &b)) return false;
  k->x = a;
  if (match_inverse(k, b, a)) return true;
  *k = fresh;
  k->x = b;
  return match_inverse(k, a, b);
}

/* w as an operand of the normalised axes' shape, or NULL. */
static Value *tail_operand(const Norm *k, Value *w) {
  int axis = __builtin_ctz(k->axes), n = k->rank - axis;
  Shape tail = {.rank = n};
  for (int i = 0; i < n; i++) tail.dim[i] = k->result->shape.dim[axis + i];
  if (shape_equal(&w->shape, &tail)) return w;
  if (!w->tensor || !shape_known(&tail)) return NULL;
  int64_t dims[MAX_RANK];
  Tensor t = *w->tensor;
  int drop = t.rank > n ? t.rank - n : 0;
  for (int i = 0; i < drop; i++)
    if (t.dim[i] != 1) return NULL;
  t.rank -= drop;
  for (int i = 0; i < t.rank; i++) t.dim[i] = w->tensor->dim[i + drop];
  for (int i = 0; i < n; i++) dims[i] = tail.dim[i].n;
  double *x;
  if (!broadcast_doubles(w->graph->ctx, &t, &tail, &x)) return NULL;
  return constant_doubles(w->graph, w, w->dtype, n, dims, x);
}

/* Takes the operator that reads the result, and it alone, in if its other operand fits. */
static bool extend(Norm *k, Op op, Value **operand) {
  Node *n = sole_reader(k->result, op);
  if (!n || n->n_in != 2 || !shape_equal(&n->out[0]->shape, &k->result->shape)) return false;
  *operand = tail_operand(k, n->in[n->in[0] == k->result ? 1 : 0]);
  if (!*operand) return false;
  k->result = n->out[0];
  return true;
}

static Value *ones(const Norm *k) {
  int axis = __builtin_ctz(k->axes), n = k->rank - axis;
  Graph *g = k->result->graph;
  int64_t dims[MAX_RANK], count = 1;
  for (int i = 0; i < n; i++) count *= dims[i] = k->result->shape.dim[axis + i].n;
  double *x = ctx_array(g->ctx, (size_t)count, sizeof *x);
  for (int64_t i = 0; i < count; i++) x[i] = 1;
  Value *v = constant_doubles(g, NULL, k->result->dtype, n, dims, x);
  v->tasks = k->result->tasks;
  return v;
}

static void rewrite(Norm *k) {
  int axis = __builtin_ctz(k->axes);
  Value *scale = k->scale ? k->scale : ones(k);
  Value *in[3] = {k->x, scale, k->bias};
  Op op = k->centred ? OP_LAYER_NORMALIZATION : OP_RMS_NORMALIZATION;
  Node *n = take_over(k->result, op, k->bias ? 3 : 2, in);
  node_set_int(n, "axis", axis - k->rank);
  node_set_float(n, "epsilon", (double)(float)k->epsilon);
}

static bool match_norm(Norm *k, Value *v) {
  if (!made_by(v, OP_DIV) && !made_by(v, OP_MUL)) return false;
  if (!match_core(k, v) || !dtype_is_float(v->dtype) || !shape_equal(&k->x->shape, &v->shape)) return false;
  for (int i = __builtin_ctz(k->axes); i < k->rank; i++)
    if (v->shape.dim[i].n < 1 || v->shape.dim[i].sym) return false;
  Norm with_mean = *k;
  Value *x;
  if (match_centred(&with_mean, k->x, &x) && match_closed(&with_mean.match, v->producer)) {
    with_mean.x = x;
    with_mean.centred = true;
    *k = with_mean;
  } else if (!match_closed(&k->match, v->producer)) {
    return false;
  }
  extend(k, OP_MUL, &k->scale);
  if (k->centred) extend(k, OP_ADD, &k->bias);
  return true;
}

void pass_layernorm(Graph *g) {
  size_t count;
  Node **list = node_list(g, &count);
  for (size_t i = 0; i < count; i++) {
    Norm k;
    if (!node_gone(list[i]) && match_norm(&k, list[i]->out[0])) rewrite(&k);
  }
}
