/* What all lowerings onto the matrix multiplication share; see gemm.h. */
#include "gemm.h"

#include <string.h>

/* ---- tiles ----------------------------------------------------------------------------------------------------------
 */

enum { MOST_ROWS = 14, MOST_VECTORS = 4 }; /* as in runtime/moecc_gemm.h */

static int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Cycles for one step of k over the whole result: a tile does rows * vectors multiply-adds at two a cycle, as many
 * loads as it has rows and vectors at two a cycle, and cannot be faster than a multiply-add's latency. Each vector of
 * the panel comes from L2; a row pointer beyond those that find a register costs a load of its own. */
static double tile_cost(const Target *t, int mr, int vectors, int64_t rows, int64_t columns) {
  enum { POINTERS = 10 };
  int64_t tiles = up(rows, mr), panels = up(columns, (int64_t)vectors * t->lanes), r = up(rows, tiles);
  double fma = 0.5 * (double)(r * vectors), loads = 0.5 * (double)(r + vectors);
  double cycles = fma > loads ? fma : loads;
  if (cycles < 4) cycles = 4;
  cycles += 0.5 * vectors + 0.05 * (double)r + (r > POINTERS ? 0.4 * (double)(r - POINTERS) : 0);
  return (double)(tiles * panels) * (cycles + 0.5);
}

double gemm_cost(const Target *t, Tile tile, int64_t rows, int64_t columns) {
  return tile_cost(t, tile.mr, tile.nr / t->lanes, rows, columns);
}

Tile gemm_tile_model(const Target *t, int64_t rows, int64_t columns, int64_t widest) {
  Tile best = {.mr = 1, .nr = t->lanes};
  double least = -1;
  for (int vectors = 1; vectors <= MOST_VECTORS && (vectors == 1 || vectors * t->lanes <= widest); vectors++) {
    int mr = (t->registers - 1 - vectors) / vectors;
    if (mr > MOST_ROWS) mr = MOST_ROWS;
    if (mr < 1) continue;
    double cost = tile_cost(t, mr, vectors, rows, columns);
    if (least >= 0 && cost >= least) continue;
    least = cost;
    best = (Tile){.mr = mr, .nr = vectors * t->lanes};
  }
  return best;
}

int64_t gemm_block(const Target *t, Tile tile, int64_t rows, int64_t length, int64_t columns) {
  int64_t block = t->l2 / 2 / 4 / (length > 0 ? length : 1), panels = up(columns, tile.nr);
  while (block > 4 * tile.mr && up(rows, block) * panels < 32) block /= 2;
  if (tile.block) block = block * tile.block / 100;
  return block < tile.mr ? tile.mr : up(block, tile.mr) * tile.mr;
}

/* Where neither all of x nor all of the weights stay in half the L2 cache, k is cut so that x comes nearer to it: the
 * weights are then read less often. */
int64_t gemm_depth(const Target *t, int64_t rows, Matrix m) {
  enum { SHORTEST = 256 };
  int64_t room = t->l2 / 2 / 4, pieces = up(rows * m.k, room);
  if (m.k * m.n <= room) return m.k;
  if (pieces > m.k / SHORTEST) pieces = m.k / SHORTEST;
  return pieces > 1 ? up(m.k, pieces) : m.k;
}

/* ---- weights --------------------------------------------------------------------------------------------------------
 */

float gemm_number(const Tensor *t, int64_t i) {
  return t->dtype == DT_F32 ? ((const float *)t->data)[i] : (float)tensor_number(t, i);
}

static void write_panels(const UnitPart *part, int64_t expert, void *dst) {
  int64_t n = part->param[0], k = part->param[1], nr = part->param[2];
  int64_t k_stride = part->param[3], n_stride = part->param[4], from = part->param[5] + expert * part->param[6];
  float *out = dst;
  for (int64_t panel = 0; panel < n; panel += nr)
    for (int64_t i = 0; i < k; i++, out += nr)
      for (int64_t j = 0; j < nr && panel + j < n; j++)
        out[j] = gemm_number(part->source, from + i * k_stride + (panel + j) * n_stride);
}

int64_t gemm_panel_bytes(Matrix m, Tile tile) { return up(m.n, tile.nr) * tile.nr * m.k * 4; }

Matrix matrix_columns(Matrix m, int64_t first, int64_t count) {
  m.offset += first * m.n_stride;
  m.n = count;
  return m;
}

enum { GAPS = 256 }; /* between the parts of a unit, and its checksum */

int64_t gemm_widest(const Program *p, int64_t depth) {
  return p->unit_bytes && depth ? (p->unit_bytes - GAPS) / (4 * depth) : INT64_MAX;
}

