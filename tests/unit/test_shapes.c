/* Shape rules and the folding walk, one line per case: operator, operands, attributes, what comes out.
 *
 * Operands: `f32[2,3]` a run-time value (`n<=4` for a symbolic dimension), `{1,-1}` a constant int64 vector, `=2` a
 * constant int64 scalar, `~0.5,2` a constant float vector, `-` an absent operand. Attributes: `axis=1`, `pads=[1,1]`,
 * `alpha:0.5`, `mode'linear'`. Result: the outputs' types and shapes, or `!` and a part of the error message. Folding
 * itself is replaced by a double that makes zeros, so that only the walk is under test.
 */
#include "compiler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static int folds;
static bool may_fold;

Tensor **fold_node(Node *n) {
  folds++;
  if (!may_fold) return NULL;
  Ctx *c = n->graph->ctx;
  Tensor **t = ctx_array(c, (size_t)n->n_out, sizeof *t);
  for (int i = 0; i < n->n_out; i++) {
    int64_t dims[MAX_RANK];
    for (int d = 0; d < n->out[i]->shape.rank; d++) dims[d] = n->out[i]->shape.dim[d].n;
    t[i] = tensor_new(c, n->out[i]->dtype, n->out[i]->shape.rank, dims, NULL);
  }
  return t;
}

typedef struct {
  const char *op, *in, *attrs, *result;
} Case;

/* ---- reading a case ---- */

static DType read_type(const char **s) {
  for (int t = DT_F32; t < DT_COUNT; t++) {
    size_t len = strlen(dtype_short((DType)t));
    if (strncmp(*s, dtype_short((DType)t), len) == 0 && (*s)[len] == '[') return *s += len + 1, (DType)t;
  }
  fail_msg("no type in %s", *s);
  return DT_NONE;
}

static Shape read_dims(Graph *g, const char **s) {
  Shape shape = {.rank = 0};
  while (**s != ']') {
    Dim *d = &shape.dim[shape.rank++];
    if (**s >= 'a' && **s <= 'z') {
      char name[2] = {**s, 0};
      d->sym = graph_symbol(g, name);
      *s += 3;
    }
    d->n = strtoll(*s, (char **)(uintptr_t)s, 10);
    if (**s == ',') ++*s;
  }
  ++*s;
  return shape;
}

static int read_ints(const char **s, int64_t *out) {
  int n = 0;
  for (++*s; **s != '}' && **s != ']';) {
    out[n++] = strtoll(*s, (char **)(uintptr_t)s, 10);
    if (**s == ',') ++*s;
  }
  ++*s;
  return n;
}

static Value *read_floats(Graph *g, const char **s) {
  float v[16];
  int64_t n = 0;
  do {
    ++*s;
    v[n++] = strtof(*s, (char **)(uintptr_t)s);
  } while (**s == ',');
  Tensor *t = tensor_new(g->ctx, DT_F32, 1, &n, NULL);
  memcpy(tensor_writable(t), v, t->bytes);
  return graph_constant(g, NULL, t);
}

static Value *read_operand(Graph *g, const char **s) {
  int64_t v[16];
  switch (**s) {
  case '-': ++*s; return NULL;
  case '~': return read_floats(g, s);
  case '=':
    ++*s;
    v[0] = strtoll(*s, (char **)(uintptr_t)s, 10);
    return graph_constant_ints(g, NULL, 0, 1, v);
  case '{': {
    int n = read_ints(s, v);
    return graph_constant_ints(g, NULL, 1, n, v);
  }
  default: {
    DType t = read_type(s);
    Value *x = graph_value(g, "x", t, read_dims(g, s));
    graph_add_input(g, x);
    return x;
  }
  }
}

static void read_attrs(Node *n, const char *s) {
  while (*s) {
    char name[40] = "", text[40] = "";
    int64_t v[16];
    size_t len = strcspn(s, "=:'");
    memcpy(name, s, len);
    s += len;
    if (*s == ':')
      node_set_float(n, name, strtod(s + 1, (char **)(uintptr_t)&s));
    else if (*s == '\'') {
      len = strcspn(s + 1, "'");
      memcpy(text, s + 1, len);
      node_set_string(n, name, text);
      s += len + 2;
    } else if (s[1] == '[') {
      ++s;
      int count = read_ints(&s, v);
      node_set_ints(n, name, (size_t)count, v);
    } else
      node_set_int(n, name, strtoll(s + 1, (char **)(uintptr_t)&s, 10));
    s += *s == ' ';
  }
}

static int count_words(const char *s) {
  int n = *s != 0;
  for (; *s; s++) n += *s == ' ';
  return n;
}

static Op find_op(const char *name) {
  Op op = op_find("moecc", name);
  if (op == OP_NONE) op = op_find("", name);
  return op != OP_NONE ? op : op_find("com.microsoft", name);
}

