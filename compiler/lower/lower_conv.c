/* Conv and ConvTranspose. Constant float weights: channels-last in and out, by implicit matrix multiplication (conv),
 * as a plain matrix multiplication where a pixel's taps are contiguous and no pixel is shared (matmul), or depthwise
 * (conv_depthwise_tile; conv_depthwise for dilated or very long kernel rows, and without vectors). A transposed
 * convolution is one convolution for each phase of its stride. Anything else: conv_any, conv_transpose.
 *
 * The shape rules have made the window explicit: kernel_shape, strides, dilations and pads are there in full.
 */
#include "gemm.h"
#include "resize.h"

#include <string.h>

enum {
  FEW_CHANNELS = 16, /* below, a copy with its padding in place pays: whole kernel rows become one run */
  LONG_K = 1024,     /* above, a panel goes in pieces */
  PIECE = 512
};

/* One to three spatial dimensions, aligned at the last (z, y, x); missing ones are of size 1. */
typedef struct {
  int64_t images, c, groups, n; /* c input channels and n output channels of a group */
  int64_t in[3], out[3], taps[3], stride[3], step[3], pad[3];
  int64_t image_stride, channel_stride, in_stride[3]; /* of x */
  bool padded_x;                                      /* taps reach beyond x's lines */
} Window;

static int64_t attr_at(const Node *n, const char *name, int i, int64_t fallback) {
  const int64_t *v;
  return (size_t)i < node_ints(n, name, &v) ? v[i] : fallback;
}

static void set_x(Window *w, const View *x) {
  int spatial = x->rank - 2;
  w->image_stride = x->stride[0];
  w->channel_stride = x->stride[1];
  for (int d = 3 - spatial; d < 3; d++) w->in_stride[d] = x->stride[2 + d - (3 - spatial)];
}

static Window window_of(Program *p, const Node *n) {
  const Shape *x = &n->in[0]->shape, *k = &n->in[1]->shape, *y = &n->out[0]->shape;
  int spatial = x->rank - 2;
  if (spatial > 3) ctx_fail(p->ctx, n, "%d spatial dimensions: at most three are supported", spatial);
  Window w = {.images = x->dim[0].n, .groups = node_int(n, "group", 1)};
  w.c = x->dim[1].n / w.groups;
  w.n = y->dim[1].n / w.groups;
  for (int d = 0; d < 3; d++) {
    int i = d - (3 - spatial);
    bool real = i >= 0;
    w.in[d] = real ? x->dim[2 + i].n : 1;
    w.out[d] = real ? y->dim[2 + i].n : 1;
    w.taps[d] = real ? k->dim[2 + i].n : 1;
    w.stride[d] = real ? attr_at(n, "strides", i, 1) : 1;
    w.step[d] = real ? attr_at(n, "dilations", i, 1) : 1;
    w.pad[d] = real ? attr_at(n, "pads", i, 0) : 0;
  }
  int64_t reach = (w.out[2] - 1) * w.stride[2] + (w.taps[2] - 1) * w.step[2] - w.pad[2];
  w.padded_x = w.pad[2] > 0 || reach >= w.in[2];
  return w;
}

static const int CHANNELS_LAST[4][MAX_RANK] = {{0}, {0, 2, 1}, {0, 2, 3, 1}, {0, 2, 3, 4, 1}};

static int64_t positions(const Window *w) { return w->images * w->out[0] * w->out[1] * w->out[2]; }
static int64_t all_taps(const Window *w) { return w->taps[0] * w->taps[1] * w->taps[2]; }

/* The fused expression with the bias, which varies along the channels, in front. */
Epilogue conv_epilogue(Program *p, Node *n) {
  int rank = n->out[0]->shape.rank;
  int64_t dim[MAX_RANK];
  value_dims(p->ctx, n, n->out[0], dim);
  View bias;
  bool has_bias = n->n_own > 2 && n->in[2];
  if (has_bias) {
    bias = low_view(p, n->in[2]);
    bias.rank = rank - 1;
    for (int i = 1; i < bias.rank; i++) {
      bias.dim[i] = 1;
      bias.stride[i] = 0;
    }
  }
  Node *with = gemm_with_bias(p, n, 1, has_bias ? &bias : NULL);
  return low_epilogue(p, with, rank, dim, CHANNELS_LAST[rank - 2]);
}

