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
  const char *id;          /* C identifier, parameter name */
  const char *macro;       /* N_IMAGE_LEN */
  const Value *value;
  const char *file;        /* safe in a path: file names of the driver */
} Port;

typedef struct {
  const char *id;          /* C identifier: N_<id> is its function */
  const char *upper;
  const Task *task;
} TaskNames;

typedef struct {
  Ctx *ctx;
  Program *program;
  Schedule *schedule;
  const char *name;        /* N, a C identifier */
  const char *upper;       /* for macros */
  const char *title;       /* the model's own name, for comments */
  WeightsMode weights;
  Port *input, *output; size_t n_inputs, n_outputs;
  TaskNames *task; size_t n_tasks;
  PackUnit *pack;          /* by Unit.id */
  uint64_t pack_bytes;
  uint64_t hash;           /* of the model and of how it was compiled: identifies the pack */
} Emission;

/* Writes everything into the folder, which the caller has begun and commits. */
void emit_network(Program *p, Schedule *s, Folder *folder, const char *name, WeightsMode weights);

/* The parts, one file each. */
char *emit_interface(Emission *e);                       /* emit/interface.c: N.h */
char *emit_internal(Emission *e);                        /* emit/frame.c:     N_internal.h */
void emit_entry(Emission *e, Text *t, size_t task);      /*                   the task function; n_tasks: N_all */
void emit_prototype(Emission *e, Text *t, size_t task, const char *end); /* emit/interface.c: its head */
int64_t emit_stream_buffer(const Emission *e);           /* emit/network.c:   bytes of one of the two buffers */
char *emit_core(Emission *e);                            /*                   N.c */
char *emit_task(Emission *e, size_t task);               /*                   N_task_T.c */
char *emit_all(Emission *e);                             /*                   N_all.c */
void emit_segment(Emission *e, Text *t, size_t segment); /* emit/segment.c:   its units, its layers, what calls them */
const char *segment_function(Emission *e, size_t segment);
const char *segment_region(Emission *e, size_t segment); /*                   where its values are: a field of the frame */
void emit_layer(Emission *e, Text *t, const Segment *segment, const Layer *l); /* emit/layer.c: a layer's function */
char *emit_kernels(Emission *e);                         /* emit/kernels.c:   N_kernels.c */
char *emit_kernels_header(Emission *e);
void emit_weights(Emission *e, Folder *folder);          /* emit/weights.c:   N_weights.bin, .c or .S */
void emit_build_files(Emission *e, Folder *folder);      /* emit/build.c:     runtime, driver, Makefile, CMakeLists.txt */
char *emit_report(Emission *e);                          /* emit/report.c:    report.json */

bool port_of_task(const Emission *e, const Port *port, size_t task);   /* does the task take the input? n_tasks: all */
bool port_from_task(const Emission *e, const Port *port, size_t task); /* does it give the output? */
const Port *port_of_value(const Emission *e, const Value *v);          /* of a graph input or output */

#endif
