/* Functions of layers: calls of kernels (emit/call.c), and what the functions of one task (emit/layer.c) and of tasks in
 * lockstep (emit/lockstep.c) have in common. */
#ifndef MOECC_EMIT_CALL_H
#define MOECC_EMIT_CALL_H

#include "emit/emit.h"
#include "emit/lines.h"

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
  const char *then; /* the pointer that says what a call goes on with behind the segment, or "NULL" */
  bool for_tasks;   /* it is for several tasks, of which the segment is the first one's */
  bool floats;      /* all its weights are float32: `w` points to them, not to bytes */
  int indent;
} Function;

/* emit/layer.c. Names of a function's own, and those that it must not use. */
NameSet *function_names(Emission *e);
bool layer_uses_context(const Layer *l);
/* Pointers to the storages of some steps; `done`, by Storage.id, are there already. */
void emit_pointers(Function *f, const Step *s, Columns *lines, bool *done);
/* Where a storage is, as C: `frame` is "f->" or the like. */
const char *storage_place(Function *f, const Storage *s, const char *frame);
void emit_tables(Function *f, FileTables *tables); /* of the layer's steps, and the variables of its takes */
const char *step_note(Function *f, const Step *s);
const char *unit_reference(Emission *e, const Unit *u);
void emit_mark(Function *f, const Step *s); /* where the step's time begins, for traces */
/* What to ask for once this step's unit is there, as C. */
const char *next_unit(const Function *f, const Step *s);
/* The loop whose queues the step fills, if other steps come before it: its first expert can be asked for. Or NULL. */
const Step *loop_to_ask(const Function *f, const Step *s);
/* The expert after this one, as C: is there one, and which; what to ask for if there is none is the next step's. */
typedef struct {
  const char *exists, *index;
} Following;
/* A unit of an expert, and what is asked for behind it: another of the same expert, the first one of the expert that
 * follows, or what comes after the loop, and which slot of that. */
typedef struct {
  const char *unit;           /* this and the others as C */
  const char *behind, *first; /* NULL: there is none that is streamed */
  const char *last, *last_index;
} ExpertTake;
ExpertTake expert_take(Function *f, const Step *s, size_t i); /* of unit number i of a loop's */
void emit_take_expert(Function *f, const ExpertTake *take, Following next);

/* Finds or makes the tables that the step's arguments want. */
void call_collect_tables(Function *f, const Step *s);
/* Does the layer take weights, and are all of them float32? */
bool call_uses_weights(const Layer *l, bool *floats);
/* first, count: what EXPERT_BEGIN and EXPERT_COUNT are called; NULL outside expert loops. */
void emit_call(Function *f, const Step *s, const char *first, const char *count);

#endif
