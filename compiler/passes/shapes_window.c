/* Shape rules of operators that slide a window or resample: Conv, ConvTranspose, pools, Resize, GridSample, Col2Im.
 *
 * The rules also make the window explicit: afterwards the node has kernel_shape, strides, dilations and pads (and
 * ConvTranspose output_padding) in full and no auto_pad or output_shape, so that nobody else needs to know those.
 */
#include "shapes.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { MAX_SPATIAL = MAX_RANK - 2, MAX_EXTENT = 1 << 30 /* products of two fit 63 bits */ };

typedef struct {
  int n; /* spatial dimensions */
  int64_t in[MAX_SPATIAL], kernel[MAX_SPATIAL], stride[MAX_SPATIAL], dilation[MAX_SPATIAL];
  int64_t pad[2 * MAX_SPATIAL]; /* all the begins, then all the ends */
} Window;

/* Attribute `name` of `count` integers within least … MAX_EXTENT; absent: all `fallback`. */
static void window_ints(const Node *n, const char *name, int count, int64_t least, int64_t fallback, int64_t *out) {
  const int64_t *v;
  const Attr *a = node_attr(n, name);
  size_t given = node_ints(n, name, &v);
  if (a && given != (size_t)count)
    shape_error(n, "attribute %s has %zu numbers and needs %d: %s", name, given, count, input_text(n, 0));
  for (int i = 0; i < count; i++) {
    out[i] = a ? v[i] : fallback;
    if (out[i] < least || out[i] > MAX_EXTENT)
      shape_error(n, "attribute %s is %" PRId64 ": it must be %" PRId64 " to %d", name, out[i], least, MAX_EXTENT);
  }
}

static void keep_ints(Node *n, const char *name, int count, const int64_t *v) {
  const int64_t *old;
  size_t given = node_ints(n, name, &old);
  if (given == (size_t)count && memcmp(old, v, (size_t)count * sizeof *v) == 0) return;
  node_set_ints(n, name, (size_t)count, v);
}

static void keep_window(Node *n, const Window *w) {
  keep_ints(n, "kernel_shape", w->n, w->kernel);
  keep_ints(n, "strides", w->n, w->stride);
  keep_ints(n, "dilations", w->n, w->dilation);
  keep_ints(n, "pads", 2 * w->n, w->pad);
  node_drop_attr(n, "auto_pad");
}

/* Spatial sizes and attributes; the kernel's shape comes from the attribute or, if `weight`, from operand 1. */
static Window read_window(const Node *n, bool weight) {
  need_rank_within(n, 0, 3, MAX_RANK);
  const Shape *x = input_shape(n, 0);
  Window w = {.n = x->rank - 2};
  if (weight) need_rank(n, 1, x->rank);
  for (int i = 0; i < w.n; i++) {
    if (x->dim[2 + i].sym || x->dim[2 + i].n > INT64_MAX / 4)
      shape_error(n, "the spatial dimensions must be numbers, not too large: %s", input_text(n, 0));
    w.in[i] = x->dim[2 + i].n;
  }
  window_ints(n, "strides", w.n, 1, 1, w.stride);
  window_ints(n, "dilations", w.n, 1, 1, w.dilation);
  window_ints(n, "pads", 2 * w.n, 0, 0, w.pad);
  if (node_attr(n, "kernel_shape") || !weight) window_ints(n, "kernel_shape", w.n, 1, 0, w.kernel);
  for (int i = 0; weight && i < w.n; i++) {
    int64_t extent = input_shape(n, 1)->dim[2 + i].n;
    if (extent < 1 || extent > MAX_EXTENT || (node_attr(n, "kernel_shape") && extent != w.kernel[i]))
      shape_error(n, "the weight %s does not fit kernel_shape, or is empty", input_text(n, 1));
    w.kernel[i] = extent;
  }
  return w;
}

static int64_t effective(const Window *w, int i) { return w->dilation[i] * (w->kernel[i] - 1) + 1; }

