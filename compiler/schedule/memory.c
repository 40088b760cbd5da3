/* The memory plan.
 *
 * Each segment has a region; the storages that its steps make lie in it, those that later segments read (its exports)
 * as low as possible. When one task runs, all regions begin at the arena's start: a segment's plan therefore keeps
 * clear of the exports that are still wanted. When all tasks run in one call, each region begins behind the exports of
 * the segments before, so that nothing has to be computed twice. Either way the code is the same, since it finds every
 * region through the call's frame. Segments in lockstep live at once: each region begins behind the whole one before.
 * They have one plan, which keeps clear of what any of their tasks still wants.
 *
 * Placement is first fit in several orders, of which the smallest result is kept; where that is larger than the largest
 * sum of pieces that live at once, a bounded local search over orders follows.
 */
#include "schedule/schedule.h"

#include <string.h>

enum { ALIGN = 64 };

/* Something that occupies [offset, offset+bytes) from step `first` to step `last` of a segment. */
typedef struct {
  Storage *storage;
  int64_t bytes, offset;
  int first, last;
  bool fixed, exported;
} Piece;

typedef struct {
  Program *program;
  Schedule *schedule;
  int segment;      /* whose steps are being looked at */
  int step;         /* index in the segment */
  int *last_reader; /* by storage: the last segment that reads it */
  Piece *piece;
  size_t n, cap;
  int *piece_of; /* by storage: index in piece, or -1 */
} Planner;

int64_t storage_occupies(const Storage *s) { return round_up(s->bytes ? s->bytes : 1, ALIGN); }

/* ---- who lives where and when ---- */

static void find_home(void *self, Storage *s, bool writes) {
  (void)writes;
  Planner *k = self;
  if (s->kind != ST_ARENA) return;
  if (k->schedule->home[s->id] < 0) k->schedule->home[s->id] = k->segment;
  k->last_reader[s->id] = k->segment;
}

static void each_step(Planner *k, int segment, void (*fn)(void *self, Storage *st, bool writes)) {
  const Segment *s = &k->schedule->segment[segment];
  k->segment = segment;
  for (k->step = 0; k->step < (int)s->n_steps; k->step++) step_storages(s->step[k->step], fn, k);
}

static void add_piece(Planner *k, Piece p) {
  k->piece = ctx_grow(k->program->ctx, k->piece, k->n, &k->cap, sizeof *k->piece);
  k->piece_of[p.storage->id] = (int)k->n;
  k->piece[k->n++] = p;
}

static void touch(void *self, Storage *s, bool writes) {
  (void)writes;
  Planner *k = self;
  if (s->kind != ST_ARENA) return;
  if (k->piece_of[s->id] < 0)
    add_piece(k, (Piece){.storage = s,
                         .bytes = storage_occupies(s),
                         .offset = s->offset,
                         .first = k->schedule->home[s->id] == k->segment ? k->step : 0,
                         .fixed = k->schedule->home[s->id] != k->segment});
  Piece *p = &k->piece[k->piece_of[s->id]];
  p->last = k->step;
}

/* Is storage s, made by an earlier segment, wanted by a task of this segment after it, or by one in lockstep with it?
 */
static bool wanted_later(const Planner *k, const Storage *s, int segment) {
  const Schedule *sc = k->schedule;
  const Lockstep *l = lockstep_of(sc, (size_t)segment);
  int end = l ? (int)(l->first + l->n) : segment + 1;
  uint64_t tasks = sc->segment[segment].tasks;
  for (int d = segment + 1; d < end; d++) tasks |= sc->segment[d].tasks;
  for (int d = end; d <= k->last_reader[s->id]; d++)
    if (sc->segment[d].tasks & sc->segment[sc->home[s->id]].tasks & tasks) return true;
  return false;
}

static void collect_pieces(Planner *k, int segment) {
  const Schedule *sc = k->schedule;
  k->n = 0;
  for (size_t i = 0; i < k->program->n_storage; i++) k->piece_of[i] = -1;
  each_step(k, segment, touch);
  int end = (int)sc->segment[segment].n_steps;
  for (size_t i = 0; i < k->program->n_storage; i++) {
    Storage *s = k->program->storage[i];
    if (s->kind != ST_ARENA || sc->home[i] < 0 || sc->home[i] > segment) continue;
    bool own = sc->home[i] == segment;
    if (own ? k->last_reader[i] <= segment : !wanted_later(k, s, segment)) continue;
    if (k->piece_of[i] < 0)
      add_piece(k, (Piece){.storage = s, .bytes = storage_occupies(s), .offset = s->offset, .fixed = true});
    Piece *p = &k->piece[k->piece_of[i]];
    p->last = end;
    p->exported = own;
  }
}

/* ---- placement ---- */

/* One segment's placement: pieces in the order in which they are placed, and those that are, by offset. */
typedef struct {
  Piece **list, **placed;
  size_t n, n_placed;
  int64_t top; /* end of the highest piece */
} Placement;