static Node *build(Ctx *c, const Case *t) {
  Graph *g = graph_new(c, "case");
  Value *in[16];
  int n_in = 0;
  for (const char *s = t->in; *s; s += *s == ' ') in[n_in++] = read_operand(g, &s);
  int n_out = t->result[0] == '!' ? 1 : count_words(t->result);
  Node *n = graph_node(g, NULL, find_op(t->op), t->op, n_in, in, n_out, NULL);
  read_attrs(n, t->attrs);
  for (int i = 0; i < n_out; i++) graph_add_output(g, n->out[i]);
  return n;
}

static void run_case(Ctx *c, void *arg) {
  const Case *t = arg;
  Node *n = build(c, t);
  Graph *g = n->graph;
  graph_verify(g, "building");
  infer_shapes(g);
  graph_verify(g, "infer");
  Text found = {.ctx = c};
  for (size_t i = 0; i < g->n_outputs; i++)
    text_add(&found, "%s%s", i ? " " : "", shape_text(c, g->outputs[i]->dtype, &g->outputs[i]->shape));
  if (strcmp(found.text, t->result) != 0)
    fail_msg("%s %s %s: %s, not %s", t->op, t->in, t->attrs, found.text, t->result);
}

static void check(const Case *t) {
  Ctx *c = ctx_new();
  ExitStatus status = ctx_run(c, run_case, (void *)(uintptr_t)t);
  const char *message = ctx_message_count(c) ? ctx_message(c, 0) : "";
  if (t->result[0] == '!') {
    if (status != EXIT_MODEL || !strstr(message, t->result + 1))
      fail_msg("%s %s %s: wanted an error with \"%s\", got %d \"%s\"", t->op, t->in, t->attrs, t->result + 1,
               (int)status, message);
  } else if (status != EXIT_DONE) {
    fail_msg("%s %s %s: %s", t->op, t->in, t->attrs, message);
  }
  ctx_free(c);
}

static void check_all(const Case *t, size_t count) {
  for (size_t i = 0; i < count; i++) check(&t[i]);
}
#define CHECK(...)                                                                                                     \
  do {                                                                                                                 \
    static const Case cases[] = {__VA_ARGS__};                                                                         \
    check_all(cases, sizeof cases / sizeof cases[0]);                                                                  \
  } while (0)

/* ---- cases ---- */

static void elementwise(void **state) {
  (void)state;
  CHECK({"Add", "f32[2,3,4] f32[3,1]", "", "f32[2,3,4]"}, {"Add", "i64[] i64[5]", "", "i64[5]"},
        {"Add", "f32[2,3] f32[4]", "", "!do not broadcast"}, {"Add", "f32[2] f64[2]", "", "!one element type"},
        {"Max", "f32[2,1] f32[3] f32[1]", "", "f32[2,3]"}, {"Less", "f32[2,3] f32[3]", "", "bool[2,3]"},
        {"And", "bool[4] bool[]", "", "bool[4]"}, {"And", "f32[4] bool[4]", "", "!must be bool"},
        {"Where", "bool[2,1] f32[3] f32[]", "", "f32[2,3]"},
        {"Where", "bool[2] f32[2] i64[2]", "", "!one element type"}, {"Pow", "f32[3] i64[]", "", "f32[3]"},
        {"Pow", "i32[3] f32[]", "", "!Cast the base"}, {"PRelu", "f32[1,4,5,5] f32[4,1,1]", "", "f32[1,4,5,5]"},
        {"PRelu", "f32[4] f32[2,4]", "", "!does not broadcast"}, {"Clip", "f32[3] f32[] -", "", "f32[3]"},
        {"Clip", "f32[3] f32[2]", "", "!one number"}, {"Cast", "f32[3]", "to=7", "i64[3]"},
        {"Cast", "f32[3]", "to=8", "!not supported"}, {"CastLike", "f32[3] i64[1]", "", "i64[3]"},
        {"Not", "bool[2]", "", "bool[2]"}, {"Erf", "f32[2,n<=7]", "", "f32[2,n1<=7]"},
        {"Erf", "i64[2]", "", "!not supported for elements of type int64"},
        {"Add", "f32[n<=7,4] f32[4]", "", "f32[n1<=7,4]"}, {"Add", "f32[n<=7,4] f32[1,4]", "", "f32[n1<=7,4]"},
        {"Add", "f32[n<=7,4] f32[5,4]", "", "f32[5,4]"}, {"Add", "f32[n<=7,4] f32[9,4]", "", "!do not broadcast"});
}

