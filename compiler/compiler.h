/* The map of the compiler: every shared type, and every module's public functions in a section named after its file.
 *
 * One compilation owns one Ctx. All memory comes from its arena and is freed with it; files, mappings and other
 * resources are registered with ctx_defer. A failed allocation, and any error in the model, leaves through ctx_fail,
 * which jumps back to the ctx_run that started the work: so functions here return results, not statuses.
 */
#ifndef MOECC_COMPILER_H
#define MOECC_COMPILER_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#if defined(__GNUC__)
#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))
#else
#define PRINTF_LIKE(fmt, first)
#endif

typedef struct Ctx Ctx;
typedef struct Tensor Tensor;
typedef struct Value Value;
typedef struct Node Node;
typedef struct Graph Graph;
typedef struct Expr Expr;

/* ---- ir/ctx.c: memory, diagnostics, cleanup ------------------------------------------------------------------- */

/* Exit statuses of the command line; also what ctx_run returns. */
typedef enum { EXIT_DONE = 0, EXIT_MODEL = 1, EXIT_USAGE = 2, EXIT_MACHINE = 3 } ExitStatus;

Ctx *ctx_new(void);    /* NULL without memory */
void ctx_free(Ctx *c); /* runs the deferred functions, last first, then frees the arena */
/* Runs body(arg) and returns EXIT_DONE, or the status of the ctx_fail or ctx_stop that ended it. Not reentrant. */
ExitStatus ctx_run(Ctx *c, void (*body)(Ctx *c, void *arg), void *arg);
void *ctx_alloc(Ctx *c, size_t bytes);              /* zeroed, 16-byte aligned; never NULL */
void *ctx_array(Ctx *c, size_t count, size_t size); /* the same with the product checked */
/* Makes room for one more element behind *items (count of them, capacity *cap); returns the perhaps moved array. */
void *ctx_grow(Ctx *c, void *items, size_t count, size_t *cap, size_t size);
char *ctx_strdup(Ctx *c, const char *s);
char *ctx_strndup(Ctx *c, const char *s, size_t n);
char *ctx_format(Ctx *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
char *ctx_vformat(Ctx *c, const char *fmt, va_list ap);
void ctx_defer(Ctx *c, void (*fn)(void *), void *arg);   /* fn(arg) when the Ctx is freed */
void ctx_undefer(Ctx *c, void (*fn)(void *), void *arg); /* the caller has done it itself */
/* Records an error of the model and goes on, so that several can be listed. node may be NULL. */
void ctx_report(Ctx *c, const Node *node, const char *fmt, ...) PRINTF_LIKE(3, 4);
void ctx_warn(Ctx *c, const Node *node, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Records an error and leaves. The message says what is wrong, shapes included, and what would help. */
_Noreturn void ctx_fail(Ctx *c, const Node *node, const char *fmt, ...) PRINTF_LIKE(3, 4);
_Noreturn void ctx_fail_status(Ctx *c, ExitStatus status, const char *fmt, ...) PRINTF_LIKE(3, 4);
void ctx_stop_on_errors(Ctx *c); /* leaves if anything was reported */
size_t ctx_message_count(const Ctx *c);
const char *ctx_message(const Ctx *c, size_t i); /* "model.onnx: node 12 …", errors and warnings in order */
bool ctx_message_is_error(const Ctx *c, size_t i);
void ctx_set_file(Ctx *c, const char *file); /* what messages begin with */
/* For tests: the n-th allocation from now fails (0: never). */
void ctx_fail_allocation(Ctx *c, size_t n);

/* A place for the engine's state: see engine/jit.c. */
struct Jit **ctx_jit(Ctx *c);

/* Checked size arithmetic: false on overflow of int64_t or on a negative operand. */
bool size_mul(int64_t a, int64_t b, int64_t *out);
bool size_add(int64_t a, int64_t b, int64_t *out);
int64_t round_up(int64_t n, int64_t unit);

/* A growing text buffer in the arena. */
typedef struct {
  Ctx *ctx;
  char *text;
  size_t len, cap;
} Text;
void text_add(Text *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
void text_write(Text *t, const char *s, size_t n);

uint64_t hash_bytes(const void *data, size_t bytes, uint64_t seed);

/* ---- ir/tensor.c: element types and constant data ------------------------------------------------------------- */

typedef enum {
  DT_NONE,
  DT_F32,
  DT_F64,
  DT_F16,
  DT_BF16,
  DT_I8,
  DT_U8,
  DT_I16,
  DT_U16,
  DT_I32,
  DT_U32,
  DT_I64,
  DT_U64,
  DT_BOOL,
  DT_STRING, /* only in attributes and refused operands */
  DT_COUNT
} DType;

size_t dtype_size(DType t);              /* bytes; 0 for DT_NONE and DT_STRING */
const char *dtype_name(DType t);         /* as in ONNX's text syntax: "float", "int64", … */
const char *dtype_short(DType t);        /* as in kernel names: "f32", "i64", … */
const char *dtype_c(DType t);            /* the C type in emitted code: "float", "int64_t", bool is "unsigned char" */
DType dtype_from_name(const char *name); /* DT_NONE if unknown */
bool dtype_is_float(DType t);
bool dtype_is_signed(DType t);

enum { MAX_RANK = 8 };

/* A dimension: n elements (sym 0), at most n elements (sym > 0 names the symbol), or unknown (n = -1). */
typedef struct {
  int64_t n;
  int sym;
} Dim;
typedef struct {
  int rank;
  Dim dim[MAX_RANK];
} Shape; /* rank -1: unknown */

Shape shape_unknown(void);
Shape shape_of(int rank, const int64_t *dims);
bool shape_known(const Shape *s); /* every dimension is a number */
bool shape_equal(const Shape *a, const Shape *b);
int64_t shape_count(const Shape *s); /* elements; symbols count with their bound; -1 unknown or overflow */
char *shape_text(Ctx *c, DType t, const Shape *s); /* "f32[1,129,n<=258]" */

/* Constant data, row-major, little endian as on this machine. The bytes may belong to a mapped file; they are aligned
 * for their type. */
struct Tensor {
  DType dtype;
  int rank;
  int64_t dim[MAX_RANK];
  const void *data;
  size_t bytes;
  uint64_t hash; /* of dtype, dims and data; 0 until tensor_hash has run */
  bool mapped;   /* the bytes are pages of a mapped file */
};
Tensor *tensor_new(Ctx *c, DType t, int rank, const int64_t *dims, const void *data); /* borrows data; NULL: zeroed */
void *tensor_writable(Tensor *t); /* data of a tensor made with data == NULL */
int64_t tensor_count(const Tensor *t);
uint64_t tensor_hash(Tensor *t);
bool tensor_equal(Tensor *a, Tensor *b);
void tensor_rest(const Tensor *t); /* not needed for now: gives up the memory of a mapped one until it is read again */
void pages_forget(const void *data, size_t bytes);      /* the same for any part of a mapped file: of its whole pages */
double tensor_number(const Tensor *t, int64_t i);       /* element i as a double */
void tensor_set_number(Tensor *t, int64_t i, double x); /* of a writable tensor, converted to its type */
int64_t tensor_integer(const Tensor *t, int64_t i);     /* element i of an integer or bool tensor */
float half_to_float(uint16_t h);
float bfloat_to_float(uint16_t h);
uint16_t float_to_half(float f); /* round to nearest even */
uint16_t float_to_bfloat(float f);

/* ---- ir/ops.c with ops.def: what is known about operators ------------------------------------------------------- */

typedef enum {
  OP_NONE,
#define OP(id, ...) OP_##id,
#include "ir/ops.def"
  OP_COUNT
} Op;

typedef enum {
  ATTR_INT,
  ATTR_FLOAT,
  ATTR_STRING,
  ATTR_INTS,
  ATTR_FLOATS,
  ATTR_STRINGS,
  ATTR_TENSOR,
  ATTR_GRAPH
} AttrKind;

typedef struct {
  const char *name;
  const char *domain;         /* "" is ai.onnx */
  int min_inputs, max_inputs; /* max -1: any number */
  int min_outputs, max_outputs;
  int since, until;  /* opsets of the domain that the frontend accepts */
  const char *types; /* for people: which element types are supported */
  const char *doc;   /* one line */
} OpInfo;
typedef struct {
  Op op;
  const char *name;
  AttrKind kind;
  const char *fallback;
} AttrInfo; /* fallback: text or NULL */

const OpInfo *op_info(Op op);
Op op_find(const char *domain, const char *name); /* OP_NONE if unsupported; "ai.onnx" counts as "" */
const AttrInfo *op_attr(Op op, const char *name); /* NULL: no such attribute */
bool op_may_lack(Op op, int input);               /* may this input be absent? (not always the last ones) */
const AttrInfo *op_attr_at(size_t i);             /* all of them, NULL behind the last; in the operators' order */
DType op_cast_type(const Node *n);                /* of a Cast: what its attribute `to` says; DT_NONE if we lack it */
bool op_is_elementwise(Op op);                    /* has an expression in ops.def */
/* The C expression of an elementwise operator with $0, $1 … for its operands ($a for its first attribute …), or NULL.
 * `vector` forms work on vf (float vectors), scalar forms on one element of `t`. */
const char *op_expression(const Node *n, DType t, bool vector);

/* ---- ir/graph.c: the graph ----------------------------------------------------------------------------------------
 */

typedef struct {
  const char *name;
  AttrKind kind;
  int64_t i;
  double f;
  const char *s; /* zero-terminated */
  size_t n;      /* of ints, floats, strings */
  const int64_t *ints;
  const double *floats;
  const char *const *strings;
  Tensor *tensor;
  Graph *graph;
} Attr;

typedef struct {
  Node *node;
  int input;
} Use;

struct Value {
  int id;           /* unique in its graph; in order of creation */
  const char *name; /* unique in its graph, as in ONNX */
  DType dtype;
  Shape shape;
  Tensor *tensor; /* its constant value, or NULL */
  Value *
      transposed; /* of a constant matrix: its transpose, once a pass has made it; equal layers of all tasks share it */
  const Dim *content; /* what shape inference knows of a short integer vector that is not constant, or NULL */
  int n_content;
  Node *producer; /* NULL for graph inputs and constants */
  int output;     /* which of the producer's outputs */
  Use *uses;      /* every (node, input) that reads it */
  size_t n_uses, cap_uses;
  bool is_output; /* of the graph; then it has a producer, and its name is the output's */
  Graph *graph;
  uint64_t tasks; /* filled in by graph_mark_tasks: who needs it */
};

/* One instruction of a fused elementwise expression. Operands are indexes of earlier instructions. */
typedef struct {
  enum { EX_ACC, EX_INPUT, EX_NUMBER, EX_OP } kind;
  int input;      /* EX_INPUT: which input of the node */
  double number;  /* EX_NUMBER */
  const Node *op; /* EX_OP: a detached node: its op and attributes say what to do */
  int arg[3];
} ExprStep;
struct Expr {
  ExprStep *step;
  size_t n, cap;
  DType dtype;
}; /* the last step is the result */

struct Node {
  Op op;
  int id;
  const char *name;    /* from the model; may be "" */
  const char *scope;   /* path of the layer it came from, "blocks.3/moe"; may be "" */
  const char *op_type; /* as in the model, for messages */
  Value **in;          /* NULL entries are absent optional inputs */
  int n_in;
  Value **out; /* NULL entries are absent optional outputs */
  int n_out;
  Attr *attr;
  size_t n_attr;
  Expr *expr;        /* fused elementwise work on the result (EX_ACC), reading inputs from n_own on; or NULL */
  int n_own;         /* inputs of the operator itself; == n_in when expr is NULL */
  uint64_t tasks;    /* filled in by graph_mark_tasks */
  Node *prev, *next; /* topological order */
  Graph *graph;
};

typedef struct {
  const char *input, *value;
} Binding; /* value: a number, or numbers with commas */

/* What a task is: from metadata_props, one per output, or the command line. */
typedef struct {
  const char *name;
  const char **outputs;
  size_t n_outputs; /* in the model's order */
  Binding *bind;
  size_t n_bind;
} Task;

typedef struct {
  const char *key, *value;
} Meta;

/* An operator set that the model imports. */
typedef struct {
  const char *domain; /* "" is ai.onnx */
  int64_t version;
} Opset;

struct Graph {
  Ctx *ctx;
  const char *name;
  Node *first, *last; /* in topological order */
  Value **inputs;
  size_t n_inputs, cap_inputs;
  Value **outputs;
  size_t n_outputs, cap_outputs;
  Value **values;
  size_t n_values, cap_values; /* all, also unused ones */
  Meta *meta;
  size_t n_meta; /* metadata_props of the model */
  const Opset *opsets;
  size_t n_opsets; /* as in the model, each once; its nodes are in the newest form all the same. 0: read from text */
  Task *tasks;
  size_t n_tasks; /* at most 32; empty until tasks_find */
  const char **symbols;
  size_t n_symbols, cap_symbols; /* names; symbol s is symbols[s-1] */
  int n_nodes;                   /* ids given out */
  struct NameTable *names;       /* from name to value: graph_find */
  uint64_t model_hash;           /* of the model's bytes, external data included */
  const char *gelu;              /* --gelu: what com.microsoft::MoE's gelu is, "erf" or "tanh"; NULL: not given */
};

Graph *graph_new(Ctx *c, const char *name);
int graph_symbol(Graph *g, const char *name);                     /* finds or makes it; 1 … */
Value *graph_value(Graph *g, const char *name, DType t, Shape s); /* name NULL or taken: made unique */
Value *graph_find(const Graph *g, const char *name);              /* NULL: none */
Value *graph_constant(Graph *g, const char *name, Tensor *t);
Value *graph_constant_ints(Graph *g, const char *name, int rank, int64_t n, const int64_t *v); /* int64; rank 0 or 1 */
Value *graph_constant_float(Graph *g, const char *name, float v);                              /* scalar */
void graph_add_input(Graph *g, Value *v);
void graph_add_output(Graph *g, Value *v);
/* A new node in front of `before` (NULL: at the end). Outputs without a producer may be given; NULL out makes one
 * unnamed output of unknown type. The scope is taken from `before` or, if that is NULL, empty. */
Node *graph_node(Graph *g, Node *before, Op op, const char *name, int n_in, Value *const *in, int n_out,
                 Value *const *out);
/* The same with variadic inputs and one new output: node_new(g, before, OP_ADD, 2, a, b)->out[0]. */
Node *node_new(Graph *g, Node *before, Op op, int n_in, ...);
void node_set_input(Node *n, int i, Value *v); /* keeps uses in order; grows n_in if i == n_in */
void node_remove(Node *n);                     /* its outputs must be unused */
/* Every use of `from` becomes one of `to`. If `from` is a graph output, `to` takes over its name and place, or, being
 * an input, a constant or an output itself, does so through an Identity. */
void value_replace(Value *from, Value *to);
bool value_single_use(const Value *v); /* exactly one use and not a graph output */
void graph_remove_dead(Graph *g);      /* nodes nobody needs */
void graph_sort(Graph *g);             /* topological; reports a cycle and leaves */
void graph_mark_tasks(Graph *g);       /* fills tasks of nodes and values from the outputs */

const Attr *node_attr(const Node *n, const char *name); /* NULL: not given */
int64_t node_int(const Node *n, const char *name, int64_t fallback);
double node_float(const Node *n, const char *name, double fallback);
const char *node_string(const Node *n, const char *name, const char *fallback);
size_t node_ints(const Node *n, const char *name, const int64_t **out); /* 0 if absent */
void node_set_int(Node *n, const char *name, int64_t v);
void node_set_float(Node *n, const char *name, double v);
void node_set_string(Node *n, const char *name, const char *v);
void node_set_ints(Node *n, const char *name, size_t count, const int64_t *v);
void node_set_attr(Node *n, Attr a);
void node_drop_attr(Node *n, const char *name);
/* Constant operands: input i exists and has a value. */
const Tensor *node_const(const Node *n, int i);
bool value_is_number(const Value *v, double *out); /* a constant with all elements equal, of a float or integer type */
char *node_describe(Ctx *c, const Node *n);        /* `node 812 "/x/TopK" (TopK)` */
char *node_operands(Ctx *c, const Node *n);        /* `%gate f32[197,16], %k i64[1] -> %w, %idx` */

/* ---- ir/verify.c ----------------------------------------------------------------------------------------------------
 */
/* Checks order, uses, names, types, arity; a violation is a bug of the compiler and says after which pass it came. */
void graph_verify(Graph *g, const char *after);

/* ---- ir/view.c: tracing layout operators --------------------------------------------------------------------------
 */
/* (see lower/lower.h for the strided views used when lowering) */

/* ---- frontends/onnx, frontends/text ---------------------------------------------------------------------------------
 */

/* Reads a model: checked, functions inlined, every operator in the form of the newest opset known, Constant nodes
 * turned into constants. Unsupported operators are all reported at once. `dims`: NAME=N pairs for free dimensions. */
typedef struct {
  const char *name;
  int64_t n;
} DimBinding;
Graph *onnx_read(Ctx *c, const char *path, const DimBinding *dims, size_t n_dims);
Graph *onnx_read_memory(Ctx *c, const void *data, size_t bytes, const char *folder /* of external data, or NULL */);
/* constants may point into data: it outlives the Ctx */
Tensor *onnx_read_tensor(Ctx *c, const char *path, const char **name); /* a TensorProto (.pb) */
Graph *onnx_text_read(Ctx *c, const char *text, const char *origin);
void onnx_text_print(Graph *g, Text *out); /* ONNX text syntax, which onnx_text_read reads back; constants
                                              of more than 64 elements by their hash only (text.h) */

/* ---- passes (passes/README.md lists their contracts; passes/passes.c the order) ---------------------------------- */

typedef enum {
  PASS_ALWAYS, /* nothing can be lowered without it */
  PASS_MOE,    /* a plain graph needs it only where a mixture of experts must be recognised to be computed at all */
  PASS_GELU,   /* a plain graph needs it only for PASS_MOE and for --gelu */
  PASS_SPEED   /* the plain graph does without */
} PassNeed;
typedef struct {
  const char *name;
  void (*run)(Graph *g);
  const char *doc;
  PassNeed need;
} Pass;
extern const Pass passes[];
extern const size_t n_passes;
const Pass *pass_find(const char *name);

typedef struct {
  const char *const *disabled;
  size_t n_disabled; /* --no-PASS */
  const char *dump;  /* --dump PASS: printed to stdout after it; NULL none */
  const char *gelu;  /* --gelu: "erf", "tanh", or NULL for what the model says */
  bool strict;
  bool plain; /* only what is needed to compute at all: what verify compares with */
} PassOptions;
void passes_run(Graph *g, const PassOptions *o);

void tasks_find(Graph *g, const char *const *wanted, size_t n_wanted); /* passes/tasks.c: fills g->tasks */
Graph *tasks_join(Graph *g, const char *const *bind, size_t n_bind);   /* clones, binds, hash-conses: decision 1 */
bool task_binds(const Task *t, const char *input);
Tensor *task_bound_tensor(Graph *g, const Value *input, const char *text); /* a binding's value as the input's tensor */
void infer_shapes(Graph *g); /* passes/infer.c: shapes, types and folding, one worklist */
void check_static(Graph *g); /* passes/infer.c: reports every node that still has a symbolic dimension, and leaves */
bool infer_node(Node *n);    /* passes/shapes_*.c: shapes and types of n's outputs; false: not known yet */
/* passes/shapes_layout.c, for lowerings too. Per axis of input 0: first index, count and step (never 0) of a Slice;
 * elements added (or, negative, taken away) before and after by a Pad. False where the operands are not constant. */
bool slice_ranges(const Node *n, int64_t start[MAX_RANK], int64_t count[MAX_RANK], int64_t step[MAX_RANK]);
bool pad_amounts(const Node *n, int64_t before[MAX_RANK], int64_t after[MAX_RANK]);
Tensor **fold_node(Node *n);              /* passes/fold.c: one tensor per output by running the kernel; NULL: cannot */
void share_equal(Graph *g);               /* passes/share.c: hash-consing of equal nodes and constants */
void check_finite(Graph *g, bool strict); /* passes/finite.c: NaN or infinite weights: a warning, or an error */

#endif
