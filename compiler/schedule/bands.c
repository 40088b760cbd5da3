/* Chooses in how many bands chains of pictures are computed (lower/bands.c), by lowering and planning the memory of
 * each way to do it: that takes milliseconds, and what a way costs then needs no model. More bands take less memory,
 * compute more rows twice and read the chain's weights more often, which matters when they are streamed.
 */
#include "lower/bands.h"
#include "schedule/schedule.h"

enum { MOST_BANDS = 16 };

typedef struct {
  Program *program;
  Schedule *schedule;
  BandCost cost;
} Way;

static size_t task_count(const Program *p) { return p->graph->n_tasks ? p->graph->n_tasks : 1; }

static BandCost cost_of(const Program *p, const Schedule *s) {
  size_t n = task_count(p);
  BandCost cost = {.bands = p->bands ? p->bands : 1, .links = p->band_links};
  cost.arena = ctx_array(p->ctx, n, sizeof *cost.arena);
  cost.macs = ctx_array(p->ctx, n, sizeof *cost.macs);
  cost.loads = ctx_array(p->ctx, n, sizeof *cost.loads);
  for (size_t t = 0; t < n; t++) {
    cost.arena[t] = arena_of_task(s, t) + scratch_of_task(s, t);
    for (const Step *step = p->first; step; step = step->next) {
      if (!(step->tasks >> t & 1)) continue;
      cost.macs[t] += step_macs(step);
      cost.loads[t] += step_most_loads(step);
    }
  }
  return cost;
}

static int64_t sum_of(const int64_t *of, size_t n) {
  int64_t sum = 0;
  for (size_t i = 0; i < n; i++) sum += of[i];
  return sum;
}

static size_t largest(const int64_t *of, size_t n) {
  size_t at = 0;
  for (size_t i = 1; i < n; i++)
    if (of[i] > of[at]) at = i;
  return at;
}

static bool keeps(const Way *w, int64_t limit) {
  size_t n = task_count(w->program);
  return limit <= 0 || w->cost.arena[largest(w->cost.arena, n)] <= limit;
}

/* By multiply-adds, which are time, then by weights read. */
static bool is_cheaper(const Way *a, const Way *b) {
  size_t n = task_count(a->program);
  int64_t x = sum_of(a->cost.macs, n), y = sum_of(b->cost.macs, n);
  return x < y || (x == y && sum_of(a->cost.loads, n) < sum_of(b->cost.loads, n));
}

static bool is_smaller(const Way *a, const Way *b) {
  size_t n = task_count(a->program);
  int64_t x = a->cost.arena[largest(a->cost.arena, n)], y = b->cost.arena[largest(b->cost.arena, n)];
  return x < y || (x == y && is_cheaper(a, b));
}

static Way make_way(Program *(*lower)(void *self, int bands, int links), void *self, int bands, int links) {
  Way w = {.program = lower(self, bands, links)};
  w.schedule = schedule_make(w.program);
  w.cost = cost_of(w.program, w.schedule);
  return w;
}

static _Noreturn void too_large(const Way *w, int64_t limit) {
  const Program *p = w->program;
  size_t task = largest(w->cost.arena, task_count(p));
  Peak peak = peak_of_task(p, w->schedule, task);
  Text t = {.ctx = p->ctx};
  text_add(&t, "the arena of task %s takes %lld bytes with one thread, %lld of them scratch, more than --arena %lld",
           p->graph->n_tasks ? p->graph->tasks[task].name : p->graph->name, (long long)w->cost.arena[task],
           (long long)scratch_of_task(w->schedule, task), (long long)limit);
  if (w->cost.bands > 1) text_add(&t, ", even in %d bands", w->cost.bands);
  text_add(&t, "; most lives at ");
  for (size_t i = 0; i < peak.n && i < 4; i++)
    text_add(&t, "%s\"%s\" (%lld bytes)", i ? ", " : "its inputs and results: ", peak.storage[i]->name,
             (long long)peak.storage[i]->bytes);
  ctx_fail(p->ctx, peak.step ? peak.step->node : NULL, "%s", t.text);
}

Schedule *schedule_within(Program *(*lower)(void *self, int bands, int links), void *self, int64_t limit,
                          Program **chosen) {
  Way whole = make_way(lower, self, 1, 0), best = {0}, least = {0};
  int longest = bands_longest(whole.program);
  for (int links = 2; links <= longest; links++)
    for (int bands = 2; bands <= MOST_BANDS; bands *= 2) {
      Way w = make_way(lower, self, bands, links);
      if (!least.program || is_smaller(&w, &least)) least = w;
      if (keeps(&w, limit) && (!best.program || is_cheaper(&w, &best))) best = w;
    }
  BandPlan *plan = ctx_alloc(whole.program->ctx, sizeof *plan);
  bool fits = keeps(&whole, limit);
  if (!fits && !best.program) too_large(least.program && is_smaller(&least, &whole) ? &least : &whole, limit);
  Way *way = fits ? &whole : &best;
  plan->whole = whole.cost;
  plan->banded = fits ? least.cost : best.cost;
  plan->chosen = !fits;
  plan->why = !longest     ? "there is no chain of pictures to compute in bands"
              : limit <= 0 ? "no --arena was given: computed as a whole, which takes the fewest multiply-adds"
              : fits       ? "as a whole it keeps within --arena"
                           : "the cheapest in bands that keeps within --arena";
  way->schedule->bands = plan;
  *chosen = way->program;
  return way->schedule;
}
