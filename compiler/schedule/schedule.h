/* From a lowered program to what is emitted: segments of steps that the same tasks need, layers (functions) within
 * them, weight units told apart by content, and a place in memory for every storage. */
#ifndef MOECC_SCHEDULE_H
#define MOECC_SCHEDULE_H

#include "lower/lower.h"

/* Consecutive steps that become one function. */
typedef struct {
  const char *name;          /* C identifier, unique in the network */
  const char *name_together; /* of the function for all tasks of a Lockstep, in the layers of its first segment */
  const char *scope;         /* path of the layer in the model, for comments */
  Step **step;
  size_t n_steps;
} Layer;

/* What computing chains of pictures in bands (lower/bands.h) comes to; by task. */
typedef struct {
  int bands, links; /* 1, 0: as a whole */
  int64_t *arena;   /* bytes for one thread: the arena and its scratch */
  int64_t *macs;    /* multiply-adds */
  int64_t *loads;   /* bytes of weights that are read when streaming, at most */
} BandCost;
typedef struct {
  BandCost whole, banded; /* banded: what was chosen, or would take the least memory; bands 0: there are no chains */
  bool chosen;
  const char *why;
} BandPlan;

/* Which units stay in memory while a streaming context is initialised (schedule/resident.c, which has the model behind
 * the figures); by Unit.id. */
typedef struct {
  int64_t budget, bytes; /* asked for with --resident; of the resident area with all tasks */
  double rate, latency;  /* assumed of the storage: bytes in a second, seconds for each read */
  double arithmetic;     /* assumed of the target: multiply-adds in a second */
  int64_t *place;        /* of slot 0 in the area; 0: streamed */
  double *saved;         /* seconds of stall in a call of every task, when it was chosen */
  double *reads;         /* slots read in a call of every task, as expected */
  int *order;            /* units in the order in which they were chosen */
  size_t n;              /* of order */
} ResidentPlan;

/* All steps that exactly the tasks of one set need, in program order. A segment runs after every segment of a larger
 * set that contains its own. */
typedef struct {
  uint64_t tasks;
  Step **step;
  size_t n_steps, cap_steps;
  Layer *layer;
  size_t n_layers, cap_layers;
  int64_t bytes;    /* of its region: what its storages and the live exports of earlier segments span */
  int64_t exports;  /* bytes from the region's start that later segments may still read */
  bool in_lockstep; /* it is in one of Schedule.lockstep */
} Segment;

/* Segments of one task each, one behind the other, whose steps are alike: N_all computes them side by side. Their
 * regions are alike, too. */
typedef struct {
  size_t first, n;
} Lockstep;

typedef struct {
  Segment *segment;
  size_t n_segments, cap_segments;
  const char *root;  /* path that all layers are in; may be "" */
  int *home;         /* by Storage.id: the segment whose region holds it, or -1 */
  int64_t *base_all; /* by segment: where its region starts when all tasks run in one call */
  int64_t arena_all; /* bytes */
  int64_t scratch;   /* bytes for each thread, the largest of any step; scratch_of(task) for one task's */
  Lockstep *lockstep;
  size_t n_lockstep; /* 0 unless Program.lockstep */
  const BandPlan *bands;
  const ResidentPlan *resident; /* NULL: everything is streamed */
} Schedule;

Schedule *schedule_make(Program *p);                      /* schedule/schedule.c: calls those below in order */
void schedule_join_units(Program *p);                     /* schedule/units.c: equal units become one */
void schedule_segments(Program *p, Schedule *s);          /* schedule/segments.c: steps by tasks */
void schedule_small_units(Program *p, const Schedule *s); /* schedule/small.c: small units come with neighbours */
void schedule_held_units(const Schedule *s);              /* schedule/units.c: Step.holds */
void schedule_lockstep(Program *p, Schedule *s); /* schedule/lockstep.c: if Program.lockstep, what goes side by side */
void schedule_layers(Program *p, Schedule *s);   /* schedule/segments.c */
void schedule_units(Program *p, Schedule *s);    /* schedule/units.c: the list of units, and their names */
void schedule_memory(Program *p, Schedule *s);   /* schedule/memory.c: lifetimes and offsets */

const Lockstep *lockstep_of(const Schedule *s, size_t segment); /* that it is in, or NULL */
/* Do all of them take the same units at this step? */
bool lockstep_shares(const Schedule *s, const Lockstep *l, size_t step);
/* A step's turn to take its units in a call of all tasks: step `index` of a segment, and of the n - 1 behind it, which
 * go along with it and share its units. */
typedef struct {
  const Step *step;
  size_t segment, index, n;
} Turn;
/* Calls fn for each in the order in which they come. */
void each_turn_of_all(const Schedule *s, void (*fn)(void *self, const Turn *turn), void *self);
/* Slots and bytes that n tasks in lockstep load at most for a step whose unit they share. */
int64_t step_most_takes_together(const Step *s, int n);
int64_t step_most_loads_together(const Step *s, int n);
/* Are two steps alike, `pair` being true for each storage of the one and what the other has in its place? */
typedef bool StoragePair(void *self, Storage *a, Storage *b);
bool steps_alike(const Step *a, const Step *b, StoragePair *pair, void *self);

/* Schedules what `lower` makes of the graph: as a whole, or, where a task's memory (arena and scratch of one thread)
 * then exceeds `limit` bytes (0: none), in the bands that cost least of those that keep it (schedule/bands.c). Fails,
 * saying what takes the memory, if none do. */
Schedule *schedule_within(Program *(*lower)(void *self, int bands, int links), void *self, int64_t limit,
                          Program **chosen);

/* Chooses the units that stay in memory, up to so many bytes: schedule/resident.c. */
void schedule_resident(const Program *p, Schedule *s, int64_t budget);
int64_t resident_place(const Schedule *s, const Unit *u);                    /* in the resident area; 0: streamed */
int64_t resident_bytes(const Program *p, const Schedule *s, uint64_t tasks); /* of the area, for these tasks */

bool segment_serves(const Segment *s, size_t task);
int64_t arena_of_task(const Schedule *s, size_t task);   /* bytes without scratch */
int64_t scratch_of_task(const Schedule *s, size_t task); /* bytes for each thread; task SIZE_MAX: any */
int64_t step_scratch_each(const Step *s);                /* bytes for each thread */
int64_t step_macs(const Step *s);                        /* multiply-adds, its body included */
Unit *step_unit(const Step *s, size_t i);                /* the i-th that it loads, of an expert loop for an expert */
int64_t step_most_takes(const Step *s);                  /* how often it takes slots of its units, at most */
int64_t step_most_loads(const Step *s);                  /* bytes of these slots */
int64_t storage_occupies(const Storage *s);              /* bytes, gaps for alignment included */
/* Calls fn for each argument of the step that has a storage, expert loops' bodies and operands included. */
void step_storages(const Step *s, void (*fn)(void *self, Storage *st, bool writes), void *self);

/* The storages that live while the most bytes do, largest first, and the step (NULL: none) at which that is. */
typedef struct {
  int64_t bytes;
  const Step *step;
  const Storage **storage;
  size_t n;
} Peak;
Peak peak_of_task(const Program *p, const Schedule *s,
                  size_t task); /* schedule/live.c; SIZE_MAX: a call of all tasks */

#endif
