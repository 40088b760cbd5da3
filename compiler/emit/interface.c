/* N.h, the interface that users include, and N_internal.h, what the network's own files share. */
#include "emit/emit.h"

#include <string.h>

static const char *meta(const Emission *e, const char *kind, const Value *v) {
  const Graph *g = e->program->graph;
  char *key = ctx_format(e->ctx, "moecc.%s.%s", kind, v->name);
  for (size_t i = 0; i < g->n_meta; i++)
    if (strcmp(g->meta[i].key, key) == 0) return text_harmless(e->ctx, g->meta[i].value);
  return NULL;
}

bool port_of_task(const Emission *e, const Port *port, size_t task) {
  return !task_binds(e->task[task].task, port->value->name);
}

static bool gives(const TaskNames *t, const Port *port) {
  for (size_t i = 0; i < t->task->n_outputs; i++)
    if (strcmp(t->task->outputs[i], port->value->name) == 0) return true;
  return false;
}

static int64_t length(const Port *p) { return shape_count(&p->value->shape); }

static void describe(Emission *e, Text *t, const char *direction, const Port *p, const char *kind) {
  const char *about = meta(e, kind, p->value);
  text_add(t, "\n * %s %s: %s \"%s\"%s%s", direction, p->id, shape_text(e->ctx, p->value->dtype, &p->value->shape),
           text_harmless(e->ctx, p->value->name), about ? ", " : "", about ? about : "");
}

static void parameter(Text *t, const Port *p, bool constant) {
  text_add(t, ", %s%s %s%s", constant ? "const " : "", dtype_c(p->value->dtype), length(p) ? "" : "*", p->id);
  if (length(p)) text_add(t, "[%s]", p->macro);
}

/* "N *m, const float image[N_IMAGE_LEN], float depth[N_DEPTH_LEN]"; task n_tasks is all of them. */
static void parameters(Emission *e, Text *t, size_t task) {
  bool all = task == e->n_tasks;
  text_add(t, "%s *m", e->name);
  for (size_t i = 0; i < e->n_inputs; i++)
    if (all || port_of_task(e, &e->input[i], task)) parameter(t, &e->input[i], true);
  for (size_t i = 0; i < e->n_outputs; i++)
    if (all || gives(&e->task[task], &e->output[i])) parameter(t, &e->output[i], false);
}

static void declare_task(Emission *e, Text *t, size_t task) {
  bool all = task == e->n_tasks;
  text_add(t, "\n/* %s.", all ? "All tasks in one call, which computes what they share once; needs every task" : text_harmless(e->ctx, e->task[task].task->name));
  for (size_t i = 0; i < e->n_inputs; i++)
    if (all || port_of_task(e, &e->input[i], task)) describe(e, t, "in: ", &e->input[i], "input");
  for (size_t i = 0; i < e->n_outputs; i++)
    if (all || gives(&e->task[task], &e->output[i])) describe(e, t, "out:", &e->output[i], "output");
  text_add(t, " */\nmoecc_status %s_%s(", e->name, all ? "all" : e->task[task].id);
  parameters(e, t, task);
  text_add(t, ");\n");
}

static void sizes(Emission *e, Text *t) {
  text_add(t, "/* Elements of each input and output. */\n");
  for (size_t i = 0; i < e->n_inputs; i++)
    text_add(t, "#define %s %lld\n", e->input[i].macro, (long long)length(&e->input[i]));
  for (size_t i = 0; i < e->n_outputs; i++)
    text_add(t, "#define %s %lld\n", e->output[i].macro, (long long)length(&e->output[i]));
  text_add(t, "\n/* Tasks: bits for init. */\n");
  for (size_t i = 0; i < e->n_tasks; i++) text_add(t, "#define %s_TASK_%s (1u << %zu)\n", e->upper, e->task[i].upper, i);
  text_add(t, "#define %s_TASKS_ALL %lluu\n", e->upper,
           (unsigned long long)(e->n_tasks == 32 ? UINT32_MAX : (UINT32_C(1) << e->n_tasks) - 1));
  text_add(t, "\n/* Bytes of arena, aligned to MOECC_ALIGN, for a number of threads: for all tasks and %s_all, and for one task.\n"
              " * Weights that stream from a source need %s_STREAM_BYTES more. */\n", e->name, e->upper);
  text_add(t, "#define %s_ARENA_BYTES(threads) ((size_t)%lld + (size_t)(threads) * %lld)\n", e->upper,
           (long long)e->schedule->arena_all, (long long)e->schedule->scratch);
  for (size_t i = 0; i < e->n_tasks; i++)
    text_add(t, "#define %s_%s_ARENA_BYTES(threads) ((size_t)%lld + (size_t)(threads) * %lld)\n", e->upper, e->task[i].upper,
             (long long)arena_of_task(e->schedule, i), (long long)scratch_of_task(e->schedule, i));
  text_add(t, "#define %s_STREAM_BYTES ((size_t)%lld)\n", e->upper, (long long)(2 * emit_stream_buffer(e)));
  text_add(t, "#define %s_WEIGHT_BYTES %lluu /* of %s_weights.bin */\n", e->upper, (unsigned long long)e->pack_bytes, e->name);
}

