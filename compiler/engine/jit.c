/* Kernels compiled in memory, and folding.
 *
 * A kernel's text is compiled together with the runtime's headers (for the scalar `vf`) and with a small caller that
 * unpacks an array of arguments. Compiled kernels are kept for the whole compilation, keyed by their text.
 */
#include "engine/jit.h"

#include "emit/embedded.h"
#include "moecc_rt.h"

#include <libtcc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef union {
  const void *p;
  int64_t i;
  double f;
} JitArg;
typedef void JitCall(const JitArg *a);

typedef struct JitKernel {
  uint64_t key;
  JitCall *call;
  struct JitKernel *next;
} JitKernel;

/* A fold whose result is worth keeping: equal nodes of several tasks share it. */
typedef struct Fold {
  const Node *node;
  uint64_t key;
  Tensor **result;
  struct Fold *next;
} Fold;

enum { FOLD_SLOTS = 1024, FOLD_KEPT_FROM = 4096 /* bytes */ };

struct Jit {
  JitKernel *kernels;
  Fold *folds[FOLD_SLOTS];
  const char *headers; /* the runtime's headers as one text */
  Program *program;    /* what nodes are folded in; its graph is the key */
};

/* ---- compiling ---- */

/* A header's text without the project's own includes. */
static void add_header(Text *t, const char *name) {
  const EmbeddedFile *file = embedded_find(ctx_format(t->ctx, "runtime/%s", name));
  if (!file) ctx_fail(t->ctx, NULL, "internal error: no %s", name);
  for (const char *p = file->text; *p;) {
    const char *end = strchr(p, '\n');
    size_t len = end ? (size_t)(end - p) + 1 : strlen(p);
    if (strncmp(p, "#include \"", 10) != 0) text_write(t, p, len);
    p += len;
  }
}

static struct Jit *jit_of(Ctx *c) {
  struct Jit **slot = ctx_jit(c);
  if (*slot) return *slot;
  struct Jit *j = ctx_alloc(c, sizeof *j);
  Text t = {.ctx = c};
  text_add(&t, "#include <stddef.h>\n#include <stdint.h>\n#include <string.h>\n");
  add_header(&t, "moecc_rt.h");
  add_header(&t, "moecc_simd_generic.h");
  add_header(&t, "moecc_math_f64.h");
  add_header(&t, "moecc_math_f64.h");
  add_header(&t, "moecc_math.h");
  add_header(&t, "moecc_rows.h");
  add_header(&t, "moecc_gemm.h");
  add_header(&t, "moecc_depthwise.h");
  add_header(&t, "moecc_resize_conv.h");
  j->headers = t.text;
  return *slot = j;
}

static void on_tcc_message(void *opaque, const char *message) {
  Text *t = opaque;
  text_add(t, "%s\n", message);
}

static void delete_tcc(void *state) { tcc_delete(state); }

/* tcc calls functions for these conversions, which its own runtime library has; here they are the compiler's. */
static float u64_to_float(uint64_t x) { return (float)x; }
static double u64_to_double(uint64_t x) { return (double)x; }
static uint64_t float_to_u64(float x) { return (uint64_t)x; }
static uint64_t double_to_u64(double x) { return (uint64_t)x; }
static int64_t float_to_i64(float x) { return (int64_t)x; }
static int64_t double_to_i64(double x) { return (int64_t)x; }

/* What kernels may call besides each other. */
static void add_symbols(TCCState *s) {
  static const struct {
    const char *name;
    const void *address;
  } symbols[] = {
      {"moecc_for", (const void *)moecc_for},
      {"memcpy", (const void *)memcpy},
      {"memset", (const void *)memset},
      {"memmove", (const void *)memmove},
      {"sqrtf", (const void *)sqrtf},
      {"sqrt", (const void *)sqrt},
      {"fabs", (const void *)fabs},
      {"fabsf", (const void *)fabsf},
      {"floor", (const void *)floor},
      {"floorf", (const void *)floorf},
      {"ceil", (const void *)ceil},
      {"ceilf", (const void *)ceilf},
      {"rint", (const void *)rint},
      {"rintf", (const void *)rintf},
      {"fmod", (const void *)fmod},
      {"fmodf", (const void *)fmodf},
      {"trunc", (const void *)trunc},
      {"truncf", (const void *)truncf},
      {"__floatundisf", (const void *)u64_to_float},
      {"__floatundidf", (const void *)u64_to_double},
      {"__fixunssfdi", (const void *)float_to_u64},
      {"__fixunsdfdi", (const void *)double_to_u64},
      {"__fixsfdi", (const void *)float_to_i64},
      {"__fixdfdi", (const void *)double_to_i64},
  };
  for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) tcc_add_symbol(s, symbols[i].name, symbols[i].address);
}

