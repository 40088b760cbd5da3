/* A kernel's call: arguments as C expressions, in the order of the kernel's parameters. */
#include "emit/call.h"

#include "emit/lines.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { INLINE_TABLE = 4 }; /* up to so many numbers stand in the call itself */

/* ---- numbers ---- */

/* The shortest text that reads back as the same number. */
static const char *float_literal(Ctx *c, double x, bool single) {
  if (isnan(x)) return single ? "NAN" : "(double)NAN";
  if (isinf(x)) return ctx_format(c, "%s%sINFINITY", x < 0 ? "-" : "", single ? "" : "(double)");
  char *s = NULL;
  for (int digits = 1; digits <= 17; digits++) {
    s = ctx_format(c, "%.*g", digits, x);
    if (single ? strtof(s, NULL) == (float)x : strtod(s, NULL) == x) break;
  }
  if (!strpbrk(s, ".e")) s = ctx_format(c, "%s.0", s);
  return single ? ctx_format(c, "%sf", s) : s;
}

static const char *integer_literal(Ctx *c, int64_t i) {
  if (i == INT64_MIN) return "INT64_MIN";
  return ctx_format(c, i > INT32_MAX || i < INT32_MIN ? "INT64_C(%lld)" : "%lld", (long long)i);
}

/* ---- tables ---- */

/* The name of a kernel's parameter, not counting the pool. */
static const char *parameter_name(Ctx *c, const Kernel *k, size_t index) {
  const char *p = strchr(k->prototype, '(');
  for (index += k->pool; p && index > 0; index--) p = strchr(p + 1, ',');
  if (!p) return "table";
  const char *end = p + 1 + strcspn(p + 1, ",)"), *start = end;
  while (start > p &&
         (start[-1] == '_' || (start[-1] >= '0' && start[-1] <= '9') || (start[-1] >= 'a' && start[-1] <= 'z')))
    start--;
  return start < end ? ctx_strndup(c, start, (size_t)(end - start)) : "table";
}

static Table *find_table(Function *f, const Arg *a) {
  for (size_t i = 0; i < f->n_tables; i++)
    if (f->table[i].n == a->n_table && memcmp(f->table[i].number, a->table, a->n_table * sizeof *a->table) == 0)
      return &f->table[i];
  return NULL;
}

void call_collect_tables(Function *f, const Step *s) {
  for (size_t i = 0; i < s->n_args; i++) {
    const Arg *a = &s->arg[i];
    if (a->kind != ARG_TABLE || a->n_table <= INLINE_TABLE || find_table(f, a)) continue;
    const char *name = name_identifier(f->e->ctx, parameter_name(f->e->ctx, s->kernel, i));
    f->table = ctx_grow(f->e->ctx, f->table, f->n_tables, &f->cap_tables, sizeof *f->table);
    f->table[f->n_tables++] = (Table){a->table, a->n_table, name_unique(f->names, name)};
  }
  for (size_t i = 0; i < s->n_body; i++) call_collect_tables(f, &s->body[i]);
}

static const char *table_argument(Function *f, const Arg *a) {
  if (!a->n_table) return "NULL";
  if (a->n_table > INLINE_TABLE) return find_table(f, a)->name;
  Text t = {.ctx = f->e->ctx};
  text_add(&t, "(const int64_t[]){");
  for (size_t i = 0; i < a->n_table; i++) text_add(&t, "%s%s", i ? ", " : "", integer_literal(t.ctx, a->table[i]));
  text_add(&t, "}");
  return t.text;
}

/* ---- weights ---- */

static void look_at_weights(const Arg *arg, size_t n, bool *any, bool *floats) {
  for (size_t i = 0; i < n; i++) {
    if (arg[i].kind == ARG_WEIGHT) {
      *any = true;
      if (arg[i].dtype != DT_F32 || arg[i].offset % 4) *floats = false;
    }
    if (arg[i].kind == ARG_OPERANDS) look_at_weights(arg[i].operand, 2 * arg[i].n_operands, any, floats);
  }
}

