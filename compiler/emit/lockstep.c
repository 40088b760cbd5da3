/* N_all.c where weights are streamed: tasks that go side by side through what schedule/lockstep.c found alike.
 *
 * A layer's function takes the frames of all these tasks. Each unit that they share is taken once, and what it is for is
 * then computed for one task after the other, like the steps behind it that need no weights; of an expert loop, each
 * expert that any task has tokens for. Where each task has a unit of its own (routers), they are taken in turn. What is
 * asked for ahead is the same as in a function of one task.
 */
#include "emit/call.h"
#include "emit/labels.h"

#include <string.h>

/* A layer's function in the making, and what the tasks are told apart by. */
typedef struct {
  Function f;
  const Lockstep *lockstep;
  int step_numbers;   /* from a task's step to the next one's */
  const char *before; /* the last comment: steps of one node share it */
} Together;

static bool is_shared(const Together *k, size_t step) { return lockstep_shares(k->f.e->schedule, k->lockstep, step); }

static void emit_note(Together *k, const Step *s) {
  const char *note = step_note(&k->f, s);
  if (strcmp(note, k->before) != 0) {
    text_add(k->f.out, "\n");
    line_comment(k->f.out, k->f.indent, note);
  }
  k->before = note;
}

static void emit_own_mark(Together *k, const Step *s) {
  line_add(k->f.out, "%*sMOECC_STEP(%d + t * %d);", k->f.indent, "", s->number, k->step_numbers);
}

/* "for (…) {" over the tasks, and pointers to the storages of some steps. */
static void begin_tasks(Together *k) {
  line_add(k->f.out, "%*sfor (unsigned t = 0; t < %zu; t++) {", k->f.indent, "", k->lockstep->n);
  k->f.indent += 2;
  line_add(k->f.out, "%*sconst %s_frame *f = &task[t];", k->f.indent, "", k->f.e->name);
}

static void end_tasks(Together *k) {
  k->f.indent -= 2;
  line_add(k->f.out, "%*s}", k->f.indent, "");
}

/* ---- calls ---- */

/* Each task's unit number i of this step, as a table; returns its name. */
static const char *emit_unit_table(Together *k, size_t step, size_t number) {
  const Emission *e = k->f.e;
  const char *name = name_unique(k->f.names, "units");
  Text t = {.ctx = e->ctx};
  for (size_t i = 0; i < k->lockstep->n; i++) {
    const Segment *s = &e->schedule->segment[k->lockstep->first + i];
    text_add(&t, "%s%s", i ? ", " : "", unit_reference(k->f.e, step_unit(s->step[step], number)));
  }
  line_add(k->f.out, "%*sstatic const moecc_unit *const %s[] = {%s};", k->f.indent, "", name, t.text);
  return name;
}

static void emit_take(Together *k, const char *unit, const char *next) {
  line_add(k->f.out, "%*sw = moecc_take(&m->c.weights, %s, %s, &status);", k->f.indent, "", unit, next);
  line_add(k->f.out, "%*sif (!w) return status;", k->f.indent, "");
}

/* Where the queues of each task begin, for a loop; returns the table's name. */
static const char *emit_queues(Together *k, const Step *loop) {
  const char *begin = name_unique(k->f.names, "begin");
  const char *place = storage_place(&k->f, loop->queue_begin, "task[t].");
  line_add(k->f.out, "  const uint32_t *%s[%zu];", begin, k->lockstep->n);
  line_add(k->f.out, "  for (unsigned t = 0; t < %zu; t++) %s[t] = (const uint32_t *)%s;", k->lockstep->n, begin,
           place);
  return begin;
}

/* Steps `from` to `to` of the segment, the first of which may take a unit, for one task after the other. */
static void emit_calls(Together *k, size_t from, size_t to) {
  Function *f = &k->f;
  Step *const *step = f->segment->step;
  const Unit *unit = step[from]->unit;
  const bool shared = unit && is_shared(k, from);
  const char *units = NULL;
  Columns lines = {.ctx = f->e->ctx};
  bool *done = ctx_array(f->e->ctx, f->e->program->n_storage + 1, sizeof *done);
  emit_note(k, step[from]);
  if (shared) {
    emit_mark(f, step[from]);
    emit_take(k, unit_reference(f->e, unit), next_unit(f, step[from]));
  } else if (unit) {
    units = emit_unit_table(k, from, 0);
  }
  begin_tasks(k);
  for (size_t i = from; i < to; i++) emit_pointers(f, step[i], &lines, done);
  columns_write(&lines, f->out);
  for (size_t i = from; i < to; i++) {
    emit_note(k, step[i]);
    emit_own_mark(k, step[i]);
    if (i == from && units)
      emit_take(k, ctx_format(f->e->ctx, "%s[t]", units),
                ctx_format(f->e->ctx, "t + 1 < %zu ? %s[t + 1] : %s", k->lockstep->n, units, next_unit(f, step[i])));
    emit_call(f, step[i], NULL, NULL);
  }
  end_tasks(k);
}

/* ---- expert loops ---- */

