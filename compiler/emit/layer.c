/* A segment's code: one function for each layer, and the function that calls them.
 *
 * A layer function declares pointers to the memory that it touches, named after the model's values, and then calls
 * kernels, each call under a comment that says which ONNX node it came from.
 */
#include "emit/emit.h"

#include <math.h>
#include <string.h>

enum { COLUMNS = 118 };

/* One layer function in the making. */
typedef struct {
  Emission *e;
  Text *out;
  NameSet *names;
  const Layer *layer;
  const char **local;  /* by Storage.id: the pointer's name, or NULL */
  const char *indent;
  int tables;          /* static tables so far */
  bool weights;        /* `w` is declared */
} Function;

/* ---- literals ---- */

static const char *float_literal(Ctx *c, double x, bool single) {
  if (isnan(x)) return single ? "NAN" : "(double)NAN";
  if (isinf(x)) return ctx_format(c, "%s%sINFINITY", x < 0 ? "-" : "", single ? "" : "(double)");
  char *s = single ? ctx_format(c, "%.9g", x) : ctx_format(c, "%.17g", x);
  if (!strpbrk(s, ".e")) s = ctx_format(c, "%s.0", s);
  return single ? ctx_format(c, "%sf", s) : s;
}

/* The identifier of a value within its layer: what its name has beyond the layer's scope. */
static const char *local_name(Function *f, const Storage *s) {
  const char *name = s->name ? s->name : "temporary", *scope = f->layer->scope;
  while (*name == '/') name++;
  size_t len = strlen(scope);
  if (len && strncmp(name, scope, len) == 0 && name[len] == '/') name += len + 1;
  size_t n = strlen(name);
  const char *output = strstr(name, "_output_0");
  if (output && output[9] == 0) n = (size_t)(output - name);
  char *text = ctx_strndup(f->e->ctx, name, n < 40 ? n : 40);
  return name_unique(f->names, name_identifier(f->e->ctx, text));
}

/* ---- pointers ---- */

static const char *storage_place(Function *f, const Storage *s) {
  Ctx *c = f->e->ctx;
  switch (s->kind) {
  case ST_INPUT: return ctx_format(c, "f->input[%d]", input_index(f->e, s->value));
  case ST_OUTPUT: return ctx_format(c, "f->output[%d]", output_index(f->e, s->value));
  default:
    return ctx_format(c, "(f->region[%d] + %lld)", f->e->schedule->home[s->id], (long long)s->offset);
  }
}

static void declare(void *self, Storage *s, bool writes) {
  (void)writes;
  Function *f = self;
  if (f->local[s->id]) return;
  f->local[s->id] = local_name(f, s);
  const char *type = dtype_c(s->dtype), *constant = s->kind == ST_INPUT ? "const " : "";
  const char *place = storage_place(f, s);
  if (s->kind == ST_ARENA) place = ctx_format(f->e->ctx, "(%s *)%s", type, place);
  text_add(f->out, "  %s%s *const %s = %s; /* %lld */\n", constant, type, f->local[s->id], place,
           (long long)(s->bytes / (int64_t)(dtype_size(s->dtype) ? dtype_size(s->dtype) : 1)));
}

static void declare_tables(Function *f, Step *s) {
  for (size_t i = 0; i < s->n_args; i++) {
    Arg *a = &s->arg[i];
    if (a->kind != ARG_TABLE || !a->n_table) continue;
    a->i = ++f->tables;
    Text line = {.ctx = f->e->ctx};
    text_add(&line, "  static const int64_t table_%d[] = {", f->tables);
    for (size_t k = 0; k < a->n_table; k++) {
      const char *number = ctx_format(f->e->ctx, "%lld%s", (long long)a->table[k], k + 1 < a->n_table ? ", " : "};");
      if (line.len + strlen(number) > COLUMNS) {
        text_add(f->out, "%s\n", line.text);
        line.len = 0;
        text_add(&line, "      ");
      }
      text_add(&line, "%s", number);
    }
    text_add(f->out, "%s\n", line.text);
  }
  for (size_t i = 0; i < s->n_body; i++) declare_tables(f, &s->body[i]);
}

/* ---- calls ---- */

static const char *shifted(Ctx *c, const char *pointer, int64_t offset) {
  return offset ? ctx_format(c, "%s + %lld", pointer, (long long)offset) : pointer;
}