char *emit_interface(Emission *e) {
  Text t = {.ctx = e->ctx};
  const char *n = e->name, *N = e->upper;
  text_add(&t, "/* %s.h: the network \"%s\", compiled to C. %s_main.c shows how to call it.\n *\n"
               " * Start with a context of zeros and an arena, call %s_init for the tasks you want, then their functions, in any\n"
               " * order. Nothing is kept between calls but weights. One context serves one thread at a time.\n */\n",
           n, text_harmless(e->ctx, e->title), n, n);
  text_add(&t, "#ifndef %s_H\n#define %s_H\n\n#include \"moecc_rt.h\"\n\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n", N, N);
  sizes(e, &t);
  text_add(&t, "\ntypedef struct %s {\n  moecc_context c;\n} %s;\n", n, n);
  text_add(&t, "\n/* Prepares a context for a set of tasks (%s_TASK_… bits) and checks their weights. %s\n"
               " * o may be NULL. On MOECC_ERROR_ARENA, m->c.needed says how many bytes are wanted. */\n", N,
           e->weights == WEIGHTS_EMBED ? "The weights are linked in: w may be NULL." : "w: where the weights come from.");
  text_add(&t, "moecc_status %s_init(%s *m, unsigned tasks, void *arena, size_t bytes, const moecc_source *w, const moecc_options *o);\n", n, n);
  text_add(&t, "void %s_close(%s *m);\n", n, n);
  for (size_t i = 0; i < e->n_tasks; i++) declare_task(e, &t, i);
  if (e->n_tasks > 1) declare_task(e, &t, e->n_tasks);
  text_add(&t, "\n#ifdef __cplusplus\n}\n#endif\n#endif\n");
  return t.text;
}

char *emit_internal(Emission *e) {
  Text t = {.ctx = e->ctx};
  const char *n = e->name, *N = e->upper;
  size_t regions = e->schedule->n_segments;
  text_add(&t, "/* %s_internal.h: what the network's own files share. */\n#ifndef %s_INTERNAL_H\n#define %s_INTERNAL_H\n\n"
               "#include <math.h>\n\n#include \"%s.h\"\n#include \"%s_kernels.h\"\n\n", n, N, N, n, n);
  text_add(&t, "/* Where a call's memory is: a region for each segment, the caller's buffers, and scratch for each thread. */\n"
               "typedef struct %s_frame {\n  unsigned char *region[%zu];\n  const void *input[%zu];\n  void *output[%zu];\n"
               "  unsigned char *scratch;\n  size_t threads;\n} %s_frame;\n\n", n, regions ? regions : 1,
           e->n_inputs ? e->n_inputs : 1, e->n_outputs ? e->n_outputs : 1, n);
  text_add(&t, "/* Segments: what all tasks need, what some do, and each task's own part. */\n");
  for (size_t i = 0; i < regions; i++)
    text_add(&t, "moecc_status %s(%s *m, const %s_frame *f);\n", segment_function(e, i), n, n);
  text_add(&t, "\n#endif\n");
  return t.text;
}

/* ---- entries: one task, or all ---- */

static void check_arguments(Emission *e, Text *t, size_t task) {
  bool all = task == e->n_tasks;
  text_add(t, "  if (!m");
  for (size_t i = 0; i < e->n_inputs; i++)
    if (all || port_of_task(e, &e->input[i], task)) text_add(t, " || !%s", e->input[i].id);
  for (size_t i = 0; i < e->n_outputs; i++)
    if (all || gives(&e->task[task], &e->output[i])) text_add(t, " || !%s", e->output[i].id);
  text_add(t, ") return MOECC_ERROR_ARGUMENT;\n");
}

static void fill_frame(Emission *e, Text *t, size_t task) {
  bool all = task == e->n_tasks;
  const Schedule *s = e->schedule;
  text_add(t, "  %s_frame f;\n", e->name);
  text_add(t, "  memset(&f, 0, sizeof f);\n");
  for (size_t i = 0; i < s->n_segments; i++)
    if (all || segment_serves(&s->segment[i], task))
      text_add(t, all && s->base_all[i] ? "  f.region[%zu] = m->c.arena + %lld;\n" : "  f.region[%zu] = m->c.arena;\n", i,
               (long long)s->base_all[i]);
  for (size_t i = 0; i < e->n_inputs; i++)
    if (all || port_of_task(e, &e->input[i], task)) text_add(t, "  f.input[%zu] = %s;\n", i, e->input[i].id);
  for (size_t i = 0; i < e->n_outputs; i++)
    if (all || gives(&e->task[task], &e->output[i])) text_add(t, "  f.output[%zu] = %s;\n", i, e->output[i].id);
  text_add(t, "  f.scratch = m->c.arena + %lld;\n", (long long)(all ? s->arena_all : arena_of_task(s, task)));
  text_add(t, "  f.threads = m->c.pool ? m->c.pool->threads : 1;\n");
}

void emit_entry(Emission *e, Text *t, size_t task) {
  bool all = task == e->n_tasks;
  text_add(t, "\nmoecc_status %s_%s(", e->name, all ? "all" : e->task[task].id);
  parameters(e, t, task);
  text_add(t, ")\n{\n");
  check_arguments(e, t, task);
  if (all)
    text_add(t, "  if (m->c.state && m->c.tasks != %s_TASKS_ALL) return MOECC_ERROR_TASK;\n", e->upper);
  text_add(t, "  moecc_status status = moecc_call_begin(&m->c, %zu);\n  if (status) return status;\n", all ? (size_t)0 : task);
  fill_frame(e, t, task);
  for (size_t i = 0; i < e->schedule->n_segments; i++)
    if (all || segment_serves(&e->schedule->segment[i], task))
      text_add(t, "  if (!status) status = %s(m, &f);\n", segment_function(e, i));
  text_add(t, "  return moecc_call_end(&m->c, status);\n}\n");
}
