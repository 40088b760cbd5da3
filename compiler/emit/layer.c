/* A layer's function: pointers to the memory that it touches, named after the model's values, then calls of kernels,
 * each under a comment that says which ONNX node it came from.
 */
#include "emit/call.h"
#include "emit/labels.h"
#include "emit/lines.h"

#include <string.h>

/* ---- declarations ---- */

/* A path of the first task's, as all tasks have it. */
static const char *without_task(const Function *f, const char *name) {
  return f->for_tasks ? label_beyond(label_shared(f->e->ctx, f->e->program->graph, name), "") : name;
}

/* What the function calls a value: as short as it can be without meaning two things. */
static const char *local_name(Function *f, const Storage *s) {
  const char *name = without_task(f, s->name ? s->name : "temporary"), *within = without_task(f, f->layer->scope);
  const char *brief = label_value(f->e->ctx, name, within, false);
  return name_unique(f->names, name_taken(f->names, brief) ? label_value(f->e->ctx, name, within, true) : brief);
}

/* "f32[1,129,96]" where the storage holds just that value, else "f32[12384]". */
static const char *contents(Function *f, const Storage *s) {
  const Value *v = s->name ? graph_find(f->e->program->graph, s->name) : NULL;
  int64_t size = (int64_t)dtype_size(s->dtype), count = size ? s->bytes / size : 0;
  if (v && v->dtype == s->dtype && shape_count(&v->shape) == count) return shape_text(f->e->ctx, v->dtype, &v->shape);
  Shape row = shape_of(1, &count);
  return shape_text(f->e->ctx, s->dtype, &row);
}

const char *storage_place(Function *f, const Storage *s, const char *frame) {
  Ctx *c = f->e->ctx;
  const char *region = segment_region(f->e, (size_t)f->e->schedule->home[s->id]);
  return s->offset ? ctx_format(c, "(%s%s + %lld)", frame, region, (long long)s->offset)
                   : ctx_format(c, "%s%s", frame, region);
}

typedef struct {
  Function *f;
  Columns *lines;
  bool *done; /* by Storage.id */
} Declarations;

static void declare(void *self, Storage *s, bool writes) {
  (void)writes;
  Declarations *d = self;
  Function *f = d->f;
  Ctx *c = f->e->ctx;
  if (d->done[s->id]) return;
  d->done[s->id] = true;
  if (s->kind != ST_ARENA) {
    f->local[s->id] = ctx_format(c, "f->%s.%s", s->kind == ST_INPUT ? "in" : "out", port_of_value(f->e, s->value)->id);
    return;
  }
  if (!f->local[s->id]) f->local[s->id] = local_name(f, s);
  const char *type = dtype_c(s->dtype);
  columns_add(d->lines,
              ctx_format(c, "%*s%s *const %s = (%s *)%s;", f->indent, "", type, f->local[s->id], type,
                         storage_place(f, s, "f->")),
              ctx_format(c, "/* %s */", contents(f, s)));
}

void emit_pointers(Function *f, const Step *s, Columns *lines, bool *done) {
  Declarations d = {f, lines, done};
  step_storages(s, declare, &d);
}

enum { LONG_TABLE = 32 }; /* numbers from which on a table would be in the reader's way */

static void declare_table(Function *f, FileTables *tables, Table *table) {
  bool far = table->n > LONG_TABLE;
  if (far) {
    table->name = ctx_format(f->e->ctx, "%s_%s_table", f->layer->name, table->name);
    line_add(&tables->early, "static const int64_t %s[%zu];", table->name, table->n);
  }
  Text t = {.ctx = f->e->ctx};
  text_add(&t, "%sstatic const int64_t %s[] = {", far ? "" : "  ", table->name);
  for (size_t i = 0; i < table->n; i++) text_add(&t, "%s%lld", i ? ", " : "", (long long)table->number[i]);
  line_add(far ? &tables->late : f->out, "%s};", t.text);
}