static void products(void **state) {
  (void)state;
  CHECK({"MatMul", "f32[5,2,3] f32[3,4]", "", "f32[5,2,4]"}, {"MatMul", "f32[3] f32[3,4]", "", "f32[4]"},
        {"MatMul", "f32[2,3] f32[3]", "", "f32[2]"}, {"MatMul", "f32[3] f32[3]", "", "f32[]"},
        {"MatMul", "f32[2,1,5,3] f32[7,3,4]", "", "f32[2,7,5,4]"},
        {"MatMul", "f32[2,3] f32[4,2]", "", "!inner dimensions"},
        {"MatMul", "f32[n<=9,3] f32[3,4]", "", "f32[n1<=9,4]"}, {"MatMul", "f32[] f32[3]", "", "!must have 1 to 8"},
        {"Gemm", "f32[3,2] f32[4,3] f32[4]", "transA=1 transB=1", "f32[2,4]"},
        {"Gemm", "f32[n<=34,48] f32[48,48] f32[48]", "transB=1", "f32[n1<=34,48]"},
        {"Gemm", "f32[2,3] f32[3,4] f32[2,1]", "", "f32[2,4]"}, {"Gemm", "f32[2,3] f32[3,4] f32[3]", "", "!broadcast"},
        {"Gemm", "f32[1,3] f32[3,4] f32[2,4]", "", "!does not broadcast to the product"},
        {"Attention", "f32[1,3,17,16] f32[1,3,9,16] f32[1,3,9,8] f32[9]", "scale:0.25", "f32[1,3,17,8]"},
        {"Attention", "f32[1,3,17,16] f32[1,3,9,16] f32[1,3,8,8]", "scale:0.25", "!do not fit"},
        {"Moe", "f32[17,48] f32[17,4] f32[4,96,48] f32[4,96] f32[4,48,96] f32[4,48]", "k=2", "f32[17,48]"},
        {"Moe", "f32[17,48] f32[17,4] f32[4,96,48] - f32[4,48,96]", "k=5", "!k is 5"},
        {"Moe", "f32[17,48] f32[17,4] f32[4,96,48] f32[4,48] f32[4,48,96]", "k=1", "!fc1's bias"},
        {"MoE", "f32[2,17,48] f32[34,4] f32[4,96,48] f32[4,96] f32[4,48,96] f32[4,48]", "k=2", "f32[2,17,48]"},
        {"MoE", "f32[17,48] f32[17,4] f32[4,96,48] - f32[4,48,48]", "k=2 activation_type'swiglu' swiglu_fusion=1",
         "f32[17,48]"},
        {"MoE", "f32[17,48] f32[16,4] f32[4,96,48] - f32[4,48,96]", "k=2", "!differ in number"},
        {"QMoE", "f32[17,48] f32[17,4] u8[4,96,24] f32[4,96] - u8[4,48,48] f32[4,48]", "k=2", "f32[17,48]"});
}

