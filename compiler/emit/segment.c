/* A segment's code: one function for each layer, and the function that calls them; and the constants of the weight units
 * that a file names. */
#include "emit/emit.h"
#include "emit/lines.h"

#include <string.h>

static bool is_one_task(const Segment *s) { return (s->tasks & (s->tasks - 1)) == 0; }

static bool is_trunk(const Emission *e, const Segment *s) {
  return s->tasks == (e->n_tasks == 64 ? UINT64_MAX : ((uint64_t)1 << e->n_tasks) - 1);
}

const char *segment_region(Emission *e, size_t segment) {
  const Segment *s = &e->schedule->segment[segment];
  if (is_one_task(s)) return s->in_lockstep ? "lockstep" : "task";
  return is_trunk(e, s) ? "trunk" : ctx_format(e->ctx, "shared_%zu", segment);
}

const char *segment_function(Emission *e, size_t segment) {
  const Segment *s = &e->schedule->segment[segment];
  for (size_t t = 0; t < e->n_tasks; t++)
    if (s->tasks == (uint64_t)1 << t)
      return ctx_format(e->ctx, "%s_%s_%s", e->name, e->task[t].id, s->in_lockstep ? "lockstep" : "part");
  return ctx_format(e->ctx, "%s_%s", e->name, segment_region(e, segment));
}

/* ---- units ---- */

const char *unit_value(Emission *e, const Unit *u, bool named) {
  const PackUnit *p = &e->pack[u->id];
  const char *data = e->weights == WEIGHTS_EMBED ? ctx_format(e->ctx, "%s_w_%s", e->name, u->name) : "NULL";
  return ctx_format(e->ctx, "{%s, %s, %llu, %llu, %llu, %u, %d, %lld}",
                    named ? ctx_format(e->ctx, "\"%s\"", u->name) : "NULL", data, (unsigned long long)p->offset,
                    (unsigned long long)p->bytes, (unsigned long long)p->stride, p->count, u->id,
                    (long long)resident_place(e->schedule, u));
}

static void emit_unit(Emission *e, Text *t, const Unit *u) {
  line_add(t, "static const moecc_unit unit_%s = %s;", u->name, unit_value(e, u, true));
}

/* ---- what a call goes on with ---- */

bool emit_asks_ahead(const Emission *e) { return e->weights != WEIGHTS_EMBED && e->schedule->n_segments > 1; }

const Unit *streamed_unit(const Emission *e, const Step *s, size_t i) {
  const Unit *u;
  while ((u = step_unit(s, i)) != NULL && resident_place(e->schedule, u)) i++;
  return u;
}

/* What is asked for at a step: its unit, but for experts, which a router chooses. */
static const Unit *unit_to_ask(const Step *s) { return !s || s->kind == STEP_EXPERTS ? NULL : s->unit; }

bool streams_another(const Emission *e, const Step *s, const Unit *held) {
  const Unit *u = streamed_unit(e, s, 0);
  return u && u != held;
}

/* The unit that the segment's last step takes of what is streamed; NULL: an expert's, or nothing. */
static const Unit *last_streamed(const Emission *e, const Segment *s) {
  for (size_t i = s->n_steps; i-- > 0;)
    if (streamed_unit(e, s->step[i], 0)) return unit_to_ask(s->step[i]);
  return NULL;
}

/* The first step of a call of all tasks that takes something else that is streamed, behind a step of a segment. */
typedef struct {
  const Emission *e;
  size_t segment, index;
  const Unit *held;
  const Step *step;
} Search;

static bool is_behind(const Search *k, const Turn *turn) {
  const Lockstep *l = lockstep_of(k->e->schedule, k->segment);
  bool together = turn->segment == k->segment || (l && lockstep_of(k->e->schedule, turn->segment) == l);
  return together && turn->index != k->index ? turn->index > k->index : turn->segment > k->segment;
}

static void search(void *self, const Turn *turn) {
  Search *k = self;
  if (!k->step && is_behind(k, turn) && streams_another(k->e, turn->step, k->held)) k->step = turn->step;
}