void emit_tables(Function *f, FileTables *tables) {
  const Layer *l = f->layer;
  for (size_t i = 0; i < l->n_steps; i++) call_collect_tables(f, l->step[i]);
  for (size_t i = 0; i < f->n_tables; i++) declare_table(f, tables, &f->table[i]);
  if (call_uses_weights(l, &f->floats))
    text_add(f->out, "  const %s *w;\n  moecc_status status;\n", f->floats ? "float" : "unsigned char");
}

static void declare_all(Function *f, FileTables *tables) {
  Columns lines = {.ctx = f->e->ctx};
  bool *done = ctx_array(f->e->ctx, f->e->program->n_storage + 1, sizeof *done);
  for (size_t i = 0; i < f->layer->n_steps; i++) emit_pointers(f, f->layer->step[i], &lines, done);
  columns_write(&lines, f->out);
  emit_tables(f, tables);
}

/* ---- comments ---- */

enum { MOST_SHAPES = 6 };

/* The first few: a Concat of hundreds would be a page. */
static void add_shapes(Text *t, Value *const *v, int n, bool constants) {
  const char *separator = "";
  for (int i = 0, shown = 0; i < n; i++) {
    if (!v[i] || (v[i]->tensor && !constants)) continue;
    if (shown++ == MOST_SHAPES) {
      text_add(t, ", ...");
      return;
    }
    text_add(t, "%s%s", separator, shape_text(t->ctx, v[i]->dtype, &v[i]->shape));
    separator = ", ";
  }
}

/* Is the output named after the node, give or take what exporters add? */
static bool named_alike(const char *node, const char *output) {
  if (strncmp(node, "node_", 5) == 0) node += 5;
  size_t n = strlen(node);
  return strncmp(output, node, n) == 0 && (!output[n] || strncmp(output + n, "_output_", 8) == 0);
}

/* "MatMul /attn/qkv/MatMul to /attn/qkv/Add: f32[1,129,96] -> f32[1,129,288]": the node, the one whose result it gives
 * where others were joined with it, and shapes; constants are left out. */
static const char *note_text(Ctx *c, const Node *n) {
  Text t = {.ctx = c};
  const char *name = n->name ? n->name : "", *output = n->n_out && n->out[0] ? n->out[0]->name : "";
  const char *suffix = strstr(output, "_output_");
  text_add(&t, "%s", text_harmless(c, n->op_type ? n->op_type : op_info(n->op)->name));
  if (*name) text_add(&t, " %s", text_harmless(c, name));
  if (*output && !named_alike(name, output)) {
    output = suffix && suffix > output ? ctx_strndup(c, output, (size_t)(suffix - output)) : output;
    if (strcmp(output, name) != 0) text_add(&t, " to %s", text_harmless(c, output));
  }
  text_add(&t, ": ");
  size_t before = t.len;
  add_shapes(&t, n->in, n->n_in, false);
  text_add(&t, t.len > before ? " -> " : "-> ");
  add_shapes(&t, n->out, n->n_out, true);
  return t.text;
}

const char *step_note(Function *f, const Step *s) {
  Ctx *c = f->e->ctx;
  const char *note = note_text(c, s->node);
  if (s->with) note = ctx_format(c, "%s\nand at once %s", note_text(c, s->with), note);
  note = without_task(f, note);
  if (!s->band_rows) return note;
  return ctx_format(c, "%s\nrows %lld to %lld", note, (long long)s->band_first,
                    (long long)(s->band_first + s->band_rows - 1));
}

/* ---- weights ---- */

const char *unit_reference(Emission *e, const Unit *u) { return u ? ctx_format(e->ctx, "&unit_%s", u->name) : "NULL"; }

/* Index of the step in its segment. */
static size_t place_in_segment(const Segment *segment, const Step *s) {
  size_t i = 0;
  while (i < segment->n_steps && segment->step[i] != s) i++;
  return i;
}

/* The next that is streamed, unless it is chosen by a router; behind the segment's last, what the call goes on with. */
const char *next_unit(const Function *f, const Step *s) {
  const Segment *segment = f->segment;
  for (size_t i = place_in_segment(segment, s) + 1; i < segment->n_steps; i++)
    if (streams_another(f->e, segment->step[i], s->unit))
      return unit_reference(f->e, segment->step[i]->kind == STEP_EXPERTS ? NULL : segment->step[i]->unit);
  return f->then;
}