bool call_uses_weights(const Layer *l, bool *floats) {
  bool any = false;
  *floats = true;
  for (size_t i = 0; i < l->n_steps; i++) {
    const Step *s = l->step[i];
    look_at_weights(s->arg, s->n_args, &any, floats);
    for (size_t b = 0; b < s->n_body; b++) look_at_weights(s->body[b].arg, s->body[b].n_args, &any, floats);
    any |= s->unit != NULL;
  }
  return any;
}

static const char *shifted(Ctx *c, const char *pointer, int64_t offset) {
  return offset ? ctx_format(c, "%s + %lld", pointer, (long long)offset) : pointer;
}

static const char *weight_argument(Function *f, const Arg *a) {
  Ctx *c = f->e->ctx;
  if (f->floats) return shifted(c, "w", a->offset / 4);
  return ctx_format(c, a->offset ? "(const %s *)(%s)" : "(const %s *)%s", dtype_c(a->dtype),
                    shifted(c, "w", a->offset));
}

/* ---- arguments ---- */

static const char *memory_argument(Function *f, const Arg *a) {
  Ctx *c = f->e->ctx;
  const char *pointer = f->local[a->storage->id];
  if (a->dtype != a->storage->dtype)
    pointer = ctx_format(c, "(%s%s *)%s", a->kind == ARG_READ ? "const " : "", dtype_c(a->dtype), pointer);
  return shifted(c, pointer, a->offset);
}

/* *scratch: bytes for each thread that earlier arguments of the call have taken. */
static const char *scratch_argument(Function *f, const Arg *a, int64_t *scratch) {
  Ctx *c = f->e->ctx;
  int64_t at = *scratch;
  *scratch += a->bytes;
  const char *place = at ? ctx_format(c, "(f->scratch + f->threads * %lld)", (long long)at) : "f->scratch";
  return ctx_format(c, "(%s *)%s", dtype_c(a->dtype), place);
}

static const char *argument(Function *f, const Arg *a, int64_t *scratch);

static const char *operands_argument(Function *f, const Arg *a, int64_t *scratch) {
  Text t = {.ctx = f->e->ctx};
  text_add(&t, "(const moecc_operand[]){");
  for (size_t i = 0; i < a->n_operands; i++)
    text_add(&t, "%s{%s, %lld}", i ? ", " : "", argument(f, &a->operand[2 * i], scratch),
             (long long)a->operand[2 * i + 1].i);
  text_add(&t, "}");
  return t.text;
}

static const char *argument(Function *f, const Arg *a, int64_t *scratch) {
  Ctx *c = f->e->ctx;
  switch (a->kind) {
  case ARG_READ:
  case ARG_WRITE:
  case ARG_UPDATE: return memory_argument(f, a);
  case ARG_SCRATCH: return f->local[a->storage->id];
  case ARG_SCRATCH_EACH: return scratch_argument(f, a, scratch);
  case ARG_WEIGHT: return weight_argument(f, a);
  case ARG_SIZE:
  case ARG_INT: return integer_literal(c, a->i);
  case ARG_FLOAT: return float_literal(c, a->f, true);
  case ARG_DOUBLE: return float_literal(c, a->f, false);
  case ARG_TABLE: return table_argument(f, a);
  case ARG_EXPERT: return "e";
  case ARG_NULL: return "NULL";
  case ARG_FLAGS: return "&m->c.flags";
  case ARG_OPERANDS: return operands_argument(f, a, scratch);
  }
  return "";
}

void emit_call(Function *f, const Step *s, const char *first, const char *count) {
  Text t = {.ctx = f->e->ctx};
  int64_t scratch = 0;
  text_add(&t, "%*s%s(%s", f->indent, "", s->kernel->name, s->kernel->pool ? "m->c.pool" : "");
  for (size_t i = 0; i < s->n_args; i++) {
    const Arg *a = &s->arg[i];
    const char *text = argument(f, a, &scratch);
    if (a->kind == ARG_EXPERT && a->i == EXPERT_BEGIN) text = first;
    if (a->kind == ARG_EXPERT && a->i == EXPERT_COUNT) text = count;
    text_add(&t, "%s%s", i || s->kernel->pool ? ", " : "", text);
  }
  line_add(f->out, "%s);", t.text);
}