static void windows(void **state) {
  (void)state;
  CHECK({"Conv", "f32[1,3,10,10] f32[8,3,3,3] f32[8]", "strides=[2,2] pads=[1,1,1,1]", "f32[1,8,5,5]"},
        {"Conv", "f32[1,4,9,9] f32[8,2,3,3]", "group=2 dilations=[2,2]", "f32[1,8,5,5]"},
        {"Conv", "f32[1,1,5,6] f32[1,1,2,3]", "auto_pad'SAME_UPPER' strides=[2,2]", "f32[1,1,3,3]"},
        {"Conv", "f32[1,1,5,5] f32[1,1,3,3]", "auto_pad'VALID'", "f32[1,1,3,3]"},
        {"Conv", "f32[1,3,5,5] f32[8,4,3,3]", "", "!channels"},
        {"Conv", "f32[1,3,2,5] f32[8,3,3,3]", "", "!does not fit"},
        {"Conv", "f32[1,3,5,5] f32[8,3,3,3]", "strides=[0,1]", "!strides is 0"},
        {"Conv", "f32[1,3,5,5] f32[8,3,3,3]", "pads=[1,1]", "!has 2 numbers and needs 4"},
        {"Conv", "f32[1,3,5,5] f32[8,3,3,3] f32[7]", "", "!bias"},
        {"Conv", "f32[1,3,16] f32[8,3,4]", "strides=[4]", "f32[1,8,4]"},
        {"ResizeConv", "f32[1,3,5,5] f32[8,3,3,3]", "resized=[10,9] pads=[1,1,1,1]", "f32[1,8,10,9]"},
        {"ResizeConv", "f32[1,3,5,5] f32[8,3,3,3] f32[8]", "resized=[10,9] strides=[2,3]", "f32[1,8,4,3]"},
        {"ResizeConv", "f32[1,3,5,5] f32[8,3,3,3]", "pads=[1,1,1,1]", "!resized is 0"},
        {"ResizeConv", "f32[1,3,5,5] f32[8,3,3,3]", "resized=[2,9]", "!does not fit"},
        {"ResizeConv", "f32[1,4,5,5] f32[8,3,3,3]", "resized=[10,9]", "!channels"},
        {"ResizeConv", "f32[1,3,5] f32[8,3,3]", "resized=[10,9]", "!must have 4 dimensions"},
        {"ConvTranspose", "f32[1,1,3,3] f32[1,2,3,3]", "strides=[3,2]", "f32[1,2,9,7]"},
        {"ConvTranspose", "f32[1,1,3,3] f32[1,2,3,3]", "strides=[3,2] output_padding=[1,1]", "f32[1,2,10,8]"},
        {"ConvTranspose", "f32[1,1,3,3] f32[1,2,3,3]", "strides=[3,2] output_shape=[10,8]", "f32[1,2,10,8]"},
        {"ConvTranspose", "f32[1,1,3,3] f32[1,2,3,3]", "strides=[2,2] auto_pad'SAME_UPPER'", "f32[1,2,6,6]"},
        {"ConvTranspose", "f32[1,4,3,3] f32[4,2,3,3]", "group=2 pads=[1,1,1,1]", "f32[1,4,3,3]"},
        {"MaxPool", "f32[1,3,7,7]", "kernel_shape=[3,3] strides=[2,2] pads=[1,1,1,1]", "f32[1,3,4,4]"},
        {"MaxPool", "f32[1,1,4,4]", "kernel_shape=[3,3] strides=[2,2] ceil_mode=1", "f32[1,1,2,2]"},
        {"MaxPool", "f32[1,1,2,2]", "kernel_shape=[1,1] strides=[2,2] ceil_mode=1", "f32[1,1,1,1]"},
        {"AveragePool", "f32[1,1,8,8]", "kernel_shape=[2,2] dilations=[3,3]", "f32[1,1,5,5]"},
        {"AveragePool", "f32[1,1,8,8]", "kernel_shape=[2,2] pads=[2,0,0,0]", "!holds a whole window"},
        {"GlobalAveragePool", "f32[2,3,4,5]", "", "f32[2,3,1,1]"},
        {"Resize", "f32[1,1,2,4] - ~1,1,0.6,0.6", "", "f32[1,1,1,2]"},
        {"Resize", "f32[1,1,2,4] - - {1,1,5,9}", "", "f32[1,1,5,9]"},
        {"Resize", "f32[1,1,2,4] - - {7,8}", "axes=[2,3] keep_aspect_ratio_policy'not_larger'", "f32[1,1,4,8]"},
        {"Resize", "f32[1,1,2,4] - - {7,8}", "axes=[2,3] keep_aspect_ratio_policy'not_smaller'", "f32[1,1,7,14]"},
        {"Resize", "f32[1,1,2,4] - ~1,1,-2,2", "", "!is not a size"}, {"Resize", "f32[1,2] -", "", "!exactly one"},
        {"Resize", "f32[1,2] - f32[2]", "", "!shapes must be known before"},
        {"Resize", "f32[1,2] - ~2", "", "!needs 2"});
}

static void axes(void **state) {
  (void)state;
  CHECK({"Softmax", "f32[2,3]", "axis=1", "f32[2,3]"}, {"Softmax", "f32[2,3]", "axis=2", "!axis 2 is out of range"},
        {"LayerNormalization", "f32[2,17,48] f32[48] f32[48]", "", "f32[2,17,48]"},
        {"LayerNormalization", "f32[2,17,48] f32[47]", "", "!broadcast"},
        {"RMSNormalization", "f32[2,17,48] f32[48]", "", "f32[2,17,48]"},
        {"BatchNormalization", "f32[1,3,4,4] f32[3] f32[3] f32[3] f32[3]", "", "f32[1,3,4,4]"},
        {"BatchNormalization", "f32[1,3,4,4] f32[3] f32[3] f32[3] f32[4]", "", "!one number per channel"},
        {"GroupNormalization", "f32[1,6,4,4] f32[6] f32[6]", "num_groups=3", "f32[1,6,4,4]"},
        {"GroupNormalization", "f32[1,6,4,4] f32[6] f32[6]", "num_groups=4", "!do not divide"},
        {"ReduceMean", "f32[2,3,4] {-1}", "", "f32[2,3,1]"}, {"ReduceMean", "f32[2,3,4] {0,2}", "keepdims=0", "f32[3]"},
        {"ReduceSum", "f32[2,3,4]", "keepdims=0", "f32[]"},
        {"ReduceSum", "f32[2,3]", "noop_with_empty_axes=1", "f32[2,3]"},
        {"ReduceSum", "f32[2,3] {1,-1}", "", "!given twice"}, {"ReduceSum", "f32[2,3] i64[1]", "", "!not constant"},
        {"ArgMax", "f32[2,3]", "axis=-1 keepdims=0", "i64[2]"}, {"CumSum", "f32[2,3] =1", "", "f32[2,3]"},
        {"TopK", "f32[17,4] {2}", "", "f32[17,2] i64[17,2]"}, {"TopK", "f32[17,4] {5}", "", "!k is 5"},
        {"TopK", "f32[17,4] i64[1]", "", "!not constant"});
}

