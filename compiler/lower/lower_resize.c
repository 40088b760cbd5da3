/* Resize: per axis a table of source indices and weights, computed here, so that the kernels know nothing of ONNX's
 * modes. Nearest picks elements; linear and cubic go axis by axis, pictures of several channels in one bilinear pass.
 *
 * Coordinates follow the operator's definition in double; where sizes are given, or equal what the scales give, the
 * ratio of lengths is used, multiplied before it is divided by, so that whole coordinates come out whole.
 */
#include "bands.h"
#include "loops.h"
#include "resize.h"

#include <math.h>
#include <string.h>

typedef struct {
  int axis;
  int64_t n, m;    /* lengths of input and output */
  double up, down; /* the scale as a fraction */
  double roi[2];
  size_t taps;
  int64_t *index; /* m * taps */
  double *weight;
  bool *outside; /* m, or NULL: takes extrapolation_value */
} Axis;

typedef struct {
  const Node *node;
  const char *transform, *nearest;
  bool cubic, antialias, exclude, single;
  double cubic_a;
  int n_axes;
  Axis axis[MAX_RANK]; /* those that change */
} Resize;

/* ---- coordinates ------------------------------------------------------------------------------------------------- */

static bool is(const char *a, const char *b) { return strcmp(a, b) == 0; }

/* Nearest is decided at ties, where others compute in float: so do we for scales and regions given as floats. */
static double rounded(const Resize *r, double v) { return r->single ? (double)(float)v : v; }

static double half_pixel(const Resize *r, const Axis *a, double x) {
  double q = (x + 0.5) * a->down / a->up, half = rounded(r, rounded(r, q) - 0.5);
  if (is(r->transform, "pytorch_half_pixel")) return a->m > 1 ? half : 0;
  if (!is(r->transform, "half_pixel_symmetric")) return half;
  double adjustment = (double)a->m / (a->up / a->down * (double)a->n), n = (double)a->n;
  double at = n / 2 * (1 - adjustment) + q - 0.5; /* often whole by symmetry: freed of the error of `adjustment` */
  return fabs(at - rint(at)) < 1e-9 * n ? rint(at) : at;
}

static double crop_coordinate(const Resize *r, const Axis *a, double x) {
  double last = (double)(a->n - 1), start = rounded(r, a->roi[0] * last), length = rounded(r, a->roi[1] - a->roi[0]);
  if (a->m == 1) return rounded(r, 0.5 * (a->roi[0] + a->roi[1]) * last);
  return rounded(r, start + rounded(r, rounded(r, x * length) * last / (double)(a->m - 1)));
}

static double source_coordinate(const Resize *r, const Axis *a, int64_t i) {
  double x = (double)i;
  const char *t = r->transform;
  if (is(t, "align_corners")) return a->m == 1 ? 0 : x * (double)(a->n - 1) / (double)(a->m - 1);
  if (is(t, "asymmetric")) return rounded(r, x * a->down / a->up);
  if (is(t, "tf_half_pixel_for_nn")) return rounded(r, (x + 0.5) * a->down / a->up);
  if (is(t, "tf_crop_and_resize")) return crop_coordinate(r, a, x);
  return half_pixel(r, a, x);
}

