/* report.json: what each task costs (work, flash, memory, bytes loaded), where its memory goes, and its schedule. */
#include "emit/emit.h"
#include "io/json.h"

#include <string.h>

static const char *quoted(Ctx *c, const char *text) { return json_text(c, text ? text : ""); }

/* ---- a task's figures ---- */

static bool in_task(const Step *s, size_t task) { return s->tasks >> task & 1; }

static int64_t step_bytes(const Step *s) {
  int64_t bytes = s->bytes;
  for (size_t i = 0; i < s->n_body; i++) bytes += s->body[i].bytes;
  return bytes;
}

/* Bytes of what the step takes at once; of an expert loop, of one expert. */
static int64_t unit_bytes(const Step *s) {
  const Unit *u;
  int64_t bytes = 0;
  for (size_t i = 0; (u = step_unit(s, i)); i++) bytes += u->bytes;
  return bytes;
}

static int64_t task_macs(const Emission *e, size_t task) {
  int64_t macs = 0;
  for (const Step *s = e->program->first; s; s = s->next)
    if (in_task(s, task)) macs += step_macs(s);
  return macs;
}

/* Bytes of the pack's units that the task needs: what embedding them takes. */
static uint64_t task_weights(const Emission *e, size_t task) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < e->program->n_units; i++)
    if (e->program->unit[i]->tasks >> task & 1) bytes += pack_unit_bytes(&e->pack[i]);
  return bytes;
}

/* Bytes that one call takes of weights, at most. */
static uint64_t task_loads(const Emission *e, size_t task) {
  uint64_t bytes = 0;
  for (const Step *s = e->program->first; s; s = s->next)
    if (in_task(s, task)) bytes += (uint64_t)step_most_loads(s);
  return bytes;
}

/* ---- parts of a task's object ---- */

static void add_ports(Emission *e, Text *t, size_t task, bool output) {
  const Port *port = output ? e->output : e->input;
  size_t n = output ? e->n_outputs : e->n_inputs;
  const char *separator = "";
  text_add(t, "      \"%s\": [", output ? "outputs" : "inputs");
  for (size_t i = 0; i < n; i++) {
    if (!(output ? port_from_task(e, &port[i], task) : port_of_task(e, &port[i], task))) continue;
    const Value *v = port[i].value;
    text_add(t, "%s{\"name\": %s, \"shape\": %s, \"elements\": %lld, \"macro\": \"%s\"}", separator,
             quoted(e->ctx, v->name), quoted(e->ctx, shape_text(e->ctx, v->dtype, &v->shape)),
             (long long)shape_count(&v->shape), port[i].macro);
    separator = ", ";
  }
  text_add(t, "],\n");
}

/* A call's bounds: n_tasks are all tasks in one. */
static void add_bounds(Emission *e, Text *t, size_t task, const char *indent) {
  const Bounds b = emit_bounds(e, task);
  const long long one = b.arena + b.scratch;
  text_add(t,
           "%s\"ram\": {\"arena\": %lld, \"scratch_per_thread\": %lld, \"stream_buffers\": %lld, \"resident\": %lld, "
           "\"one_thread\": %lld, \"one_thread_streaming\": %lld},\n",
           indent, (long long)b.arena, (long long)b.scratch, (long long)b.stream, (long long)b.resident, one,
           (long long)b.ram);
  text_add(t, "%s\"reads_worst_case\": {\"bytes\": %lld, \"slots\": %lld},\n", indent, (long long)b.read_bytes,
           (long long)b.read_slots);
  text_add(t, "%s\"queue_bytes\": %lld,\n", indent, (long long)b.queue_bytes);
  text_add(t, "%s\"stack\": {\"caller\": %lld, \"worker\": %lld},\n", indent, (long long)b.stack.caller,
           (long long)b.stack.worker);
}

static void add_queues(Emission *e, Text *t, size_t task) {
  bool first = true;
  text_add(t, "      \"queues\": [");
  for (const Step *s = e->program->first; s; s = s->next) {
    if (s->kind != STEP_EXPERTS || !in_task(s, task)) continue;
    text_add(t, "%s\n        {\"layer\": %s, \"node\": %s, ", first ? "" : ",", quoted(e->ctx, s->layer),
             quoted(e->ctx, s->node->name));
    text_add(t, "\"unit_id\": %d, \"experts\": %lld, \"entries\": %lld, \"bytes_per_expert\": %lld, \"bytes\": %lld}",
             s->unit->id, (long long)s->experts, (long long)s->queue_entries, (long long)unit_bytes(s),
             (long long)queue_bytes(s));
    first = false;
  }
  text_add(t, "%s],\n", first ? "" : "\n      ");
}

