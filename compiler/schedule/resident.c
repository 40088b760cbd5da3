/* Which units stay in memory when the others are streamed: those that save most stall for their bytes.
 *
 * The model. A slot takes LATENCY + bytes / RATE to load, a step its multiply-adds over the target's arithmetic rate,
 * or, if that is longer, the bytes that it moves over MEMORY. The schedule of the two buffers is what the emitted code
 * does: while a unit is computed with, the next one that is streamed loads; so a unit's stall is its time to load less
 * the time of everything between its request and its use, and none if that is longer. A call's first unit is requested
 * when it is wanted, and so is the first expert that a router has chosen: nothing hides these. Of a table of experts
 * those are expected to be read that get a token when all are equally likely. Keeping a unit saves its own stall and
 * what the unit behind it gains by being requested earlier.
 *
 * The figures need not be true of a machine, only their order matters: units that take long to load for the work done
 * with them come first, and they do for any rate at which streaming pays at all.
 */
#include "schedule/schedule.h"

#include <math.h>

#include "moecc_rt.h"

static const double RATE = 1e9;      /* bytes in a second: what a plain solid-state disk delivers */
static const double LATENCY = 50e-6; /* seconds before the first byte of a read arrives */
static const double CLOCK = 3e9;     /* multiply-adds in a second for each float of a vector: one vector in a cycle */
static const double MEMORY = 10e9;   /* bytes in a second that one thread moves */

/* A unit taken by a step: so many slots, one after the other, each computed with for `work` seconds. */
typedef struct {
  int unit;
  double slots, load, work;
  bool routed; /* which slots, is known only when the step before has run */
} Take;

/* What a task does, in order. */
typedef struct {
  Take *take;
  size_t n, cap;
} Work;

typedef struct {
  const Program *p;
  const Schedule *s;
  ResidentPlan *plan;
  Work *work; /* by task */
  size_t tasks;
} Chooser;

static size_t task_count(const Program *p) { return p->graph->n_tasks ? p->graph->n_tasks : 1; }

/* ---- the model --------------------------------------------------------------------------------------------------- */

static double load_time(const Unit *u) { return LATENCY + (double)MOECC_SLOT_BYTES(u->bytes) / RATE; }

/* Of a call; of a loop's body's, for all experts together. */
static double work_time(const Chooser *c, const Step *s) {
  return fmax((double)s->macs / c->plan->arithmetic, (double)(s->bytes + s->weight_bytes) / MEMORY);
}

/* Experts that are expected to have tokens, if all are equally likely; token by token each entry is a slot. */
static double expected_slots(const Step *s) {
  double experts = (double)s->experts, entries = (double)s->queue_entries;
  if (s->kind != STEP_EXPERTS) return 1;
  if (s->token_major) return entries;
  return fmin(experts * (1 - pow(1 - 1 / experts, entries)), (double)step_most_takes(s));
}

static void add_take(const Chooser *c, Work *w, const Unit *u, double slots, bool routed) {
  w->take = ctx_grow(c->p->ctx, w->take, w->n, &w->cap, sizeof *w->take);
  w->take[w->n++] = (Take){.unit = u->id, .slots = slots, .load = load_time(u), .routed = routed};
}

/* A call, or a loop, whose units are counted one after the other although each expert takes all of them in turn: the
 * stalls are the same, but for the first. */
static void add_step(const Chooser *c, Work *w, const Step *s) {
  const Unit *held = NULL;
  bool loop = s->kind == STEP_EXPERTS;
  for (size_t i = 0; i < (loop ? s->n_body : 1); i++) {
    const Step *call = loop ? &s->body[i] : s;
    if (call->unit && call->unit != held && !call->holds) add_take(c, w, call->unit, expected_slots(s), loop && !held);
    if (call->unit) held = call->unit;
    if (w->n) w->take[w->n - 1].work += work_time(c, call) / w->take[w->n - 1].slots; /* while what follows loads */
  }
}

static Work work_of_task(const Chooser *c, size_t task) {
  Work w = {0};
  for (size_t i = 0; i < c->s->n_segments; i++)
    for (size_t k = 0; segment_serves(&c->s->segment[i], task) && k < c->s->segment[i].n_steps; k++)
      add_step(c, &w, c->s->segment[i].step[k]);
  return w;
}

static bool streamed(const Chooser *c, const Take *u) { return c->plan->place[u->unit] == 0; }

static double stall(double load, double hidden) { return load > hidden ? load - hidden : 0; }

/* The stall of a use whose first slot loads behind `hidden` seconds of work. */
static double stall_of(const Take *u, double hidden) {
  return stall(u->load, u->routed ? 0 : hidden) + (u->slots - 1) * stall(u->load, u->work);
}

static double all_work(const Take *u) { return u->slots * u->work; }

