/* What inspect shows: of a model what the compiler understands of it, of a compiled folder what its calls take. */
#ifndef MOECC_CLI_INSPECT_H
#define MOECC_CLI_INSPECT_H

#include "io/json.h"

/* What the same tasks need. Parameters: elements of constants, but for those of int64, which are shapes and axes. */
typedef struct {
  uint64_t tasks;
  size_t nodes;
  int64_t parameters, bytes; /* bytes: of all constants */
} Share;

typedef struct {
  const Graph *graph; /* after the passes */
  size_t nodes_read, of[OP_COUNT];
  Share all;
  Share *share; /* by set of tasks, those of more tasks first */
  size_t n_shares;
} ModelFacts;

/* A layer of experts. */
typedef struct {
  const char *layer, *gate, *activation;
  uint64_t tasks;
  int64_t experts, k, width, hidden, tokens, normalize;
  int64_t parameters; /* of one expert */
  bool gated;         /* the hidden values are multiplied by a third product */
} MoeFacts;

size_t node_count(const Graph *g);
ModelFacts model_facts(const Graph *g, size_t nodes_read);
Share share_of_task(const ModelFacts *m, size_t task, bool own); /* own: what no other task needs */
MoeFacts moe_facts(const Node *n);                               /* of an OP_MOE */
/* A page of its own: model_page.c, model.html. file: where the model was read. */
const char *model_page(const ModelFacts *m, const char *file);

/* report.json of a folder that was compiled before; leaves if it has none. */
const Json *folder_report_read(Ctx *c, const char *folder);
void folder_report_print(Ctx *c, const Json *report); /* a table of memory, reads and stack, a row for each task */
void folder_report_json(Ctx *c, const Json *report);  /* the same as an object */

#endif
