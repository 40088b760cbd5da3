/* MatMul and Gemm: a constant second operand is packed into panels when the weights are written (matmul), another one
 * when the kernel runs (bmm); integers and float64 take a plain typed kernel (matmul_any).
 *
 * Everything is brought into one form first: batch dimensions, rows, k, columns, as views of x, w and y.
 */
#include "gemm.h"

#include <string.h>

/* x [batch…, m, k], w [batch…, k, n], y [batch…, m, n], batch dimensions broadcast to y's. */
typedef struct {
  View x, w, y;
  int64_t m, n, k;
  int n_batch; /* batch dimensions that w differs in, or all; 0: rows are one matrix's */
  double alpha;
  View bias; /* to be added, broadcast to y's shape */
  bool has_bias;
} Product;

static View swap_last(const View *w) {
  int perm[MAX_RANK];
  for (int i = 0; i < w->rank; i++) perm[i] = i;
  perm[w->rank - 1] = w->rank - 2;
  perm[w->rank - 2] = w->rank - 1;
  return view_transpose(w, perm);
}

/* A vector as a matrix of one row, or of one column. */
static View as_matrix(const View *w, bool column) {
  if (w->rank != 1) return *w;
  View out = *w;
  out.rank = 2;
  out.dim[column ? 1 : 0] = 1;
  out.stride[column ? 1 : 0] = 0;
  out.dim[column ? 0 : 1] = w->dim[0];
  out.stride[column ? 0 : 1] = w->stride[0];
  return out;
}

static View broadcast_batch(const View *w, int rank, const int64_t *batch) {
  int64_t dim[MAX_RANK];
  for (int i = 0; i < rank - 2; i++) dim[i] = batch[i];
  dim[rank - 2] = w->dim[w->rank - 2];
  dim[rank - 1] = w->dim[w->rank - 1];
  return view_broadcast(w, rank, dim);
}

/* Shapes of x, w and y, y's strides being set by the caller. */
static Product product_of(Program *p, Node *n) {
  Product d = {.alpha = 1};
  View x = low_view(p, n->in[0]), w = low_view(p, n->in[1]);
  if (n->op == OP_GEMM) {
    d.alpha = node_float(n, "alpha", 1);
    if (node_int(n, "transA", 0)) x = swap_last(&x);
    if (node_int(n, "transB", 0)) w = swap_last(&w);
    double beta = node_float(n, "beta", 1);
    d.has_bias = n->n_own > 2 && n->in[2] && beta != 0;
    if (d.has_bias) d.bias = low_view(p, n->in[2]);
  }
  x = as_matrix(&x, false);
  w = as_matrix(&w, true);
  int rank = x.rank > w.rank ? x.rank : w.rank;
  int64_t batch[MAX_RANK];
  for (int i = 0; i < rank - 2; i++) {
    int xi = i - (rank - x.rank), wi = i - (rank - w.rank);
    int64_t xd = xi < 0 ? 1 : x.dim[xi], wd = wi < 0 ? 1 : w.dim[wi];
    batch[i] = xd == 1 ? wd : xd;
  }
  d.x = broadcast_batch(&x, rank, batch);
  d.w = broadcast_batch(&w, rank, batch);
  d.m = x.dim[x.rank - 2];
  d.k = x.dim[x.rank - 1];
  d.n = w.dim[w.rank - 1];
  d.y = d.x;
  d.y.dim[rank - 1] = d.n;
  d.n_batch = rank - 2;
  return d;
}

static int64_t batches(const Product *d) {
  int64_t n = 1;
  for (int i = 0; i < d->n_batch; i++) n *= d->y.dim[i];
  return n;
}

/* The view with all batch dimensions and rows as one, rows of contiguous elements; copies if it has to. */
static View rows_of(Program *p, Node *n, View x) {
  int64_t k = x.dim[x.rank - 1], dim[2] = {1, k};
  for (int i = 0; i < x.rank - 1; i++) dim[0] *= x.dim[i];
  View flat;
  if (view_reshape(&x, 2, dim, &flat) && (flat.stride[1] == 1 || k == 1) && flat.stride[0] >= 0) return flat;
  View dense = low_dense(p, n, &x, ROW_MAJOR, true);
  view_reshape(&dense, 2, dim, &flat);
  return flat;
}

/* True if w is the same matrix for every batch. */
static bool one_matrix(const View *w) {
  for (int i = 0; i < w->rank - 2; i++)
    if (w->dim[i] > 1 && w->stride[i]) return false;
  return true;
}