static void add_caller(Text *t, const Kernel *k, const Step *s) {
  text_add(
      t,
      "\ntypedef union { const void *p; int64_t i; double f; } jit_arg;\nvoid jit_call(const jit_arg *a)\n{\n  %s(%s",
      k->name, k->pool ? "0" : "");
  for (size_t i = 0; i < s->n_args; i++) {
    const char *separator = i || k->pool ? ", " : "";
    switch (s->arg[i].kind) {
    case ARG_SIZE:
    case ARG_INT: text_add(t, "%sa[%zu].i", separator, i); break;
    case ARG_FLOAT:
    case ARG_DOUBLE: text_add(t, "%sa[%zu].f", separator, i); break;
    default: text_add(t, "%s(void *)a[%zu].p", separator, i); break;
    }
  }
  text_add(t, ");\n}\n");
}

static JitCall *compile(Ctx *c, const Kernel *k, const Step *s) {
  struct Jit *j = jit_of(c);
  Text t = {.ctx = c}, messages = {.ctx = c};
  text_add(&t, "%s\n", k->text);
  add_caller(&t, k, s);
  uint64_t key = hash_bytes(t.text, t.len, 7);
  for (JitKernel *known = j->kernels; known; known = known->next)
    if (known->key == key) return known->call;
  TCCState *state = tcc_new();
  if (!state) ctx_fail_status(c, EXIT_MACHINE, "libtcc does not start: out of memory");
  ctx_defer(c, delete_tcc, state);
  tcc_set_error_func(state, &messages, on_tcc_message);
  tcc_set_options(state, "-nostdlib");
  tcc_set_output_type(state, TCC_OUTPUT_MEMORY);
  Text whole = {.ctx = c};
  text_write(&whole, j->headers, strlen(j->headers));
  text_write(&whole, t.text, t.len);
  add_symbols(state);
  JitKernel *made = ctx_alloc(c, sizeof *made);
  if (tcc_compile_string(state, whole.text) == 0 && tcc_relocate(state, TCC_RELOCATE_AUTO) >= 0)
    made->call = (JitCall *)tcc_get_symbol(state, "jit_call");
  if (!made->call) ctx_fail(c, NULL, "internal error: libtcc refuses kernel %s: %s", k->name, messages.text);
  made->key = key;
  made->next = j->kernels;
  j->kernels = made;
  return made->call;
}

/* ---- running ---- */

/* Memory of a run: by storage, and blocks to give back. A failure in between leaves them to the Ctx. */
typedef struct {
  Ctx *ctx;
  void **storage;
  void **block;
  size_t n_blocks, cap_blocks;
} Memory;

static void *temporary(Memory *m, int64_t bytes) {
  void *p = aligned_alloc(64, (size_t)round_up(bytes + 1, 64));
  if (!p) ctx_fail_status(m->ctx, EXIT_MACHINE, "out of memory while folding constants");
  memset(p, 0, (size_t)bytes);
  ctx_defer(m->ctx, free, p);
  m->block = ctx_grow(m->ctx, m->block, m->n_blocks, &m->cap_blocks, sizeof *m->block);
  return m->block[m->n_blocks++] = p;
}

static void release(Memory *m) {
  for (size_t i = m->n_blocks; i-- > 0;) {
    ctx_undefer(m->ctx, free, m->block[i]);
    free(m->block[i]);
  }
}

static const void *weight_pointer(Memory *m, const Unit *u, void **packed, int64_t offset) {
  if (!*packed) {
    *packed = temporary(m, u->bytes);
    for (size_t i = 0; i < u->n_parts; i++) u->part[i].write(&u->part[i], 0, (char *)*packed + u->part[i].offset);
  }
  return (const char *)*packed + offset;
}

static JitArg value_of(Memory *m, const Step *s, const Arg *a, void **packed) {
  JitArg v = {.p = NULL};
  switch (a->kind) {
  case ARG_READ:
  case ARG_WRITE:
  case ARG_UPDATE:
    if (!m->storage[a->storage->id]) m->storage[a->storage->id] = temporary(m, a->storage->bytes);
    v.p = (char *)m->storage[a->storage->id] + a->offset * (int64_t)dtype_size(a->dtype);
    break;
  case ARG_WEIGHT: v.p = weight_pointer(m, s->unit, packed, a->offset); break;
  case ARG_SCRATCH:
  case ARG_SCRATCH_EACH: v.p = temporary(m, a->bytes); break;
  case ARG_SIZE:
  case ARG_INT: v.i = a->i; break;
  case ARG_FLOAT: v.f = (double)(float)a->f; break;
  case ARG_DOUBLE: v.f = a->f; break;
  case ARG_TABLE: v.p = a->table; break;
  case ARG_FLAGS: v.p = temporary(m, 4); break;
  case ARG_NULL: break;
  case ARG_EXPERT: break;
  case ARG_OPERANDS: {
    moecc_operand *o = temporary(m, (int64_t)(a->n_operands * sizeof *o));
    for (size_t i = 0; i < a->n_operands; i++)
      o[i] = (moecc_operand){value_of(m, s, &a->operand[2 * i], packed).p, (size_t)a->operand[2 * i + 1].i};
    v.p = o;
    break;
  }
  }
  return v;
}

static void run_step(Memory *m, const Step *s) {
  JitCall *call = compile(m->ctx, s->kernel, s);
  JitArg *args = ctx_array(m->ctx, s->n_args + 1, sizeof *args);
  void *packed = NULL;
  for (size_t i = 0; i < s->n_args; i++) args[i] = value_of(m, s, &s->arg[i], &packed);
  call(args);
}

