/* Folds what is linear per channel around a convolution into its weights, and explicit padding into its own.
 *
 * Needs: shapes; tasks marked; constants folded.
 * Gives: Conv and ConvTranspose with constant weights without a BatchNormalization, Mul, Div, Add or Sub by a constant
 *        per channel behind them; any other BatchNormalization as Mul and Add; Conv and pools without a Pad in front.
 * Breaks: nothing. Weights that several convolutions share are copied for the one that changes.
 *
 * New weights and biases are computed in double precision and rounded once per folded operator.
 */
#include "match.h"
#include "recognise.h"
#include <math.h>
#include <string.h>

/* y = x * mul + add per channel */
typedef struct {
  double *mul, *add;
  int64_t n;
} Affine;

static bool is_conv(const Node *n) { return (n->op == OP_CONV || n->op == OP_CONV_TRANSPOSE) && !n->expr; }

/* ---- what is affine per channel ---- */

static Affine affine_new(Ctx *c, int64_t n) {
  Affine a = {.mul = ctx_array(c, (size_t)n, sizeof(double)), .add = ctx_array(c, (size_t)n, sizeof(double)), .n = n};
  for (int64_t i = 0; i < n; i++) a.mul[i] = 1;
  return a;
}

static bool batch_norm_affine(const Node *n, Affine *a) {
  if (n->op != OP_BATCH_NORMALIZATION || n->n_in < 5 || node_int(n, "training_mode", 0)) return false;
  const Tensor *t[4];
  for (int i = 0; i < 4; i++) {
    t[i] = node_const(n, i + 1);
    if (!t[i] || tensor_count(t[i]) != tensor_count(t[0])) return false;
  }
  *a = affine_new(n->graph->ctx, tensor_count(t[0]));
  double epsilon = (double)(float)node_float(n, "epsilon", 1e-5);
  for (int64_t i = 0; i < a->n; i++) {
    a->mul[i] = tensor_number(t[0], i) / sqrt(tensor_number(t[3], i) + epsilon);
    a->add[i] = tensor_number(t[1], i) - tensor_number(t[2], i) * a->mul[i];
  }
  return true;
}

/* The operand of n beside x as one number per channel (axis 1 of x), or NULL. */
static double *per_channel(const Node *n, const Value *x, int64_t channels) {
  const Value *other = n->in[n->in[0] == x ? 1 : 0];
  const Tensor *t = other->tensor;
  int rank = x->shape.rank;
  if (!t || t->rank > rank || !shape_equal(&n->out[0]->shape, &x->shape)) return NULL;
  for (int i = 0; i < t->rank; i++)
    if (t->dim[i] != 1 && rank - t->rank + i != 1) return NULL;
  double *out = ctx_array(n->graph->ctx, (size_t)channels, sizeof *out);
  bool one = tensor_count(t) == 1;
  if (!one && tensor_count(t) != channels) return NULL;
  for (int64_t i = 0; i < channels; i++) out[i] = tensor_number(t, one ? 0 : i);
  return out;
}

static bool arithmetic_affine(const Node *n, const Value *x, int64_t channels, Affine *a) {
  bool commutes = n->op == OP_ADD || n->op == OP_MUL;
  if (n->expr || !(commutes || n->op == OP_SUB || n->op == OP_DIV) || (!commutes && n->in[0] != x)) return false;
  double *c = per_channel(n, x, channels);
  if (!c) return false;
  *a = affine_new(n->graph->ctx, channels);
  for (int64_t i = 0; i < channels; i++) {
    if (n->op == OP_MUL) a->mul[i] = c[i];
    if (n->op == OP_DIV) a->mul[i] = 1 / c[i];
    if (n->op == OP_ADD) a->add[i] = c[i];
    if (n->op == OP_SUB) a->add[i] = -c[i];
    if (!isfinite(a->mul[i]) || !isfinite(a->add[i])) return false;
  }
  return true;
}

