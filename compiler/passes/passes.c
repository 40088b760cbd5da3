/* The passes in their order. Shapes are inferred and constants folded again after each, which costs little where
 * nothing changed; the verifier runs after each, too. */
#include "interrupt.h"
#include "progress.h"
#include "recognise.h"

#include <string.h>

const Pass passes[] = {
    {"infer", infer_shapes, "shapes, types and constant folding, one worklist", PASS_ALWAYS},
    {"share", share_equal, "equal nodes and constants become one", PASS_MOE},
    {"widen", pass_widen, "half precision is computed in float32", PASS_ALWAYS},
    /* before algebra, which would transpose every expert's matrices one by one */
    {"gelu", pass_gelu, "decomposed GELU is recognised", PASS_GELU},
    {"moe", pass_moe, "mixture-of-experts layers are recognised", PASS_MOE},
    {"form", pass_gelu_form, "GELU takes the form that --gelu asks for", PASS_ALWAYS},
    {"algebra", pass_algebra, "exact cleanups and canonical forms", PASS_SPEED},
    {"merge", share_equal, "sharing again: what algebra made equal", PASS_SPEED},
    {"layernorm", pass_layernorm, "decomposed LayerNorm and RMSNorm are recognised", PASS_SPEED},
    {"static", check_static, "every dimension is a number from here on", PASS_ALWAYS},
    {"attention", pass_attention, "softmax(q k + mask) v is recognised", PASS_SPEED},
    {"convbn", pass_convbn, "batch normalisation and padding go into convolutions", PASS_SPEED},
    {"resizeconv", pass_resize_conv, "convolutions of resampled pictures multiply before they resample", PASS_SPEED},
    {"tidy", pass_algebra, "algebra again, for what recognition left", PASS_SPEED},
    {"fuse", pass_fuse, "elementwise work goes into the kernel that makes its operand", PASS_SPEED},
    {"settle", pass_algebra, "algebra once more: layout changes that fusion moved together", PASS_SPEED},
    {"dead", graph_remove_dead, "what nobody needs is removed", PASS_ALWAYS},
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

/* Is there anything that can be computed only as part of a mixture of experts? */
static bool needs_moe(const Graph *g) {
  for (const Node *n = g->first; n; n = n->next) {
    if (n->op == OP_MS_MOE || n->op == OP_MS_QMOE) return true;
    for (int i = 0; i < n->n_out; i++)
      if (n->out[i] && !shape_known(&n->out[i]->shape)) return true;
  }
  return false;
}

static bool is_wanted(const Pass *p, const PassOptions *o, bool moe) {
  if (is_disabled(o, p->name)) return false;
  if (!o->plain || p->need == PASS_ALWAYS) return true;
  return p->need != PASS_SPEED && (moe || (p->need == PASS_GELU && o->gelu));
}

static void run_pass(Graph *g, const Pass *p, const PassOptions *o) {
  progress_step("pass %s", p->name);
  p->run(g);
  if (p != passes) infer_shapes(g);
  graph_remove_dead(g);
  graph_mark_tasks(g);
  graph_verify(g, p->name);
  if (o->dump && strcmp(o->dump, p->name) == 0) {
    progress_pause();
    dump(g);
  }
  interrupt_check(g->ctx);
}

void passes_run(Graph *g, const PassOptions *o) {
  graph_mark_tasks(g);
  graph_verify(g, "tasks");
  run_pass(g, &passes[0], o);
  bool moe = needs_moe(g);
  for (size_t i = 1; i < n_passes; i++)
    if (is_wanted(&passes[i], o, moe)) run_pass(g, &passes[i], o);
}
