/* TensorProto to Tensor: every way ONNX has to store elements, checked against the shape.
 *
 * Raw and external bytes that are aligned for their type are used where they are in the mapped file; others are copied
 * and the pages they came from are let go, so a model costs its own size once, whichever way it is stored.
 */
#include "frontend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct {
  const char *name;
  DType type;
} types[] = {
    {"undefined", DT_NONE},
    {"float", DT_F32},
    {"uint8", DT_U8},
    {"int8", DT_I8},
    {"uint16", DT_U16},
    {"int16", DT_I16},
    {"int32", DT_I32},
    {"int64", DT_I64},
    {"string", DT_NONE},
    {"bool", DT_BOOL},
    {"float16", DT_F16},
    {"double", DT_F64},
    {"uint32", DT_U32},
    {"uint64", DT_U64},
    {"complex64", DT_NONE},
    {"complex128", DT_NONE},
    {"bfloat16", DT_BF16},
    {"float8e4m3fn", DT_NONE},
    {"float8e4m3fnuz", DT_NONE},
    {"float8e5m2", DT_NONE},
    {"float8e5m2fnuz", DT_NONE},
    {"uint4", DT_NONE},
    {"int4", DT_NONE},
    {"float4e2m1", DT_NONE},
    {"float8e8m0", DT_NONE},
    {"uint2", DT_NONE},
    {"int2", DT_NONE},
    {"float6e2m3", DT_NONE},
    {"float6e3m2", DT_NONE},
};
enum { TYPES = sizeof types / sizeof *types };

DType dtype_from_onnx(int code) { return code >= 0 && code < TYPES ? types[code].type : DT_NONE; }
const char *onnx_type_name(int code) { return code >= 0 && code < TYPES ? types[code].name : NULL; }

/* ---- the shape ---- */

/* A tensor while it is checked. */
typedef struct {
  Source *source;
  Ctx *ctx;
  const Onnx__TensorProto *proto;
  const char *owner;
  Tensor *tensor;
} Load;

static const char *shape_of_proto(const Load *l) {
  Text t = {.ctx = l->ctx};
  text_add(&t, "%s[", dtype_short(l->tensor->dtype));
  for (size_t i = 0; i < l->proto->n_dims && i < MAX_RANK; i++)
    text_add(&t, "%s%lld", i ? "," : "", (long long)l->proto->dims[i]);
  text_add(&t, "]");
  return t.text;
}

static void read_shape(Load *l) {
  const Onnx__TensorProto *p = l->proto;
  Tensor *t = l->tensor;
  if (p->n_dims > MAX_RANK)
    ctx_fail(l->ctx, NULL, "%s: has %zu dimensions; at most %d are supported", l->owner, p->n_dims, MAX_RANK);
  int64_t bytes = (int64_t)dtype_size(t->dtype);
  bool fits = true;
  for (size_t i = 0; i < p->n_dims; i++) {
    if (p->dims[i] < 0) ctx_fail(l->ctx, NULL, "%s: %s: dimension %zu is negative", l->owner, shape_of_proto(l), i);
    t->dim[i] = p->dims[i];
    fits = fits && size_mul(bytes, p->dims[i], &bytes);
  }
  if (!fits || bytes > INT64_MAX / 4) ctx_fail(l->ctx, NULL, "%s: %s: its size overflows", l->owner, shape_of_proto(l));
  t->rank = (int)p->n_dims;
  t->bytes = (size_t)bytes;
}

/* ---- where the data is ---- */

typedef struct {
  const char *name;
  size_t n; /* occurrences */
} DataField;

/* The one data field in use, NULL if there is none. */
static const char *only_field(const Load *l) {
  const Onnx__TensorProto *p = l->proto;
  DataField fields[] = {{"raw_data", p->has_raw_data != 0}, {"float_data", p->n_float_data},
                        {"int32_data", p->n_int32_data},    {"int64_data", p->n_int64_data},
                        {"double_data", p->n_double_data},  {"uint64_data", p->n_uint64_data},
                        {"string_data", p->n_string_data},  {"external_data", p->n_external_data}};
  const char *found = NULL;
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    if (!fields[i].n) continue;
    if (found) ctx_fail(l->ctx, NULL, "%s: has both %s and %s", l->owner, found, fields[i].name);
    found = fields[i].name;
  }
  return found;
}

/* Takes little-endian bytes as they are. Bools become 0 or 1 only by being refused otherwise. */
static void take_bytes(Load *l, const uint8_t *data, bool mapped) {
  Tensor *t = l->tensor;
  if (t->dtype == DT_BOOL)
    for (size_t i = 0; i < t->bytes; i++)
      if (data[i] > 1) ctx_fail(l->ctx, NULL, "%s: bool element %zu is %u", l->owner, i, data[i]);
  if (t->bytes == 0) {
    t->data = "";
  } else if ((uintptr_t)data % dtype_size(t->dtype) == 0) {
    t->data = data;
    t->mapped = mapped;
  } else {
    void *copy = ctx_alloc(l->ctx, t->bytes);
    memcpy(copy, data, t->bytes);
    t->data = copy;
    if (mapped) pages_forget(data, t->bytes);
  }
}

