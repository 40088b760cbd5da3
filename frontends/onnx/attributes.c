/* AttributeProto to Attr: types, references to the attributes of a function call, and the check against ops.def. */
#include "frontend.h"

#include <string.h>

/* AttributeProto.type, with the fields that belong to it. Types without a kind are refused by name. */
typedef enum {
  TYPE_UNDEFINED,
  TYPE_FLOAT,
  TYPE_INT,
  TYPE_STRING,
  TYPE_TENSOR,
  TYPE_GRAPH,
  TYPE_FLOATS,
  TYPE_INTS,
  TYPE_STRINGS,
  TYPE_TENSORS,
  TYPE_GRAPHS,
  TYPE_SPARSE_TENSOR,
  TYPE_SPARSE_TENSORS,
  TYPE_TYPE_PROTO,
  TYPE_TYPE_PROTOS,
  TYPES
} ProtoType;

static const char *const type_names[TYPES] = {
    "undefined",
    "a float",
    "an int",
    "a string",
    "a tensor",
    "a graph",
    "a list of floats",
    "a list of ints",
    "a list of strings",
    "a list of tensors",
    "a list of graphs",
    "a sparse tensor",
    "a list of sparse tensors",
    "a type",
    "a list of types",
};

static const struct {
  ProtoType type;
  AttrKind kind;
} kinds[] = {
    {TYPE_FLOAT, ATTR_FLOAT}, {TYPE_INT, ATTR_INT},         {TYPE_STRING, ATTR_STRING}, {TYPE_FLOATS, ATTR_FLOATS},
    {TYPE_INTS, ATTR_INTS},   {TYPE_STRINGS, ATTR_STRINGS}, {TYPE_TENSOR, ATTR_TENSOR}, {TYPE_GRAPH, ATTR_GRAPH},
};

const char *attribute_kind_name(AttrKind kind) {
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (kinds[i].kind == kind) return type_names[kinds[i].type];
  return "unknown";
}

static bool type_kind(ProtoType type, AttrKind *kind) {
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (kinds[i].type == type) return *kind = kinds[i].kind, true;
  return false;
}

/* Bit t set: the field of type t holds something. */
static unsigned fields_present(const Onnx__AttributeProto *a) {
  const struct {
    ProtoType type;
    bool there;
  } fields[] = {
      {TYPE_FLOAT, a->has_f},
      {TYPE_INT, a->has_i},
      {TYPE_STRING, a->has_s},
      {TYPE_TENSOR, a->t},
      {TYPE_GRAPH, a->g},
      {TYPE_FLOATS, a->n_floats},
      {TYPE_INTS, a->n_ints},
      {TYPE_STRINGS, a->n_strings},
      {TYPE_TENSORS, a->n_tensors},
      {TYPE_GRAPHS, a->n_graphs},
      {TYPE_SPARSE_TENSOR, a->has_sparse_tensor},
      {TYPE_SPARSE_TENSORS, a->n_sparse_tensors},
      {TYPE_TYPE_PROTO, a->has_tp},
      {TYPE_TYPE_PROTOS, a->n_type_protos},
  };
  unsigned bits = 0;
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) bits |= (unsigned)fields[i].there << fields[i].type;
  return bits;
}

static bool PRINTF_LIKE(3, 4) fault(const RawNode *n, const char *name, const char *fmt, ...) {
  Ctx *c = n->reader->ctx;
  va_list ap;
  va_start(ap, fmt);
  ctx_report(c, NULL, "%s: attribute %s %s", n->where, quoted(c, name), ctx_vformat(c, fmt, ap));
  va_end(ap);
  return false;
}

/* The type an attribute has: the one it states, which must be the one of the field it uses. Models of IR version 1 do
 * not state it. */
static bool type_of(const RawNode *n, const Onnx__AttributeProto *a, ProtoType *type) {
  unsigned present = fields_present(a);
  if (a->type < 0 || a->type >= TYPES) return fault(n, a->name, "has the unknown type %d", a->type);
  *type = (ProtoType)a->type;
  if (*type == TYPE_UNDEFINED) {
    for (int t = 1; t < TYPES; t++)
      if (present == 1u << t) *type = (ProtoType)t;
    return *type != TYPE_UNDEFINED || fault(n, a->name, "does not say its type");
  }
  if (present & ~(1u << *type)) {
    int other = __builtin_ctz(present & ~(1u << *type));
    return fault(n, a->name, "says it is %s but holds %s", type_names[*type], type_names[other]);
  }
  return true;
}

/* Zero-terminated text of bytes, NULL if they contain a NUL. */
static const char *text_of(Ctx *c, const ProtobufCBinaryData *b) {
  if (b->len && memchr(b->data, 0, b->len)) return NULL;
  return ctx_strndup(c, (const char *)b->data, b->len);
}

static bool convert_strings(RawNode *n, const Onnx__AttributeProto *a, Attr *out) {
  Ctx *c = n->reader->ctx;
  const char **strings = ctx_array(c, a->n_strings + 1, sizeof *strings);
  for (size_t i = 0; i < a->n_strings; i++)
    if (!(strings[i] = text_of(c, &a->strings[i]))) return fault(n, a->name, "contains a NUL");
  out->strings = strings;
  out->n = a->n_strings;
  return true;
}

