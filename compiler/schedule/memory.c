/* The memory plan.
 *
 * Each segment has a region; the storages that its steps make lie in it, those that later segments read (its exports) as
 * low as possible. When one task runs, all regions begin at the arena's start: a segment's plan therefore keeps clear of
 * the exports that are still wanted. When all tasks run in one call, each region begins behind the exports of the
 * segments before, so that nothing has to be computed twice. Either way the code is the same, since it finds every region
 * through the call's frame.
 *
 * Placement is first fit, largest first, in several orders; the smallest plan is kept.
 */
#include "schedule/schedule.h"

#include <stdlib.h>
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
  int *piece_of;    /* by storage: index in piece, or -1 */
} Planner;

static int64_t occupied(const Storage *s) { return round_up(s->bytes ? s->bytes : 1, ALIGN); }

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
                         .bytes = occupied(s),
                         .offset = s->offset,
                         .first = k->schedule->home[s->id] == k->segment ? k->step : 0,
                         .fixed = k->schedule->home[s->id] != k->segment});
  Piece *p = &k->piece[k->piece_of[s->id]];
  p->last = k->step;
}

/* Is storage s, made by an earlier segment, wanted by a task of this segment after it? */
static bool wanted_later(const Planner *k, const Storage *s, int segment) {
  const Schedule *sc = k->schedule;
  uint64_t tasks = sc->segment[sc->home[s->id]].tasks & sc->segment[segment].tasks;
  for (int d = segment + 1; d <= k->last_reader[s->id]; d++)
    if (sc->segment[d].tasks & tasks) return true;
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
    if (k->piece_of[i] < 0) add_piece(k, (Piece){.storage = s, .bytes = occupied(s), .offset = s->offset, .fixed = true});
    Piece *p = &k->piece[k->piece_of[i]];
    p->last = end;
    p->exported = own;
  }
}

/* ---- placement ---- */

static bool overlap_in_time(const Piece *a, const Piece *b) { return a->first <= b->last && b->first <= a->last; }

static int by_offset(const void *a, const void *b) {
  const Piece *const *x = a, *const *y = b;
  return ((*x)->offset > (*y)->offset) - ((*x)->offset < (*y)->offset);
}

/* The lowest place that is free throughout the piece's life. `busy` has room for all. */
static int64_t lowest_place(const Piece *p, Piece *const *placed, size_t n, Piece **busy) {
  size_t n_busy = 0;
  for (size_t i = 0; i < n; i++)
    if (overlap_in_time(p, placed[i])) busy[n_busy++] = placed[i];
  qsort(busy, n_busy, sizeof *busy, by_offset);
  int64_t at = 0;
  for (size_t i = 0; i < n_busy; i++) {
    if (busy[i]->offset >= at + p->bytes) break;
    if (busy[i]->offset + busy[i]->bytes > at) at = busy[i]->offset + busy[i]->bytes;
  }
  return at;
}

static int64_t weight_of(const Piece *p, int order) {
  int64_t life = p->last - p->first + 1;
  return order == 0 ? p->bytes : order == 1 ? p->bytes * life : order == 2 ? -(int64_t)p->first : life;
}

static int compare(const Piece *a, const Piece *b, int order) {
  if (a->exported != b->exported) return a->exported ? -1 : 1;
  int64_t x = weight_of(a, order), y = weight_of(b, order);
  if (x != y) return x > y ? -1 : 1;
  if (a->bytes != b->bytes) return a->bytes > b->bytes ? -1 : 1;
  return (a->storage->id > b->storage->id) - (a->storage->id < b->storage->id);
}

static void sort_pieces(Piece **list, size_t n, int order) { /* insertion into halves: stable, and n is small */
  for (size_t i = 1; i < n; i++) {
    Piece *p = list[i];
    size_t lo = 0, hi = i;
    while (lo < hi) {
      size_t mid = (lo + hi) / 2;
      if (compare(list[mid], p, order) <= 0) lo = mid + 1;
      else hi = mid;
    }
    memmove(list + lo + 1, list + lo, (i - lo) * sizeof *list);
    list[lo] = p;
  }
}

