/* com.microsoft MoE and QMoE, as onnxruntime 1.31 computes them (measured):
 *   softmax over all experts, the k largest, divided by their sum if normalize_routing_weights says so
 *   (onnxruntime's QMoE divides in any case: a warning says so where that makes a difference);
 *   swiglu: with g and l the two halves of fc1 (or fc1 and fc3), G = min(g, limit), L = l within ±limit:
 *   G · sigmoid(alpha·G) · (L + beta); gelu: the tanh form there, here what the option says, erf by default.
 * QMoE's weights become floats: (q - zero point) · scale, q packed along the inputs, lowest bits first. */
#include "moe.h"

#include <math.h>
#include <string.h>

/* Which input is what; -1: there is none. */
typedef struct {
  int w, scales, zeros, b;
  const char *bits;
} LayerInputs;
static const LayerInputs moe_inputs[3] = {
    [FC1] = {2, -1, -1, 3, NULL}, [FC2] = {4, -1, -1, 5, NULL}, [FC3] = {6, -1, -1, 7, NULL}};
static const LayerInputs qmoe_inputs[3] = {[FC1] = {2, 3, 11, 4, "fc1_expert_weight_bits"},
                                           [FC2] = {5, 6, 12, 7, "fc2_expert_weight_bits"},
                                           [FC3] = {8, 9, 13, 10, "fc3_expert_weight_bits"}};

static Value *input(const Node *n, int i) { return i >= 0 && i < n->n_in ? n->in[i] : NULL; }

static Tensor *constant_input(Node *n, int i) {
  Value *v = input(n, i);
  if (v && !v->tensor)
    ctx_fail(n->graph->ctx, n, "the experts' weights, scales and biases must be constant: \"%s\" is computed", v->name);
  return v ? v->tensor : NULL;
}

/* ---- quantised weights ---- */

static int64_t packed(const uint8_t *row, int64_t i, int64_t bits) {
  int64_t bit = i * bits;
  return row[bit / 8] >> (bit % 8) & ((1 << bits) - 1);
}

typedef struct {
  int64_t experts, rows, columns, bits, block;
  const Tensor *q, *scales, *zeros;
} Quantised;

static void check_quantised(Node *n, const Quantised *z) {
  Ctx *c = n->graph->ctx;
  int64_t blocks = z->columns / z->block, per_row = z->scales ? tensor_count(z->scales) : 0;
  if (z->q->dtype != DT_U8 || !z->scales || z->columns % z->block || !dtype_is_float(z->scales->dtype))
    ctx_fail(c, n, "weights must be uint8 with float scales, the inputs (%lld) a multiple of block_size (%lld)",
             (long long)z->columns, (long long)z->block);
  if (per_row != z->experts * z->rows * blocks)
    ctx_fail(c, n, "%lld scales for %lld experts × %lld outputs × %lld blocks", (long long)per_row,
             (long long)z->experts, (long long)z->rows, (long long)blocks);
  if (!z->zeros) return;
  bool by_row = blocks == 1 && z->zeros->rank == 2; /* zero points packed along the outputs */
  int64_t values = by_row ? z->rows : blocks, want = z->experts * (by_row ? 1 : z->rows) * ((values * z->bits + 7) / 8);
  if (z->zeros->dtype != DT_U8 || tensor_count(z->zeros) != want)
    ctx_fail(c, n, "zero points must be %lld bytes of uint8, not %lld", (long long)want,
             (long long)tensor_count(z->zeros));
}

static double zero_point(const Quantised *z, int64_t e, int64_t row, int64_t block) {
  if (!z->zeros) return (double)(1 << (z->bits - 1));
  int64_t blocks = z->columns / z->block;
  bool by_row = blocks == 1 && z->zeros->rank == 2;
  int64_t bytes = ((by_row ? z->rows : blocks) * z->bits + 7) / 8;
  const uint8_t *at = (const uint8_t *)z->zeros->data + (by_row ? e : e * z->rows + row) * bytes;
  return (double)packed(at, by_row ? row : block, z->bits);
}

