/* Lowering: each node becomes steps, a step being one call of a kernel.
 *
 * Values live in storages (a piece of the arena, a caller's buffer, a weight unit) and are seen through strided views,
 * so that Transpose, Reshape, Split and the like cost nothing wherever a kernel can read through strides. A lowering
 * asks for its inputs in the form its kernel wants (low_view: as they are; low_packed: row-major; low_order: a given
 * dimension order), makes its outputs (low_output, in the dimension order that suits it; or low_alias), instantiates a
 * kernel from a template and adds a call. Convolutional tensors are logically NCHW and physically channels-last: the
 * order {0,2,3,1}.
 *
 * The program that results is target-dependent only through the Target's vector width, registers and caches.
 */
#ifndef MOECC_LOWER_H
#define MOECC_LOWER_H

#include "compiler.h"

/* ---- targets (lower/target.c) -------------------------------------------------------------------------------------
 */

typedef struct {
  const char *name; /* as --target */
  const char *simd; /* header: "generic", "128", "256", "512" */
  int lanes;        /* floats in a vector */
  int registers;    /* vector registers */
  int64_t l1, l2;   /* bytes of data cache; l2 is what one core may count on */
  int pointer_bytes;
  const char *cflags;   /* what gcc and clang need, "-march=x86-64-v3" */
  const char *compiler; /* default compiler of the emitted Makefile, "cc" or "aarch64-linux-gnu-gcc" */
  int64_t ram, flash;   /* limits, 0: none */
} Target;
const Target *target_find(const char *name); /* "native" looks at this machine; NULL: unknown */
const Target *target_at(size_t i);           /* all of them, NULL behind the last */

/* ---- storage and views ------------------------------------------------------------------------------------------- */

typedef struct Storage {
  enum StorageKind { ST_ARENA, ST_INPUT, ST_OUTPUT, ST_WEIGHT } kind;
  int id;
  const char *name; /* for emitted code: of the first value that lives here */
  DType dtype;
  int64_t bytes;
  Value *value; /* ST_INPUT, ST_OUTPUT: the graph's input or output */
  uint64_t tasks;
  int first, last; /* steps between which it is live; set by the memory plan */
  int64_t offset;  /* in its region; set by the memory plan */
} Storage;

/* Element (i0,i1,…) of the value is at storage + (offset + Σ i·stride) elements. */
typedef struct View {
  Storage *storage;
  const Tensor *constant; /* instead of storage: a constant tensor (row-major), not yet in any unit */
  DType dtype;
  int rank;
  int64_t dim[MAX_RANK];
  int64_t stride[MAX_RANK]; /* elements; 0 along broadcast dimensions */
  int64_t offset;           /* elements */
} View;

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

typedef struct {
  const char *name, *value;
} Hole; /* value: a token, or the full text of a static inline function */

typedef struct Kernel {
  const char *name;     /* of the emitted function, unique */
  const char *template; /* file name without .c */
  Hole *hole;
  size_t n_holes;
  const char *text;      /* instantiated source */
  const char *prototype; /* "void softmax_f32(const moecc_pool *pool, …)" */
  bool pool;             /* takes a pool first */
} Kernel;

/* ---- steps ------------------------------------------------------------------------------------------------------- */

typedef enum {
  ARG_READ,         /* const T *: storage + offset */
  ARG_WRITE,        /* T *, the first write of it */
  ARG_UPDATE,       /* T *, read and written */
  ARG_WEIGHT,       /* const T *: offset in the step's weight unit (or the expert's, in an expert loop) */
  ARG_SCRATCH,      /* T *: memory that only this step needs */
  ARG_SCRATCH_EACH, /* T *: the same, `bytes` for each thread; the kernel strides by what it was told */
  ARG_SIZE,         /* size_t */
  ARG_INT,          /* int64_t */
  ARG_FLOAT,        /* float, printed exactly */
  ARG_DOUBLE,
  ARG_TABLE,   /* const int64_t *: a static table */
  ARG_EXPERT,  /* in an expert loop: see ExpertVar */
  ARG_NULL,    /* an absent operand */
  ARG_FLAGS,   /* uint32_t *: the context's flags */
  ARG_OPERANDS /* const moecc_operand *: `operand` holds pairs of a pointer argument and an ARG_SIZE row stride */
} ArgKind;
typedef enum { EXPERT_INDEX, EXPERT_BEGIN, EXPERT_COUNT } ExpertVar; /* e, begin[e], begin[e+1]-begin[e]; all size_t */

typedef struct Arg {
  ArgKind kind;
  DType dtype;      /* of what a pointer points to */
  Storage *storage; /* READ, WRITE, UPDATE */
  int64_t offset;   /* elements; WEIGHT: bytes in the unit */
  int64_t bytes;    /* SCRATCH and SCRATCH_EACH */
  int64_t i;        /* SIZE, INT, EXPERT (an ExpertVar) */
  double f;
  const int64_t *table;
  size_t n_table;
  struct Arg *operand; /* two for each: a pointer argument and its row stride */
  size_t n_operands;   /* OPERANDS */
} Arg;

