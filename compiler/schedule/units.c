/* Weight units: equal ones (the same parts of the same tensors, packed alike) become one, needed by the tasks of both.
 */
#include "emit/labels.h"
#include "schedule/schedule.h"

#include <string.h>

/* A unit's identity without packing it: its parts' sources by content, and how they are packed. */
static uint64_t unit_hash(Unit *u) {
  uint64_t h = hash_bytes(&u->bytes, sizeof u->bytes, (uint64_t)u->count);
  for (size_t i = 0; i < u->n_parts; i++) {
    const UnitPart *p = &u->part[i];
    uint64_t source = p->source ? tensor_hash((Tensor *)(uintptr_t)p->source) : 0;
    h = hash_bytes(&source, sizeof source, h);
    h = hash_bytes(p->param, sizeof p->param, h ^ p->layout);
    h = hash_bytes(&p->offset, 2 * sizeof p->offset, h);
  }
  return h;
}

static bool same_part(const UnitPart *a, const UnitPart *b) {
  if (a->offset != b->offset || a->bytes != b->bytes || a->write != b->write || a->layout != b->layout) return false;
  if (memcmp(a->param, b->param, sizeof a->param) != 0 || !a->source != !b->source) return false;
  return !a->source || tensor_equal((Tensor *)(uintptr_t)a->source, (Tensor *)(uintptr_t)b->source);
}

static bool same_unit(const Unit *a, const Unit *b) {
  if (a->hash != b->hash || a->bytes != b->bytes || a->count != b->count || a->n_parts != b->n_parts) return false;
  for (size_t i = 0; i < a->n_parts; i++)
    if (!same_part(&a->part[i], &b->part[i])) return false;
  return true;
}

static int64_t table_slot(Unit *const *table, size_t size, const Unit *u) {
  size_t i = (size_t)u->hash & (size - 1);
  while (table[i] && !same_unit(table[i], u)) i = (i + 1) & (size - 1);
  return (int64_t)i;
}

/* What is named: the step that uses the unit first. */
static const char *unit_name(Program *p, const Schedule *s, NameSet *names, const Step *step, const Unit *unit) {
  const Node *n = step->node;
  const char *name = n->name && *n->name ? n->name : n->op_type, *scope = n->scope;
  if (unit->tasks & (unit->tasks - 1)) {
    name = label_shared(p->ctx, p->graph, name);
    scope = label_shared(p->ctx, p->graph, scope);
  }
  bool many = unit->count > 1;
  const char *brief = label_unit(p->ctx, name, scope, s->root, many, false);
  return name_unique(names, name_taken(names, brief) ? label_unit(p->ctx, name, scope, s->root, many, true) : brief);
}

typedef struct {
  Unit **slot;
  size_t size;
} Table;

static Unit *join(Table *t, Unit *u, uint64_t tasks) {
  u->hash = unit_hash(u);
  Unit **slot = &t->slot[table_slot(t->slot, t->size, u)];
  if (!*slot) {
    *slot = u;
    u->tasks = tasks;
  }
  (*slot)->tasks |= tasks;
  return *slot;
}

void schedule_join_units(Program *p) {
  Table t = {.size = 64};
  while (t.size < 2 * p->n_units + 2) t.size *= 2;
  t.slot = ctx_array(p->ctx, t.size, sizeof *t.slot);
  for (Step *s = p->first; s; s = s->next) {
    if (s->kind == STEP_CALL && s->unit) s->unit = join(&t, s->unit, s->tasks);
    for (size_t i = 0; i < s->n_body; i++)
      if (s->body[i].unit) s->body[i].unit = join(&t, s->body[i].unit, s->tasks);
    if (s->kind == STEP_EXPERTS) s->unit = step_unit(s, 0);
  }
}

/* Of calls with the same unit in a row the first one takes it for all. In lockstep that is so if all tasks have this
 * unit; of others each step goes through the tasks. */
static void find_held(const Schedule *s, size_t segment) {
  const Lockstep *l = lockstep_of(s, segment);
  const Unit *last = NULL;
  for (size_t i = 0; i < s->segment[segment].n_steps; i++) {
    Step *step = s->segment[segment].step[i];
    const Unit *own = step->kind == STEP_CALL ? step->unit : NULL;
    step->holds = own && own == last && (!l || lockstep_shares(s, l, i));
    if (own || step->kind == STEP_EXPERTS) last = own;
  }
}

void schedule_held_units(const Schedule *s) {
  for (size_t i = 0; i < s->n_segments; i++) find_held(s, i);
}

void schedule_units(Program *p, Schedule *schedule) {
  Ctx *c = p->ctx;
  size_t kept = 0;
  NameSet *names = names_new(c);
  Unit **unit = ctx_array(c, p->n_units + 1, sizeof *unit);
  for (Step *s = p->first; s; s = s->next) { /* in order of first use */
    Unit *u;
    for (size_t i = 0; (u = step_unit(s, i)); i++) {
      if (u->listed) continue;
      u->listed = true;
      u->name = unit_name(p, schedule, names, u->named ? u->named : s, u);
      u->id = (int)kept;
      unit[kept++] = u;
    }
  }
  p->unit = unit;
  p->n_units = kept;
}
