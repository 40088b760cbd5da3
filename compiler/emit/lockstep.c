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

/* Some tasks of those that go together: from `from` on, in front of `to`. */
typedef struct {
  size_t from, to;
} Tasks;

static Tasks all_tasks(const Together *k) { return (Tasks){0, k->lockstep->n}; }

/* A block that is for one task after the other, in which t is its number and f its frame. */
static void begin_tasks(Together *k, Tasks tasks) {
  Text *t = k->f.out;
  if (tasks.to - tasks.from > 1) {
    line_add(t, "%*sfor (unsigned t = %zu; t < %zu; t++) {", k->f.indent, "", tasks.from, tasks.to);
  } else {
    line_add(t, "%*s{", k->f.indent, "");
    line_add(t, "%*sconst unsigned t = %zu;", k->f.indent + 2, "", tasks.from);
  }
  k->f.indent += 2;
  line_add(t, "%*sconst %s_frame *f = &task[t];", k->f.indent, "", k->f.e->name);
}

static void end_tasks(Together *k) {
  k->f.indent -= 2;
  line_add(k->f.out, "%*s}", k->f.indent, "");
}

/* A task's own step. */
static const Step *step_of_task(const Together *k, size_t task, size_t step) {
  return k->f.e->schedule->segment[k->lockstep->first + task].step[step];
}

/* ---- calls ---- */

/* What is asked for behind a task's step, as C. */
static const char *behind(const Together *k, size_t task, size_t step) {
  return unit_reference(k->f.e, unit_behind(k->f.e, k->lockstep->first + task, step));
}

/* Each task's own unit of this step, and what is asked for behind it. Names of the two tables. */
typedef struct {
  const char *units, *ahead;
} OwnUnits;

static OwnUnits emit_own_units(Together *k, size_t step) {
  Function *f = &k->f;
  OwnUnits own = {name_unique(f->names, "units"), name_unique(f->names, "ahead")};
  Text units = {.ctx = f->e->ctx}, ahead = {.ctx = f->e->ctx};
  for (size_t i = 0; i < k->lockstep->n; i++) {
    text_add(&units, "%s%s", i ? ", " : "", unit_reference(f->e, step_of_task(k, i, step)->unit));
    text_add(&ahead, "%s%s", i ? ", " : "", behind(k, i, step));
  }
  line_add(f->out, "%*sstatic const moecc_unit *const %s[] = {%s};", f->indent, "", own.units, units.text);
  line_add(f->out, "%*sstatic const moecc_unit *const %s[] = {%s};", f->indent, "", own.ahead, ahead.text);
  return own;
}

static void emit_take(Together *k, const char *unit, const char *next) {
  line_add(k->f.out, "%*sw = moecc_take(&m->c.weights, %s, %s, &status);", k->f.indent, "", unit, next);
  line_add(k->f.out, "%*sif (!w) return status;", k->f.indent, "");
}

/* Steps `from` to `to` of the segment, the first of which may take a unit, for one task after the other. */
static void emit_calls(Together *k, size_t from, size_t to) {
  Function *f = &k->f;
  Step *const *step = f->segment->step;
  const Unit *unit = step[from]->unit;
  const bool own = unit && !is_shared(k, from);
  OwnUnits units = {NULL, NULL};
  Columns lines = {.ctx = f->e->ctx};
  bool *done = ctx_array(f->e->ctx, f->e->program->n_storage + 1, sizeof *done);
  emit_note(k, step[from]);
  if (own) {
    units = emit_own_units(k, from);
  } else if (unit) {
    emit_mark(f, step[from]);
    emit_take(k, unit_reference(f->e, unit), behind(k, 0, from));
  }
  begin_tasks(k, all_tasks(k));
  for (size_t i = from; i < to; i++) emit_pointers(f, step[i], &lines, done);
  columns_write(&lines, f->out);
  for (size_t i = from; i < to; i++) {
    emit_note(k, step[i]);
    emit_own_mark(k, step[i]);
    if (i == from && own)
      emit_take(k, ctx_format(f->e->ctx, "%s[t]", units.units), ctx_format(f->e->ctx, "%s[t]", units.ahead));
    emit_call(f, step[i], NULL, NULL);
  }
  end_tasks(k);
}

/* ---- expert loops ---- */

/* The loop of some tasks: of all that share its experts, or of one. */
typedef struct {
  const Step *step;  /* of the first of all tasks: what is called, and on which storages */
  const Step *units; /* of the first of these tasks: what is taken */
  const char *begin; /* the table of where each task's queues begin */
  Tasks tasks;
} Loop;

/* Where the queues of each task begin, for a loop; returns the table's name. */
static const char *emit_queues(Together *k, const Step *loop) {
  const char *begin = name_unique(k->f.names, "begin");
  const char *place = storage_place(&k->f, loop->queue_begin, "task[t].");
  line_add(k->f.out, "  const uint32_t *%s[%zu];", begin, k->lockstep->n);
  line_add(k->f.out, "  for (unsigned t = 0; t < %zu; t++) %s[t] = (const uint32_t *)%s;", k->lockstep->n, begin,
           place);
  return begin;
}

/* The loops of step number `at`, from that of a task on. */
static Loop loop_from(const Together *k, size_t at, size_t task, const char *begin) {
  size_t to = is_shared(k, at) ? k->lockstep->n : task + 1;
  return (Loop){k->f.segment->step[at], step_of_task(k, task, at), begin, {task, to}};
}

