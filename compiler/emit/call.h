/* Calls of kernels in a layer's function: see emit/call.c. */
#ifndef MOECC_EMIT_CALL_H
#define MOECC_EMIT_CALL_H

#include "emit/emit.h"

/* A table of numbers: in the function that uses it, or, long, at the end of the file. */
typedef struct {
  const int64_t *number;
  size_t n;
  const char *name;
} Table;

/* One layer's function in the making. */
typedef struct {
  Emission *e;
  Text *out;
  const Segment *segment;
  const Layer *layer;
  NameSet *names;
  const char **local; /* by Storage.id: what the function calls it, or NULL */
  Table *table;
  size_t n_tables, cap_tables;
  bool floats; /* all its weights are float32: `w` points to them, not to bytes */
  int indent;
} Function;

/* Finds or makes the tables that the step's arguments want. */
void call_collect_tables(Function *f, const Step *s);
/* Does the layer take weights, and are all of them float32? */
bool call_uses_weights(const Layer *l, bool *floats);
/* first, count: what EXPERT_BEGIN and EXPERT_COUNT are called; NULL outside expert loops. */
void emit_call(Function *f, const Step *s, const char *first, const char *count);

#endif
