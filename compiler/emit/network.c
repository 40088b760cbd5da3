/* N.c, N_task_T.c and N_all.c, and the order in which everything is written. */
#include "emit/emit.h"
#include "emit/lines.h"

#include <string.h>

static bool is_task_own(const Segment *s) { return (s->tasks & (s->tasks - 1)) == 0; }

int64_t emit_stream_buffer(const Emission *e) {
  int64_t most = 0;
  for (size_t i = 0; i < e->program->n_units; i++) {
    int64_t slot = round_up((int64_t)MOECC_SLOT_BYTES(e->pack[i].bytes), 64);
    bool stays = resident_place(e->schedule, e->program->unit[i]) > 0;
    if (stays && MOECC_SLOT_ALIGN(e->pack[i].bytes) == 4096) slot = 64; /* is loaded where it stays */
    if (slot > most) most = slot;
  }
  return most;
}

int64_t emit_stream_bytes(const Emission *e) {
  int64_t buffer = emit_stream_buffer(e);
  return buffer ? (int64_t)MOECC_STREAM_BYTES(buffer) : 0;
}

static uint32_t packed_tasks(const Emission *e) {
  uint64_t tasks = 0;
  for (size_t i = 0; e->weights != WEIGHTS_EMBED && i < e->program->n_units; i++) tasks |= e->program->unit[i]->tasks;
  return (uint32_t)tasks;
}

static void emit_arena_table(Emission *e, Text *t) {
  text_add(
      t,
      "\n/* Arena bytes of each task: for values, and for each thread. */\nstatic const size_t arena_bytes[][2] = {\n");
  for (size_t i = 0; i < e->n_tasks; i++)
    text_add(t, "    {%lld, %lld},\n", (long long)arena_of_task(e->schedule, i),
             (long long)scratch_of_task(e->schedule, i));
  text_add(t, "};\n");
}

/* The units that stay in memory. What several tasks need has its name here; this file names no task. */
static size_t emit_residents(Emission *e, Text *t) {
  const ResidentPlan *plan = e->schedule->resident;
  if (!plan || !plan->n) return 0;
  text_add(t, "/* Weights that stay in memory: each unit, as where it is used, and the tasks that need it. */\n");
  text_add(t, "static const moecc_resident resident[] = {\n");
  for (size_t i = 0; i < plan->n; i++) {
    const Unit *u = e->program->unit[plan->order[i]];
    bool shared = (u->tasks & (u->tasks - 1)) != 0;
    line_add(t, "    {%s, 0x%llxu},", unit_value(e, u, shared), (unsigned long long)u->tasks);
  }
  text_add(t, "};\n\n");
  return plan->n;
}

static void emit_init(Emission *e, Text *t) {
  const char *n = e->name;
  size_t residents = emit_residents(e, t);
  line_comment(
      t, 0,
      "The weights' hash, the tasks, those that need weights from a source, bytes of a stream buffer, and what "
      "stays in memory.");
  line_add(t, "static const moecc_network network = {UINT64_C(0x%016llx), %s_TASKS_ALL, 0x%xu, %lld, %s, %zu};",
           (unsigned long long)e->hash, e->upper, packed_tasks(e),
           (long long)(e->weights == WEIGHTS_EMBED ? 0 : emit_stream_buffer(e)), residents ? "resident" : "NULL",
           residents);
  emit_arena_table(e, t);
  text_add(t, "\n");
  line_add(t,
           "moecc_status %s_init(%s *m, unsigned tasks, void *arena, size_t bytes, const moecc_source *w, "
           "const moecc_options *o) {",
           n, n);
  text_add(t,
           "  if (!m) return MOECC_ERROR_ARGUMENT;\n"
           "  const size_t threads = o && o->pool ? o->pool->threads : 1;\n"
           "  size_t needed = tasks == %s_TASKS_ALL ? %s_ARENA_BYTES(threads) : 0;\n"
           "  for (size_t i = 0; i < sizeof arena_bytes / sizeof *arena_bytes; i++) {\n"
           "    const size_t task = arena_bytes[i][0] + threads * arena_bytes[i][1];\n"
           "    if ((tasks >> i & 1u) && task > needed) needed = task;\n  }\n"
           "  return moecc_context_init(&m->c, &network, tasks, arena, bytes, needed, w, o);\n}\n",
           e->upper, e->upper);
  text_add(t, "\nvoid %s_close(%s *m) {\n  if (m) moecc_context_close(&m->c);\n}\n", n, n);
}