static int64_t place_all(Planner *k, int order, Piece **list, Piece **placed, Piece **busy) {
  size_t n_list = 0, n_placed = 0;
  int64_t top = 0;
  for (size_t i = 0; i < k->n; i++) {
    Piece *p = &k->piece[i];
    if (p->fixed) placed[n_placed++] = p;
    else list[n_list++] = p;
    if (p->fixed && p->offset + p->bytes > top) top = p->offset + p->bytes;
  }
  sort_pieces(list, n_list, order);
  for (size_t i = 0; i < n_list; i++) {
    Piece *p = list[i];
    p->offset = lowest_place(p, placed, n_placed, busy);
    placed[n_placed++] = p;
    if (p->offset + p->bytes > top) top = p->offset + p->bytes;
  }
  return top;
}

static void plan_segment(Planner *k, int segment) {
  Ctx *c = k->program->ctx;
  collect_pieces(k, segment);
  Piece **list = ctx_array(c, 3 * k->n + 1, sizeof *list);
  int best = 0;
  int64_t least = INT64_MAX;
  for (int order = 0; order < 4; order++) {
    int64_t bytes = place_all(k, order, list, list + k->n, list + 2 * k->n);
    if (bytes < least) {
      least = bytes;
      best = order;
    }
  }
  Segment *s = &k->schedule->segment[segment];
  s->bytes = place_all(k, best, list, list + k->n, list + 2 * k->n);
  for (size_t i = 0; i < k->n; i++) {
    Piece *p = &k->piece[i];
    if (p->fixed) continue;
    p->storage->offset = p->offset;
    p->storage->first = p->first;
    p->storage->last = p->last;
    if (p->exported && p->offset + p->bytes > s->exports) s->exports = p->offset + p->bytes;
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
  for (int i = 0; i < (int)s->n_segments; i++) plan_segment(&k, i);
  s->base_all = ctx_array(c, s->n_segments + 1, sizeof *s->base_all);
  int64_t base = 0;
  for (size_t i = 0; i < s->n_segments; i++) {
    s->base_all[i] = base;
    if (base + s->segment[i].bytes > s->arena_all) s->arena_all = base + s->segment[i].bytes;
    base += s->segment[i].exports;
  }
  s->scratch = scratch_of_task(s, SIZE_MAX);
}

/* ---- the bound it is measured against ---- */

typedef struct {
  const Schedule *schedule;
  size_t task;
  int now;
  int *first, *last; /* by storage, in the order of the task's steps */
} Lives;

static void note_life(void *self, Storage *s, bool writes) {
  (void)writes;
  Lives *k = self;
  if (s->kind != ST_ARENA) return;
  if (k->first[s->id] < 0) k->first[s->id] = k->now;
  k->last[s->id] = k->now;
}

int64_t live_of_task(const Program *p, const Schedule *s, size_t task) {
  Lives k = {.schedule = s, .task = task};
  k.first = ctx_array(p->ctx, 2 * p->n_storage + 1, sizeof *k.first);
  k.last = k.first + p->n_storage;
  for (size_t i = 0; i < p->n_storage; i++) k.first[i] = -1;
  for (size_t i = 0; i < s->n_segments; i++)
    for (size_t j = 0; segment_serves(&s->segment[i], task) && j < s->segment[i].n_steps; j++, k.now++)
      step_storages(s->segment[i].step[j], note_life, &k);
  int64_t *change = ctx_array(p->ctx, (size_t)k.now + 2, sizeof *change), sum = 0, most = 0;
  for (size_t i = 0; i < p->n_storage; i++) {
    if (k.first[i] < 0) continue;
    change[k.first[i]] += occupied(p->storage[i]);
    change[k.last[i] + 1] -= occupied(p->storage[i]);
  }
  for (int t = 0; t <= k.now; t++) {
    sum += change[t];
    if (sum > most) most = sum;
  }
  return most;
}