int64_t gemm_piece(const Program *p, int64_t n, int nr, int64_t each, int64_t more) {
  int64_t room = p->unit_bytes - more - GAPS, panels = up(n, nr), most = room / (each * nr);
  if (!p->unit_bytes || panels <= most || panels < 2) return n;
  int64_t pieces = up(panels, most > 1 ? most : 1);
  return up(panels, pieces) * nr;
}

void gemm_weight(Program *p, Step *s, const Tensor *source, Matrix m, Tile tile) {
  const int64_t param[UNIT_PARAMS] = {m.n, m.k, tile.nr, m.k_stride, m.n_stride, m.offset, m.expert};
  low_weight(p, s, DT_F32, gemm_panel_bytes(m, tile), source, write_panels, param, LAYOUT_PANELS);
}

static void write_conv_panels(const UnitPart *part, int64_t expert, void *dst) {
  (void)expert;
  int64_t n = part->param[0], c = part->param[1], taps = part->param[2], nr = part->param[3], groups = part->param[4];
  int64_t first = part->param[5];
  float *out = dst;
  for (int64_t g = 0; g < groups; g++)
    for (int64_t panel = 0; panel < n; panel += nr)
      for (int64_t tap = 0; tap < taps; tap++)
        for (int64_t i = 0; i < c; i++, out += nr)
          for (int64_t j = 0; j < nr && panel + j < n; j++)
            out[j] = gemm_number(part->source, ((first + g * n + panel + j) * c + i) * taps + tap);
}

void gemm_conv_weight(Program *p, Step *s, const Tensor *source, int64_t first, int64_t groups, int64_t n, int64_t c,
                      int64_t taps, Tile tile) {
  const int64_t param[UNIT_PARAMS] = {n, c, taps, tile.nr, groups, first};
  int64_t bytes = groups * up(n, tile.nr) * tile.nr * c * taps * 4;
  low_weight(p, s, DT_F32, bytes, source, write_conv_panels, param, LAYOUT_CONV_PANELS);
}

/* ---- biases ---------------------------------------------------------------------------------------------------------
 */

Value *gemm_value(Program *p, const View *w) {
  Value *v = graph_value(p->graph, NULL, w->dtype, shape_of(w->rank, w->dim));
  program_reserve_views(p);
  p->view[v->id] = *w;
  return v;
}

static ExprStep *add_step(Ctx *c, Expr *e) {
  e->step = ctx_grow(c, e->step, e->n, &e->cap, sizeof *e->step);
  ExprStep *s = &e->step[e->n++];
  *s = (ExprStep){.arg = {-1, -1, -1}};
  return s;
}

/* Appends op(left, right) and returns its index. */
static int add_binary(Ctx *c, Expr *e, const Node *n, Op op, int left, int right) {
  Node *detached = ctx_alloc(c, sizeof *detached);
  detached->op = op;
  detached->name = "";
  detached->scope = "";
  detached->op_type = op_info(op)->name;
  detached->graph = n->graph;
  ExprStep *s = add_step(c, e);
  s->kind = EX_OP;
  s->op = detached;
  s->arg[0] = left;
  s->arg[1] = right;
  return (int)e->n - 1;
}

/* Appends the steps of `from`, its EX_ACC being step `acc`. */
static void append_expr(Ctx *c, Expr *e, const Expr *from, int acc) {
  int *at = ctx_array(c, from->n, sizeof *at);
  for (size_t i = 0; i < from->n; i++) {
    if (from->step[i].kind == EX_ACC) {
      at[i] = acc;
      continue;
    }
    ExprStep *s = add_step(c, e);
    *s = from->step[i];
    for (int k = 0; k < 3; k++)
      if (s->kind == EX_OP && s->arg[k] >= 0 && (size_t)s->arg[k] < i) s->arg[k] = at[s->arg[k]];
    at[i] = (int)e->n - 1;
  }
}

Node *gemm_with_bias(Program *p, Node *n, double scale, const View *bias) {
  if (!bias && scale == 1) return n;
  Ctx *c = p->ctx;
  Node *copy = ctx_alloc(c, sizeof *copy);
  *copy = *n;
  Expr *e = ctx_alloc(c, sizeof *e);
  e->dtype = DT_F32;
  add_step(c, e)->kind = EX_ACC;
  int result = 0;
  if (scale != 1) {
    ExprStep *s = add_step(c, e);
    s->kind = EX_NUMBER;
    s->number = scale;
    result = add_binary(c, e, n, OP_MUL, 0, 1);
  }
  if (bias) {
    copy->in = ctx_array(c, (size_t)n->n_in + 1, sizeof *copy->in);
    memcpy(copy->in, n->in, (size_t)n->n_in * sizeof *n->in);
    copy->in[copy->n_in++] = gemm_value(p, bias);
    ExprStep *s = add_step(c, e);
    s->kind = EX_INPUT;
    s->input = n->n_in;
    result = add_binary(c, e, n, OP_ADD, result, (int)e->n - 1);
  }
  if (n->expr) append_expr(c, e, n->expr, result);
  copy->expr = e;
  return copy;
}

