/* Reductions, ArgMax and ArgMin, and the global pools, which are reductions over the spatial axes.
 *
 * The result's axes keep the order in which they lie in the input. Sums of floats along a contiguous axis, or across
 * rows of contiguous ones (channels-last pooling), have kernels on vectors; everything else goes through one scalar
 * template whose accumulator is wide: double for floats, 64 bits for integers.
 */
#include "loops.h"
#include "reduce.h"

#include <string.h>

/* What stands in the templates' holes. T, C: short name and C type of the elements. */
typedef struct {
  Op op;
  const char *name;
  const char *map, *finish;      /* on vectors: of x; of (sum, count); NULL: no vector form */
  const char *step_f, *finish_f; /* scalar, double accumulator */
  const char *step_i, *finish_i; /* scalar, uint64_t accumulator; NULL: not for integers */
} Reduction;

static const Reduction reductions[] = {
    {OP_REDUCE_SUM, "sum", "x", "sum", "acc + (double)x", "acc", "acc + (uint64_t)x", "acc"},
    {OP_REDUCE_MEAN, "mean", "x", "sum / count", "acc + (double)x", "acc / count", NULL, NULL},
    {OP_REDUCE_L1, "l1", "vf_abs(x)", "sum", "acc + (double)moecc_abs_%s(x)", "acc", "acc + (uint64_t)moecc_abs_%s(x)",
     "acc"},
    {OP_REDUCE_L2, "l2", "x * x", "moecc_sqrt_f32(sum)", "acc + (double)x * (double)x", "moecc_sqrt_f64(acc)", NULL,
     NULL},
    {OP_REDUCE_SUM_SQUARE, "sum_square", "x * x", "sum", "acc + (double)x * (double)x", "acc",
     "acc + (uint64_t)x * (uint64_t)x", "acc"},
    {OP_REDUCE_LOG_SUM, "log_sum", "x", "moecc_log_f32(sum)", "acc + (double)x", "moecc_log_f64(acc)", NULL, NULL},
    {OP_REDUCE_PROD, "prod", NULL, NULL, "acc * (double)x", "acc", "acc * (uint64_t)x", "acc"},
    {OP_GLOBAL_AVERAGE_POOL, "mean", "x", "sum / count", "acc + (double)x", "acc / count", NULL, NULL},
};

static const Reduction *find_reduction(Op op) {
  for (size_t i = 0; i < sizeof reductions / sizeof reductions[0]; i++)
    if (reductions[i].op == op) return &reductions[i];
  return NULL;
}

/* ---- the loops --------------------------------------------------------------------------------------------------- */

typedef struct {
  View x, y;
  Loops kept, reduced;
  int64_t outputs, count;
} Reduce;

static Loops loops_where(const View *x, const int *order, const bool *wanted, bool which) {
  int part[MAX_RANK], rank = 0;
  for (int i = 0; i < x->rank; i++)
    if (wanted[order[i]] == which) part[rank++] = order[i];
  int64_t dim[MAX_RANK];
  for (int i = 0; i < x->rank; i++) dim[i] = x->dim[i];
  const View *views[] = {x};
  return loops_of(rank, dim, part, 1, views);
}

static int64_t loop_count(const Loops *l) {
  int64_t count = 1;
  for (int i = 0; i < l->rank; i++) count *= l->dim[i];
  return count;
}

/* The result's dimensions in the order in which they lie in x; without the reduced ones unless keepdims. */
static void output_order(const View *x, const int *order, const bool *reduced, bool keep, int *out) {
  int place[MAX_RANK], rank = 0, n = 0;
  for (int i = 0; i < x->rank; i++) place[i] = keep || !reduced[i] ? rank++ : -1;
  for (int i = 0; i < x->rank; i++)
    if (place[order[i]] >= 0) out[n++] = place[order[i]];
}