/* Adds to saved[unit] what keeping each streamed unit would save in a call of the task. */
static void add_savings(const Chooser *c, const Work *w, double *saved) {
  double hidden = 0; /* work since a unit was there whose take asked for the next one that is streamed */
  for (size_t i = 0; i < w->n; i++) {
    const Take *u = &w->take[i];
    if (!streamed(c, u)) {
      hidden += all_work(u);
      continue;
    }
    double behind = u->work; /* what hides the next streamed use, as it is */
    size_t next = i + 1;
    for (; next < w->n && !streamed(c, &w->take[next]); next++) behind += all_work(&w->take[next]);
    saved[u->unit] += stall_of(u, hidden);
    if (next < w->n)
      saved[u->unit] +=
          stall_of(&w->take[next], behind) - stall_of(&w->take[next], hidden + all_work(u) - u->work + behind);
    hidden = u->work;
  }
}

/* ---- the choice -------------------------------------------------------------------------------------------------- */

static int64_t slots_bytes(const Unit *u) { return (int64_t)MOECC_SLOT_STRIDE(u->bytes) * u->count; }

static bool is_small(const Unit *u) { return MOECC_SLOT_ALIGN(u->bytes) < 4096; }

static int n_tasks_of(const Unit *u) { return __builtin_popcountll(u->tasks); }

/* Places the chosen units in the area: those of less than a page first, from 64 on, for 0 says that one is streamed;
 * among each kind those that more tasks need first, so that few tasks need little of the area. */
static void place_all(const Program *p, ResidentPlan *plan) {
  int64_t at = 64;
  for (int small = 1; small >= 0; small--) {
    if (!small) at = round_up(at, 4096);
    for (int tasks = 64; tasks > 0; tasks--)
      for (size_t i = 0; i < plan->n; i++) {
        const Unit *u = p->unit[plan->order[i]];
        if (is_small(u) != small || n_tasks_of(u) != tasks) continue;
        plan->place[u->id] = at;
        at += slots_bytes(u);
      }
  }
}

/* The area's bytes were u chosen, too. */
static int64_t bytes_with(const Program *p, const ResidentPlan *plan, const Unit *u) {
  int64_t small = 64 + (is_small(u) ? slots_bytes(u) : 0), large = is_small(u) ? 0 : slots_bytes(u);
  for (size_t i = 0; i < plan->n; i++) {
    const Unit *other = p->unit[plan->order[i]];
    *(is_small(other) ? &small : &large) += slots_bytes(other);
  }
  return large ? round_up(small, 4096) + large : small;
}

/* Is a the better choice: by stall saved for its bytes, then by bytes not read again for its bytes? */
static bool is_better(const ResidentPlan *plan, const Unit *a, const Unit *b) {
  double x = plan->saved[a->id] / (double)slots_bytes(a), y = plan->saved[b->id] / (double)slots_bytes(b);
  if (x > y || x < y) return x > y;
  return plan->reads[a->id] / (double)a->count > plan->reads[b->id] / (double)b->count;
}

static const Unit *choose(const Chooser *c) {
  ResidentPlan *plan = c->plan;
  const Unit *best = NULL;
  for (size_t i = 0; i < c->p->n_units; i++)
    if (plan->place[i] == 0) plan->saved[i] = 0;
  for (size_t t = 0; t < c->tasks; t++) add_savings(c, &c->work[t], plan->saved);
  for (size_t i = 0; i < c->p->n_units; i++) {
    const Unit *u = c->p->unit[i];
    if (plan->place[i] || bytes_with(c->p, plan, u) > plan->budget) continue;
    if (!best || is_better(plan, u, best)) best = u;
  }
  return best;
}

void schedule_resident(const Program *p, Schedule *s, int64_t budget) {
  size_t n = p->n_units + 1;
  ResidentPlan *plan = ctx_alloc(p->ctx, sizeof *plan);
  *plan = (ResidentPlan){.budget = budget, .rate = RATE, .latency = LATENCY, .arithmetic = CLOCK * p->target->lanes};
  plan->place = ctx_array(p->ctx, n, sizeof *plan->place);
  plan->saved = ctx_array(p->ctx, n, sizeof *plan->saved);
  plan->reads = ctx_array(p->ctx, n, sizeof *plan->reads);
  plan->order = ctx_array(p->ctx, n, sizeof *plan->order);
  Chooser c = {.p = p, .s = s, .plan = plan, .tasks = task_count(p)};
  c.work = ctx_array(p->ctx, c.tasks + 1, sizeof *c.work);
  for (size_t t = 0; t < c.tasks; t++) {
    c.work[t] = work_of_task(&c, t);
    for (size_t i = 0; i < c.work[t].n; i++) plan->reads[c.work[t].take[i].unit] += c.work[t].take[i].slots;
  }
  for (const Unit *u; (u = choose(&c)) != NULL;) {
    plan->order[plan->n++] = u->id;
    plan->place[u->id] = 64; /* for now: anything but 0 */
  }
  place_all(p, plan);
  s->resident = plan;
  plan->bytes = resident_bytes(p, s, UINT64_MAX);
}

int64_t resident_place(const Schedule *s, const Unit *u) { return s->resident ? s->resident->place[u->id] : 0; }

int64_t resident_bytes(const Program *p, const Schedule *s, uint64_t tasks) {
  int64_t bytes = 0;
  for (size_t i = 0; s->resident && i < s->resident->n; i++) {
    const Unit *u = p->unit[s->resident->order[i]];
    int64_t end = s->resident->place[u->id] + slots_bytes(u);
    if ((u->tasks & tasks) && end > bytes) bytes = end;
  }
  return bytes;
}
