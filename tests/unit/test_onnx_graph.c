/* The graph of a model: names, order, attributes, operator sets, free dimensions, functions, branches, layers. */
#include "onnx_bytes.h"

static Bytes chain(const char *op) {
  Bytes g = graph_xy();
  put_message(&g, 1, node(op, "n", "x", "y"));
  return g;
}

/* ---- names and order ---- */

static void names_must_be_defined_once_and_before_use(void **state) {
  (void)state;
  Bytes g = graph_xy();
  put_message(&g, 1, node("Relu", "a", "nothing", "y"));
  refused(model(g, 13), "node 0 \"a\" (Relu): reads \"nothing\", which no node, input or initializer defines");
  g = graph_xy();
  put_message(&g, 1, node("Relu", "a", "x", "y"));
  put_message(&g, 1, node("Abs", "b", "x", "y"));
  refused(model(g, 13), "the name \"y\" is defined twice: by node 0 \"a\" (Relu) and by node 1 \"b\" (Abs)");
  g = graph_xy();
  put_message(&g, 1, node("Relu", "a", "x", "x"));
  refused(model(g, 13), "the name \"x\" is defined twice: by input 0 and by node 0 \"a\" (Relu)");
  g = graph_xy();
  put_message(&g, 1, node("Relu", "late", "t", "y"));
  put_message(&g, 1, node("Relu", "early", "x", "t"));
  refused(model(g, 13), "node 0 \"late\" (Relu): reads \"t\", which only node 1 \"early\" (Relu) after it makes");
  g = graph_xy();
  put_message(&g, 1, node("Add", "a", "x c", "b"));
  put_message(&g, 1, node("Relu", "b", "b", "c"));
  put_message(&g, 1, node("Relu", "c", "c", "y"));
  refused(model(g, 13), "node 0 \"a\" (Add) -> node 1 \"b\" (Relu) -> node 0 \"a\" (Add) (over \"c\")");
  g = graph_xy();
  put_message(&g, 1, node("Add", "self", "x y", "y"));
  refused(model(g, 13), "is in a cycle: node 0 \"self\" (Add) -> node 0 \"self\" (Add)");
}

static void outputs_must_be_defined(void **state) {
  (void)state;
  refused(model(graph_xy(), 13), "output \"y\" is defined by no node, input or initializer");
  Bytes g = chain("Relu"), y = {0};
  put_text(&y, 1, "y");
  put_message(&g, 12, y);
  refused(model(g, 13), "outputs 0 and 1 are both \"y\"");
}

static void control_characters_in_names_are_escaped(void **state) {
  (void)state;
  Bytes g = graph_xy();
  put_message(&g, 1, node("Relu", "a\n\"\x1b[2J", "nothing", "y"));
  refused(model(g, 13), "node 0 \"a\\x0a\\\"\\x1b[2J\" (Relu)");
}

static void constants_and_inputs_may_be_outputs(void **state) {
  (void)state;
  Bytes g = {0};
  put_message(&g, 11, value_info("x", ONNX_FLOAT, 1, (const int64_t[]){2}));
  put_message(&g, 5, float_vector("w", 2, (const float[]){1, 2}));
  put_message(&g, 1, node("Relu", "relu", "w", "r"));
  const char *outputs[] = {"w", "x", "r"};
  for (int i = 0; i < 3; i++) {
    Bytes out = {0};
    put_text(&out, 1, outputs[i]);
    put_message(&g, 12, out);
  }
  Reading r = accepted(model(g, 13));
  assert_int_equal(r.graph->n_outputs, 3);
  assert_string_equal(r.graph->outputs[0]->name, "w");
  assert_int_equal(r.graph->outputs[0]->producer->op, OP_IDENTITY);
  assert_non_null(r.graph->outputs[0]->producer->in[0]->tensor);
  assert_ptr_equal(r.graph->outputs[1]->producer->in[0], r.graph->inputs[0]);
  done(&r);
}

static void an_initializer_overrides_the_input_of_its_name(void **state) {
  (void)state;
  Bytes g = chain("Relu");
  const float v[24] = {0};
  put_message(&g, 5, raw_tensor("x", ONNX_FLOAT, 3, (const int64_t[]){2, 3, 4}, v, sizeof v));
  Reading r = accepted(model(g, 13));
  assert_int_equal(r.graph->n_inputs, 0);
  done(&r);
}

/* ---- operators and their sets ---- */