/* Divides the padding that SAME wants; true if auto_pad decided it. */
static bool auto_pad(const Node *n, Window *w, int64_t *out) {
  const char *mode = node_string(n, "auto_pad", "NOTSET");
  bool upper = strcmp(mode, "SAME_UPPER") == 0, lower = strcmp(mode, "SAME_LOWER") == 0,
       valid = strcmp(mode, "VALID") == 0;
  if (!upper && !lower && !valid) {
    if (strcmp(mode, "NOTSET") != 0 && *mode) shape_error(n, "auto_pad \"%s\" does not exist", mode);
    return false;
  }
  memset(w->pad, 0, sizeof w->pad);
  for (int i = 0; (upper || lower) && i < w->n; i++) {
    out[i] = (w->in[i] + w->stride[i] - 1) / w->stride[i];
    int64_t total = (out[i] - 1) * w->stride[i] + effective(w, i) - w->in[i];
    if (total < 0) total = 0;
    w->pad[i] = upper ? total / 2 : total - total / 2;
    w->pad[w->n + i] = total - w->pad[i];
  }
  return upper || lower;
}

/* How many positions a window has; with ceil_mode also the last, partial one unless it would begin in the end padding.
 * That may be the only one, of a window larger than the picture. */
static int64_t positions(const Node *n, const Window *w, int i, bool ceil_mode) {
  int64_t room = w->in[i] + w->pad[i] + w->pad[w->n + i] - effective(w, i);
  if (room < 0 && ceil_mode && -room < w->stride[i]) return 1;
  if (room < 0)
    shape_error(n,
                "the window of %" PRId64 " (dilated) does not fit %" PRId64 " elements padded by %" PRId64
                " and %" PRId64 ": %s",
                effective(w, i), w->in[i], w->pad[i], w->pad[w->n + i], input_text(n, 0));
  int64_t count = room / w->stride[i] + 1;
  if (ceil_mode && room % w->stride[i] && count * w->stride[i] < w->in[i] + w->pad[i]) count++;
  return count;
}

static void window_output(Node *n, const Window *w, Dim channels, const int64_t *out) {
  Shape s = *input_shape(n, 0);
  s.dim[1] = channels;
  for (int i = 0; i < w->n; i++) s.dim[2 + i] = dim_of(out[i]);
  set_output(n, 0, n->in[0]->dtype, &s);
}

static void need_bias(const Node *n, int64_t channels) {
  if (!has_input(n, 2)) return;
  need_same_type(n, 2);
  need_rank(n, 2, 1);
  if (!dim_is(input_shape(n, 2)->dim[0], channels))
    shape_error(n, "the bias %s does not fit %" PRId64 " output channels", input_text(n, 2), channels);
}

bool infer_conv(Node *n) {
  need_same_type(n, 1);
  Window w = read_window(n, true);
  const Shape *x = input_shape(n, 0), *k = input_shape(n, 1);
  int64_t group = node_int(n, "group", 1), wanted;
  if (group < 1 || !size_mul(k->dim[1].n, group, &wanted) || !dim_is(x->dim[1], wanted) || k->dim[0].n % group)
    shape_error(n, "the channels of %s and the weight %s do not fit %" PRId64 " groups", input_text(n, 0),
                input_text(n, 1), group);
  need_bias(n, k->dim[0].n);
  int64_t out[MAX_SPATIAL];
  if (!auto_pad(n, &w, out))
    for (int i = 0; i < w.n; i++) out[i] = positions(n, &w, i, false);
  keep_window(n, &w);
  window_output(n, &w, k->dim[0], out);
  return true;
}

/* Padding that gives the wanted output; what cannot be halved goes to the end, or with SAME_LOWER to the beginning. */
static void pad_for_output(Window *w, int i, int64_t full, int64_t wanted, bool lower, int64_t *extra) {
  int64_t total = full - wanted;
  if (total < 0) {
    *extra += -total;
    total = 0;
  }
  w->pad[i] = lower ? total - total / 2 : total / 2;
  w->pad[w->n + i] = total - w->pad[i];
}

