/* Small weight units come with a neighbour. A read takes its time however little it carries, and so do a request, a
 * wait and a checksum: a unit of a few thousand bytes (a norm's factors, a router) costs the streaming call more than
 * the bytes are worth. It is joined with the unit that is always taken just behind it, or else with the one always
 * taken just before it, unless the buffers would have to grow for that. */
#include "schedule/schedule.h"

enum { SMALL = 16 << 10 }; /* bytes which a disk delivers in the time that it takes to answer at all */

/* What is taken just before a unit and just behind it, each time; NULL: nothing, or not the same each time. */
typedef struct {
  Unit *before, *behind;
  const Step *first; /* that takes it */
} Neighbours;

typedef struct {
  Program *p;
  const Schedule *s;
  Neighbours *of; /* by Unit.id */
  int64_t largest;
} Small;

static void note_pair(Small *m, Unit *before, Unit *behind, const Step *step) {
  Neighbours *n = behind ? &m->of[behind->id] : NULL;
  if (n) n->before = !n->first || n->before == before ? before : NULL;
  if (n && !n->first) n->first = step;
  if (!before) return;
  n = &m->of[before->id];
  /* `behind` starts as the unit itself, which is no answer */
  n->behind = n->behind == before || n->behind == behind ? behind : NULL;
}

/* Units that are taken one behind the other are neighbours; across an expert loop or a segment's end there are none. */
static void find_neighbours(Small *m) {
  for (size_t i = 0; i < m->s->n_segments; i++) {
    const Segment *segment = &m->s->segment[i];
    Unit *last = NULL;
    for (size_t k = 0; k < segment->n_steps; k++) {
      const Step *step = segment->step[k];
      Unit *own = step->kind == STEP_CALL ? step->unit : NULL;
      if (step->kind == STEP_CALL && (!own || own == last)) continue;
      note_pair(m, last, own, step);
      last = own;
    }
    note_pair(m, last, NULL, NULL);
  }
}

static void find_largest(Small *m) {
  for (const Step *step = m->p->first; step; step = step->next) {
    const Unit *u;
    for (size_t i = 0; (u = step_unit(step, i)); i++)
      if (u->bytes > m->largest) m->largest = u->bytes;
  }
}

/* Tasks in lockstep take units of their own step by step, task by task: these would come again with each of them. */
static bool may_join(const Small *m, const Unit *u) {
  return !m->p->lockstep || m->p->graph->n_tasks < 2 || (u->tasks & (u->tasks - 1)) != 0;
}

static bool fits(const Small *m, const Unit *u, const Unit *other) {
  return other && other != u && may_join(m, other) && round_up(other->bytes, 64) + u->bytes <= m->largest;
}

/* The neighbour to join with, or NULL. */
static Unit *partner_of(const Small *m, const Unit *u) {
  const Neighbours *n = &m->of[u->id];
  if (u->bytes > SMALL) return NULL;
  if (fits(m, u, n->behind) && m->of[n->behind->id].before == u) return n->behind;
  if (fits(m, u, n->before) && m->of[n->before->id].behind == u) return n->before;
  return NULL;
}

static void shift_weights(Arg *arg, size_t n, int64_t bytes) {
  for (size_t i = 0; i < n; i++) {
    if (arg[i].kind == ARG_WEIGHT) arg[i].offset += bytes;
    if (arg[i].kind == ARG_OPERANDS) shift_weights(arg[i].operand, 2 * arg[i].n_operands, bytes);
  }
}

/* The unit's parts go behind its partner's. */
static void join(Small *m, Unit *u, Unit *partner) {
  Ctx *c = m->p->ctx;
  Neighbours *own = &m->of[u->id], *n = &m->of[partner->id];
  const int64_t shift = round_up(partner->bytes, 64);
  if (!partner->named) partner->named = n->first;
  for (size_t i = 0; i < u->n_parts; i++) {
    partner->part = ctx_grow(c, partner->part, partner->n_parts, &partner->cap_parts, sizeof *partner->part);
    partner->part[partner->n_parts] = u->part[i];
    partner->part[partner->n_parts++].offset += shift;
  }
  partner->bytes = shift + u->bytes;
  for (Step *step = m->p->first; step; step = step->next) {
    if (step->kind != STEP_CALL || step->unit != u) continue;
    shift_weights(step->arg, step->n_args, shift);
    step->unit = partner;
  }
  if (own->behind == partner) {
    n->before = own->before;
    if (own->before && m->of[own->before->id].behind == u) m->of[own->before->id].behind = partner;
  } else {
    n->behind = own->behind;
    if (own->behind && m->of[own->behind->id].before == u) m->of[own->behind->id].before = partner;
  }
}

void schedule_small_units(Program *p, const Schedule *s) {
  Small m = {.p = p, .s = s, .of = ctx_array(p->ctx, p->n_units + 1, sizeof *m.of)};
  for (size_t i = 0; i < p->n_units; i++) m.of[p->unit[i]->id].behind = p->unit[i];
  find_largest(&m);
  find_neighbours(&m);
  for (Step *step = p->first; step; step = step->next)
    for (Unit *partner; step->kind == STEP_CALL && step->unit && (partner = partner_of(&m, step->unit));)
      join(&m, step->unit, partner);
}
