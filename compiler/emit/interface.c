/* N.h, the interface that users include. */
#include "emit/emit.h"
#include "emit/lines.h"

#include <string.h>

static const char *meta(const Emission *e, const char *kind, const Value *v) {
  const Graph *g = e->program->graph;
  char *key = ctx_format(e->ctx, "moecc.%s.%s", kind, v->name);
  for (size_t i = 0; i < g->n_meta; i++)
    if (strcmp(g->meta[i].key, key) == 0) return text_harmless(e->ctx, g->meta[i].value);
  return NULL;
}

bool port_of_task(const Emission *e, const Port *port, size_t task) {
  return task == e->n_tasks || !task_binds(e->task[task].task, port->value->name);
}

bool port_from_task(const Emission *e, const Port *port, size_t task) {
  if (task == e->n_tasks) return true;
  const Task *t = e->task[task].task;
  for (size_t i = 0; i < t->n_outputs; i++)
    if (strcmp(t->outputs[i], port->value->name) == 0) return true;
  return false;
}

static int64_t length(const Port *p) { return shape_count(&p->value->shape); }

static const char *shape_of_port(const Emission *e, const Port *p) {
  return shape_text(e->ctx, p->value->dtype, &p->value->shape);
}

/* ---- functions ---- */

/* One line of a task's comment: " * in: image, f32[1,3,128,256], layout=NCHW color=RGB". */
static void describe(Emission *e, Text *t, const Port *p, bool output) {
  const char *about = meta(e, output ? "output" : "input", p->value), *name = text_harmless(e->ctx, p->value->name);
  Text line = {.ctx = e->ctx};
  text_add(&line, "%s: %s, %s", output ? "out" : "in", p->id, shape_of_port(e, p));
  if (strcmp(name, p->id) != 0) text_add(&line, ", \"%s\" in the model", name);
  if (about && strcmp(about, p->id) != 0) text_add(&line, ", %s", about);
  const char *text = line.text;
  for (bool first = true; *text; first = false) {
    size_t width = LINE_COLUMNS - (first ? 6 : 10), n = strlen(text);
    if (n > width)
      for (n = width; n > width / 2 && text[n] != ' ';) n--;
    text_add(t, "\n * %s%.*s", first ? "" : "    ", (int)n, text);
    for (text += n; *text == ' ';) text++;
  }
}

static void add_parameter(Text *t, const Port *p, bool constant) {
  text_add(t, ", %s%s %s%s", constant ? "const " : "", dtype_c(p->value->dtype), length(p) ? "" : "*", p->id);
  if (length(p)) text_add(t, "[%s]", p->macro);
}

void emit_prototype(Emission *e, Text *t, size_t task, const char *end) {
  Text line = {.ctx = e->ctx};
  text_add(&line, "moecc_status %s_%s(%s *m", e->name, task == e->n_tasks ? "all" : e->task[task].id, e->name);
  for (size_t i = 0; i < e->n_inputs; i++)
    if (port_of_task(e, &e->input[i], task)) add_parameter(&line, &e->input[i], true);
  for (size_t i = 0; i < e->n_outputs; i++)
    if (port_from_task(e, &e->output[i], task)) add_parameter(&line, &e->output[i], false);
  line_add(t, "%s)%s", line.text, end);
}

static void declare_task(Emission *e, Text *t, size_t task) {
  if (task == e->n_tasks)
    text_add(t,
             "\n/* All tasks in one call, which computes what they share once; init must have been given every task.");
  else
    text_add(t, "\n/* The task \"%s\".", text_harmless(e->ctx, e->task[task].task->name));
  for (size_t i = 0; i < e->n_inputs; i++)
    if (port_of_task(e, &e->input[i], task)) describe(e, t, &e->input[i], false);
  for (size_t i = 0; i < e->n_outputs; i++)
    if (port_from_task(e, &e->output[i], task)) describe(e, t, &e->output[i], true);
  text_add(t, " */\n");
  emit_prototype(e, t, task, ";");
}

/* ---- macros ---- */

static void define(Columns *macros, const char *name, const char *value) {
  columns_add(macros, ctx_format(macros->ctx, "#define %s", name), value);
}

