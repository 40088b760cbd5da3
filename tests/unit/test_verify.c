/* What moecc verify rests on: comparing tensors, finding the first layer that differs, routing margins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "io/json.h"
#include "cli/verify.h"
#include "engine/process.h"
#include "io/io.h"

#include <math.h>
#include <string.h>

/* ---- helpers ---- */

static Ctx *c;

static int set_up(void **state) {
  (void)state;
  c = ctx_new();
  return c ? 0 : -1;
}

static int tear_down(void **state) {
  (void)state;
  ctx_free(c);
  return 0;
}

static Tensor *floats(int64_t n, const float *x) {
  Tensor *t = tensor_new(c, DT_F32, 1, &n, NULL);
  memcpy(tensor_writable(t), x, (size_t)n * sizeof *x);
  return t;
}

#define FLOATS(...) floats((int64_t)(sizeof((float[]){__VA_ARGS__}) / sizeof(float)), (float[]){__VA_ARGS__})

static Tensor *longs(int64_t a, int64_t b) {
  Tensor *t = tensor_new(c, DT_I64, 1, (int64_t[]){2}, NULL);
  memcpy(tensor_writable(t), (int64_t[]){a, b}, 16);
  return t;
}

static const Tolerance usual = {0};

/* ---- comparing ---- */

static void test_equal(void **state) {
  (void)state;
  Comparison r = compare_tensors(&usual, FLOATS(1, -2, 0), FLOATS(1, -2, 0));
  assert_true(r.ok);
  assert_true(r.error == 0 && r.largest == 2 && r.relative == 0);
}

static void test_relative_to_the_largest(void **state) {
  (void)state;
  assert_true(compare_tensors(&usual, FLOATS(100, 0.0009f), FLOATS(100, 0)).ok);
  Comparison r = compare_tensors(&usual, FLOATS(100, 0.002f), FLOATS(100, 0));
  assert_false(r.ok);
  assert_int_equal(r.at, 1);
  assert_true(fabs(r.relative - 2e-5) < 1e-9);
  assert_false(compare_tensors(&usual, FLOATS(1e-30f), FLOATS(0)).ok);
}

static void test_given_tolerance(void **state) {
  (void)state;
  const Tolerance given = {.given = true, .rtol = 0.1, .atol = 0.01};
  assert_true(compare_tensors(&given, FLOATS(1.1f, 0.009f), FLOATS(1, 0)).ok);
  assert_false(compare_tensors(&given, FLOATS(100, 0.02f), FLOATS(100, 0)).ok); /* each element for itself */
}

static void test_not_numbers(void **state) {
  (void)state;
  const Tolerance wide = {.given = true, .rtol = 1e9, .atol = 1e9};
  const Tolerance *both[] = {&usual, &wide};
  for (int i = 0; i < 2; i++) {
    assert_true(compare_tensors(both[i], FLOATS(NAN, INFINITY, -INFINITY), FLOATS(NAN, INFINITY, -INFINITY)).ok);
    assert_false(compare_tensors(both[i], FLOATS(NAN, 1), FLOATS(0, 1)).ok);
    assert_false(compare_tensors(both[i], FLOATS(0, 1), FLOATS(NAN, 1)).ok);
    assert_false(
        compare_tensors(both[i], FLOATS(NAN, 1, 1), FLOATS(0, 1, 1 + 1e-6f)).ok); /* a later error hides nothing */
    assert_false(compare_tensors(both[i], FLOATS(INFINITY, 1), FLOATS(0, 1)).ok);
    assert_false(compare_tensors(both[i], FLOATS(0, 1), FLOATS(INFINITY, 1)).ok);
    assert_false(compare_tensors(both[i], FLOATS(-INFINITY), FLOATS(INFINITY)).ok);
  }
}

static void test_integers(void **state) {
  (void)state;
  assert_true(compare_tensors(&usual, longs(1, INT64_MAX), longs(1, INT64_MAX)).ok);
  Comparison r = compare_tensors(&usual, longs(1, INT64_MAX - 1), longs(1, INT64_MAX));
  assert_false(r.ok);
  assert_true(r.error > 0 && r.at == 1);
}

