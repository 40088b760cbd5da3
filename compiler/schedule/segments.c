/* Segments: steps by the set of tasks that needs them, larger sets first. Layers: runs of a segment's steps that come
 * from the same place in the model, found by going down the paths of the nodes' scopes until a run fits on a page. */
#include "emit/labels.h"
#include "schedule/schedule.h"

#include <string.h>

enum { LAYER_STEPS = 16 };

static int bits(uint64_t x) { return __builtin_popcountll(x); }

static Segment *segment_of(Program *p, Schedule *s, uint64_t tasks) {
  for (size_t i = 0; i < s->n_segments; i++)
    if (s->segment[i].tasks == tasks) return &s->segment[i];
  s->segment = ctx_grow(p->ctx, s->segment, s->n_segments, &s->cap_segments, sizeof *s->segment);
  size_t at = s->n_segments++;
  for (; at > 0; at--) {
    const Segment *before = &s->segment[at - 1];
    if (bits(before->tasks) > bits(tasks) || (bits(before->tasks) == bits(tasks) && before->tasks < tasks)) break;
    s->segment[at] = *before;
  }
  s->segment[at] = (Segment){.tasks = tasks};
  return &s->segment[at];
}

/* ---- layers ---- */

typedef struct {
  Program *program;
  Segment *segment;
  NameSet *names, *together; /* of N_all's functions, or NULL */
  const char *root;
} Layers;

/* The component of a scope at a depth, or an empty one behind its end. */
static const char *component(const char *scope, int depth, size_t *len) {
  for (; depth > 0 && *scope; depth--) {
    scope += strcspn(scope, "/");
    if (*scope) scope++;
  }
  *len = strcspn(scope, "/");
  return scope;
}

static bool same_component(const Step *a, const Step *b, int depth) {
  size_t m, n;
  const char *x = component(a->node->scope, depth, &m), *y = component(b->node->scope, depth, &n);
  return m == n && memcmp(x, y, m) == 0;
}

/* What all the steps' scopes begin with; at whole components. */
static char *common_scope(Ctx *c, Step *const *step, size_t n) {
  char *scope = ctx_strdup(c, step[0]->node->scope);
  for (size_t i = 1; i < n; i++) label_common(scope, step[i]->node->scope);
  return scope;
}

/* "blocks_3" for the path "net/blocks.3" in a network whose layers all are in "net". */
static const char *layer_name(const Layers *l, NameSet *names, const char *scope, bool shared) {
  Ctx *c = l->program->ctx;
  const char *path = label_beyond(scope, l->root);
  if (shared) path = label_shared(c, l->program->graph, path);
  const char *name = name_identifier(c, *path ? path : "layer");
  /* unit_… are the weights' names */
  if (strncmp(name, "unit_", 5) == 0 || name_in_library(name)) name = ctx_format(c, "layer_%s", name);
  return name_unique(names, name);
}

static void add_layer(Layers *l, Step **step, size_t n) {
  Ctx *c = l->program->ctx;
  Segment *s = l->segment;
  char *scope = common_scope(c, step, n);
  const char *name = layer_name(l, l->names, scope, (s->tasks & (s->tasks - 1)) != 0);
  const char *together = l->together ? layer_name(l, l->together, scope, true) : NULL;
  s->layer = ctx_grow(c, s->layer, s->n_layers, &s->cap_layers, sizeof *s->layer);
  s->layer[s->n_layers++] =
      (Layer){.name = name, .name_together = together, .scope = scope, .step = step, .n_steps = n};
  for (size_t i = 0; i < n; i++) step[i]->layer = name;
}

static bool ends_at(const Step *s, int depth) {
  size_t len;
  return component(s->node->scope, depth, &len)[0] == 0;
}

static void split_layers(Layers *l, Step **step, size_t n, int depth) {
  if (n <= LAYER_STEPS) {
    add_layer(l, step, n);
    return;
  }
  for (size_t from = 0, to; from < n; from = to) {
    for (to = from + 1; to < n && same_component(step[from], step[to], depth);) to++;
    if (!ends_at(step[from], depth)) {
      split_layers(l, step + from, to - from, depth + 1);
      continue;
    }
    for (size_t at = from; at < to; at += LAYER_STEPS)
      add_layer(l, step + at, to - at < LAYER_STEPS ? to - at : LAYER_STEPS);
  }
}

/* Steps without a scope belong with those before them (or, at the start, behind them). */
static void fill_scopes(Program *p) {
  const char *scope = "";
  for (Step *s = p->first; s && !*scope; s = s->next) scope = s->node->scope ? s->node->scope : "";
  for (Step *s = p->first; s; s = s->next) {
    if (s->node->scope && *s->node->scope) {
      scope = s->node->scope;
      continue;
    }
    Node *twin = ctx_alloc(p->ctx, sizeof *twin);
    *twin = *s->node;
    twin->scope = scope;
    s->node = twin;
  }
}

/* The path that all layers are in. */
static const char *common_root(Program *p) {
  char *root = p->first ? ctx_strdup(p->ctx, p->first->node->scope) : "";
  for (Step *s = p->first; s; s = s->next) label_common(root, s->node->scope);
  return root;
}

void schedule_segments(Program *p, Schedule *s) {
  fill_scopes(p);
  for (Step *step = p->first; step; step = step->next) {
    Segment *segment = segment_of(p, s, step->tasks);
    segment->step = ctx_grow(p->ctx, segment->step, segment->n_steps, &segment->cap_steps, sizeof *segment->step);
    segment->step[segment->n_steps++] = step;
  }
  s->root = common_root(p);
}

static NameSet *names_of_functions(Program *p) {
  static const char *const own[] = {"network", "arena_bytes", "lockstep"}; /* of N.c and N_all.c */
  NameSet *names = names_new(p->ctx);
  name_unique(names, p->graph->name);
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) name_unique(names, own[i]);
  for (size_t i = 0; i < p->n_kernels; i++) name_unique(names, p->kernel[i]->name);
  return names;
}

void schedule_layers(Program *p, Schedule *s) {
  Layers l = {.program = p, .names = names_of_functions(p), .root = s->root};
  NameSet *together = names_of_functions(p);
  for (size_t i = 0; i < s->n_segments; i++) {
    const Lockstep *lockstep = lockstep_of(s, i);
    l.segment = &s->segment[i];
    l.together = lockstep && lockstep->first == i ? together : NULL;
    split_layers(&l, s->segment[i].step, s->segment[i].n_steps, 0);
  }
}
