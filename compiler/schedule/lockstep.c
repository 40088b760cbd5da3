/* Tasks in lockstep: where weights are streamed, a call of all tasks should read once what several of them share.
 *
 * In a network with a router for each task everything behind the first router is in segments of one task each, and yet
 * these are the same steps on the same units but for the routers. Their common beginning becomes a segment of its own
 * for each task; N_all goes through these segments side by side, step by step (emit/lockstep.c), so that a shared unit
 * is taken once for all of them. The regions of such segments lie side by side in N_all; to a call of one task the cut
 * makes no difference.
 *
 * Steps are alike if they call the same kernel with the same numbers, on storages that correspond one to one, or are
 * the same ones of an earlier segment; their units may differ. How far tasks go together is where it saves most: bytes
 * read less in a call, each worth one byte of the arena that is taken more.
 */
#include "schedule/schedule.h"

#include <math.h>
#include <string.h>

/* ---- steps that are alike ---- */

typedef struct {
  StoragePair *pair;
  void *self;
} Visit;

/* To the sign of zero; what is no number is like no other. */
static bool same_number(double a, double b) { return a == b && signbit(a) == signbit(b); }

static bool args_alike(const Visit *v, const Arg *a, const Arg *b, size_t n) {
  for (size_t i = 0; i < n; i++) {
    const Arg *x = &a[i], *y = &b[i];
    if (x->kind != y->kind || x->dtype != y->dtype || x->offset != y->offset || x->bytes != y->bytes) return false;
    if (x->i != y->i || !same_number(x->f, y->f) || !x->storage != !y->storage) return false;
    if (x->n_table != y->n_table || x->n_operands != y->n_operands) return false;
    if (x->n_table && memcmp(x->table, y->table, x->n_table * sizeof *x->table) != 0) return false;
    if (x->storage && x->storage == y->storage && x->kind != ARG_READ) return false; /* it is written twice */
    if (x->storage && !v->pair(v->self, x->storage, y->storage)) return false;
    if (!args_alike(v, x->operand, y->operand, 2 * x->n_operands)) return false;
  }
  return true;
}

static bool calls_alike(const Visit *v, const Step *a, const Step *b) {
  return a->kernel == b->kernel && !a->unit == !b->unit && a->n_args == b->n_args &&
         args_alike(v, a->arg, b->arg, a->n_args);
}

static bool loops_alike(const Visit *v, const Step *a, const Step *b) {
  if (a->n_body != b->n_body || a->experts != b->experts || a->queue_entries != b->queue_entries) return false;
  if (a->token_major || b->token_major || !a->body[0].unit || !v->pair(v->self, a->queue_begin, b->queue_begin))
    return false;
  for (size_t i = 0; i < a->n_body; i++) {
    if (!calls_alike(v, &a->body[i], &b->body[i])) return false;
    if (i && (a->body[i].unit == a->body[i - 1].unit) != (b->body[i].unit == b->body[i - 1].unit)) return false;
  }
  return true;
}

bool steps_alike(const Step *a, const Step *b, StoragePair *pair, void *self) {
  const Visit v = {pair, self};
  if (a->kind != b->kind) return false;
  return a->kind == STEP_CALL ? calls_alike(&v, a, b) : loops_alike(&v, a, b);
}

/* ---- how far two tasks' segments are ---- */

typedef struct {
  Program *program;
  Schedule *schedule;
  int *home;      /* by Storage.id: the segment that touches it first, or -1 */
  Storage **twin; /* by Storage.id, for the two segments being compared: the other one's */
  int first, second, now;
} Comparison;

static void find_home(void *self, Storage *s, bool writes) {
  (void)writes;
  Comparison *k = self;
  if (s->kind == ST_ARENA && k->home[s->id] < 0) k->home[s->id] = k->now;
}

static bool pair_up(void *self, Storage *a, Storage *b) {
  Comparison *k = self;
  if (a->kind == ST_OUTPUT || b->kind == ST_OUTPUT) return false;
  bool own = k->home[a->id] == k->first, other = k->home[b->id] == k->second;
  if (!own && !other) return a == b;
  if (!own || !other || a->kind != ST_ARENA || b->kind != ST_ARENA || a->bytes != b->bytes || a->dtype != b->dtype)
    return false;
  if (!k->twin[a->id] && !k->twin[b->id]) {
    k->twin[a->id] = b;
    k->twin[b->id] = a;
  }
  return k->twin[a->id] == b && k->twin[b->id] == a;
}

static size_t steps_in_common(Comparison *k, int first, int second) {
  const Segment *a = &k->schedule->segment[first], *b = &k->schedule->segment[second];
  size_t n = 0;
  memset(k->twin, 0, k->program->n_storage * sizeof *k->twin);
  k->first = first;
  k->second = second;
  while (n < a->n_steps && n < b->n_steps && steps_alike(a->step[n], b->step[n], pair_up, k)) n++;
  return n;
}

/* ---- what it brings ---- */

