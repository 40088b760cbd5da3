/* Gather, GatherElements, GatherND. A constant single index is a slice, seen through a view. */
#include "loops.h"

static Kernel *gather_kernel(Program *p, const char *template, DType t, DType index) {
  const Hole holes[] = {{"T", dtype_c(t)}, {"I", dtype_c(index)}, {0}};
  return low_kernel(p, template, ctx_format(p->ctx, "%s_%s_%s", template, dtype_short(t), dtype_short(index)), holes);
}

static int64_t product(const View *w, int from, int to) {
  int64_t count = 1;
  for (int i = from; i < to; i++) count *= w->dim[i];
  return count;
}

/* ---- Gather ------------------------------------------------------------------------------------------------------ */

/* The slice at a constant index: the axis gives way to the index's dimensions, all of length 1. */
static View slice_at(const View *x, int axis, int64_t at, int index_rank) {
  View cut = view_slice(x, axis, at, 1, 1), out = cut;
  out.rank = x->rank - 1 + index_rank;
  for (int i = 0; i < index_rank; i++) {
    out.dim[axis + i] = 1;
    out.stride[axis + i] = 0;
  }
  for (int i = axis + 1; i < x->rank; i++) {
    out.dim[i - 1 + index_rank] = cut.dim[i];
    out.stride[i - 1 + index_rank] = cut.stride[i];
  }
  return out;
}

static void gather(Program *p, Node *n) {
  int rank = n->in[0]->shape.rank, axis = normal_axis(p->ctx, n, node_int(n, "axis", 0), rank);
  const Tensor *constant = node_const(n, 1);
  if (constant && tensor_count(constant) == 1) {
    View x = low_view(p, n->in[0]);
    int64_t at = tensor_integer(constant, 0);
    if (at < -x.dim[axis] || at >= x.dim[axis])
      ctx_fail(p->ctx, n, "index %lld is out of range for an axis of %lld", (long long)at, (long long)x.dim[axis]);
    low_alias(p, n->out[0], slice_at(&x, axis, at < 0 ? at + x.dim[axis] : at, constant->rank));
    return;
  }
  View x = low_packed(p, n->in[0]), index = low_packed(p, n->in[1]), y = low_output(p, n->out[0], NULL);
  Step *s = low_call(p, n, gather_kernel(p, "gather", x.dtype, index.dtype));
  low_read(s, &x);
  low_read(s, &index);
  low_write(s, &y);
  low_size(s, product(&x, 0, axis));
  low_size(s, x.dim[axis]);
  low_size(s, view_count(&index));
  low_size(s, product(&x, axis + 1, rank));
}

/* ---- GatherElements ---------------------------------------------------------------------------------------------- */

static void gather_elements(Program *p, Node *n) {
  View x = low_packed(p, n->in[0]), index = low_packed(p, n->in[1]), y = low_output(p, n->out[0], NULL);
  int axis = normal_axis(p->ctx, n, node_int(n, "axis", 0), x.rank);
  int64_t dims[2 * MAX_RANK];
  for (int i = 0; i < x.rank; i++) {
    dims[2 * i] = index.dim[i];
    dims[2 * i + 1] = i == axis ? 0 : x.stride[i];
  }
  Step *s = low_call(p, n, gather_kernel(p, "gather_elements", x.dtype, index.dtype));
  low_read(s, &x);
  low_read(s, &index);
  low_write(s, &y);
  low_size(s, view_count(&index));
  low_int(s, x.dim[axis]);
  low_int(s, x.stride[axis]);
  low_size(s, x.rank);
  low_table(s, dims, 2 * (size_t)x.rank);
}

/* ---- GatherND ---------------------------------------------------------------------------------------------------- */

static void gather_nd(Program *p, Node *n) {
  View x = low_packed(p, n->in[0]), index = low_packed(p, n->in[1]), y = low_output(p, n->out[0], NULL);
  int batch = (int)node_int(n, "batch_dims", 0), width = (int)index.dim[index.rank - 1];
  int64_t dims[2 * MAX_RANK];
  if (batch < 0 || batch >= index.rank || batch + width > x.rank)
    ctx_fail(p->ctx, n, "indices of %d coordinates behind %d batch dimensions do not fit rank %d", width, batch,
             x.rank);
  for (int i = 0; i < width; i++) {
    dims[2 * i] = x.dim[batch + i];
    dims[2 * i + 1] = product(&x, batch + i + 1, x.rank);
  }
  Step *s = low_call(p, n, gather_kernel(p, "gather_nd", x.dtype, index.dtype));
  low_read(s, &x);
  low_read(s, &index);
  low_write(s, &y);
  low_size(s, product(&x, 0, batch));
  low_size(s, product(&index, batch, index.rank - 1));
  low_size(s, width);
  low_size(s, product(&x, batch + width, x.rank));
  low_size(s, product(&x, batch, x.rank));
  low_table(s, dims, 2 * (size_t)width);
}

void lower_gather(Program *p, Node *n) {
  no_expression(p, n);
  if (n->op == OP_GATHER)
    gather(p, n);
  else if (shape_count(&n->out[0]->shape) == 0)
    low_output(p, n->out[0], NULL);
  else if (n->op == OP_GATHER_ELEMENTS)
    gather_elements(p, n);
  else
    gather_nd(p, n);
}
