/* How much of its stack a thread may use in a network's functions, when they are compiled with optimisation (-O1 and
 * up): the sum along the deepest chain of calls. Nothing in the emitted code recurses or has arrays of variable size.
 *
 *   caller: task's function -> segment -> layer -> kernel -> loop (moecc_for, the pool) -> body -> its functions
 *                                              \-> moecc_take -> the source's functions
 *   worker: the pool's thread -> loop -> body -> its functions
 *
 * Kernels are read for their arrays and structures (source.c); of the rest the emitter knows what it writes; and what
 * the runtime takes is measured by the tests, which compare all of this with what compilers say of every function. What
 * lies beyond comes on top: the C library and the system in a source's or the pool's calls, signal handlers, and the
 * thread that loads ahead, which has a stack of its own.
 */
#include <string.h>

#include "emit/embedded.h"
#include "emit/emit.h"
#include "emit/source.h"

enum {
  LOOP = 256,    /* moecc_for and the pool, between a kernel and its body */
  WORKER = 768,  /* the pool's thread, likewise */
  TAKE = 1280,   /* moecc_take and the runtime's sources; init and close need no more on top of their own frames */
  WRITTEN = 192, /* return address, saved registers and what else an emitted function keeps */
  OPERAND = 16,  /* moecc_operand, on 64-bit targets */
  WORD = 8
};

static SourceCode *read_kernels(const Emission *e) {
  static const char *const headers[] = {"rt", "math", "math_f64", "rows", "gemm", "depthwise", "resize_conv"};
  SourceCode *s = source_new(e->ctx, e->program->target->lanes);
  for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
    const EmbeddedFile *file = embedded_find(ctx_format(e->ctx, "runtime/moecc_%s.h", headers[i]));
    if (!file) ctx_fail(e->ctx, NULL, "internal error: no header moecc_%s.h", headers[i]);
    source_read(s, file->text);
  }
  for (size_t i = 0; i < e->program->n_kernels; i++) source_read(s, e->program->kernel[i]->text);
  return s;
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* What a call puts into the layer's frame: operands and short tables, and arguments that go on the stack. */
static int64_t call_bytes(const Step *s) {
  int64_t bytes = WORD * (int64_t)(s->n_args + 1);
  for (size_t i = 0; i < s->n_args; i++) {
    bytes += OPERAND * (int64_t)s->arg[i].n_operands;
    if (s->arg[i].kind == ARG_TABLE) bytes += WORD * (s->arg[i].n_table < 4 ? (int64_t)s->arg[i].n_table : 4);
  }
  return bytes;
}

/* What compilers make of a kernel beyond what it says: tiles that are taken apart and unrolled want more registers than
 * there are. */
static int64_t spilled_bytes(const Kernel *k) {
  static const struct {
    const char *template;
    int64_t bytes;
  } spilled[] = {{"transpose", 1536}, {"resize_conv", 256}, {"resize_conv_point", 256}};
  for (size_t i = 0; i < sizeof spilled / sizeof *spilled; i++)
    if (strcmp(k->template, spilled[i].template) == 0) return spilled[i].bytes;
  return 0;
}

static int64_t kernel_bytes(SourceCode *code, const Kernel *k) {
  return source_depth(code, k->name) + spilled_bytes(k) + (k->pool ? LOOP : 0);
}

/* A layer's function: its calls, of which compilers may keep all operands at once, and the deepest of them. */
static int64_t layer_bytes(SourceCode *code, const Layer *l) {
  int64_t own = WRITTEN, below = 0;
  for (size_t i = 0; i < l->n_steps; i++) {
    const Step *s = l->step[i];
    if (s->unit) below = larger(below, TAKE);
    if (s->kernel) {
      own += call_bytes(s);
      below = larger(below, kernel_bytes(code, s->kernel));
    }
    for (size_t b = 0; b < s->n_body; b++) {
      own += call_bytes(&s->body[b]);
      below = larger(below, kernel_bytes(code, s->body[b].kernel));
    }
  }
  return own + below;
}

/* Of a kernel, in a worker: its body, which is below what it mentions. */
static int64_t body_bytes(SourceCode *code, const Kernel *k) {
  return k && k->pool ? source_depth_below(code, k->name) + spilled_bytes(k) : 0;
}

static int64_t worker_bytes(SourceCode *code, const Layer *l) {
  int64_t most = 0;
  for (size_t i = 0; i < l->n_steps; i++) {
    most = larger(most, body_bytes(code, l->step[i]->kernel));
    for (size_t b = 0; b < l->step[i]->n_body; b++) most = larger(most, body_bytes(code, l->step[i]->body[b].kernel));
  }
  return most;
}

/* The frame that a call fills, and its arguments; in a call of all, a frame of each task that goes in lockstep, and of
 * each what a layer's function has at hand. */
static int64_t entry_bytes(const Emission *e, bool all) {
  const Schedule *s = e->schedule;
  const int64_t frame = 2 * WORD * (int64_t)(s->n_segments + e->n_inputs + e->n_outputs);
  size_t most = 0;
  for (size_t i = 0; all && i < s->n_lockstep; i++)
    if (s->lockstep[i].n > most) most = s->lockstep[i].n;
  return 2 * WRITTEN + frame + (most ? WRITTEN + (int64_t)most * (frame + 4 * WORD) : 0);
}

int64_t emit_stack_of_kernel(Emission *e, const Kernel *k) {
  if (!e->code) e->code = read_kernels(e);
  return kernel_bytes(e->code, k);
}

StackBounds emit_stack(Emission *e, size_t task) {
  const Schedule *s = e->schedule;
  if (!e->code) e->code = read_kernels(e);
  StackBounds bounds = {.caller = TAKE};
  for (size_t i = 0; i < s->n_segments; i++)
    for (size_t k = 0; (task == e->n_tasks || segment_serves(&s->segment[i], task)) && k < s->segment[i].n_layers;
         k++) {
      bounds.caller = larger(bounds.caller, layer_bytes(e->code, &s->segment[i].layer[k]));
      bounds.worker = larger(bounds.worker, worker_bytes(e->code, &s->segment[i].layer[k]));
    }
  bounds.caller = round_up(bounds.caller + entry_bytes(e, task == e->n_tasks), 64);
  bounds.worker = round_up(bounds.worker + WORKER, 64);
  return bounds;
}