static void define_lengths(Emission *e, Text *t) {
  Columns macros = {.ctx = e->ctx}, lines = {.ctx = e->ctx};
  size_t widest = 0;
  for (size_t i = 0; i < e->n_inputs + e->n_outputs; i++) {
    const Port *p = i < e->n_inputs ? &e->input[i] : &e->output[i - e->n_inputs];
    if (strlen(p->macro) > widest) widest = strlen(p->macro);
  }
  for (size_t i = 0; i < e->n_inputs + e->n_outputs; i++) {
    const Port *p = i < e->n_inputs ? &e->input[i] : &e->output[i - e->n_inputs];
    columns_add(&lines, ctx_format(e->ctx, "#define %-*s %lld", (int)widest, p->macro, (long long)length(p)),
                ctx_format(e->ctx, "/* %s */", shape_of_port(e, p)));
  }
  if (lines.n) text_add(t, "/* Elements of each input and output. */\n");
  columns_write(&lines, t);
  text_add(t, "%s/* Tasks: bits for init. */\n", widest ? "\n" : "");
  for (size_t i = 0; i < e->n_tasks; i++)
    define(&macros, ctx_format(e->ctx, "%s_TASK_%s", e->upper, e->task[i].upper), ctx_format(e->ctx, "(1u << %zu)", i));
  define(&macros, ctx_format(e->ctx, "%s_TASKS_ALL", e->upper),
         ctx_format(e->ctx, "0x%llxu", (unsigned long long)(((uint64_t)1 << e->n_tasks) - 1)));
  columns_write(&macros, t);
}

static const char *arena_value(Emission *e, int64_t bytes, int64_t scratch) {
  return ctx_format(e->ctx, "((size_t)%lld + (size_t)(threads) * %lld)", (long long)bytes, (long long)scratch);
}

static int64_t read_bytes_of(const Bounds *b) { return b->read_bytes; }
static int64_t read_slots_of(const Bounds *b) { return b->read_slots; }
static int64_t queue_bytes_of(const Bounds *b) { return b->queue_bytes; }
static int64_t caller_of(const Bounds *b) { return b->stack.caller; }
static int64_t worker_of(const Bounds *b) { return b->stack.worker; }
static int64_t resident_of(const Bounds *b) { return b->resident; }

/* One macro for all tasks and for each: N_<what>, N_T_<what>. */
static void define_each(Emission *e, Columns *macros, const char *what, int64_t (*of)(const Bounds *b)) {
  for (size_t i = 0; i <= e->n_tasks; i++) {
    size_t task = i ? i - 1 : e->n_tasks;
    const Bounds b = emit_bounds(e, task);
    const char *name = i ? ctx_format(e->ctx, "%s_%s", e->task[task].upper, what) : what;
    define(macros, ctx_format(e->ctx, "%s_%s", e->upper, name),
           ctx_format(e->ctx, of == read_bytes_of ? "UINT64_C(%lld)" : "((size_t)%lld)", (long long)of(&b)));
  }
}

static void define_ram(Emission *e, Text *t) {
  Columns macros = {.ctx = e->ctx};
  static const char *const also[] = {
      [WEIGHTS_FILE] = "Weights come on top: the whole pack where it is loaded, or STREAM_BYTES.",
      [WEIGHTS_EMBED] = "Weights are in the program.",
      [WEIGHTS_STREAM] = "The arena, the two stream buffers, and weights that stay in memory (RESIDENT_BYTES).",
  };
  text_add(t, "\n");
  line_comment(t, 0, ctx_format(e->ctx, "All memory of a context, for a number of threads. %s", also[e->weights]));
  for (size_t i = 0; i <= e->n_tasks; i++) {
    size_t task = i ? i - 1 : e->n_tasks;
    const Bounds b = emit_bounds(e, task);
    const char *name = i ? ctx_format(e->ctx, "%s_%s", e->upper, e->task[task].upper) : e->upper;
    define(&macros, ctx_format(e->ctx, "%s_RAM_BYTES(threads)", name),
           arena_value(e, b.arena + (e->weights == WEIGHTS_STREAM ? b.stream + b.resident : 0), b.scratch));
  }
  columns_write(&macros, t);
}

