/* Pictures put together by position: GridSample, whose positions an input gives, and Col2Im, which adds up blocks. */
#include "loops.h"

#include <string.h>

/* ---- GridSample: the parts that its modes decide, as text ---- */

enum { LINEAR, NEAREST, CUBIC };
enum { ZEROS, BORDER, REFLECTION };

static int choice(Ctx *c, const Node *n, const char *attr, const char *fallback, const char *const *names) {
  const char *given = node_string(n, attr, fallback);
  for (int i = 0; i < 3; i++)
    if (strcmp(given, names[i]) == 0) return i;
  ctx_fail(c, n, "%s \"%s\" does not exist", attr, given);
}

/* A number as a position; then, unless every tap is looked after by itself, within the axis as padding has it. */
static const char *place(Ctx *c, bool corners, int padding, bool cubic) {
  const char *at = corners ? "(v + 1.0) * 0.5 * (n - 1.0)" : "((v + 1.0) * n - 1.0) * 0.5";
  const char *edge = "";
  if (!cubic && padding == REFLECTION)
    edge = ctx_format(c,
                      "  const double low = %s, span = n - %s;\n"
                      "  double r = span > 0.0 ? fmod(fabs(at - low), 2.0 * span) : 0.0;\n"
                      "  if (r > span) r = 2.0 * span - r;\n  at = low + r;\n",
                      corners ? "0.0" : "-0.5", corners ? "1.0" : "0.0");
  const char *clip =
      !cubic && padding != ZEROS ? "  at = at > n - 1.0 ? n - 1.0 : at;\n  at = at > 0.0 ? at : 0.0;\n" : "";
  return ctx_format(c, "static inline double PLACE(double v, double n)\n{\n  double at = %s;\n%s%s  return at;\n}\n",
                    at, edge, clip);
}

/* The cubic kernel with a = -0.75, as ONNX has it. */
static const char *choose(Ctx *c, int mode) {
  const char *head = "static inline int64_t CHOOSE(double v, double *weight)\n{\n";
  if (mode == NEAREST) return ctx_format(c, "%s  weight[0] = 1.0;\n  return (int64_t)moecc_round_f64(v);\n}\n", head);
  if (mode == LINEAR)
    return ctx_format(c,
                      "%s  const double low = floor(v);\n  weight[0] = low + 1.0 - v;\n  weight[1] = v - low;\n"
                      "  return (int64_t)low;\n}\n",
                      head);
  return ctx_format(c,
                    "%s  const double low = floor(v), t = v - low, u = 1.0 - t;\n"
                    "  weight[0] = ((-0.75 * (t + 1.0) + 3.75) * (t + 1.0) - 6.0) * (t + 1.0) + 3.0;\n"
                    "  weight[1] = (1.25 * t - 2.25) * t * t + 1.0;\n"
                    "  weight[2] = (1.25 * u - 2.25) * u * u + 1.0;\n"
                    "  weight[3] = ((-0.75 * (u + 1.0) + 3.75) * (u + 1.0) - 6.0) * (u + 1.0) + 3.0;\n"
                    "  return (int64_t)low - 1;\n}\n",
                    head);
}

static const char *tap(Ctx *c, bool corners, int padding, bool cubic) {
  const char *head = "static inline int64_t TAP(int64_t i, int64_t n)\n{\n";
  if (!cubic || padding == ZEROS) return ctx_format(c, "%s  return i >= 0 && i < n ? i : -1;\n}\n", head);
  const char *clip = "  return i < 0 ? 0 : i >= n ? n - 1 : i;\n}\n";
  if (padding == BORDER) return ctx_format(c, "%s%s", head, clip);
  if (corners)
    return ctx_format(c,
                      "%s  const int64_t period = n > 1 ? 2 * (n - 1) : 1;\n  i = (i < 0 ? -i : i) %% period;\n"
                      "  if (i >= n) i = period - i;\n%s",
                      head, clip);
  return ctx_format(c, "%s  i = (i < 0 ? -1 - i : i) %% (2 * n);\n  if (i >= n) i = 2 * n - 1 - i;\n%s", head, clip);
}

static Kernel *sample_kernel(Program *p, const Node *n, DType t, DType grid) {
  static const char *const modes[] = {"linear", "nearest", "cubic"}, *const paddings[] = {"zeros", "border",
                                                                                          "reflection"};
  static const char *const taps[] = {"2", "1", "4"};
  Ctx *c = p->ctx;
  int mode = choice(c, n, "mode", "linear", modes), padding = choice(c, n, "padding_mode", "zeros", paddings);
  bool corners = node_int(n, "align_corners", 0) != 0, cubic = mode == CUBIC;
  const Hole holes[] = {{"T", dtype_c(t)},
                        {"G", dtype_c(grid)},
                        {"TAPS", taps[mode]},
                        {"PLACE", place(c, corners, padding, cubic)},
                        {"CHOOSE", choose(c, mode)},
                        {"TAP", tap(c, corners, padding, cubic)},
                        {0}};
  const char *name = ctx_format(c, "grid_sample_%s_%s_%s%s", dtype_short(t), modes[mode], paddings[padding],
                                corners ? "_corners" : "");
  return low_kernel(p, "grid_sample", name, holes);
}

/* Channels last, so that the weights of a position serve all of them. */
void lower_grid_sample(Program *p, Node *n) {
  no_expression(p, n);
  int rank = n->in[0]->shape.rank, axes = rank - 2, order[MAX_RANK] = {0};
  for (int i = 1; i < rank - 1; i++) order[i] = i + 1;
  order[rank - 1] = 1;
  View x = low_order(p, n->in[0], order), grid = low_packed(p, n->in[1]), y = low_output(p, n->out[0], order);
  if (view_count(&y) == 0) return;
  int64_t shape[5] = {1, 1, 1, axes, 1};
  for (int i = 0; i < axes; i++) {
    shape[3 - axes + i] = x.dim[2 + i];
    shape[4] *= y.dim[2 + i];
  }
  Step *s = low_call(p, n, sample_kernel(p, n, x.dtype, grid.dtype));
  low_read(s, &x);
  low_read(s, &grid);
  low_write(s, &y);
  low_size(s, x.dim[0]);
  low_size(s, x.dim[1]);
  low_table(s, shape, 5);
}

/* ---- Col2Im ---- */

void lower_col2im(Program *p, Node *n) {
  no_expression(p, n);
  View x = low_packed(p, n->in[0]), y = low_output(p, n->out[0], NULL);
  const Tensor *block = node_const(n, 2);
  int axes = y.rank - 2, first = 3 - axes;
  const int64_t *stride, *dilation, *pads;
  node_ints(n, "strides", &stride);
  node_ints(n, "dilations", &dilation);
  node_ints(n, "pads", &pads);
  int64_t shape[18] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  for (int i = 0; i < axes; i++) {
    int64_t *axis = shape + first + i, size = y.dim[2 + i], k = tensor_integer(block, i);
    axis[0] = size;
    axis[3] = (size + pads[i] + pads[axes + i] - dilation[i] * (k - 1) - 1) / stride[i] + 1;
    axis[6] = k;
    axis[9] = stride[i];
    axis[12] = dilation[i];
    axis[15] = pads[i];
  }
  if (view_count(&y) == 0) return;
  const Hole holes[] = {{"T", dtype_c(x.dtype)}, {0}};
  Step *s = low_call(p, n, low_kernel(p, "col2im", ctx_format(p->ctx, "col2im_%s", dtype_short(x.dtype)), holes));
  low_read(s, &x);
  low_write(s, &y);
  low_size(s, y.dim[0] * y.dim[1]);
  low_table(s, shape, 18);
}