/* The next expert at or after another that any of the tasks has tokens for, as C. */
static const char *next_expert(const Together *k, const Loop *l, const char *from) {
  const char *begin = l->tasks.from ? ctx_format(k->f.e->ctx, "%s + %zu", l->begin, l->tasks.from) : l->begin;
  return ctx_format(k->f.e->ctx, "moecc_next_expert_of(%s, %zu, %s, %lld)", begin, l->tasks.to - l->tasks.from, from,
                    (long long)l->step->experts);
}

/* The loop that streams experts first, of step number `at`, from that of a task on. */
static bool first_to_stream(const Together *k, size_t at, size_t task, const char *begin, Loop *found) {
  for (; task < k->lockstep->n; task = found->tasks.to) {
    *found = loop_from(k, at, task, begin);
    if (streamed_unit(k->f.e, found->units, 0)) return true;
  }
  return false;
}

/* Calls `from` to `to` of the body, which have one unit, for each task that has tokens for the expert. */
static void emit_body(Together *k, const Loop *l, size_t from, size_t to) {
  Function *f = &k->f;
  Columns lines = {.ctx = f->e->ctx};
  bool *done = ctx_array(f->e->ctx, f->e->program->n_storage + 1, sizeof *done);
  begin_tasks(k, l->tasks);
  line_add(f->out, "      const size_t first = %s[t][e], count = %s[t][e + 1] - first;", l->begin, l->begin);
  for (size_t i = from; i < to; i++) emit_pointers(f, &l->step->body[i], &lines, done);
  columns_write(&lines, f->out);
  if (l->tasks.to - l->tasks.from > 1) line_add(f->out, "      if (!count) continue;");
  for (size_t i = from; i < to; i++) {
    emit_own_mark(k, &l->step->body[i]);
    if (i == 0) line_add(f->out, "      MOECC_EXPERT(e, count);");
    emit_call(f, &l->step->body[i], "first", "count");
  }
  end_tasks(k);
}

/* Where the calls from `from` on end that have the same unit. */
static size_t end_of_unit(const Step *loop, size_t from) {
  size_t to = from + 1;
  while (to < loop->n_body && (!loop->body[to].unit || loop->body[to].unit == loop->body[from].unit)) to++;
  return to;
}

static void emit_loop(Together *k, size_t at, const Loop *l) {
  Function *f = &k->f;
  Loop later;
  const bool more = first_to_stream(k, at, l->tasks.to, l->begin, &later);
  const long long n = (long long)l->step->experts;
  const Following following = {ctx_format(f->e->ctx, "next < %lld", n), "next"};
  line_add(f->out, "  for (size_t e = %s, next; e < %lld; e = next) {", next_expert(k, l, "0"), n);
  line_add(f->out, "    next = %s;", next_expert(k, l, "e + 1"));
  f->indent = 4;
  for (size_t i = 0, taken = 0, to; i < l->step->n_body; i = to) {
    ExpertTake take = expert_take(f, l->units, taken++);
    take.last = more ? unit_reference(f->e, streamed_unit(f->e, later.units, 0)) : behind(k, l->tasks.from, at);
    if (more) take.last_index = next_expert(k, &later, "0");
    to = end_of_unit(l->step, i);
    emit_mark(f, l->units);
    emit_take_expert(f, &take, following);
    emit_body(k, l, i, to);
  }
  f->indent = 2;
  text_add(f->out, "  }\n");
}

/* All tasks' loops of a step: one, or, where each has experts of its own, as where tasks may choose from different
 * ones, one for each. */
static void emit_loops(Together *k, size_t at, const char *begin) {
  Text *t = k->f.out;
  const bool shared = is_shared(k, at);
  emit_note(k, k->f.segment->step[at]);
  text_add(t, shared ? "\n  /* Expert by expert, those that any task has tokens for; the next one loads meanwhile. */\n"
                     : "\n  /* Task by task, and expert by expert; the next one with tokens loads meanwhile. */\n");
  for (size_t task = 0; task < k->lockstep->n;) {
    const Loop loop = loop_from(k, at, task, begin);
    emit_loop(k, at, &loop);
    task = loop.tasks.to;
  }
}

/* ---- a layer ---- */

/* Behind which step do calls that begin with `from` end? What takes no unit, or holds that one, belongs to those before
 * it. */
static size_t end_of_calls(const Together *k, size_t from, size_t end) {
  Step *const *step = k->f.segment->step;
  size_t to = from + 1;
  while (to < end && step[to]->kind == STEP_CALL && !loop_to_ask(&k->f, step[to - 1]) &&
         (!step[to]->unit || (step[to]->holds && step[from]->unit)))
    to++;
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
      emit_loops(k, from, begin ? begin : emit_queues(k, s));
      begin = NULL;
      continue;
    }
    to = end_of_calls(k, from, end);
    emit_calls(k, from, to);
    const Step *loop = loop_to_ask(f, step[to - 1]);
    if (!loop) continue;
    begin = emit_queues(k, loop);
    const Loop first = loop_from(k, place_of(f->segment, loop), 0, begin);
    line_add(f->out, "  moecc_ask_expert(&m->c.weights, %s, %s);",
             unit_reference(f->e, streamed_unit(f->e, first.units, 0)), next_expert(k, &first, "0"));
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
  k.f.then = "NULL";
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