/* ---- as a matrix multiplication over pixels ---------------------------------------------------------------------- */

static bool is_pointwise(const Window *w) {
  if (w->groups != 1) return false;
  for (int d = 0; d < 3; d++)
    if (w->taps[d] != 1 || w->stride[d] != 1 || w->pad[d] || w->in[d] != w->out[d]) return false;
  return true;
}

static bool lower_pointwise(Program *p, Node *n, const Window *w, const View *x) {
  View turned = view_transpose(x, CHANNELS_LAST[x->rank - 2]), flat;
  const int64_t dim[2] = {positions(w), w->c};
  if (!is_pointwise(w) || !view_reshape(&turned, 2, dim, &flat) || flat.stride[0] < 0) return false;
  if (w->c > 1 && flat.stride[1] != 1) return false;
  int64_t pitch;
  View y = low_output_rows(p, n->out[0], CHANNELS_LAST[x->rank - 2], &pitch);
  Epilogue e = conv_epilogue(p, n);
  gemm_matmul(p, n, &flat, n->in[1]->tensor, (Matrix){w->c, w->n, 1, w->c, 0, 0}, &y, 1, pitch, &e);
  return true;
}

/* ---- implicit matrix multiplication ------------------------------------------------------------------------------ */

/* A copy of x with zeros beside its lines, as far as the taps reach. */
static View pad_lines(Program *p, Node *n, Window *w, const View *x) {
  int64_t reach = (w->out[2] - 1) * w->stride[2] + (w->taps[2] - 1) * w->step[2] + 1, last = x->rank - 1, count = 1;
  int64_t width = reach > w->in[2] + w->pad[2] ? reach : w->in[2] + w->pad[2];
  View wide = *x;
  wide.dim[last] = width;
  for (int i = 0; i < x->rank; i++) count *= wide.dim[i];
  View memory = low_temp(p, "padded", DT_F32, count);
  wide.storage = memory.storage;
  wide.constant = NULL;
  wide.offset = 0;
  int64_t stride = 1;
  for (int i = x->rank - 1; i >= 0; i--) {
    int d = CHANNELS_LAST[x->rank - 2][i]; // NOLINT(*-core.uninitialized.Assign): a picture has two dimensions or more
    wide.stride[d] = stride;
    stride *= wide.dim[d];
  }
  View inner = view_slice(&wide, (int)last, w->pad[2], w->in[2], 1);
  int64_t behind = w->pad[2] + w->in[2];
  View sides[2] = {view_slice(&wide, (int)last, 0, w->pad[2], 1),
                   view_slice(&wide, (int)last, behind, width - behind, 1)};
  for (int i = 0; i < 2; i++) low_fill(p, n, 0, &sides[i]);
  low_copy(p, n, x, &inner);
  w->in[2] = width;
  w->pad[2] = 0;
  w->padded_x = false;
  return wide;
}

/* What the kernel's table `shape` holds. */
static void conv_table(const Window *w, int from, int64_t *table) {
  int64_t *t = table;
  *t++ = w->images;
  for (int d = from; d < 3; d++) *t++ = w->in[d];
  *t++ = w->image_stride;
  for (int d = from; d < 3; d++) *t++ = w->in_stride[d];
  const int64_t *const lists[] = {w->out, w->taps, w->stride, w->step, w->pad};
  for (size_t l = 0; l < sizeof lists / sizeof *lists; l++)
    for (int d = from; d < 3; d++) *t++ = lists[l][d];
}

/* The result of a step: pixels of y, `pitch` elements apart, and how the window's outputs are numbered among them. */
typedef struct {
  View y;
  int64_t pitch, first, step[4]; /* step: image, z, y, x */
  bool more;                     /* another step has begun to write it */
} Pixels;

/* All pixels of y in turn. */
static Pixels all_pixels(Program *p, const Node *n, const Window *w) {
  Pixels out = {.step = {w->out[0] * w->out[1] * w->out[2], w->out[1] * w->out[2], w->out[2], 1}};
  out.y = low_output_rows(p, n->out[0], CHANNELS_LAST[n->out[0]->shape.rank - 2], &out.pitch);
  return out;
}