static Epilogue epilogue_of(Program *p, Node *n, const Product *d) {
  return low_epilogue(p, gemm_with_bias(p, n, d->alpha, d->has_bias ? &d->bias : NULL), d->y.rank, d->y.dim, NULL);
}

/* ---- constant weights -----------------------------------------------------------------------------------------------
 */

static void lower_dense(Program *p, Node *n, const Product *d) {
  View x = rows_of(p, n, d->x), y = low_output(p, n->out[0], NULL);
  Epilogue e = epilogue_of(p, n, d);
  int last = d->w.rank - 1;
  const Matrix m = {d->k, d->n, d->w.stride[last - 1], d->w.stride[last], d->w.offset, 0};
  gemm_matmul(p, n, &x, d->w.constant, m, &y, y.rank - 1, d->n, &e);
}

/* ---- both operands computed -----------------------------------------------------------------------------------------
 */

/* Batch dimensions as a table: their number, then for each its length and the strides of x and w. */
static size_t batch_table(const Product *d, int64_t *table) {
  size_t n = 1;
  table[0] = 0;
  for (int i = 0; i < d->n_batch; i++) {
    if (d->y.dim[i] == 1) continue;
    table[0]++;
    table[n++] = d->y.dim[i];
    table[n++] = d->x.stride[i];
    table[n++] = d->w.stride[i];
  }
  return n;
}

static void lower_batched(Program *p, Node *n, Product *d) {
  int last = d->w.rank - 1;
  if (d->k > 1 && d->x.stride[d->x.rank - 1] != 1) d->x = low_dense(p, n, &d->x, ROW_MAJOR, false);
  View y = low_output(p, n->out[0], NULL);
  Epilogue e = epilogue_of(p, n, d);
  Tile tile = gemm_tile(p, "bmm", d->m, d->n, d->k);
  Step *s = low_call(p, n, gemm_kernel(p, "bmm", tile, &e));
  s->macs = batches(d) * d->m * d->n * d->k;
  int64_t table[1 + 3 * MAX_RANK], panel = d->k * tile.nr;
  size_t n_table = batch_table(d, table);
  low_read(s, &d->x);
  low_read(s, &d->w);
  low_write(s, &y);
  low_operands(s, &e);
  low_scratch_each(s, DT_F32, round_up(panel * 4, 64));
  low_size(s, round_up(panel * 4, 64) / 4);
  low_table(s, table, n_table);
  low_size(s, batches(d));
  low_size(s, d->m);
  low_size(s, d->k);
  low_size(s, d->n);
  low_size(s, d->x.stride[d->x.rank - 2]);
  low_int(s, d->w.stride[last - 1]);
  low_int(s, d->w.stride[last]);
}

/* ---- other types ------------------------------------------------------------------------------------------------- */

static void lower_any(Program *p, Node *n, const Product *d) {
  Ctx *c = p->ctx;
  DType t = n->out[0]->dtype;
  const char *type = dtype_c(t), *name = dtype_short(t);
  View y = low_output(p, n->out[0], NULL);
  View bias = {.dtype = t};
  if (d->has_bias) bias = view_broadcast(&d->bias, 2, d->y.dim);
  const char *mac =
      ctx_format(c, "static inline %s MAC(%s sum, %s a, %s b)\n{\n  return moecc_add_%s(sum, moecc_mul_%s(a, b));\n}\n",
                 type, type, type, type, name, name);
  const char *end = ctx_format(c,
                               "static inline %s END(%s sum, const %s *c, double alpha, double beta)\n{\n"
                               "  return (%s)(alpha * (double)sum + (c ? beta * (double)*c : 0.0));\n}\n",
                               type, type, type, type);
  Hole holes[] = {{"T", type}, {0}, {0}, {0}};
  int h = 1;
  if (!dtype_is_float(t)) holes[h++] = (Hole){"MAC", mac};
  if (n->op == OP_GEMM) holes[h++] = (Hole){"END", end};
  Step *s = low_call(
      p, n, low_kernel(p, "matmul_any", ctx_format(c, "matmul_%s%s", name, n->op == OP_GEMM ? "_gemm" : ""), holes));
  s->macs = batches(d) * d->m * d->n * d->k;
  int64_t table[1 + 3 * MAX_RANK];
  size_t n_table = batch_table(d, table);
  int last = d->y.rank - 1;
  low_read(s, &d->x);
  low_read(s, &d->w);
  if (d->has_bias)
    low_read(s, &bias);
  else
    low_null(s, t);
  low_write(s, &y);
  low_table(s, table, n_table);
  low_size(s, batches(d));
  low_size(s, d->m);
  low_size(s, d->k);
  low_size(s, d->n);
  for (int i = 0; i < 2; i++) low_int(s, d->x.stride[last - 1 + i]);
  for (int i = 0; i < 2; i++) low_int(s, d->w.stride[last - 1 + i]);
  for (int i = 0; i < 2; i++) low_int(s, d->has_bias ? bias.stride[i] : 0);
  low_double(s, d->alpha);
  low_double(s, node_float(n, "beta", 1));
}