static const char *argument(Function *f, const Arg *a, int64_t *scratch) {
  Ctx *c = f->e->ctx;
  switch (a->kind) {
  case ARG_READ:
  case ARG_WRITE:
  case ARG_UPDATE:
    if (a->dtype != a->storage->dtype)
      return shifted(c, ctx_format(c, "(%s%s *)%s", a->kind == ARG_READ ? "const " : "", dtype_c(a->dtype),
                                   f->local[a->storage->id]), a->offset);
    return shifted(c, f->local[a->storage->id], a->offset);
  case ARG_SCRATCH: return f->local[a->storage->id];
  case ARG_SCRATCH_EACH: {
    int64_t at = *scratch;
    *scratch += a->bytes;
    const char *place = at ? ctx_format(c, "(f->scratch + f->threads * %lld)", (long long)at) : "f->scratch";
    return ctx_format(c, "(%s *)%s", dtype_c(a->dtype), place);
  }
  case ARG_WEIGHT:
    return ctx_format(c, "(const %s *)(w%s)", dtype_c(a->dtype),
                      a->offset ? ctx_format(c, " + %lld", (long long)a->offset) : "");
  case ARG_SIZE:
  case ARG_INT:
    if (a->i == INT64_MIN) return "INT64_MIN";
    return ctx_format(c, a->i > INT32_MAX || a->i < INT32_MIN ? "INT64_C(%lld)" : "%lld", (long long)a->i);
  case ARG_FLOAT: return float_literal(c, a->f, true);
  case ARG_DOUBLE: return float_literal(c, a->f, false);
  case ARG_TABLE: return a->n_table ? ctx_format(c, "table_%lld", (long long)a->i) : "NULL";
  case ARG_EXPERT: return a->i == EXPERT_INDEX ? "e" : a->i == EXPERT_BEGIN ? "first" : "count";
  case ARG_NULL: return "NULL";
  case ARG_FLAGS: return "&m->c.flags";
  case ARG_OPERANDS: {
    Text t = {.ctx = c};
    text_add(&t, "(const moecc_operand[]){");
    for (size_t i = 0; i < a->n_operands; i++)
      text_add(&t, "%s{%s, %lld}", i ? ", " : "", argument(f, &a->operand[2 * i], scratch),
               (long long)a->operand[2 * i + 1].i);
    text_add(&t, "}");
    return t.text;
  }
  }
  return "";
}

/* Writes pieces separated by ", ", breaking lines; the column is where the line stands. */
static void wrap(Function *f, const char *piece, size_t *column, const char *tail) {
  size_t len = strlen(piece) + strlen(tail);
  if (*column + len + 1 > COLUMNS) {
    text_add(f->out, "\n%s    ", f->indent);
    *column = strlen(f->indent) + 4;
  } else if (*column && f->out->text[f->out->len - 1] == ',') {
    text_add(f->out, " ");
    (*column)++;
  }
  text_add(f->out, "%s%s", piece, tail);
  *column += len;
}

static void emit_call(Function *f, const Step *s) {
  int64_t scratch = 0;
  size_t column = strlen(f->indent) + strlen(s->kernel->name) + 1;
  text_add(f->out, "%s%s(", f->indent, s->kernel->name);
  if (s->kernel->pool) wrap(f, "m->c.pool", &column, s->n_args ? "," : "");
  for (size_t i = 0; i < s->n_args; i++)
    wrap(f, argument(f, &s->arg[i], &scratch), &column, i + 1 < s->n_args ? "," : "");
  text_add(f->out, ");\n");
}

/* The comment above a call, wrapped. */
static void emit_note(Function *f, const char *note) {
  const char *text = note ? note : "";
  size_t width = COLUMNS - strlen(f->indent) - 6, len = strlen(text);
  char *safe = ctx_strdup(f->e->ctx, text);
  for (char *p = safe; *p; p++)
    if (*p < 32 || *p > 126 || *p == '\\' || (*p == '/' && p > safe && p[-1] == '*') || (*p == '*' && p > safe && p[-1] == '/') ||
        (*p == '?' && p > safe && p[-1] == '?')) *p = '_';
  text_add(f->out, "%s/* ", f->indent);
  for (const char *p = safe; len > 0;) {
    size_t n = len;
    if (n > width) {
      n = width;
      while (n > width / 2 && p[n] != ' ') n--;
      if (p[n] != ' ') n = width;
    }
    text_add(f->out, "%.*s", (int)n, p);
    p += n, len -= n;
    while (len && *p == ' ') p++, len--;
    if (len) text_add(f->out, "\n%s * ", f->indent);
  }
  text_add(f->out, " */\n");
}

static const char *unit_reference(Emission *e, const Unit *u) {
  return u ? ctx_format(e->ctx, "&unit_%s", u->name) : "NULL";
}

/* The unit to ask for once this step's is there: the next step's, unless that one's is chosen by a router. */
static const Unit *next_unit(const Segment *segment, const Step *s) {
  size_t i = 0;
  while (i < segment->n_steps && segment->step[i] != s) i++;
  for (i++; i < segment->n_steps; i++)
    if (segment->step[i]->unit) return segment->step[i]->kind == STEP_EXPERTS ? NULL : segment->step[i]->unit;
  return NULL;
}

static void emit_take(Function *f, const Segment *segment, const Step *s) {
  text_add(f->out, "  w = moecc_take(&m->c.weights, %s, %s, &status);\n  if (!w) return status;\n",
           unit_reference(f->e, s->unit), unit_reference(f->e, next_unit(segment, s)));
}