static Reduce plan(Program *p, Node *n, const bool *reduced, bool keep) {
  Reduce r = {.x = low_view(p, n->in[0])};
  int order[MAX_RANK], out[MAX_RANK];
  view_order(&r.x, order);
  output_order(&r.x, order, reduced, keep, out);
  r.y = low_output(p, n->out[0], out);
  r.kept = loops_where(&r.x, order, reduced, false);
  r.reduced = loops_where(&r.x, order, reduced, true);
  r.outputs = loop_count(&r.kept);
  r.count = loop_count(&r.reduced);
  return r;
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

static const char *map_function(Ctx *c, const char *map) {
  return ctx_format(c, "static inline vf MAP(vf x)\n{\n  return %s;\n}\n", map);
}

static const char *finish_vector(Ctx *c, const char *finish) {
  const char *unused = strstr(finish, "count") ? "" : "  (void)count;\n";
  return ctx_format(c, "static inline float FINISH(float sum, float count)\n{\n%s  return %s;\n}\n", unused, finish);
}

static bool contiguous_row(const Reduce *r) { return r->reduced.rank == 1 && r->reduced.stride[0][0] == 1; }

static bool across_rows(const Reduce *r) {
  int last = r->kept.rank - 1;
  return r->reduced.rank == 1 && last >= 0 && last <= 1 && r->kept.stride[0][last] == 1 && r->kept.dim[last] > 1;
}

static void add_vector_call(Program *p, const Node *n, const Reduce *r, const Reduction *op) {
  bool rows = contiguous_row(r);
  const Hole holes[] = {{"MAP", map_function(p->ctx, op->map)}, {"FINISH", finish_vector(p->ctx, op->finish)}, {0}};
  const char *name = ctx_format(p->ctx, rows ? "reduce_%s_f32" : "reduce_%s_columns_f32", op->name);
  Step *s = low_call(p, n, low_kernel(p, rows ? "reduce_rows_vf" : "reduce_columns_vf", name, holes));
  low_read(s, &r->x);
  low_write(s, &r->y);
  if (rows) {
    int64_t table[1 + 2 * MAX_RANK] = {r->kept.rank};
    for (int i = 0; i < r->kept.rank; i++) {
      table[1 + 2 * i] = r->kept.dim[i];
      table[2 + 2 * i] = r->kept.stride[0][i];
    }
    low_size(s, r->outputs);
    low_size(s, r->count);
    low_table(s, table, 1 + 2 * (size_t)r->kept.rank);
    return;
  }
  bool outer = r->kept.rank > 1;
  low_size(s, outer ? r->kept.dim[0] : 1);
  low_size(s, r->count);
  low_size(s, r->kept.dim[r->kept.rank - 1]);
  low_int(s, outer ? r->kept.stride[0][0] : 0);
  low_int(s, r->reduced.stride[0][0]);
}

static bool is_extreme(Op op) { return op == OP_REDUCE_MAX || op == OP_REDUCE_MIN || op == OP_GLOBAL_MAX_POOL; }

/* Accumulator, its start, one step and the end for element type t, as holes. */
static const char *step_function(Ctx *c, DType t, const char *acc, const char *expression) {
  return ctx_format(c, "static inline %s STEP(%s acc, %s x)\n{\n  return %s;\n}\n", acc, acc, dtype_c(t), expression);
}

static const char *finish_function(Ctx *c, DType t, const char *acc, const char *expression) {
  const char *unused = strstr(expression, "count") ? "" : "  (void)count;\n";
  return ctx_format(c, "static inline %s FINISH(%s acc, double count)\n{\n%s  return (%s)(%s);\n}\n", dtype_c(t), acc,
                    unused, dtype_c(t), expression);
}

static Kernel *extreme_kernel(Program *p, const Node *n, DType t) {
  Ctx *c = p->ctx;
  DType as = t == DT_BOOL ? DT_U8 : t;
  bool max = n->op != OP_REDUCE_MIN;
  const char *step = ctx_format(c, "moecc_%s_%s(acc, x)", max ? "max" : "min", dtype_short(as));
  const char *init = dtype_is_float(t) ? (max ? "(-INFINITY)" : "INFINITY")
                     : t == DT_BOOL    ? (max ? "0" : "1")
                                       : ctx_format(c, "MOECC_%s_%s", max ? "LOWEST" : "HIGHEST", dtype_short(as));
  const Hole holes[] = {{"T", dtype_c(t)},
                        {"ACC", dtype_c(t)},
                        {"INIT", init},
                        {"STEP", step_function(c, t, dtype_c(t), step)},
                        {"FINISH", finish_function(c, t, dtype_c(t), "acc")},
                        {0}};
  return low_kernel(p, "reduce_any", ctx_format(c, "reduce_%s_%s", max ? "max" : "min", dtype_short(t)), holes);
}

static Kernel *scalar_kernel(Program *p, const Node *n, const Reduction *op, DType t) {
  Ctx *c = p->ctx;
  bool real = dtype_is_float(t);
  const char *step = real ? op->step_f : op->step_i, *acc = real ? "double" : "uint64_t";
  if (step == NULL) ctx_fail(c, n, "%s does not work on %s", n->op_type, dtype_name(t));
  const char *named = strstr(step, "%s");
  if (named) step = ctx_format(c, "%.*s%s%s", (int)(named - step), step, dtype_short(t), named + 2);
  const Hole holes[] = {{"T", dtype_c(t)},
                        {"ACC", acc},
                        {"INIT", op->op == OP_REDUCE_PROD ? "1" : "0"},
                        {"STEP", step_function(c, t, acc, step)},
                        {"FINISH", finish_function(c, t, acc, real ? op->finish_f : op->finish_i)},
                        {0}};
  return low_kernel(p, "reduce_any", ctx_format(c, "reduce_%s_%s", op->name, dtype_short(t)), holes);
}

static Kernel *any_kernel(Program *p, const Node *n, DType t) {
  if (is_extreme(n->op)) return extreme_kernel(p, n, t);
  if (n->op != OP_REDUCE_LOG_SUM_EXP) return scalar_kernel(p, n, find_reduction(n->op), t);
  const Hole holes[] = {{"T", dtype_c(t)}, {0}};
  return low_kernel(p, "reduce_log_sum_exp", ctx_format(p->ctx, "log_sum_exp_%s", dtype_short(t)), holes);
}

static void add_scalar_call(Program *p, const Node *n, const Reduce *r) {
  int64_t table[2 + 4 * MAX_RANK] = {r->kept.rank, r->reduced.rank};
  size_t n_table = 2;
  for (int i = 0; i < r->kept.rank; i++) {
    table[n_table++] = r->kept.dim[i];
    table[n_table++] = r->kept.stride[0][i];
  }
  for (int i = 0; i < r->reduced.rank; i++) {
    table[n_table++] = r->reduced.dim[i];
    table[n_table++] = r->reduced.stride[0][i];
  }
  Step *s = low_call(p, n, any_kernel(p, n, r->x.dtype));
  low_read(s, &r->x);
  low_write(s, &r->y);
  low_size(s, r->outputs);
  low_size(s, r->count);
  low_table(s, table, n_table);
}

void low_reduce(Program *p, Node *n, const bool *reduced, bool keep) {
  Reduce r = plan(p, n, reduced, keep);
  if (r.outputs == 0) return;
  const Reduction *op = find_reduction(n->op);
  bool vector = r.x.dtype == DT_F32 && op != NULL && op->map != NULL && r.count > 0;
  if (vector && (contiguous_row(&r) || across_rows(&r)))
    add_vector_call(p, n, &r, op);
  else
    add_scalar_call(p, n, &r);
}

/* ---- ArgMax, ArgMin ---------------------------------------------------------------------------------------------- */

static void arg_reduce(Program *p, Node *n) {
  Ctx *c = p->ctx;
  View x = low_packed(p, n->in[0]), y = low_output(p, n->out[0], NULL);
  int axis = normal_axis(c, n, node_int(n, "axis", 0), x.rank);
  bool max = n->op == OP_ARG_MAX, last = node_int(n, "select_last_index", 0) != 0;
  int64_t outer = 1, inner = 1;
  for (int i = 0; i < axis; i++) outer *= x.dim[i];
  for (int i = axis + 1; i < x.rank; i++) inner *= x.dim[i];
  const char *better = ctx_format(c, "static inline int BETTER(%s a, %s b)\n{\n  return a %s%s b;\n}\n",
                                  dtype_c(x.dtype), dtype_c(x.dtype), max ? ">" : "<", last ? "=" : "");
  const Hole holes[] = {{"T", dtype_c(x.dtype)}, {"BETTER", better}, {0}};
  const char *name = ctx_format(c, "arg_%s%s_%s", max ? "max" : "min", last ? "_last" : "", dtype_short(x.dtype));
  Step *s = low_call(p, n, low_kernel(p, "arg_reduce", name, holes));
  low_read(s, &x);
  low_write(s, &y);
  low_size(s, outer);
  low_size(s, x.dim[axis]);
  low_size(s, inner);
}

/* ---- entry ------------------------------------------------------------------------------------------------------- */

void lower_reduce(Program *p, Node *n) {
  no_expression(p, n);
  if (n->op == OP_ARG_MAX || n->op == OP_ARG_MIN) {
    arg_reduce(p, n);
    return;
  }
  bool reduced[MAX_RANK] = {false};
  int rank = n->in[0]->shape.rank;
  const Tensor *axes = n->n_in > 1 ? node_const(n, 1) : NULL;
  if (n->n_in > 1 && n->in[1] && !axes) ctx_fail(p->ctx, n, "the axes must be constants");
  int64_t count = axes ? tensor_count(axes) : 0;
  for (int64_t i = 0; i < count; i++) reduced[normal_axis(p->ctx, n, tensor_integer(axes, i), rank)] = true;
  if (count == 0 && !node_int(n, "noop_with_empty_axes", 0))
    for (int i = 0; i < rank; i++) reduced[i] = true;
  low_reduce(p, n, reduced, node_int(n, "keepdims", 1) != 0);
}