static Tensor *dequantised(Node *n, const Quantised *z) {
  check_quantised(n, z);
  int64_t blocks = z->columns / z->block, bytes = z->columns * z->bits / 8;
  Tensor *t = tensor_new(n->graph->ctx, DT_F32, 3, (const int64_t[]){z->experts, z->rows, z->columns}, NULL);
  float *to = tensor_writable(t);
  const uint8_t *from = z->q->data;
  for (int64_t er = 0; er < z->experts * z->rows; er++, from += bytes)
    for (int64_t b = 0; b < blocks; b++) {
      double scale = tensor_number(z->scales, er * blocks + b), zero = zero_point(z, er / z->rows, er % z->rows, b);
      for (int64_t i = b * z->block; i < (b + 1) * z->block; i++)
        *to++ = (float)((double)packed(from, i, z->bits) - zero) * (float)scale;
    }
  return t;
}

static Tensor *layer_weights(Node *n, const LayerInputs *in, int64_t experts) {
  Tensor *t = constant_input(n, in->w);
  if (!t || in->scales < 0) return t;
  Quantised z = {
      .experts = experts, .q = t, .scales = constant_input(n, in->scales), .zeros = constant_input(n, in->zeros)};
  z.bits = node_int(n, in->bits, node_int(n, "expert_weight_bits", 4));
  if (z.bits != 2 && z.bits != 4 && z.bits != 8)
    ctx_fail(n->graph->ctx, n, "weights of %lld bits: 2, 4 and 8 are supported", (long long)z.bits);
  if (t->rank != 3 || t->dim[0] != experts)
    ctx_fail(n->graph->ctx, n, "weights must be [experts, out, in], of %lld experts", (long long)experts);
  z.rows = t->dim[1];
  z.columns = t->dim[2] * (8 / z.bits);
  z.block = node_int(n, "block_size", 0) > 0 ? node_int(n, "block_size", 0) : z.columns;
  return dequantised(n, &z);
}

/* ---- layers ---- */

/* Rows first, first + step, … (count) of every expert's matrix, as the recogniser describes layers. */
static Linear *linear_layers(Node *n, Tensor *w, Tensor *b, int64_t experts, int64_t first, int64_t step,
                             int64_t count) {
  Linear *fc = ctx_array(n->graph->ctx, (size_t)experts, sizeof *fc);
  if (w->dtype != DT_F32 || (b && (b->dtype != DT_F32 || tensor_count(b) != experts * w->dim[1])))
    ctx_fail(n->graph->ctx, n, "weights and biases must be float, biases [experts, out]");
  for (int64_t e = 0; e < experts; e++)
    fc[e] = (Linear){.w = w,
                     .out_first = true,
                     .stacked = true,
                     .first = first,
                     .step = step,
                     .count = count,
                     .in = w->dim[2],
                     .b = b,
                     .b_stacked = true,
                     .b_len = w->dim[1],
                     .b_first = first,
                     .b_step = step};
  return fc;
}

/* silu(alpha·g) · (l/alpha + beta/alpha): the general form as silu with other weights. */
static void fold_alpha_beta(Node *n, Linear *gate, Linear *up, int64_t experts, double alpha, double beta) {
  Ctx *c = n->graph->ctx;
  Linear *both[2] = {gate, up};
  for (int which = 0; which < 2; which++) {
    Linear *fc = both[which];
    double factor = which ? 1 / alpha : alpha, shift = which ? beta / alpha : 0;
    int64_t count = fc->count, in = fc->in;
    Tensor *w = tensor_new(c, DT_F32, 3, (const int64_t[]){experts, count, in}, NULL);
    Tensor *b = fc->b || shift != 0 ? tensor_new(c, DT_F32, 2, (const int64_t[]){experts, count}, NULL) : NULL;
    float *to = tensor_writable(w), *bias = b ? tensor_writable(b) : NULL;
    for (int64_t e = 0; e < experts; e++)
      for (int64_t o = 0; o < count; o++) {
        int64_t row = e * fc->w->dim[1] + fc->first + o * fc->step;
        for (int64_t i = 0; i < in; i++) *to++ = (float)(tensor_number(fc->w, row * in + i) * factor);
        if (bias) *bias++ = (float)((fc->b ? tensor_number(fc->b, row) : 0) * factor + shift);
      }
    for (int64_t e = 0; e < experts; e++)
      fc[e] = (Linear){.w = w,
                       .out_first = true,
                       .stacked = true,
                       .step = 1,
                       .count = count,
                       .in = in,
                       .b = b,
                       .b_stacked = true,
                       .b_len = count,
                       .b_step = 1};
  }
}