/* Calls `from` to `to` of the body, which have one unit, for each task that has tokens for the expert. */
static void emit_body(Together *k, const Step *loop, const char *begin, size_t from, size_t to) {
  Function *f = &k->f;
  Columns lines = {.ctx = f->e->ctx};
  bool *done = ctx_array(f->e->ctx, f->e->program->n_storage + 1, sizeof *done);
  begin_tasks(k);
  line_add(f->out, "      const size_t first = %s[t][e], count = %s[t][e + 1] - first;", begin, begin);
  for (size_t i = from; i < to; i++) emit_pointers(f, &loop->body[i], &lines, done);
  columns_write(&lines, f->out);
  line_add(f->out, "      if (!count) continue;");
  if (from == 0) {
    emit_own_mark(k, loop);
    line_add(f->out, "      MOECC_EXPERT(e, count);");
  }
  for (size_t i = from; i < to; i++) {
    emit_own_mark(k, &loop->body[i]);
    emit_call(f, &loop->body[i], "first", "count");
  }
  end_tasks(k);
}

/* Where the calls from `from` on end that have the same unit. */
static size_t end_of_unit(const Step *loop, size_t from) {
  size_t to = from + 1;
  while (to < loop->n_body && (!loop->body[to].unit || loop->body[to].unit == loop->body[from].unit)) to++;
  return to;
}

static void emit_loop(Together *k, const Step *s, const char *begin) {
  Function *f = &k->f;
  const long long n = (long long)s->experts;
  const Following following = {ctx_format(f->e->ctx, "next < %lld", n), "next"};
  emit_note(k, s);
  text_add(f->out, "\n  /* Expert by expert, those that any task has tokens for; the next one loads meanwhile. */\n");
  line_add(f->out, "  for (size_t e = moecc_next_expert_of(%s, %zu, 0, %lld), next; e < %lld; e = next) {", begin,
           k->lockstep->n, n, n);
  line_add(f->out, "    next = moecc_next_expert_of(%s, %zu, e + 1, %lld);", begin, k->lockstep->n, n);
  f->indent = 4;
  for (size_t i = 0, taken = 0, to; i < s->n_body; i = to) {
    const ExpertTake take = expert_take(f, s, taken++);
    to = end_of_unit(s, i);
    emit_mark(f, s);
    emit_take_expert(f, &take, following);
    emit_body(k, s, begin, i, to);
  }
  f->indent = 2;
  text_add(f->out, "  }\n");
}

/* Each task has experts of its own, as where tasks may choose from different ones. */
static void emit_own_loop(Together *k, size_t at) {
  Function *f = &k->f;
  const Step *s = f->segment->step[at];
  const long long n = (long long)s->experts;
  const Following following = {ctx_format(f->e->ctx, "next < %lld", n), "next"};
  Columns lines = {.ctx = f->e->ctx};
  bool *done = ctx_array(f->e->ctx, f->e->program->n_storage + 1, sizeof *done);
  const char **units = ctx_array(f->e->ctx, s->n_body + 1, sizeof *units);
  emit_note(k, s);
  text_add(f->out, "\n  /* Task by task, and expert by expert; the next one with tokens loads meanwhile. */\n");
  for (size_t i = 0; step_unit(s, i); i++) units[i] = ctx_format(f->e->ctx, "%s[t]", emit_unit_table(k, at, i));
  begin_tasks(k);
  emit_pointers(f, s, &lines, done);
  columns_write(&lines, f->out);
  const char *begin = f->local[s->queue_begin->id];
  line_add(f->out, "    for (size_t e = moecc_next_expert(%s, 0, %lld), next; e < %lld; e = next) {", begin, n, n);
  line_add(f->out, "      next = moecc_next_expert(%s, e + 1, %lld);", begin, n);
  line_add(f->out, "      const size_t first = %s[e], count = %s[e + 1] - first;", begin, begin);
  f->indent = 6;
  for (size_t i = 0, taken = 0, to; i < s->n_body; i = to) {
    const ExpertTake take = {units[taken], units[taken + 1], units[0],
                             ctx_format(f->e->ctx, "t + 1 < %zu ? NULL : %s", k->lockstep->n, next_unit(f, s))};
    taken++;
    emit_own_mark(k, s);
    emit_take_expert(f, &take, following);
    if (i == 0) line_add(f->out, "      MOECC_EXPERT(e, count);");
    for (to = i; to < end_of_unit(s, i); to++) {
      emit_own_mark(k, &s->body[to]);
      emit_call(f, &s->body[to], "first", "count");
    }
  }
  f->indent = 4;
  text_add(f->out, "    }\n");
  end_tasks(k);
}

/* ---- a layer ---- */

/* Behind which step do calls that begin with `from` end? What takes no unit belongs to those before it. */
static size_t end_of_calls(const Together *k, size_t from, size_t end) {
  Step *const *step = k->f.segment->step;
  size_t to = from + 1;
  while (to < end && !step[to]->unit && step[to]->kind == STEP_CALL && !loop_to_ask(&k->f, step[to - 1])) to++;
  return to;
}

