/* N_internal.h: what the network's own files share, first of all the frame, which says where a call's memory is; and
 * the functions that fill a frame and run the segments: one for each task, and one for all.
 */
#include "emit/emit.h"
#include "emit/lines.h"

#include <string.h>

/* ---- N_internal.h ---- */

static bool is_one_task(const Segment *s) { return (s->tasks & (s->tasks - 1)) == 0; }

static bool task_has_own(const Emission *e) {
  for (size_t i = 0; i < e->schedule->n_segments; i++)
    if (is_one_task(&e->schedule->segment[i])) return true;
  return false;
}

static const char *region_comment(Emission *e, size_t segment) {
  const char *region = segment_region(e, segment);
  return strcmp(region, "trunk") == 0 ? "/* values that all tasks need */" : "/* values that several tasks need */";
}

static void add_regions(Emission *e, Columns *lines) {
  for (size_t i = 0; i < e->schedule->n_segments; i++) {
    const char *region = segment_region(e, i);
    if (is_one_task(&e->schedule->segment[i])) continue;
    columns_add(lines, ctx_format(e->ctx, "  unsigned char *%s;", region), region_comment(e, i));
  }
  if (e->schedule->n_lockstep)
    columns_add(lines, "  unsigned char *lockstep;",
                "/* the same, where all tasks compute side by side in one call */");
  if (task_has_own(e)) columns_add(lines, "  unsigned char *task;", "/* values that only this task needs */");
  columns_add(lines, "  unsigned char *scratch;", "/* what each thread has for itself, one behind the other */");
  columns_add(lines, "  size_t threads;", NULL);
  if (emit_asks_ahead(e))
    columns_add(lines, "  const moecc_unit *then;", "/* weights to ask for at a segment's end */");
}

static void add_ports(Emission *e, Text *t, const Port *port, size_t n, bool input) {
  if (!n) return;
  Columns lines = {.ctx = e->ctx};
  for (size_t i = 0; i < n; i++)
    columns_add(&lines,
                ctx_format(e->ctx, "    %s%s *%s;", input ? "const " : "", dtype_c(port[i].value->dtype), port[i].id),
                ctx_format(e->ctx, "/* %s */", shape_text(e->ctx, port[i].value->dtype, &port[i].value->shape)));
  text_add(t, "  struct {\n");
  columns_write(&lines, t);
  text_add(t, "  } %s;\n", input ? "in" : "out");
}

char *emit_internal(Emission *e) {
  Text t = {.ctx = e->ctx};
  const char *n = e->name, *N = e->upper;
  Columns lines = {.ctx = e->ctx};
  text_add(&t,
           "/* %s_internal.h: what the network's own files share. */\n#ifndef %s_INTERNAL_H\n#define %s_INTERNAL_H\n\n"
           "#include <math.h>\n\n#include \"%s.h\"\n#include \"%s_kernels.h\"\n#include \"moecc_rt_trace.h\"\n\n",
           n, N, N, n, n);
  text_add(
      &t, "/* Where a call's memory is: pieces of the arena, and the caller's buffers. */\ntypedef struct %s_frame {\n",
      n);
  add_regions(e, &lines);
  columns_write(&lines, &t);
  add_ports(e, &t, e->input, e->n_inputs, true);
  add_ports(e, &t, e->output, e->n_outputs, false);
  text_add(&t, "} %s_frame;\n\n", n);
  line_comment(&t, 0,
               ctx_format(e->ctx, "Segments: what all tasks need, what some do, and each task's own part%s.",
                          e->schedule->n_lockstep ? ", which may begin with what is computed in lockstep in a call of "
                                                    "all tasks"
                                                  : ""));
  for (size_t i = 0; i < e->schedule->n_segments; i++)
    line_add(&t, "moecc_status %s(%s *m, const %s_frame *f);", segment_function(e, i), n, n);
  text_add(&t, "\n#endif\n");
  return t.text;
}

/* ---- entries ---- */

static bool runs(const Emission *e, size_t segment, size_t task) {
  return task == e->n_tasks || segment_serves(&e->schedule->segment[segment], task);
}

static void check_arguments(Emission *e, Text *t, size_t task) {
  Text line = {.ctx = e->ctx};
  text_add(&line, "  if (!m");
  for (size_t i = 0; i < e->n_inputs; i++)
    if (port_of_task(e, &e->input[i], task)) text_add(&line, " || !%s", e->input[i].id);
  for (size_t i = 0; i < e->n_outputs; i++)
    if (port_from_task(e, &e->output[i], task)) text_add(&line, " || !%s", e->output[i].id);
  line_add(t, "%s) return MOECC_ERROR_ARGUMENT;", line.text);
}