static const Unit *found(Search k) {
  each_turn_of_all(k.e->schedule, search, &k);
  return unit_to_ask(k.step);
}

const Unit *unit_behind(const Emission *e, size_t segment, size_t index) {
  return found((Search){e, segment, index, unit_to_ask(e->schedule->segment[segment].step[index]), NULL});
}

const Unit *unit_after(const Emission *e, size_t segment, size_t task) {
  const Schedule *s = e->schedule;
  const Unit *held = last_streamed(e, &s->segment[segment]);
  if (task == e->n_tasks) return found((Search){e, segment, SIZE_MAX, held, NULL});
  for (size_t i = segment + 1; i < s->n_segments; i++)
    for (size_t k = 0; segment_serves(&s->segment[i], task) && k < s->segment[i].n_steps; k++)
      if (streams_another(e, s->segment[i].step[k], held)) return unit_to_ask(s->segment[i].step[k]);
  return NULL;
}

/* ---- a file's units ---- */

typedef struct {
  bool *listed; /* by Unit.id */
  const Unit **unit;
  size_t n;
} UnitList;

static void list_unit(UnitList *l, const Unit *u) {
  if (!u || l->listed[u->id]) return;
  l->listed[u->id] = true;
  l->unit[l->n++] = u;
}

static void list_segment(UnitList *l, const Segment *s) {
  const Unit *u;
  for (size_t i = 0; i < s->n_steps; i++)
    for (size_t k = 0; (u = step_unit(s->step[i], k)); k++) list_unit(l, u);
}

static bool in_file(const Emission *e, const Segment *s, size_t task) {
  if (task == SIZE_MAX) return !is_one_task(s);
  return task == e->n_tasks ? s->in_lockstep : s->tasks == (uint64_t)1 << task;
}

void emit_file_units(Emission *e, Text *t, size_t task) {
  const Schedule *s = e->schedule;
  UnitList l = {.listed = ctx_array(e->ctx, e->program->n_units + 1, sizeof *l.listed),
                .unit = ctx_array(e->ctx, e->program->n_units + 1, sizeof *l.unit)};
  for (size_t i = 0; i < s->n_segments; i++)
    if (in_file(e, &s->segment[i], task)) list_segment(&l, &s->segment[i]);
  for (size_t i = 0; i < s->n_segments && task != SIZE_MAX && emit_asks_ahead(e); i++)
    if (task == e->n_tasks || segment_serves(&s->segment[i], task)) list_unit(&l, unit_after(e, i, task));
  if (!l.n) return;
  text_add(t, "\n");
  for (size_t i = 0; i < l.n && e->weights == WEIGHTS_EMBED; i++)
    line_add(t, "extern const uint64_t %s_w_%s[];", e->name, l.unit[i]->name);
  if (e->weights == WEIGHTS_EMBED) text_add(t, "\n");
  line_comment(t, 0,
               "Weights: name, where they are embedded, then offset, bytes, stride and number of slots, number in the "
               "pack, and place in the resident area.");
  for (size_t i = 0; i < l.n; i++) emit_unit(e, t, l.unit[i]);
}

/* ---- the segment ---- */

void emit_segment(Emission *e, Text *t, size_t segment) {
  const Segment *s = &e->schedule->segment[segment];
  Text layers = {.ctx = e->ctx};
  FileTables tables = {.early = {.ctx = e->ctx}, .late = {.ctx = e->ctx}};
  for (size_t i = 0; i < s->n_layers; i++) emit_layer(e, &layers, &tables, s, &s->layer[i]);
  if (tables.early.len) text_add(t, "\n/* Long tables, which stand behind the functions. */\n%s", tables.early.text);
  text_add(t, "%s\n", layers.len ? layers.text : "");
  line_add(t, "moecc_status %s(%s *m, const %s_frame *f) {", segment_function(e, segment), e->name, e->name);
  for (size_t i = 0; i < s->n_layers; i++)
    line_add(t, i ? "  if (!status) status = %s(m, f);" : "  moecc_status status = %s(m, f);", s->layer[i].name);
  text_add(t, "  return status;\n}\n");
  if (tables.late.len) text_add(t, "\n%s", tables.late.text);
}
