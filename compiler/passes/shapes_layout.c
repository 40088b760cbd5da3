/* Shape rules of operators that move elements without changing them. */
#include "shapes.h"

#include <inttypes.h>
#include <string.h>

static void need_rank_of_result(const Node *n, int rank) {
  if (rank > MAX_RANK) shape_error(n, "the result would have %d dimensions: at most %d are supported", rank, MAX_RANK);
}

/* ---- Reshape, Flatten, Squeeze, Unsqueeze ---- */

/* Takes `d` out of a product given as a list of dimensions: symbols cancel symbols, the rest is numbers. */
static bool cancel(Dim *list, int count, Dim d) {
  for (int i = 0; i < count; i++)
    if (d.sym && list[i].sym == d.sym) {
      list[i] = dim_of(1);
      return true;
    }
  return false;
}

static int64_t numbers(const Node *n, const Dim *list, int count, bool *symbols) {
  Dim product = dim_of(1);
  for (int i = 0; i < count; i++) {
    *symbols |= list[i].sym != 0;
    if (!list[i].sym) product = dim_mul(n, product, list[i]);
  }
  return product.n;
}

/* The dimension that the target's one -1 (taken as 1 in `to`) stands for; without one, checks that the counts agree. */
static Dim reshape_rest(const Node *n, const Shape *from, const Shape *to, bool wildcard) {
  Dim a[MAX_RANK], b[MAX_RANK];
  memcpy(a, from->dim, sizeof a);
  memcpy(b, to->dim, sizeof b);
  for (int i = 0; i < to->rank; i++)
    if (cancel(a, from->rank, b[i])) b[i] = dim_of(1);
  bool a_symbols = false, b_symbols = false;
  int64_t have = numbers(n, a, from->rank, &a_symbols), want = numbers(n, b, to->rank, &b_symbols);
  Ctx *c = n->graph->ctx;
  if (!a_symbols && !b_symbols) {
    if (wildcard ? want == 0 || have % want : have != want)
      shape_error(n, "%s cannot become %s%s", input_text(n, 0), shape_text(c, n->in[0]->dtype, to),
                  wildcard ? " (1 standing for the dimension left open)" : "");
    return dim_of(wildcard ? have / want : 1);
  }
  if (!wildcard) return dim_of(1);
  Dim rest = dim_of(1);
  for (int i = 0; i < from->rank; i++)
    if (a[i].sym) rest = dim_mul(n, rest, a[i]);
  if (want > 0 && !b_symbols && have % want == 0) return dim_mul(n, rest, dim_of(have / want));
  Dim all = dim_product(n, from, 0, from->rank);
  return dim_symbol(n, want > 0 ? all.n / want : all.n, "rest of %s", n->out[0]->name);
}