/* What is known of a call before it is made. */
static void define_bounds(Emission *e, Text *t) {
  static const struct {
    const char *comment, *name;
    int64_t (*of)(const Bounds *b);
  } bounds[] = {
      {"Bytes of the resident part, which is loaded in init, for all tasks and for each.", "RESIDENT_BYTES",
       resident_of},
      {"The most bytes of weights that a call reads when they are streamed: all tasks in one call, and each.",
       "READ_BYTES", read_bytes_of},
      {"The most slots that it reads them in.", "READ_SLOTS", read_slots_of},
      {"Bytes of the largest MoE layer's queues, which are in the arena.", "QUEUE_BYTES", queue_bytes_of},
      {"The most bytes of stack that a call takes in the thread that calls, built with optimisation; the system's own "
       "functions come on top.",
       "STACK_BYTES", caller_of},
      {"The same in each thread of the pool.", "STACK_BYTES_WORKER", worker_of},
  };
  for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
    Columns macros = {.ctx = e->ctx};
    text_add(t, "\n");
    line_comment(t, 0, bounds[i].comment);
    define_each(e, &macros, bounds[i].name, bounds[i].of);
    columns_write(&macros, t);
  }
}

static void define_sizes(Emission *e, Text *t) {
  Columns macros = {.ctx = e->ctx};
  const Schedule *s = e->schedule;
  text_add(t, "\n");
  line_comment(t, 0,
               ctx_format(e->ctx,
                          "Bytes of arena, aligned to MOECC_ALIGN, for a number of threads: for all tasks and %s_all, "
                          "and for one task. Weights that stream from a source need %s_STREAM_BYTES more, and the "
                          "resident part.",
                          e->name, e->upper));
  define(&macros, ctx_format(e->ctx, "%s_ARENA_BYTES(threads)", e->upper), arena_value(e, s->arena_all, s->scratch));
  for (size_t i = 0; i < e->n_tasks; i++)
    define(&macros, ctx_format(e->ctx, "%s_%s_ARENA_BYTES(threads)", e->upper, e->task[i].upper),
           arena_value(e, arena_of_task(s, i), scratch_of_task(s, i)));
  define(&macros, ctx_format(e->ctx, "%s_STREAM_BYTES", e->upper),
         ctx_format(e->ctx, "((size_t)%lld)", (long long)emit_stream_bytes(e)));
  columns_write(&macros, t);
  text_add(t, "\n/* Bytes of %s_weights.bin. */\n#define %s_WEIGHT_BYTES UINT64_C(%llu)\n", e->name, e->upper,
           (unsigned long long)e->pack_bytes);
  define_ram(e, t);
  define_bounds(e, t);
}

char *emit_interface(Emission *e) {
  Text t = {.ctx = e->ctx};
  const char *n = e->name, *N = e->upper;
  line_comment(&t, 0,
               ctx_format(e->ctx,
                          "%s.h: the network \"%s\", compiled to C. %s_main.c shows how to call it.\n\n"
                          "Start with a context of zeros and an arena, call %s_init for the tasks you want, then their "
                          "functions, in any order. Nothing is kept between calls but weights. One context serves one "
                          "thread at a time.",
                          n, text_harmless(e->ctx, e->title), n, n));
  text_add(&t,
           "#ifndef %s_H\n#define %s_H\n\n#include \"moecc_rt.h\"\n\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n", N,
           N);
  define_lengths(e, &t);
  define_sizes(e, &t);
  text_add(&t, "\ntypedef struct %s {\n  moecc_context c;\n} %s;\n", n, n);
  text_add(&t, "\n");
  line_comment(
      &t, 0,
      ctx_format(e->ctx,
                 "Prepares a context for a set of tasks (%s_TASK_... bits) and checks their weights. %s o may be "
                 "NULL. On MOECC_ERROR_ARENA, m->c.needed says how many bytes are wanted.",
                 N,
                 e->weights == WEIGHTS_EMBED ? "The weights are linked in: w may be NULL."
                                             : "w: where the weights come from."));
  line_add(&t,
           "moecc_status %s_init(%s *m, unsigned tasks, void *arena, size_t bytes, const moecc_source *w, "
           "const moecc_options *o);",
           n, n);
  text_add(&t, "void %s_close(%s *m);\n", n, n);
  for (size_t i = 0; i < e->n_tasks; i++) declare_task(e, &t, i);
  if (e->n_tasks > 1) declare_task(e, &t, e->n_tasks);
  text_add(&t, "\n#ifdef __cplusplus\n}\n#endif\n#endif\n");
  return t.text;
}
