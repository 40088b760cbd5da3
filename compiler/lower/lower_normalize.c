/* Layer, RMS, instance, group and batch normalisation.
 *
 * Layers of floats whose rows are contiguous go to kernels on vectors; layers of other types, instances and groups to
 * one scalar template with statistics in double. Batch normalisation at inference is an elementwise expression.
 */
#include "gemm.h"

/* ---- rows that are layers ---------------------------------------------------------------------------------------- */

/* x as rows of the trailing axes from `axis` on, as it lies if the rows are dense and one stride leads to the next. */
static bool rows_of(const View *x, int axis, int64_t *rows, int64_t *n, int64_t *xs) {
  *rows = *n = 1;
  *xs = 0;
  for (int i = x->rank - 1; i >= axis; i--) {
    if (x->dim[i] != 1 && x->stride[i] != *n) return false;
    *n *= x->dim[i];
  }
  for (int i = axis - 1; i >= 0; i--) {
    if (x->dim[i] == 1) continue;
    if (*rows == 1)
      *xs = x->stride[i];
    else if (x->stride[i] != *xs * *rows)
      return false;
    *rows *= x->dim[i];
  }
  return true;
}

/* The scale or bias of rows of the axes from `axis` on: a view of just those elements, packed (NULL value: none). */
static View row_weights(Program *p, const Node *n, Value *v, const View *x, int axis) {
  View w = low_view(p, v), b = view_broadcast(&w, x->rank, x->dim), row = b;
  for (int i = 0; i < axis; i++)
    if (b.stride[i] != 0 && x->dim[i] != 1)
      ctx_fail(p->ctx, n, "scale and bias may only vary along the normalised axes");
  row.rank = x->rank - axis;
  for (int i = 0; i < row.rank; i++) {
    row.dim[i] = b.dim[axis + i];
    row.stride[i] = b.stride[axis + i];
  }
  return view_is_packed(&row) ? row : low_dense(p, n, &row, NULL, true);
}

static Kernel *any_kernel(Program *p, DType t, bool centered) {
  const Hole holes[] = {{"T", dtype_c(t)}, {"CENTERED", centered ? "1" : "0"}, {0}};
  const char *name = ctx_format(p->ctx, centered ? "normalize_%s" : "normalize_rms_%s", dtype_short(t));
  return low_kernel(p, "normalize_any", name, holes);
}

static Kernel *layer_kernel(Program *p, const Epilogue *e) {
  const Hole holes[] = {e->function ? (Hole){"EPILOGUE", e->function} : (Hole){0}, {0}};
  return low_kernel(p, "layer_norm_vf", ctx_format(p->ctx, "layer_norm_f32%s", e->suffix), holes);
}

/* Only layer normalisation of floats along the last axis has an epilogue, whose columns these are. */
static bool has_epilogue(const Node *n) {
  int64_t rank = n->in[0]->shape.rank, axis = node_int(n, "axis", -1);
  bool last = axis == -1 || axis == rank - 1;
  return n->op == OP_LAYER_NORMALIZATION && n->in[0]->dtype == DT_F32 && last;
}

static void layer_norm(Program *p, Node *n) {
  if (!has_epilogue(n) && gemm_unfused(p, n, layer_norm)) return;
  bool centered = n->op == OP_LAYER_NORMALIZATION;
  View x = low_view(p, n->in[0]);
  int axis = normal_axis(p->ctx, n, node_int(n, "axis", -1), x.rank);
  int64_t rows, length, xs;
  bool vector = x.dtype == DT_F32;
  if (!rows_of(&x, axis, &rows, &length, &xs) || (!vector && xs != length && rows > 1)) {
    x = low_packed(p, n->in[0]);
    rows_of(&x, axis, &rows, &length, &xs);
  }
  View scale = row_weights(p, n, n->in[1], &x, axis), bias;
  bool has_bias = n->n_own > 2 && n->in[2] != NULL;
  if (has_bias) bias = row_weights(p, n, n->in[2], &x, axis);
  View y = low_output(p, n->out[0], NULL);
  double epsilon = node_float(n, "epsilon", 1e-5);
  Epilogue e = low_epilogue(p, n, y.rank, y.dim, NULL);
  Kernel *k = !vector    ? any_kernel(p, x.dtype, centered)
              : centered ? layer_kernel(p, &e)
                         : low_kernel(p, "rms_norm_vf", "rms_norm_f32", NULL);
  Step *s = low_call(p, n, k);
  low_read(s, &x);
  low_read(s, &scale);
  if (has_bias)
    low_read(s, &bias);
  else if (centered || !vector)
    low_null(s, x.dtype);
  low_write(s, &y);
  if (vector && centered) low_operands(s, &e);
  low_size(s, rows);
  low_size(s, length);
  if (vector) {
    low_int(s, xs);
    low_float(s, epsilon);
    return;
  }
  low_size(s, 1);      /* every row has the same scale and bias, */
  low_size(s, length); /* one for each element */
  low_size(s, 1);
  low_double(s, epsilon);
}

/* ---- channels and groups of them --------------------------------------------------------------------------------- */

static void channel_groups(Program *p, Node *n, int64_t groups) {
  View x = low_packed(p, n->in[0]), scale = low_packed(p, n->in[1]), bias = low_packed(p, n->in[2]);
  int64_t channels = x.dim[1], pixels = 1;
  for (int i = 2; i < x.rank; i++) pixels *= x.dim[i];
  if (groups < 1 || channels % groups != 0)
    ctx_fail(p->ctx, n, "%lld channels cannot be parted into %lld groups", (long long)channels, (long long)groups);
  View y = low_output(p, n->out[0], NULL);
  Step *s = low_call(p, n, any_kernel(p, x.dtype, true));
  low_read(s, &x);
  low_read(s, &scale);
  low_read(s, &bias);
  low_write(s, &y);
  low_size(s, x.dim[0] * groups);
  low_size(s, channels / groups * pixels);
  low_size(s, groups);
  low_size(s, channels / groups);
  low_size(s, pixels);
  low_double(s, node_float(n, "epsilon", 1e-5));
}

void lower_normalize(Program *p, Node *n) {
  if (n->op == OP_BATCH_NORMALIZATION) {
    low_batch_normalization(p, n);
    return;
  }
  if (n->op == OP_LAYER_NORMALIZATION || n->op == OP_RMS_NORMALIZATION) {
    layer_norm(p, n);
    return;
  }
  no_expression(p, n);
  channel_groups(p, n, n->op == OP_GROUP_NORMALIZATION ? node_int(n, "num_groups", 1) : n->in[0]->shape.dim[1].n);
}