void lower_elementwise(Program *p, Node *n);

bool gemm_unfused(Program *p, Node *n, void (*lower)(Program *p, Node *n)) {
  if (!n->expr) return false;
  Ctx *c = p->ctx;
  Node *plain = ctx_alloc(c, sizeof *plain), *chain = ctx_alloc(c, sizeof *chain);
  *plain = *chain = *n;
  plain->expr = NULL;
  plain->n_in = n->n_own;
  plain->out = ctx_alloc(c, sizeof *plain->out);
  plain->out[0] = graph_value(p->graph, NULL, n->in[0]->dtype, n->out[0]->shape);
  plain->out[0]->tasks = n->tasks;
  program_reserve_views(p);
  lower(p, plain);
  int extra = n->n_in - n->n_own;
  Expr *e = ctx_alloc(c, sizeof *e);
  *e = *n->expr;
  e->step = ctx_array(c, e->n, sizeof *e->step);
  for (size_t i = 0; i < e->n; i++) {
    ExprStep *s = &e->step[i];
    *s = n->expr->step[i];
    if (s->kind == EX_INPUT) s->input = 1 + s->input - n->n_own;
    if (s->kind == EX_ACC) *s = (ExprStep){.kind = EX_INPUT, .input = 0, .arg = {-1, -1, -1}};
  }
  chain->op = OP_FUSED;
  chain->expr = e;
  chain->n_in = chain->n_own = 1 + extra;
  chain->in = ctx_array(c, (size_t)chain->n_in, sizeof *chain->in);
  chain->in[0] = plain->out[0];
  for (int i = 0; i < extra; i++) chain->in[1 + i] = n->in[n->n_own + i];
  lower_elementwise(p, chain);
  return true;
}

/* ---- the kernel `matmul` --------------------------------------------------------------------------------------------
 */

Kernel *gemm_kernel(Program *p, const char *template, Tile tile, const Epilogue *e) {
  Ctx *c = p->ctx;
  const char *rows = ctx_format(c, "%d", tile.mr), *columns = ctx_format(c, "%d", tile.nr);
  const Hole epilogue = e->function ? (Hole){"EPILOGUE", e->function} : (Hole){0};
  const Hole holes[] = {{"MR", rows}, {"NR", columns}, epilogue, {0}};
  return low_kernel(p, template, ctx_format(c, "%s_f32_%sx%s%s", template, rows, columns, e->suffix), holes);
}

void gemm_result(Step *s, const View *y, bool more) {
  if (more)
    low_update(s, y);
  else
    low_write(s, y);
}

static void matmul_step(Program *p, const Node *n, const View *x, const Tensor *w, Matrix m, const View *y,
                        int64_t y_row, bool more, const Epilogue *e, Tile tile) {
  int64_t rows = x->dim[0], depth = gemm_depth(p->target, rows, m);
  Step *s = low_call(p, n, gemm_kernel(p, "matmul", tile, e));
  s->macs = rows * m.n * m.k;
  low_read(s, x);
  gemm_weight(p, s, w, m, tile);
  gemm_result(s, y, more);
  low_operands(s, e);
  low_size(s, rows > 1 ? x->stride[0] : m.k);
  low_size(s, y_row);
  low_size(s, rows);
  low_size(s, m.k);
  low_size(s, m.n);
  low_size(s, depth);
  low_size(s, gemm_block(p->target, tile, rows, depth, m.n));
}

void gemm_matmul(Program *p, const Node *n, const View *x, const Tensor *w, Matrix m, const View *y, int axis,
                 int64_t y_row, const Epilogue *e) {
  Tile tile = gemm_tile(p, "matmul", x->dim[0], m.n, m.k);
  int64_t piece = gemm_piece(p, m.n, tile.nr, 4 * m.k + low_epilogue_bytes(e), 0);
  if (piece == m.n) {
    matmul_step(p, n, x, w, m, y, y_row, false, e, tile);
    return;
  }
  for (int64_t at = 0; at < m.n; at += piece) {
    int64_t count = m.n - at < piece ? m.n - at : piece;
    View columns = view_slice(y, axis, at, count, 1);
    Epilogue own = low_epilogue_columns(p, e, at, count);
    tile = gemm_tile(p, "matmul", x->dim[0], m.n, m.k);
    matmul_step(p, n, x, w, matrix_columns(m, at, count), &columns, y_row, at > 0, &own, tile);
  }
}