/* Who takes the arena where it is fullest. */
static void add_peak(Emission *e, Text *t, const Peak *peak) {
  text_add(t, "      \"peak\": {\"layer\": %s, \"node\": %s, \"values\": [",
           quoted(e->ctx, peak->step ? peak->step->layer : ""),
           quoted(e->ctx, peak->step ? peak->step->node->name : ""));
  for (size_t i = 0; i < peak->n; i++)
    text_add(t, "%s\n        {\"value\": %s, \"bytes\": %lld, \"offset\": %lld}", i ? "," : "",
             quoted(e->ctx, peak->storage[i]->name), (long long)peak->storage[i]->bytes,
             (long long)peak->storage[i]->offset);
  text_add(t, "%s]},\n", peak->n ? "\n      " : "");
}

static void add_memory(Emission *e, Text *t, size_t task, const Peak *peak) {
  const Schedule *s = e->schedule;
  long long arena = arena_of_task(s, task), scratch = scratch_of_task(s, task);
  text_add(
      t,
      "      \"arena_bytes\": %lld,\n      \"largest_live_bytes\": %lld,\n      \"scratch_bytes_per_thread\": %lld,\n",
      arena, (long long)peak->bytes, scratch);
  add_bounds(e, t, task, "      ");
  text_add(t, "      \"weight_bytes\": %llu,\n      \"loaded_bytes_worst_case\": %llu,\n",
           (unsigned long long)task_weights(e, task), (unsigned long long)task_loads(e, task));
}

/* Both ways of computing chains of pictures, and which was taken. */
static void add_bands(Emission *e, Text *t, size_t task) {
  const BandPlan *plan = e->schedule->bands;
  const BandCost *whole = &plan->whole, *banded = &plan->banded;
  text_add(t, "      \"bands\": {\"chosen\": %d, \"why\": %s, \"whole\": {\"memory_bytes\": %lld}",
           plan->chosen ? banded->bands : 1, quoted(e->ctx, plan->why), (long long)whole->arena[task]);
  if (banded->bands)
    text_add(t,
             ", \"banded\": {\"bands\": %d, \"operators\": %d, \"memory_bytes\": %lld, \"extra_macs\": %lld, "
             "\"extra_loaded_bytes\": %lld}",
             banded->bands, banded->links, (long long)banded->arena[task],
             (long long)(banded->macs[task] - whole->macs[task]),
             (long long)(banded->loads[task] - whole->loads[task]));
  text_add(t, "},\n");
}

static void add_units(Emission *e, Text *t, const Step *s) {
  const Unit *u;
  if (!s->unit) return;
  text_add(t, ", \"unit\": %s, \"bytes\": %lld", quoted(e->ctx, s->unit->name), (long long)unit_bytes(s));
  if (!step_unit(s, 1)) return;
  text_add(t, ", \"units\": [");
  for (size_t i = 0; (u = step_unit(s, i)); i++) text_add(t, "%s%s", i ? ", " : "", quoted(e->ctx, u->name));
  text_add(t, "]");
}

static void add_step(Emission *e, Text *t, const Step *s) {
  text_add(t, "        {\"step\": %d, \"layer\": %s, \"node\": %s, \"operator\": %s, \"kernel\": ", s->number,
           quoted(e->ctx, s->layer), quoted(e->ctx, s->node->name),
           quoted(e->ctx, s->node->op_type ? s->node->op_type : op_info(s->node->op)->name));
  if (s->kind == STEP_CALL) {
    text_add(t, "%s", quoted(e->ctx, s->kernel->name));
  } else {
    text_add(t, "[");
    for (size_t i = 0; i < s->n_body; i++) text_add(t, "%s%s", i ? ", " : "", quoted(e->ctx, s->body[i].kernel->name));
    text_add(t, "]");
  }
  if (s->band_rows)
    text_add(t, ", \"rows\": [%lld, %lld]", (long long)s->band_first, (long long)(s->band_first + s->band_rows - 1));
  text_add(t, ", \"macs\": %lld, \"moved_bytes\": %lld", (long long)step_macs(s), (long long)step_bytes(s));
  add_units(e, t, s);
  text_add(t, "}");
}

static void add_schedule(Emission *e, Text *t, size_t task) {
  const Schedule *s = e->schedule;
  const char *separator = "";
  text_add(t, "      \"schedule\": [");
  for (size_t i = 0; i < s->n_segments; i++)
    for (size_t k = 0; segment_serves(&s->segment[i], task) && k < s->segment[i].n_steps; k++) {
      text_add(t, "%s\n", separator);
      add_step(e, t, s->segment[i].step[k]);
      separator = ",";
    }
  text_add(t, "\n      ]\n");
}

