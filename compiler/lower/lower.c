/* The driver of lowering, and what every lowering uses: storages, views of values, steps and their arguments. */
#include "lower/bands.h"
#include "lower/lower.h"
#include "lower/tuning.h"

#include <string.h>

#define OP(id, name, domain, i0, i1, o0, o1, since, until, shape, lowering, ...)                                       \
  void lower_##lowering(Program *p, Node *n);
#include "ops.def"

static void (*const lowerings[OP_COUNT])(Program *p, Node *n) = {
#define OP(id, name, domain, i0, i1, o0, o1, since, until, shape, lowering, ...) [OP_##id] = lower_##lowering,
#include "ops.def"
};

/* For operators that must be gone by now: folded, or recognised as part of something else. */
void lower_none(Program *p, Node *n) {
  ctx_fail(p->ctx, n,
           "cannot be computed at run time: its operands must be constants, or it must be part of a pattern "
           "that the compiler recognises (see `moecc ops`)");
}

/* ---- storages and views ---- */

static Storage *new_storage(Program *p, enum StorageKind kind, const char *name, DType t, int64_t bytes) {
  Storage *s = ctx_alloc(p->ctx, sizeof *s);
  s->kind = kind;
  s->id = (int)p->n_storage;
  s->name = name;
  s->dtype = t;
  s->bytes = bytes;
  s->tasks = p->current ? p->current->tasks : 0;
  s->first = s->last = -1;
  p->storage = ctx_grow(p->ctx, p->storage, p->n_storage, &p->cap_storage, sizeof *p->storage);
  p->storage[p->n_storage++] = s;
  return s;
}

static int64_t value_count(Program *p, const Value *v) {
  if (!shape_known(&v->shape))
    ctx_fail(p->ctx, v->producer, "\"%s\" has the shape %s, which is not fixed: give free dimensions with --dim NAME=N",
             v->name, shape_text(p->ctx, v->dtype, &v->shape));
  int64_t n = shape_count(&v->shape), bytes;
  if (n < 0 || !size_mul(n, 8, &bytes)) ctx_fail(p->ctx, v->producer, "\"%s\" is too large", v->name);
  return n;
}

static void set_strides(View *w, const int *order) {
  int64_t stride = 1;
  for (int i = w->rank - 1; i >= 0; i--) {
    int d = order ? order[i] : i;
    w->stride[d] = stride;
    stride *= w->dim[d];
  }
}

static View value_view(const Value *v, Storage *s, const int *order) {
  View w = {.storage = s, .dtype = v->dtype, .rank = v->shape.rank};
  for (int i = 0; i < w.rank; i++) w.dim[i] = v->shape.dim[i].n;
  set_strides(&w, order);
  return w;
}

View low_view(Program *p, Value *v) {
  View *known = &p->view[v->id];
  if (known->storage || known->constant) return *known;
  if (v->tensor) {
    *known = value_view(v, NULL, NULL);
    known->constant = v->tensor;
    return *known;
  }
  ctx_fail(p->ctx, v->producer, "internal error: \"%s\" is read before it is computed", v->name);
}

/* A copy is part of whatever needs the value, not only of the node that asks, so that all who ask can share it. */
static View copy_to(Program *p, Value *v, const View *from, const int *order) {
  for (size_t i = 0; i < p->n_copies; i++)
    if (p->copy[i].value == v && view_has_order(&p->copy[i].view, order)) return p->copy[i].view;
  const Node *asking = p->current;
  Node *owner = ctx_alloc(p->ctx, sizeof *owner);
  *owner = *asking;
  if (v->tasks) owner->tasks = v->tasks;
  p->current = owner;
  View to = value_view(
      v, new_storage(p, ST_ARENA, v->name, v->dtype, value_count(p, v) * (int64_t)dtype_size(v->dtype)), order);
  low_copy(p, owner, from, &to);
  p->current = asking;
  p->copy = ctx_grow(p->ctx, p->copy, p->n_copies, &p->cap_copies, sizeof *p->copy);
  p->copy[p->n_copies].value = v;
  p->copy[p->n_copies++].view = to;
  return to;
}

View low_order(Program *p, Value *v, const int *order) {
  View w = low_view(p, v);
  return view_has_order(&w, order) ? w : copy_to(p, v, &w, order);
}

View low_packed(Program *p, Value *v) { return low_order(p, v, NULL); }