static int64_t nearest_index(const char *mode, double x, int64_t n) {
  double r = is(mode, "floor")               ? floor(x)
             : is(mode, "ceil")              ? ceil(x)
             : is(mode, "round_prefer_ceil") ? floor(x + 0.5)
                                             : ceil(x - 0.5);
  return r<0 ? 0 : r>(double)(n - 1) ? n - 1 : (int64_t)r;
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

static double filter(const Resize *r, double x) {
  x = fabs(x);
  if (!r->cubic) return x < 1 ? 1 - x : 0;
  double a = r->cubic_a;
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/* The taps around x: integers within the filter's reach, which antialiasing widens when shrinking. */
static void fill_taps(const Resize *r, Axis *a, int64_t i, int64_t reach, double shrink) {
  double x = source_coordinate(r, a, i), base = floor(x), sum = 0;
  int64_t *index = a->index + (size_t)i * a->taps;
  double *weight = a->weight + (size_t)i * a->taps;
  if (a->outside && (x < 0 || x > (double)(a->n - 1))) a->outside[i] = true;
  for (size_t t = 0; t < a->taps; t++) {
    double at = base + (double)(1 - reach) + (double)t;
    bool inside = at >= 0 && at <= (double)(a->n - 1);
    weight[t] = r->exclude && !inside ? 0 : filter(r, (at - x) * shrink);
    index[t] = at < 0 ? 0 : inside ? (int64_t)at : a->n - 1;
    sum += weight[t];
  }
  bool scale = (r->exclude || r->antialias) && sum != 0;
  for (size_t t = 0; t < a->taps && scale; t++) weight[t] /= sum;
}

static void make_taps(Ctx *c, const Resize *r, Axis *a) {
  double shrink = r->antialias && a->up < a->down ? a->up / a->down : 1;
  int64_t reach = (int64_t)ceil((r->cubic ? 2 : 1) / shrink);
  a->taps = 2 * (size_t)reach;
  a->index = ctx_array(c, (size_t)a->m * a->taps, sizeof *a->index);
  a->weight = ctx_array(c, (size_t)a->m * a->taps, sizeof *a->weight);
  if (is(r->transform, "tf_crop_and_resize")) a->outside = ctx_array(c, (size_t)a->m, sizeof *a->outside);
  for (int64_t i = 0; i < a->m; i++) fill_taps(r, a, i, reach, shrink);
}

/* ---- the node ---------------------------------------------------------------------------------------------------- */

static const Tensor *constant_input(Program *p, const Node *n, int i, const char *what) {
  if (i >= n->n_in || n->in[i] == NULL) return NULL;
  const Tensor *t = node_const(n, i);
  if (t == NULL) ctx_fail(p->ctx, n, "the %s must be constant", what);
  return tensor_count(t) > 0 ? t : NULL;
}

/* The scale of axis a, the k-th of those given. */
static void set_scale(Axis *a, const Tensor *scales, int64_t k) {
  a->up = (double)a->m;
  a->down = (double)a->n;
  if (scales == NULL) return;
  double scale = tensor_number(scales, k);
  if (fabs(scale * (double)a->n - (double)a->m) < 1e-6 * (double)a->m) return;
  a->up = scale;
  a->down = 1;
}

/* With an aspect-ratio policy all axes have one scale, of which the sizes are roundings. */
static void keep_ratio(Resize *r, const char *policy, const Tensor *sizes) {
  double best = 0;
  for (int k = 0; k < r->n_axes; k++) {
    double s = (double)tensor_integer(sizes, k) / (double)r->axis[k].n;
    if (k == 0 || (is(policy, "not_larger") ? s < best : s > best)) best = s;
  }
  for (int k = 0; k < r->n_axes; k++) {
    Axis *a = &r->axis[k];
    if (fabs(best * (double)a->n - (double)a->m) < 1e-9) continue;
    a->up = best;
    a->down = 1;
  }
}

static void drop_unchanged(Resize *r) {
  int left = 0;
  for (int k = 0; k < r->n_axes; k++) {
    const Axis *a = &r->axis[k];
    bool same = a->n == a->m && a->up == a->down && !is(r->transform, "tf_crop_and_resize");
    if (!same || is(r->transform, "tf_half_pixel_for_nn")) r->axis[left++] = *a;
  }
  r->n_axes = left;
}

/* What the attributes say; no axes yet. */
static Resize resize_modes(const Node *n) {
  const char *mode = node_string(n, "mode", "nearest");
  return (Resize){.node = n,
                  .transform = node_string(n, "coordinate_transformation_mode", "half_pixel"),
                  .nearest = node_string(n, "nearest_mode", "round_prefer_floor"),
                  .single = is(mode, "nearest"),
                  .cubic = is(mode, "cubic"),
                  .antialias = node_int(n, "antialias", 0) != 0,
                  .exclude = node_int(n, "exclude_outside", 0) != 0,
                  .cubic_a = node_float(n, "cubic_coeff_a", -0.75)};
}

static Resize read_resize(Program *p, const Node *n) {
  Resize r = resize_modes(n);
  int rank = n->in[0]->shape.rank;
  const int64_t *axes;
  size_t n_axes = node_ints(n, "axes", &axes);
  const Tensor *scales = constant_input(p, n, 2, "scales"), *sizes = constant_input(p, n, 3, "sizes");
  const Tensor *roi = is(r.transform, "tf_crop_and_resize") ? constant_input(p, n, 1, "roi") : NULL;
  r.n_axes = n_axes ? (int)n_axes : rank;
  for (int k = 0; k < r.n_axes; k++) {
    Axis *a = &r.axis[k];
    a->axis = n_axes ? normal_axis(p->ctx, n, axes[k], rank) : k;
    a->n = n->in[0]->shape.dim[a->axis].n;
    a->m = n->out[0]->shape.dim[a->axis].n;
    if (a->n == 0 && a->m > 0) ctx_fail(p->ctx, n, "an empty axis cannot be resized");
    a->roi[0] = roi ? tensor_number(roi, k) : 0;
    a->roi[1] = roi ? tensor_number(roi, r.n_axes + k) : 1;
    set_scale(a, sizes ? NULL : scales, k);
  }
  const char *policy = node_string(n, "keep_aspect_ratio_policy", "stretch");
  if (sizes && !is(policy, "stretch")) keep_ratio(&r, policy, sizes);
  drop_unchanged(&r);
  return r;
}

/* ---- nearest ----------------------------------------------------------------------------------------------------- */

static void fill_outside(Program *p, const Node *n, const Resize *r) {
  View out = low_view(p, n->out[0]);
  for (int k = 0; k < r->n_axes; k++) {
    const Axis *a = &r->axis[k];
    for (int64_t i = 0, j; a->outside && i < a->m; i = j + 1) {
      for (j = i; j < a->m && a->outside[j];) j++;
      if (j == i) continue;
      View part = view_slice(&out, a->axis, i, j - i, 1);
      low_fill(p, n, node_float(n, "extrapolation_value", 0), &part);
    }
  }
}

static void resize_nearest(Program *p, Node *n, Resize *r) {
  int64_t *pick[MAX_RANK] = {NULL};
  View x = low_view(p, n->in[0]);
  for (int k = 0; k < r->n_axes; k++) {
    Axis *a = &r->axis[k];
    int64_t *list = pick[a->axis] = ctx_array(p->ctx, (size_t)a->m, sizeof *list);
    if (is(r->transform, "tf_crop_and_resize")) a->outside = ctx_array(p->ctx, (size_t)a->m, sizeof *a->outside);
    for (int64_t i = 0; i < a->m; i++) {
      double at = source_coordinate(r, a, i);
      if (a->outside && (at < 0 || at > (double)(a->n - 1))) a->outside[i] = true;
      list[i] = nearest_index(r->nearest, at, a->n);
    }
  }
  low_pick(p, n, &x, n->out[0], pick);
}

/* ---- linear, cubic ----------------------------------------------------------------------------------------------- */

/* The weights as a constant of floats or doubles. */
static View weight_view(Ctx *c, const Axis *a, DType t) {
  int64_t count = a->m * (int64_t)a->taps;
  Tensor *w = tensor_new(c, t, 1, &count, NULL);
  float *f = tensor_writable(w);
  double *d = tensor_writable(w);
  for (int64_t i = 0; i < count; i++) {
    if (t == DT_F32)
      f[i] = (float)a->weight[i];
    else
      d[i] = a->weight[i];
  }
  View v = {.constant = w, .dtype = t, .rank = 1, .dim = {count}, .stride = {1}};
  return v;
}

static bool is_bilinear_picture(const Resize *r, const View *x) {
  if (x->dtype != DT_F32 || x->rank != 4 || r->n_axes != 2 || x->dim[1] < 4) return false;
  return r->axis[0].axis == 2 && r->axis[1].axis == 3 && r->axis[0].taps == 2 && r->axis[1].taps == 2;
}

/* Rows first … of y, which are in y, from those of x from `origin` on, which are in x. */
static void bilinear_step(Program *p, const Node *n, const Resize *r, const View *x, int64_t origin, const View *y,
                          int64_t pitch, int64_t first) {
  const Axis *row = &r->axis[0], *column = &r->axis[1];
  View wy = weight_view(p->ctx, row, DT_F32), wx = weight_view(p->ctx, column, DT_F32);
  int64_t rows = y->dim[2], *index = ctx_array(p->ctx, 2 * (size_t)rows, sizeof *index);
  for (int64_t i = 0; i < 2 * rows; i++) index[i] = row->index[2 * first + i] - origin;
  wy.offset = 2 * first;
  Step *s = low_call(p, n, low_kernel(p, "resize_bilinear_vf", "resize_bilinear_f32", NULL));
  low_read(s, x);
  low_read(s, &wy);
  low_read(s, &wx);
  low_write(s, y);
  low_size(s, x->dim[0]);
  low_size(s, x->dim[2]);
  low_size(s, column->n);
  low_size(s, rows);
  low_size(s, column->m);
  low_size(s, x->dim[1]);
  low_size(s, pitch);
  low_table(s, index, 2 * (size_t)rows);
  low_table(s, column->index, 2 * (size_t)column->m);
}

static void resize_bilinear(Program *p, Node *n, const Resize *r) {
  static const int nhwc[4] = {0, 2, 3, 1};
  int64_t pitch;
  View x = low_order(p, n->in[0], nhwc), y = low_output_rows(p, n->out[0], nhwc, &pitch);
  bilinear_step(p, n, r, &x, 0, &y, pitch, 0);
}

/* f32 on vectors; other types through double, converted back by the last pass. */
static Kernel *axis_kernel(Program *p, DType from, DType to) {
  Ctx *c = p->ctx;
  if (from == DT_F32) return low_kernel(p, "resize_axis_vf", "resize_axis_f32", NULL);
  const char *type = dtype_c(to);
  const char *value = dtype_is_float(to) ? "v" : ctx_format(c, "moecc_trunc_%s(v)", dtype_short(to));
  const char *round = ctx_format(c, "static inline %s ROUND(double v)\n{\n  return (%s)%s;\n}\n", type, type, value);
  const Hole holes[] = {{"T", dtype_c(from)}, {"R", type}, {"ROUND", round}, {0}};
  return low_kernel(p, "resize_axis_any", ctx_format(c, "resize_axis_%s_%s", dtype_short(from), dtype_short(to)),
                    holes);
}

/* One pass: x with axis a resampled, into `to`, both dense in `order`. */
static void resize_axis(Program *p, const Node *n, const Axis *a, const View *x, const View *to, const int *order) {
  int64_t outer = 1, inner = 1;
  int at = 0;
  while (order[at] != a->axis) outer *= x->dim[order[at++]];
  for (int i = at + 1; i < x->rank; i++) inner *= x->dim[order[i]];
  View w = weight_view(p->ctx, a, x->dtype == DT_F32 ? DT_F32 : DT_F64);
  Step *s = low_call(p, n, axis_kernel(p, x->dtype, to->dtype));
  low_read(s, x);
  low_read(s, &w);
  low_write(s, to);
  low_size(s, outer);
  low_size(s, a->n);
  low_size(s, a->m);
  low_size(s, inner);
  low_size(s, (int64_t)a->taps);
  low_table(s, a->index, (size_t)a->m * a->taps);
}

/* The axes that shrink most come first. */
static void sort_axes(Resize *r) {
  for (int i = 1; i < r->n_axes; i++)
    for (int k = i; k > 0; k--) {
      Axis *a = &r->axis[k - 1], *b = &r->axis[k], t = *a;
      if ((double)a->m / (double)a->n <= (double)b->m / (double)b->n) break;
      *a = *b;
      *b = t;
    }
}

static void resize_by_axes(Program *p, Node *n, Resize *r) {
  if (r->n_axes == 0 && n->out[0]->dtype == n->in[0]->dtype) { /* nothing changes */
    low_alias(p, n->out[0], low_view(p, n->in[0]));
    return;
  }
  int order[MAX_RANK];
  View x = low_view(p, n->in[0]);
  view_order(&x, order);
  x = low_order(p, n->in[0], order);
  View out = low_output(p, n->out[0], order);
  if (r->n_axes == 0) low_copy(p, n, &x, &out);
  sort_axes(r);
  for (int k = 0; k < r->n_axes; k++) {
    View to = out;
    if (k + 1 < r->n_axes) {
      View shape = x;
      shape.dim[r->axis[k].axis] = r->axis[k].m;
      to = low_temp(p, n->out[0]->name, x.dtype == DT_F32 ? DT_F32 : DT_F64, view_count(&shape));
      to.rank = x.rank;
      int64_t stride = 1;
      for (int i = x.rank - 1; i >= 0; i--) {
        to.dim[order[i]] = shape.dim[order[i]];
        to.stride[order[i]] = stride;
        stride *= shape.dim[order[i]];
      }
    }
    resize_axis(p, n, &r->axis[k], &x, &to, order);
    x = to;
  }
}

/* Nearest as a resampling of one tap. */
ResizeTaps resize_taps(Program *p, const Node *n, int64_t from, int64_t to) {
  Resize r = resize_modes(n);
  Axis a = {.n = from, .m = to, .up = (double)to, .down = (double)from, .roi = {0, 1}};
  if (!r.single) {
    make_taps(p->ctx, &r, &a);
    return (ResizeTaps){a.taps, a.index, a.weight};
  }
  ResizeTaps t = {1, ctx_array(p->ctx, (size_t)to, sizeof *t.index), ctx_array(p->ctx, (size_t)to, sizeof *t.weight)};
  for (int64_t i = 0; i < to; i++) {
    t.index[i] = nearest_index(r.nearest, source_coordinate(&r, &a, i), from);
    t.weight[i] = 1;
  }
  return t;
}

void lower_resize(Program *p, Node *n) {
  no_expression(p, n);
  Resize r = read_resize(p, n);
  if (shape_count(&n->out[0]->shape) == 0) {
    low_output(p, n->out[0], NULL);
    return;
  }
  if (is(node_string(n, "mode", "nearest"), "nearest"))
    resize_nearest(p, n, &r);
  else {
    View x = low_view(p, n->in[0]);
    for (int k = 0; k < r.n_axes; k++) make_taps(p->ctx, &r, &r.axis[k]);
    if (is_bilinear_picture(&r, &x))
      resize_bilinear(p, n, &r);
    else
      resize_by_axes(p, n, &r);
  }
  fill_outside(p, n, &r);
}

/* ---- in bands (bands.h) ------------------------------------------------------------------------------------------ */

static Resize read_linear(Program *p, const Node *n) {
  Resize r = read_resize(p, n);
  if (r.n_axes != 2) ctx_fail(p->ctx, n, "only rows and columns are resampled in bands");
  for (int k = 0; k < 2; k++) make_taps(p->ctx, &r, &r.axis[k]);
  return r;
}

/* Linear resampling of a picture's rows and columns, as resize_bilinear does it. */
bool resize_can_band(const Program *p, const Node *n) {
  (void)p;
  const Shape *x = &n->in[0]->shape, *y = &n->out[0]->shape;
  if (n->expr || strcmp(node_string(n, "mode", "nearest"), "linear") != 0 || node_int(n, "antialias", 0)) return false;
  if (is(node_string(n, "coordinate_transformation_mode", "half_pixel"), "tf_crop_and_resize")) return false;
  if (n->in[0]->dtype != DT_F32 || n->in[0]->tensor || x->rank != 4 || x->dim[1].n < 4 || shape_count(x) == 0)
    return false;
  return x->dim[0].n == y->dim[0].n && x->dim[1].n == y->dim[1].n && x->dim[2].n != y->dim[2].n &&
         x->dim[3].n != y->dim[3].n;
}

void resize_reach(Program *p, const Node *n, int64_t from, int64_t rows, int64_t *first, int64_t *count) {
  Resize r = read_linear(p, n);
  const int64_t *index = r.axis[0].index;
  int64_t last = *first = index[2 * from];
  for (int64_t i = 2 * from; i < 2 * (from + rows); i++) {
    if (index[i] < *first) *first = index[i];
    if (index[i] > last) last = index[i];
  }
  *count = last + 1 - *first;
}

void resize_band(Program *p, Node *n, const RowBand *x, const RowBand *y) {
  Resize r = read_linear(p, n);
  bilinear_step(p, n, &r, &x->view, x->first, &y->view, y->view.stride[3], y->first);
}