static void everything_unsupported_is_listed(void **state) {
  (void)state;
  Bytes g = graph_xy(), strange = node("Strange", "s", "x", "u");
  put_text(&strange, 7, "my.domain");
  put_message(&g, 1, node("Loop", "l", "x", "a"));
  put_message(&g, 1, node("Loop", "m", "a", "b"));
  put_message(&g, 1, node("SequenceAt", "q", "b", "y"));
  put_message(&g, 1, strange);
  Reading r = read_bytes(model(g, 13), NULL);
  assert_int_equal(r.status, EXIT_MODEL);
  assert_true(says(&r, "operator \"Loop\" is not supported (2 nodes): node 0 \"l\" (Loop), node 1 \"m\" (Loop)"));
  assert_true(says(&r, "operator \"SequenceAt\" is not supported (1 node): node 2"));
  assert_true(says(&r, "operator \"my.domain.Strange\" is of an operator set that the model does not import (1 node)"));
  done(&r);
}

static void versions_out_of_range_name_the_range(void **state) {
  (void)state;
  refused(model(chain("Relu"), 6), "imports opset 6 of ai.onnx; 7 to 28 are supported");
  refused(model(chain("Relu"), 29), "imports opset 29 of ai.onnx; 7 to 28 are supported");
  refused(model(chain("Gelu"), 19), "Gelu is supported in opsets 20 to 28 of ai.onnx; the model imports 19");
  Bytes m = {0};
  put_int(&m, 1, 8);
  put_message(&m, 7, chain("Relu"));
  refused(m, "imports no operator set; ai.onnx 7 to 28 is supported");
  m = (Bytes){0};
  put_int(&m, 1, 99);
  put_message(&m, 8, opset("", 13));
  put_message(&m, 7, chain("Relu"));
  refused(m, "is of IR version 99; 3 to 14 are supported");
}

static void arity_is_checked(void **state) {
  (void)state;
  Bytes g = graph_xy();
  put_message(&g, 1, node("Add", "n", "x", "y"));
  refused(model(g, 13), "node 0 \"n\" (Add): has 1 input, but needs 2");
  g = graph_xy();
  put_message(&g, 1, node("Add", "n", "- x", "y"));
  refused(model(g, 13), "input 0 is missing");
  g = graph_xy();
  put_message(&g, 1, node("Relu", "n", "x", "y z"));
  refused(model(g, 13), "has 2 outputs, of which only the first is supported");
}

static void attributes_must_exist_once_with_their_type(void **state) {
  (void)state;
  Bytes g = graph_xy(), n = node("Softmax", "n", "x", "y");
  attr_int(&n, "axes", 1);
  put_message(&g, 1, n);
  refused(model(g, 13), "node 0 \"n\" (Softmax): attribute \"axes\" does not exist");
  g = graph_xy(), n = node("Softmax", "n", "x", "y");
  attr_int(&n, "axis", 1);
  attr_int(&n, "axis", 1);
  put_message(&g, 1, n);
  refused(model(g, 13), "attribute \"axis\" is given twice");
  g = graph_xy(), n = node("Softmax", "n", "x", "y");
  attr_text(&n, "axis", "1");
  put_message(&g, 1, n);
  refused(model(g, 13), "attribute \"axis\" is a string, but must be an int");
  g = graph_xy(), n = node("Softmax", "n", "x", "y");
  Bytes a = attribute("axis", 2);
  put_float(&a, 2, 1);
  put_message(&n, 5, a);
  put_message(&g, 1, n);
  refused(model(g, 13), "attribute \"axis\" says it is an int but holds a float");
}

/* ---- inputs ---- */

static Bytes free_input(void) {
  Bytes g = {0}, y = {0};
  put_message(&g, 11, value_info("x", ONNX_FLOAT, 2, (const int64_t[]){-1, 4}));
  put_text(&y, 1, "y");
  put_message(&g, 12, y);
  put_message(&g, 1, node("Relu", "n", "x", "y"));
  return model(g, 13);
}

typedef struct {
  const char *path;
  DimBinding dim;
  Graph *graph;
} Bound;

static void bound_body(Ctx *c, void *arg) {
  Bound *b = arg;
  b->graph = onnx_read(c, b->path, &b->dim, 1);
}

