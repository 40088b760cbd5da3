/* Pooling: channels-last pictures of floats on vectors of channels, everything else (one to three spatial axes, other
 * types) through one scalar template; global pools are reductions.
 */
#include "loops.h"
#include "reduce.h"

#include <string.h>

enum { LONGEST_SUM = 4096 }; /* elements that a chain of float32 additions is good enough for */

typedef struct {
  int axes; /* spatial */
  int64_t in[3], out[3], window[3], stride[3], dilation[3], before[3], end[3];
} Pool;

static int64_t same_padding(const Pool *g, int i) {
  int64_t total = (g->out[i] - 1) * g->stride[i] + (g->window[i] - 1) * g->dilation[i] + 1 - g->in[i];
  return total > 0 ? total : 0;
}

static void read_pads(const Node *n, Pool *g, int first) {
  const char *mode = node_string(n, "auto_pad", "NOTSET");
  const int64_t *pads;
  size_t count = node_ints(n, "pads", &pads);
  for (int a = 0; a < g->axes; a++) {
    int i = first + a;
    int64_t after = 0;
    if (strncmp(mode, "SAME", 4) == 0) {
      int64_t total = same_padding(g, i);
      g->before[i] = strcmp(mode, "SAME_LOWER") == 0 ? total - total / 2 : total / 2;
      after = total - g->before[i];
    } else if (strcmp(mode, "VALID") != 0 && count == 2 * (size_t)g->axes) {
      g->before[i] = pads[a];
      after = pads[g->axes + a];
    }
    g->end[i] = g->in[i] + after;
  }
}

/* The spatial axes are set behind leading ones of length 1 if there are fewer than three. */
static Pool read_pool(Program *p, const Node *n) {
  Pool g = {.axes = n->in[0]->shape.rank - 2};
  if (g.axes < 1 || g.axes > 3) ctx_fail(p->ctx, n, "pooling works on one to three spatial axes, not %d", g.axes);
  const int64_t *window, *stride, *dilation;
  size_t n_window = node_ints(n, "kernel_shape", &window), n_stride = node_ints(n, "strides", &stride);
  size_t n_dilation = node_ints(n, "dilations", &dilation);
  if (n_window != (size_t)g.axes) ctx_fail(p->ctx, n, "kernel_shape needs %d numbers", g.axes);
  int first = 3 - g.axes;
  for (int i = 0; i < 3; i++) g.in[i] = g.out[i] = g.window[i] = g.stride[i] = g.dilation[i] = g.end[i] = 1;
  for (int a = 0; a < g.axes; a++) {
    int i = first + a;
    g.in[i] = n->in[0]->shape.dim[2 + a].n;
    g.out[i] = n->out[0]->shape.dim[2 + a].n;
    g.window[i] = window[a];
    g.stride[i] = n_stride ? stride[a] : 1;
    g.dilation[i] = n_dilation ? dilation[a] : 1;
  }
  read_pads(n, &g, first);
  return g;
}

static Kernel *picture_kernel(Program *p, bool max, bool count_pads) {
  static const Hole largest[] = {{0}};
  static const char add[] = "static inline vf STEP(vf acc, vf x)\n{\n  return acc + x;\n}\n";
  static const char scale[] = "static inline vf FINISH(vf acc, vf factor)\n{\n  return acc * factor;\n}\n";
  const Hole mean[] = {{"INIT", "0.0f"}, {"COUNT_PADS", count_pads ? "1" : "0"}, {"STEP", add}, {"FINISH", scale}, {0}};
  if (max) return low_kernel(p, "pool_nhwc_vf", "max_pool_nhwc_f32", largest);
  return low_kernel(p, "pool_nhwc_vf", count_pads ? "average_pool_nhwc_f32_pads" : "average_pool_nhwc_f32", mean);
}