/* *warned: it has been said that the model's gelu is ambiguous. */
static Activation read_activation(Node *n, bool *warned) {
  static const struct {
    const char *name;
    Activation act;
  } known[] = {
      {"relu", ACT_RELU}, {"gelu", ACT_GELU}, {"silu", ACT_SILU}, {"swiglu", ACT_SWIGLU}, {"identity", ACT_IDENTITY}};
  const char *name = node_string(n, "activation_type", "relu"), *option = n->graph->gelu;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(known[i].name, name) != 0) continue;
    if (known[i].act != ACT_GELU) return known[i].act;
    if (option && strcmp(option, "tanh") == 0) return ACT_GELU_TANH;
    if (!*warned && !(option && strcmp(option, "erf") == 0))
      ctx_warn(n->graph->ctx, n,
               "its gelu is taken as the erf form, as M³ViT was trained; onnxruntime computes the tanh form: "
               "--gelu erf or --gelu tanh says which is meant");
    *warned = true;
    return ACT_GELU;
  }
  ctx_fail(n->graph->ctx, n, "activation_type \"%s\" is not supported: relu, gelu, silu, swiglu and identity are",
           name);
}

/* The gate and up layers of swiglu, out of a fused fc1 or out of fc1 and fc3. */
static void read_swiglu(Node *n, const LayerInputs in[3], Tensor *w1, MoeLayer *l) {
  Ctx *c = n->graph->ctx;
  int64_t fusion = node_int(n, "swiglu_fusion", 0), half = w1->dim[1] / 2;
  Tensor *b1 = constant_input(n, in[FC1].b);
  Linear *gate, *up;
  if (fusion == 0) {
    Tensor *w3 = layer_weights(n, &in[FC3], l->experts);
    if (!w3) ctx_fail(c, n, "swiglu that is not fused needs fc3_experts_weights");
    gate = linear_layers(n, w1, b1, l->experts, 0, 1, w1->dim[1]);
    up = linear_layers(n, w3, constant_input(n, in[FC3].b), l->experts, 0, 1, w3->dim[1]);
  } else if (fusion == 1) {
    gate = linear_layers(n, w1, b1, l->experts, 0, 2, half);
    up = linear_layers(n, w1, b1, l->experts, 1, 2, half);
  } else if (fusion == 2) {
    gate = linear_layers(n, w1, b1, l->experts, 0, 1, half);
    up = linear_layers(n, w1, b1, l->experts, half, 1, half);
  } else
    ctx_fail(c, n, "swiglu_fusion is %lld: 0, 1 or 2", (long long)fusion);
  double alpha = node_float(n, "activation_alpha", 1), beta = node_float(n, "activation_beta", 0);
  const Attr *limit = node_attr(n, "swiglu_limit");
  l->act = ACT_SILU;
  if (limit && isfinite(limit->f)) {
    l->act = ACT_SWIGLU;
    l->alpha = alpha;
    l->beta = beta;
    l->limit = limit->f;
  } else if (alpha == 0) {
    ctx_fail(c, n, "activation_alpha is 0");
  } else if (alpha != 1 || beta != 0) {
    fold_alpha_beta(n, gate, up, l->experts, alpha, beta);
  }
  l->fc[FC1] = gate;
  l->fc[FC3] = up;
}