/* A step of the kernel `conv` for output channels from `first` on; the weights are [groups n][c][taps]. */
static void conv_step(Program *p, const Node *n, Window w, int64_t first, const View *x, const Tensor *weights,
                      const Pixels *out, const Epilogue *e, Tile tile) {
  enum { SHAPE = 23, NUMBERS = 5 };
  int64_t taps = all_taps(&w), macs = positions(&w) * w.groups * w.n * taps * w.c, length = w.c;
  if (w.groups == 1 && w.step[2] == 1 && !w.padded_x && w.in_stride[2] == w.c) { /* a kernel row is one run */
    length = w.taps[2] * w.c;
    w.taps[2] = 1;
  }
  int64_t block =
      gemm_block(p->target, tile, positions(&w), w.c * w.groups * w.stride[1] * w.stride[2], w.n * w.groups);
  int64_t pointers = all_taps(&w), most = p->target->l2 / 4 / 8 / pointers;
  if (block > most) block = most > tile.mr ? most : tile.mr;
  int64_t k = pointers * length, depth = k <= LONG_K ? k : PIECE, sums = depth < k ? block : tile.mr;
  int64_t scratch = round_up(block * (pointers + 1) * 8 + round_up(length, 16) * 4 + sums * tile.nr * 4, 64);
  int64_t table[SHAPE + NUMBERS];
  conv_table(&w, 0, table);
  table[SHAPE] = out->first;
  memcpy(table + SHAPE + 1, out->step, sizeof out->step);
  Step *s = low_call(p, n, gemm_kernel(p, "conv", tile, e));
  s->macs = macs;
  low_read(s, x);
  gemm_conv_weight(p, s, weights, first, w.groups, w.n, w.c, taps, tile);
  gemm_result(s, &out->y, out->more || out->pitch != w.groups * w.n);
  low_operands(s, e);
  low_scratch_each(s, DT_I64, scratch);
  low_size(s, scratch / 8);
  low_table(s, table, SHAPE + NUMBERS);
  low_size(s, out->pitch);
  low_size(s, length);
  low_size(s, w.c);
  low_size(s, w.groups);
  low_size(s, w.n);
  low_size(s, depth);
  low_size(s, block);
}

/* Steps for pieces of the output channels, or of the groups if there are several. */
static void conv_steps(Program *p, const Node *n, const Window *w, const View *x, const Tensor *weights, Pixels *out,
                       const Epilogue *e) {
  int64_t all = w->groups > 1 ? w->groups : w->n, each = w->groups > 1 ? w->n : 1;
  int64_t depth = all_taps(w) * w->c, more = low_epilogue_bytes(e) * each;
  Tile tile = gemm_tile(p, "conv", positions(w), w->n, depth);
  int64_t columns = w->groups > 1 ? (w->n + tile.nr - 1) / tile.nr * tile.nr : 1;
  int64_t piece = gemm_piece(p, all, w->groups > 1 ? 1 : tile.nr, 4 * depth * columns + more, 0);
  if (piece == all) {
    conv_step(p, n, *w, 0, x, weights, out, e, tile);
    return;
  }
  for (int64_t at = 0; at < all; at += piece) {
    int64_t count = all - at < piece ? all - at : piece;
    Window part = *w;
    Pixels here = *out;
    View in = *x;
    *(w->groups > 1 ? &part.groups : &part.n) = count;
    if (w->groups > 1) in = view_slice(x, 1, at * w->c, count * w->c, 1);
    here.y = view_slice(&out->y, 1, at * each, count * each, 1);
    Epilogue own = low_epilogue_columns(p, e, at * each, count * each);
    tile = gemm_tile(p, "conv", positions(w), w->n, depth);
    conv_step(p, n, part, at * each, &in, weights, &here, &own, tile);
    out->more = true;
  }
}

static void lower_implicit(Program *p, Node *n, Window w, View x) {
  if (w.groups == 1 && w.c < FEW_CHANNELS && w.taps[2] > 1 && w.step[2] == 1 && w.padded_x) x = pad_lines(p, n, &w, &x);
  set_x(&w, &x);
  Pixels out = all_pixels(p, n, &w);
  Epilogue e = conv_epilogue(p, n);
  conv_steps(p, n, &w, &x, n->in[1]->tensor, &out, &e);
}

