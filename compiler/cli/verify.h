/* moecc verify: command_verify.c leads through it, the other verify_*.c are its parts. */
#ifndef MOECC_CLI_VERIFY_H
#define MOECC_CLI_VERIFY_H

#include "cli/compare.h"
#include "cli/runnable.h"

/* ---- verify_data.c: what the folder holds ---- */

typedef struct {
  const char *name, *folder;
  Tensor **input; /* by the model's inputs; NULL: not there */
} DataSet;

/* The data sets of a folder in ONNX's layout: test_data_set_N in order of N, or the folder itself. */
DataSet *data_sets_find(Ctx *c, const char *folder, size_t *n);
/* Reads the inputs and checks their types and shapes. What `graph` (after the passes) takes must be there. */
void data_set_read(Options *o, DataSet *s, const Graph *model, const Graph *graph);
const char *data_set_output(Ctx *c, const DataSet *s, size_t output); /* path of an expected output; NULL: not there */
const char *tensor_text(Ctx *c, const Tensor *t);                     /* "f32[1,3,64,64]" */

/* ---- verify_routing.c: how close the routers' choices were ---- */

typedef struct {
  const Node *node; /* the layer with the smallest margin; NULL: nothing was rejected anywhere */
  int64_t token;
  double margin;  /* between the last chosen and the first rejected */
  const char *of; /* "probability": softmax over all experts; "score": as it is, where the gate has no softmax */
} Routing;

/* Names of the values that must be given out for it. */
void routing_wanted(Graph *g, const char ***names, size_t *n, size_t *cap);
/* Of the layers that one of `tasks` needs. folder: where the driver wrote its outputs. */
Routing routing_margin(const Runnable *r, const Graph *model, const DataSet *s, const char *folder, uint64_t tasks);
/* The smallest margin of one layer's scores [tokens, experts]; infinite if no expert is rejected. */
double scores_margin(const Tensor *scores, int64_t k, bool softmax, int64_t *token);

/* ---- verify_layers.c: layer by layer against the plain graph ---- */

typedef struct {
  const Value *value; /* of the optimised graph */
  Comparison r;
} LayerResult;
typedef struct {
  LayerResult *layer;
  size_t n, cap;
  int64_t first; /* that differs; -1: none */
} LayerResults;

/* Adds the names of the computed values that mean the same in both graphs, in the first one's order. */
void layers_common(Ctx *c, const Graph *optimised, const Graph *plain, const char ***names, size_t *n, size_t *cap);
/* Compares what both have written of the named values, behind the results that are there already. */
void layers_compare(LayerResults *all, const Runnable *optimised, const Runnable *plain, const char *const *name,
                    size_t n, const Tolerance *t, const char *folder, const char *plain_folder);
/* The node whose kernels compute v: v's own, or, where that only sees its operand otherwise, the one behind it. */
const Node *computing_node(const Runnable *r, const Value *v);
const char *kernels_of(const Runnable *r, const Node *n); /* with commas; "" if it has none */

/* ---- verify_report.c: what is said ---- */

typedef struct {
  const char *task, *output;
  Comparison r;
  const char *got, *expected; /* types and shapes where they differ, else the values where the error is largest */
} OutputResult;

typedef struct {
  const char *name;
  OutputResult *output;
  size_t n_outputs, cap_outputs;
  const char **skipped;
  size_t n_skipped, cap_skipped; /* outputs that the data set lacks */
  Routing routing;
  LayerResults layers;
} SetResult;

typedef struct {
  Ctx *ctx;
  const Runnable *run;
  const char *model, *folder, *engine;
  bool has_moe, has_layers;
  SetResult *set;
  size_t n_sets, cap_sets;
  size_t outputs, wrong, diverging;
  double worst;
} Report;

void report_set_text(const Report *r, const SetResult *s);
void report_text(const Report *r);
void report_json(const Report *r);

#endif
