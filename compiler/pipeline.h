/* The whole way from a model's bytes to a folder, in one place. */
#ifndef MOECC_PIPELINE_H
#define MOECC_PIPELINE_H

#include "emit/emit.h"

enum { STREAM_BUFFER = 1200000 }; /* bytes of one buffer, if nobody says otherwise */

typedef struct {
  const char *model; /* path of the ONNX file */
  const char *out;   /* folder */
  const char *name;  /* NULL: the model's file name */
  const char *const *tasks;
  size_t n_tasks; /* none: all */
  const char *const *bind;
  size_t n_bind; /* "INPUT=VALUE" */
  const DimBinding *dims;
  size_t n_dims;
  /* Computed values to give out as well, each by the first task that computes it: for verify. The passes have run by
   * then, so what is computed stays as it is. */
  const char *const *outputs;
  size_t n_outputs;
  const Target *target;
  WeightsMode weights;
  int64_t stream_buffer; /* WEIGHTS_STREAM: bytes of one buffer, as far as units can be cut to it */
  int64_t arena;         /* the most bytes that a task's arena and scratch may take with one thread; 0: any */
  int64_t resident;      /* WEIGHTS_STREAM: bytes of units that stay in memory, at most */
  bool token_major;
  const struct Tuning *tuning; /* measured tiles (lower/tuning.h), or NULL */
  PassOptions passes;
} CompileOptions;

/* The model as read, with its tasks. */
Graph *pipeline_read(Ctx *c, const CompileOptions *o);
/* The tasks joined and all passes run; the model stays as it is. */
Graph *pipeline_passes(Ctx *c, Graph *model, const CompileOptions *o);
/* The two above. */
Graph *pipeline_graph(Ctx *c, const CompileOptions *o);
/* Lowers, schedules and writes the folder o->out, which appears whole or not at all. The graph is as it was afterwards:
 * what o->outputs adds are its outputs only meanwhile. */
Program *pipeline_emit(Ctx *c, Graph *g, const CompileOptions *o);
/* The outputs that the folder has: the graph's, then those of o->outputs that are none of these. */
Value **pipeline_outputs(Ctx *c, const Graph *g, const CompileOptions *o, size_t *n);
/* All of it. The folder is locked before any work. */
Graph *pipeline_compile(Ctx *c, const CompileOptions *o); /* returns the graph after the passes */
/* The model's name: its file's, or its folder's if the file is called model.onnx; made an identifier that is free. */
const char *model_name(Ctx *c, const char *path);

#endif
