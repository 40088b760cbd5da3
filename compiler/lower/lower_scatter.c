/* ScatterElements, ScatterND: the data is copied to the output, then updated there in the order of the indices. */
#include "loops.h"

#include <string.h>

/* How an element and its update are combined: the text of COMBINE and a word for the kernel's name. */
static const char *combine_function(Program *p, const Node *n, DType t, const char **word) {
  static const struct {
    const char *name, *real, *integer;
  } forms[] = {
      {"none", "update", "update"},
      {"add", "old + update", "moecc_add_%s(old, update)"},
      {"mul", "old * update", "moecc_mul_%s(old, update)"},
      {"max", "moecc_max_%s(old, update)", "moecc_max_%s(old, update)"},
      {"min", "moecc_min_%s(old, update)", "moecc_min_%s(old, update)"},
  };
  Ctx *c = p->ctx;
  const char *reduction = node_string(n, "reduction", "none");
  for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
    if (strcmp(forms[i].name, reduction) != 0) continue;
    bool real = t == DT_F32 || t == DT_F64, none = i == 0;
    if (!none && (t == DT_BOOL || t == DT_F16 || t == DT_BF16))
      ctx_fail(c, n, "reduction \"%s\" does not work on %s", reduction, dtype_name(t));
    const char *pattern = real ? forms[i].real : forms[i].integer, *at = strstr(pattern, "%s");
    const char *text = at ? ctx_format(c, "%.*s%s%s", (int)(at - pattern), pattern, dtype_short(t), at + 2) : pattern;
    *word = none ? "" : ctx_format(c, "%s_", reduction);
    return ctx_format(c, "static inline %s COMBINE(%s old, %s update)\n{\n%s  return %s;\n}\n", dtype_c(t), dtype_c(t),
                      dtype_c(t), none ? "  (void)old;\n" : "", text);
  }
  ctx_fail(c, n, "reduction \"%s\" is not one of none, add, mul, max, min", reduction);
}

static Kernel *scatter_kernel(Program *p, const Node *n, const char *template, DType t, DType index) {
  const char *word, *combine = combine_function(p, n, t, &word);
  const Hole holes[] = {{"T", dtype_c(t)}, {"I", dtype_c(index)}, {"COMBINE", combine}, {0}};
  const char *name = ctx_format(p->ctx, "%s_%s%s_%s", template, word, dtype_short(t), dtype_short(index));
  return low_kernel(p, template, name, holes);
}

static void scatter_elements(Program *p, Node *n, const View *y) {
  View index = low_packed(p, n->in[1]), updates = low_packed(p, n->in[2]);
  int axis = normal_axis(p->ctx, n, node_int(n, "axis", 0), y->rank);
  int64_t dims[2 * MAX_RANK];
  for (int i = 0; i < y->rank; i++) {
    dims[2 * i] = index.dim[i];
    dims[2 * i + 1] = i == axis ? 0 : y->stride[i];
  }
  Step *s = low_call(p, n, scatter_kernel(p, n, "scatter_elements", y->dtype, index.dtype));
  low_read(s, &index);
  low_read(s, &updates);
  low_update(s, y);
  low_size(s, view_count(&index));
  low_int(s, y->dim[axis]);
  low_int(s, y->stride[axis]);
  low_size(s, y->rank);
  low_table(s, dims, 2 * (size_t)y->rank);
}

static void scatter_nd(Program *p, Node *n, const View *y) {
  View index = low_packed(p, n->in[1]), updates = low_packed(p, n->in[2]);
  int width = (int)index.dim[index.rank - 1];
  if (width > y->rank) ctx_fail(p->ctx, n, "indices of %d coordinates do not fit rank %d", width, y->rank);
  int64_t dims[2 * MAX_RANK], inner = 1, count = 1;
  for (int i = width; i < y->rank; i++) inner *= y->dim[i];
  for (int i = 0; i < index.rank - 1; i++) count *= index.dim[i];
  for (int i = 0; i < width; i++) {
    dims[2 * i] = y->dim[i];
    dims[2 * i + 1] = y->stride[i];
  }
  Step *s = low_call(p, n, scatter_kernel(p, n, "scatter_nd", y->dtype, index.dtype));
  low_read(s, &index);
  low_read(s, &updates);
  low_update(s, y);
  low_size(s, count);
  low_size(s, width);
  low_size(s, inner);
  low_table(s, dims, 2 * (size_t)width);
}

void lower_scatter(Program *p, Node *n) {
  no_expression(p, n);
  View x = low_view(p, n->in[0]), y = low_output(p, n->out[0], NULL);
  low_copy(p, n, &x, &y);
  if (shape_count(&n->in[1]->shape) == 0) return;
  if (n->op == OP_SCATTER_ELEMENTS)
    scatter_elements(p, n, &y);
  else
    scatter_nd(p, n, &y);
}
