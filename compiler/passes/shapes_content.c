/* What is known of short integer vectors that are not constant, so that shapes computed by the model from symbolic
 * dimensions (Shape, Gather, Concat, Reshape) are still followed. Where every element turns out to be a number, infer.c
 * makes the value a constant.
 */
#include "shapes.h"

#include <string.h>

typedef struct {
  Dim dim[MAX_CONTENT];
  int count;
} Content;

static bool of_shape(const Node *n, Content *c) {
  int begin, end;
  shape_bounds(n, &begin, &end);
  for (int i = begin; i < end; i++) c->dim[c->count++] = input_shape(n, 0)->dim[i];
  return true;
}

static bool of_size(const Node *n, Content *c) {
  c->dim[c->count++] = dim_product(n, input_shape(n, 0), 0, input_shape(n, 0)->rank);
  return true;
}

static bool of_gather(const Node *n, Content *c) {
  Content x = {.count = 0}, index = {.count = 0};
  if (!input_content(n, 0, x.dim, &x.count) || !input_content(n, 1, index.dim, &index.count)) return false;
  for (int i = 0; i < index.count; i++) {
    int64_t k = index.dim[i].n < 0 ? index.dim[i].n + x.count : index.dim[i].n;
    if (index.dim[i].sym || k < 0 || k >= x.count) return false;
    c->dim[c->count++] = x.dim[k];
  }
  return true;
}

static bool of_concat(const Node *n, Content *c) {
  for (int i = 0; i < n->n_own; i++) {
    Content x = {.count = 0};
    if (!input_content(n, i, x.dim, &x.count) || c->count + x.count > MAX_CONTENT) return false;
    memcpy(c->dim + c->count, x.dim, (size_t)x.count * sizeof(Dim));
    c->count += x.count;
  }
  return true;
}

static bool of_slice(const Node *n, Content *c) {
  Content x = {.count = 0};
  int64_t start[MAX_RANK], count[MAX_RANK], step[MAX_RANK];
  if (!input_content(n, 0, x.dim, &x.count) || !slice_ranges(n, start, count, step)) return false;
  for (int64_t i = 0; i < count[0]; i++) c->dim[c->count++] = x.dim[start[0] + i * step[0]];
  return true;
}

static bool of_arithmetic(const Node *n, Content *c) {
  Content a = {.count = 0}, b = {.count = 0};
  if (!input_content(n, 0, a.dim, &a.count) || !input_content(n, 1, b.dim, &b.count)) return false;
  if (a.count < 1 || b.count < 1) return false;
  c->count = a.count > b.count ? a.count : b.count;
  for (int i = 0; i < c->count; i++) {
    Dim x = a.dim[a.count == 1 ? 0 : i], y = b.dim[b.count == 1 ? 0 : i];
    if (x.n < 0 || y.n < 0) return false;
    c->dim[i] = n->op == OP_ADD ? dim_add(n, x, y) : dim_mul(n, x, y);
  }
  return true;
}

static bool content_of(const Node *n, Content *c) {
  switch (n->op) {
  case OP_SHAPE: return of_shape(n, c);
  case OP_SIZE: return of_size(n, c);
  case OP_GATHER: return of_gather(n, c);
  case OP_CONCAT: return of_concat(n, c);
  case OP_SLICE: return n->in[0]->shape.rank == 1 && of_slice(n, c);
  case OP_ADD:
  case OP_MUL: return of_arithmetic(n, c);
  case OP_CAST:
  case OP_IDENTITY:
  case OP_RESHAPE:
  case OP_SQUEEZE:
  case OP_UNSQUEEZE: return input_content(n, 0, c->dim, &c->count);
  default: return false;
  }
}

static bool any_content(const Node *n) {
  for (int i = 0; i < n->n_own; i++)
    if (n->in[i] && n->in[i]->content) return true;
  return n->op == OP_SHAPE || n->op == OP_SIZE;
}

void infer_content(Node *n) {
  Value *out = n->out[0];
  Content c = {.count = 0};
  if (!out || (out->dtype != DT_I64 && out->dtype != DT_I32) || out->shape.rank > 1 || !any_content(n)) return;
  if (!content_of(n, &c) || shape_count(&out->shape) != c.count) return;
  Dim *copy = ctx_array(n->graph->ctx, (size_t)c.count + 1, sizeof *copy);
  memcpy(copy, c.dim, (size_t)c.count * sizeof *copy);
  out->content = copy;
  out->n_content = c.count;
}