static void load_raw(Load *l) {
  Span s = wire_span(&l->proto->raw_data);
  if (s.bytes != l->tensor->bytes)
    ctx_fail(l->ctx, NULL, "%s: raw_data has %llu bytes, but %s takes %zu", l->owner, (unsigned long long)s.bytes,
             shape_of_proto(l), l->tensor->bytes);
  take_bytes(l, l->source->data + s.offset, l->source->mapped);
}

/* ---- typed fields ---- */

/* Which field holds elements of a type, and whether its chunks are varints. */
typedef struct {
  const char *name;
  const ProtobufCBinaryData *chunk;
  size_t n;
  bool varint;
} TypedField;

static TypedField typed_field(const Onnx__TensorProto *p, DType t) {
  switch (t) {
  case DT_F32: return (TypedField){"float_data", p->float_data, p->n_float_data, false};
  case DT_F64: return (TypedField){"double_data", p->double_data, p->n_double_data, false};
  case DT_I64: return (TypedField){"int64_data", p->int64_data, p->n_int64_data, true};
  case DT_U32:
  case DT_U64: return (TypedField){"uint64_data", p->uint64_data, p->n_uint64_data, true};
  default: return (TypedField){"int32_data", p->int32_data, p->n_int32_data, true};
  }
}

static _Noreturn void wrong_count(const Load *l, const char *field, uint64_t n) {
  ctx_fail(l->ctx, NULL, "%s: %s has %s%llu elements, but its shape is %s", l->owner, field,
           n > (uint64_t)tensor_count(l->tensor) ? "at least " : "", (unsigned long long)n, shape_of_proto(l));
}

static void load_fixed(Load *l, TypedField f) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < f.n; i++) bytes += wire_span(&f.chunk[i]).bytes;
  if (bytes != l->tensor->bytes) wrong_count(l, f.name, bytes / dtype_size(l->tensor->dtype));
  Span first = wire_span(&f.chunk[0]);
  if (f.n == 1) {
    take_bytes(l, l->source->data + first.offset, l->source->mapped);
    return;
  }
  uint8_t *out = ctx_alloc(l->ctx, l->tensor->bytes);
  l->tensor->data = out;
  for (size_t i = 0; i < f.n; i++) {
    Span s = wire_span(&f.chunk[i]);
    if (s.bytes) memcpy(out, l->source->data + s.offset, s.bytes);
    out += s.bytes;
  }
}

/* Stores a varint's value as element i; false if it does not fit the type. */
static bool store(void *out, DType t, int64_t i, uint64_t u) {
  int64_t v = (int64_t)u;
  switch (t) {
  case DT_I8: return ((int8_t *)out)[i] = (int8_t)v, v >= INT8_MIN && v <= INT8_MAX;
  case DT_U8: return ((uint8_t *)out)[i] = (uint8_t)v, v >= 0 && v <= UINT8_MAX;
  case DT_BOOL: return ((uint8_t *)out)[i] = (uint8_t)v, v == 0 || v == 1;
  case DT_I16: return ((int16_t *)out)[i] = (int16_t)v, v >= INT16_MIN && v <= INT16_MAX;
  case DT_U16:
  case DT_F16:
  case DT_BF16: return ((uint16_t *)out)[i] = (uint16_t)v, v >= 0 && v <= UINT16_MAX;
  case DT_I32: return ((int32_t *)out)[i] = (int32_t)v, v >= INT32_MIN && v <= INT32_MAX;
  case DT_U32: return ((uint32_t *)out)[i] = (uint32_t)u, u <= UINT32_MAX;
  default: return ((uint64_t *)out)[i] = u, true;
  }
}

static void load_varints(Load *l, TypedField f) {
  Tensor *t = l->tensor;
  int64_t count = tensor_count(t), n = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < f.n; i++) bytes += wire_span(&f.chunk[i]).bytes;
  if (bytes < (uint64_t)count) wrong_count(l, f.name, bytes); /* before memory for a shape out of thin air is taken */
  void *out = ctx_alloc(l->ctx, t->bytes + 1);
  t->data = out;
  for (size_t i = 0; i < f.n; i++) {
    Span s = wire_span(&f.chunk[i]);
    for (size_t at = s.offset, end = s.offset + s.bytes; at < end; n++) {
      if (n == count) wrong_count(l, f.name, (uint64_t)n + 1);
      uint64_t v = wire_varint(l->source->data, &at, end);
      if (!store(out, t->dtype, n, v))
        ctx_fail(l->ctx, NULL, "%s: element %lld is %lld, not a value of %s", l->owner, (long long)n, (long long)v,
                 dtype_name(t->dtype));
    }
  }
  if (n != count) wrong_count(l, f.name, (uint64_t)n);
}

