/* Makes all half precision arithmetic float32.
 *
 * Needs: types. Runs before everything that matches or fuses.
 * Gives: no value of type float16 or bfloat16 but graph inputs and outputs, with a Cast beside each; constants are
 *        converted (exactly); a Cast to half precision becomes a Cast to float32, so results lie nearer to the exact
 * ones than the model's own rounding would. Breaks: nothing that was checked: shapes stay.
 */
#include "match.h"
#include "recognise.h"
#include <string.h>

enum { ONNX_FLOAT = 1, ONNX_FLOAT16 = 10, ONNX_BFLOAT16 = 16 };

static bool is_half(DType t) { return t == DT_F16 || t == DT_BF16; }

static Tensor *widened(Ctx *c, const Tensor *t) {
  Tensor *out = tensor_new(c, DT_F32, t->rank, t->dim, NULL);
  float *x = tensor_writable(out);
  for (int64_t i = 0, n = tensor_count(t); i < n; i++) x[i] = (float)tensor_number(t, i);
  tensor_rest(t);
  return out;
}

static void read_instead(Value *from, Value *to) {
  while (from->n_uses) {
    Use u = from->uses[from->n_uses - 1];
    node_set_input(u.node, u.input, to);
  }
}

static Node *insert_cast(Node *before, Value *from, Value *to) {
  Node *n = graph_node(from->graph, before, OP_CAST, to->name, 1, &from, 1, &to);
  node_set_int(n, "to", to->dtype == DT_F32 ? ONNX_FLOAT : to->dtype == DT_F16 ? ONNX_FLOAT16 : ONNX_BFLOAT16);
  n->tasks = to->tasks;
  return n;
}

static void widen_input(Graph *g, Value *v) {
  if (!is_half(v->dtype) || v->n_uses == 0) return;
  Value *wide = graph_value(g, v->name, DT_F32, v->shape);
  wide->tasks = v->tasks;
  read_instead(v, wide);
  insert_cast(g->first, v, wide);
}

/* The output keeps its name and type; what computed it computes a float32 value, which a Cast at the end narrows. */
static void widen_output(Graph *g, Value *v) {
  if (!is_half(v->dtype) || !v->producer) return;
  Value *wide = graph_value(g, v->name, DT_F32, v->shape);
  wide->tasks = v->tasks;
  wide->producer = v->producer;
  wide->output = v->output;
  v->producer->out[v->output] = wide;
  v->producer = NULL;
  read_instead(v, wide);
  insert_cast(NULL, wide, v);
}

static void widen_attrs(Node *n) {
  static const char *const codes[] = {"to", "dtype", "output_dtype"};
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
    int64_t code = node_int(n, codes[i], 0);
    if (code == ONNX_FLOAT16 || code == ONNX_BFLOAT16) node_set_int(n, codes[i], ONNX_FLOAT);
  }
  for (size_t i = 0; i < n->n_attr; i++) {
    Tensor *t = n->attr[i].kind == ATTR_TENSOR ? n->attr[i].tensor : NULL;
    if (t && is_half(t->dtype)) n->attr[i].tensor = widened(n->graph->ctx, t);
  }
}

void pass_widen(Graph *g) {
  for (size_t i = 0; i < g->n_values; i++) {
    Value *v = g->values[i];
    if (!v->tensor || !is_half(v->dtype)) continue;
    v->tensor = widened(g->ctx, v->tensor);
    v->dtype = DT_F32;
  }
  for (Node *n = g->first; n; n = n->next) widen_attrs(n);
  for (size_t i = 0; i < g->n_outputs; i++) widen_output(g, g->outputs[i]);
  for (size_t i = 0; i < g->n_inputs; i++) widen_input(g, g->inputs[i]);
  for (Node *n = g->first; n; n = n->next)
    for (int i = 0; i < n->n_out; i++)
      if (n->out[i] && is_half(n->out[i]->dtype) && !n->out[i]->is_output) n->out[i]->dtype = DT_F32;
}
