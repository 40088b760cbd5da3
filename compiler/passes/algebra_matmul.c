/* Rules of the pass algebra for matrix products: one form for all, and the share of constant columns worked out.
 *
 * MatMul(Concat(a, t), W) with t constant is MatMul(a, W's rows for a) + t * (W's rows for t). This is what makes a
 * router that sees the token joined with a task vector one product for all tasks plus a bias per task.
 */
#include "algebra.h"
#include <string.h>

/* ---- Gemm ---- */

static Value *number(const Node *before, DType t, double x) {
  Value *v = constant_doubles(before->graph, NULL, t, 0, NULL, &x);
  v->tasks = before->tasks;
  return v;
}

/* A constant matrix, transposed if asked for, times alpha. The same Gemm weights used twice are equal by content. */
static Value *constant_matrix(Value *w, bool transpose, double alpha) {
  if (!transpose && alpha == 1) return w;
  if (alpha == 1 && w->transposed) return w->transposed;
  const Tensor *t = w->tensor;
  int64_t rows = t->dim[0], columns = t->dim[1], dims[2] = {transpose ? columns : rows, transpose ? rows : columns};
  Tensor *out = tensor_new(w->graph->ctx, t->dtype, 2, dims, NULL);
  size_t size = dtype_size(t->dtype);
  char *to = tensor_writable(out);
  const char *from = t->data;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < columns; k++)
      memcpy(to + (size_t)(transpose ? k * rows + r : r * columns + k) * size, from + (size_t)(r * columns + k) * size,
             size);
  Value *v;
  if (alpha == 1) {
    v = w->transposed = graph_constant(w->graph, w->name, out);
  } else {
    double *x = tensor_doubles(w->graph->ctx, out);
    for (int64_t i = 0; i < rows * columns; i++) x[i] *= alpha;
    v = constant_doubles(w->graph, w, t->dtype, 2, dims, x);
  }
  v->tasks |= w->tasks;
  return v;
}

static Value *scaled(Node *before, Value *x, double factor) {
  if (factor == 1) return x;
  if (x->tensor) {
    double *d = tensor_doubles(x->graph->ctx, x->tensor);
    for (int64_t i = 0; i < tensor_count(x->tensor); i++) d[i] *= factor;
    return constant_doubles(x->graph, x, x->dtype, x->tensor->rank, x->tensor->dim, d);
  }
  return insert_value(before, OP_MUL, x->dtype, x->shape, 2, x, number(before, x->dtype, factor));
}

bool gemm_as_matmul(Node *n) {
  if (n->op != OP_GEMM || n->expr || !dtype_is_float(n->in[0]->dtype)) return false;
  Value *y = n->out[0], *a = n->in[0], *b = n->in[1], *c = n->n_in > 2 ? n->in[2] : NULL;
  if (a->shape.rank != 2 || b->shape.rank != 2 || y->shape.rank != 2) return false;
  double alpha = node_float(n, "alpha", 1), beta = node_float(n, "beta", 1);
  if (node_int(n, "transA", 0)) a = insert_swap_last(n, a);
  bool transpose = node_int(n, "transB", 0);
  if (b->tensor) {
    b = constant_matrix(b, transpose, alpha);
    alpha = 1;
  } else if (transpose) {
    b = insert_swap_last(n, b);
  }
  if (beta == 0) c = NULL;
  if (!c && alpha == 1) {
    take_over(y, OP_MATMUL, 2, (Value *[]){a, b});
    return true;
  }
  Value *product = insert_value(n, OP_MATMUL, y->dtype, y->shape, 2, a, b);
  if (!c) {
    take_over(y, OP_MUL, 2, (Value *[]){product, number(n, y->dtype, alpha)});
    return true;
  }
  product = scaled(n, product, alpha);
  take_over(y, OP_ADD, 2, (Value *[]){product, scaled(n, c, beta)});
  return true;
}

/* ---- constant columns ---- */

/* v as a constant [rows, k] or [1, k]: itself, or what an Expand or Tile of rows repeats; NULL if it is not. */
static const Tensor *constant_rows(const Value *v, int rank) {
  for (int depth = 0; depth < 4; depth++) {
    if (v->tensor) return v->tensor->rank == rank ? v->tensor : NULL;
    if (!made_by(v, OP_EXPAND) && !made_by(v, OP_IDENTITY)) return NULL;
    if (v->producer->in[0]->shape.rank != rank || !same_tail(&v->producer->in[0]->shape, &v->shape, 1)) return NULL;
    v = v->producer->in[0];
  }
  return NULL;
}

static bool rows_equal(const Tensor *t) {
  int64_t k = t->dim[t->rank - 1], count = tensor_count(t);
  size_t bytes = (size_t)k * dtype_size(t->dtype);
  for (int64_t row = k; row < count; row += k)
    if (memcmp(t->data, (const char *)t->data + (size_t)row * dtype_size(t->dtype), bytes) != 0) return false;
  return true;
}

/* acc[row, :] += t[row, :] * w[first … first + k, :]; one row stands for all if t's are equal. */
static void add_product(double *acc, int64_t rows, const Tensor *t, const Tensor *w, int64_t first) {
  int64_t k = t->dim[t->rank - 1], n = w->dim[1], own_rows = tensor_count(t) / k;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < k; i++) {
      double x = tensor_number(t, (own_rows > r ? r : 0) * k + i);
      for (int64_t j = 0; j < n; j++) acc[r * n + j] += x * tensor_number(w, (first + i) * n + j);
    }
}