static void free_dimensions_are_named_and_bound(void **state) {
  (void)state;
  refused(free_input(), "input \"x\": dimension 0 is free (\"N\"): fix it with --dim N=N");
  char path[] = "/tmp/moecc-test-XXXXXX";
  int fd = mkstemp(path);
  Bytes m = free_input();
  FILE *f = fdopen(fd, "wb");
  assert_int_equal(fwrite(m.data, 1, m.n, f), m.n);
  fclose(f);
  free(m.data);
  static const struct {
    DimBinding dim;
    ExitStatus status;
  } cases[] = {{{"N", 3}, EXIT_DONE}, {{"M", 3}, EXIT_USAGE}, {{"N", 0}, EXIT_USAGE}};
  for (int i = 0; i < 3; i++) {
    Bound b = {.path = path, .dim = cases[i].dim};
    Ctx *c = ctx_new();
    ExitStatus s = ctx_run(c, bound_body, &b);
    assert_int_equal(s, cases[i].status);
    if (s == EXIT_DONE) assert_int_equal(b.graph->inputs[0]->shape.dim[0].n, 3);
    ctx_free(c);
  }
  remove(path);
}

static Bytes input_of(Bytes info) {
  Bytes g = {0};
  put_message(&g, 11, info);
  return model(g, 13);
}

static void inputs_must_be_tensors_of_a_sensible_size(void **state) {
  (void)state;
  Bytes sequence = {0}, type = {0};
  put_text(&sequence, 1, "x");
  put_text(&type, 4, "");
  put_message(&sequence, 2, type);
  refused(input_of(sequence), "input \"x\" is a sequence; only tensors are supported");
  refused(input_of(value_info("x", ONNX_STRING, 1, (const int64_t[]){1})), "input \"x\" has elements of string");
  refused(input_of(value_info("x", ONNX_FLOAT, 2, (const int64_t[]){INT64_MAX / 2, 9})), "its size overflows");
  refused(input_of(value_info("x", ONNX_FLOAT, 9, (const int64_t[9]){1, 1, 1, 1, 1, 1, 1, 1, 1})), "has 9 dimensions");
  Bytes dim = {0}, shape = {0}, tensor = {0}, info = {0};
  type = (Bytes){0};
  put_int(&dim, 1, -3);
  put_message(&shape, 1, dim);
  put_int(&tensor, 1, ONNX_FLOAT);
  put_message(&tensor, 2, shape);
  put_message(&type, 1, tensor);
  put_text(&info, 1, "x");
  put_message(&info, 2, type);
  refused(input_of(info), "dimension 0 is -3, which is negative");
}

/* ---- functions ---- */

static Bytes function(const char *name, const char *in, const char *out) {
  Bytes f = {0};
  put_text(&f, 1, name);
  put_words(&f, 4, in);
  put_words(&f, 5, out);
  put_message(&f, 9, opset("", 18));
  put_text(&f, 10, "local");
  return f;
}

static Bytes call(const char *name, const char *label, const char *in, const char *out) {
  Bytes n = node(name, label, in, out);
  put_text(&n, 7, "local");
  return n;
}

static Bytes with_function(Bytes graph, Bytes f) {
  Bytes m = model(graph, 18);
  put_message(&m, 8, opset("local", 1));
  put_message(&m, 25, f);
  return m;
}

/* Scaled(a, b?) = LeakyRelu(alpha = slope, default 0.5) of a, [Add b]. */
static Bytes leaky(void) {
  Bytes f = function("Leaky", "a b", "out"), n = node("LeakyRelu", "relu", "a", "t"), fallback = attribute("slope", 1);
  attr_reference(&n, "alpha", 1, "slope");
  put_float(&fallback, 2, 0.5f);
  put_message(&f, 11, fallback);
  put_message(&f, 7, n);
  put_message(&f, 7, node("Max", "max", "t b", "out"));
  return f;
}

static void functions_are_inlined_with_attributes_and_optional_inputs(void **state) {
  (void)state;
  Bytes g = graph_xy(), first = call("Leaky", "/blocks.1/one", "x x", "t"), second = call("Leaky", "", "t", "y");
  attr_float(&first, "slope", 0.25f);
  put_message(&g, 1, first);
  put_message(&g, 1, second);
  Bytes f = leaky();
  Reading r = read_bytes(with_function(g, f), NULL);
  print_messages(&r);
  assert_int_equal(r.status, EXIT_DONE);
  assert_int_equal(count_nodes(r.graph), 4);
  const Node *n = r.graph->first;
  assert_true(node_float(n, "alpha", 0) == 0.25);
  assert_string_equal(n->name, "/blocks.1/one/relu");
  assert_string_equal(n->scope, "blocks.1");
  assert_string_equal(n->next->out[0]->name, "t");
  n = n->next->next;
  assert_true(node_float(n, "alpha", 0) == 0.5);
  assert_string_equal(n->scope, "Leaky");
  assert_int_equal(n->next->n_in, 1); /* b was left out */
  assert_string_equal(n->next->out[0]->name, "y");
  done(&r);
}