static void layout(void **state) {
  (void)state;
  CHECK({"Reshape", "f32[2,3,4] {0,-1}", "", "f32[2,12]"}, {"Reshape", "f32[2,3] {3,2}", "", "f32[3,2]"},
        {"Reshape", "f32[2,3] {4,2}", "", "!cannot become"}, {"Reshape", "f32[2,3] {-1,-1}", "", "!both -1"},
        {"Reshape", "f32[2,3] {-1,4}", "", "!cannot become"}, {"Reshape", "f32[0,3] {0,3}", "allowzero=1", "f32[0,3]"},
        {"Reshape", "f32[2,3] {-2,3}", "", "!cannot be -2"}, {"Reshape", "f32[n<=6,4] {-1,2,2}", "", "f32[n1<=6,2,2]"},
        {"Reshape", "f32[n<=6,1] {-1}", "", "f32[n1<=6]"}, {"Reshape", "f32[n<=6,4] {-1}", "", "f32[n2<=24]"},
        {"Reshape", "f32[2] {1,1,1,1,1,1,1,1,2}", "", "!at most 8"},
        {"Reshape", "f32[4294967296,4294967296] {-1}", "", "!does not fit 63 bits"},
        {"Flatten", "f32[2,3,4]", "axis=2", "f32[6,4]"}, {"Flatten", "f32[2,3,4]", "axis=-3", "f32[1,24]"},
        {"Flatten", "f32[2,3,4]", "axis=3", "f32[24,1]"}, {"Squeeze", "f32[1,3,1]", "", "f32[3]"},
        {"Squeeze", "f32[1,3,1] {-1}", "", "f32[1,3]"}, {"Squeeze", "f32[1,3] {1}", "", "!is not 1"},
        {"Unsqueeze", "f32[3] {0,-1}", "", "f32[1,3,1]"}, {"Unsqueeze", "f32[3] {3}", "", "!out of range"},
        {"Transpose", "f32[2,3,4]", "", "f32[4,3,2]"}, {"Transpose", "f32[2,3,4]", "perm=[1,0,2]", "f32[3,2,4]"},
        {"Transpose", "f32[2,3]", "perm=[0,0]", "!given twice"},
        {"Transpose", "f32[2,3]", "perm=[0,2]", "!perm holds 2"}, {"Expand", "f32[3,1] {2,1,4}", "", "f32[2,3,4]"},
        {"Expand", "f32[3,2] {4}", "", "!do not broadcast"}, {"Tile", "f32[2,3] {2,0}", "", "f32[4,0]"},
        {"Tile", "f32[2,3] {2}", "", "!repeats"}, {"Slice", "f32[10,5] {1} {8}", "", "f32[7,5]"},
        {"Slice", "f32[10] {-3} {9223372036854775807}", "", "f32[3]"},
        {"Slice", "f32[10] {-1} {-9223372036854775808} {0} {-1}", "", "f32[10]"},
        {"Slice", "f32[10] {8} {2} {0} {-2}", "", "f32[3]"}, {"Slice", "f32[10] {20} {0} {0} {-4}", "", "f32[3]"},
        {"Slice", "f32[10,5] {0,1} {5,3} {-1,0} {1,2}", "", "f32[1,5]"}, {"Slice", "f32[10] {5} {2}", "", "f32[0]"},
        {"Slice", "f32[10] {0} {9} {0} {-9223372036854775808}", "", "f32[0]"},
        {"Slice", "f32[10] {0} {5} {0} {0}", "", "!step cannot be 0"}, {"Slice", "f32[10] {0,1} {5}", "", "!as many"},
        {"Slice", "i64[n<=34,2] {0} {1} {1}", "", "i64[n1<=34,1]"}, {"Slice", "f32[n<=34] {0} {3}", "", "f32[n2<=3]"},
        {"Split", "f32[2,9]", "axis=1 num_outputs=3", "f32[2,3] f32[2,3] f32[2,3]"},
        {"Split", "f32[7]", "num_outputs=3", "f32[3] f32[3] f32[1]"}, {"Split", "f32[6] {2,4}", "", "f32[2] f32[4]"},
        {"Split", "f32[6] {2}", "", "!1 parts"}, {"Concat", "f32[2,3] f32[2,5]", "axis=-1", "f32[2,8]"},
        {"Concat", "f32[2,3] f32[3,3]", "axis=1", "!may differ along axis 1 only"},
        {"Concat", "f32[n<=5,3] f32[2,3]", "axis=0", "f32[n2<=7,3]"},
        {"Concat", "i64[n<=5,1] i64[n<=5,1]", "axis=1", "i64[n1<=5,2]"}, {"Concat", "f32[2]", "", "!axis is missing"},
        {"Pad", "f32[2,3] {1,0,0,2}", "", "f32[3,5]"}, {"Pad", "f32[2,3] {1,1} - {1}", "", "f32[2,5]"},
        {"Pad", "f32[2,3] {0,-1,0,-1}", "", "f32[2,1]"}, {"Pad", "f32[2,3] {0,-2,0,-2}", "", "!padded by -2"},
        {"Pad", "f32[3] {3,0}", "mode'reflect'", "!cannot be reflected"}, {"Pad", "f32[3] {1,1}", "mode'x'", "!mode"},
        {"DepthToSpace", "f32[1,8,2,3]", "blocksize=2", "f32[1,2,4,6]"},
        {"SpaceToDepth", "f32[1,2,4,6]", "blocksize=2", "f32[1,8,2,3]"},
        {"DepthToSpace", "f32[1,6,2,3]", "blocksize=2", "!do not divide"}, {"Trilu", "f32[3,4]", "", "f32[3,4]"},
        {"Shape", "f32[2,n<=3,4]", "start=1", "i64[2]"}, {"Size", "f32[2,3]", "", "i64[]"});
}