/* The rows of w that meet the operands of the Concat that are not constant. */
static Value *remaining_rows(const Node *concat, Value *w, int rank, int64_t kept) {
  const Tensor *t = w->tensor;
  size_t line = (size_t)t->dim[1] * dtype_size(t->dtype), at = 0, row = 0;
  int64_t dims[2] = {kept, t->dim[1]};
  Tensor *out = tensor_new(w->graph->ctx, t->dtype, 2, dims, NULL);
  for (int i = 0; i < concat->n_in; i++) {
    size_t k = (size_t)concat->in[i]->shape.dim[rank - 1].n;
    if (!constant_rows(concat->in[i], rank)) {
      memcpy((char *)tensor_writable(out) + at * line, (const char *)t->data + row * line, k * line);
      at += k;
    }
    row += k;
  }
  Value *v = graph_constant(w->graph, w->name, out);
  v->tasks = w->tasks;
  return v;
}

typedef struct {
  int n_dynamic;
  int64_t kept; /* columns that are not constant */
  bool equal_rows, any_constant;
} Columns;

static bool look_at_columns(const Node *concat, int rank, Columns *k) {
  *k = (Columns){.equal_rows = true};
  for (int i = 0; i < concat->n_in; i++) {
    const Value *v = concat->in[i];
    const Tensor *t = constant_rows(v, rank);
    if (!v || !shape_known(&v->shape)) return false;
    if (t) {
      k->any_constant = true;
      if (!rows_equal(t)) k->equal_rows = false;
    } else {
      k->n_dynamic++;
      k->kept += v->shape.dim[rank - 1].n;
    }
  }
  return k->any_constant && k->n_dynamic > 0;
}

/* The constant part's product, one row [N] if all rows are alike, else of the whole leading shape. */
static Value *constant_product(const Node *n, const Node *concat, const Columns *k) {
  const Tensor *w = n->in[1]->tensor;
  Shape lead = n->out[0]->shape;
  int64_t dims[MAX_RANK], rows = 1, row = 0;
  int rank = k->equal_rows ? 1 : lead.rank;
  for (int i = 0; i < rank - 1; i++) rows *= dims[i] = lead.dim[i].n;
  dims[rank - 1] = w->dim[1];
  double *acc = ctx_array(n->graph->ctx, (size_t)(rows * w->dim[1]), sizeof *acc);
  for (int i = 0; i < concat->n_in; i++) {
    const Tensor *t = constant_rows(concat->in[i], lead.rank);
    if (t) add_product(acc, rows, t, w, row);
    row += concat->in[i]->shape.dim[lead.rank - 1].n;
  }
  Value *v = constant_doubles(n->graph, NULL, n->out[0]->dtype, rank, dims, acc);
  v->tasks = n->tasks;
  return v;
}

/* A constant of fewer rows than the whole is only known to broadcast if it has one. */
static bool rows_whole_or_one(const Node *concat, int rank) {
  int64_t whole = 1;
  for (int i = 0; i < rank - 1; i++) whole *= concat->out[0]->shape.dim[i].n;
  for (int i = 0; i < concat->n_in; i++) {
    const Tensor *t = constant_rows(concat->in[i], rank);
    int64_t rows = t ? tensor_count(t) / t->dim[rank - 1] : 1;
    if (rows != 1 && rows != whole) return false;
  }
  return true;
}

bool split_constant_columns(Node *n) {
  if (n->op != OP_MATMUL || n->expr || !made_by(n->in[0], OP_CONCAT)) return false;
  Node *concat = n->in[0]->producer;
  Value *w = n->in[1], *y = n->out[0];
  int rank = n->in[0]->shape.rank;
  Columns k;
  if (!w->tensor || w->tensor->rank != 2 || rank < 2 || !dtype_is_float(y->dtype) || !shape_known(&y->shape))
    return false;
  if (axis_at(node_int(concat, "axis", 0), rank) != rank - 1 || !look_at_columns(concat, rank, &k)) return false;
  if (!rows_whole_or_one(concat, rank)) return false;
  Value *dynamic[16] = {NULL};
  int n_dynamic = 0;
  for (int i = 0; i < concat->n_in; i++)
    if (!constant_rows(concat->in[i], rank) && n_dynamic < 16) dynamic[n_dynamic++] = concat->in[i];
  if (n_dynamic != k.n_dynamic) return false;
  Value *a = dynamic[0];
  if (n_dynamic > 1) {
    Shape s = n->in[0]->shape;
    s.dim[rank - 1].n = k.kept;
    a = graph_value(n->graph, "Concat", y->dtype, s);
    node_set_int(graph_node(n->graph, n, OP_CONCAT, concat->name, n_dynamic, dynamic, 1, &a), "axis", rank - 1);
  }
  Value *product = insert_value(n, OP_MATMUL, y->dtype, y->shape, 2, a, remaining_rows(concat, w, rank, k.kept));
  take_over(y, OP_ADD, 2, (Value *[]){product, constant_product(n, concat, &k)});
  return true;
}
