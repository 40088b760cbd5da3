/* moecc.ResizeConv: onto the kernel resize_conv. What the kernel keeps of a strip of the picture, and so how wide the
 * strip is and how many rows a work item has, is decided here.
 */
#include "gemm.h"
#include "resize.h"

#include <string.h>

/* One axis, as the kernel's table `shape` has it, and what the picture's resampling reads. */
typedef struct {
  int64_t in, middle, out, taps, stride, step, pad;
  ResizeTaps from;
} Extent;

static int64_t number_at(const Node *n, const char *name, size_t i) {
  const int64_t *v;
  if (i >= node_ints(n, name, &v)) ctx_fail(n->graph->ctx, n, "attribute %s is incomplete", name);
  return v[i];
}

static Extent extent_of(Program *p, const Node *n, int axis) {
  size_t i = (size_t)axis - 2;
  Extent e = {.in = n->in[0]->shape.dim[axis].n,
              .middle = number_at(n, "resized", i),
              .out = n->out[0]->shape.dim[axis].n,
              .taps = n->in[1]->shape.dim[axis].n,
              .stride = number_at(n, "strides", i),
              .step = number_at(n, "dilations", i),
              .pad = number_at(n, "pads", i)};
  e.from = resize_taps(p, n, e.in, e.middle);
  return e;
}

/* The most elements of x that `count` elements of y, from a multiple of it on, read between them; at least 1. */
static int64_t reach(const Extent *e, int64_t count) {
  int64_t most = 1, near = (int64_t)e->from.n;
  for (int64_t from = 0; from < e->out; from += count) {
    int64_t first = e->in, last = 0;
    for (int64_t i = from * e->taps; i < (from + count) * e->taps && i < e->out * e->taps; i++) {
      int64_t m = i / e->taps * e->stride + i % e->taps * e->step - e->pad;
      for (int64_t k = m * near; m >= 0 && m < e->middle && k < (m + 1) * near; k++) {
        if (e->from.index[k] < first) first = e->from.index[k];
        if (e->from.index[k] >= last) last = e->from.index[k] + 1;
      }
    }
    if (last - first > most) most = last - first;
  }
  return most;
}

/* Rows and columns of y in an item, what they need of x, and how many rows of x are multiplied at a time. */
typedef struct {
  int64_t block, band, ring, wide, run;
} Strip;

static int64_t strip_floats(const Extent *y, const Extent *x, const Strip *s, const Tile *tile) {
  return (y->taps * s->ring * s->band + x->taps * s->run * s->wide) * tile->nr;
}

/* A strip's ring fits half the L2 cache; a run of rows has pixels for a few tiles, and an item makes one run. */
static Strip choose_strip(const Target *t, const Extent *y, const Extent *x, Tile tile) {
  enum { TILES = 4, NARROW = 64 };
  int64_t all = round_up(x->out, 2);
  Strip s = {.block = 2, .band = all, .run = 1};
  s.ring = reach(y, s.block);
  s.wide = reach(x, s.band);
  for (int64_t bands = 2; s.band > NARROW && strip_floats(y, x, &s, &tile) * 4 > t->l2 / 2; bands++) {
    s.band = round_up((all + bands - 1) / bands, 2);
    s.wide = reach(x, s.band);
  }
  for (Strip more = s; s.run < y->in && s.run * s.wide < TILES * tile.mr; s = more) {
    more.run = s.run + 1;
    more.block = round_up((more.run * y->out + y->in - 1) / y->in, 2);
    more.ring = reach(y, more.block);
    if (strip_floats(y, x, &more, &tile) * 4 > t->l2 / 2) break;
  }
  return s;
}

static View weights_view(Program *p, const ResizeTaps *from, int64_t count) {
  int64_t n = count * (int64_t)from->n;
  Tensor *w = tensor_new(p->ctx, DT_F32, 1, &n, NULL);
  float *f = tensor_writable(w);
  for (int64_t i = 0; i < n; i++) f[i] = (float)from->weight[i];
  return (View){.constant = w, .dtype = DT_F32, .rank = 1, .dim = {n}, .stride = {1}};
}