/* ---- folding ---- */

/* One program serves for all folds of a graph: what a fold leaves in it is dropped by the next. */
static Program *fold_program(Graph *g) {
  struct Jit *j = jit_of(g->ctx);
  if (!j->program || j->program->graph != g) j->program = program_new_empty(g->ctx, g, target_find("generic"));
  Program *p = j->program;
  p->first = p->last = NULL;
  p->n_steps = 0;
  p->n_storage = p->n_units = p->n_copies = 0;
  program_reserve_views(p);
  return p;
}

static Tensor *take_result(Program *p, Memory *m, Value *v, const View *w) {
  int64_t dims[MAX_RANK];
  for (int i = 0; i < v->shape.rank; i++) dims[i] = v->shape.dim[i].n;
  int64_t at = w->offset * (int64_t)dtype_size(v->dtype);
  if (w->constant) { /* a layout change of a constant: the same bytes */
    return tensor_new(p->ctx, v->dtype, v->shape.rank, dims, (const char *)w->constant->data + at);
  }
  Tensor *t = tensor_new(p->ctx, v->dtype, v->shape.rank, dims, NULL);
  if (t->bytes && w->storage) memcpy(tensor_writable(t), (const char *)m->storage[w->storage->id] + at, t->bytes);
  return t;
}

static Tensor **fold_anew(Node *n) {
  Ctx *c = n->graph->ctx;
  Program *p = fold_program(n->graph);
  View *view = ctx_array(c, (size_t)n->n_out + 1, sizeof *view);
  for (int i = 0; i < n->n_out; i++)
    if (n->out[i]) p->view[n->out[i]->id] = (View){0};
  for (int i = 0; i < n->n_in; i++) /* a pass may have given a constant other data since it was last looked at */
    if (n->in[i]) p->view[n->in[i]->id] = (View){0};
  p->folding = true;
  lower_node(p, n);
  for (int i = 0; i < n->n_out; i++)
    if (n->out[i]) view[i] = low_packed(p, n->out[i]);
  Memory m = {.ctx = c, .storage = ctx_array(c, p->n_storage + 1, sizeof(void *))};
  for (Step *s = p->first; s; s = s->next) run_step(&m, s);
  Tensor **result = ctx_array(c, (size_t)n->n_out + 1, sizeof *result);
  for (int i = 0; i < n->n_out; i++) {
    if (!n->out[i]) continue;
    if (view[i].storage && !m.storage[view[i].storage->id]) /* nothing was written: an empty tensor */
      m.storage[view[i].storage->id] = temporary(&m, view[i].storage->bytes);
    result[i] = take_result(p, &m, n->out[i], &view[i]);
    p->view[n->out[i]->id] = (View){0};
  }
  release(&m);
  return result;
}

static uint64_t hash_attr(const Attr *a, uint64_t h) {
  h = hash_bytes(a->name, strlen(a->name), h);
  h = hash_bytes(&a->i, sizeof a->i, hash_bytes(&a->f, sizeof a->f, h));
  if (a->s) h = hash_bytes(a->s, strlen(a->s), h);
  if (a->ints) h = hash_bytes(a->ints, a->n * sizeof *a->ints, h);
  if (a->floats) h = hash_bytes(a->floats, a->n * sizeof *a->floats, h);
  return a->tensor ? h ^ tensor_hash(a->tensor) : h;
}

/* The operator, its attributes, and its operands by place: what equal nodes of different tasks have in common. */
static uint64_t fold_key(const Node *n) {
  uint64_t h = (uint64_t)n->op;
  for (size_t i = 0; i < n->n_attr; i++) h = hash_attr(&n->attr[i], h);
  for (int i = 0; i < n->n_in; i++) {
    const Tensor *t = n->in[i] ? n->in[i]->tensor : NULL;
    const void *place = !t ? NULL : t->bytes < FOLD_KEPT_FROM ? NULL : t->data;
    h = hash_bytes(&place, sizeof place, h);
    if (!t) continue;
    h = hash_bytes(t->dim, (size_t)t->rank * sizeof *t->dim, h ^ (uint64_t)t->dtype);
    if (!place) h = hash_bytes(t->data, t->bytes, h);
  }
  return h;
}

Tensor **jit_fold(Node *n) {
  struct Jit *j = jit_of(n->graph->ctx);
  uint64_t key = fold_key(n);
  Fold **slot = &j->folds[key % FOLD_SLOTS];
  for (const Fold *known = *slot; known; known = known->next)
    if (known->key == key && known->node->op == n->op && known->node->n_out == n->n_out) return known->result;
  Tensor **result = fold_anew(n);
  if (n->n_out && result[0] && result[0]->bytes >= FOLD_KEPT_FROM) {
    Fold *kept = ctx_alloc(n->graph->ctx, sizeof *kept);
    *kept = (Fold){.node = n, .key = key, .result = result, .next = *slot};
    *slot = kept;
  }
  return result;
}