View low_last_dense(Program *p, Value *v) {
  View w = low_view(p, v);
  int last = w.rank - 1;
  return last < 0 || w.stride[last] == 1 || w.dim[last] == 1 ? w : copy_to(p, v, &w, NULL);
}

static bool single_task(uint64_t tasks) { return (tasks & (tasks - 1)) == 0; }

View low_output(Program *p, Value *v, const int *order) {
  int64_t bytes = value_count(p, v) * (int64_t)dtype_size(v->dtype);
  View plain = value_view(v, NULL, NULL);
  bool direct = !p->folding && v->is_output && single_task(v->tasks) && view_has_order(&plain, order);
  Storage *s = new_storage(p, direct ? ST_OUTPUT : ST_ARENA, v->name, v->dtype, bytes);
  s->value = direct ? v : NULL;
  View w = value_view(v, s, order);
  p->view[v->id] = w;
  return w;
}

void low_alias(Program *p, Value *v, View w) {
  w.dtype = v->dtype;
  p->view[v->id] = w;
}

View low_temp(Program *p, const char *name, DType t, int64_t count) {
  int64_t bytes;
  if (!size_mul(count, (int64_t)dtype_size(t), &bytes))
    ctx_fail(p->ctx, p->current, "its temporary \"%s\" is too large", name);
  View w = {.storage = new_storage(p, ST_ARENA, ctx_strdup(p->ctx, name), t, bytes), .dtype = t, .rank = 1};
  w.dim[0] = count;
  w.stride[0] = 1;
  return w;
}

/* ---- steps ---- */

static Step *add_step(Program *p, const Node *n, enum StepKind kind) {
  Step *s = ctx_alloc(p->ctx, sizeof *s);
  s->kind = kind;
  s->program = p;
  s->node = n;
  s->tasks = n->tasks;
  s->index = p->n_steps++;
  if (p->last)
    p->last->next = s;
  else
    p->first = s;
  p->last = s;
  return s;
}

/* A tile is asked for just before the call that it is for; copies of operands may come between. */
static const struct TileRequest *tile_of(const Program *p, const Kernel *k) {
  return p->wants_tile && strcmp(p->wants_tile->kernel, k->template) == 0 ? p->wants_tile : NULL;
}

Step *low_call(Program *p, const Node *n, Kernel *k) {
  Step *s = add_step(p, n, STEP_CALL);
  s->kernel = k;
  s->tile = tile_of(p, k);
  return s;
}

Step *low_expert_loop(Program *p, const Node *n, Storage *queue_begin, int64_t experts, bool token_major) {
  Step *s = add_step(p, n, STEP_EXPERTS);
  s->queue_begin = queue_begin;
  s->experts = experts;
  s->token_major = token_major;
  return s;
}

Step *low_body_call(Program *p, Step *loop, Kernel *k, bool together) {
  loop->body = ctx_grow(p->ctx, loop->body, loop->n_body, &loop->cap_body, sizeof *loop->body);
  Step *s = &loop->body[loop->n_body++];
  *s = (Step){.kind = STEP_CALL, .program = p, .kernel = k, .node = loop->node, .tasks = loop->tasks, .loop = loop};
  if (together && loop->n_body > 1) s->unit = s[-1].unit;
  s->tile = tile_of(p, k);
  return s;
}

static Arg *add_arg(Step *s, Arg a) {
  s->arg = ctx_grow(s->program->ctx, s->arg, s->n_args, &s->cap_args, sizeof *s->arg);
  s->arg[s->n_args] = a;
  return &s->arg[s->n_args++];
}

static Unit *unit_of(Program *p, Step *s) {
  if (s->unit) return s->unit;
  Unit *u = ctx_alloc(p->ctx, sizeof *u);
  u->id = (int)p->n_units;
  u->name = s->node->name;
  u->count = s->loop ? s->loop->experts : 1;
  u->tasks = s->tasks;
  p->unit = ctx_grow(p->ctx, p->unit, p->n_units, &p->cap_units, sizeof *p->unit);
  p->unit[p->n_units++] = u;
  if (s->loop && !s->loop->unit) s->loop->unit = u;
  return s->unit = u;
}

static int64_t add_part(Program *p, Step *s, UnitPart part) {
  Unit *u = unit_of(p, s);
  s->weight_bytes += part.bytes;
  for (size_t i = 0; i < u->n_parts; i++) /* the same tensor twice in a step is stored once */
    if (u->part[i].source == part.source && u->part[i].layout == part.layout && u->part[i].write == part.write &&
        memcmp(u->part[i].param, part.param, sizeof part.param) == 0)
      return u->part[i].offset;
  part.offset = round_up(u->bytes, 64);
  u->bytes = part.offset + part.bytes;
  u->part = ctx_grow(p->ctx, u->part, u->n_parts, &u->cap_parts, sizeof *u->part);
  u->part[u->n_parts++] = part;
  return part.offset;
}

