/* report.json: what each task costs, where its memory goes, and the schedule. */
#include "emit/emit.h"

#include <string.h>

static const char *quoted(Ctx *c, const char *s) {
  Text t = {.ctx = c};
  text_add(&t, "\"");
  for (; *s; s++) {
    unsigned char ch = (unsigned char)*s;
    if (ch == '"' || ch == '\\') text_add(&t, "\\%c", ch);
    else if (ch < 32) text_add(&t, "\\u%04x", ch);
    else text_write(&t, s, 1);
  }
  text_add(&t, "\"");
  return t.text;
}

static int64_t task_macs(const Emission *e, size_t task) {
  int64_t macs = 0;
  for (const Step *s = e->program->first; s; s = s->next)
    if (s->tasks >> task & 1) macs += s->macs;
  return macs;
}

static uint64_t task_weights(const Emission *e, size_t task) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < e->program->n_units; i++)
    if (e->program->unit[i]->tasks >> task & 1) bytes += e->pack[i].stride * e->pack[i].count;
  return bytes;
}

/* Bytes that one call reads of weights, every expert being chosen. */
static uint64_t task_loads(const Emission *e, size_t task) {
  uint64_t bytes = 0;
  for (const Step *s = e->program->first; s; s = s->next)
    if (s->unit && (s->tasks >> task & 1)) bytes += e->pack[s->unit->id].bytes * e->pack[s->unit->id].count;
  return bytes;
}

static void add_queues(Emission *e, Text *t, size_t task) {
  bool first = true;
  text_add(t, "      \"queues\": [");
  for (const Step *s = e->program->first; s; s = s->next) {
    if (s->kind != STEP_EXPERTS || !(s->tasks >> task & 1)) continue;
    text_add(t, "%s\n        {\"layer\": %s, \"experts\": %lld, \"entries\": %lld, \"bytes_per_expert\": %llu}", first ? "" : ",",
             quoted(e->ctx, s->node->scope), (long long)s->experts, (long long)s->queue_entries,
             (unsigned long long)e->pack[s->unit->id].bytes);
    first = false;
  }
  text_add(t, "%s],\n", first ? "" : "\n      ");
}

/* The eight largest storages of the task. */
static void add_largest(Emission *e, Text *t, size_t task) {
  const Program *p = e->program;
  const Storage *top[8] = {NULL};
  for (size_t i = 0; i < p->n_storage; i++) {
    const Storage *s = p->storage[i];
    if (s->kind != ST_ARENA || e->schedule->home[i] < 0) continue;
    if (!segment_serves(&e->schedule->segment[e->schedule->home[i]], task)) continue;
    for (int k = 0; k < 8; k++)
      if (!top[k] || s->bytes > top[k]->bytes) {
        memmove(top + k + 1, top + k, sizeof *top * (size_t)(7 - k));
        top[k] = s;
        break;
      }
  }
  text_add(t, "      \"largest\": [");
  for (int k = 0; k < 8 && top[k]; k++)
    text_add(t, "%s\n        {\"value\": %s, \"bytes\": %lld, \"offset\": %lld}", k ? "," : "",
             quoted(e->ctx, top[k]->name ? top[k]->name : ""), (long long)top[k]->bytes, (long long)top[k]->offset);
  text_add(t, "%s],\n", top[0] ? "\n      " : "");
}

static void add_step(Emission *e, Text *t, const Step *s) {
  text_add(t, "        {\"layer\": %s, \"node\": %s, \"kernel\": ", quoted(e->ctx, s->layer ? s->layer : ""),
           quoted(e->ctx, s->node->name));
  if (s->kind == STEP_CALL) {
    text_add(t, "%s", quoted(e->ctx, s->kernel->name));
  } else {
    text_add(t, "[");
    for (size_t i = 0; i < s->n_body; i++) text_add(t, "%s%s", i ? ", " : "", quoted(e->ctx, s->body[i].kernel->name));
    text_add(t, "]");
  }
  text_add(t, ", \"macs\": %lld", (long long)s->macs);
  if (s->unit) text_add(t, ", \"unit\": %s, \"bytes\": %llu", quoted(e->ctx, s->unit->name), (unsigned long long)e->pack[s->unit->id].bytes);
  text_add(t, "}");
}

static void add_task(Emission *e, Text *t, size_t task) {
  const Schedule *s = e->schedule;
  int64_t arena = arena_of_task(s, task), live = live_of_task(e->program, s, task);
  text_add(t, "    {\n      \"task\": %s,\n      \"function\": \"%s_%s\",\n", quoted(e->ctx, e->task[task].task->name), e->name,
           e->task[task].id);
  text_add(t, "      \"macs\": %lld,\n", (long long)task_macs(e, task));
  text_add(t, "      \"arena_bytes\": %lld,\n      \"largest_live_bytes\": %lld,\n      \"scratch_bytes_per_thread\": %lld,\n",
           (long long)arena, (long long)live, (long long)scratch_of_task(s, task));
  text_add(t, "      \"weight_bytes\": %llu,\n      \"loaded_bytes_worst_case\": %llu,\n", (unsigned long long)task_weights(e, task),
           (unsigned long long)task_loads(e, task));
  add_largest(e, t, task);
  add_queues(e, t, task);
  text_add(t, "      \"schedule\": [");
  bool first = true;
  for (size_t i = 0; i < s->n_segments; i++)
    for (size_t k = 0; segment_serves(&s->segment[i], task) && k < s->segment[i].n_steps; k++) {
      text_add(t, first ? "\n" : ",\n");
      add_step(e, t, s->segment[i].step[k]);
      first = false;
    }
  text_add(t, "\n      ]\n    }");
}

char *emit_report(Emission *e) {
  Text t = {.ctx = e->ctx};
  static const char *const modes[] = {"file", "embed", "stream"};
  text_add(&t, "{\n  \"name\": %s,\n  \"model\": %s,\n  \"target\": \"%s\",\n  \"weights\": \"%s\",\n", quoted(e->ctx, e->name),
           quoted(e->ctx, e->title), e->program->target->name, modes[e->weights]);
  text_add(&t, "  \"pack_bytes\": %llu,\n  \"units\": %zu,\n  \"stream_buffer_bytes\": %lld,\n", (unsigned long long)e->pack_bytes,
           e->program->n_units, (long long)emit_stream_buffer(e));
  text_add(&t, "  \"arena_bytes_all_tasks\": %lld,\n  \"scratch_bytes_per_thread\": %lld,\n", (long long)e->schedule->arena_all,
           (long long)e->schedule->scratch);
  text_add(&t, "  \"kernels\": %zu,\n  \"tasks\": [\n", e->program->n_kernels);
  for (size_t i = 0; i < e->n_tasks; i++) {
    add_task(e, &t, i);
    text_add(&t, i + 1 < e->n_tasks ? ",\n" : "\n");
  }
  text_add(&t, "  ]\n}\n");
  return t.text;
}
