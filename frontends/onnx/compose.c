/* Operators that we have no kernel for and that are composed of ones we have. */
#include "frontend.h"

#include <math.h>
#include <string.h>

static Value *emit1(RawNode *n, const char *op, Value *a) { return raw_emit(n, op, 1, &a, NULL)->out[0]; }

static Value *emit2(RawNode *n, const char *op, Value *a, Value *b) {
  Value *in[2] = {a, b};
  return raw_emit(n, op, 2, in, NULL)->out[0];
}

/* x over its length along an axis. */
bool compose_lp_normalization(RawNode *n) {
  int64_t axis = (int64_t)raw_number(n, "axis", -1), p = (int64_t)raw_number(n, "p", 2);
  if (p != 1 && p != 2) return raw_fault(n, "attribute \"p\" is %lld, but must be 1 or 2", (long long)p);
  raw_set_input(n, 1, emit2(n, p == 1 ? "ReduceL1" : "ReduceL2", n->in[0], constant_ints(n, 1, &axis)));
  raw_become(n, "", "Div");
  return true;
}

/* (x - mean) / (deviation + 1e-9) over the axes. */
bool compose_mean_variance(RawNode *n) {
  static const int64_t usual[] = {0, 2, 3};
  const Attr *a = raw_attr(n, "axes");
  if (!raw_has(n, 0) || (a && a->kind != ATTR_INTS)) return raw_fault(n, "needs an input and a list of ints as axes");
  Value *axes = a ? constant_ints(n, a->n, a->ints) : constant_ints(n, 3, usual);
  Value *d = emit2(n, "Sub", n->in[0], emit2(n, "ReduceMean", n->in[0], axes));
  Value *deviation = emit1(n, "Sqrt", emit2(n, "ReduceMean", emit2(n, "Mul", d, d), axes));
  raw_set_input(n, 1, emit2(n, "Add", deviation, constant_number(n, raw_float_type(n), 1e-9)));
  n->in[0] = d;
  raw_become(n, "", "Div");
  return true;
}

/* a * sigmoid(alpha * a) * b */
bool compose_swiglu(RawNode *n) {
  Node *gate = raw_emit(n, "Swish", 1, n->in, NULL);
  node_set_float(gate, "alpha", raw_number(n, "alpha", 1));
  n->in[0] = gate->out[0];
  raw_become(n, "", "Mul");
  return true;
}

/* ---- attention ---- */

static int64_t dimension(const Value *v, int i) {
  return v->shape.rank > i && !v->shape.dim[i].sym ? v->shape.dim[i].n : -1;
}

static Value *transpose(RawNode *n, Value *v, const int64_t perm[4]) {
  Node *made = raw_emit(n, "Transpose", 1, &v, NULL);
  node_set_ints(made, "perm", 4, perm);
  return made->out[0];
}

/* [B,T,heads*D] -> [B,heads,T,D] */
static Value *split_heads(RawNode *n, Value *v, int64_t heads) {
  static const int64_t swap[] = {0, 2, 1, 3};
  return transpose(n, emit2(n, "Reshape", v, constant_ints(n, 4, (const int64_t[]){0, 0, heads, -1})), swap);
}

/* [B,heads,S,D] with each head repeated: [B,heads*times,S,D] */
static Value *repeat_heads(RawNode *n, Value *v, int64_t heads, int64_t times) {
  if (times == 1) return v;
  Value *apart = emit2(n, "Unsqueeze", v, constant_ints(n, 1, (const int64_t[]){2}));
  Value *wide = emit2(n, "Expand", apart, constant_ints(n, 5, (const int64_t[]){1, 1, times, 1, 1}));
  const int64_t joined[] = {0, heads * times, -1, dimension(v, 3)};
  if (joined[3] > 0) return emit2(n, "Reshape", wide, constant_ints(n, 4, joined));
  /* the head size is the last dimension, whatever it is */
  Node *last = raw_emit(n, "Shape", 1, &v, NULL);
  node_set_int(last, "start", 3);
  Value *parts[2] = {constant_ints(n, 3, joined), last->out[0]};
  Node *shape = raw_emit(n, "Concat", 2, parts, NULL);
  node_set_int(shape, "axis", 0);
  return emit2(n, "Reshape", wide, shape->out[0]);
}

