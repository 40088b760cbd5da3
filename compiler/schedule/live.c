/* What a task's memory plan is measured against: the storages that live at once, were there no gaps between them. */
#include "schedule/schedule.h"

typedef struct {
  int now;
  int *first, *last; /* by storage, in the order of the task's steps; first -1: not used */
  const Step **step; /* by that order */
} Lives;

static void note_life(void *self, Storage *s, bool writes) {
  (void)writes;
  Lives *k = self;
  if (s->kind != ST_ARENA) return;
  if (k->first[s->id] < 0) k->first[s->id] = k->now;
  k->last[s->id] = k->now;
}

static void note_step(Lives *k, const Step *step) {
  k->step[k->now] = step;
  step_storages(step, note_life, k);
  k->now++;
}

static bool serves(const Segment *s, size_t task) { return task == SIZE_MAX || segment_serves(s, task); }

static Lives find_lives(const Program *p, const Schedule *s, size_t task) {
  Lives k = {.first = ctx_array(p->ctx, 2 * p->n_storage + 1, sizeof *k.first)};
  k.last = k.first + p->n_storage;
  k.step = ctx_array(p->ctx, (size_t)p->n_steps + 1, sizeof *k.step);
  for (size_t i = 0; i < p->n_storage; i++) k.first[i] = -1;
  for (size_t i = 0; i < s->n_segments; i++) {
    const Lockstep *l = task == SIZE_MAX ? lockstep_of(s, i) : NULL; /* side by side, step by step */
    if (!serves(&s->segment[i], task) || (l && l->first < i)) continue;
    for (size_t j = 0; j < s->segment[i].n_steps; j++)
      for (size_t t = 0; t < (l ? l->n : 1); t++) note_step(&k, s->segment[i + t].step[j]);
  }
  return k;
}

/* The step at which most bytes live, and how many. */
static int find_peak(const Program *p, const Lives *k, int64_t *most) {
  int64_t *change = ctx_array(p->ctx, (size_t)k->now + 2, sizeof *change), sum = 0;
  int peak = 0;
  for (size_t i = 0; i < p->n_storage; i++) {
    if (k->first[i] < 0) continue;
    change[k->first[i]] += storage_occupies(p->storage[i]);
    change[k->last[i] + 1] -= storage_occupies(p->storage[i]);
  }
  *most = 0;
  for (int t = 0; t < k->now; t++) {
    sum += change[t];
    if (sum <= *most) continue;
    *most = sum;
    peak = t;
  }
  return peak;
}

Peak peak_of_task(const Program *p, const Schedule *s, size_t task) {
  Lives k = find_lives(p, s, task);
  Peak peak = {.storage = ctx_array(p->ctx, p->n_storage + 1, sizeof *peak.storage)};
  int at = find_peak(p, &k, &peak.bytes);
  peak.step = k.now ? k.step[at] : NULL;
  for (size_t i = 0; i < p->n_storage; i++) {
    if (k.first[i] < 0 || k.first[i] > at || k.last[i] < at) continue;
    size_t place = peak.n++;
    for (; place > 0 && peak.storage[place - 1]->bytes < p->storage[i]->bytes; place--)
      peak.storage[place] = peak.storage[place - 1];
    peak.storage[place] = p->storage[i];
  }
  return peak;
}
