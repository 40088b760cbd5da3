/* Shared by the files of the ONNX frontend, in sections named after them; nothing outside includes it.
 *
 * The way of a model: files.c maps it, wire.c checks the bytes and leaves the weights out, protobuf-c unpacks the rest,
 * load.c checks the model as a whole, convert.c and body.c walk the graph, inline.c inlines functions, attributes.c and
 * tensors.c turn what hangs on a node into ours, upgrade.c brings each node into the newest form, nodes.c makes it, and
 * scope.c names layers.
 */
#ifndef MOECC_ONNX_FRONTEND_H
#define MOECC_ONNX_FRONTEND_H

#include "compiler.h"
#include "onnx.pb-c.h"

enum { OPSET_OLDEST = 7, OPSET_NEWEST = 28, IR_OLDEST = 3, IR_NEWEST = 14 };

/* ---- names.c ---- */

/* Who gives a name its value in one graph or function body. */
typedef enum { BY_INPUT, BY_INITIALIZER, BY_NODE } Definer;
typedef struct {
  const char *name;
  Definer by;
  size_t index;        /* of the input, initializer or node */
  Value *value;        /* NULL: an absent optional input of a function, or `refused` */
  bool ready;          /* the definer has been converted */
  const char *refused; /* why it cannot be used; reported at its first use */
} Def;
typedef struct {
  Def *slot;
  size_t n, cap; /* cap is a power of two or 0 */
} Names;

/* The definition of a name, NULL if there is none; names_add makes one (which must not exist yet). */
Def *names_find(const Names *names, const char *name);
Def *names_add(Ctx *c, Names *names, const char *name, Definer by, size_t index);
/* In double quotes for a message: control characters escaped, shortened beyond 100 bytes. */
const char *quoted(Ctx *c, const char *name);

/* ---- files.c ---- */

typedef struct FileMap FileMap;
struct FileMap {
  const uint8_t *data;
  size_t bytes;
  const char *name; /* as given */
  FileMap *next;
};

/* Maps a whole regular file for the life of the Ctx; leaves with a message if it cannot. */
FileMap *file_map(Ctx *c, const char *path);
/* The same for external data: `location` below `folder`, no link in it, nothing that is not a plain file. */
FileMap *file_map_external(Ctx *c, const char *folder, const char *location, const char *owner);
/* Leaves if the file has been changed since it was mapped; closes it (the mapping stays). */
void file_finish(Ctx *c, FileMap *file);
/* hash_bytes of a part of a mapping, without keeping its pages. */
uint64_t file_hash(const void *data, size_t bytes, uint64_t seed);

/* ---- wire.c ---- */

enum { WIRE_MAX_DEPTH = 100 };

/* Stands in the unpacked message for bytes that stay in the file. */
typedef struct {
  uint64_t offset, bytes;
} Span;
Span wire_span(const ProtobufCBinaryData *b);

/* Checks `bytes` of a message in wire format, then unpacks it into the Ctx, with Spans for the data of tensors. Leaves
 * with the offset of the first byte at fault. `what` names the message for people: "ONNX model". */
ProtobufCMessage *wire_unpack(Ctx *c, const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t bytes,
                              const char *what);
/* Reads a varint at *at, before end, which wire_unpack has checked. */
uint64_t wire_varint(const uint8_t *data, size_t *at, size_t end);

/* ---- tensors.c ---- */

/* Where the bytes of tensors are. */
typedef struct {
  Ctx *ctx;
  const uint8_t *data;    /* what Spans are relative to */
  const char *folder;     /* of external data; NULL: there can be none */
  FileMap *external;      /* the files used so far */
  uint64_t external_hash; /* of the external data used so far */
  bool mapped;            /* data is a mapping whose pages can be dropped */
} Source;

DType dtype_from_onnx(int code);      /* DT_NONE if we have no such type */
const char *onnx_type_name(int code); /* "float8e4m3fn"; NULL if ONNX has no such type */
/* The constant, pointing into the file where it is aligned there and a copy otherwise. `owner` says whose it is, for
 * messages: `initializer "w"`. Leaves if it is malformed. Of a type we do not have: NULL. */
Tensor *tensor_load(Source *s, const Onnx__TensorProto *t, const char *owner);

/* ---- attributes.c ---- */

/* A node on its way into the graph. upgrade.c changes it; then it is checked against ops.def and made. */
typedef struct Reader Reader;
typedef struct Body Body;
typedef struct {
  Reader *reader;
  const Body *body;
  const Onnx__NodeProto *proto;
  const char *where;  /* `node 812 "/blocks.3/moe/TopK" (TopK)` */
  const char *domain; /* "" for ai.onnx */
  const char *op_type;
  int version; /* of the operator set that the node belongs to; 0: not imported */
  const char *name, *scope;
  Value **in;
  int n_in;
  Value **out;
  int n_out;
  Attr *attr;
  size_t n_attr;
} RawNode;

/* Fills n->attr from the node's own attributes; `outer` (n_outer of them) are those of the function call that
 * ref_attr_name refers to. Graph attributes have no graph: inline.c reads them from the proto. False if something was
 * reported. */
bool attributes_read(RawNode *n, const Attr *outer, size_t n_outer);
/* The attribute in our form; false with a report if it is malformed. */
bool attribute_convert(RawNode *n, const Onnx__AttributeProto *a, Attr *out);
/* Reports attributes that the operator does not have or that are of another type. */
bool attributes_check(const RawNode *n, Op op);
const char *attribute_kind_name(AttrKind kind);

/* ---- upgrade.c ---- */