static void indices(void **state) {
  (void)state;
  CHECK({"Gather", "f32[5,6] i64[2,3]", "axis=1", "f32[5,2,3]"}, {"Gather", "f32[4,48,48] =1", "", "f32[48,48]"},
        {"Gather", "f32[4] {4}", "", "!index 4 is out of range"}, {"Gather", "f32[4] {-4}", "", "f32[1]"},
        {"Gather", "f32[4] f32[1]", "", "!must be int64 or int32"},
        {"GatherElements", "f32[3,4] i64[2,4]", "", "f32[2,4]"},
        {"GatherElements", "f32[3,4] i64[2,5]", "", "!reach beyond"},
        {"GatherND", "f32[17,48] i64[n<=34,1]", "", "f32[n1<=34,48]"},
        {"GatherND", "f32[2,3,4] i64[2,1]", "batch_dims=1", "f32[2,4]"},
        {"GatherND", "f32[2,3] i64[5,3]", "", "!do not fit"},
        {"ScatterND", "f32[17,48] i64[n<=34,1] f32[n<=34,48]", "", "f32[17,48]"},
        {"ScatterND", "f32[17,48] i64[3,1] f32[3,47]", "", "!should be f32[3,48]"},
        {"ScatterElements", "f32[3,4] i64[3,2] f32[3,2]", "axis=1", "f32[3,4]"},
        {"ScatterElements", "f32[3,4] i64[3,2] f32[3,2]", "axis=1 reduction'sub'", "!does not exist"},
        {"OneHot", "i64[2,3] =7 f32[2]", "axis=1", "f32[2,7,3]"}, {"NonZero", "bool[17,2]", "", "i64[2,n1<=34]"},
        {"NonZero", "{0,3,0,4}", "", "i64[1,2]"}, {"Range", "=1 =10 =4", "", "i64[3]"},
        {"Range", "=5 =1 =-2", "", "i64[2]"}, {"Range", "=1 =10 =0", "", "!advance by 0"},
        {"ConstantOfShape", "{2,3}", "", "f32[2,3]"}, {"ConstantOfShape", "{2,-3}", "", "!cannot be -3"});
}

/* ---- the walk ---- */

static void run_walk(Ctx *c, void *arg) {
  (void)arg;
  Graph *g = graph_new(c, "walk");
  Value *x = graph_value(g, "x", DT_F32, shape_of(2, (int64_t[]){2, 12}));
  graph_add_input(g, x);
  Value *shape = node_new(g, NULL, OP_SHAPE, 1, x)->out[0];
  Value *rows = node_new(g, NULL, OP_GATHER, 2, shape, graph_constant_ints(g, NULL, 1, 1, (int64_t[]){0}))->out[0];
  Node *join = node_new(g, NULL, OP_CONCAT, 2, rows, graph_constant_ints(g, NULL, 1, 2, (int64_t[]){3, -1}));
  node_set_int(join, "axis", 0);
  Value *y = node_new(g, NULL, OP_RESHAPE, 2, x, join->out[0])->out[0];
  Value *k = node_new(g, NULL, OP_NEG, 1, graph_constant_float(g, NULL, 2.0f))->out[0];
  Node *split = graph_node(g, NULL, OP_SPLIT, "s", 1,
                           (Value *[]){graph_constant_ints(g, NULL, 1, 4, (int64_t[]){1, 2, 3, 4})}, 2, NULL);
  graph_add_output(g, y);
  graph_add_output(g, k);
  graph_add_output(g, split->out[1]);
  infer_shapes(g);
  graph_verify(g, "infer");
  assert_string_equal(shape_text(c, y->dtype, &y->shape), "f32[2,3,4]");
  assert_ptr_equal(y->producer->in[1], join->out[0]);
  assert_non_null(join->out[0]->tensor); /* Shape, Gather, Concat became constants without a kernel */
  assert_non_null(split->out[0]->tensor);
  assert_int_equal(g->outputs[1]->producer->op, OP_IDENTITY);
  assert_non_null(g->outputs[1]->producer->in[0]->tensor);
  assert_int_equal(g->outputs[2]->producer->op, OP_IDENTITY);
  assert_string_equal(shape_text(c, DT_I64, &g->outputs[2]->shape), "i64[2]");
  int before = folds;
  infer_shapes(g); /* again: nothing is left to fold */
  assert_int_equal(folds, before);
  graph_verify(g, "infer again");
}