/* beta * C for a constant C, or for one that is scaled by 1. */
static bool scale_bias(Program *p, Node *n, Product *d) {
  double beta = node_float(n, "beta", 1);
  if (n->op != OP_GEMM || !d->has_bias || beta == 1) return true;
  if (!d->bias.constant) return false;
  const Tensor *from = d->bias.constant;
  Tensor *scaled = tensor_new(p->ctx, DT_F32, from->rank, from->dim, NULL);
  float *out = tensor_writable(scaled);
  for (int64_t i = 0; i < tensor_count(from); i++) out[i] = (float)(beta * tensor_number(from, i));
  d->bias.constant = scaled;
  return true;
}

/* Where a vector was made a matrix, the operands of the node's expression get that dimension too. */
static Node *fit_operands(Program *p, Node *n) {
  bool row = n->in[0]->shape.rank == 1, column = n->in[1]->shape.rank == 1;
  if (!n->expr || (!row && !column)) return n;
  Node *copy = ctx_alloc(p->ctx, sizeof *copy);
  *copy = *n;
  copy->in = ctx_array(p->ctx, (size_t)n->n_in, sizeof *copy->in);
  for (int i = 0; i < n->n_in; i++) {
    View w = low_view(p, copy->in[i] = n->in[i]);
    if (i < n->n_own || w.rank == 0) continue;
    for (int end = 0; end < 2; end++) {
      if (!(end ? column : row)) continue;
      int64_t columns = w.dim[w.rank - 1], stride = w.stride[w.rank - 1];
      w.dim[w.rank] = end ? 1 : columns;
      w.stride[w.rank] = end ? 0 : stride;
      if (!end) w.dim[w.rank - 1] = 1;
      w.rank++;
    }
    copy->in[i] = gemm_value(p, &w);
  }
  return copy;
}

bool matmul_can_part(const Node *n) {
  bool plain = n->op == OP_MATMUL || (n->op == OP_GEMM && (n->n_own < 3 || !n->in[2] || node_float(n, "beta", 1) == 1));
  return plain && n->out[0]->dtype == DT_F32 && n->in[1]->tensor && n->in[0]->shape.rank == 2 &&
         n->in[1]->shape.rank == 2 && n->in[1]->shape.dim[0].n > 0 && shape_count(&n->out[0]->shape) > 0;
}

void matmul_part(Program *p, Node *n, int64_t first, const View *y) {
  Product d = product_of(p, n);
  View x = rows_of(p, n, d.x);
  Epilogue whole = epilogue_of(p, n, &d), e = low_epilogue_columns(p, &whole, first, y->dim[1]);
  const Matrix m = {d.k, d.n, d.w.stride[0], d.w.stride[1], d.w.offset, 0};
  gemm_matmul(p, n, &x, d.w.constant, matrix_columns(m, first, y->dim[1]), y, 1, y->dim[1], &e);
}

void lower_matmul(Program *p, Node *n) {
  if (moe_has_router(p, n)) return; /* when the mixture is lowered */
  Product d = product_of(p, n);
  if (view_count(&d.y) == 0) {
    low_output(p, n->out[0], NULL);
    return;
  }
  if (d.k == 0) ctx_fail(p->ctx, n, "a product over no elements (k is 0) is not supported");
  if (n->out[0]->dtype != DT_F32 || !scale_bias(p, n, &d)) {
    if (!gemm_unfused(p, n, lower_matmul)) lower_any(p, n, &d);
    return;
  }
  n = fit_operands(p, n);
  bool one = one_matrix(&d.w);
  if (one && d.w.constant) {
    lower_dense(p, n, &d);
    return;
  }
  if (one && d.n_batch) { /* all rows against the one matrix */
    d.x = rows_of(p, n, d.x);
    d.m *= batches(&d);
    d.n_batch = 0;
  }
  lower_batched(p, n, &d);
}
