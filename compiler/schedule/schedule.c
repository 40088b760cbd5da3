/* The schedule in its order: who runs together, which weights are one, what lies where. */
#include "schedule/schedule.h"

Schedule *schedule_make(Program *p) {
  Schedule *s = ctx_alloc(p->ctx, sizeof *s);
  schedule_join_units(p);
  schedule_segments(p, s);
  if (p->unit_bytes) schedule_small_units(p, s);
  schedule_held_units(s);
  if (p->lockstep) schedule_lockstep(p, s);
  if (s->n_lockstep) schedule_held_units(s);
  schedule_layers(p, s);
  schedule_units(p, s);
  schedule_memory(p, s);
  return s;
}

bool segment_serves(const Segment *s, size_t task) { return s->tasks >> task & 1; }

static void visit_args(const Arg *arg, size_t n, void (*fn)(void *self, Storage *st, bool writes), void *self) {
  for (size_t i = 0; i < n; i++) {
    if (arg[i].storage) fn(self, arg[i].storage, arg[i].kind != ARG_READ);
    if (arg[i].kind == ARG_OPERANDS) visit_args(arg[i].operand, 2 * arg[i].n_operands, fn, self);
  }
}

void step_storages(const Step *s, void (*fn)(void *self, Storage *st, bool writes), void *self) {
  visit_args(s->arg, s->n_args, fn, self);
  for (size_t i = 0; i < s->n_body; i++) visit_args(s->body[i].arg, s->body[i].n_args, fn, self);
  if (s->queue_begin) fn(self, s->queue_begin, false);
}

int64_t step_macs(const Step *s) {
  int64_t macs = s->macs;
  for (size_t i = 0; i < s->n_body; i++) macs += s->body[i].macs;
  return macs;
}

Unit *step_unit(const Step *s, size_t i) {
  if (s->kind == STEP_CALL) return i == 0 && !s->holds ? s->unit : NULL;
  const Unit *before = NULL;
  for (size_t b = 0; b < s->n_body; b++) {
    Unit *u = s->body[b].unit;
    if (u && u != before && i-- == 0) return u;
    if (u) before = u;
  }
  return NULL;
}

int64_t step_most_loads(const Step *s) {
  const Unit *u;
  int64_t bytes = 0;
  for (size_t i = 0; (u = step_unit(s, i)); i++) bytes += u->bytes;
  return bytes * step_most_takes(s);
}

int64_t step_most_takes(const Step *s) {
  if (s->kind != STEP_EXPERTS) return 1;
  return s->token_major || s->queue_entries < s->experts ? s->queue_entries : s->experts;
}

static int64_t args_scratch_each(const Step *s) {
  int64_t bytes = 0;
  for (size_t i = 0; i < s->n_args; i++)
    if (s->arg[i].kind == ARG_SCRATCH_EACH) bytes += s->arg[i].bytes;
  return bytes;
}

int64_t step_scratch_each(const Step *s) {
  int64_t bytes = args_scratch_each(s);
  for (size_t i = 0; i < s->n_body; i++) {
    int64_t body = args_scratch_each(&s->body[i]);
    if (body > bytes) bytes = body;
  }
  return bytes;
}

int64_t scratch_of_task(const Schedule *s, size_t task) {
  int64_t bytes = 0;
  for (size_t i = 0; i < s->n_segments; i++)
    for (size_t k = 0; (task == SIZE_MAX || segment_serves(&s->segment[i], task)) && k < s->segment[i].n_steps; k++) {
      int64_t step = step_scratch_each(s->segment[i].step[k]);
      if (step > bytes) bytes = step;
    }
  return bytes;
}

int64_t arena_of_task(const Schedule *s, size_t task) {
  int64_t bytes = 0;
  for (size_t i = 0; i < s->n_segments; i++)
    if (segment_serves(&s->segment[i], task) && s->segment[i].bytes > bytes) bytes = s->segment[i].bytes;
  return bytes;
}