/* Expert-major: each expert with tokens once, in ascending order, while the next one is being loaded. */
static void emit_expert_loop(Function *f, const Segment *segment, const Step *s) {
  const char *begin = f->local[s->queue_begin->id];
  const Unit *behind = next_unit(segment, s);
  long long n = (long long)s->experts;
  text_add(f->out, "  for (size_t e = moecc_next_expert(%s, 0, %lld), next; e < %lld; e = next) {\n", begin, n, n);
  text_add(f->out, "    next = moecc_next_expert(%s, e + 1, %lld);\n", begin, n);
  text_add(f->out, "    const moecc_unit *ahead = next < %lld ? %s : %s;\n", n, unit_reference(f->e, s->unit),
           unit_reference(f->e, behind));
  text_add(f->out, "    w = moecc_take_expert(&m->c.weights, %s, e, ahead, next < %lld ? next : 0, &status);\n",
           unit_reference(f->e, s->unit), n);
  text_add(f->out, "    if (!w) return status;\n");
  text_add(f->out, "    const size_t first = %s[e], count = %s[e + 1] - first;\n", begin, begin);
  f->indent = "    ";
  for (size_t i = 0; i < s->n_body; i++) emit_call(f, &s->body[i]);
  f->indent = "  ";
  text_add(f->out, "  }\n");
}

static bool uses_weights(const Layer *l) {
  for (size_t i = 0; i < l->n_steps; i++)
    if (l->step[i]->unit) return true;
  return false;
}

static void emit_layer(Emission *e, Text *t, const Segment *segment, const Layer *l) {
  Function f = {.e = e, .out = t, .names = names_new(e->ctx), .layer = l, .indent = "  "};
  f.local = ctx_array(e->ctx, e->program->n_storage + 1, sizeof *f.local);
  for (size_t i = 0; i < e->program->n_kernels; i++) name_unique(f.names, e->program->kernel[i]->name);
  f.weights = uses_weights(l);
  text_add(t, "\n/* %s */\n", *l->scope ? text_harmless(e->ctx, l->scope) : "What belongs to no layer in particular.");
  text_add(t, "static moecc_status %s(%s *m, const %s_frame *f)\n{\n", l->name, e->name, e->name);
  for (size_t i = 0; i < l->n_steps; i++) step_storages(l->step[i], declare, &f);
  for (size_t i = 0; i < l->n_steps; i++) declare_tables(&f, l->step[i]);
  if (f.weights) text_add(t, "  const unsigned char *w;\n  moecc_status status;\n");
  else text_add(t, "  (void)m;\n");
  for (size_t i = 0; i < l->n_steps; i++) {
    const Step *s = l->step[i];
    if (i == 0 || !s->note || strcmp(l->step[i - 1]->note, s->note) != 0) { /* steps of one node share a comment */
      text_add(t, "\n");
      emit_note(&f, s->note);
    }
    if (s->kind == STEP_EXPERTS) {
      emit_expert_loop(&f, segment, s);
      continue;
    }
    if (s->unit) emit_take(&f, segment, s);
    emit_call(&f, s);
  }
  text_add(t, "  return MOECC_OK;\n}\n");
}

/* ---- units and segments ---- */

/* The units that the segment's steps use, as constants of its file. */
static void emit_units(Emission *e, Text *t, const Segment *s) {
  bool *done = ctx_array(e->ctx, e->program->n_units + 1, sizeof *done);
  for (size_t i = 0; i < s->n_steps; i++) {
    const Unit *u = s->step[i]->unit;
    if (!u || done[u->id]) continue;
    done[u->id] = true;
    const PackUnit *p = &e->pack[u->id];
    const char *data = "NULL";
    if (e->weights == WEIGHTS_EMBED) {
      text_add(t, "extern const uint64_t %s_w_%s[];\n", e->name, u->name);
      data = ctx_format(e->ctx, "%s_w_%s", e->name, u->name);
    }
    text_add(t, "static const moecc_unit unit_%s = {\"%s\", %s, %lluu, %lluu, %lluu, %uu, %du};\n", u->name, u->name, data,
             (unsigned long long)p->offset, (unsigned long long)p->bytes, (unsigned long long)p->stride, p->count, u->id);
  }
}

const char *segment_function(Emission *e, size_t segment) {
  const Segment *s = &e->schedule->segment[segment];
  for (size_t t = 0; t < e->n_tasks; t++)
    if (s->tasks == (uint64_t)1 << t) return ctx_format(e->ctx, "%s_%s_part", e->name, e->task[t].id);
  if (segment == 0) return ctx_format(e->ctx, "%s_trunk", e->name);
  return ctx_format(e->ctx, "%s_shared_%zu", e->name, segment);
}

void emit_segment(Emission *e, Text *t, size_t segment) {
  const Segment *s = &e->schedule->segment[segment];
  text_add(t, "\n");
  emit_units(e, t, s);
  for (size_t i = 0; i < s->n_layers; i++) emit_layer(e, t, s, &s->layer[i]);
  text_add(t, "\nmoecc_status %s(%s *m, const %s_frame *f)\n{\n  moecc_status status = MOECC_OK;\n",
           segment_function(e, segment), e->name, e->name);
  for (size_t i = 0; i < s->n_layers; i++)
    text_add(t, "  if (!status) status = %s(m, f);\n", s->layer[i].name);
  text_add(t, "  return status;\n}\n");
}