/* The tensor of an attribute, loaded once however often the function it is in is inlined. */
static Tensor *load_once(RawNode *n, const Onnx__TensorProto *p, const char *owner) {
  Reader *r = n->reader;
  const char *key = ctx_format(r->ctx, "%p", (const void *)p);
  const Def *known = n->body->function ? names_find(&r->loaded, key) : NULL;
  if (known) return r->tensor[known->index];
  Tensor *t = tensor_load(&r->source, p, owner);
  if (!t || !n->body->function) return t;
  r->tensor = ctx_grow(r->ctx, r->tensor, r->n_tensor, &r->cap_tensor, sizeof(Tensor *));
  names_add(r->ctx, &r->loaded, key, BY_NODE, r->n_tensor);
  return r->tensor[r->n_tensor++] = t;
}

static bool convert_tensor(RawNode *n, const Onnx__AttributeProto *a, Attr *out) {
  Ctx *c = n->reader->ctx;
  if (!a->t) return fault(n, a->name, "is a tensor but holds none");
  out->tensor = load_once(n, a->t, ctx_format(c, "%s: attribute %s", n->where, quoted(c, a->name)));
  const char *type = onnx_type_name(a->t->data_type);
  if (!out->tensor && type) return fault(n, a->name, "is a tensor of %s, a type that is not supported", type);
  if (!out->tensor) return fault(n, a->name, "is a tensor of the unknown type %d", a->t->data_type);
  return true;
}

bool attribute_convert(RawNode *n, const Onnx__AttributeProto *a, Attr *out) {
  Ctx *c = n->reader->ctx;
  ProtoType type = TYPE_UNDEFINED;
  if (!type_of(n, a, &type)) return false;
  *out = (Attr){.name = a->name, .i = a->i, .f = (double)a->f};
  if (!type_kind(type, &out->kind)) return fault(n, a->name, "is %s, which is not supported", type_names[type]);
  switch (out->kind) {
  case ATTR_STRING: out->s = text_of(c, &a->s); return out->s || fault(n, a->name, "contains a NUL");
  case ATTR_INTS:
    out->ints = a->ints;
    out->n = a->n_ints;
    return true;
  case ATTR_FLOATS: {
    double *floats = ctx_array(c, a->n_floats + 1, sizeof *floats);
    for (size_t i = 0; i < a->n_floats; i++) floats[i] = (double)a->floats[i];
    out->floats = floats;
    out->n = a->n_floats;
    return true;
  }
  case ATTR_STRINGS: return convert_strings(n, a, out);
  case ATTR_TENSOR: return convert_tensor(n, a, out);
  default: return true;
  }
}

/* Gives *out the value that the function's caller has for a->ref_attr_name. No value there: no attribute here. */
static bool refer(RawNode *n, const Onnx__AttributeProto *a, const Attr *outer, size_t n_outer, Attr *out,
                  bool *there) {
  AttrKind kind;
  *there = false;
  for (size_t i = 0; i < n_outer; i++)
    if (strcmp(outer[i].name, a->ref_attr_name) == 0) {
      *out = outer[i];
      out->name = a->name;
      *there = true;
    }
  if (*there && a->type > 0 && a->type < TYPES && type_kind((ProtoType)a->type, &kind) && kind != out->kind)
    return fault(n, a->name, "is %s, but the function's attribute %s is %s", type_names[a->type],
                 quoted(n->reader->ctx, a->ref_attr_name), attribute_kind_name(out->kind));
  return true;
}

static bool is_duplicate(const RawNode *n, const char *name) {
  for (size_t i = 0; i < n->n_attr; i++)
    if (strcmp(n->attr[i].name, name) == 0) return true;
  return false;
}

bool attributes_read(RawNode *n, const Attr *outer, size_t n_outer) {
  const Onnx__NodeProto *p = n->proto;
  bool good = true;
  n->attr = ctx_array(n->reader->ctx, p->n_attribute + 4, sizeof *n->attr); /* room for what upgrade.c adds */
  for (size_t i = 0; i < p->n_attribute; i++) {
    const Onnx__AttributeProto *a = p->attribute[i];
    if (!a->name || !*a->name) {
      good = fault(n, "", "has no name");
      continue;
    }
    Attr out;
    bool there = true, fine;
    if (is_duplicate(n, a->name))
      fine = fault(n, a->name, "is given twice");
    else if (a->ref_attr_name && *a->ref_attr_name)
      fine = refer(n, a, outer, n_outer, &out, &there);
    else
      fine = attribute_convert(n, a, &out);
    good = good && fine;
    if (fine && there) n->attr[n->n_attr++] = out;
  }
  return good;
}

bool attributes_check(const RawNode *n, Op op) {
  bool good = true;
  for (size_t i = 0; i < n->n_attr; i++) {
    const Attr *a = &n->attr[i];
    const AttrInfo *info = op_attr(op, a->name);
    if (!info)
      good = fault(n, a->name, "does not exist: %s has none of that name", op_info(op)->name);
    else if (info->kind != a->kind)
      good = fault(n, a->name, "is %s, but must be %s", attribute_kind_name(a->kind), attribute_kind_name(info->kind));
  }
  return good;
}
