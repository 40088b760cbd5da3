/* Older forms of operators and what the frontend makes of them. A node is written as `Op(inputs) attributes`, constants
 * as their values; helper nodes stand before it, separated by "; ". */
#include "onnx_bytes.h"

/* ---- a graph as text ---- */

static void add_value(Text *t, const Graph *g, const Value *v) {
  if (!v) {
    text_add(t, "-");
  } else if (!v->tensor) { /* made by the k-th node: #k */
    size_t k = 0;
    for (const Node *n = g->first; n && n != v->producer; n = n->next) k++;
    if (v->producer)
      text_add(t, "#%zu", k);
    else
      text_add(t, "%s", v->name);
  } else {
    text_add(t, "%s", v->tensor->rank ? "[" : "");
    for (int64_t i = 0; i < tensor_count(v->tensor); i++)
      text_add(t, "%s%g", i ? " " : "", tensor_number(v->tensor, i));
    text_add(t, "%s", v->tensor->rank ? "]" : "");
  }
}

static void add_attribute(Text *t, const Attr *a) {
  text_add(t, " %s=", a->name);
  if (a->kind == ATTR_INT) text_add(t, "%lld", (long long)a->i);
  if (a->kind == ATTR_FLOAT) text_add(t, "%g", a->f);
  if (a->kind == ATTR_STRING) text_add(t, "%s", a->s);
  if (a->kind == ATTR_TENSOR) text_add(t, "%s(%g)", dtype_name(a->tensor->dtype), tensor_number(a->tensor, 0));
  for (size_t i = 0; a->kind == ATTR_INTS && i < a->n; i++) text_add(t, "%s%lld", i ? "," : "", (long long)a->ints[i]);
}

static const char *graph_text(Ctx *c, const Graph *g) {
  Text t = {.ctx = c};
  for (const Node *n = g->first; n; n = n->next) {
    text_add(&t, "%s%s(", n->prev ? "; " : "", op_info(n->op)->name);
    for (int i = 0; i < n->n_in; i++) {
      text_add(&t, "%s", i ? ", " : "");
      add_value(&t, g, n->in[i]);
    }
    text_add(&t, ")");
    for (size_t i = 0; i < n->n_attr; i++) add_attribute(&t, &n->attr[i]);
  }
  return t.text;
}

/* Reads one node over x [2,3,4], with the constants given, and compares. Frees node. */
static void becomes(int64_t version, Bytes n, const char *wanted) {
  Bytes g = graph_xy();
  put_message(&g, 5, float_vector("scales", 3, (const float[]){1, 2, 2}));
  put_message(&g, 5, float_vector("smaller", 3, (const float[]){1, 0.5f, 1}));
  put_message(&g, 5, float_vector("none", 0, NULL));
  put_message(&g, 5, int64_vector("sizes", 3, (const int64_t[]){2, 6, 4}));
  put_message(&g, 5, int64_vector("k", 1, (const int64_t[]){2}));
  put_message(&g, 5, raw_tensor("false", ONNX_BOOL, 0, NULL, "", 1));
  put_message(&g, 5, raw_tensor("true", ONNX_BOOL, 0, NULL, "\1", 1));
  put_message(&g, 1, n);
  Reading r = read_bytes(model(g, version), NULL);
  const char *got = r.graph ? graph_text(r.ctx, r.graph) : ctx_message(r.ctx, 0);
  if (r.graph ? strcmp(got, wanted) != 0 : !strstr(got, wanted)) {
    print_message("opset %d\n  wanted %s\n  got    %s\n", (int)version, wanted, got);
    fail();
  }
  done(&r);
}

static Bytes with_ints(const char *op, const char *in, const char *attr, size_t n, const int64_t *v) {
  Bytes b = node(op, "n", in, "y");
  attr_ints(&b, attr, n, v);
  return b;
}

static const int64_t zero_two[] = {0, 2}, ones[] = {1, 1, 1, 1, 1, 1};

