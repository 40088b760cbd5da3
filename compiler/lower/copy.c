/* Copies and fills: how elements are moved when a view cannot do, whatever the strides on both sides.
 *
 * The loops follow the destination's memory order. Three kernels: contiguous rows on both sides, a tiled transposition
 * (each side contiguous along another loop), and anything else by steps.
 */
#include "loops.h"

#include <stdlib.h>
#include <string.h>

static Kernel *typed_kernel(Program *p, const char *template, DType t) {
  const char *name = ctx_format(p->ctx, "%s_%s", template, dtype_short(t));
  const Hole holes[] = {{"T", dtype_c(t)}, {0}};
  return low_kernel(p, template, name, holes);
}

static void written(Step *s, const View *to) {
  bool whole = to->storage && to->storage->bytes == view_count(to) * (int64_t)dtype_size(to->dtype);
  if (whole)
    low_write(s, to);
  else
    low_update(s, to);
}

static void copy_ends(Step *s, const View *from, const View *to) {
  low_read(s, from);
  written(s, to);
}

/* The outer loop along which x (view 1 of l) is contiguous while the innermost one is y's; -1: none. */
static int transposed_loop(const Loops *l) {
  int last = l->rank - 1;
  if (l->rank < 2 || l->stride[0][last] != 1 || l->stride[1][last] == 0) return -1;
  for (int i = last - 1; i >= 0; i--)
    if (l->stride[1][i] == 1) return i;
  return -1;
}

static void copy_transposed(Program *p, const Node *n, const View *from, const View *to, const Loops *l, int along) {
  int64_t table[1 + 3 * MAX_RANK] = {0}, count = 1;
  size_t n_table = 1;
  int last = l->rank - 1;
  for (int i = 0; i < last; i++) {
    if (i == along) continue;
    table[0]++;
    table[n_table++] = l->dim[i];
    table[n_table++] = l->stride[1][i];
    table[n_table++] = l->stride[0][i];
    count *= l->dim[i];
  }
  Step *s = low_call(p, n, typed_kernel(p, "transpose", to->dtype));
  copy_ends(s, from, to);
  low_size(s, l->dim[along]);
  low_size(s, l->dim[last]);
  low_int(s, l->stride[1][last]);
  low_int(s, l->stride[0][along]);
  low_size(s, count);
  low_table(s, table, n_table);
}

void low_copy(Program *p, const Node *n, const View *from, const View *to) {
  if (view_count(to) == 0) return;
  int order[MAX_RANK];
  view_order(to, order);
  const View *views[] = {to, from};
  Loops l = loops_of(to->rank, to->dim, order, 2, views);
  int along = transposed_loop(&l);
  if (along >= 0) {
    copy_transposed(p, n, from, to, &l, along);
    return;
  }
  const View *pair[] = {from, to};
  l = loops_of(to->rank, to->dim, order, 2, pair);
  Rows r = loops_rows(&l, NULL);
  bool rows = r.n == 1 || (r.step[0] == 1 && r.step[1] == 1);
  Step *s = low_call(p, n, typed_kernel(p, rows ? "copy_rows" : "copy_strided", to->dtype));
  copy_ends(s, from, to);
  low_size(s, r.rows);
  low_size(s, r.n);
  if (!rows) {
    low_int(s, r.step[0]);
    low_int(s, r.step[1]);
  }
  low_table(s, r.table, r.n_table);
}

