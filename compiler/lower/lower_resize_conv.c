/* moecc.ResizeConv: onto the kernel resize_conv, or resize_conv_point together with a pointwise convolution that alone
 * reads its result, which then is never made. What the kernels keep of a strip of the picture, and so how wide the strip
 * is and how many rows a work item has, is decided here.
 */
#include "bands.h"
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

/* Elements *first … *last - 1 of x are what elements from … to - 1 of y read. */
static void reach_of(const Extent *e, int64_t from, int64_t to, int64_t *first, int64_t *last) {
  int64_t near = (int64_t)e->from.n;
  *first = e->in;
  *last = 0;
  for (int64_t i = from * e->taps; i < to * e->taps && i < e->out * e->taps; i++) {
    int64_t m = i / e->taps * e->stride + i % e->taps * e->step - e->pad;
    for (int64_t k = m * near; m >= 0 && m < e->middle && k < (m + 1) * near; k++) {
      if (e->from.index[k] < *first) *first = e->from.index[k];
      if (e->from.index[k] >= *last) *last = e->from.index[k] + 1;
    }
  }
}

/* The most elements of x that `count` elements of y, from a multiple of it on, read between them; at least 1. */
static int64_t reach(const Extent *e, int64_t count) {
  int64_t most = 1;
  for (int64_t from = 0; from < e->out; from += count) {
    int64_t first, last;
    reach_of(e, from, from + count, &first, &last);
    if (last - first > most) most = last - first;
  }
  return most;
}