static const char *arena_at(Emission *e, int64_t offset) {
  return offset ? ctx_format(e->ctx, "m->c.arena + %lld", (long long)offset) : "m->c.arena";
}

/* Where a segment's region begins in the arena: at its start, but for a call of all tasks. */
static int64_t region_base(const Emission *e, size_t segment, size_t task) {
  return task == e->n_tasks ? e->schedule->base_all[segment] : 0;
}

/* Where in the arena a frame's regions of one task's own begin; -1: nowhere yet. */
typedef struct {
  int64_t task, lockstep;
} OwnRegions;

static void fill_frame(Emission *e, Text *t, size_t task, OwnRegions *own) {
  const Schedule *s = e->schedule;
  bool all = task == e->n_tasks;
  text_add(t, "  %s%s_frame f = {\n", all || emit_asks_ahead(e) ? "" : "const ", e->name);
  for (size_t i = 0; i < s->n_segments; i++) {
    int64_t *held = !is_one_task(&s->segment[i]) ? NULL : s->segment[i].in_lockstep ? &own->lockstep : &own->task;
    if (!runs(e, i, task) || (held && *held >= 0)) continue;
    int64_t base = region_base(e, i, task);
    if (held) *held = base;
    line_add(t, "      .%s = %s,", segment_region(e, i), arena_at(e, base));
  }
  line_add(t, "      .scratch = %s,", arena_at(e, all ? s->arena_all : arena_of_task(s, task)));
  line_add(t, "      .threads = m->c.pool ? m->c.pool->threads : 1,");
  for (size_t i = 0; i < e->n_inputs; i++)
    if (port_of_task(e, &e->input[i], task)) line_add(t, "      .in.%s = %s,", e->input[i].id, e->input[i].id);
  for (size_t i = 0; i < e->n_outputs; i++)
    if (port_from_task(e, &e->output[i], task)) line_add(t, "      .out.%s = %s,", e->output[i].id, e->output[i].id);
  text_add(t, "  };\n");
}

static void point(Emission *e, Text *t, const char *region, int64_t *held, int64_t base) {
  if (*held != base) line_add(t, "  f.%s = %s;", region, arena_at(e, base));
  *held = base;
}

/* Points the frame at what the segment's task has of its own. */
static void point_own(Emission *e, Text *t, size_t segment, size_t task, OwnRegions *own) {
  const Schedule *s = e->schedule;
  if (!is_one_task(&s->segment[segment])) return;
  for (size_t i = 0; i <= segment; i++)
    if (s->segment[i].in_lockstep && s->segment[i].tasks == s->segment[segment].tasks)
      point(e, t, "lockstep", &own->lockstep, region_base(e, i, task));
  if (!s->segment[segment].in_lockstep) point(e, t, "task", &own->task, region_base(e, segment, task));
}

static void run_segments(Emission *e, Text *t, size_t task, OwnRegions own) {
  const char *condition = "";
  const Unit *then = NULL;
  for (size_t i = 0; i < e->schedule->n_segments; i++) {
    if (!runs(e, i, task)) continue;
    const Lockstep *l = task == e->n_tasks ? lockstep_of(e->schedule, i) : NULL;
    point_own(e, t, i, task, &own);
    const char *function = l ? lockstep_function(e, l) : segment_function(e, i);
    if (l) i += l->n - 1;
    const Unit *after = emit_asks_ahead(e) && !l ? unit_after(e, i, task) : NULL;
    if (after) line_add(t, "  f.then = &unit_%s;", after->name);
    if (then && !after) line_add(t, "  f.then = NULL;");
    then = after;
    line_add(t, "  %sstatus = %s(m, &f);", condition, function);
    condition = "if (!status) ";
  }
}

void emit_entry(Emission *e, Text *t, size_t task) {
  bool all = task == e->n_tasks;
  OwnRegions own = {-1, -1};
  text_add(t, "\n");
  emit_prototype(e, t, task, " {");
  check_arguments(e, t, task);
  if (all) line_add(t, "  if (m->c.state && m->c.tasks != %s_TASKS_ALL) return MOECC_ERROR_TASK;", e->upper);
  line_add(t, "  moecc_status status = moecc_call_begin(&m->c, %zu);", all ? (size_t)0 : task);
  line_add(t, "  if (status) return status;");
  fill_frame(e, t, task, &own);
  run_segments(e, t, task, own);
  text_add(t, "  return moecc_call_end(&m->c, status);\n}\n");
}