static void file_head(Emission *e, Text *t, const char *file, const char *what) {
  line_comment(t, 0, ctx_format(e->ctx, "%s%s.c: %s", e->name, file, what));
  text_add(t, "#include \"%s_internal.h\"\n", e->name);
}

char *emit_core(Emission *e) {
  Text t = {.ctx = e->ctx};
  bool shares = false;
  for (size_t i = 0; i < e->schedule->n_segments; i++) shares |= !is_task_own(&e->schedule->segment[i]);
  file_head(e, &t, "", shares ? "the network's context, and what several tasks share." : "the network's context.");
  text_add(&t, "\n");
  emit_init(e, &t);
  emit_file_units(e, &t, SIZE_MAX);
  for (size_t i = 0; i < e->schedule->n_segments; i++)
    if (!is_task_own(&e->schedule->segment[i])) emit_segment(e, &t, i);
  return t.text;
}

char *emit_task(Emission *e, size_t task) {
  Text t = {.ctx = e->ctx};
  file_head(e, &t, ctx_format(e->ctx, "_task_%s", e->task[task].id),
            ctx_format(e->ctx, "the task \"%s\": its layers, in order, and at the end the function that runs it.",
                       text_harmless(e->ctx, e->task[task].task->name)));
  emit_file_units(e, &t, task);
  for (size_t i = 0; i < e->schedule->n_segments; i++)
    if (e->schedule->segment[i].tasks == (uint64_t)1 << task) emit_segment(e, &t, i);
  emit_entry(e, &t, task);
  return t.text;
}

char *emit_all(Emission *e) {
  Text t = {.ctx = e->ctx};
  file_head(e, &t, "_all", "all tasks in one call.");
  emit_file_units(e, &t, e->n_tasks);
  for (size_t i = 0; i < e->schedule->n_lockstep; i++) emit_lockstep(e, &t, &e->schedule->lockstep[i]);
  emit_entry(e, &t, e->n_tasks);
  return t.text;
}

/* ---- names ---- */

static void name_ports(Emission *e) {
  Ctx *c = e->ctx;
  const Graph *g = e->program->graph;
  NameSet *ids = names_new(c), *macros = names_new(c);
  name_unique(ids, e->name);
  e->n_inputs = g->n_inputs;
  e->n_outputs = g->n_outputs;
  e->input = ctx_array(c, g->n_inputs + 1, sizeof *e->input);
  e->output = ctx_array(c, g->n_outputs + 1, sizeof *e->output);
  for (size_t i = 0; i < g->n_inputs + g->n_outputs; i++) {
    Port *p = i < g->n_inputs ? &e->input[i] : &e->output[i - g->n_inputs];
    p->value = i < g->n_inputs ? g->inputs[i] : g->outputs[i - g->n_inputs];
    p->id = name_unique(ids, name_identifier(c, p->value->name));
    p->macro = name_unique(macros, ctx_format(c, "%s_%s_LEN", e->upper, name_upper(c, p->id)));
  }
}