/* The axis seen by elements first … first + count - 1 of y, of which x's from `origin` on, `in` of them, are there. */
static Extent extent_part(Program *p, Extent e, int64_t first, int64_t count, int64_t origin, int64_t in) {
  size_t n = (size_t)e.middle * e.from.n;
  int64_t *index = ctx_array(p->ctx, n, sizeof *index);
  for (size_t i = 0; i < n; i++) {
    int64_t at = e.from.index[i] - origin;
    index[i] = at < 0 ? 0 : at < in ? at : in - 1;
  }
  e.from.index = index;
  e.pad -= first * e.stride;
  e.in = in;
  e.out = count;
  return e;
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

/* The ring and the products, then `more` floats; the lists of terms (two numbers each), pointers to pixels, and counts. */
static void add_scratch(Step *step, const Extent *y, const Extent *x, const Strip *s, Tile tile, int64_t more) {
  int64_t floats = round_up(strip_floats(y, x, s, &tile) + more, 16), pairs = s->band / 2;
  int64_t terms = pairs * 2 * x->taps * (int64_t)x->from.n + 2 * y->taps * (int64_t)y->from.n;
  int64_t lists = round_up(2 * terms + s->run * s->wide + pairs, 8);
  low_scratch_each(step, DT_F32, floats * 4);
  low_size(step, floats);
  low_scratch_each(step, DT_I64, lists * 8);
  low_size(step, lists);
}

static const int channels_last[4] = {0, 2, 3, 1};

/* What both kernels are given alike. */
typedef struct {
  View x;
  Extent rows, columns;
  Tile tile;
  Strip strip;
  int64_t c, taps;       /* channels of x, taps of the convolution */
  int64_t first, m, all; /* of all its output channels these */
  int64_t macs;          /* for each output channel */
} Resized;

/* y: the rows that are to be computed of the result, x where those they read are; or both NULL: all. */
static Resized prepare(Program *p, Node *n, const char *kernel, const RowBand *x, const RowBand *y) {
  if (n->out[0]->dtype != DT_F32 || !n->in[1]->tensor || shape_count(&n->in[0]->shape) == 0)
    ctx_fail(p->ctx, n, "only float pictures and constant weights are supported");
  Resized r = {.x = x ? x->view : low_view(p, n->in[0]), .rows = extent_of(p, n, 2), .columns = extent_of(p, n, 3)};
  if (!x && r.x.dim[1] > 1 && r.x.stride[1] != 1) r.x = low_order(p, n->in[0], channels_last);
  r.c = r.x.dim[1];
  r.m = r.all = n->out[0]->shape.dim[1].n;
  r.taps = r.rows.taps * r.columns.taps;
  r.tile = gemm_tile(p, kernel, r.rows.in * r.columns.in, r.m, r.taps * r.c);
  if (x && y) r.rows = extent_part(p, r.rows, y->first, y->view.dim[2], x->first, x->view.dim[2]);
  r.macs = r.x.dim[0] * r.rows.in * r.columns.in * r.taps * r.c;
  r.strip = choose_strip(p->target, &r.rows, &r.columns, r.tile);
  return r;
}

/* x, the weights, and those of the rows and columns. */
static void add_operands(Program *p, Step *s, const Node *n, const Resized *r) {
  View wy = weights_view(p, &r->rows.from, r->rows.middle), wx = weights_view(p, &r->columns.from, r->columns.middle);
  low_read(s, &r->x);
  gemm_conv_weight(p, s, n->in[1]->tensor, r->first, 1, r->m, r->c, r->taps, r->tile);
  low_read(s, &wy);
  low_read(s, &wx);
}

/* Of the output channels that are computed. */
static Epilogue epilogue_of(Program *p, Node *n, const Resized *r) {
  Epilogue whole = conv_epilogue(p, n);
  return r->m == r->all ? whole : low_epilogue_columns(p, &whole, r->first, r->m);
}

/* Calls `step` for pieces of the output channels, as many as one weight unit has room for. each: bytes of weights for an
 * output channel, besides those of the convolution. */
static void in_pieces(Program *p, Node *n, const char *kernel, Resized *r, int64_t each, const View *y, int64_t pitch,
                      void (*step)(Program *p, Node *n, const Resized *r, const View *y, int64_t pitch)) {
  int64_t tables = 4 * (r->rows.middle * (int64_t)r->rows.from.n + r->columns.middle * (int64_t)r->columns.from.n);
  int64_t piece = gemm_piece(p, r->all, r->tile.nr, 4 * r->c * r->taps + each, tables);
  for (r->first = 0; r->first < r->all; r->first += piece) {
    r->m = r->all - r->first < piece ? r->all - r->first : piece;
    if (r->first > 0) r->tile = gemm_tile(p, kernel, r->rows.in * r->columns.in, r->all, r->taps * r->c);
    step(p, n, r, y, pitch);
  }
}

static void add_tables(Step *s, const Resized *r, int64_t pitch) {
  add_shape(s, &r->x, r->m, pitch, &r->rows, &r->columns, &r->strip);
  low_table(s, r->rows.from.index, (size_t)r->rows.middle * r->rows.from.n);
  low_table(s, r->columns.from.index, (size_t)r->columns.middle * r->columns.from.n);
}

/* ---- together with a pointwise convolution ----------------------------------------------------------------------- */

static bool all_are(const Node *n, const char *name, int64_t wanted) {
  const int64_t *v;
  for (size_t i = 0, count = node_ints(n, name, &v); i < count; i++)
    if (v[i] != wanted) return false;
  return true;
}

static bool is_pointwise(const Node *n) {
  const Shape *w = &n->in[1]->shape;
  return n->op == OP_CONV && n->out[0]->dtype == DT_F32 && n->in[1]->tensor && node_int(n, "group", 1) == 1 &&
         w->rank == 4 && w->dim[2].n == 1 && w->dim[3].n == 1 && all_are(n, "strides", 1) && all_are(n, "pads", 0);
}

/* The map that is not made would be written and read once, from afar if the cache does not hold it; the sums of the
 * outputs are written and read once for each panel, which costs a quarter of that, since a strip's are near. And the
 * sums have to be much smaller than the map is. */
static bool joining_pays(const Target *t, const Node *n, const Node *point) {
  enum { NEARER = 4 };
  int64_t channels = n->out[0]->shape.dim[1].n, outputs = point->out[0]->shape.dim[1].n;
  int64_t pixels = shape_count(&n->out[0]->shape) / channels;
  Tile tile = gemm_tile_model(t, pixels, channels, INT64_MAX);
  int64_t panels = (channels + tile.nr - 1) / tile.nr;
  return shape_count(&n->out[0]->shape) * 4 > t->l2 / 2 && 2 * outputs <= channels &&
         outputs * panels <= NEARER * channels;
}

Node *resize_conv_point(const Program *p, const Node *n) {
  const Value *map = n->out[0];
  if (p->folding || n->op != OP_RESIZE_CONV || shape_count(&map->shape) == 0 || !value_single_use(map)) return NULL;
  Node *point = map->uses[0].node;
  if (point->tasks != n->tasks || point->in[0] != map || !is_pointwise(point)) return NULL;
  return joining_pays(p->target, n, point) ? point : NULL;
}

/* The kernel's second epilogue has another name. */
static const char *renamed(Ctx *c, const char *function) {
  const char *at = strstr(function, "EPILOGUE");
  return ctx_format(c, "%.*sRESULT%s", (int)(at - function), function, at + strlen("EPILOGUE"));
}

static Kernel *point_kernel(Program *p, Tile tile, const Epilogue *e, Tile last, const Epilogue *result) {
  Ctx *c = p->ctx;
  Hole holes[7] = {{"MR", ctx_format(c, "%d", tile.mr)},
                   {"NR", ctx_format(c, "%d", tile.nr)},
                   {"P", ctx_format(c, "%d", last.mr)},
                   {"Q", ctx_format(c, "%d", last.nr)}};
  size_t n = 4;
  if (e->function) holes[n++] = (Hole){"EPILOGUE", e->function};
  if (result->function) holes[n++] = (Hole){"RESULT", renamed(c, result->function)};
  return low_kernel(p, "resize_conv_point",
                    ctx_format(c, "resize_conv_point_f32_%dx%d_%dx%d", tile.mr, tile.nr, last.mr, last.nr), holes);
}

static void point_step(Program *p, Node *point, const Resized *r, const View *y, int64_t pitch) {
  Node *n = point->in[0]->producer;
  int64_t q = point->out[0]->shape.dim[1].n, pixels = y->dim[0] * y->dim[2] * y->dim[3];
  Epilogue e = epilogue_of(p, n, r);
  Epilogue result = conv_epilogue(p, point);
  Tile last = gemm_tile_model(p->target, shape_count(&n->out[0]->shape) / r->all, q, INT64_MAX);
  Step *s = low_call(p, point, point_kernel(p, r->tile, &e, last, &result));
  s->with = n;
  s->macs = r->macs * r->m + pixels * r->m * q;
  add_operands(p, s, n, r);
  low_operands(s, &e);
  gemm_weight(p, s, point->in[1]->tensor, (Matrix){r->m, q, 1, r->all, r->first, 0}, last);
  gemm_result(s, y, r->first > 0 || pitch != y->dim[1]);
  low_operands(s, &result);
  add_scratch(s, &r->rows, &r->columns, &r->strip, r->tile, 4 * last.mr * r->tile.nr);
  add_tables(s, r, pitch);
  low_size(s, q);
  low_size(s, r->first);
  low_size(s, r->all);
}

static void point_steps(Program *p, Node *point, Resized *r, const View *y, int64_t pitch) {
  int64_t each = 4 * round_up(point->out[0]->shape.dim[1].n, p->target->lanes);
  in_pieces(p, point, "resize_conv_point", r, each, y, pitch, point_step);
}

void lower_resize_conv_point(Program *p, Node *point) {
  Resized r = prepare(p, point->in[0]->producer, "resize_conv_point", NULL, NULL);
  int64_t pitch;
  View y = low_output_rows(p, point->out[0], channels_last, &pitch);
  point_steps(p, point, &r, &y, pitch);
}

/* ---- alone ------------------------------------------------------------------------------------------------------- */

static void resize_conv_step(Program *p, Node *n, const Resized *r, const View *y, int64_t pitch) {
  Epilogue e = epilogue_of(p, n, r);
  View columns = view_slice(y, 1, r->first, r->m, 1);
  Step *s = low_call(p, n, gemm_kernel(p, "resize_conv", r->tile, &e));
  s->macs = r->macs * r->m;
  add_operands(p, s, n, r);
  gemm_result(s, &columns, r->first > 0 || pitch != y->dim[1]);
  low_operands(s, &e);
  add_scratch(s, &r->rows, &r->columns, &r->strip, r->tile, 0);
  add_tables(s, r, pitch);
}

static void resize_conv_steps(Program *p, Node *n, Resized *r, const View *y, int64_t pitch) {
  in_pieces(p, n, "resize_conv", r, 0, y, pitch, resize_conv_step);
}

void lower_resize_conv(Program *p, Node *n) {
  if (shape_count(&n->out[0]->shape) == 0) {
    low_output(p, n->out[0], NULL);
    return;
  }
  if (resize_conv_point(p, n)) return; /* when that is lowered */
  Resized r = prepare(p, n, "resize_conv", NULL, NULL);
  int64_t pitch;
  View y = low_output_rows(p, n->out[0], channels_last, &pitch);
  resize_conv_steps(p, n, &r, &y, pitch);
}

/* ---- in bands (bands.h) ------------------------------------------------------------------------------------------ */

/* Operands of an expression might vary from row to row; the bias does not. */
bool resize_conv_can_band(const Program *p, const Node *n) {
  const Node *first = n->op == OP_RESIZE_CONV ? n : n->in[0]->producer;
  if (n->op == OP_RESIZE_CONV && resize_conv_point(p, n)) return false;
  return n->n_in == n->n_own && first->n_in == first->n_own && first->in[1]->tensor &&
         shape_count(&first->in[0]->shape) > 0;
}

void resize_conv_reach(Program *p, const Node *n, int64_t from, int64_t rows, int64_t *first, int64_t *count) {
  Extent e = extent_of(p, n, 2);
  reach_of(&e, from, from + rows, first, count);
  if (*first >= *count) *first = 0, *count = 1; /* rows of padding alone */
  *count -= *first;
}

void resize_conv_band(Program *p, Node *n, const RowBand *x, const RowBand *y) {
  bool point = n->op != OP_RESIZE_CONV;
  Resized r = prepare(p, point ? n->in[0]->producer : n, point ? "resize_conv_point" : "resize_conv", x, y);
  (point ? point_steps : resize_conv_steps)(p, n, &r, &y->view, y->view.stride[3]);
}