static void write_copy(const UnitPart *part, int64_t expert, void *dst) {
  (void)expert;
  if (part->bytes) memcpy(dst, (const char *)part->source->data + part->param[0], (size_t)part->bytes);
}

/* Bytes of the elements that a view shows, those of broadcast dimensions once. */
static int64_t view_bytes(const View *w) {
  int64_t bytes = (int64_t)dtype_size(w->dtype);
  for (int i = 0; i < w->rank; i++) bytes *= w->stride[i] || !w->dim[i] ? w->dim[i] : 1;
  return bytes;
}

static Arg pointer_arg(Step *s, ArgKind kind, const View *w) {
  if (!w->constant) s->bytes += view_bytes(w) * (kind == ARG_UPDATE ? 2 : 1);
  if (!w->constant) return (Arg){.kind = kind, .dtype = w->dtype, .storage = w->storage, .offset = w->offset};
  const int64_t size = (int64_t)dtype_size(w->dtype);
  int64_t first = w->offset, last = w->offset; /* of the elements that are read */
  for (int i = 0; i < w->rank; i++) {
    const int64_t reach = w->dim[i] > 0 ? (w->dim[i] - 1) * w->stride[i] : 0;
    *(reach < 0 ? &first : &last) += reach;
  }
  UnitPart part = {.bytes = (last + 1 - first) * size, .write = write_copy, .source = w->constant};
  if (view_bytes(w) == 0 || part.bytes > (int64_t)w->constant->bytes) {
    first = 0;
    part.bytes = (int64_t)w->constant->bytes;
  }
  part.param[0] = first * size;
  int64_t offset = add_part(s->program, s, part) + (w->offset - first) * size;
  return (Arg){.kind = ARG_WEIGHT, .dtype = w->dtype, .offset = offset};
}

void low_read(Step *s, const View *w) { add_arg(s, pointer_arg(s, ARG_READ, w)); }
void low_write(Step *s, const View *w) { add_arg(s, pointer_arg(s, ARG_WRITE, w)); }
void low_update(Step *s, const View *w) { add_arg(s, pointer_arg(s, ARG_UPDATE, w)); }
void low_null(Step *s, DType t) { add_arg(s, (Arg){.kind = ARG_NULL, .dtype = t}); }
void low_flags(Step *s) { add_arg(s, (Arg){.kind = ARG_FLAGS, .dtype = DT_U32}); }
void low_scratch(Step *s, DType t, int64_t bytes) {
  Storage *memory = new_storage(s->program, ST_ARENA, "scratch", t, bytes);
  memory->tasks = s->tasks;
  add_arg(s, (Arg){.kind = ARG_SCRATCH, .dtype = t, .bytes = bytes, .storage = memory});
}
void low_scratch_each(Step *s, DType t, int64_t bytes) {
  add_arg(s, (Arg){.kind = ARG_SCRATCH_EACH, .dtype = t, .bytes = round_up(bytes, 64)});
}
void low_size(Step *s, int64_t n) { add_arg(s, (Arg){.kind = ARG_SIZE, .i = n}); }
void low_int(Step *s, int64_t n) { add_arg(s, (Arg){.kind = ARG_INT, .i = n}); }
void low_float(Step *s, double f) { add_arg(s, (Arg){.kind = ARG_FLOAT, .f = f}); }
void low_double(Step *s, double f) { add_arg(s, (Arg){.kind = ARG_DOUBLE, .f = f}); }
void low_expert(Step *s, ExpertVar v) { add_arg(s, (Arg){.kind = ARG_EXPERT, .i = v}); }

void low_table(Step *s, const int64_t *v, size_t n) {
  int64_t *copy = ctx_array(s->program->ctx, n ? n : 1, sizeof *copy);
  if (n) memcpy(copy, v, n * sizeof *copy);
  add_arg(s, (Arg){.kind = ARG_TABLE, .table = copy, .n_table = n});
}