static void emit_take(Function *f, const Step *s) {
  line_add(f->out, "  w = moecc_take(&m->c.weights, %s, %s, &status);", unit_reference(f->e, s->unit), next_unit(f, s));
  line_add(f->out, "  if (!w) return status;");
}

static bool writes(const Step *s, const Storage *st) {
  for (size_t i = 0; i < s->n_args; i++)
    if (s->arg[i].storage == st && s->arg[i].kind == ARG_WRITE) return true;
  return false;
}

const Step *loop_to_ask(const Function *f, const Step *s) {
  const Segment *segment = f->segment;
  size_t i = place_in_segment(segment, s) + 1, start = i;
  while (i < segment->n_steps && !segment->step[i]->unit) i++;
  const Step *loop = i < segment->n_steps ? segment->step[i] : NULL;
  if (i == start || !loop || loop->kind != STEP_EXPERTS || loop->token_major) return NULL;
  return writes(s, loop->queue_begin) && streamed_unit(f->e, loop, 0) ? loop : NULL;
}

/* Behind the step that fills the queues, unless the loop follows at once: the first expert with tokens is asked for. */
static void emit_ask(Function *f, const Step *s) {
  const Step *loop = loop_to_ask(f, s);
  if (!loop) return;
  line_add(f->out, "  moecc_ask_expert(&m->c.weights, %s, moecc_next_expert(%s, 0, %lld));",
           unit_reference(f->e, streamed_unit(f->e, loop, 0)), f->local[loop->queue_begin->id],
           (long long)loop->experts);
}

/* Nothing in ordinary builds (runtime/moecc_rt_trace.h). */
void emit_mark(Function *f, const Step *s) { line_add(f->out, "%*sMOECC_STEP(%d);", f->indent, "", s->number); }

/* ---- expert loops ---- */

ExpertTake expert_take(Function *f, const Step *s, size_t i) {
  const Unit *behind = streamed_unit(f->e, s, i + 1), *first = streamed_unit(f->e, s, 0);
  return (ExpertTake){unit_reference(f->e, step_unit(s, i)), behind ? unit_reference(f->e, behind) : NULL,
                      first ? unit_reference(f->e, first) : NULL, next_unit(f, s), "0"};
}

void emit_take_expert(Function *f, const ExpertTake *take, Following next) {
  Text *t = f->out;
  if (take->behind) {
    line_add(t, "%*sw = moecc_take_expert(&m->c.weights, %s, e, %s, e, &status);", f->indent, "", take->unit,
             take->behind);
  } else if (!take->first) {
    line_add(t, "%*sw = moecc_take_expert(&m->c.weights, %s, e, %s, %s, &status);", f->indent, "", take->unit,
             take->last, take->last_index);
  } else {
    line_add(t, "%*sw = moecc_take_expert(&m->c.weights, %s, e, %s ? %s : %s, %s ? %s : %s, &status);", f->indent, "",
             take->unit, next.exists, take->first, take->last, next.exists, next.index, take->last_index);
  }
  line_add(t, "%*sif (!w) return status;", f->indent, "");
}

/* The body's calls, each behind the take of its unit. */
static void emit_body(Function *f, const Step *s, const char *first, const char *count, Following next) {
  const Unit *held = NULL;
  f->indent = 4;
  for (size_t i = 0, taken = 0; i < s->n_body; i++) {
    const Step *call = &s->body[i];
    if (call->unit && call->unit != held) {
      if (taken > 0) emit_mark(f, s);
      const ExpertTake take = expert_take(f, s, taken++);
      emit_take_expert(f, &take, next);
      held = call->unit;
    }
    emit_mark(f, call);
    if (i == 0) line_add(f->out, "    MOECC_EXPERT(e, %s);", count);
    emit_call(f, call, first, count);
  }
  f->indent = 2;
  text_add(f->out, "  }\n");
}