bool infer_reshape(Node *n) {
  Dim wanted[MAX_CONTENT];
  int count, open = -1;
  if (!input_content(n, 1, wanted, &count)) return false;
  need_rank_of_result(n, count);
  const Shape *x = input_shape(n, 0);
  bool zero_is_zero = node_int(n, "allowzero", 0) != 0;
  Shape s = {.rank = count};
  for (int i = 0; i < count; i++) {
    s.dim[i] = wanted[i];
    if (dim_is(wanted[i], 0) && !zero_is_zero) {
      if (i >= x->rank) shape_error(n, "dimension %d is 0, to be copied, and %s has none", i, input_text(n, 0));
      s.dim[i] = x->dim[i];
    } else if (dim_is(wanted[i], -1)) {
      if (open >= 0) shape_error(n, "dimensions %d and %d are both -1", open, i);
      open = i;
      s.dim[i] = dim_of(1);
    } else if (wanted[i].n < 0) {
      shape_error(n, "a dimension cannot be %" PRId64, wanted[i].n);
    }
  }
  Dim rest = reshape_rest(n, x, &s, open >= 0);
  if (open >= 0) s.dim[open] = rest;
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

bool infer_flatten(Node *n) {
  const Shape *x = input_shape(n, 0);
  int64_t axis = node_int(n, "axis", 1);
  if (axis != x->rank) axis = need_axis(n, axis, x->rank ? x->rank : 1);
  Shape s = {.rank = 2, .dim = {dim_product(n, x, 0, (int)axis), dim_product(n, x, (int)axis, x->rank)}};
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

bool infer_squeeze(Node *n) {
  const Shape *x = input_shape(n, 0);
  int64_t axes[MAX_RANK];
  int count = 0;
  bool flags[MAX_RANK] = {false};
  if (has_input(n, 1)) {
    if (!input_ints(n, 1, axes, MAX_RANK, &count)) return false;
    need_axes(n, axes, count, x->rank, flags);
  }
  Shape s = {.rank = 0};
  for (int i = 0; i < x->rank; i++) {
    bool drop = has_input(n, 1) ? flags[i] : dim_is(x->dim[i], 1);
    if (drop && !dim_is(x->dim[i], 1)) shape_error(n, "dimension %d of %s is not 1", i, input_text(n, 0));
    if (!drop) s.dim[s.rank++] = x->dim[i];
  }
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

bool infer_unsqueeze(Node *n) {
  const Shape *x = input_shape(n, 0);
  int64_t axes[MAX_RANK];
  int count;
  bool flags[MAX_RANK];
  if (!input_ints(n, 1, axes, MAX_RANK, &count)) return false;
  need_rank_of_result(n, x->rank + count);
  need_axes(n, axes, count, x->rank + count, flags);
  Shape s = {.rank = x->rank + count};
  for (int i = 0, k = 0; i < s.rank; i++) s.dim[i] = flags[i] ? dim_of(1) : x->dim[k++];
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

/* ---- Transpose, Expand, Tile ---- */

bool infer_transpose(Node *n) {
  const Shape *x = input_shape(n, 0);
  const int64_t *perm = NULL;
  bool given = node_attr(n, "perm") != NULL, seen[MAX_RANK];
  size_t count = node_ints(n, "perm", &perm);
  if (given && count != (size_t)x->rank) shape_error(n, "perm has %zu numbers for %s", count, input_text(n, 0));
  for (size_t i = 0; i < count; i++)
    if (perm[i] < 0 || perm[i] >= x->rank) shape_error(n, "perm holds %" PRId64 ": %s", perm[i], input_text(n, 0));
  need_axes(n, perm, (int)count, x->rank, seen);
  Shape s = *x;
  for (int i = 0; i < x->rank; i++) s.dim[i] = x->dim[given ? perm[i] : x->rank - 1 - i];
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

bool infer_expand(Node *n) {
  Dim wanted[MAX_CONTENT];
  int count;
  if (!input_content(n, 1, wanted, &count)) return false;
  need_rank_of_result(n, count);
  Shape s = *input_shape(n, 0), to = {.rank = count};
  for (int i = 0; i < count; i++) {
    if (wanted[i].n < 0) shape_error(n, "a dimension cannot be %" PRId64, wanted[i].n);
    to.dim[i] = wanted[i];
  }
  broadcast_into(n, &s, &to);
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

bool infer_tile(Node *n) {
  int64_t repeats[MAX_RANK];
  int count;
  Shape s = *input_shape(n, 0);
  if (!input_ints(n, 1, repeats, MAX_RANK, &count)) return false;
  if (count != s.rank) shape_error(n, "%d repeats for %s", count, input_text(n, 0));
  for (int i = 0; i < count; i++) {
    if (repeats[i] < 0) shape_error(n, "%" PRId64 " repeats", repeats[i]);
    s.dim[i] = dim_mul(n, s.dim[i], dim_of(repeats[i]));
  }
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

/* ---- Slice, Split, Concat, Pad ---- */

static int64_t clamp(int64_t v, int64_t low, int64_t high) { return v < low ? low : v > high ? high : v; }

/* One axis: where it begins and how many elements it takes of `extent`. */
static int64_t slice_axis(int64_t extent, int64_t start, int64_t end, int64_t step, int64_t *first) {
  if (start < 0) start += extent;
  if (end < 0) end += extent;
  int64_t low = step > 0 ? 0 : -1, high = step > 0 ? extent : extent - 1;
  start = clamp(start, step > 0 ? 0 : low, high);
  end = clamp(end, low, high);
  *first = start;
  uint64_t span = step > 0 ? (uint64_t)end - (uint64_t)start : (uint64_t)start - (uint64_t)end;
  if (step > 0 ? end <= start : start <= end) return *first = 0;
  uint64_t magnitude = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
  return (int64_t)(span / magnitude + (span % magnitude != 0));
}

bool slice_ranges(const Node *n, int64_t start[MAX_RANK], int64_t count[MAX_RANK], int64_t step[MAX_RANK]) {
  const Shape *x = input_shape(n, 0);
  int64_t starts[MAX_RANK], ends[MAX_RANK], axes[MAX_RANK], steps[MAX_RANK];
  int n_starts, n_ends, n_axes = 0, n_steps = 0;
  bool seen[MAX_RANK];
  if (!input_ints(n, 1, starts, MAX_RANK, &n_starts) || !input_ints(n, 2, ends, MAX_RANK, &n_ends)) return false;
  if (has_input(n, 3) && !input_ints(n, 3, axes, MAX_RANK, &n_axes)) return false;
  if (has_input(n, 4) && !input_ints(n, 4, steps, MAX_RANK, &n_steps)) return false;
  for (int i = 0; i < n_starts && !has_input(n, 3); i++) axes[n_axes++] = i;
  if (n_starts != n_ends || n_axes != n_starts || (has_input(n, 4) && n_steps != n_starts))
    shape_error(n, "%d starts, %d ends, %d axes: they must be as many", n_starts, n_ends, n_axes);
  need_axes(n, axes, n_axes, x->rank, seen);
  for (int i = 0; i < x->rank; i++) {
    start[i] = 0;
    count[i] = x->dim[i].n;
    step[i] = 1;
  }
  for (int i = 0; i < n_axes; i++) {
    int a = need_axis(n, axes[i], x->rank);
    step[a] = n_steps ? steps[i] : 1;
    if (step[a] == 0) shape_error(n, "a step cannot be 0");
    count[a] = slice_axis(x->dim[a].n, starts[i], ends[i], step[a], &start[a]);
  }
  return true;
}

bool infer_slice(Node *n) {
  int64_t start[MAX_RANK] = {0}, count[MAX_RANK] = {0}, step[MAX_RANK] = {0};
  if (!slice_ranges(n, start, count, step)) return false;
  Shape s = *input_shape(n, 0);
  for (int i = 0; i < s.rank; i++) {
    bool whole = start[i] == 0 && step[i] == 1 && count[i] == s.dim[i].n;
    if (!s.dim[i].sym)
      s.dim[i] = dim_of(count[i]);
    else if (!whole)
      s.dim[i] = dim_symbol(n, count[i], "part %d of %s", i, n->out[0]->name);
  }
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

/* Sizes of the parts: given, or equal, the last one perhaps smaller. */
static bool split_sizes(const Node *n, Dim whole, int64_t *size) {
  int count;
  if (has_input(n, 1)) {
    if (!input_ints(n, 1, size, n->n_out, &count)) return false;
    int64_t sum = 0;
    for (int i = 0; i < count; i++)
      if (!size_add(sum, size[i], &sum)) shape_error(n, "part %d has %" PRId64 " elements", i, size[i]);
    if (whole.sym)
      shape_error(n, "a length that is decided by values at run time cannot be cut into parts: %s", input_text(n, 0));
    if (count != n->n_out || sum != whole.n)
      shape_error(n, "%d parts of together %" PRId64 " for %d outputs of %" PRId64, count, sum, n->n_out, whole.n);
    return true;
  }
  int64_t parts = node_int(n, "num_outputs", n->n_out);
  if (parts != n->n_out || whole.sym)
    shape_error(n, "num_outputs is %" PRId64 " and there are %d outputs of %s", parts, n->n_out, input_text(n, 0));
  int64_t each = whole.n / parts + (whole.n % parts != 0);
  for (int i = 0; i < parts; i++) size[i] = clamp(whole.n - i * each, 0, each);
  return true;
}

bool infer_split(Node *n) {
  need_rank_within(n, 0, 1, MAX_RANK);
  Shape s = *input_shape(n, 0);
  int axis = need_axis(n, node_int(n, "axis", 0), s.rank);
  int64_t *size = ctx_array(n->graph->ctx, (size_t)n->n_out, sizeof *size);
  if (!split_sizes(n, s.dim[axis], size)) return false;
  for (int i = 0; i < n->n_out; i++) {
    s.dim[axis] = dim_of(size[i]);
    set_output(n, i, n->in[0]->dtype, &s);
  }
  return true;
}

bool infer_concat(Node *n) {
  need_rank_within(n, 0, 1, MAX_RANK);
  Shape s = *input_shape(n, 0);
  if (!node_attr(n, "axis")) shape_error(n, "attribute axis is missing");
  int axis = need_axis(n, node_int(n, "axis", 0), s.rank);
  for (int i = 1; i < n->n_own; i++) {
    if (!n->in[i]) shape_error(n, "operand %d is missing", i);
    need_same_type(n, i);
    const Shape *x = input_shape(n, i);
    bool fits = x->rank == s.rank;
    for (int d = 0; fits && d < s.rank; d++) {
      if (d == axis) continue;
      fits = dim_may_equal(s.dim[d], x->dim[d]);
      if (!x->dim[d].sym) s.dim[d] = x->dim[d];
    }
    if (!fits)
      shape_error(n, "operand 0 is %s and operand %d is %s: they may differ along axis %d only", input_text(n, 0), i,
                  input_text(n, i), axis);
    s.dim[axis] = dim_add(n, s.dim[axis], x->dim[axis]);
  }
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

bool pad_amounts(const Node *n, int64_t before[MAX_RANK], int64_t after[MAX_RANK]) {
  int rank = input_shape(n, 0)->rank;
  int64_t pads[2 * MAX_RANK], axes[MAX_RANK];
  int n_pads, n_axes = 0;
  bool seen[MAX_RANK];
  memset(before, 0, MAX_RANK * sizeof *before);
  memset(after, 0, MAX_RANK * sizeof *after);
  if (!input_ints(n, 1, pads, 2 * MAX_RANK, &n_pads)) return false;
  if (has_input(n, 3) && !input_ints(n, 3, axes, MAX_RANK, &n_axes)) return false;
  for (int i = 0; i < rank && !has_input(n, 3); i++) axes[n_axes++] = i;
  if (n_pads != 2 * n_axes) shape_error(n, "%d pads for %d axes: %s", n_pads, n_axes, input_text(n, 0));
  need_axes(n, axes, n_axes, rank, seen);
  for (int i = 0; i < n_axes; i++) {
    int a = need_axis(n, axes[i], rank);
    before[a] = pads[i];
    after[a] = pads[n_axes + i];
  }
  return true;
}

static int64_t padded(const Node *n, int64_t extent, int64_t before, int64_t after) {
  const char *mode = node_string(n, "mode", "constant");
  int64_t limit = INT64_MAX / 4, size = 0;
  if (before < -limit || before > limit || after < -limit || after > limit || extent > limit ||
      (size = extent + before + after) < 0)
    shape_error(n, "%" PRId64 " elements padded by %" PRId64 " and %" PRId64, extent, before, after);
  bool reflect = strcmp(mode, "reflect") == 0, constant = strcmp(mode, "constant") == 0;
  if (!reflect && !constant && strcmp(mode, "edge") != 0 && strcmp(mode, "wrap") != 0)
    shape_error(n, "mode \"%s\" does not exist", mode);
  if (!constant && extent == 0 && size > 0) shape_error(n, "an empty dimension cannot be padded by its elements");
  if (reflect && (before >= extent || after >= extent) && (before > 0 || after > 0))
    shape_error(n, "%" PRId64 " elements cannot be reflected by %" PRId64 " and %" PRId64, extent, before, after);
  return size;
}

bool infer_pad(Node *n) {
  int64_t before[MAX_RANK], after[MAX_RANK];
  if (has_input(n, 2)) {
    need_same_type(n, 2);
    if (shape_count(input_shape(n, 2)) != 1)
      shape_error(n, "the padding value must be one number, not %s", input_text(n, 2));
  }
  if (!pad_amounts(n, before, after)) return false;
  Shape s = *input_shape(n, 0);
  for (int i = 0; i < s.rank; i++) {
    if (!before[i] && !after[i]) continue;
    int64_t size = padded(n, s.dim[i].n, before[i], after[i]);
    s.dim[i] = s.dim[i].sym ? dim_symbol(n, size, "padded %d of %s", i, n->out[0]->name) : dim_of(size);
  }
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

/* ---- blocks of pixels, triangles ---- */

static int64_t block_size(const Node *n) {
  int64_t b = node_int(n, "blocksize", 0);
  const char *mode = node_string(n, "mode", "DCR");
  if (b < 1 || b > INT16_MAX) shape_error(n, "blocksize is %" PRId64, b);
  if (strcmp(mode, "DCR") != 0 && strcmp(mode, "CRD") != 0) shape_error(n, "mode \"%s\" does not exist", mode);
  need_rank(n, 0, 4);
  for (int i = 1; i < 4; i++)
    if (input_shape(n, 0)->dim[i].sym) shape_error(n, "channels and pixels must be numbers: %s", input_text(n, 0));
  return b;
}

bool infer_depth_to_space(Node *n) {
  int64_t b = block_size(n);
  Shape s = *input_shape(n, 0);
  if (s.dim[1].n % (b * b))
    shape_error(n, "blocks of %" PRId64 " squared do not divide the channels of %s", b, input_text(n, 0));
  s.dim[1].n /= b * b;
  for (int i = 2; i < 4; i++) s.dim[i] = dim_mul(n, s.dim[i], dim_of(b));
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

bool infer_space_to_depth(Node *n) {
  int64_t b = block_size(n);
  Shape s = *input_shape(n, 0);
  if (s.dim[2].n % b || s.dim[3].n % b)
    shape_error(n, "blocks of %" PRId64 " do not divide the pixels of %s", b, input_text(n, 0));
  s.dim[1] = dim_mul(n, s.dim[1], dim_of(b * b));
  for (int i = 2; i < 4; i++) s.dim[i].n /= b;
  set_output(n, 0, n->in[0]->dtype, &s);
  return true;
}

bool infer_trilu(Node *n) {
  need_rank_within(n, 0, 2, MAX_RANK);
  if (has_input(n, 1) && shape_count(input_shape(n, 1)) != 1)
    shape_error(n, "k must be one integer, not %s", input_text(n, 1));
  return infer_same(n);
}

/* ---- Shape, Size ---- */

void shape_bounds(const Node *n, int *begin, int *end) {
  int rank = input_shape(n, 0)->rank;
  int64_t from = node_int(n, "start", 0), to = node_int(n, "end", rank);
  *begin = (int)clamp(from < 0 ? from + rank : from, 0, rank);
  *end = (int)clamp(to < 0 ? to + rank : to, *begin, rank);
}

bool infer_shape(Node *n) {
  int begin, end;
  shape_bounds(n, &begin, &end);
  Shape s = {.rank = 1, .dim = {dim_of(end - begin)}};
  set_output(n, 0, DT_I64, &s);
  return true;
}

bool infer_size(Node *n) {
  Shape s = {.rank = 0};
  set_output(n, 0, DT_I64, &s);
  return true;
}