static void refuse_unsupported(Node *n) {
  Ctx *c = n->graph->ctx;
  if (node_int(n, "use_sparse_mixer", 0))
    ctx_fail(c, n, "use_sparse_mixer is not supported: its choice depends on masked scores");
  if (n->op != OP_MS_QMOE) return;
  if (strcmp(node_string(n, "quant_type", "int"), "int") != 0)
    ctx_fail(c, n, "quant_type \"%s\" is not supported: int is", node_string(n, "quant_type", "int"));
  if (node_int(n, "weights_prepacked", -1) == 1)
    ctx_fail(c, n, "weights_prepacked is 1: only weights as the standard packs them can be read");
  if (input(n, 14)) ctx_fail(c, n, "router_weights is not supported: the scores that choose must be those that weight");
}

static void replace_contrib(Node *n, struct MoeMemo *memo, bool *warned) {
  refuse_unsupported(n);
  const LayerInputs *in = n->op == OP_MS_QMOE ? qmoe_inputs : moe_inputs;
  const Shape *s = &n->in[0]->shape;
  MoeLayer l = {.x = n->in[0], .scores = n->in[1], .k = node_int(n, "k", 1), .scale = 1};
  l.tokens = n->in[1]->shape.dim[0].n;
  l.experts = n->in[1]->shape.dim[1].n;
  l.hidden = s->dim[s->rank - 1].n;
  l.gate = GATE_SOFTMAX;
  l.normalize = node_int(n, "normalize_routing_weights", 0);
  if (n->op == OP_MS_QMOE && !l.normalize && l.k < l.experts)
    ctx_warn(n->graph->ctx, n,
             "the weights of the chosen experts are not divided by their sum, as normalize_routing_weights asks; "
             "onnxruntime divides them in any case");
  Tensor *w1 = layer_weights(n, &in[FC1], l.experts), *w2 = layer_weights(n, &in[FC2], l.experts);
  if (!w1 || !w2 || w1->rank != 3 || w2->rank != 3 || n->in[0]->dtype != DT_F32)
    ctx_fail(n->graph->ctx, n, "needs float tokens and constant weights fc1 and fc2 of rank 3");
  l.fc[FC2] = linear_layers(n, w2, constant_input(n, in[FC2].b), l.experts, 0, 1, w2->dim[1]);
  l.act = read_activation(n, warned);
  if (l.act == ACT_SWIGLU) {
    read_swiglu(n, in, w1, &l);
  } else {
    Tensor *w3 = layer_weights(n, &in[FC3], l.experts);
    l.fc[FC1] = linear_layers(n, w1, constant_input(n, in[FC1].b), l.experts, 0, 1, w1->dim[1]);
    if (w3) l.fc[FC3] = linear_layers(n, w3, constant_input(n, in[FC3].b), l.experts, 0, 1, w3->dim[1]);
  }
  int64_t inner = l.fc[FC1]->count;
  if (w1->dim[2] != l.hidden || w2->dim[1] != l.hidden || w2->dim[2] != inner ||
      (l.fc[FC3] && (l.fc[FC3]->count != inner || l.fc[FC3]->in != l.hidden)))
    ctx_fail(n->graph->ctx, n, "the experts' weights do not fit: fc1 %lld to %lld, fc2 %lld to %lld, tokens of %lld",
             (long long)w1->dim[2], (long long)inner, (long long)w2->dim[2], (long long)w2->dim[1],
             (long long)l.hidden);
  moe_put(memo, n->out[0], &l);
}

void moe_from_contrib(Graph *g, struct MoeMemo *memo) {
  bool warned = false;
  for (Node *n = g->first; n; n = n->next)
    if ((n->op == OP_MS_MOE || n->op == OP_MS_QMOE) && n->out[0]->n_uses + n->out[0]->is_output)
      replace_contrib(n, memo, &warned);
}