static void test_other_shapes(void **state) {
  (void)state;
  Comparison r = compare_tensors(&usual, FLOATS(1, 2), FLOATS(1));
  assert_false(r.ok || r.same_shape);
  assert_false(compare_tensors(&usual, FLOATS(1, 2), longs(1, 2)).same_shape);
}

static void test_half_precision(void **state) {
  (void)state;
  Tensor *a = tensor_new(c, DT_F16, 1, (int64_t[]){2}, NULL), *b = tensor_new(c, DT_F16, 1, (int64_t[]){2}, NULL);
  const uint16_t one = float_to_half(1), next = (uint16_t)(one + 1), third = (uint16_t)(one + 3);
  memcpy(tensor_writable(a), (uint16_t[]){one, one}, 4);
  memcpy(tensor_writable(b), (uint16_t[]){one, next}, 4);
  assert_true(compare_tensors(&usual, a, b).ok);
  memcpy(tensor_writable(b), (uint16_t[]){one, third}, 4);
  assert_false(compare_tensors(&usual, a, b).ok);
}

/* ---- layers: two graphs, and a folder of what each has computed ---- */

/* x -> Relu -> a -> Neg -> b -> Exp -> y; `extra`: a value before them, so that numbers differ. */
static Graph *chain(bool extra) {
  Graph *g = graph_new(c, "chain");
  Shape s = shape_of(1, (int64_t[]){2});
  Value *x = graph_value(g, "x", DT_F32, s);
  graph_add_input(g, x);
  if (extra) (void)graph_value(g, "stranger", DT_F32, s);
  static const Op ops[] = {OP_RELU, OP_NEG, OP_EXP};
  static const char *const names[] = {"a", "b", "y"};
  for (int i = 0; i < 3; i++) {
    Value *out = graph_value(g, names[i], DT_F32, s);
    graph_node(g, NULL, ops[i], names[i], 1, &x, 1, &out);
    x = out;
  }
  graph_add_output(g, x);
  static const char *outputs[] = {"y"};
  static Task task = {.name = "t", .outputs = outputs, .n_outputs = 1};
  g->tasks = &task;
  g->n_tasks = 1;
  graph_mark_tasks(g);
  return g;
}

static Runnable runnable(Graph *g) {
  static const char *files[] = {"a", "b", "y"};
  Runnable r = {.ctx = c, .graph = g, .output = ctx_array(c, 3, sizeof(Value *)), .n_outputs = 3, .output_file = files};
  for (int i = 0; i < 3; i++) r.output[i] = graph_find(g, files[i]);
  return r;
}

static const char *folder_with(float a, float b, float y) {
  const char *folder = temporary_folder(c);
  const float first[] = {a, b, y};
  static const char *const names[] = {"a", "b", "y"};
  for (int i = 0; i < 3; i++) npy_write(c, ctx_format(c, "%s/%s.npy", folder, names[i]), FLOATS(first[i], 1));
  return folder;
}

static void in_ctx(Ctx *ctx, void *body) {
  (void)ctx;
  (*(void (**)(void))body)();
}

static void run(void (*body)(void)) { assert_int_equal(ctx_run(c, in_ctx, &body), EXIT_DONE); }

static LayerResults compare_folders(const char *folder, const char *plain_folder) {
  Runnable optimised = runnable(chain(false)), plain = runnable(chain(false));
  LayerResults all = {.first = -1};
  static const char *const names[] = {"a", "b", "y"};
  layers_compare(&all, &optimised, &plain, names, 2, &usual, folder, plain_folder);
  layers_compare(&all, &optimised, &plain, names + 2, 1, &usual, folder, plain_folder);
  return all;
}

static void layers_agree(void) {
  LayerResults all = compare_folders(folder_with(1, 2, 3), folder_with(1, 2, 3.000001f));
  assert_int_equal(all.n, 3);
  assert_int_equal(all.first, -1);
}

static void first_layer_is_named(void) {
  LayerResults all = compare_folders(folder_with(1, 2, 3), folder_with(1, 2.1f, 4));
  assert_int_equal(all.first, 1);
  assert_string_equal(all.layer[all.first].value->name, "b");
  assert_true(all.layer[0].r.ok && !all.layer[1].r.ok && !all.layer[2].r.ok);
  all = compare_folders(folder_with(1, 2, NAN), folder_with(1, 2, 3));
  assert_int_equal(all.first, 2);
}