static void axes_become_inputs(void **state) {
  (void)state;
  static const char *const reductions[] = {"ReduceL1",   "ReduceL2",  "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
                                           "ReduceMean", "ReduceMin", "ReduceProd",   "ReduceSumSquare"};
  char wanted[64];
  for (size_t i = 0; i < sizeof reductions / sizeof *reductions; i++) {
    snprintf(wanted, sizeof wanted, "%s(x, [0 2])", reductions[i]);
    becomes(7, with_ints(reductions[i], "x", "axes", 2, zero_two), wanted);
    becomes(17, with_ints(reductions[i], "x", "axes", 2, zero_two), wanted);
    becomes(18, with_ints(reductions[i], "x", "axes", 2, zero_two), "attribute \"axes\" does not exist");
  }
  becomes(12, with_ints("ReduceSum", "x", "axes", 2, zero_two), "ReduceSum(x, [0 2])");
  becomes(13, with_ints("ReduceSum", "x", "axes", 2, zero_two), "attribute \"axes\" does not exist");
  becomes(11, node("ReduceMean", "n", "x", "y"), "ReduceMean(x)");
  becomes(12, with_ints("Squeeze", "x", "axes", 2, zero_two), "Squeeze(x, [0 2])");
  becomes(12, node("Squeeze", "n", "x", "y"), "Squeeze(x)");
  becomes(12, with_ints("Unsqueeze", "x", "axes", 2, zero_two), "Unsqueeze(x, [0 2])");
  becomes(12, node("Unsqueeze", "n", "x", "y"), "attribute \"axes\" is missing");
}

static void split_forms(void **state) {
  (void)state;
  becomes(11, with_ints("Split", "x", "split", 1, zero_two + 1), "Split(x, [2])");
  becomes(11, node("Split", "n", "x", "y z"), "Split(x) num_outputs=2");
  becomes(13, node("Split", "n", "x", "y z"), "Split(x) num_outputs=2");
  becomes(13, node("Split", "n", "x k", "y"), "Split(x, [2])");
}

static void softmax_over_all_further_axes(void **state) {
  (void)state;
  Bytes last = node("Softmax", "n", "x", "y");
  attr_int(&last, "axis", 2);
  becomes(12, last, "Softmax(x) axis=-1");
  becomes(11, node("LogSoftmax", "n", "x", "y"), "Flatten(x) axis=1; LogSoftmax(#0); Shape(x); Reshape(#1, #2)");
  becomes(13, node("Softmax", "n", "x", "y"), "Softmax(x)");
}

static void numbers_become_inputs(void **state) {
  (void)state;
  Bytes clip = node("Clip", "n", "x", "y"), top = node("TopK", "n", "x", "y i"), pad = node("Pad", "n", "x", "y");
  attr_float(&clip, "max", 6);
  becomes(10, clip, "Clip(x, -, 6)");
  becomes(10, node("Clip", "n", "x", "y"), "Clip(x)");
  attr_int(&top, "k", 2);
  attr_int(&top, "axis", 1);
  becomes(9, top, "TopK(x, [2]) axis=1");
  becomes(10, node("TopK", "n", "x k", "y i"), "TopK(x, [2])");
  attr_ints(&pad, "pads", 6, ones);
  attr_float(&pad, "value", 1.5f);
  attr_text(&pad, "mode", "constant");
  becomes(7, pad, "Pad(x, [1 1 1 1 1 1], 1.5) mode=constant");
  Bytes slice = node("Slice", "n", "x", "y");
  attr_ints(&slice, "starts", 2, zero_two);
  attr_ints(&slice, "ends", 2, ones);
  becomes(9, slice, "Slice(x, [0 2], [1 1])");
}