/* One weight unit in the making: parts laid one after another, each 64-byte aligned. `write` packs part bytes into dst
 * when the pack is written or the unit is wanted in memory; nothing is packed before. */
enum { UNIT_PARAMS = 7 };
typedef struct UnitPart {
  int64_t offset, bytes;
  void (*write)(const struct UnitPart *p, int64_t expert, void *dst); /* dst is zeroed; expert: 0 … count-1 */
  const Tensor *source;
  int64_t param[UNIT_PARAMS]; /* for write */
  uint64_t layout;            /* what write and param do, for telling equal units; 0 only for a plain copy */
} UnitPart;
typedef struct Unit {
  int id;
  const char *name;
  int64_t bytes; /* of one */
  int64_t count; /* experts; 1 for dense units */
  UnitPart *part;
  size_t n_parts, cap_parts;
  uint64_t tasks;
  int64_t offset, stride; /* in the pack; set by weights.c */
  uint64_t hash;
  bool listed;              /* while the list of units is made: see schedule/units.c */
  const struct Step *named; /* after which it is named; NULL: the first that uses it */
} Unit;

typedef struct Step {
  enum StepKind { STEP_CALL, STEP_EXPERTS } kind;
  Kernel *kernel;
  Arg *arg;
  size_t n_args, cap_args;
  Unit *unit;        /* its weights, or NULL; of an expert loop: the first that it takes of an expert */
  const Node *node;  /* the node it came from */
  const Node *with;  /* the one before it whose result it computes, too, and nobody else reads; or NULL */
  const char *layer; /* function it is emitted into */
  uint64_t tasks;
  int64_t macs;                   /* multiply-adds, for the report */
  int64_t bytes;                  /* read and written in a call, without weights */
  int64_t weight_bytes;           /* read of its unit each time it runs */
  int64_t band_first, band_rows;  /* of the node's result it computes these rows; 0 rows: all (lower/bands.h) */
  int number;                     /* from 1 on, as emitted; a loop comes before its body */
  const struct TileRequest *tile; /* the request for its kernel's tile, or NULL: lower/tuning.h */
  /* STEP_EXPERTS: for each expert with a non-empty queue, ascending: the body's calls, with their units */
  struct Step *body; /* calls; neighbours may share a unit */
  size_t n_body, cap_body;
  Storage *queue_begin; /* uint32 [experts+1] */
  int64_t experts;
  int64_t queue_entries; /* at most so many in all queues together: tokens * k */
  struct Step *loop;     /* of a body's call: the loop it is in */
  struct Program *program;
  bool holds;       /* a call: its unit is there, for the step before it that has one has the same; schedule/units.c */
  bool token_major; /* body runs once per (token, slot), its queue being that one entry */
  int index;        /* in the program */
  struct Step *next;
} Step;

typedef struct Program {
  Ctx *ctx;
  Graph *graph;
  const Target *target;
  bool moe_token_major;
  bool lockstep;               /* all tasks in one call go through what they share side by side: schedule/lockstep.c */
  int bands, band_links;       /* chains of pictures go in so many bands, so many operators of a chain; 0: as a whole */
  int64_t unit_bytes;          /* weights go in units of so many bytes at most, as far as they can be cut; 0: any */
  const struct Tuning *tuning; /* measured tiles, or NULL */
  const struct TileRequest *wants_tile; /* the last request, for the next call of its kernel */
  Step *first, *last;
  int n_steps;
  Storage **storage;
  size_t n_storage, cap_storage;
  Unit **unit;
  size_t n_units, cap_units;
  Kernel **kernel;
  size_t n_kernels, cap_kernels;
  const Node *current; /* being lowered */
  bool folding;        /* single nodes on constants: see engine/jit.c */
  struct {
    Value *value;
    View view;
  } *copy;
  size_t n_copies, cap_copies; /* values in other orders than they were made */
  View *view;
  size_t n_view; /* by Value.id; storage and constant NULL: not lowered yet */
} Program;

/* ---- lower/lower.c: the driver and what lowerings use ------------------------------------------------------------ */

Program *program_new(Ctx *c, Graph *g, const Target *target);
Program *program_new_empty(Ctx *c, Graph *g, const Target *target); /* without the graph's inputs */
void program_reserve_views(Program *p); /* makes room for values that the graph has got since */
void program_lower(Program *p);         /* every node, in order */
void lower_node(Program *p, Node *n);   /* through the operator's lowering in ops.def */