bool infer_conv_transpose(Node *n) {
  need_same_type(n, 1);
  Window w = read_window(n, true);
  const Shape *x = input_shape(n, 0), *k = input_shape(n, 1);
  int64_t group = node_int(n, "group", 1), channels;
  if (group < 1 || !dim_equal(x->dim[1], k->dim[0]) || k->dim[0].n % group || !size_mul(k->dim[1].n, group, &channels))
    shape_error(n, "the channels of %s and the weight %s do not fit %" PRId64 " groups", input_text(n, 0),
                input_text(n, 1), group);
  need_bias(n, channels);
  int64_t extra[MAX_SPATIAL], out[MAX_SPATIAL], wanted[2 + MAX_SPATIAL];
  window_ints(n, "output_padding", w.n, 0, 0, extra);
  const char *mode = node_string(n, "auto_pad", "NOTSET");
  bool same = strncmp(mode, "SAME", 4) == 0, given = node_attr(n, "output_shape") != NULL;
  const int64_t *shape = NULL;
  size_t n_shape = given ? node_ints(n, "output_shape", &shape) : 0;
  if (given && n_shape != (size_t)w.n && n_shape != (size_t)w.n + 2)
    shape_error(n, "output_shape has %zu numbers: it needs %d", n_shape, w.n);
  if (same || strcmp(mode, "VALID") == 0) memset(w.pad, 0, sizeof w.pad);
  for (int i = 0; i < w.n; i++) {
    if (w.in[i] < 1 || w.in[i] > MAX_EXTENT)
      shape_error(n, "the spatial dimensions are out of range: %s", input_text(n, 0));
    int64_t full = w.stride[i] * (w.in[i] - 1) + extra[i] + effective(&w, i);
    wanted[i] = given ? shape[n_shape - (size_t)w.n + (size_t)i] : w.in[i] * w.stride[i];
    if (given && (wanted[i] < 1 || wanted[i] > MAX_EXTENT)) shape_error(n, "output_shape holds %" PRId64, wanted[i]);
    if (given || same) pad_for_output(&w, i, full, wanted[i], strcmp(mode, "SAME_UPPER") != 0 && same, &extra[i]);
    out[i] = given || same ? wanted[i] : full - w.pad[i] - w.pad[w.n + i];
    if (out[i] < 1)
      shape_error(n, "padding leaves nothing of the result: %s, weight %s", input_text(n, 0), input_text(n, 1));
  }
  node_drop_attr(n, "output_shape");
  keep_ints(n, "output_padding", w.n, extra);
  keep_window(n, &w);
  window_output(n, &w, dim_of(channels), out);
  return true;
}

bool infer_pool(Node *n) {
  Window w = read_window(n, false);
  int64_t out[MAX_SPATIAL];
  if (!auto_pad(n, &w, out))
    for (int i = 0; i < w.n; i++) out[i] = positions(n, &w, i, node_int(n, "ceil_mode", 0) != 0);
  for (int i = 0; i < w.n; i++)
    if (w.pad[i] >= effective(&w, i) || w.pad[w.n + i] >= effective(&w, i))
      shape_error(n, "padding of %" PRId64 " and %" PRId64 " holds a whole window of %" PRId64, w.pad[i],
                  w.pad[w.n + i], effective(&w, i));
  keep_window(n, &w);
  window_output(n, &w, input_shape(n, 0)->dim[1], out);
  return true;
}