static void upsampling_is_resizing(void **state) {
  (void)state;
  becomes(9, node("Upsample", "n", "x scales", "y"),
          "Resize(x, -, [1 2 2]) mode=nearest coordinate_transformation_mode=asymmetric nearest_mode=floor");
  Bytes old = node("Upsample", "n", "x", "y"), a = attribute("scales", 6);
  put_float(&a, 7, 1);
  put_float(&a, 7, 2);
  put_float(&a, 7, 2);
  put_message(&old, 5, a);
  attr_text(&old, "mode", "linear");
  becomes(7, old, "Resize(x, -, [1 2 2]) mode=linear coordinate_transformation_mode=asymmetric nearest_mode=floor");
  becomes(10, node("Upsample", "n", "x scales", "y"), "supported in opsets 7 to 9");
  becomes(10, node("Resize", "n", "x smaller", "y"),
          "Resize(x, -, [1 0.5 1]) mode=nearest coordinate_transformation_mode=asymmetric nearest_mode=ceil");
  becomes(11, node("Resize", "n", "x none scales", "y"), "Resize(x, -, [1 2 2])");
  becomes(11, node("Resize", "n", "x none none sizes", "y"), "Resize(x, -, -, [2 6 4])");
}

static void dropout_is_identity(void **state) {
  (void)state;
  Bytes n = node("Dropout", "n", "x", "y");
  attr_float(&n, "ratio", 0.5f);
  becomes(7, n, "Identity(x)");
  becomes(13, node("Dropout", "n", "x - false", "y"), "Identity(x)");
  becomes(13, node("Dropout", "n", "x - true", "y"), "is in training mode");
  becomes(13, node("Dropout", "n", "x", "y mask"), "Shape(x); ConstantOfShape(#0) value=bool(1); Identity(x)");
}

static void batch_norm_only_for_inference(void **state) {
  (void)state;
  Bytes n = node("BatchNormalization", "n", "x scales scales scales scales", "y");
  attr_int(&n, "spatial", 1);
  becomes(7, n, "BatchNormalization(x, [1 2 2], [1 2 2], [1 2 2], [1 2 2])");
  n = node("BatchNormalization", "n", "x scales scales scales scales", "y");
  attr_int(&n, "training_mode", 1);
  becomes(15, n, "is in training mode");
  becomes(9, node("BatchNormalization", "n", "x scales scales scales scales", "y m v"), "is in training mode");
}

static void renamed_and_composed(void **state) {
  (void)state;
  becomes(9, node("Scatter", "n", "x x x", "y"), "ScatterElements(x, x, x)");
  becomes(11, node("LpNormalization", "n", "x", "y"), "ReduceL2(x, [-1]); Div(x, #0)");
  becomes(13, node("MeanVarianceNormalization", "n", "x", "y"),
          "ReduceMean(x, [0 2 3]); Sub(x, #0); Mul(#1, #1); ReduceMean(#2, [0 2 3]); Sqrt(#3); Add(#4, 1e-09); Div(#1, "
          "#5)");
}

static Bytes einsum(const char *equation, const char *in) {
  Bytes n = node("Einsum", "n", in, "y");
  attr_text(&n, "equation", equation);
  return n;
}

static void einsum_is_matrix_products(void **state) {
  (void)state;
  becomes(13, einsum("bik,bjk->bij", "x x"), "Transpose(x) perm=0,2,1; MatMul(x, #0); Transpose(#1) perm=0,1,2");
  becomes(13, einsum("abc->ca", "x"), "ReduceSum(x, [1]) keepdims=0; Transpose(#0) perm=1,0");
  becomes(13, einsum("abc,dec -> abde", "x x"),
          "Transpose(x) perm=2,0,1; Reshape(x, [6 4]); Reshape(#0, [4 6]); MatMul(#1, #2); Reshape(#3, [2 3 2 3]); "
          "Transpose(#4) perm=0,1,2,3");
}