/* The value as the fill kernel's parameter: a float, a double, or the integer (for half precision: its bits). */
static void fill_with(Program *p, const Node *n, double v, int64_t i, const View *to) {
  if (view_count(to) == 0) return;
  int order[MAX_RANK];
  view_order(to, order);
  const View *views[] = {to};
  Loops l = loops_of(to->rank, to->dim, order, 1, views);
  Rows r = loops_rows(&l, NULL);
  DType t = to->dtype;
  const char *passed = t == DT_F32 ? "float" : t == DT_F64 ? "double" : "int64_t";
  const Hole holes[] = {{"T", dtype_c(t)}, {"V", passed}, {0}};
  Step *s = low_call(p, n, low_kernel(p, "fill", ctx_format(p->ctx, "fill_%s", dtype_short(t)), holes));
  if (t == DT_F32)
    low_float(s, v);
  else if (t == DT_F64)
    low_double(s, v);
  else
    low_int(s, i);
  written(s, to);
  low_size(s, r.rows);
  low_size(s, r.n);
  low_int(s, r.n == 1 ? 1 : r.step[0]);
  low_table(s, r.table, r.n_table);
}

void low_fill(Program *p, const Node *n, double v, const View *to) {
  DType t = to->dtype;
  int64_t i = t == DT_F32 || t == DT_F64 ? 0
              : t == DT_F16              ? float_to_half((float)v)
              : t == DT_BF16             ? float_to_bfloat((float)v)
                                         : (int64_t)v;
  fill_with(p, n, v, i, to);
}

void low_fill_tensor(Program *p, const Node *n, const Tensor *value, const View *to) {
  if (value->dtype == DT_F32 || value->dtype == DT_F64) {
    fill_with(p, n, tensor_number(value, 0), 0, to);
    return;
  }
  int64_t bits = 0;
  if (value->dtype == DT_F16 || value->dtype == DT_BF16)
    memcpy(&bits, value->data, 2);
  else
    bits = tensor_integer(value, 0);
  fill_with(p, n, 0, bits, to);
}

/* ---- elements by index along each axis --------------------------------------------------------------------------- */

typedef struct {
  int64_t *entry;
  size_t n, cap;
} Table;

static void table_add(Ctx *c, Table *t, int64_t v) {
  t->entry = ctx_grow(c, t->entry, t->n, &t->cap, sizeof *t->entry);
  t->entry[t->n++] = v;
}

/* Trailing dimensions (in order) that x and y pass through untouched, contiguous on both sides, make the run. */
static int run_dims(const View *x, const View *y, const int *order, int64_t *const *pick, int64_t *run) {
  int left = x->rank;
  *run = 1;
  while (left > 0) {
    int d = order[left - 1];
    bool through = pick[d] == NULL && (y->dim[d] == 1 || (x->stride[d] == *run && y->stride[d] == *run));
    if (!through) break;
    *run *= y->dim[d];
    left--;
  }
  return left;
}

void low_pick(Program *p, const Node *n, const View *x, Value *out, int64_t *const *pick) {
  Ctx *c = p->ctx;
  int order[MAX_RANK];
  int64_t run;
  view_order(x, order);
  View y = low_output(p, out, order);
  if (view_count(&y) == 0) return;
  int left = run_dims(x, &y, order, pick, &run);
  int64_t rows = 1, columns = left > 0 ? y.dim[order[left - 1]] : 1;
  Table loops = {0};
  table_add(c, &loops, left > 0 ? left - 1 : 0);
  int64_t start = 1 + 2 * loops.entry[0] + (left > 0 ? columns : 1);
  for (int i = 0; i < left - 1; i++) {
    int d = order[i];
    table_add(c, &loops, y.dim[d]);
    table_add(c, &loops, start);
    start += y.dim[d];
    rows *= y.dim[d];
  }
  if (left == 0) table_add(c, &loops, 0);
  for (int k = 0; k < left; k++) {
    int d = order[k == 0 ? left - 1 : k - 1];
    for (int64_t i = 0; i < y.dim[d]; i++) table_add(c, &loops, (pick[d] ? pick[d][i] : i) * x->stride[d]);
  }
  Step *s = low_call(p, n, typed_kernel(p, "pick", y.dtype));
  low_read(s, x);
  low_write(s, &y);
  low_size(s, rows);
  low_size(s, columns);
  low_size(s, run);
  low_table(s, loops.entry, loops.n);
}
