/* The model's graph as a whole: its inputs and outputs with their types, free dimensions, and what the model says about
 * the types of the values between. */
#include "frontend.h"

#include <string.h>

static const char *text(const char *s) { return s ? s : ""; }

/* ---- types ---- */

/* Why a value's type cannot be used, NULL if it can. */
static const char *type_fault(Ctx *c, const Onnx__TypeProto *t) {
  if (!t) return "has no type";
  if (t->has_sequence_type) return "is a sequence; only tensors are supported";
  if (t->has_map_type) return "is a map; only tensors are supported";
  if (t->has_optional_type) return "is an optional; only tensors are supported";
  if (t->has_sparse_tensor_type) return "is a sparse tensor; only dense ones are supported";
  if (!t->tensor_type) return "is not a tensor; only tensors are supported";
  int code = t->tensor_type->elem_type;
  if (dtype_from_onnx(code) != DT_NONE) return NULL;
  if (!onnx_type_name(code)) return ctx_format(c, "has elements of the unknown type %d", code);
  return ctx_format(c, "has elements of %s, a type that is not supported", onnx_type_name(code));
}

/* The number that --dim gives a free dimension, -1 if none does. */
static int64_t bound_dimension(Reader *r, const char *name) {
  for (size_t i = 0; i < r->n_dims; i++)
    if (strcmp(r->dims[i].name, name) == 0) {
      r->dim_used[i] = true;
      return r->dims[i].n;
    }
  return -1;
}

/* ---- inputs ---- */

static Dim input_dimension(Reader *r, const char *input, size_t i, const Onnx__TensorShapeProto__Dimension *d) {
  Ctx *c = r->ctx;
  if (d->has_dim_value && !*text(d->dim_param)) {
    if (d->dim_value < 0)
      ctx_report(c, NULL, "input %s: dimension %zu is %lld, which is negative", quoted(c, input), i,
                 (long long)d->dim_value);
    return (Dim){.n = d->dim_value};
  }
  const char *name = *text(d->dim_param) ? d->dim_param : ctx_format(c, "%s.%zu", input, i);
  int64_t n = bound_dimension(r, name);
  if (n < 0)
    ctx_report(c, NULL, "input %s: dimension %zu is free (%s): fix it with --dim %s=N", quoted(c, input), i,
               quoted(c, name), name);
  return (Dim){.n = n};
}

static bool input_shape(Reader *r, const char *name, const Onnx__TypeProto__Tensor *t, Shape *s) {
  Ctx *c = r->ctx;
  size_t errors = ctx_message_count(c);
  DType type = dtype_from_onnx(t->elem_type);
  if (!t->shape) {
    ctx_report(c, NULL, "input %s has no shape", quoted(c, name));
    return false;
  }
  if (t->shape->n_dim > MAX_RANK) {
    ctx_report(c, NULL, "input %s has %zu dimensions; at most %d are supported", quoted(c, name), t->shape->n_dim,
               MAX_RANK);
    return false;
  }
  s->rank = (int)t->shape->n_dim;
  int64_t bytes = (int64_t)dtype_size(type);
  bool fits = true;
  for (size_t i = 0; i < t->shape->n_dim; i++) {
    s->dim[i] = input_dimension(r, name, i, t->shape->dim[i]);
    fits = fits && (s->dim[i].n < 0 || size_mul(bytes, s->dim[i].n, &bytes));
  }
  if (!fits || bytes > INT64_MAX / 4)
    ctx_report(c, NULL, "input %s: %s: its size overflows", quoted(c, name), shape_text(c, type, s));
  return ctx_message_count(c) == errors;
}

static void define_input(Reader *r, Body *b, size_t i, const Onnx__ValueInfoProto *info) {
  Ctx *c = r->ctx;
  const char *name = text(info->name);
  const Def *known = names_find(&b->names, name);
  if (known && known->by == BY_INITIALIZER) return; /* a default value; we take it as the value */
  if (!*name) {
    ctx_report(c, NULL, "input %zu has no name", i);
    return;
  }
  Def *d = body_define(r, b, name, BY_INPUT, i);
  if (!d) return;
  d->ready = true;
  const char *fault = type_fault(c, info->type);
  if (fault) {
    ctx_report(c, NULL, "input %s %s", quoted(c, name), fault);
    return;
  }
  Shape shape = {0};
  bool good = input_shape(r, name, info->type->tensor_type, &shape);
  /* Where it is at fault, its readers are not. */
  d->value =
      graph_value(r->graph, name, dtype_from_onnx(info->type->tensor_type->elem_type), good ? shape : shape_unknown());
  if (good) graph_add_input(r->graph, d->value);
}

/* ---- types of other values ---- */