/* ---- folding into the weights ---- */

/* Which output channel element i of the weights belongs to. Conv: [M, C/g, …]; ConvTranspose: [C, M/g, …]. */
static int64_t channel_of(const Node *conv, const Tensor *w, int64_t i) {
  int64_t inner = 1;
  for (int d = 2; d < w->rank; d++) inner *= w->dim[d];
  if (conv->op == OP_CONV) return i / (inner * w->dim[1]);
  int64_t group = node_int(conv, "group", 1), c = i / (inner * w->dim[1]), m = i / inner % w->dim[1];
  return c / (w->dim[0] / group) * w->dim[1] + m;
}

static int64_t conv_channels(const Node *conv) {
  const Tensor *w = node_const(conv, 1), *b = node_const(conv, 2);
  if (!w || w->rank < 3 || !dtype_is_float(w->dtype) || (conv->n_in > 2 && conv->in[2] && !b)) return -1;
  int64_t group = node_int(conv, "group", 1);
  return conv->op == OP_CONV ? w->dim[0] : w->dim[1] * group;
}

static void scale_weights(Node *conv, const Affine *a) {
  const Tensor *w = node_const(conv, 1);
  double *x = tensor_doubles(conv->graph->ctx, w);
  bool changes = false;
  for (int64_t i = 0; i < a->n; i++) changes = changes || a->mul[i] != 1;
  if (!changes) return;
  for (int64_t i = 0, n = tensor_count(w); i < n; i++) x[i] *= a->mul[channel_of(conv, w, i)];
  node_set_input(conv, 1, constant_doubles(conv->graph, conv->in[1], w->dtype, w->rank, w->dim, x));
}

static void fold_affine(Node *conv, const Affine *a) {
  const Tensor *b = node_const(conv, 2);
  double *bias = ctx_array(conv->graph->ctx, (size_t)a->n, sizeof *bias);
  for (int64_t i = 0; i < a->n; i++) bias[i] = (b ? tensor_number(b, i) * a->mul[i] : 0) + a->add[i];
  scale_weights(conv, a);
  DType t = conv->in[1]->dtype;
  Value *v = constant_doubles(conv->graph, b ? conv->in[2] : NULL, t, 1, &a->n, bias);
  v->tasks |= conv->tasks;
  node_set_input(conv, 2, v);
}

/* The reader of a convolution's result, if it is the only one and folds in: takes it in. */
static bool fold_reader(Node *conv) {
  Value *y = conv->out[0];
  int64_t channels = conv_channels(conv);
  if (channels < 1 || !value_single_use(y)) return false;
  Node *n = y->uses[0].node;
  Affine a;
  if (n->tasks != conv->tasks) return false;
  bool found = n->in[0] == y && batch_norm_affine(n, &a) && a.n == channels;
  if (!found && !(n->n_in == 2 && arithmetic_affine(n, y, channels, &a))) return false;
  fold_affine(conv, &a);
  replace_value(n->out[0], y);
  return true;
}

/* A BatchNormalization that no convolution takes in. */
static void batch_norm_as_arithmetic(Node *n) {
  Affine a;
  Value *y = n->out[0], *x = n->in[0];
  if (!y || x->shape.rank < 2 || !batch_norm_affine(n, &a)) return;
  int64_t dims[MAX_RANK];
  int rank = x->shape.rank - 1;
  for (int i = 0; i < rank; i++) dims[i] = i == 0 ? a.n : 1;
  DType t = n->in[1]->dtype;
  Value *mul = constant_doubles(n->graph, n->in[1], t, rank, dims, a.mul);
  Value *add = constant_doubles(n->graph, n->in[2], t, rank, dims, a.add);
  Value *scaled = insert_value(n, OP_MUL, y->dtype, y->shape, 2, x, mul);
  take_over(y, OP_ADD, 2, (Value *[]){scaled, add});
}

/* ---- padding ---- */

