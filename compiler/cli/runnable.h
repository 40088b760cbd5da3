/* A model, or a folder compiled before, as something to run: what run, verify and bench share. */
#ifndef MOECC_CLI_RUNNABLE_H
#define MOECC_CLI_RUNNABLE_H

#include "cli/cli.h"

typedef struct {
  Ctx *ctx;
  Engine *engine;
  const char *folder, *name; /* name: the network's */
  Graph *graph;              /* after the passes; NULL if a folder was given */
  Program *program;          /* its steps; NULL if a folder was given */
  bool has_all;              /* several tasks, and the function that computes all of them */
  Value **output;
  size_t n_outputs;         /* what it gives: the graph's outputs, and what was asked for besides */
  const char **output_file; /* by output: the file that the driver writes, without .npy */
} Runnable;

bool is_folder(const char *path);
Tensor *tensor_read(Options *o, const char *path); /* a .pb; messages name the file, and after that the model again */
/* Compiles the model, unless it is a folder that was compiled before, and builds its driver. */
Runnable runnable_open(Options *o, const char *model_or_folder);
/* The same for a graph after its passes; compile->out is chosen here. traced: its driver can say when each step ran. */
Runnable runnable_build(Ctx *c, Graph *g, const CompileOptions *compile, EngineKind kind, bool traced);
/* What the driver calls the file of this output, without .npy; NULL: it is none. */
const char *runnable_file(const Runnable *r, const Value *v);

/* The driver's arguments in the making. */
typedef struct {
  Ctx *ctx;
  const char **item;
  size_t n, cap;
} Arguments;
void argument_add(Arguments *a, const char *text);
void argument_pair(Arguments *a, const char *option, const char *value);
/* Where weights come from: --source, or of a folder --weights; a model was compiled that way. */
void argument_weights(Arguments *a, const Options *o, const Runnable *r);
/* Runs the driver for a task, or NULL: for each; leaves if it fails, `trouble` saying what that means. */
void runnable_run(const Runnable *r, const Arguments *a, const char *task, const char *trouble);
void runnable_read(const Runnable *r, const Arguments *a, const char *task, const char *trouble,
                   Text *out); /* the same; what it says goes to *out */
/* The names of its tasks. */
const char **runnable_tasks(const Runnable *r, size_t *n);

#endif