static int64_t *put_extent(int64_t *t, const Extent *e) {
  const int64_t v[] = {e->in, e->middle, e->out, e->taps, e->stride, e->step, e->pad, (int64_t)e->from.n};
  memcpy(t, v, sizeof v);
  return t + sizeof v / sizeof *v;
}

static void add_shape(Step *step, const View *x, int64_t n, int64_t pitch, const Extent *rows, const Extent *columns,
                      const Strip *s) {
  const int64_t head[] = {x->dim[0], x->dim[1], n, x->stride[0], x->stride[2], x->stride[3], pitch};
  const int64_t tail[] = {s->block, s->band, s->ring, s->wide, s->run};
  int64_t table[28], *t = table;
  memcpy(t, head, sizeof head);
  t = put_extent(put_extent(t + 7, rows), columns);
  memcpy(t, tail, sizeof tail);
  low_table(step, table, 28);
}

/* The ring and the products; the lists of terms (two numbers each), pointers to pixels, and counts. */
static void add_scratch(Step *step, const Extent *y, const Extent *x, const Strip *s, Tile tile) {
  int64_t floats = round_up(strip_floats(y, x, s, &tile), 16), pairs = s->band / 2;
  int64_t terms = pairs * 2 * x->taps * (int64_t)x->from.n + 2 * y->taps * (int64_t)y->from.n;
  int64_t lists = round_up(2 * terms + s->run * s->wide + pairs, 8);
  low_scratch_each(step, DT_F32, floats * 4);
  low_size(step, floats);
  low_scratch_each(step, DT_I64, lists * 8);
  low_size(step, lists);
}

void lower_resize_conv(Program *p, Node *n) {
  static const int channels_last[4] = {0, 2, 3, 1};
  if (shape_count(&n->out[0]->shape) == 0) {
    low_output(p, n->out[0], NULL);
    return;
  }
  if (n->out[0]->dtype != DT_F32 || !n->in[1]->tensor || shape_count(&n->in[0]->shape) == 0)
    ctx_fail(p->ctx, n, "only float pictures and constant weights are supported");
  View x = low_view(p, n->in[0]);
  if (x.dim[1] > 1 && x.stride[1] != 1) x = low_order(p, n->in[0], channels_last);
  Extent rows = extent_of(p, n, 2), columns = extent_of(p, n, 3);
  int64_t pitch, c = x.dim[1], m = n->out[0]->shape.dim[1].n, pixels = rows.in * columns.in,
                 taps = rows.taps * columns.taps;
  View y = low_output_rows(p, n->out[0], channels_last, &pitch);
  View wy = weights_view(p, &rows.from, rows.middle), wx = weights_view(p, &columns.from, columns.middle);
  Epilogue e = conv_epilogue(p, n);
  Tile tile = gemm_tile(p, "resize_conv", pixels, m, taps * c);
  Strip strip = choose_strip(p->target, &rows, &columns, tile);
  Step *s = low_call(p, n, gemm_kernel(p, "resize_conv", tile, &e));
  s->macs = x.dim[0] * pixels * taps * c * m;
  low_read(s, &x);
  gemm_conv_weight(p, s, n->in[1]->tensor, 1, m, c, taps, tile);
  low_read(s, &wy);
  low_read(s, &wx);
  if (pitch == m)
    low_write(s, &y);
  else
    low_update(s, &y);
  low_operands(s, &e);
  add_scratch(s, &rows, &columns, &strip, tile);
  add_shape(s, &x, m, pitch, &rows, &columns, &strip);
  low_table(s, rows.from.index, (size_t)rows.middle * rows.from.n);
  low_table(s, columns.from.index, (size_t)columns.middle * columns.from.n);
}
