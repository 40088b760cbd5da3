/* Older forms of operators to the newest one (opset 28), so that nothing behind the frontend knows versions.
 *
 * One table says which versions of which operator go through which function; the functions change the RawNode in place.
 * What an attribute used to say mostly has become an input. Attributes and inputs that were only added since need
 * nothing.
 */
#include "frontend.h"

#include <string.h>

/* Turns a list of ints into input i. A missing or empty list leaves the input absent. */
static bool ints_to_input(RawNode *n, const char *name, int i) {
  const Attr *a = raw_attr(n, name);
  if (!a) return true;
  if (a->kind != ATTR_INTS)
    return raw_fault(n, "attribute \"%s\" is %s, but must be a list of ints", name, attribute_kind_name(a->kind));
  if (raw_has(n, i)) return raw_fault(n, "has both an attribute \"%s\" and an input %d", name, i);
  if (a->n) raw_set_input(n, i, constant_ints(n, a->n, a->ints));
  raw_drop_attr(n, name);
  return true;
}

static bool need_input(RawNode *n, int i, const char *attr) {
  return raw_has(n, i) || raw_fault(n, "attribute \"%s\" is missing", attr);
}

/* ---- constants ---- */

static bool become_constant(RawNode *n, Tensor *t) {
  value_set_constant(n->out[0], t);
  return false; /* no node is left to make */
}

static bool constant(RawNode *n) {
  Ctx *c = n->reader->ctx;
  if (n->n_attr != 1) return raw_fault(n, "needs exactly one attribute that gives its value, has %zu", n->n_attr);
  const Attr *a = &n->attr[0];
  int64_t count = (int64_t)a->n;
  Tensor *t = a->tensor;
  switch (a->kind) {
  case ATTR_TENSOR: break;
  case ATTR_INT: *(int64_t *)tensor_writable(t = tensor_new(c, DT_I64, 0, NULL, NULL)) = a->i; break;
  case ATTR_FLOAT: *(float *)tensor_writable(t = tensor_new(c, DT_F32, 0, NULL, NULL)) = (float)a->f; break;
  case ATTR_INTS:
    t = tensor_new(c, DT_I64, 1, &count, NULL);
    if (count) memcpy(tensor_writable(t), a->ints, t->bytes);
    break;
  default:
    t = tensor_new(c, DT_F32, 1, &count, NULL);
    for (int64_t i = 0; i < count; i++) ((float *)tensor_writable(t))[i] = (float)a->floats[i];
    break;
  }
  return become_constant(n, t);
}

/* ---- attributes that became inputs ---- */

static bool axes_input(RawNode *n) { return ints_to_input(n, "axes", 1); }
static bool axes_needed(RawNode *n) { return ints_to_input(n, "axes", 1) && need_input(n, 1, "axes"); }

static bool split_sizes(RawNode *n) { return ints_to_input(n, "split", 1); }

static bool split_equal(RawNode *n) {
  if (!raw_has(n, 1) && !raw_attr(n, "num_outputs")) raw_set_int(n, "num_outputs", n->n_out);
  return true;
}

static bool slice(RawNode *n) {
  return ints_to_input(n, "starts", 1) && need_input(n, 1, "starts") && ints_to_input(n, "ends", 2) &&
         need_input(n, 2, "ends") && ints_to_input(n, "axes", 3);
}

static bool top_k(RawNode *n) {
  const Attr *k = raw_attr(n, "k");
  if (!k || k->kind != ATTR_INT) return raw_fault(n, "attribute \"k\" must be an int");
  raw_set_input(n, 1, constant_ints(n, 1, &k->i));
  raw_drop_attr(n, "k");
  return true;
}

static bool clip(RawNode *n) {
  DType type = raw_float_type(n);
  if (raw_attr(n, "min")) raw_set_input(n, 1, constant_number(n, type, raw_number(n, "min", 0)));
  if (raw_attr(n, "max")) raw_set_input(n, 2, constant_number(n, type, raw_number(n, "max", 0)));
  raw_drop_attr(n, "min");
  raw_drop_attr(n, "max");
  return true;
}

static bool pad(RawNode *n) {
  double value = raw_number(n, "value", 0);
  if (!ints_to_input(n, "pads", 1) || !need_input(n, 1, "pads")) return false;
  if (value != 0) raw_set_input(n, 2, constant_number(n, raw_float_type(n), value));
  raw_drop_attr(n, "value");
  return true;
}

/* ---- changed meaning ---- */