/* Expert-major: each expert that has tokens once, in ascending order. */
static void emit_expert_major(Function *f, const Step *s) {
  Text *t = f->out;
  const char *begin = f->local[s->queue_begin->id];
  long long n = (long long)s->experts;
  const Following following = {ctx_format(f->e->ctx, "next < %lld", n), "next"};
  text_add(t, "\n  /* Expert by expert; the next one with tokens loads meanwhile. */\n");
  line_add(t, "  for (size_t e = moecc_next_expert(%s, 0, %lld), next; e < %lld; e = next) {", begin, n, n);
  line_add(t, "    MOECC_STEP(%d);", s->number);
  line_add(t, "    next = moecc_next_expert(%s, e + 1, %lld);", begin, n);
  line_add(t, "    const size_t first = %s[e], count = %s[e + 1] - first;", begin, begin);
  emit_body(f, s, "first", "count", following);
}

/* Token-major: each token's experts, ascending, before the next token's. The queues are then the pairs of a token and
 * an expert as the router wrote them. */
static void emit_token_major(Function *f, const Step *s) {
  Text *t = f->out;
  const char *chosen = f->local[s->queue_begin->id];
  long long n = (long long)s->queue_entries;
  const Following following = {ctx_format(f->e->ctx, "i + 1 < %lld", n), ctx_format(f->e->ctx, "%s[i + 1]", chosen)};
  text_add(t, "\n  /* Token by token, each with its experts; the next one loads meanwhile. */\n");
  line_add(t, "  for (size_t i = 0; i < %lld; i++) {", n);
  line_add(t, "    MOECC_STEP(%d);", s->number);
  line_add(t, "    const size_t e = %s[i];", chosen);
  emit_body(f, s, "i", "1", following);
}

/* ---- the function ---- */

/* held: the unit that w points to, or NULL. */
static void emit_step(Function *f, const Step *s, const Unit *held) {
  if (s->kind == STEP_EXPERTS) {
    if (s->token_major)
      emit_token_major(f, s);
    else
      emit_expert_major(f, s);
    return;
  }
  emit_mark(f, s);
  if (s->unit && s->unit != held) emit_take(f, s);
  emit_call(f, s, NULL, NULL);
  emit_ask(f, s);
}

NameSet *function_names(Emission *e) {
  static const char *const own[] = {"m", "f", "w", "e", "i", "next", "first", "count", "status"};
  NameSet *names = names_new(e->ctx);
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) name_unique(names, own[i]);
  for (size_t i = 0; i < e->program->n_kernels; i++) name_unique(names, e->program->kernel[i]->name);
  return names;
}

/* Does any call of the layer use the context? */
bool layer_uses_context(const Layer *l) {
  for (size_t i = 0; i < l->n_steps; i++) {
    const Step *s = l->step[i];
    if (s->unit || s->kind == STEP_EXPERTS || s->kernel->pool) return true;
    for (size_t k = 0; k < s->n_args; k++)
      if (s->arg[k].kind == ARG_FLAGS) return true;
  }
  return false;
}

void emit_layer(Emission *e, Text *t, FileTables *tables, const Segment *segment, const Layer *l) {
  Function f = {.e = e, .out = t, .names = function_names(e), .segment = segment, .layer = l, .indent = 2};
  f.local = ctx_array(e->ctx, e->program->n_storage + 1, sizeof *f.local);
  f.then = emit_asks_ahead(e) ? "f->then" : "NULL";
  text_add(t, "\n/* %s */\n", *l->scope ? text_harmless(e->ctx, l->scope) : "What belongs to no layer in particular.");
  line_add(t, "static moecc_status %s(%s *m, const %s_frame *f) {", l->name, e->name, e->name);
  declare_all(&f, tables);
  if (!layer_uses_context(l)) text_add(t, "  (void)m;\n");
  const char *before = "";
  const Unit *held = NULL;
  for (size_t i = 0; i < l->n_steps; i++) {
    const char *note = step_note(&f, l->step[i]);
    if (strcmp(note, before) != 0) { /* steps of one node share a comment */
      text_add(t, "\n");
      line_comment(t, 2, note);
    }
    before = note;
    emit_step(&f, l->step[i], held);
    if (l->step[i]->unit) held = l->step[i]->kind == STEP_CALL ? l->step[i]->unit : NULL;
  }
  text_add(t, "  return MOECC_OK;\n}\n");
}