static void walk(void **state) {
  (void)state;
  Ctx *c = ctx_new();
  may_fold = true;
  ExitStatus status = ctx_run(c, run_walk, NULL);
  may_fold = false;
  if (status != EXIT_DONE) fail_msg("%s", ctx_message(c, 0));
  ctx_free(c);
}

static void run_symbols(Ctx *c, void *arg) {
  (void)arg;
  Graph *g = graph_new(c, "symbols");
  Value *x = graph_value(g, "x", DT_BOOL, shape_of(2, (int64_t[]){17, 2}));
  graph_add_input(g, x);
  Value *where = node_new(g, NULL, OP_NON_ZERO, 1, x)->out[0];
  Value *rows = node_new(g, NULL, OP_TRANSPOSE, 1, where)->out[0];
  Value *count = node_new(g, NULL, OP_GATHER, 2, node_new(g, NULL, OP_SHAPE, 1, rows)->out[0],
                          graph_constant_ints(g, NULL, 1, 1, (int64_t[]){0}))
                     ->out[0];
  Node *join = node_new(g, NULL, OP_CONCAT, 2, count, graph_constant_ints(g, NULL, 1, 2, (int64_t[]){2, 1}));
  node_set_int(join, "axis", 0);
  Value *y = node_new(g, NULL, OP_RESHAPE, 2, rows, join->out[0])->out[0];
  graph_add_output(g, y);
  infer_shapes(g);
  assert_null(join->out[0]->tensor);
  assert_true(y->shape.rank == 3 && y->shape.dim[0].sym == where->shape.dim[1].sym && y->shape.dim[0].n == 34);
  int sym = where->shape.dim[1].sym;
  infer_shapes(g);
  assert_int_equal(where->shape.dim[1].sym, sym);
  check_static(g);
}

static void symbols(void **state) {
  (void)state;
  Ctx *c = ctx_new();
  assert_int_equal(ctx_run(c, run_symbols, NULL), EXIT_MODEL);
  assert_int_equal(ctx_message_count(c), 1); /* NonZero: where it begins, not what follows from it */
  assert_non_null(strstr(ctx_message(c, 0), "(NonZero)"));
  assert_non_null(strstr(ctx_message(c, 0), "decided by values at run time"));
  ctx_free(c);
}

static void run_declared(Ctx *c, void *arg) {
  Graph *g = graph_new(c, "declared");
  Value *x = graph_value(g, "x", DT_F32, shape_of(2, (int64_t[]){2, 3}));
  Value *y = graph_value(g, "y", DT_F32, *(const Shape *)arg);
  graph_add_input(g, x);
  graph_node(g, NULL, OP_TRANSPOSE, "t", 1, &x, 1, &y);
  graph_add_output(g, y);
  infer_shapes(g);
}

static void declared(void **state) {
  (void)state;
  Shape right = shape_of(2, (int64_t[]){3, 2}), open = shape_of(2, (int64_t[]){-1, 2}),
        wrong = shape_of(2, (int64_t[]){2, 3});
  Shape other_rank = shape_of(1, (int64_t[]){6});
  Shape *cases[] = {&right, &open, &wrong, &other_rank};
  for (int i = 0; i < 4; i++) {
    Ctx *c = ctx_new();
    ExitStatus status = ctx_run(c, run_declared, cases[i]);
    assert_int_equal(status, i < 2 ? EXIT_DONE : EXIT_MODEL);
    if (i >= 2) assert_non_null(strstr(ctx_message(c, 0), "is declared as f32["));
    ctx_free(c);
  }
}

/* ---- expressions of operators ---- */