/* The amounts of a constant Pad of the spatial axes, begins then ends as Conv has them; false if it is another Pad. */
static bool spatial_pads(const Node *pad, int64_t out[2 * MAX_RANK]) {
  const Tensor *amounts = node_const(pad, 1);
  int rank = pad->in[0]->shape.rank;
  if (rank < 3 || !amounts || strcmp(node_string(pad, "mode", "constant"), "constant") != 0) return false;
  int64_t full[2 * MAX_RANK] = {0}, n = tensor_count(amounts);
  if (pad->n_in > 3 && pad->in[3]) {
    const Tensor *axes = pad->in[3]->tensor;
    if (!axes || tensor_count(axes) * 2 != n) return false;
    for (int64_t i = 0; i < n / 2; i++) {
      int axis = axis_at(tensor_integer(axes, i), rank);
      if (axis < 0) return false;
      full[axis] = tensor_integer(amounts, i);
      full[axis + rank] = tensor_integer(amounts, i + n / 2);
    }
  } else {
    if (n != 2 * rank) return false;
    for (int64_t i = 0; i < n; i++) full[i] = tensor_integer(amounts, i);
  }
  for (int i = 0; i < 2 * rank; i++)
    if (full[i] < 0 || (i % rank < 2 && full[i] != 0)) return false;
  for (int i = 0; i < rank - 2; i++) {
    out[i] = full[i + 2];
    out[i + rank - 2] = full[i + 2 + rank];
  }
  return true;
}

static bool all_zero(const int64_t *x, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (x[i]) return false;
  return true;
}

/* Is the value a Pad adds the one that n's own padding stands for? */
static bool pads_alike(const Node *n, const Node *pad, const int64_t *own, size_t n_own) {
  double value = 0;
  if (pad->n_in > 2 && pad->in[2] && !value_is_number(pad->in[2], &value)) return false;
  if (is_conv(n)) return value == 0;
  if (node_int(n, "ceil_mode", 0)) return false;
  if (n->op == OP_MAX_POOL) return value == -INFINITY || (value <= -3.4e38 && n->out[0]->dtype == DT_F32);
  return value == 0 && (all_zero(own, n_own) || node_int(n, "count_include_pad", 0));
}

static bool fold_pad(Node *n) {
  bool takes = (n->op == OP_CONV && !n->expr) || n->op == OP_MAX_POOL || n->op == OP_AVERAGE_POOL;
  if (!takes || !made_by(n->in[0], OP_PAD) || strcmp(node_string(n, "auto_pad", "NOTSET"), "NOTSET") != 0) return false;
  Node *pad = n->in[0]->producer;
  int64_t pads[2 * MAX_RANK];
  const int64_t *own = NULL;
  size_t n_own = node_ints(n, "pads", &own), count = 2 * (size_t)(pad->in[0]->shape.rank - 2);
  if (!value_single_use(n->in[0]) || pad->tasks != n->tasks || !spatial_pads(pad, pads)) return false;
  if ((n_own && n_own != count) || !pads_alike(n, pad, own, n_own)) return false;
  for (size_t i = 0; i < n_own; i++) pads[i] += own[i];
  if (n->op == OP_AVERAGE_POOL) node_set_int(n, "count_include_pad", 1);
  node_set_ints(n, "pads", count, pads);
  node_set_input(n, 0, pad->in[0]);
  prune(pad);
  return true;
}

void pass_convbn(Graph *g) {
  size_t count;
  Node **list = node_list(g, &count);
  for (size_t i = 0; i < count; i++) {
    if (node_gone(list[i])) continue;
    fold_pad(list[i]);
    while (is_conv(list[i]) && fold_reader(list[i])) continue;
  }
  for (size_t i = 0; i < count; i++)
    if (!node_gone(list[i]) && list[i]->op == OP_BATCH_NORMALIZATION) batch_norm_as_arithmetic(list[i]);
}