void low_weight(Program *p, Step *s, DType t, int64_t bytes, const Tensor *source,
                void (*write)(const UnitPart *p, int64_t expert, void *dst), const int64_t param[UNIT_PARAMS],
                uint64_t layout) {
  UnitPart part = {.bytes = bytes, .write = write, .source = source, .layout = layout};
  if (param) memcpy(part.param, param, sizeof part.param);
  int64_t offset = add_part(p, s, part);
  add_arg(s, (Arg){.kind = ARG_WEIGHT, .dtype = t, .offset = offset});
}

void low_operands(Step *s, const Epilogue *e) {
  if (!e->n_operands) {
    add_arg(s, (Arg){.kind = ARG_NULL, .dtype = DT_NONE});
    return;
  }
  Arg *list = ctx_array(s->program->ctx, 2 * (size_t)e->n_operands, sizeof *list);
  for (int i = 0; i < e->n_operands; i++) {
    list[2 * i] = pointer_arg(s, ARG_READ, &e->operand[i]);
    list[2 * i + 1] = (Arg){.kind = ARG_SIZE, .i = e->row_stride[i]};
  }
  add_arg(s, (Arg){.kind = ARG_OPERANDS, .operand = list, .n_operands = (size_t)e->n_operands});
}

/* ---- the driver ---- */

void program_reserve_views(Program *p) {
  if (p->graph->n_values <= p->n_view) return;
  size_t wanted = p->graph->n_values + p->graph->n_values / 2;
  View *bigger = ctx_array(p->ctx, wanted, sizeof *bigger);
  if (p->n_view) memcpy(bigger, p->view, p->n_view * sizeof *bigger);
  p->view = bigger;
  p->n_view = wanted;
}

Program *program_new_empty(Ctx *c, Graph *g, const Target *target) {
  Program *p = ctx_alloc(c, sizeof *p);
  p->ctx = c;
  p->graph = g;
  p->target = target;
  program_reserve_views(p);
  return p;
}

Program *program_new(Ctx *c, Graph *g, const Target *target) {
  Program *p = program_new_empty(c, g, target);
  for (size_t i = 0; i < g->n_inputs; i++) {
    Value *v = g->inputs[i];
    Storage *s = new_storage(p, ST_INPUT, v->name, v->dtype, value_count(p, v) * (int64_t)dtype_size(v->dtype));
    s->value = v;
    s->tasks = v->tasks;
    p->view[v->id] = value_view(v, s, NULL);
  }
  return p;
}

/* The tasks that give the value as an output; a task may also need it on the way to another. */
static uint64_t output_tasks(const Graph *g, const Value *v) {
  uint64_t tasks = g->n_tasks ? 0 : 1;
  for (size_t t = 0; t < g->n_tasks; t++)
    for (size_t i = 0; i < g->tasks[t].n_outputs; i++)
      if (strcmp(g->tasks[t].outputs[i], v->name) == 0) tasks |= (uint64_t)1 << t;
  return tasks;
}

/* Brings a graph output into the caller's buffer: by letting the storage be that buffer where it is the whole of it,
 * else by a copy for each task that gives it. */
static void finish_output(Program *p, Node *n, Value *v) {
  View w = low_view(p, v);
  Storage *s = w.storage;
  if (s && s->kind == ST_OUTPUT && s->value == v && view_is_packed(&w) && !w.offset) return;
  int64_t bytes = shape_count(&v->shape) * (int64_t)dtype_size(v->dtype);
  if (s && s->kind == ST_ARENA && view_is_packed(&w) && !w.offset && s->bytes == bytes && single_task(v->tasks) &&
      s->tasks == v->tasks) {
    s->kind = ST_OUTPUT;
    s->value = v;
    return;
  }
  uint64_t tasks = output_tasks(p->graph, v);
  for (int t = 0; t < 64; t++) {
    if (!(tasks >> t & 1)) continue;
    Node *owner = ctx_alloc(p->ctx, sizeof *owner);
    *owner = *n;
    owner->tasks = (uint64_t)1 << t;
    p->current = owner;
    Storage *out = new_storage(p, ST_OUTPUT, v->name, v->dtype, bytes);
    out->value = v;
    View to = value_view(v, out, NULL);
    low_copy(p, owner, &w, &to);
  }
}

void lower_node(Program *p, Node *n) {
  p->current = n;
  if (bands_waits(p, n)) return;
  if (!bands_lower(p, n)) lowerings[n->op](p, n);
  for (int i = 0; i < n->n_out; i++)
    if (!p->folding && n->out[i] && n->out[i]->is_output) finish_output(p, n, n->out[i]);
}

void program_lower(Program *p) {
  for (Node *n = p->graph->first; n; n = n->next) lower_node(p, n);
}
