/* The experts' weights as stacked constants. Each is built once: the wish for the same matrices again, which every task
 * of a multi-gate network has, is answered with the same constant, and matrices that already lie one behind the other
 * in memory are used where they are. */
#include "moe.h"

#include <string.h>

typedef struct Stack Stack;
struct Stack {
  const Linear *fc;
  int64_t experts;
  bool biases;
  double scale;
  Value *value;
  Stack *next;
};

struct MoeMemo {
  Graph *g;
  Stack *first;
};

struct MoeMemo *moe_memo_new(Graph *g) {
  struct MoeMemo *memo = ctx_alloc(g->ctx, sizeof *memo);
  memo->g = g;
  return memo;
}

static Value *recall(const struct MoeMemo *memo, const Linear *fc, int64_t experts, bool biases, double scale) {
  for (const Stack *s = memo->first; s; s = s->next) {
    bool same = s->experts == experts && s->biases == biases && s->scale == scale;
    for (int64_t e = 0; e < experts && same; e++)
      same = biases ? same_biases(&s->fc[e], &fc[e]) : same_weights(&s->fc[e], &fc[e]);
    if (same) return s->value;
  }
  return NULL;
}

static Value *remember(struct MoeMemo *memo, const char *name, const Linear *fc, int64_t experts, bool biases,
                       double scale, Tensor *t) {
  Stack *s = ctx_alloc(memo->g->ctx, sizeof *s);
  *s = (Stack){fc, experts, biases, scale, graph_constant(memo->g, name, t), memo->first};
  memo->first = s;
  return s->value;
}

static const char *matrix_of(const Linear *fc, int64_t e) {
  int64_t rows = fc->w->dim[fc->w->rank - 2], columns = fc->w->dim[fc->w->rank - 1];
  int64_t number = fc->stacked ? fc->expert0 + e : 0;
  return (const char *)fc->w->data + (size_t)(number * rows * columns) * sizeof(float);
}

/* Whole matrices [out,in], one directly behind the other. */
static bool lie_together(const Linear *fc, int64_t experts, double scale) {
  for (int64_t e = 0; e < experts; e++) {
    const Linear *f = &fc[e];
    bool whole = f->out_first && f->first == 0 && f->step == 1 && f->count == f->w->dim[f->w->rank - 2];
    if (!whole || scale != 1) return false;
    if (matrix_of(f, e) != matrix_of(fc, 0) + (size_t)(e * f->count * f->in) * sizeof(float)) return false;
  }
  return true;
}

/* The source may be part of a file, so its floats need not be aligned. */
static void copy_matrix(float *to, const Linear *fc, int64_t e) {
  const char *from = matrix_of(fc, e);
  int64_t columns = fc->w->dim[fc->w->rank - 1];
  for (int64_t o = 0; o < fc->count; o++) {
    int64_t at = fc->first + o * fc->step;
    if (fc->out_first)
      memcpy(to + o * fc->in, from + (size_t)(at * columns) * sizeof(float), (size_t)fc->in * sizeof(float));
    else
      for (int64_t i = 0; i < fc->in; i++)
        memcpy(to + o * fc->in + i, from + (size_t)(i * columns + at) * sizeof(float), sizeof(float));
  }
}

static void multiply(float *x, int64_t n, double scale) {
  for (int64_t i = 0; i < n && scale != 1; i++) x[i] = (float)(x[i] * scale);
}

Value *moe_stack_weights(struct MoeMemo *memo, const char *name, const Linear *fc, int64_t experts, double scale) {
  Value *known = recall(memo, fc, experts, false, scale);
  if (known) return known;
  Ctx *c = memo->g->ctx;
  int64_t dims[3] = {experts, fc->count, fc->in}, size = fc->count * fc->in;
  if (lie_together(fc, experts, scale)) {
    Tensor *t = tensor_new(c, DT_F32, 3, dims, matrix_of(fc, 0));
    return remember(memo, name, fc, experts, false, scale, t);
  }
  Tensor *t = tensor_new(c, DT_F32, 3, dims, NULL);
  float *to = tensor_writable(t);
  for (int64_t e = 0; e < experts; e++) {
    copy_matrix(to + e * size, &fc[e], e);
    multiply(to + e * size, size, scale);
  }
  return remember(memo, name, fc, experts, false, scale, t);
}

/* An expert without a bias gets zeros. */
Value *moe_stack_biases(struct MoeMemo *memo, const char *name, const Linear *fc, int64_t experts, double scale) {
  Value *known = recall(memo, fc, experts, true, scale);
  if (known) return known;
  int64_t dims[2] = {experts, fc->count};
  Tensor *t = tensor_new(memo->g->ctx, DT_F32, 2, dims, NULL);
  float *to = tensor_writable(t);
  for (int64_t e = 0; e < experts; e++, to += fc->count) {
    const Linear *f = &fc[e];
    if (!f->b) continue;
    const char *from =
        (const char *)f->b->data + (size_t)(f->b_stacked ? (f->b_expert0 + e) * f->b_len : 0) * sizeof(float);
    for (int64_t o = 0; o < f->count; o++)
      memcpy(to + o, from + (size_t)(f->b_first + o * f->b_step) * sizeof(float), sizeof(float));
    multiply(to, f->count, scale);
  }
  return remember(memo, name, fc, experts, true, scale, t);
}