static void run_expressions(Ctx *c, void *arg) {
  (void)arg;
  static const struct {
    const char *op, *in, *attrs;
    DType t;
    bool vector;
    const char *text;
  } cases[] = {
      {"Add", "f32[1] f32[1]", "", DT_F32, false, "$0 + $1"},
      {"Add", "i8[1] i8[1]", "", DT_I8, false, "moecc_add_i8($0, $1)"},
      {"Gelu", "f32[1]", "approximate'tanh'", DT_F32, true, "vf_gelu_tanh($0)"},
      {"Gelu", "f32[1]", "", DT_F64, false, "moecc_gelu_f64($0)"},
      {"LeakyRelu", "f32[1]", "alpha:-0.5", DT_F32, false, "$0 < 0 ? (-0.5f) * $0 : $0"},
      {"LeakyRelu", "f32[1]", "", DT_F32, true, "vf_select(vf_lt($0, vf_set1(0.0f)), vf_set1(0.01f) * $0, $0)"},
      {"Elu", "f32[1]", "alpha:0.1", DT_F64, false, "$0 < 0 ? 0.1 * (moecc_exp_f64($0) - 1.0) : $0"},
      {"Clip", "f32[1] f32[] -", "", DT_F32, false, "moecc_clip_f32($0, $1, INFINITY)"},
      {"Clip", "f32[1] - f32[]", "", DT_F32, true, "vf_min($2, vf_max(vf_set1(-INFINITY), $0))"},
      {"Clip", "u8[1]", "", DT_U8, false, "moecc_clip_u8($0, MOECC_LOWEST_u8, MOECC_HIGHEST_u8)"},
      {"Max", "f32[1] f32[1] f32[1]", "", DT_F32, false, "moecc_max_f32($0, $1)"},
      {"Mod", "f32[1] f32[1]", "fmod=1", DT_F32, false, "moecc_fmod_f32($0, $1)"},
      {"IsInf", "f32[1]", "detect_negative=0", DT_F32, false, "(1 && $0 == INFINITY) || (0 && $0 == -INFINITY)"},
      {"Cast", "f32[1]", "to=7", DT_F32, false, "moecc_trunc_i64((double)$0)"},
      {"Cast", "i64[1]", "to=1", DT_I64, false, "(float)$0"},
      {"Cast", "f16[1]", "to=1", DT_F16, false, "(float)moecc_f16_to_f32($0)"},
      {"Cast", "i64[1]", "to=9", DT_I64, false, "$0 != 0"},
      {"Erf", "f32[1]", "", DT_I32, false, NULL},
      {"MatMul", "f32[1] f32[1]", "", DT_F32, false, NULL},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    Case t = {cases[i].op, cases[i].in, cases[i].attrs, "x"};
    const char *found = op_expression(build(c, &t), cases[i].t, cases[i].vector);
    if (!cases[i].text)
      assert_null(found);
    else
      assert_string_equal(found, cases[i].text);
  }
}

static void expressions(void **state) {
  (void)state;
  Ctx *c = ctx_new();
  assert_int_equal(ctx_run(c, run_expressions, NULL), EXIT_DONE);
  ctx_free(c);
}

/* Every pattern mentions only what exists: operands within the arity, attributes of the operator. */
static void run_patterns(Ctx *c, void *arg) {
  (void)arg;
  Graph *g = graph_new(c, "patterns");
  int seen = 0;
  for (int op = OP_NONE + 1; op < OP_COUNT; op++) {
    const OpInfo *info = op_info((Op)op);
    assert_int_equal(op_find(info->domain, info->name), op);
    if (!op_is_elementwise((Op)op) || op == OP_FUSED) continue;
    Value *in[3] = {0};
    int n_in = info->max_inputs < 0 ? 2 : info->max_inputs;
    for (int i = 0; i < n_in; i++) in[i] = graph_value(g, "x", DT_F32, shape_of(0, NULL));
    Node *n = graph_node(g, NULL, (Op)op, "n", n_in, in, 1, NULL);
    node_set_int(n, "to", 1);
    int forms = 0;
    for (int form = 0; form < 3; form++) {
      const char *text = op_expression(n, form == 1 ? DT_I32 : DT_F32, form == 2);
      forms += text != NULL;
      for (const char *s = text ? strchr(text, '$') : NULL; s; s = strchr(s + 1, '$'))
        assert_true(s[1] >= '0' && s[1] < '0' + n_in);
      if (text) assert_null(strchr(text, '#'));
    }
    assert_true(forms > 0);
    seen++;
  }
  assert_true(seen > 50);
}

static void patterns(void **state) {
  (void)state;
  Ctx *c = ctx_new();
  assert_int_equal(ctx_run(c, run_patterns, NULL), EXIT_DONE);
  ctx_free(c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(elementwise), cmocka_unit_test(products), cmocka_unit_test(windows),
      cmocka_unit_test(axes),        cmocka_unit_test(layout),   cmocka_unit_test(indices),
      cmocka_unit_test(walk),        cmocka_unit_test(symbols),  cmocka_unit_test(declared),
      cmocka_unit_test(expressions), cmocka_unit_test(patterns),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