bool infer_global_pool(Node *n) {
  need_rank_within(n, 0, 3, MAX_RANK);
  Shape s = *input_shape(n, 0);
  for (int i = 2; i < s.rank; i++) s.dim[i] = dim_of(1);
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

bool infer_grid_sample(Node *n) {
  need_rank_within(n, 0, 3, 5);
  Shape s = *input_shape(n, 0);
  const Shape *grid = input_shape(n, 1);
  need_rank(n, 1, s.rank);
  if (!dtype_is_float(n->in[1]->dtype) || !dim_equal(grid->dim[0], s.dim[0]) ||
      !dim_is(grid->dim[s.rank - 1], s.rank - 2))
    shape_error(n, "the grid %s does not fit %s: it holds %d numbers for each place of each sample", input_text(n, 1),
                input_text(n, 0), s.rank - 2);
  for (int i = 2; i < s.rank; i++)
    if (dim_is(s.dim[i], 0)) shape_error(n, "there is nothing to sample: %s", input_text(n, 0));
  for (int i = 2; i < s.rank; i++) s.dim[i] = grid->dim[i - 1];
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

/* Constant sizes of one to three axes, each 1 … MAX_EXTENT. */
static bool read_sizes(const Node *n, int i, int64_t size[MAX_SPATIAL], int *count) {
  need_rank(n, i, 1);
  if (!input_ints(n, i, size, 3, count)) return false;
  for (int a = 0; a < *count; a++)
    if (size[a] < 1 || size[a] > MAX_EXTENT)
      shape_error(n, "input %d holds %" PRId64 ": it must be 1 to %d", i, size[a], MAX_EXTENT);
  return true;
}

/* The attributes become explicit here, too. */
bool infer_col2im(Node *n) {
  need_rank(n, 0, 3);
  Window w = {0};
  const Shape *x = input_shape(n, 0);
  int axes;
  int64_t blocks = 1, block = 1;
  if (!read_sizes(n, 1, w.in, &w.n) || !read_sizes(n, 2, w.kernel, &axes)) return false;
  if (axes != w.n || w.n < 1) shape_error(n, "the picture has %d axes and the block %d", w.n, axes);
  window_ints(n, "strides", w.n, 1, 1, w.stride);
  window_ints(n, "dilations", w.n, 1, 1, w.dilation);
  window_ints(n, "pads", 2 * w.n, 0, 0, w.pad);
  bool fits = !x->dim[1].sym;
  for (int i = 0; i < w.n && fits; i++)
    fits = size_mul(block, w.kernel[i], &block) && size_mul(blocks, positions(n, &w, i, false), &blocks);
  if (!fits || x->dim[1].n % block != 0 || !dim_is(x->dim[2], blocks))
    shape_error(n, "%s does not hold %" PRId64 " blocks of %" PRId64 " elements", input_text(n, 0), blocks, block);
  keep_ints(n, "strides", w.n, w.stride);
  keep_ints(n, "dilations", w.n, w.dilation);
  keep_ints(n, "pads", 2 * w.n, w.pad);
  Shape s = {.rank = 2 + w.n, .dim = {x->dim[0], dim_of(x->dim[1].n / block)}};
  for (int i = 0; i < w.n; i++) s.dim[2 + i] = dim_of(w.in[i]);
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

/* ---- Resize ------------------------------------------------------------------------------------------------------ */

/* Operand i (scales or sizes), if it is there and not empty. */
static const Tensor *resize_operand(const Node *n, int i, bool *unknown) {
  if (!has_input(n, i) || dim_is(input_shape(n, i)->dim[0], 0)) return NULL;
  need_rank(n, i, 1);
  const Tensor *t = node_const(n, i);
  *unknown |= !t;
  return t;
}

/* Which axis each element of scales or sizes is for. */
static int resize_axes(const Node *n, int rank, int64_t elements, int *axis) {
  const int64_t *given = NULL;
  size_t count = node_ints(n, "axes", &given);
  bool seen[MAX_RANK];
  if (given) need_axes(n, given, count > MAX_RANK ? MAX_RANK + 1 : (int)count, rank, seen);
  int wanted = given ? (int)count : rank;
  if (elements != wanted)
    shape_error(n, "scales or sizes has %" PRId64 " elements and needs %d: %s", elements, wanted, input_text(n, 0));
  for (int i = 0; i < wanted; i++) axis[i] = given ? need_axis(n, given[i], rank) : i;
  return wanted;
}

/* The part of an axis that tf_crop_and_resize takes: roi holds all begins, then all ends. 1 for other modes. */
static float resize_crop(const Node *n, const Tensor *roi, int i, int count) {
  if (!roi) return 1;
  if (tensor_count(roi) != 2 * (int64_t)count)
    shape_error(n, "roi has %" PRId64 " elements: it needs %d", tensor_count(roi), 2 * count);
  return (float)tensor_number(roi, count + i) - (float)tensor_number(roi, i);
}

static int64_t scaled(const Node *n, int64_t size, float crop, float scale) {
  float wanted = floorf((float)size * crop * scale);
  if (!(scale > 0) || !(wanted >= 0 && wanted <= (float)MAX_EXTENT))
    shape_error(n, "%" PRId64 " elements scaled by %g is not a size", size, (double)scale);
  return (int64_t)wanted;
}

/* sizes under a policy other than stretch: one scale for all axes. */
static void keep_aspect(const Node *n, const Shape *x, const int *axis, int count, int64_t *size) {
  const char *policy = node_string(n, "keep_aspect_ratio_policy", "stretch");
  if (strcmp(policy, "stretch") == 0) return;
  bool larger = strcmp(policy, "not_smaller") == 0;
  if (!larger && strcmp(policy, "not_larger") != 0)
    shape_error(n, "keep_aspect_ratio_policy \"%s\" does not exist", policy);
  double scale = -1;
  for (int i = 0; i < count; i++) {
    if (x->dim[axis[i]].n == 0) continue;
    double s = (double)size[i] / (double)x->dim[axis[i]].n;
    if (scale < 0 || (larger ? s > scale : s < scale)) scale = s;
  }
  for (int i = 0; i < count; i++) {
    double wanted = floor(scale * (double)x->dim[axis[i]].n + 0.5);
    if (wanted > (double)MAX_EXTENT) shape_error(n, "%g is not a size", wanted);
    if (x->dim[axis[i]].n) size[i] = (int64_t)wanted;
  }
}

bool infer_resize(Node *n) {
  const Shape *x = input_shape(n, 0);
  Shape s = *x;
  bool unknown = false, crop = strcmp(node_string(n, "coordinate_transformation_mode", ""), "tf_crop_and_resize") == 0;
  const Tensor *scales = resize_operand(n, 2, &unknown), *sizes = resize_operand(n, 3, &unknown);
  const Tensor *roi = crop ? resize_operand(n, 1, &unknown) : NULL;
  if (unknown) return false;
  if (!scales == !sizes) shape_error(n, "exactly one of scales and sizes must be given");
  if (scales ? !dtype_is_float(scales->dtype) : dtype_is_float(sizes->dtype))
    shape_error(n, "scales must be floats and sizes integers: %s", input_text(n, scales ? 2 : 3));
  int axis[MAX_RANK];
  int count = resize_axes(n, x->rank, tensor_count(scales ? scales : sizes), axis);
  int64_t size[MAX_RANK];
  for (int i = 0; i < count; i++) {
    Dim d = x->dim[axis[i]];
    bool same = scales ? tensor_number(scales, i) == 1 && !crop : tensor_integer(sizes, i) == d.n;
    if (d.sym && !same) shape_error(n, "a dimension that is resized must be a number: %s", input_text(n, 0));
    size[i] = same     ? d.n
              : scales ? scaled(n, d.n, resize_crop(n, roi, i, count), (float)tensor_number(scales, i))
                       : tensor_integer(sizes, i);
    if (size[i] < 0 || size[i] > MAX_EXTENT) shape_error(n, "%" PRId64 " is not a size", size[i]);
    if (size[i] && !d.n) shape_error(n, "an empty dimension cannot be resized: %s", input_text(n, 0));
  }
  if (sizes) keep_aspect(n, x, axis, count, size);
  for (int i = 0; i < count; i++)
    if (!s.dim[axis[i]].sym) s.dim[axis[i]] = dim_of(size[i]);
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

/* A Conv whose picture has the extents `resized` instead of x's. */
bool infer_resize_conv(Node *n) {
  need_same_type(n, 1);
  need_rank(n, 0, 4);
  Window w = read_window(n, true);
  const Shape *x = input_shape(n, 0), *k = input_shape(n, 1);
  if (!dim_is(x->dim[1], k->dim[1].n))
    shape_error(n, "the channels of %s and the weight %s do not fit", input_text(n, 0), input_text(n, 1));
  need_bias(n, k->dim[0].n);
  window_ints(n, "resized", 2, 1, 0, w.in);
  int64_t out[MAX_SPATIAL];
  for (int i = 0; i < w.n; i++) out[i] = positions(n, &w, i, false);
  keep_window(n, &w);
  window_output(n, &w, k->dim[0], out);
  return true;
}
