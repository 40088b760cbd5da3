/* The whole way from a model's bytes to a folder, in one place. */
#ifndef MOECC_PIPELINE_H
#define MOECC_PIPELINE_H

#include "emit/emit.h"

typedef struct {
  const char *model;                                   /* path of the ONNX file */
  const char *out;                                     /* folder */
  const char *name;                                    /* NULL: the model's file name */
  const char *const *tasks; size_t n_tasks;            /* none: all */
  const char *const *bind; size_t n_bind;              /* "INPUT=VALUE" */
  const DimBinding *dims; size_t n_dims;
  const char *const *outputs; size_t n_outputs;        /* values to give out as well, as a task of their own: for verify */
  const Target *target;
  WeightsMode weights;
  bool token_major;
  bool plain;                                          /* no optimising passes: what verify compares with */
  PassOptions passes;
} CompileOptions;

/* Reads the model and runs everything up to the passes. */
Graph *pipeline_graph(Ctx *c, const CompileOptions *o);
/* Lowers and schedules. */
Program *pipeline_program(Ctx *c, Graph *g, const CompileOptions *o, Schedule **schedule);
/* All of it, into o->out. */
Graph *pipeline_compile(Ctx *c, const CompileOptions *o); /* returns the graph after the passes */
/* The model's name: its file's, or its folder's if the file is called model.onnx; made an identifier. */
const char *model_name(Ctx *c, const char *path);

#endif