static size_t place_of(const Segment *s, const Step *step) {
  size_t i = 0;
  while (s->step[i] != step) i++;
  return i;
}

static void emit_steps(Together *k, size_t from, size_t end) {
  Function *f = &k->f;
  Step *const *step = f->segment->step;
  const char *begin = NULL; /* of the next loop's queues, if it has been asked for */
  for (size_t to; from < end; from = to) {
    const Step *s = step[from];
    to = from + 1;
    if (s->kind == STEP_EXPERTS) {
      if (is_shared(k, from))
        emit_loop(k, s, begin ? begin : emit_queues(k, s));
      else
        emit_own_loop(k, from);
      begin = NULL;
      continue;
    }
    to = end_of_calls(k, from, end);
    emit_calls(k, from, to);
    const Step *loop = loop_to_ask(f, step[to - 1]);
    if (!loop || !is_shared(k, place_of(f->segment, loop))) continue;
    begin = emit_queues(k, loop);
    line_add(f->out, "  moecc_ask_expert(&m->c.weights, %s, moecc_next_expert_of(%s, %zu, 0, %lld));",
             unit_reference(f->e, streamed_unit(f->e, loop, 0)), begin, k->lockstep->n, (long long)loop->experts);
  }
}

static NameSet *names_of_layer(Emission *e) {
  static const char *const own[] = {"t", "task"};
  NameSet *names = function_names(e);
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) name_unique(names, own[i]);
  return names;
}

static void emit_layer_together(Emission *e, Text *t, FileTables *tables, const Lockstep *l, size_t layer,
                                size_t from) {
  const Segment *s = &e->schedule->segment[l->first];
  Together k = {.lockstep = l, .before = ""};
  k.step_numbers = s[1].step[0]->number - s->step[0]->number;
  k.f = (Function){.e = e, .out = t, .names = names_of_layer(e), .segment = s, .layer = &s->layer[layer], .indent = 2};
  k.f.local = ctx_array(e->ctx, e->program->n_storage + 1, sizeof *k.f.local);
  k.f.then = "task->then";
  k.f.for_tasks = true;
  const char *scope = label_beyond(label_shared(e->ctx, e->program->graph, k.f.layer->scope), "");
  text_add(t, "\n/* %s */\n", *scope ? text_harmless(e->ctx, scope) : "What belongs to no layer in particular.");
  line_add(t, "static moecc_status %s(%s *m, const %s_frame *task) {", k.f.layer->name_together, e->name, e->name);
  emit_tables(&k.f, tables);
  if (!layer_uses_context(k.f.layer)) text_add(t, "  (void)m;\n");
  emit_steps(&k, from, from + k.f.layer->n_steps);
  text_add(t, "  return MOECC_OK;\n}\n");
}

/* ---- all of it ---- */

const char *lockstep_function(const Emission *e, const Lockstep *l) {
  size_t number = (size_t)(l - e->schedule->lockstep) + 1;
  return number == 1 ? "lockstep" : ctx_format(e->ctx, "lockstep_%zu", number);
}

static const char *task_list(const Emission *e, const Lockstep *l) {
  Text t = {.ctx = e->ctx};
  for (size_t i = 0; i < l->n; i++)
    text_add(&t, "%s%s",
             !i             ? ""
             : i + 1 < l->n ? ", "
                            : " and ",
             e->task[__builtin_ctzll(e->schedule->segment[l->first + i].tasks)].id);
  return t.text;
}

void emit_lockstep(Emission *e, Text *t, const Lockstep *l) {
  const Segment *s = &e->schedule->segment[l->first];
  Text layers = {.ctx = e->ctx};
  FileTables tables = {.early = {.ctx = e->ctx}, .late = {.ctx = e->ctx}};
  for (size_t i = 0, from = 0; i < s->n_layers; from += s->layer[i++].n_steps)
    emit_layer_together(e, &layers, &tables, l, i, from);
  if (tables.early.len) text_add(t, "\n/* Long tables, which stand behind the functions. */\n%s", tables.early.text);
  text_add(t, "%s\n", layers.text);
  line_comment(t, 0,
               ctx_format(e->ctx,
                          "%s side by side: weights that they share are taken once. Their regions lie one behind the "
                          "other.",
                          task_list(e, l)));
  line_add(t, "static moecc_status %s(%s *m, const %s_frame *f) {", lockstep_function(e, l), e->name, e->name);
  text_add(t, "  %s_frame task[%zu];\n  for (size_t t = 0; t < %zu; t++) {\n", e->name, l->n, l->n);
  text_add(t, "    task[t] = *f;\n    task[t].lockstep += t * %lld;\n  }\n", (long long)s->bytes);
  for (size_t i = 0; i < s->n_layers; i++)
    line_add(t, i ? "  if (!status) status = %s(m, task);" : "  moecc_status status = %s(m, task);",
             s->layer[i].name_together);
  text_add(t, "  return status;\n}\n");
  if (tables.late.len) text_add(t, "\n%s", tables.late.text);
}