static bool overlap_in_time(const Piece *a, const Piece *b) { return a->first <= b->last && b->first <= a->last; }

static void put(Placement *p, Piece *piece, int64_t offset) {
  size_t at = p->n_placed++;
  piece->offset = offset;
  for (; at > 0 && p->placed[at - 1]->offset > offset; at--) p->placed[at] = p->placed[at - 1];
  p->placed[at] = piece;
  if (offset + piece->bytes > p->top) p->top = offset + piece->bytes;
}

/* The lowest place that is free throughout the piece's life. */
static int64_t lowest_place(const Placement *p, const Piece *piece) {
  int64_t at = 0;
  for (size_t i = 0; i < p->n_placed; i++) {
    const Piece *other = p->placed[i];
    if (other->offset >= at + piece->bytes) break;
    if (overlap_in_time(piece, other) && other->offset + other->bytes > at) at = other->offset + other->bytes;
  }
  return at;
}

/* Places the list's pieces in its order, around those that are fixed. */
static int64_t place_list(const Planner *k, Placement *p) {
  p->n_placed = 0;
  p->top = 0;
  for (size_t i = 0; i < k->n; i++)
    if (k->piece[i].fixed) put(p, &k->piece[i], k->piece[i].offset);
  for (size_t i = 0; i < p->n; i++) put(p, p->list[i], lowest_place(p, p->list[i]));
  return p->top;
}

/* ---- orders ---- */

enum { ORDERS = 5 };

static int64_t weight_of(const Piece *p, int order) {
  int64_t life = p->last - p->first + 1;
  const int64_t weights[ORDERS] = {p->bytes, p->bytes * life, -(int64_t)p->first, life, p->last};
  return weights[order];
}

static int compare(const Piece *a, const Piece *b, int order) {
  if (a->exported != b->exported) return a->exported ? -1 : 1;
  int64_t x = weight_of(a, order), y = weight_of(b, order);
  if (x != y) return x > y ? -1 : 1;
  if (a->bytes != b->bytes) return a->bytes > b->bytes ? -1 : 1;
  return (a->storage->id > b->storage->id) - (a->storage->id < b->storage->id);
}

/* Insertion into halves: stable, and n is small. */
static void sort_pieces(Piece **list, size_t n, int order) {
  for (size_t i = 1; i < n; i++) {
    Piece *p = list[i];
    size_t lo = 0, hi = i;
    while (lo < hi) {
      size_t mid = (lo + hi) / 2;
      if (compare(list[mid], p, order) <= 0)
        lo = mid + 1;
      else
        hi = mid;
    }
    memmove(list + lo + 1, list + lo, (i - lo) * sizeof *list);
    list[lo] = p;
  }
}

/* No plan is smaller: the largest sum of pieces that live at once, and where the fixed ones end. */
static int64_t least_bytes(const Planner *k, int end) {
  int64_t most = 0;
  for (int t = 0; t <= end; t++) {
    int64_t sum = 0;
    for (size_t i = 0; i < k->n; i++) {
      const Piece *p = &k->piece[i];
      if (p->first <= t && t <= p->last) sum += p->bytes;
      if (p->fixed && p->offset + p->bytes > most) most = p->offset + p->bytes;
    }
    if (sum > most) most = sum;
  }
  return most;
}

static void move_piece(Piece **list, size_t from, size_t to) {
  Piece *p = list[from];
  if (to < from)
    memmove(list + to + 1, list + to, (from - to) * sizeof *list);
  else
    memmove(list + from, list + from + 1, (to - from) * sizeof *list);
  list[to] = p;
}

static uint32_t next_random(uint32_t *state) { return *state = *state * 1664525u + 1013904223u; }

/* Local search: the piece at the top is placed earlier, which may let others lie above or below it; what is no larger
 * is kept. The numbers are always the same ones, and so is the plan. `exported` pieces stay in front. */
static void improve(const Planner *k, Placement *p, size_t exported, int64_t least) {
  enum { WORK = 4000000 };
  size_t tries = p->n > exported + 1 ? WORK / ((k->n + 16) * (k->n + 16)) : 0;
  uint32_t random = 1;
  int64_t best = place_list(k, p);
  for (size_t t = 0; t < tries && best > least; t++) {
    size_t from = p->n - 1;
    while (from > exported && p->list[from]->offset + p->list[from]->bytes < p->top) from--;
    if (from == exported || next_random(&random) >> 30 == 0)
      from = exported + next_random(&random) / 256 % (p->n - exported);
    size_t to = exported + next_random(&random) / 256 % (p->n - exported);
    move_piece(p->list, from, to);
    int64_t bytes = place_list(k, p);
    if (bytes > best) {
      move_piece(p->list, to, from);
      (void)place_list(k, p);
    } else {
      best = bytes;
    }
  }
}

/* ---- a segment's plan ---- */