/* A dimension of a value that is computed: what is not a number there, shape inference finds out. */
static Dim computed_dimension(Reader *r, const Onnx__TensorShapeProto__Dimension *d) {
  if (*text(d->dim_param)) return (Dim){.n = bound_dimension(r, d->dim_param)};
  return (Dim){.n = d->has_dim_value && d->dim_value >= 0 ? d->dim_value : -1};
}

static void declare_type(Reader *r, Body *b, const Onnx__ValueInfoProto *info) {
  const Def *d = names_find(&b->names, text(info->name));
  if (!d || d->by != BY_NODE || !d->value || type_fault(r->ctx, info->type)) return;
  const Onnx__TypeProto__Tensor *t = info->type->tensor_type;
  d->value->dtype = dtype_from_onnx(t->elem_type);
  if (!t->shape || t->shape->n_dim > MAX_RANK) return;
  Shape s = {.rank = (int)t->shape->n_dim};
  for (size_t i = 0; i < t->shape->n_dim; i++) {
    s.dim[i] = computed_dimension(r, t->shape->dim[i]);
    if (s.dim[i].n < 0) return;
  }
  d->value->shape = s;
}

/* ---- outputs ---- */

/* A graph output is made by a node, so a constant or an input that is one passes through Identity. */
static Value *output_value(Reader *r, Value *v) {
  Graph *g = r->graph;
  if (v->tensor) { /* the constant moves to a new value, so that the output keeps its name */
    Value *constant = graph_constant(g, v->name, v->tensor);
    v->tensor = NULL;
    graph_node(g, g->first, OP_IDENTITY, v->name, 1, &constant, 1, &v)->scope = "";
    return v;
  }
  if (v->producer && !v->is_output) return v;
  Value *copy = graph_value(g, v->name, v->dtype, v->shape);
  graph_node(g, NULL, OP_IDENTITY, v->name, 1, &v, 1, &copy);
  return copy;
}

static void add_output(Reader *r, Body *b, size_t i, const Onnx__ValueInfoProto *info) {
  Ctx *c = r->ctx;
  const char *name = text(info->name);
  const Def *d = names_find(&b->names, name);
  for (size_t k = 0; k < i; k++)
    if (strcmp(text(r->model->graph->output[k]->name), name) == 0) {
      ctx_report(c, NULL, "outputs %zu and %zu are both %s", k, i, quoted(c, name));
      return;
    }
  const char *fault = info->type ? type_fault(c, info->type) : NULL; /* the type may be left to inference */
  if (fault) ctx_report(c, NULL, "output %s %s", quoted(c, name), fault);
  if (!d) ctx_report(c, NULL, "output %s is defined by no node, input or initializer", quoted(c, name));
  if (d && d->refused) ctx_report(c, NULL, "output %s: %s", quoted(c, name), d->refused);
  if (d && d->value && !fault && (d->value->producer || d->by != BY_NODE || d->value->tensor))
    graph_add_output(r->graph, output_value(r, d->value));
}

/* ---- all of it ---- */

static void copy_metadata(Reader *r) {
  const Onnx__ModelProto *m = r->model;
  Graph *g = r->graph;
  g->meta = ctx_array(r->ctx, m->n_metadata_props + 1, sizeof *g->meta);
  for (size_t i = 0; i < m->n_metadata_props; i++)
    if (m->metadata_props[i]->key)
      g->meta[g->n_meta++] = (Meta){m->metadata_props[i]->key, text(m->metadata_props[i]->value)};
}

static void check_dims_used(Reader *r) {
  for (size_t i = 0; i < r->n_dims; i++)
    if (!r->dim_used[i])
      ctx_fail_status(r->ctx, EXIT_USAGE, "--dim %s=%lld: the model has no free dimension of that name",
                      r->dims[i].name, (long long)r->dims[i].n);
}

void convert_model(Reader *r) {
  const Onnx__GraphProto *g = r->model->graph;
  Body b = {.node = g->node,
            .n_node = g->n_node,
            .opset = r->model->opset_import,
            .n_opset = r->model->n_opset_import,
            .prefix = "",
            .scope = ""};
  r->graph = graph_new(r->ctx, text(g->name));
  copy_metadata(r);
  opset_copy(r);
  functions_index(r);
  body_define_initializers(r, &b, g);
  for (size_t i = 0; i < g->n_input; i++) define_input(r, &b, i, g->input[i]);
  body_load_initializers(r, &b, g);
  body_define_outputs(r, &b);
  for (size_t i = 0; i < g->n_value_info; i++) declare_type(r, &b, g->value_info[i]);
  for (size_t i = 0; i < g->n_output; i++) declare_type(r, &b, g->output[i]);
  check_dims_used(r);
  body_convert(r, &b);
  unsupported_report(r);
  if (!g->n_output) ctx_report(r->ctx, NULL, "has no outputs");
  for (size_t i = 0; i < g->n_output; i++) add_output(r, &b, i, g->output[i]);
}