static void functions_nest_and_may_return_their_input(void **state) {
  (void)state;
  Bytes g = graph_xy(), outer = function("Outer", "a", "same other"), inner = function("Inner", "p", "q");
  put_message(&inner, 7, node("Relu", "", "p", "q"));
  put_message(&outer, 7, node("Identity", "", "a", "same"));
  put_message(&outer, 7, call("Inner", "deep", "same", "other"));
  put_message(&g, 1, call("Outer", "call", "x", "t y"));
  Bytes m = with_function(g, outer);
  put_message(&m, 25, inner);
  Reading r = accepted(m);
  assert_int_equal(count_nodes(r.graph), 2);
  assert_string_equal(r.graph->outputs[0]->producer->scope, "call/deep");
  done(&r);
}

static void recursive_functions_show_the_cycle(void **state) {
  (void)state;
  Bytes g = graph_xy(), f = function("F", "a", "b"), h = function("G", "a", "b");
  put_message(&f, 7, call("G", "", "a", "b"));
  put_message(&h, 7, call("F", "", "a", "b"));
  put_message(&g, 1, call("F", "start", "x", "y"));
  Bytes m = with_function(g, f);
  put_message(&m, 25, h);
  refused(m, "the function calls itself: \"F\" -> \"G\" -> \"F\"");
}

static void calls_are_checked(void **state) {
  (void)state;
  Bytes g = graph_xy(), n = call("Leaky", "n", "x", "y");
  attr_float(&n, "steepness", 1);
  put_message(&g, 1, n);
  refused(with_function(g, leaky()), "attribute \"steepness\" does not exist: the function has none of that name");
  g = graph_xy();
  put_message(&g, 1, call("Leaky", "n", "x x x", "y"));
  refused(with_function(g, leaky()), "is called with 3 inputs and 1 outputs, but the function has 2 and 1");
  g = graph_xy();
  put_message(&g, 1, call("Empty", "n", "x", "y"));
  refused(with_function(g, function("Empty", "a", "b")), "its result \"b\" is defined nowhere in its body");
  g = graph_xy();
  Bytes m = with_function(g, leaky());
  put_message(&m, 25, leaky());
  refused(m, "function \"Leaky\" of domain \"local\" is defined twice");
}

/* A constant in a function is loaded once, however often it is called. */
static void constants_of_functions_are_shared(void **state) {
  (void)state;
  Bytes g = graph_xy(), f = function("F", "a", "b"), n = node("Constant", "", "", "w"), a = attribute("value", 4);
  put_message(&a, 5, float_vector(NULL, 4, (const float[]){1, 2, 3, 4}));
  put_message(&n, 5, a);
  put_message(&f, 7, n);
  put_message(&f, 7, node("Mul", "", "a w", "b"));
  put_message(&g, 1, call("F", "", "x", "t"));
  put_message(&g, 1, call("F", "", "t", "y"));
  Reading r = accepted(with_function(g, f));
  const Node *first = r.graph->first, *second = first->next;
  assert_ptr_not_equal(first->in[1], second->in[1]);
  assert_ptr_equal(first->in[1]->tensor, second->in[1]->tensor);
  done(&r);
}

/* Functions that call the next one twice: 2^40 nodes from a few hundred bytes. */
static void exploding_functions_are_refused(void **state) {
  (void)state;
  Bytes g = graph_xy();
  put_message(&g, 1, call("F0", "n", "x", "y"));
  Bytes m = model(g, 18);
  put_message(&m, 8, opset("local", 1));
  for (int i = 0; i < 40; i++) {
    char name[2][8];
    for (int k = 0; k < 2; k++) snprintf(name[k], sizeof name[k], "F%d", i + k);
    Bytes f = function(name[0], "a", "c");
    put_message(&f, 7, i < 39 ? call(name[1], "", "a", "b") : node("Relu", "", "a", "b"));
    put_message(&f, 7, i < 39 ? call(name[1], "", "b", "c") : node("Relu", "", "b", "c"));
    put_message(&m, 25, f);
  }
  refused(m, "nodes, functions inlined");
}

/* ---- If ---- */