static void add_task(Emission *e, Text *t, size_t task) {
  Peak peak = peak_of_task(e->program, e->schedule, task);
  text_add(t, "    {\n      \"task\": %s,\n      \"function\": \"%s_%s\",\n", quoted(e->ctx, e->task[task].task->name),
           e->name, e->task[task].id);
  add_ports(e, t, task, false);
  add_ports(e, t, task, true);
  text_add(t, "      \"macs\": %lld,\n", (long long)task_macs(e, task));
  add_memory(e, t, task, &peak);
  add_peak(e, t, &peak);
  add_bands(e, t, task);
  add_queues(e, t, task);
  add_schedule(e, t, task);
  text_add(t, "    }");
}

/* ---- the call of all tasks ---- */

static void add_loads(void *self, const Turn *turn) {
  *(uint64_t *)self += (uint64_t)step_most_loads_together(turn->step, (int)turn->n);
}

static void count_takes(void *self, const Turn *turn) {
  int64_t *takes = self;
  const Unit *u;
  for (size_t i = 0; (u = step_unit(turn->step, i)); i++) takes[u->id]++;
}

/* The most takes of a unit in any task's own call. */
static int64_t most_takes(const Emission *e, const Unit *unit) {
  int64_t most = 0;
  for (size_t t = 0; t < e->n_tasks; t++) {
    int64_t takes = 0;
    const Unit *u;
    for (const Step *s = e->program->first; s; s = s->next)
      for (size_t i = 0; in_task(s, t) && (u = step_unit(s, i)); i++) takes += u == unit;
    if (takes > most) most = takes;
  }
  return most;
}

/* Units that are not worth going together for, which tasks share all the same. */
static void add_read_again(Emission *e, Text *t) {
  int64_t *takes = ctx_array(e->ctx, e->program->n_units + 1, sizeof *takes);
  const char *separator = "";
  each_turn_of_all(e->schedule, count_takes, takes);
  text_add(t, "    \"read_more_than_once\": [");
  for (size_t i = 0; i < e->program->n_units; i++) {
    const Unit *u = e->program->unit[i];
    int64_t once = u->tasks & (u->tasks - 1) ? most_takes(e, u) : takes[i];
    if (takes[i] <= once) continue;
    text_add(t,
             "%s\n      {\"unit\": %s, \"unit_id\": %d, \"bytes\": %lld, \"times\": %lld, \"times_in_one_task\": %lld}",
             separator, quoted(e->ctx, u->name), u->id, (long long)u->bytes, (long long)takes[i], (long long)once);
    separator = ",";
  }
  text_add(t, "%s],\n", *separator ? "\n    " : "");
}

static void add_lockstep(Emission *e, Text *t, const Lockstep *l) {
  const Schedule *s = e->schedule;
  const Segment *first = &s->segment[l->first];
  size_t shared = 0;
  text_add(t, "\n      {\"tasks\": [");
  for (size_t i = 0; i < l->n; i++)
    text_add(t, "%s%s", i ? ", " : "", quoted(e->ctx, e->task[__builtin_ctzll(first[i].tasks)].task->name));
  for (size_t i = 0; i < first->n_steps; i++) shared += lockstep_shares(s, l, i);
  text_add(t, "], \"steps\": %zu, \"steps_with_shared_weights\": %zu, \"bytes_for_each_task\": %lld}", first->n_steps,
           shared, (long long)first->bytes);
}

typedef struct {
  const Schedule *schedule;
  Text *text;
  const char *separator;
} Order;

/* "[2, 12]": steps that take their weights at once. */
static void add_turn(void *self, const Turn *turn) {
  Order *o = self;
  for (size_t i = 0; i < turn->n; i++)
    text_add(o->text, "%s%d", i ? ", " : o->separator,
             o->schedule->segment[turn->segment + i].step[turn->index]->number);
  text_add(o->text, "]");
  o->separator = ", [";
}

/* The order in which a call of all takes weights: numbers of steps, in one list those that go side by side and share
 * theirs. */
static void add_order(const Schedule *s, Text *t) {
  Order order = {s, t, "["};
  text_add(t, "    \"order\": [");
  each_turn_of_all(s, add_turn, &order);
  text_add(t, "],\n");
}