/* Inputs. A constant input has a view with `constant` set; low_arg puts it into the step's unit. */
View low_view(Program *p, Value *v);                    /* as it lies */
View low_packed(Program *p, Value *v);                  /* row-major without gaps; copies if needed */
View low_order(Program *p, Value *v, const int *order); /* dimension order[0] outermost … ; copies if needed */
View low_last_dense(Program *p, Value *v); /* last dimension of stride 1, the others any; copies if needed */
bool view_is_packed(const View *w);
bool view_has_order(const View *w, const int *order);
/* View arithmetic; the results share storage. False (or rank −1) where strides cannot express it. */
bool view_reshape(const View *w, int rank, const int64_t *dim, View *out);
View view_transpose(const View *w, const int *perm);
View view_slice(const View *w, int axis, int64_t start, int64_t count, int64_t step);
View view_broadcast(const View *w, int rank, const int64_t *dim); /* numpy rules, aligned at the last dimension */
/* The dimension order in which w lies in memory, outermost first; dimensions of stride 0 keep their place. */
void view_order(const View *w, int *order);

/* Outputs of the node being lowered. order NULL: row-major. A graph output is always row-major in the caller's buffer:
 * if another order is asked for, a copy is added at the end by the driver. */
View low_output(Program *p, Value *v, const int *order);
/* The same for kernels that write rows, along the last dimension of `order`, *pitch elements apart: what only becomes a
 * part of a Concat's result is put there (lower/place.c). */
View low_output_rows(Program *p, Value *v, const int *order, int64_t *pitch);
bool low_in_place(Program *p, const Node *n, int i); /* input i of the Concat n already is where it belongs */
void low_alias(Program *p, Value *v, View w);        /* v is seen through w; no step */
View low_temp(Program *p, const char *name, DType t, int64_t count); /* a row of elements that later steps read too */

/* Kernels: found if the same template and holes were instantiated before, else made. `name` follows the naming grammar;
 * made unique if another kernel has it. Holes end with {0}. */
Kernel *low_kernel(Program *p, const char *template, const char *name, const Hole *holes);

/* Steps. Arguments are added in the order of the kernel's parameters (the pool is implied). */
Step *low_call(Program *p, const Node *n, Kernel *k);
Step *low_expert_loop(Program *p, const Node *n, Storage *queue_begin, int64_t experts, bool token_major);
/* A call inside. `together`: its weights are in the same unit as those of the call before. */
Step *low_body_call(Program *p, Step *loop, Kernel *k, bool together);
void low_read(Step *s, const View *w); /* storage or constant (which becomes a part of the unit) */
void low_write(Step *s, const View *w);
void low_update(Step *s, const View *w);
void low_null(Step *s, DType t); /* an absent operand: NULL */
void low_flags(Step *s);         /* uint32_t *: the context's flags */
void low_scratch(Step *s, DType t, int64_t bytes);
void low_scratch_each(Step *s, DType t, int64_t bytes); /* bytes for each thread */
void low_size(Step *s, int64_t n);
void low_int(Step *s, int64_t n);
void low_float(Step *s, double f);
void low_double(Step *s, double f);
void low_table(Step *s, const int64_t *v, size_t n); /* copied */
void low_expert(Step *s, ExpertVar v);
/* A packed part of the step's unit (`experts` copies of it, one for each, in an expert loop). */
void low_weight(Program *p, Step *s, DType t, int64_t bytes, const Tensor *source,
                void (*write)(const UnitPart *p, int64_t expert, void *dst), const int64_t param[UNIT_PARAMS],
                uint64_t layout);

/* Copies (lower/copy.c): the elements of `from` into `to`, views of the same dimensions (from's may be broadcast). The
 * node is whom the step is for. */
void low_copy(Program *p, const Node *n, const View *from, const View *to);
/* Every element of `to` becomes v (integers exactly up to 2^53). */
void low_fill(Program *p, const Node *n, double v, const View *to);

/* Epilogues (lower/expr.c): a node's fused expression (Node.expr) as the EPILOGUE hole of a kernel whose result is rows
 * of columns, the columns being the innermost dimension of `order` and contiguous, the rows all the others. The hole is
 *   static inline vf EPILOGUE(vf acc, const moecc_operand *o, size_t row, size_t col, size_t lanes)
 * `lanes` (1 … VF_LANES) says how many columns from col on exist; a kernel passes the constant VF_LANES but in its
 * tail. o[i].p + row * o[i].row + col is an operand's element (a per-row operand has no col; a per-column one has row
 * 0). */
typedef struct {
  const char *function; /* text of the hole's value; NULL: no expression, the template's default (identity) serves */
  const char *suffix;   /* "_bias_gelu", for the kernel's name; "" if none */
  View operand[8];
  int64_t row_stride[8];
  bool by_column[8]; /* it varies along the columns */
  int n_operands;
} Epilogue;
Epilogue low_epilogue(Program *p, Node *n, int rank, const int64_t *dim, const int *order); /* order NULL: row-major */
void low_operands(Step *s, const Epilogue *e); /* adds the one argument `const moecc_operand *o` (NULL if none) */
/* The same for some of the columns, the first of which the kernel takes for column 0. */
Epilogue low_epilogue_columns(Program *p, const Epilogue *e, int64_t first, int64_t count);
int64_t low_epilogue_bytes(const Epilogue *e); /* of constants, for each column */

#endif
