/* What a call takes at most: memory, weights read, queues, stack. All of it is known when compiling, although routing is
 * not: queues hold every token of a layer, and no expert is read twice in it. */
#include "emit/emit.h"

int64_t queue_bytes(const Step *loop) {
  enum { ENTRY = 4 + 4, EXPERT = 4 }; /* a token and its weight; an expert, or where its queue begins */
  int64_t begins = loop->token_major ? loop->queue_entries : loop->experts + 1;
  return EXPERT * begins + ENTRY * loop->queue_entries;
}

static void add_reads(const Emission *e, Bounds *b, const Unit *u, int64_t takes) {
  if (resident_place(e->schedule, u)) return;
  b->read_slots += takes;
  b->read_bytes += takes * (int64_t)MOECC_SLOT_BYTES(e->pack[u->id].bytes);
}

typedef struct {
  const Emission *emission;
  Bounds *bounds;
} Adding;

/* A step that is computed for n tasks with the same units. */
static void add_step(const Adding *a, const Step *step, int n) {
  const Unit *u;
  for (size_t i = 0; a->emission->weights != WEIGHTS_EMBED && (u = step_unit(step, i)) != NULL; i++)
    add_reads(a->emission, a->bounds, u, step_most_takes_together(step, n));
  if (step->kind == STEP_EXPERTS && n * queue_bytes(step) > a->bounds->queue_bytes)
    a->bounds->queue_bytes = n * queue_bytes(step);
}

static void add_turn(void *self, const Turn *turn) { add_step(self, turn->step, (int)turn->n); }

Bounds emit_bounds(Emission *e, size_t task) {
  const Schedule *s = e->schedule;
  bool all = task == e->n_tasks;
  Bounds b = {.arena = all ? s->arena_all : arena_of_task(s, task),
              .scratch = all ? s->scratch : scratch_of_task(s, task),
              .stack = emit_stack(e, task)};
  uint64_t tasks = all ? UINT64_MAX : (uint64_t)1 << task;
  if (e->weights != WEIGHTS_EMBED) {
    b.stream = emit_stream_bytes(e);
    b.resident = resident_bytes(e->program, s, tasks);
  }
  b.ram = b.arena + b.scratch + b.stream + b.resident;
  Adding adding = {e, &b};
  if (all) each_turn_of_all(s, add_turn, &adding);
  for (const Step *step = e->program->first; step && !all; step = step->next)
    if (step->tasks >> task & 1) add_step(&adding, step, 1);
  return b;
}