static void load_typed(Load *l, const char *present) {
  TypedField f = typed_field(l->proto, l->tensor->dtype);
  if (strcmp(present, f.name) != 0)
    ctx_fail(l->ctx, NULL, "%s: elements of %s are in %s, not in %s", l->owner, dtype_name(l->tensor->dtype), present,
             f.name);
  if (f.varint)
    load_varints(l, f);
  else
    load_fixed(l, f);
}

/* ---- external data ---- */

typedef struct {
  const char *location;
  int64_t offset, length; /* length -1: to what the shape takes */
} Place;

static int64_t place_number(const Load *l, const char *key, const char *value) {
  char *end;
  errno = 0;
  long long v = strtoll(value, &end, 10);
  if (errno == ERANGE) ctx_fail(l->ctx, NULL, "%s: external %s %s overflows", l->owner, key, quoted(l->ctx, value));
  if (!*value || *end)
    ctx_fail(l->ctx, NULL, "%s: external %s %s is not a number", l->owner, key, quoted(l->ctx, value));
  if (v < 0) ctx_fail(l->ctx, NULL, "%s: external %s %lld is negative", l->owner, key, v);
  return v;
}

static Place read_place(const Load *l) {
  Place p = {.length = -1};
  unsigned seen = 0;
  for (size_t i = 0; i < l->proto->n_external_data; i++) {
    const char *key = l->proto->external_data[i]->key, *value = l->proto->external_data[i]->value;
    if (!key || !value) ctx_fail(l->ctx, NULL, "%s: an entry of external_data has no key or value", l->owner);
    unsigned which = strcmp(key, "location") == 0 ? 1u
                     : strcmp(key, "offset") == 0 ? 2u
                     : strcmp(key, "length") == 0 ? 4u
                                                  : 0;
    if (seen & which) ctx_fail(l->ctx, NULL, "%s: external %s is given twice", l->owner, key);
    seen |= which;
    if (which == 1) p.location = value;
    if (which == 2) p.offset = place_number(l, key, value);
    if (which == 4) p.length = place_number(l, key, value);
  }
  if (!p.location) ctx_fail(l->ctx, NULL, "%s: external_data has no location", l->owner);
  return p;
}

static FileMap *external_file(Load *l, const char *location) {
  Source *s = l->source;
  for (FileMap *f = s->external; f; f = f->next)
    if (strcmp(f->name, location) == 0) return f;
  if (!s->folder) ctx_fail(l->ctx, NULL, "%s: external data, but the model has no folder", l->owner);
  FileMap *f = file_map_external(l->ctx, s->folder, location, l->owner);
  f->next = s->external;
  return s->external = f;
}

static void load_external(Load *l) {
  Place p = read_place(l);
  FileMap *f = external_file(l, p.location);
  if (p.length >= 0 && (uint64_t)p.length != l->tensor->bytes)
    ctx_fail(l->ctx, NULL, "%s: external length is %lld, but %s takes %zu bytes", l->owner, (long long)p.length,
             shape_of_proto(l), l->tensor->bytes);
  if ((uint64_t)p.offset > f->bytes || l->tensor->bytes > f->bytes - (uint64_t)p.offset)
    ctx_fail(l->ctx, NULL, "%s: external data at %lld, %zu bytes, reaches past the end of %s, which has %zu", l->owner,
             (long long)p.offset, l->tensor->bytes, quoted(l->ctx, p.location), f->bytes);
  const uint8_t *data = f->data + p.offset;
  l->source->external_hash = file_hash(data, l->tensor->bytes, l->source->external_hash);
  take_bytes(l, data, true);
}

/* ---- all of it ---- */

Tensor *tensor_load(Source *s, const Onnx__TensorProto *p, const char *owner) {
  enum { EXTERNAL = 1 };
  DType type = dtype_from_onnx(p->data_type);
  if (type == DT_NONE) return NULL;
  Load l = {.source = s, .ctx = s->ctx, .proto = p, .owner = owner, .tensor = ctx_alloc(s->ctx, sizeof(Tensor))};
  l.tensor->dtype = type;
  if (p->segment) ctx_fail(s->ctx, NULL, "%s: is a segment of a tensor, which is not supported", owner);
  read_shape(&l);
  const char *field = only_field(&l);
  bool external = field && strcmp(field, "external_data") == 0;
  if ((p->data_location == EXTERNAL) != external)
    ctx_fail(s->ctx, NULL, "%s: data_location is %s, but its data is in %s", owner,
             p->data_location == EXTERNAL ? "EXTERNAL" : "DEFAULT", field ? field : "no field at all");
  if (!field && l.tensor->bytes) ctx_fail(s->ctx, NULL, "%s: %s without data", owner, shape_of_proto(&l));
  if (!field)
    l.tensor->data = "";
  else if (external)
    load_external(&l);
  else if (p->has_raw_data)
    load_raw(&l);
  else
    load_typed(&l, field);
  return l.tensor;
}