static Placement movable_pieces(Planner *k) {
  Placement p = {.list = ctx_array(k->program->ctx, 2 * k->n + 1, sizeof *p.list)};
  p.placed = p.list + k->n;
  for (size_t i = 0; i < k->n; i++)
    if (!k->piece[i].fixed) p.list[p.n++] = &k->piece[i];
  return p;
}

static void keep_offsets(Planner *k, Segment *s) {
  for (size_t i = 0; i < k->n; i++) {
    Piece *p = &k->piece[i];
    if (p->fixed) continue;
    p->storage->offset = p->offset;
    p->storage->first = p->first;
    p->storage->last = p->last;
    if (p->exported && p->offset + p->bytes > s->exports) s->exports = p->offset + p->bytes;
  }
}

static void plan_segment(Planner *k, int segment) {
  Segment *s = &k->schedule->segment[segment];
  collect_pieces(k, segment);
  Placement p = movable_pieces(k);
  int best = 0;
  int64_t smallest = INT64_MAX;
  for (int order = 0; order < ORDERS; order++) {
    sort_pieces(p.list, p.n, order);
    int64_t bytes = place_list(k, &p);
    if (bytes >= smallest) continue;
    smallest = bytes;
    best = order;
  }
  size_t exported = 0;
  while (exported < p.n && p.list[exported]->exported) exported++;
  sort_pieces(p.list, p.n, best);
  improve(k, &p, exported, least_bytes(k, (int)s->n_steps));
  s->bytes = p.top;
  keep_offsets(k, s);
}

/* ---- segments in lockstep ---- */

/* What one of them hands on counts as handed on by all. */
static bool share_exports(void *self, Storage *a, Storage *b) {
  const Planner *k = self;
  int behind = k->segment; /* the group's end */
  if (a != b && a->kind == ST_ARENA && k->last_reader[b->id] >= behind && k->last_reader[a->id] < behind)
    k->last_reader[a->id] = behind;
  return true;
}

static bool copy_offset(void *self, Storage *a, Storage *b) {
  (void)self;
  if (a->kind == ST_ARENA && a != b) {
    b->offset = a->offset;
    b->first = a->first;
    b->last = a->last;
  }
  return true;
}

static void each_pair(Planner *k, const Lockstep *l, StoragePair *pair) {
  const Segment *s = &k->schedule->segment[l->first];
  for (size_t i = 1; i < l->n; i++)
    for (size_t j = 0; j < s->n_steps; j++) (void)steps_alike(s->step[j], s[i].step[j], pair, k);
}

static void plan_lockstep(Planner *k, const Lockstep *l) {
  Segment *s = &k->schedule->segment[l->first];
  k->segment = (int)(l->first + l->n);
  each_pair(k, l, share_exports);
  plan_segment(k, (int)l->first);
  each_pair(k, l, copy_offset);
  for (size_t i = 1; i < l->n; i++) {
    s[i].bytes = s->bytes;
    s[i].exports = s->exports;
  }
}

static void plan_all(Planner *k) {
  for (size_t i = 0; i < k->schedule->n_segments; i++) {
    const Lockstep *l = lockstep_of(k->schedule, i);
    if (!l)
      plan_segment(k, (int)i);
    else if (l->first == i)
      plan_lockstep(k, l);
  }
}

/* A call of all tasks: where each region begins. What remains of a task after lockstep lies above what that left for
 * it, since the tasks above have been computed by then; what was in no lockstep, above what several tasks need. */
static void place_regions(Schedule *s) {
  int64_t base = 0;
  for (size_t i = 0; i < s->n_segments; i++) {
    const Segment *segment = &s->segment[i];
    if (s->n_lockstep && i >= s->lockstep[0].first && !segment->in_lockstep) {
      base = s->base_all[s->lockstep[0].first];
      for (size_t k = 0; k < i; k++)
        if (s->segment[k].in_lockstep && s->segment[k].tasks == segment->tasks)
          base = s->base_all[k] + s->segment[k].exports;
    }
    s->base_all[i] = base;
    if (base + segment->bytes > s->arena_all) s->arena_all = base + segment->bytes;
    base += segment->in_lockstep ? segment->bytes : segment->exports;
  }
}

void schedule_memory(Program *p, Schedule *s) {
  Ctx *c = p->ctx;
  Planner k = {.program = p, .schedule = s};
  s->home = ctx_array(c, p->n_storage + 1, sizeof *s->home);
  k.last_reader = ctx_array(c, p->n_storage + 1, sizeof *k.last_reader);
  k.piece_of = ctx_array(c, p->n_storage + 1, sizeof *k.piece_of);
  for (size_t i = 0; i < p->n_storage; i++) s->home[i] = k.last_reader[i] = -1;
  for (int i = 0; i < (int)s->n_segments; i++) each_step(&k, i, find_home);
  plan_all(&k);
  s->base_all = ctx_array(c, s->n_segments + 1, sizeof *s->base_all);
  place_regions(s);
  s->scratch = scratch_of_task(s, SIZE_MAX);
}