/* Bytes of a segment's own storages that live at each step, and those that live on behind it. */
typedef struct {
  int64_t *live, *kept;
} Lives;

typedef struct {
  int *first, *last; /* by Storage.id: steps of the segment, -1: none */
  int now;
} Spans;

static void note_span(void *self, Storage *s, bool writes) {
  (void)writes;
  Spans *k = self;
  if (k->first[s->id] < 0) k->first[s->id] = k->now;
  k->last[s->id] = k->now;
}

static Lives lives_of(const Comparison *k, int segment) {
  const Segment *s = &k->schedule->segment[segment];
  const Program *p = k->program;
  Spans spans = {.first = ctx_array(p->ctx, 2 * p->n_storage + 1, sizeof *spans.first)};
  spans.last = spans.first + p->n_storage;
  memset(spans.first, -1, 2 * p->n_storage * sizeof *spans.first);
  for (spans.now = 0; spans.now < (int)s->n_steps; spans.now++) step_storages(s->step[spans.now], note_span, &spans);
  Lives lives = {ctx_array(p->ctx, s->n_steps + 1, sizeof *lives.live),
                 ctx_array(p->ctx, s->n_steps + 1, sizeof *lives.kept)};
  for (size_t i = 0; i < p->n_storage; i++) {
    if (p->storage[i]->kind != ST_ARENA || k->home[i] != segment) continue;
    for (int t = spans.first[i]; t <= spans.last[i]; t++) {
      lives.live[t] += storage_occupies(p->storage[i]);
      if (t < spans.last[i]) lives.kept[t] += storage_occupies(p->storage[i]);
    }
  }
  return lives;
}

typedef struct {
  int member[64]; /* segments, the first one being the one that the others are compared with */
  int n;
  size_t steps;
  int64_t gain; /* bytes; nothing to gain: 0 or less */
} Group;

static bool same_units(const Step *a, const Step *b) {
  const Unit *u;
  if (a->unit != b->unit) return false;
  for (size_t i = 0; (u = step_unit(a, i)); i++)
    if (step_unit(b, i) != u) return false;
  return a->unit != NULL;
}

static bool is_shared(const Schedule *s, const Group *g, size_t step) {
  const Step *first = s->segment[g->member[0]].step[step];
  for (int i = 1; i < g->n; i++)
    if (!same_units(first, s->segment[g->member[i]].step[step])) return false;
  return true;
}

int64_t step_most_takes_together(const Step *s, int n) {
  int64_t takes = step_most_takes(s);
  if (s->kind != STEP_EXPERTS || s->token_major) return takes;
  return n * takes < s->experts ? n * takes : s->experts;
}

int64_t step_most_loads_together(const Step *s, int n) {
  int64_t takes = step_most_takes(s), each = takes ? step_most_loads(s) / takes : 0;
  return each * step_most_takes_together(s, n);
}

/* Of a segment, or of all that go along with it. */
static void each_turn_from(const Schedule *s, size_t segment, void (*fn)(void *self, const Turn *turn), void *self) {
  const Lockstep *l = lockstep_of(s, segment);
  for (size_t k = 0; k < s->segment[segment].n_steps; k++) {
    const size_t all = l ? l->n : 1, n = l && lockstep_shares(s, l, k) ? all : 1;
    for (size_t i = 0; i < all; i += n) {
      const Turn turn = {s->segment[segment + i].step[k], segment + i, k, n};
      fn(self, &turn);
    }
  }
}

void each_turn_of_all(const Schedule *s, void (*fn)(void *self, const Turn *turn), void *self) {
  for (size_t i = 0; i < s->n_segments; i++) {
    const Lockstep *l = lockstep_of(s, i);
    if (!l || l->first == i) each_turn_from(s, i, fn, self);
  }
}

/* Chooses the group's steps among its first `limit`, which are alike: up to a shared unit's, and then on to where least
 * is handed on. */
static void choose_steps(const Schedule *s, Group *g, const Lives *lives, size_t limit) {
  const Segment *segment = &s->segment[g->member[0]];
  int64_t saved = 0, most = 0;
  for (size_t i = 0; i < limit; i++) {
    if (lives->live[i] > most) most = lives->live[i];
    if (!is_shared(s, g, i)) continue;
    saved += g->n * step_most_loads(segment->step[i]) - step_most_loads_together(segment->step[i], g->n);
    if (saved - (g->n - 1) * most <= g->gain) continue;
    g->gain = saved - (g->n - 1) * most;
    g->steps = i + 1;
  }
  for (size_t i = g->steps; g->steps && i < limit && !segment->step[i]->unit; i++)
    if (lives->kept[i] < lives->kept[g->steps - 1] && lives->live[i] <= most) g->steps = i + 1;
}