static void pool_picture(Program *p, Node *n, const Pool *g, bool max, bool count_pads) {
  static const int nhwc[4] = {0, 2, 3, 1};
  View x = low_order(p, n->in[0], nhwc), y = low_output(p, n->out[0], nhwc);
  int64_t shape[14], k = 0;
  for (int i = 1; i < 3; i++) shape[k++] = g->in[i];
  for (int i = 1; i < 3; i++) shape[k++] = g->out[i];
  for (int i = 1; i < 3; i++) shape[k++] = g->window[i];
  for (int i = 1; i < 3; i++) shape[k++] = g->stride[i];
  for (int i = 1; i < 3; i++) shape[k++] = g->dilation[i];
  for (int i = 1; i < 3; i++) shape[k++] = g->before[i];
  for (int i = 1; i < 3; i++) shape[k++] = g->end[i];
  Step *s = low_call(p, n, picture_kernel(p, max, count_pads));
  low_read(s, &x);
  low_write(s, &y);
  low_size(s, x.dim[0]);
  low_size(s, x.dim[1]);
  low_table(s, shape, 14);
}

static Kernel *any_kernel(Program *p, DType t, bool max, bool count_pads) {
  Ctx *c = p->ctx;
  const char *type = dtype_c(t), *acc = max ? type : "double";
  const char *init = !max ? "0" : dtype_is_float(t) ? "(-INFINITY)" : ctx_format(c, "MOECC_LOWEST_%s", dtype_short(t));
  const char *next = max ? ctx_format(c, "moecc_max_%s(acc, x)", dtype_short(t)) : "acc + (double)x";
  const char *step = ctx_format(c, "static inline %s STEP(%s acc, %s x)\n{\n  return %s;\n}\n", acc, acc, type, next);
  const char *finish = ctx_format(c, "static inline %s FINISH(%s acc, double count)\n{\n%s  return (%s)(%s);\n}\n",
                                  type, acc, max ? "  (void)count;\n" : "", type, max ? "acc" : "acc / count");
  const Hole holes[] = {
      {"T", type},        {"ACC", acc}, {"INIT", init}, {"COUNT_PADS", count_pads ? "1" : "0"}, {"STEP", step},
      {"FINISH", finish}, {0}};
  const char *name = ctx_format(c, "%s_pool_%s%s", max ? "max" : "average", dtype_short(t), count_pads ? "_pads" : "");
  return low_kernel(p, "pool_any", name, holes);
}

static void pool_any(Program *p, Node *n, const Pool *g, bool max, bool count_pads) {
  View x = low_packed(p, n->in[0]), y = low_output(p, n->out[0], NULL);
  int64_t shape[21];
  const int64_t *part[7] = {g->in, g->out, g->window, g->stride, g->dilation, g->before, g->end};
  for (int i = 0; i < 21; i++) shape[i] = part[i / 3][i % 3];
  Step *s = low_call(p, n, any_kernel(p, x.dtype, max, count_pads));
  low_read(s, &x);
  low_write(s, &y);
  low_size(s, x.dim[0] * x.dim[1]);
  low_table(s, shape, 21);
}

void lower_pool(Program *p, Node *n) {
  no_expression(p, n);
  if (n->op == OP_GLOBAL_AVERAGE_POOL || n->op == OP_GLOBAL_MAX_POOL) {
    bool reduced[MAX_RANK];
    for (int i = 0; i < MAX_RANK; i++) reduced[i] = i >= 2;
    low_reduce(p, n, reduced, true);
    return;
  }
  Pool g = read_pool(p, n);
  bool max = n->op == OP_MAX_POOL, count_pads = !max && node_int(n, "count_include_pad", 0) != 0;
  bool long_sum = !max && g.window[1] * g.window[2] > LONGEST_SUM;
  if (n->in[0]->dtype == DT_F32 && g.axes == 2 && !long_sum)
    pool_picture(p, n, &g, max, count_pads);
  else
    pool_any(p, n, &g, max, count_pads);
}