static void add_all_tasks(Emission *e, Text *t) {
  const Schedule *s = e->schedule;
  uint64_t all = 0, single = 0;
  each_turn_of_all(e->schedule, add_loads, &all);
  for (size_t i = 0; i < e->n_tasks; i++) single += task_loads(e, i);
  text_add(t, "    \"function\": \"%s_all\",\n    \"arena_bytes\": %lld,\n", e->name, (long long)s->arena_all);
  text_add(t,
           "    \"loaded_bytes_worst_case\": %llu,\n    \"loaded_bytes_of_single_calls\": %llu,\n    \"lockstep\": [",
           (unsigned long long)all, (unsigned long long)single);
  for (size_t i = 0; i < s->n_lockstep; i++) {
    if (i) text_add(t, ",");
    add_lockstep(e, t, &s->lockstep[i]);
  }
  text_add(t, "%s],\n", s->n_lockstep ? "\n    " : "");
  add_read_again(e, t);
  add_order(s, t);
}

/* ---- the file ---- */

/* The stack that each kernel takes in its caller's thread. */
static void add_kernels(Emission *e, Text *t) {
  const char *separator = "";
  text_add(t, "  \"kernel_stack_bytes\": {");
  for (size_t i = 0; i < e->program->n_kernels; i++) {
    const Kernel *k = e->program->kernel[i];
    if (!kernel_used(e, k)) continue;
    text_add(t, "%s\"%s\": %lld", separator, k->name, (long long)emit_stack_of_kernel(e, k));
    separator = ", ";
  }
  text_add(t, "},\n");
}

/* What stays in memory while a context streams, in the order in which it was chosen, and the model of the choice. */
static void add_resident(Emission *e, Text *t) {
  const ResidentPlan *plan = e->schedule->resident;
  if (!plan) return;
  text_add(t,
           "  \"resident\": {\"budget\": %lld, \"bytes\": %lld, \"model\": {\"storage_bytes_per_second\": %.0f, "
           "\"latency_seconds\": %g, \"macs_per_second\": %.0f}, \"units\": [",
           (long long)plan->budget, (long long)plan->bytes, plan->rate, plan->latency, plan->arithmetic);
  for (size_t i = 0; i < plan->n; i++) {
    const Unit *u = e->program->unit[plan->order[i]];
    text_add(t,
             "%s\n    {\"unit\": %s, \"unit_id\": %d, \"slots\": %lld, \"bytes\": %llu, \"reads_expected\": %.4g, "
             "\"stall_saved_seconds\": %.4g}",
             i ? "," : "", quoted(e->ctx, u->name), u->id, (long long)u->count,
             (unsigned long long)(e->pack[u->id].stride * e->pack[u->id].count), plan->reads[u->id],
             plan->saved[u->id]);
  }
  text_add(t, "%s]},\n", plan->n ? "\n  " : "");
}

static void add_network(Emission *e, Text *t) {
  static const char *const modes[] = {"file", "embed", "stream"};
  Peak all = peak_of_task(e->program, e->schedule, SIZE_MAX);
  text_add(t, "  \"name\": %s,\n  \"model\": %s,\n  \"target\": \"%s\",\n  \"weights\": \"%s\",\n",
           quoted(e->ctx, e->name), quoted(e->ctx, e->title), e->program->target->name, modes[e->weights]);
  text_add(t,
           "  \"pack_bytes\": %llu,\n  \"units\": %zu,\n  \"kernels\": %zu,\n  \"stream_buffer_bytes\": %lld,\n  "
           "\"stream_bytes\": %lld,\n",
           (unsigned long long)e->pack_bytes, e->program->n_units, e->program->n_kernels,
           (long long)emit_stream_buffer(e), (long long)emit_stream_bytes(e));
  text_add(t,
           "  \"arena_bytes_all_tasks\": %lld,\n  \"largest_live_bytes_all_tasks\": %lld,\n  "
           "\"scratch_bytes_per_thread\": %lld,\n",
           (long long)e->schedule->arena_all, (long long)all.bytes, (long long)e->schedule->scratch);
  text_add(t, "  \"all_tasks\": {\n");
  add_bounds(e, t, e->n_tasks, "    ");
  if (e->n_tasks > 1) add_all_tasks(e, t);
  text_add(t, "    \"tasks\": %zu\n  },\n", e->n_tasks);
  add_resident(e, t);
  add_kernels(e, t);
}

char *emit_report(Emission *e) {
  Text t = {.ctx = e->ctx};
  text_add(&t, "{\n");
  add_network(e, &t);
  text_add(&t, "  \"tasks\": [\n");
  for (size_t i = 0; i < e->n_tasks; i++) {
    add_task(e, &t, i);
    text_add(&t, i + 1 < e->n_tasks ? ",\n" : "\n");
  }
  text_add(&t, "  ]\n}\n");
  return t.text;
}