static void same_numbers_are_common(void) {
  const char **names = NULL;
  size_t n = 0, cap = 0;
  layers_common(c, chain(false), chain(false), &names, &n, &cap);
  assert_int_equal(n, 3);
  assert_string_equal(names[0], "a");
  assert_string_equal(names[2], "y");
}

static void other_numbers_are_not(void) {
  const char **names = NULL;
  size_t n = 0, cap = 0;
  layers_common(c, chain(false), chain(true), &names, &n, &cap);
  assert_int_equal(n, 1); /* but an output is one by its name */
  assert_string_equal(names[0], "y");
}

static void test_layers_agree(void **state) { (void)state, run(layers_agree); }
static void test_first_layer_is_named(void **state) { (void)state, run(first_layer_is_named); }
static void test_same_numbers_are_common(void **state) { (void)state, run(same_numbers_are_common); }
static void test_other_numbers_are_not(void **state) { (void)state, run(other_numbers_are_not); }

/* ---- routing margins ---- */

static Tensor *scores(int64_t tokens, int64_t experts, const float *x) {
  Tensor *t = tensor_new(c, DT_F32, 2, (int64_t[]){tokens, experts}, NULL);
  memcpy(tensor_writable(t), x, (size_t)(tokens * experts) * sizeof *x);
  return t;
}

static void test_margin_of_scores(void **state) {
  (void)state;
  const float x[] = {0.1f, 0.5f, 0.3f, 0.7f, 0.65f, 0.6f, 0.0f, 0.9f};
  int64_t token = -1;
  assert_true(fabs(scores_margin(scores(2, 4, x), 2, false, &token) - 0.05) < 1e-6); /* 0.65 - 0.6 */
  assert_int_equal(token, 1);
  assert_true(fabs(scores_margin(scores(2, 4, x), 1, false, &token) - 0.2) < 1e-6); /* 0.7 - 0.5 */
  assert_int_equal(token, 0);
  assert_true(isinf(scores_margin(scores(2, 4, x), 4, false, &token)));
}

static void test_margin_of_probabilities(void **state) {
  (void)state;
  const float x[] = {1000, 1001, 1003};
  int64_t token = -1;
  double sum = exp(-3) + exp(-2) + 1;
  assert_true(fabs(scores_margin(scores(1, 3, x), 1, true, &token) - (1 - exp(-2)) / sum) < 1e-12);
  assert_true(fabs(scores_margin(scores(1, 3, x), 2, true, &token) - (exp(-2) - exp(-3)) / sum) < 1e-12);
}

static void test_margin_with_nan(void **state) {
  (void)state;
  const float x[] = {NAN, 0, 0}; /* a NaN is last: between the two others there is none */
  int64_t token = -1;
  assert_true(scores_margin(scores(1, 3, x), 1, true, &token) == 0);
  assert_true(fabs(scores_margin(scores(1, 3, x), 2, true, &token) - 0.5) < 1e-12);
}

/* ---- JSON ---- */

static void test_json(void **state) {
  (void)state;
  assert_string_equal(json_text(c, "a\"\\\n\x01"), "\"a\\\"\\\\\\u000a\\u0001\"");
  assert_string_equal(json_text(c, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"), "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"");
  assert_string_equal(json_text(c, "\xff.\xc3.\xc0\x80.\xed\xa0\x80"),
                      "\"\\ufffd.\\ufffd.\\ufffd\\ufffd.\\ufffd\\ufffd\\ufffd\"");
  assert_string_equal(json_number(c, 0.5), "0.5");
  assert_string_equal(json_number(c, NAN), "null");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {TEST(test_equal),
                                     TEST(test_relative_to_the_largest),
                                     TEST(test_given_tolerance),
                                     TEST(test_not_numbers),
                                     TEST(test_integers),
                                     TEST(test_other_shapes),
                                     TEST(test_half_precision),
                                     TEST(test_layers_agree),
                                     TEST(test_first_layer_is_named),
                                     TEST(test_same_numbers_are_common),
                                     TEST(test_other_numbers_are_not),
                                     TEST(test_margin_of_scores),
                                     TEST(test_margin_of_probabilities),
                                     TEST(test_margin_with_nan),
                                     TEST(test_json)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