/* Softmax took all axes from `axis` on as one. */
static bool softmax(RawNode *n) {
  int64_t axis = (int64_t)raw_number(n, "axis", 1);
  int rank = raw_has(n, 0) ? n->in[0]->shape.rank : -1;
  if (axis == -1 || (rank > 0 && axis == rank - 1)) {
    raw_set_int(n, "axis", -1);
    return true;
  }
  if (!raw_has(n, 0) || n->n_out != 1) return true; /* the arity check will say so */
  Node *flat = raw_emit(n, "Flatten", 1, n->in, NULL);
  node_set_int(flat, "axis", axis);
  Node *soft = raw_emit(n, n->op_type, 1, flat->out, NULL), *shape = raw_emit(n, "Shape", 1, n->in, NULL);
  raw_set_input(n, 0, soft->out[0]);
  raw_set_input(n, 1, shape->out[0]);
  raw_become(n, "", "Reshape");
  return true;
}

static bool batch_norm_spatial(RawNode *n) {
  if (raw_number(n, "spatial", 1) != 1) return raw_fault(n, "attribute \"spatial\" 0 is not supported");
  raw_drop_attr(n, "spatial");
  return true;
}

static bool batch_norm(RawNode *n) {
  if (n->n_out > 1 || raw_number(n, "training_mode", 0) != 0)
    return raw_fault(n, "is in training mode: export the model for inference");
  return true;
}

static bool dropout(RawNode *n) {
  if (raw_has(n, 2)) {
    double training = 1;
    if (!value_is_number(n->in[2], &training) || training != 0)
      return raw_fault(n, "is in training mode: export the model for inference");
  }
  if (n->n_out == 2 && n->out[1]) { /* the mask: nothing is dropped */
    Node *shape = raw_emit(n, "Shape", 1, n->in, NULL);
    Node *ones = raw_emit(n, "ConstantOfShape", 1, shape->out, n->out[1]);
    Value *one = constant_number(n, n->version >= 10 ? DT_BOOL : raw_float_type(n), 1);
    int64_t length = 1;
    Tensor *t = tensor_new(n->reader->ctx, one->dtype, 1, &length, one->tensor->data);
    node_set_attr(ones, (Attr){.name = "value", .kind = ATTR_TENSOR, .tensor = t});
    n->n_out = 1;
  }
  n->n_in = 1;
  raw_become(n, "", "Identity");
  return true;
}

static bool scatter(RawNode *n) {
  n->op_type = "ScatterElements";
  return true;
}

static bool group_norm(RawNode *n) {
  return raw_fault(
      n, "opsets 18 to 20 scale per group; export with opset 21 or newer, where scale and bias are per channel");
}

/* ---- resizing ---- */

/* Upsample, and Resize of opset 10, count from the pixels' corners. */
static bool resize_from_corner(RawNode *n, Value *scales, const char *nearest) {
  const char *mode = raw_string(n, "mode", "nearest");
  raw_set_string(n, "mode", strcmp(mode, "bilinear") == 0 ? "linear" : mode);
  raw_set_string(n, "coordinate_transformation_mode", "asymmetric");
  raw_set_string(n, "nearest_mode", nearest);
  Value *x = n->n_in ? n->in[0] : NULL;
  n->n_in = 0;
  raw_set_input(n, 0, x);
  raw_set_input(n, 2, scales);
  n->op_type = "Resize";
  return true;
}

static bool upsample(RawNode *n) {
  Ctx *c = n->reader->ctx;
  const Attr *a = raw_attr(n, "scales");
  if (n->version >= 9)
    return raw_has(n, 1) ? resize_from_corner(n, n->in[1], "floor") : raw_fault(n, "input 1 is missing");
  if (!a || a->kind != ATTR_FLOATS) return raw_fault(n, "attribute \"scales\" must be a list of floats");
  int64_t count = (int64_t)a->n;
  Tensor *t = tensor_new(c, DT_F32, 1, &count, NULL);
  for (int64_t i = 0; i < count; i++) ((float *)tensor_writable(t))[i] = (float)a->floats[i];
  raw_drop_attr(n, "scales");
  return resize_from_corner(n, graph_constant(n->reader->graph, NULL, t), "floor");
}

/* Opset 10 took the nearest pixel below when enlarging and above when reducing. */
static bool resize_10(RawNode *n) {
  if (!raw_has(n, 1)) return raw_fault(n, "input 1 is missing");
  const Tensor *scales = n->in[1]->tensor;
  bool enlarges = true, reduces = true;
  for (int64_t i = 0; scales && i < tensor_count(scales); i++) {
    enlarges = enlarges && tensor_number(scales, i) >= 1;
    reduces = reduces && tensor_number(scales, i) <= 1;
  }
  bool nearest = strcmp(raw_string(n, "mode", "nearest"), "nearest") == 0;
  if (nearest && (!scales || (!enlarges && !reduces)))
    return raw_fault(n, "nearest resizing of opset 10 needs constant scales that all enlarge or all reduce");
  return resize_from_corner(n, n->in[1], enlarges ? "floor" : "ceil");
}

