/* N_trace.c: what each step is, for builds that trace. Steps are numbered through the network, segment by segment, an
 * expert loop before its body; emitted code (MOECC_STEP), report.json and this table agree on them. */
#include "emit/emit.h"
#include "emit/labels.h"
#include "emit/lines.h"

#include <string.h>

int number_steps(const Schedule *s) {
  int number = 0;
  for (size_t i = 0; i < s->n_segments; i++)
    for (size_t k = 0; k < s->segment[i].n_layers; k++)
      for (size_t j = 0; j < s->segment[i].layer[k].n_steps; j++) {
        Step *step = s->segment[i].layer[k].step[j];
        step->number = ++number;
        for (size_t b = 0; b < step->n_body; b++) step->body[b].number = ++number;
      }
  return number;
}

/* ---- the table ---- */

/* "1x129x192": extents alone, or a type where it is not float32. */
static void add_shape(Text *t, const Value *v) {
  if (v->dtype != DT_F32) text_add(t, "%s ", dtype_short(v->dtype));
  if (v->shape.rank == 0) text_add(t, "1");
  for (int i = 0; i < v->shape.rank; i++) text_add(t, "%s%lld", i ? "x" : "", (long long)v->shape.dim[i].n);
}

/* " * 192x576": a constant matrix or filter. */
static void add_factor(Text *t, const Node *n) {
  for (int i = 1; i < n->n_own; i++)
    if (n->in[i] && n->in[i]->tensor && n->in[i]->shape.rank > 1) {
      text_add(t, " * ");
      add_shape(t, n->in[i]);
      break;
    }
}

/* "1x129x192 * 192x576 -> 1x129x576": the first input, a constant matrix or filter, and the first output; the same of a
 * node that is computed along with this one before. */
static const char *step_shape(Ctx *c, const Step *s) {
  const Node *n = s->node, *first = s->with ? s->with : n;
  Text t = {.ctx = c};
  if (first->n_own > 0 && first->in[0]) add_shape(&t, first->in[0]);
  add_factor(&t, first);
  if (first != n) add_factor(&t, n);
  text_add(&t, t.len ? " -> " : "-> ");
  if (n->n_out > 0 && n->out[0]) add_shape(&t, n->out[0]);
  return t.text;
}

enum { LONGEST = 100 };

/* Of a long path the end, which says more than its beginning. */
static const char *string_literal(Ctx *c, const char *text) {
  const char *safe = text_harmless(c, text ? text : "");
  size_t n = strlen(safe);
  return n > LONGEST ? ctx_format(c, "\"...%s\"", safe + n - LONGEST) : ctx_format(c, "\"%s\"", safe);
}

/* A segment's step, and what it is in a call of all tasks. */
typedef struct {
  Emission *e;
  size_t segment, index; /* of the step in the segment */
  const Layer *layer;
} Place;

static bool shares_experts(const Place *p, const Lockstep *l) {
  return l && lockstep_shares(p->e->schedule, l, p->index);
}

/* Whose the step is; "" where several tasks need it, and of a loop that they go through together. */
static const char *task_of(const Place *p, const Lockstep *l, const Step *s) {
  const uint64_t tasks = p->e->schedule->segment[p->segment].tasks;
  if ((tasks & (tasks - 1)) || (s->kind == STEP_EXPERTS && shares_experts(p, l))) return "";
  return p->e->task[__builtin_ctzll(tasks)].task->name;
}

/* The layer's path without the task, if tasks go through it side by side: the first one's, as its function has it. */
static const char *layer_together(const Place *p, const Lockstep *l) {
  if (!l) return "";
  const Layer *layer = p->e->schedule->segment[l->first].layer;
  for (size_t from = 0; from + layer->n_steps <= p->index; layer++) from += layer->n_steps;
  const char *path = label_beyond(label_shared(p->e->ctx, p->e->program->graph, layer->scope), "");
  return *path ? path : "(no layer)";
}

/* A step, or one of the body of `loop`. */
static void add_step(const Place *p, Text *t, const Step *s, const Step *loop) {
  Emission *e = p->e;
  Ctx *c = e->ctx;
  const Lockstep *l = lockstep_of(e->schedule, p->segment);
  const Step *common = loop && shares_experts(p, l) ? e->schedule->segment[l->first].step[p->index] : loop;
  const Node *n = s->node;
  const char *op = n->op_type ? n->op_type : op_info(n->op)->name;
  line_add(t, "    {%s, %s, %s,", string_literal(c, s->kernel ? s->kernel->name : "expert loop"), string_literal(c, op),
           string_literal(c, p->layer->scope));
  line_add(t, "     %s,", string_literal(c, n->name));
  line_add(t, "     %s, \"%s\", %s,", string_literal(c, step_shape(c, s)), c_string(c, task_of(p, l, s)),
           string_literal(c, layer_together(p, l)));
  line_add(t, "     %d, %d, %lld, %lld, %lld},", loop ? loop->number : 0, common ? common->number : 0,
           (long long)s->macs, (long long)s->bytes, (long long)(loop && s->kind == STEP_EXPERTS ? 0 : s->weight_bytes));
}

/* The segment's steps, each with its body; returns how many. */
static int add_segment(Emission *e, Text *t, size_t segment) {
  const Segment *s = &e->schedule->segment[segment];
  Place p = {.e = e, .segment = segment};
  int count = 0;
  for (size_t k = 0; k < s->n_layers; k++) {
    p.layer = &s->layer[k];
    for (size_t j = 0; j < p.layer->n_steps; j++, p.index++) {
      const Step *step = p.layer->step[j], *loop = step->kind == STEP_EXPERTS ? step : NULL;
      add_step(&p, t, step, loop);
      for (size_t b = 0; b < step->n_body; b++) add_step(&p, t, &step->body[b], loop);
      count += 1 + (int)step->n_body;
    }
  }
  return count;
}

char *emit_trace(Emission *e) {
  Text t = {.ctx = e->ctx};
  const char *n = e->name;
  line_comment(
      &t, 0,
      ctx_format(e->ctx,
                 "%s_trace.c: what the network's steps are, by number, for builds with -DMOECC_TRACE: kernel,\n"
                 "operator, layer, node, shapes, its task and its layer in a call of all tasks, the expert loop it\n"
                 "is in, alone and in a call of all tasks, multiply-adds, bytes read and written, and bytes of\n"
                 "weights.",
                 n));
  text_add(&t, "#include \"moecc_rt_trace.h\"\n\n#ifdef MOECC_TRACE\n\n");
  int count = 0;
  text_add(&t, "extern const moecc_step %s_trace_steps[];\nextern const size_t %s_trace_count;\n\n", n, n);
  text_add(&t, "/* clang-format off */\nconst moecc_step %s_trace_steps[] = {\n", n);
  for (size_t i = 0; i < e->schedule->n_segments; i++) count += add_segment(e, &t, i);
  if (!count) text_add(&t, "    {\"\", \"\", \"\", \"\", \"\", \"\", \"\", 0, 0, 0, 0, 0},\n");
  text_add(&t, "};\n/* clang-format on */\nconst size_t %s_trace_count = %d;\n\n#endif\n", n, count);
  return t.text;
}