static void einsum_faults(void **state) {
  (void)state;
  becomes(13, einsum("abc,cde", "x x"), "dimension c is 4 and 2");
  becomes(13, einsum("abc,cde", "x"), "the equation has 2 terms for 1 inputs");
  becomes(13, einsum("abc->d", "x"), "letter of no term: d");
  becomes(13, einsum("ab->b", "x"), "input 0 has 3 dimensions, its term ab");
  becomes(13, einsum("a(c->b", "x"), "the equation contains \"(\"");
  becomes(13, einsum("abcdefghi->i", "x"), "more than 8 letters");
}

static void attention_is_split_into_heads(void **state) {
  (void)state;
  Bytes n = node("Attention", "n", "x x x", "y");
  attr_int(&n, "q_num_heads", 2);
  attr_int(&n, "kv_num_heads", 2);
  attr_float(&n, "scale", 0.5f);
  becomes(23, n,
          "Reshape(x, [0 0 2 -1]); Transpose(#0) perm=0,2,1,3; Reshape(x, [0 0 2 -1]); Transpose(#2) perm=0,2,1,3; "
          "Reshape(x, [0 0 2 -1]); Transpose(#4) perm=0,2,1,3; Attention(#1, #3, #5) scale=0.5 causal=0; "
          "Transpose(#6) perm=0,2,1,3; Reshape(#7, [0 0 -1])");
  n = node("Attention", "n", "x x x", "y");
  attr_int(&n, "q_num_heads", 3);
  attr_int(&n, "kv_num_heads", 2);
  becomes(23, n, "has 3 query heads over 2 key heads");
  n = node("Attention", "n", "x x x", "y");
  attr_float(&n, "softcap", 5);
  becomes(23, n, "with softcap is not supported");
  becomes(23, node("Attention", "n", "x x x - x x", "y"), "with a cache of past keys");
}

static void constants_of_every_kind(void **state) {
  (void)state;
  static const char *const wanted[] = {"Identity(7)", "Identity(1.5)", "Identity([0 2])", "Identity([0.5 2.5])",
                                       "Identity([3])"};
  for (int kind = 0; kind < 5; kind++) {
    Bytes g = graph_xy(), n = node("Constant", "n", "", "y"), a;
    if (kind == 0) attr_int(&n, "value_int", 7);
    if (kind == 1) attr_float(&n, "value_float", 1.5f);
    if (kind == 2) attr_ints(&n, "value_ints", 2, zero_two);
    if (kind == 3) {
      a = attribute("value_floats", 6);
      put_float(&a, 7, 0.5f);
      put_float(&a, 7, 2.5f);
      put_message(&n, 5, a);
    }
    if (kind == 4) {
      a = attribute("value", 4);
      put_message(&a, 5, int64_vector(NULL, 1, (const int64_t[]){3}));
      put_message(&n, 5, a);
    }
    put_message(&g, 1, n);
    Reading r = accepted(model(g, 13));
    assert_string_equal(graph_text(r.ctx, r.graph), wanted[kind]);
    done(&r);
  }
  becomes(13, node("Constant", "n", "", "y"), "needs exactly one attribute that gives its value, has 0");
}

static void casts_to_types_we_lack_are_listed(void **state) {
  (void)state;
  Bytes n = node("Cast", "n", "x", "y");
  attr_int(&n, "to", 17);
  becomes(19, n, "operator \"Cast\" to float8e4m3fn is not supported (1 node): node 0 \"n\" (Cast)");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(axes_become_inputs),
      cmocka_unit_test(split_forms),
      cmocka_unit_test(softmax_over_all_further_axes),
      cmocka_unit_test(numbers_become_inputs),
      cmocka_unit_test(upsampling_is_resizing),
      cmocka_unit_test(dropout_is_identity),
      cmocka_unit_test(batch_norm_only_for_inference),
      cmocka_unit_test(renamed_and_composed),
      cmocka_unit_test(einsum_is_matrix_products),
      cmocka_unit_test(einsum_faults),
      cmocka_unit_test(attention_is_split_into_heads),
      cmocka_unit_test(constants_of_every_kind),
      cmocka_unit_test(casts_to_types_we_lack_are_listed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