/* The best group of a task's own segment and others, of those that are in none yet. */
static Group best_group(Comparison *k, int segment, const bool *taken) {
  const Schedule *s = k->schedule;
  size_t *common = ctx_array(k->program->ctx, s->n_segments, sizeof *common);
  Lives lives = lives_of(k, segment);
  Group best = {.gain = 0};
  for (int i = segment + 1; i < (int)s->n_segments; i++) common[i] = taken[i] ? 0 : steps_in_common(k, segment, i);
  for (int i = segment + 1; i < (int)s->n_segments; i++) { /* all that have as many steps in common as this one */
    Group g = {.member = {segment}, .n = 1};
    for (int j = segment + 1; common[i] > 0 && j < (int)s->n_segments; j++)
      if (common[j] >= common[i]) g.member[g.n++] = j;
    if (g.n > 1) choose_steps(s, &g, &lives, common[i]);
    if (g.gain > best.gain) best = g;
  }
  return best;
}

/* ---- segments of their own ---- */

/* Puts those first that need most memory afterwards: they lie lowest, and what remains of them is computed last, when
 * all that lay above is free. */
static void sort_members(const Comparison *k, Group *g) {
  int64_t bytes[64];
  for (int i = 0; i < g->n; i++) {
    int segment = g->member[i], at = i;
    int64_t most = 0;
    Lives lives = lives_of(k, segment);
    for (size_t t = g->steps; t < k->schedule->segment[segment].n_steps; t++)
      if (lives.live[t] > most) most = lives.live[t];
    for (; at > 0 && bytes[at - 1] < most; at--) {
      bytes[at] = bytes[at - 1];
      g->member[at] = g->member[at - 1];
    }
    bytes[at] = most;
    g->member[at] = segment;
  }
}

/* Behind the segments of several tasks: each group's; then what remains of their tasks, the last one's first; then those
 * in no group. */
static void split_segments(Program *p, Schedule *s, const Group *group, size_t n, size_t first, const bool *taken) {
  Segment *segment = ctx_array(p->ctx, 2 * s->n_segments + 1, sizeof *segment);
  size_t at = first;
  memcpy(segment, s->segment, first * sizeof *segment);
  s->lockstep = ctx_array(p->ctx, n + 1, sizeof *s->lockstep);
  for (size_t g = 0; g < n; g++) {
    s->lockstep[s->n_lockstep++] = (Lockstep){.first = at, .n = (size_t)group[g].n};
    for (int i = 0; i < group[g].n; i++) {
      segment[at] = s->segment[group[g].member[i]];
      segment[at].n_steps = group[g].steps;
      segment[at++].in_lockstep = true;
    }
  }
  for (size_t g = n; g-- > 0;)
    for (int i = group[g].n; i-- > 0;) {
      segment[at] = s->segment[group[g].member[i]];
      segment[at].step += group[g].steps;
      segment[at++].n_steps -= group[g].steps;
    }
  for (size_t i = first; i < s->n_segments; i++)
    if (!taken[i]) segment[at++] = s->segment[i];
  s->cap_segments = 2 * s->n_segments + 1;
  s->n_segments = at;
  s->segment = segment;
}

static size_t first_of_one_task(const Schedule *s) {
  size_t i = 0;
  while (i < s->n_segments && (s->segment[i].tasks & (s->segment[i].tasks - 1))) i++;
  return i;
}

void schedule_lockstep(Program *p, Schedule *s) {
  size_t first = first_of_one_task(s), n = 0;
  Comparison k = {.program = p, .schedule = s};
  k.home = ctx_array(p->ctx, p->n_storage + 1, sizeof *k.home);
  k.twin = ctx_array(p->ctx, p->n_storage + 1, sizeof *k.twin);
  memset(k.home, -1, p->n_storage * sizeof *k.home);
  for (k.now = 0; k.now < (int)s->n_segments; k.now++)
    for (size_t i = 0; i < s->segment[k.now].n_steps; i++) step_storages(s->segment[k.now].step[i], find_home, &k);
  Group *group = ctx_array(p->ctx, s->n_segments + 1, sizeof *group);
  bool *taken = ctx_array(p->ctx, s->n_segments + 1, sizeof *taken);
  for (size_t i = first; i < s->n_segments; i++) {
    if (taken[i]) continue;
    group[n] = best_group(&k, (int)i, taken);
    for (int j = 0; j < group[n].n; j++) taken[group[n].member[j]] = true;
    if (!group[n].n) continue;
    sort_members(&k, &group[n++]);
  }
  if (n) split_segments(p, s, group, n, first, taken);
}

const Lockstep *lockstep_of(const Schedule *s, size_t segment) {
  for (size_t i = 0; i < s->n_lockstep; i++)
    if (segment >= s->lockstep[i].first && segment - s->lockstep[i].first < s->lockstep[i].n) return &s->lockstep[i];
  return NULL;
}

bool lockstep_shares(const Schedule *s, const Lockstep *l, size_t step) {
  const Segment *segment = &s->segment[l->first];
  for (size_t i = 1; i < l->n; i++)
    if (!same_units(segment->step[step], segment[i].step[step])) return false;
  return true;
}