/* What of the operator is not covered, NULL if all is. */
static const char *attention_fault(const RawNode *n) {
  for (int i = 4; i < n->n_in; i++)
    if (n->in[i]) return "with a cache of past keys or padding lengths is not supported";
  if (n->n_out != 1) return "with outputs besides the first is not supported";
  if (raw_number(n, "softcap", 0) != 0) return "with softcap is not supported";
  if (raw_number(n, "left_window_size", -1) != -1 || raw_number(n, "right_window_size", -1) != -1)
    return "with a window is not supported";
  if (n->in[0]->shape.rank < 0) return "needs its query's shape declared: run shape inference on the model";
  return NULL;
}

/* The mask as numbers to add; NULL with a report if its type is not known. */
static Value *attention_mask(RawNode *n) {
  Value *mask = n->in[3];
  if (dtype_is_float(mask->dtype)) return mask;
  if (mask->dtype != DT_BOOL) {
    raw_fault(n, "needs its mask's type declared, a float or bool: run shape inference on the model");
    return NULL;
  }
  DType t = raw_float_type(n);
  Value *in[3] = {mask, constant_number(n, t, 0), constant_number(n, t, -INFINITY)};
  return raw_emit(n, "Where", 3, in, NULL)->out[0];
}

/* How the operands are laid out. */
typedef struct {
  bool joined; /* heads side by side in the last dimension: [B,T,heads*D] */
  bool causal;
  int64_t heads, kv_heads, size;
} Heads;

static bool read_heads(RawNode *n, Heads *h) {
  const Value *q = n->in[0], *k = n->in[1];
  h->joined = q->shape.rank == 3;
  h->causal = raw_number(n, "is_causal", 0) != 0;
  h->heads = h->joined ? (int64_t)raw_number(n, "q_num_heads", 0) : dimension(q, 1);
  h->kv_heads = h->joined ? (int64_t)raw_number(n, "kv_num_heads", 0) : dimension(k, 1);
  if (!h->joined && h->kv_heads < 0) h->kv_heads = h->heads;
  if (h->heads < 1 || h->kv_heads < 1 || h->heads % h->kv_heads)
    return raw_fault(n, "has %lld query heads over %lld key heads", (long long)h->heads, (long long)h->kv_heads);
  h->size = dimension(q, h->joined ? 2 : 3);
  if (h->size < 1 || (h->joined && h->size % h->heads)) return raw_fault(n, "has heads of unknown or uneven size");
  if (h->joined) h->size /= h->heads;
  int along = h->joined ? 1 : 2;
  if (h->causal && (dimension(q, along) != dimension(k, along) || dimension(q, along) < 0))
    return raw_fault(n, "is causal over queries and keys that are not known to be equally many");
  return true;
}

static Value *emit_attention(RawNode *n, const Heads *h, Value *const in[4]) {
  Graph *g = n->reader->graph;
  const char *name = ctx_format(n->reader->ctx, "%s/Attention", n->name);
  Value *result = graph_value(g, name, DT_NONE, shape_unknown());
  Node *made = graph_node(g, NULL, OP_ATTENTION, name, in[3] ? 4 : 3, in, 1, &result);
  made->scope = n->scope;
  node_set_float(made, "scale", raw_number(n, "scale", 1 / sqrt((double)h->size)));
  node_set_int(made, "causal", h->causal);
  return result;
}

/* ONNX's Attention: ours, with heads split and repeated around it and the mask made a float. */
bool compose_attention(RawNode *n) {
  static const int64_t swap[] = {0, 2, 1, 3}, side_by_side[] = {0, 0, -1};
  const char *fault = attention_fault(n);
  Heads h = {0};
  if (fault) return raw_fault(n, "%s", fault);
  if (!read_heads(n, &h)) return false;
  Value *in[4] = {n->in[0], n->in[1], n->in[2], raw_has(n, 3) ? attention_mask(n) : NULL};
  if (raw_has(n, 3) && !in[3]) return false;
  for (int i = 0; h.joined && i < 3; i++) in[i] = split_heads(n, in[i], i ? h.kv_heads : h.heads);
  for (int i = 1; i < 3; i++) in[i] = repeat_heads(n, in[i], h.kv_heads, h.heads / h.kv_heads);
  Value *result = emit_attention(n, &h, in);
  n->n_in = 0;
  raw_set_input(n, 0, h.joined ? transpose(n, result, swap) : result);
  if (h.joined) raw_set_input(n, 1, constant_ints(n, 3, side_by_side));
  raw_become(n, "", h.joined ? "Reshape" : "Identity");
  return true;
}