/* ---- transposed: each of the stride's phases is a convolution ---------------------------------------------------- */

/* Outputs phase, phase + stride, … of one dimension: o + pad - t * step = stride * i for the taps t = first, first +
 * period, …, and from one of them to the next i goes back by the same. */
typedef struct {
  int64_t count, taps, first, period, at; /* outputs, taps; at: the input of output 0 and tap `first` */
} Phase;

static Phase phase_of(const Window *w, int d, int64_t phase) {
  Phase f = {.count = (w->out[d] - phase + w->stride[d] - 1) / w->stride[d]};
  for (int64_t t = 0, last = -1; t < w->taps[d]; t++) {
    int64_t from = phase + w->pad[d] - t * w->step[d];
    if (from % w->stride[d]) continue;
    if (f.taps++ == 0) {
      f.first = t;
      f.at = from / w->stride[d];
    } else if (last >= 0 && f.period == 0)
      f.period = t - last;
    last = t;
  }
  return f;
}

/* The weights [groups c][n][taps] of some phases as [groups n][c][their taps]; without taps: one that is 0. */
static const Tensor *phase_weights(Program *p, const Window *w, const Tensor *source, const Phase *f) {
  int64_t taps = 1, count;
  for (int d = 0; d < 3; d++) taps *= f[d].taps;
  count = w->groups * w->n * w->c * (taps ? taps : 1);
  Tensor *t = tensor_new(p->ctx, DT_F32, 1, &count, NULL);
  float *out = tensor_writable(t);
  if (taps == 0) memset(out, 0, (size_t)count * sizeof *out);
  for (int64_t o = 0; taps && o < w->groups * w->n; o++)
    for (int64_t c = 0; c < w->c; c++)
      for (int64_t i = 0; i < taps; i++) {
        const int64_t at[3] = {i / f[2].taps / f[1].taps, i / f[2].taps % f[1].taps, i % f[2].taps};
        int64_t from = (o / w->n * w->c + c) * w->n + o % w->n;
        for (int d = 0; d < 3; d++) from = from * w->taps[d] + f[d].first + at[d] * f[d].period;
        *out++ = gemm_number(source, from);
      }
  return t;
}

static void lower_phase(Program *p, const Node *n, const Window *w, const View *x, const int64_t *phase, Pixels *out,
                        const Epilogue *e) {
  Window here = *w;
  Phase f[3];
  for (int d = 0; d < 3; d++) {
    f[d] = phase_of(w, d, phase[d]);
    if (f[d].count <= 0) return;
  }
  out->first = 0;
  for (int d = 0; d < 3; d++) {
    out->first = out->first * w->out[d] + phase[d];
    here.out[d] = f[d].count;
    here.stride[d] = 1;
    here.taps[d] = f[d].taps;
    here.step[d] = f[d].taps > 1 ? -(f[d].period * w->step[d] / w->stride[d]) : 1;
    here.pad[d] = -f[d].at;
  }
  if (all_taps(&here) == 0) /* one tap outside of x */
    for (int d = 0; d < 3; d++) here.in[d] = 0, here.taps[d] = here.step[d] = 1;
  here.padded_x = true;
  conv_steps(p, n, &here, x, phase_weights(p, w, n->in[1]->tensor, f), out, e);
  out->more = true;
}

static void lower_phases(Program *p, Node *n) {
  View x = low_view(p, n->in[0]);
  if (x.dim[1] > 1 && x.stride[1] != 1) x = low_order(p, n->in[0], CHANNELS_LAST[x.rank - 2]);
  Window w = window_of(p, n);
  set_x(&w, &x);
  Pixels out = all_pixels(p, n, &w);
  int64_t plane = out.step[1], line = out.step[2];
  out.step[1] = w.stride[0] * plane;
  out.step[2] = w.stride[1] * line;
  out.step[3] = w.stride[2];
  Epilogue e = conv_epilogue(p, n);
  int64_t phase[3];
  for (phase[0] = 0; phase[0] < w.stride[0]; phase[0]++)
    for (phase[1] = 0; phase[1] < w.stride[1]; phase[1]++)
      for (phase[2] = 0; phase[2] < w.stride[2]; phase[2]++) lower_phase(p, n, &w, &x, phase, &out, &e);
}