/* What is not given may be absent or an empty tensor; roi only matters to one mode. */
static bool resize(RawNode *n) {
  if (raw_has(n, 1) && strcmp(raw_string(n, "coordinate_transformation_mode", ""), "tf_crop_and_resize") != 0)
    n->in[1] = NULL;
  for (int i = 1; i < n->n_in; i++)
    if (n->in[i] && n->in[i]->tensor && tensor_count(n->in[i]->tensor) == 0) n->in[i] = NULL;
  return true;
}

/* ---- casts ---- */

static bool cast(RawNode *n) {
  const Attr *to = raw_attr(n, "to");
  if (!to || to->kind != ATTR_INT) return raw_fault(n, "attribute \"to\" must be an int");
  int code = to->i >= 0 && to->i < 1000 ? (int)to->i : -1;
  if (dtype_from_onnx(code) != DT_NONE) return true;
  if (!onnx_type_name(code)) return raw_fault(n, "casts to the unknown type %lld", (long long)to->i);
  unsupported_add(n, ctx_format(n->reader->ctx, "to %s is not supported", onnx_type_name(code)));
  return false;
}

static bool grid_sample(RawNode *n) {
  const char *mode = raw_string(n, "mode", "bilinear");
  const char *now = strcmp(mode, "bilinear") == 0 ? "linear" : strcmp(mode, "bicubic") == 0 ? "cubic" : mode;
  raw_set_attr(n, (Attr){.name = "mode", .kind = ATTR_STRING, .s = now});
  return true;
}

/* ---- the table ---- */

static const struct {
  const char *op;
  int from, to; /* opsets, both included */
  bool (*fn)(RawNode *n);
} upgrades[] = {
    {"Attention", 23, OPSET_NEWEST, compose_attention},
    {"BatchNormalization", 7, 8, batch_norm_spatial},
    {"BatchNormalization", 7, OPSET_NEWEST, batch_norm},
    {"Cast", 7, OPSET_NEWEST, cast},
    {"Clip", 7, 10, clip},
    {"Constant", 7, OPSET_NEWEST, constant},
    {"Dropout", 7, OPSET_NEWEST, dropout},
    {"Einsum", 12, OPSET_NEWEST, compose_einsum},
    {"GridSample", 16, 19, grid_sample},
    {"GroupNormalization", 18, 20, group_norm},
    {"LogSoftmax", 7, 12, softmax},
    {"LpNormalization", 7, OPSET_NEWEST, compose_lp_normalization},
    {"MeanVarianceNormalization", 9, OPSET_NEWEST, compose_mean_variance},
    {"Pad", 7, 10, pad},
    {"ReduceL1", 7, 17, axes_input},
    {"ReduceL2", 7, 17, axes_input},
    {"ReduceLogSum", 7, 17, axes_input},
    {"ReduceLogSumExp", 7, 17, axes_input},
    {"ReduceMax", 7, 17, axes_input},
    {"ReduceMean", 7, 17, axes_input},
    {"ReduceMin", 7, 17, axes_input},
    {"ReduceProd", 7, 17, axes_input},
    {"ReduceSum", 7, 12, axes_input},
    {"ReduceSumSquare", 7, 17, axes_input},
    {"Resize", 10, 10, resize_10},
    {"Resize", 11, OPSET_NEWEST, resize},
    {"Scatter", 9, 10, scatter},
    {"Slice", 7, 9, slice},
    {"Softmax", 7, 12, softmax},
    {"Split", 7, 12, split_sizes},
    {"Split", 7, OPSET_NEWEST, split_equal},
    {"Squeeze", 7, 12, axes_input},
    {"SwiGLU", 28, OPSET_NEWEST, compose_swiglu},
    {"TopK", 7, 9, top_k},
    {"Unsqueeze", 7, 12, axes_needed},
    {"Upsample", 7, 9, upsample},
};

bool upgrade(RawNode *n) {
  if (*n->domain) return true;
  const char *op = n->op_type;
  for (size_t i = 0; i < sizeof upgrades / sizeof *upgrades; i++)
    if (strcmp(upgrades[i].op, op) == 0 && n->version >= upgrades[i].from && n->version <= upgrades[i].to &&
        !upgrades[i].fn(n))
      return false;
  return true;
}
