/* Emission: a scheduled program becomes a folder of C. docs/architecture.md shows what the folder holds. */
#ifndef MOECC_EMIT_H
#define MOECC_EMIT_H

#include "emit/folder.h"
#include "emit/names.h"
#include "emit/pack.h"
#include "schedule/schedule.h"

#include "moecc_rt.h"

typedef enum { WEIGHTS_FILE, WEIGHTS_EMBED, WEIGHTS_STREAM } WeightsMode;

typedef struct {
  const char *id;    /* C identifier, parameter name */
  const char *macro; /* N_IMAGE_LEN */
  const Value *value;
  const char *file; /* safe in a path: file names of the driver */
} Port;

typedef struct {
  const char *id; /* C identifier: N_<id> is its function */
  const char *upper;
  const Task *task;
} TaskNames;

typedef struct {
  Ctx *ctx;
  Program *program;
  Schedule *schedule;
  const char *name;  /* N, a C identifier */
  const char *upper; /* for macros */
  const char *title; /* the model's own name, for comments */
  WeightsMode weights;
  Port *input, *output;
  size_t n_inputs, n_outputs;
  TaskNames *task;
  size_t n_tasks;
  PackUnit *pack; /* by Unit.id */
  uint64_t pack_bytes;
  uint64_t hash;           /* of the model and of how it was compiled: identifies the pack */
  struct SourceCode *code; /* the kernels, as read for their stack; NULL: not yet */
} Emission;

/* Writes everything into the folder, which the caller has begun and commits. */
void emit_network(Program *p, Schedule *s, Folder *folder, const char *name, WeightsMode weights);

/* emit/interface.c: N.h */
char *emit_interface(Emission *e);
/* The head of a task's function, n_tasks being N_all, and what comes behind it. */
void emit_prototype(Emission *e, Text *t, size_t task, const char *end);
bool port_of_task(const Emission *e, const Port *port, size_t task);   /* does the task take the input? n_tasks: all */
bool port_from_task(const Emission *e, const Port *port, size_t task); /* does it give the output? */

/* emit/frame.c: N_internal.h, and the functions that run tasks */
char *emit_internal(Emission *e);
void emit_entry(Emission *e, Text *t, size_t task);

/* emit/network.c: N.c, N_task_T.c, N_all.c */
char *emit_core(Emission *e);
char *emit_task(Emission *e, size_t task);
char *emit_all(Emission *e);
int64_t emit_stream_buffer(const Emission *e);                /* bytes of the largest slot, as in moecc_network */
int64_t emit_stream_bytes(const Emission *e);                 /* what the two buffers for it take of an arena */
const Port *port_of_value(const Emission *e, const Value *v); /* of a graph input or output */

/* emit/segment.c: a segment's units, its layers, and what calls them; emit/layer.c: a layer's function */
void emit_segment(Emission *e, Text *t, size_t segment);
const char *unit_value(Emission *e, const Unit *u, bool named); /* the initialiser of a moecc_unit */
/* Long tables of numbers go to the end of the file, `late`, and are announced in front of the layers, `early`. */
typedef struct {
  Text early, late;
} FileTables;
void emit_layer(Emission *e, Text *t, FileTables *tables, const Segment *segment, const Layer *l);
/* Between segments a call asks for what the next one takes first, which the frame says (`then`). */
bool emit_asks_ahead(const Emission *e);
const Unit *streamed_unit(const Emission *e, const Step *s, size_t i); /* the step's first from number i on, or NULL */
bool streams_another(const Emission *e, const Step *s, const Unit *held); /* a unit other than that */
const Unit *unit_after(const Emission *e, size_t segment, size_t task);   /* or NULL */
/* What a call of all tasks asks for behind a step of a segment, or NULL. */
const Unit *unit_behind(const Emission *e, size_t segment, size_t index);
/* The constants of all units that a task's file names, n_tasks being N_all.c, and SIZE_MAX N.c. */
void emit_file_units(Emission *e, Text *t, size_t task);
const char *segment_function(Emission *e, size_t segment);
const char *segment_region(Emission *e, size_t segment); /* the frame's field that says where its values are */

/* emit/lockstep.c: what N_all computes for several tasks side by side */
void emit_lockstep(Emission *e, Text *t, const Lockstep *l);
const char *lockstep_function(const Emission *e, const Lockstep *l);

/* emit/kernels.c: N_kernels.c, N_kernels.h; emit/weights.c: N_weights.bin, .c or .S; emit/report.c: report.json */
char *emit_kernels(Emission *e);
char *emit_kernels_header(Emission *e);
bool kernel_used(const Emission *e, const Kernel *k);
void emit_weights(Emission *e, Folder *folder);
char *emit_report(Emission *e);

/* emit/stack.c: the most bytes of stack that a task's function takes of its caller's thread, and of a worker of the
 * pool; n_tasks: N_all. */
typedef struct {
  int64_t caller, worker;
} StackBounds;
StackBounds emit_stack(Emission *e, size_t task);
int64_t emit_stack_of_kernel(Emission *e, const Kernel *k); /* in the caller's thread */

/* emit/bounds.c: what a call takes at most; n_tasks: N_all. RAM is for one thread: arena and its scratch, the two stream
 * buffers and the resident part, which are 0 where weights are embedded. Reads are those of a context that streams. */
typedef struct {
  int64_t arena, scratch, stream, resident, ram; /* bytes; ram: their sum */
  int64_t read_bytes, read_slots;                /* of the pack, in a call; checksums included */
  int64_t queue_bytes;                           /* of the largest MoE layer's queues, which are in the arena */
  StackBounds stack;
} Bounds;
Bounds emit_bounds(Emission *e, size_t task);
/* Queues of a loop: where each expert's begins, and an entry and a weight for each pair of a token and an expert. */
int64_t queue_bytes(const Step *loop);

/* emit/trace.c: N_trace.c, and the numbers of steps (Step.number), which are given before anything is emitted */
int number_steps(const Schedule *s); /* how many there are */
char *emit_trace(Emission *e);

/* emit/build.c: the runtime, the driver, Makefile, CMakeLists.txt */
void emit_build_files(Emission *e, Folder *folder);

#endif
