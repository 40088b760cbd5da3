/* A convolution of a resampled picture becomes one operator, moecc.ResizeConv, which multiplies before it resamples.
 *
 * Resampling mixes places, a tap's weights mix channels: the two commute, so the products can be made of the pixels
 * there are before resampling, four times fewer for a picture of twice the size, and what is resampled is the products,
 * each shifted by its tap. Zero padding needs no care: what lies outside is added nowhere.
 *
 * Needs: shapes, all numbers; normalisation folded into the weights (convbn); before anything is fused.
 * Gives: moecc.ResizeConv for Conv of a Resize to more pixels in its last two dimensions, where that takes fewer
 *        multiply-adds. The Resize stays for others that read it: its picture is then made for them alone.
 * Breaks: nothing.
 */
#include "match.h"
#include "recognise.h"

#include <math.h>
#include <string.h>

static bool is(const Node *n, const char *attr, const char *fallback, const char *value) {
  return strcmp(node_string(n, attr, fallback), value) == 0;
}

/* Is every scale the ratio of the lengths, so that these say all? */
static bool plain_scales(const Node *resize) {
  const Tensor *scales = node_const(resize, 2), *sizes = node_const(resize, 3);
  if (sizes && tensor_count(sizes) > 0) return is(resize, "keep_aspect_ratio_policy", "stretch", "stretch");
  if (!scales) return false;
  const int64_t *axes;
  size_t given = node_ints(resize, "axes", &axes);
  for (int64_t k = 0; k < tensor_count(scales); k++) {
    int axis = given ? axis_at(axes[k], 4) : (int)k;
    if (axis < 0) return false;
    double n = (double)resize->in[0]->shape.dim[axis].n, m = (double)resize->out[0]->shape.dim[axis].n;
    if (fabs(tensor_number(scales, k) * n - m) >= 1e-6 * m) return false;
  }
  return true;
}

/* A Resize of a picture's rows and columns alone, linear in the pixels. */
static bool is_resampling(const Node *n) {
  const Shape *x = &n->in[0]->shape, *y = &n->out[0]->shape;
  if (x->rank != 4 || !shape_known(x) || !shape_known(y) || shape_count(x) <= 0 || shape_count(y) <= 0) return false;
  if (n->out[0]->dtype != DT_F32 || x->dim[0].n != y->dim[0].n || x->dim[1].n != y->dim[1].n) return false;
  if (is(n, "coordinate_transformation_mode", "half_pixel", "tf_crop_and_resize") || node_int(n, "antialias", 0) ||
      node_int(n, "exclude_outside", 0))
    return false;
  return plain_scales(n);
}

static int64_t near_pixels(const Node *resize) {
  if (is(resize, "mode", "nearest", "nearest")) return 1;
  return is(resize, "mode", "nearest", "cubic") ? 4 : 2;
}

/* Multiply-adds of one output channel and picture, before and after. A sum over places counts twice: its operands come
 * from farther away than those of a product. */
static bool pays(const Node *conv, const Node *resize) {
  const Shape *x = &resize->in[0]->shape, *w = &conv->in[1]->shape, *y = &conv->out[0]->shape;
  double in = (double)(x->dim[2].n * x->dim[3].n), out = (double)(y->dim[2].n * y->dim[3].n);
  double rows = (double)(w->dim[2].n * near_pixels(resize)), columns = (double)(w->dim[3].n * near_pixels(resize));
  double work = (double)(w->dim[1].n * w->dim[2].n * w->dim[3].n);
  double down = rows * (double)w->dim[3].n * (double)x->dim[3].n / (double)y->dim[3].n;
  return in * work + 2 * out * (down + columns) < out * work;
}

static bool is_plain_conv(const Node *n) {
  if (n->op != OP_CONV || n->expr || node_int(n, "group", 1) != 1 || n->in[0]->shape.rank != 4) return false;
  if (n->out[0]->dtype != DT_F32 || !node_const(n, 1) || node_const(n, 1)->dtype != DT_F32) return false;
  const int64_t *pads; /* made explicit by the shape rule */
  return node_ints(n, "pads", &pads) == 4 && is(n, "auto_pad", "NOTSET", "NOTSET") &&
         shape_count(&n->out[0]->shape) > 0;
}

static void join(Node *conv, const Node *resize) {
  static const char *const of_conv[] = {"kernel_shape", "strides", "dilations", "pads"};
  static const char *const of_resize[] = {"mode", "coordinate_transformation_mode", "nearest_mode", "cubic_coeff_a"};
  const Shape *middle = &conv->in[0]->shape;
  int64_t resized[2] = {middle->dim[2].n, middle->dim[3].n};
  Node old = *conv;
  Value *in[3] = {resize->in[0], conv->in[1], conv->n_in > 2 ? conv->in[2] : NULL};
  Node *n = take_over(conv->out[0], OP_RESIZE_CONV, in[2] ? 3 : 2, in);
  n->name = old.name;
  n->op_type = op_info(OP_RESIZE_CONV)->name;
  node_set_ints(n, "resized", 2, resized);
  for (size_t i = 0; i < 4; i++)
    if (node_attr(&old, of_conv[i])) node_set_attr(n, *node_attr(&old, of_conv[i]));
  for (size_t i = 0; i < 4; i++)
    if (node_attr(resize, of_resize[i])) node_set_attr(n, *node_attr(resize, of_resize[i]));
}

void pass_resize_conv(Graph *g) {
  size_t count;
  Node **list = node_list(g, &count);
  for (size_t i = 0; i < count; i++) {
    Node *n = list[i];
    if (node_gone(n) || !n->out[0] || !is_plain_conv(n) || !made_by(n->in[0], OP_RESIZE)) continue;
    const Node *resize = n->in[0]->producer;
    if (is_resampling(resize) && pays(n, resize)) join(n, resize);
  }
}