static void name_tasks(Emission *e) {
  static const char *const taken[] = {"init",    "close", "all",      "trunk", "frame",       "kernels",
                                      "weights", "main",  "internal", "h",     "trace_steps", "trace_count"};
  Ctx *c = e->ctx;
  const Graph *g = e->program->graph;
  NameSet *ids = names_new(c), *files = names_new(c);
  for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) name_unique(files, taken[i]);
  e->n_tasks = g->n_tasks;
  e->task = ctx_array(c, g->n_tasks + 1, sizeof *e->task);
  for (size_t i = 0; i < g->n_tasks; i++) {
    const char *id = name_unique(files, name_identifier(c, g->tasks[i].name));
    e->task[i] = (TaskNames){.id = name_unique(ids, id), .upper = NULL, .task = &g->tasks[i]};
    e->task[i].upper = name_unique(files, name_upper(c, id));
  }
}

const Port *port_of_value(const Emission *e, const Value *v) {
  for (size_t i = 0; i < e->n_inputs; i++)
    if (e->input[i].value == v) return &e->input[i];
  for (size_t i = 0; i < e->n_outputs; i++)
    if (e->output[i].value == v) return &e->output[i];
  ctx_fail(e->ctx, NULL, "internal error: \"%s\" is neither an input nor an output", v->name);
}

/* A layer's function must not be taken for one of the network's. */
static void name_layer(Emission *e, const char **name) {
  if (*name && strncmp(*name, e->name, strlen(e->name)) == 0) *name = ctx_format(e->ctx, "layer_%s", *name);
}

static void name_layers(Emission *e) {
  for (size_t i = 0; i < e->schedule->n_segments; i++) {
    Segment *s = &e->schedule->segment[i];
    for (size_t k = 0; k < s->n_layers; k++) {
      name_layer(e, &s->layer[k].name);
      name_layer(e, &s->layer[k].name_together);
    }
  }
}

/* ---- everything ---- */

static void place_weights(Emission *e) {
  Program *p = e->program;
  e->pack = ctx_array(e->ctx, p->n_units + 1, sizeof *e->pack);
  uint64_t h = hash_bytes(p->target->name, strlen(p->target->name), p->graph->model_hash);
  for (size_t i = 0; i < p->n_units; i++) {
    const Unit *u = p->unit[i];
    e->pack[i] =
        (PackUnit){.bytes = (uint64_t)u->bytes, .count = (uint32_t)u->count, .layout = 1, .tasks = (uint32_t)u->tasks};
    h = hash_bytes(&u->hash, sizeof u->hash, h);
  }
  e->hash = h;
  e->pack_bytes = pack_place(e->ctx, e->pack, p->n_units);
}

void emit_network(Program *p, Schedule *s, Folder *folder, const char *name, WeightsMode weights) {
  Ctx *c = p->ctx;
  Emission e = {.ctx = c, .program = p, .schedule = s, .title = p->graph->name, .weights = weights};
  e.name = name_identifier(c, name);
  e.upper = name_upper(c, e.name);
  name_ports(&e);
  name_tasks(&e);
  name_layers(&e);
  place_weights(&e);
  number_steps(e.schedule);
  folder_text(folder, ctx_format(c, "%s.h", e.name), emit_interface(&e));
  folder_text(folder, ctx_format(c, "%s_internal.h", e.name), emit_internal(&e));
  folder_text(folder, ctx_format(c, "%s.c", e.name), emit_core(&e));
  for (size_t i = 0; i < e.n_tasks; i++)
    folder_text(folder, ctx_format(c, "%s_task_%s.c", e.name, e.task[i].id), emit_task(&e, i));
  if (e.n_tasks > 1) folder_text(folder, ctx_format(c, "%s_all.c", e.name), emit_all(&e));
  folder_text(folder, ctx_format(c, "%s_kernels.h", e.name), emit_kernels_header(&e));
  folder_text(folder, ctx_format(c, "%s_kernels.c", e.name), emit_kernels(&e));
  folder_text(folder, ctx_format(c, "%s_trace.c", e.name), emit_trace(&e));
  emit_weights(&e, folder);
  emit_build_files(&e, folder);
  folder_text(folder, "report.json", emit_report(&e));
}