/* Brings a node into the form of the newest opset; may make nodes and constants in front of it. False: no node is left
 * to make, because it became a constant or because an error was reported. */
bool upgrade(RawNode *n);

/* ---- compose.c, einsum.c: upgrades of operators that are composed of others ---- */

bool compose_attention(RawNode *n);
bool compose_einsum(RawNode *n);
bool compose_lp_normalization(RawNode *n);
bool compose_mean_variance(RawNode *n);
bool compose_swiglu(RawNode *n);

/* ---- scope.c ---- */

/* The layer a node belongs to, from the exporter's metadata or the path in its name; "" if neither says. */
const char *scope_of(Ctx *c, const Onnx__NodeProto *node);
const char *scope_join(Ctx *c, const char *outer, const char *inner);
/* "model.layers.0.mlp" and "model/layers.0/mlp" are one layer: the latter. */
const char *scope_from_dots(Ctx *c, const char *path);
/* Gives nodes without a scope one from the names of the weights around them. */
void scope_fill(Graph *g);

/* ---- convert.c: a model's graph ---- */

/* All of one model while it is read. */
struct Reader {
  Ctx *ctx;
  Graph *graph;
  Source source;
  const Onnx__ModelProto *model;
  const DimBinding *dims;
  size_t n_dims;
  bool *dim_used;  /* n_dims */
  Names functions; /* "domain:name:overload"; index: in model->functions */
  Names loaded;    /* tensors of attributes in functions, by address; index: in tensor */
  Tensor **tensor;
  size_t n_tensor, cap_tensor;
  size_t n_nodes; /* converted so far, functions inlined */
  struct Unsupported *unsupported;
  size_t n_unsupported, cap_unsupported;
};

void convert_model(Reader *r); /* fills r->graph; reports errors */

/* ---- body.c: the nodes of a graph, branch or called function ---- */

struct Body {
  const Body *outer;                   /* the graph a branch belongs to, whose names it sees; NULL */
  const Body *caller;                  /* whose node called the function; NULL */
  const Onnx__FunctionProto *function; /* NULL: a graph */
  Onnx__NodeProto **node;
  size_t n_node;
  Onnx__OperatorSetIdProto **opset;
  size_t n_opset;
  Names names;
  const char *prefix; /* of the names of values and nodes; "" in the model's graph */
  const char *scope;  /* of the call */
  const Attr *attr;
  size_t n_attr; /* of the call, defaults included */
  char **out_name;
  size_t n_out_name; /* results of a function or branch ... */
  Value **result;    /* ... and the values of the caller that they become; NULL: not wanted */
  int depth;         /* of calls and branches */
};

/* Makes `name` known; NULL with a report naming both definitions if it is already. */
Def *body_define(Reader *r, Body *b, const char *name, Definer by, size_t index);
void body_define_outputs(Reader *r, Body *b); /* of all nodes, with a Value each */
void body_define_initializers(Reader *r, Body *b, const Onnx__GraphProto *g);
void body_load_initializers(Reader *r, Body *b, const Onnx__GraphProto *g);
void body_convert(Reader *r, Body *b); /* the nodes, in order */
/* The version of a domain that the body's functions or model import, 0: none. */
int body_opset(const Reader *r, const Body *b, const char *domain);
bool opset_check(Reader *r, Onnx__OperatorSetIdProto **opset, size_t n, const char *whose);
void opset_copy(Reader *r);                              /* what the model imports, into its graph */
const char *node_where(Ctx *c, const Body *b, size_t i); /* `node 812 "/blocks.3/moe/TopK" (TopK)` */

/* ---- inline.c: calls and constant branches ---- */

void functions_index(Reader *r); /* fills r->functions, refuses duplicates */
/* The function a node calls, NULL if it is an operator. */
const Onnx__FunctionProto *function_find(Reader *r, const Onnx__NodeProto *n);
void inline_call(RawNode *n, const Body *b, const Onnx__FunctionProto *f);
/* An If whose condition is constant; false otherwise. */
bool inline_if(RawNode *n, const Body *b);

/* ---- nodes.c: making nodes ---- */

/* Notes that a node cannot be taken; unsupported_report lists them all, by operator. */
void unsupported_add(RawNode *n, const char *why);
void unsupported_report(Reader *r);
void node_finish(RawNode *n); /* upgrades, checks and makes it */
void value_set_constant(Value *v, Tensor *t);
Value *constant_ints(RawNode *n, size_t count, const int64_t *v); /* a new int64 vector */
Value *constant_number(RawNode *n, DType t, double v);            /* a new scalar */
Node *raw_emit(RawNode *n, const char *op_type, int n_in, Value *const *in,
               Value *out);                                               /* a helper; NULL out: a new one */
bool PRINTF_LIKE(2, 3) raw_fault(const RawNode *n, const char *fmt, ...); /* reports; false */
const Attr *raw_attr(const RawNode *n, const char *name);
void raw_set_attr(RawNode *n, Attr a);
void raw_drop_attr(RawNode *n, const char *name);
void raw_set_input(RawNode *n, int i, Value *v);
bool raw_has(const RawNode *n, int i); /* input i is there */
double raw_number(const RawNode *n, const char *name, double fallback);
const char *raw_string(const RawNode *n, const char *name, const char *fallback);
void raw_set_string(RawNode *n, const char *name, const char *s);
void raw_set_int(RawNode *n, const char *name, int64_t i);
/* Turns it into another operator without attributes. */
void raw_become(RawNode *n, const char *domain, const char *op_type);
/* What numbers made from attributes are: the type of what they are used with, where the model says it, or float. */
DType raw_float_type(const RawNode *n);

#endif