/* ---- depthwise --------------------------------------------------------------------------------------------------- */

/* For each vector of channels all taps, the last vector filled up with zeros; one vector: a row of channels per tap. */
static void write_depthwise(const UnitPart *part, int64_t expert, void *dst) {
  (void)expert;
  int64_t channels = part->param[0], taps = part->param[1], vector = part->param[2];
  float *out = dst;
  for (int64_t from = 0; from < channels; from += vector)
    for (int64_t t = 0; t < taps; t++, out += vector)
      for (int64_t c = from; c < channels && c < from + vector; c++)
        out[c - from] = gemm_number(part->source, c * taps + t);
}

/* How conv_depthwise_tile goes about it: outputs of a line that a tile holds, lines whose input the cache holds. */
typedef struct {
  int64_t pixels, band, columns, lines;
} DepthwiseTile;

/* False: kernel rows that are dilated or too long, or lines too long for a table of their pixels. */
static bool depthwise_tile(const Target *t, const Window *w, DepthwiseTile *d) {
  enum { MOST_PIXELS = 14, LONGEST_ROW = 9, ENOUGH = 16 }; /* items, for the threads */
  if (t->lanes == 1 || w->taps[2] > LONGEST_ROW || (w->taps[2] > 1 && w->step[2] != 1)) return false;
  int64_t most = t->registers - w->taps[2] - 1, c = w->groups;
  if (most > MOST_PIXELS) most = MOST_PIXELS;
  int64_t tiles = (w->out[2] + most - 1) / most;
  d->pixels = (w->out[2] + tiles - 1) / tiles;
  d->columns = (tiles * d->pixels - 1) * w->stride[2] + w->taps[2];
  for (d->band = w->out[1];; d->band = (d->band + 1) / 2) {
    d->lines = (d->band - 1) * w->stride[1] + (w->taps[1] - 1) * w->step[1] + 1;
    bool fits = d->lines * w->in[2] * c * 4 <= t->l2 / 4 && d->lines * d->columns * 8 <= t->l2 / 16;
    int64_t items = (w->out[1] + d->band - 1) / d->band * ((c + 4 * t->lanes - 1) / (4 * t->lanes)) * w->images;
    if (d->band == 1 || (fits && (items >= ENOUGH || d->band <= 4))) break;
  }
  return d->lines * d->columns * 8 <= t->l2 / 8;
}

static Kernel *depthwise_kernel(Program *p, const Window *w, const DepthwiseTile *tile, const Epilogue *e) {
  Ctx *c = p->ctx;
  const Hole epilogue = e->function ? (Hole){"EPILOGUE", e->function} : (Hole){0};
  const Hole plain[] = {epilogue, {0}};
  if (!tile) return low_kernel(p, "conv_depthwise", ctx_format(c, "conv_depthwise_f32%s", e->suffix), plain);
  const char *taps = ctx_format(c, "%d", (int)w->taps[2]), *stride = ctx_format(c, "%d", (int)w->stride[2]);
  const char *pixels = ctx_format(c, "%d", (int)tile->pixels);
  const Hole holes[] = {{"TAPS", taps}, {"STRIDE", stride}, {"PIXELS", pixels}, epilogue, {0}};
  const char *name = ctx_format(c, "conv_depthwise_f32_%ss%sx%s%s", taps, stride, pixels, e->suffix);
  return low_kernel(p, "conv_depthwise_tile", name, holes);
}

static void lower_depthwise(Program *p, Node *n, const Window *w, const View *x) {
  enum { PIXELS = 8 };
  DepthwiseTile tile;
  bool tiled = depthwise_tile(p->target, w, &tile);
  int64_t taps = all_taps(w), row = round_up(w->groups, p->target->lanes), table[16];
  View y = low_output(p, n->out[0], CHANNELS_LAST[x->rank - 2]);
  Epilogue e = conv_epilogue(p, n);
  Step *s = low_call(p, n, depthwise_kernel(p, w, tiled ? &tile : NULL, &e));
  s->macs = positions(w) * w->groups * taps;
  conv_table(w, 1, table);
  low_read(s, x);
  const int64_t param[UNIT_PARAMS] = {w->groups, taps, tiled ? p->target->lanes : row};
  low_weight(p, s, DT_F32, taps * row * 4, n->in[1]->tensor, write_depthwise, param, LAYOUT_DEPTHWISE);
  low_write(s, &y);
  low_operands(s, &e);
  int64_t pointers = tiled ? tile.lines * tile.columns : taps * PIXELS;
  int64_t scratch = round_up(pointers * 8 + round_up(w->groups, 16) * 4, 64);
  low_scratch_each(s, DT_I64, scratch);
  low_size(s, scratch / 8);
  low_table(s, table, 16);
  low_size(s, w->groups);
  low_size(s, tiled ? tile.band : row);
}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

