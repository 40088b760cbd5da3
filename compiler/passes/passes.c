/* The passes in their order. Shapes are inferred and constants folded again after each, which costs little where nothing
 * changed; the verifier runs after each, too. */
#include "recognise.h"

#include <string.h>

const Pass passes[] = {
    {"infer", infer_shapes, "shapes, types and constant folding, one worklist"},
    {"share", share_equal, "equal nodes and constants become one"},
    {"widen", pass_widen, "half precision is computed in float32"},
    {"algebra", pass_algebra, "exact cleanups and canonical forms"},
    {"layernorm", pass_layernorm, "decomposed LayerNorm and RMSNorm are recognised"},
    {"gelu", pass_gelu, "decomposed GELU is recognised"},
    {"moe", pass_moe, "mixture-of-experts layers are recognised"},
    {"static", check_static, "every dimension is a number from here on"},
    {"attention", pass_attention, "softmax(q k + mask) v is recognised"},
    {"convbn", pass_convbn, "batch normalisation and padding go into convolutions"},
    {"tidy", pass_algebra, "algebra again, for what recognition left"},
    {"fuse", pass_fuse, "elementwise work goes into the kernel that makes its operand"},
    {"dead", graph_remove_dead, "what nobody needs is removed"},
};
const size_t n_passes = sizeof passes / sizeof *passes;

const Pass *pass_find(const char *name) {
  for (size_t i = 0; i < n_passes; i++)
    if (strcmp(passes[i].name, name) == 0) return &passes[i];
  return NULL;
}

static bool is_disabled(const PassOptions *o, const char *name) {
  for (size_t i = 0; i < o->n_disabled; i++)
    if (strcmp(o->disabled[i], name) == 0) return true;
  return false;
}

static void dump(Graph *g) {
  Text t = {.ctx = g->ctx};
  onnx_text_print(g, &t);
  fputs(t.text, stdout);
}

void passes_run(Graph *g, const PassOptions *o) {
  graph_mark_tasks(g);
  graph_verify(g, "tasks");
  for (size_t i = 0; i < n_passes; i++) {
    if (is_disabled(o, passes[i].name)) continue;
    passes[i].run(g);
    if (i) infer_shapes(g);
    graph_remove_dead(g);
    graph_mark_tasks(g);
    graph_verify(g, passes[i].name);
    if (o->dump && strcmp(o->dump, passes[i].name) == 0) dump(g);
  }
}