static Bytes if_model(bool constant) {
  Bytes g = graph_xy(), n = node("If", "if", constant ? "cond" : "x", "y");
  for (int i = 0; i < 2; i++) {
    Bytes branch = {0}, a = attribute(i ? "else_branch" : "then_branch", 5), out = {0};
    put_message(&branch, 1, node(i ? "Abs" : "Relu", "inside", "x", "r"));
    put_text(&out, 1, "r");
    put_message(&branch, 12, out);
    put_message(&a, 6, branch);
    put_message(&n, 5, a);
  }
  if (constant) put_message(&g, 5, raw_tensor("cond", ONNX_BOOL, 0, NULL, "\0", 1));
  put_message(&g, 1, n);
  return model(g, 13);
}

static void constant_branches_are_taken(void **state) {
  (void)state;
  Reading r = accepted(if_model(true));
  assert_int_equal(count_nodes(r.graph), 1);
  assert_int_equal(r.graph->outputs[0]->producer->op, OP_ABS);
  assert_string_equal(r.graph->outputs[0]->name, "y");
  done(&r);
  refused(if_model(false),
          "operator \"If\" is not supported unless its condition is a constant (1 node): node 0 \"if\"");
}

/* ---- layers ---- */

static void layers_come_from_paths_metadata_or_weights(void **state) {
  (void)state;
  Bytes g = graph_xy(), meta = node("Abs", "node_abs", "a", "b"), entry = {0};
  put_message(&g, 1, node("Relu", "/blocks.3/moe/fc1/Relu", "x", "a"));
  put_text(&entry, 1, "pkg.torch.onnx.name_scopes");
  put_text(&entry, 2, "['', 'model', 'model.layers.0', 'model.layers.0.mlp', 'abs_1']");
  put_message(&meta, 9, entry);
  put_message(&g, 1, meta);
  put_message(&g, 5, float_vector("enc.blocks.2.fc.bias", 4, (const float[4]){0}));
  put_message(&g, 5, float_vector("enc.blocks.2.out.bias", 4, (const float[4]){0}));
  put_message(&g, 1, node("Add", "node_a", "b enc.blocks.2.fc.bias", "c"));
  put_message(&g, 1, node("Relu", "node_r", "c", "d"));
  put_message(&g, 1, node("Add", "node_b", "d enc.blocks.2.out.bias", "y"));
  Reading r = accepted(model(g, 13));
  const char *wanted[] = {"blocks.3/moe/fc1", "model/layers.0/mlp", "enc/blocks.2/fc", "enc/blocks.2",
                          "enc/blocks.2/out"};
  const Node *n = r.graph->first;
  for (int i = 0; i < 5; i++, n = n->next) assert_string_equal(n->scope, wanted[i]);
  done(&r);
}

/* ---- memory ---- */

static void every_allocation_may_fail(void **state) {
  (void)state;
  Bytes g = graph_xy();
  put_message(&g, 1, call("Leaky", "/a/b", "x x", "y"));
  Bytes f = leaky(), m = with_function(g, f);
  size_t failures = 0;
  for (size_t n = 1;; n++) {
    Reading r = {.ctx = ctx_new(), .bytes = m};
    ctx_fail_allocation(r.ctx, n);
    r.status = ctx_run(r.ctx, reading_body, &r);
    assert_true(r.status == EXIT_DONE || (r.status == EXIT_MACHINE && says(&r, "out of memory")));
    ctx_free(r.ctx);
    if (r.status == EXIT_DONE) break;
    failures++;
  }
  assert_true(failures > 50);
  free(m.data);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names_must_be_defined_once_and_before_use),
      cmocka_unit_test(outputs_must_be_defined),
      cmocka_unit_test(control_characters_in_names_are_escaped),
      cmocka_unit_test(constants_and_inputs_may_be_outputs),
      cmocka_unit_test(an_initializer_overrides_the_input_of_its_name),
      cmocka_unit_test(everything_unsupported_is_listed),
      cmocka_unit_test(versions_out_of_range_name_the_range),
      cmocka_unit_test(arity_is_checked),
      cmocka_unit_test(attributes_must_exist_once_with_their_type),
      cmocka_unit_test(free_dimensions_are_named_and_bound),
      cmocka_unit_test(inputs_must_be_tensors_of_a_sensible_size),
      cmocka_unit_test(functions_are_inlined_with_attributes_and_optional_inputs),
      cmocka_unit_test(functions_nest_and_may_return_their_input),
      cmocka_unit_test(recursive_functions_show_the_cycle),
      cmocka_unit_test(calls_are_checked),
      cmocka_unit_test(constants_of_functions_are_shared),
      cmocka_unit_test(exploding_functions_are_refused),
      cmocka_unit_test(constant_branches_are_taken),
      cmocka_unit_test(layers_come_from_paths_metadata_or_weights),
      cmocka_unit_test(every_allocation_may_fail),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