/* conv_any and conv_transpose, which have the same parameters. */
static void lower_plain(Program *p, Node *n, const char *template) {
  Window w = window_of(p, n);
  DType t = n->out[0]->dtype;
  View x = low_view(p, n->in[0]), k = low_packed(p, n->in[1]), y = low_output(p, n->out[0], NULL);
  set_x(&w, &x);
  const int64_t head[] = {w.images, w.groups, w.c, w.n, w.image_stride, w.channel_stride};
  int64_t table[6 + 7 * 3];
  memcpy(table, head, sizeof head);
  const int64_t *const lists[] = {w.in, w.in_stride, w.out, w.taps, w.stride, w.step, w.pad};
  for (int l = 0; l < 7; l++) memcpy(table + 6 + 3 * l, lists[l], 3 * sizeof *table);
  const Hole holes[] = {{"T", dtype_c(t)}, {0}};
  Step *s = low_call(p, n, low_kernel(p, template, ctx_format(p->ctx, "%s_%s", template, dtype_short(t)), holes));
  s->macs = positions(&w) * w.groups * w.n * w.c * all_taps(&w);
  low_read(s, &x);
  low_read(s, &k);
  if (n->n_own > 2 && n->in[2]) {
    View bias = low_packed(p, n->in[2]);
    low_read(s, &bias);
  } else {
    low_null(s, t);
  }
  low_write(s, &y);
  low_table(s, table, 6 + 7 * 3);
}

void lower_conv(Program *p, Node *n) {
  int64_t count = shape_count(&n->out[0]->shape), inputs = shape_count(&n->in[0]->shape);
  if (count == 0) {
    low_output(p, n->out[0], NULL);
    return;
  }
  if (n->out[0]->dtype != DT_F32 || !n->in[1]->tensor || inputs == 0) {
    if (!gemm_unfused(p, n, lower_conv)) lower_plain(p, n, "conv_any");
    return;
  }
  if (n->in[0]->producer && resize_conv_point(p, n->in[0]->producer) == n) {
    lower_resize_conv_point(p, n);
    return;
  }
  Window w = window_of(p, n);
  View x = low_view(p, n->in[0]);
  bool few = w.groups == 1 && w.c < FEW_CHANNELS && w.taps[2] > 1 && w.step[2] == 1 && w.padded_x;
  if (!few && x.dim[1] > 1 && x.stride[1] != 1) x = low_order(p, n->in[0], CHANNELS_LAST[x.rank - 2]);
  set_x(&w, &x);
  if (lower_pointwise(p, n, &w, &x)) return;
  if (w.groups > 1 && w.c == 1 && w.n == 1 && w.taps[0] == 1 && w.in[0] == 1 && w.stride[0] == 1 && !w.pad[0])
    lower_depthwise(p, n, &w, &x);
  else
    lower_implicit(p, n, w, x);
}

/* Many groups of few channels would fill panels with zeros. */
static bool fills_panels(const Program *p, const Window *w) { return w->groups == 1 || 2 * w->n > p->target->lanes; }

void lower_conv_transpose(Program *p, Node *n) {
  if (shape_count(&n->out[0]->shape) == 0) {
    low_output(p, n->out[0], NULL);
    return;
  }
  Window w = window_of(p, n);
  bool floats = n->out[0]->dtype == DT_F32 && n->in[1]->tensor && shape_count(&n->in[0]->shape) > 0;
  if (floats && fills_panels(p, &w))
    lower_phases(p, n);
  else if (!gemm_unfused(p, n, lower_conv_transpose))
    lower_plain(p, n, "conv_transpose");
}
