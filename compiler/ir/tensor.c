/* Element types and constant tensors. */
#include "compiler.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct {
  size_t size;
  const char *name, *brief, *c;
} dtypes[DT_COUNT] = {
    [DT_NONE] = {0, "undefined", "none", "void"},    [DT_F32] = {4, "float", "f32", "float"},
    [DT_F64] = {8, "double", "f64", "double"},       [DT_F16] = {2, "float16", "f16", "uint16_t"},
    [DT_BF16] = {2, "bfloat16", "bf16", "uint16_t"}, [DT_I8] = {1, "int8", "i8", "int8_t"},
    [DT_U8] = {1, "uint8", "u8", "uint8_t"},         [DT_I16] = {2, "int16", "i16", "int16_t"},
    [DT_U16] = {2, "uint16", "u16", "uint16_t"},     [DT_I32] = {4, "int32", "i32", "int32_t"},
    [DT_U32] = {4, "uint32", "u32", "uint32_t"},     [DT_I64] = {8, "int64", "i64", "int64_t"},
    [DT_U64] = {8, "uint64", "u64", "uint64_t"},     [DT_BOOL] = {1, "bool", "bool", "unsigned char"},
    [DT_STRING] = {0, "string", "str", "void"},
};

size_t dtype_size(DType t) { return dtypes[t].size; }
const char *dtype_name(DType t) { return dtypes[t].name; }
const char *dtype_short(DType t) { return dtypes[t].brief; }
const char *dtype_c(DType t) { return dtypes[t].c; }

DType dtype_from_name(const char *name) {
  for (int t = DT_F32; t < DT_COUNT; t++)
    if (strcmp(dtypes[t].name, name) == 0) return (DType)t;
  return DT_NONE;
}

bool dtype_is_float(DType t) { return t == DT_F32 || t == DT_F64 || t == DT_F16 || t == DT_BF16; }

bool dtype_is_signed(DType t) { return dtype_is_float(t) || t == DT_I8 || t == DT_I16 || t == DT_I32 || t == DT_I64; }

/* ---- shapes ---- */

Shape shape_unknown(void) { return (Shape){.rank = -1}; }

Shape shape_of(int rank, const int64_t *dims) {
  Shape s = {.rank = rank};
  for (int i = 0; i < rank; i++) s.dim[i].n = dims[i];
  return s;
}

bool shape_known(const Shape *s) {
  for (int i = 0; i < s->rank; i++)
    if (s->dim[i].sym || s->dim[i].n < 0) return false;
  return s->rank >= 0;
}

bool shape_equal(const Shape *a, const Shape *b) {
  if (a->rank != b->rank) return false;
  for (int i = 0; i < a->rank; i++)
    if (a->dim[i].n != b->dim[i].n || a->dim[i].sym != b->dim[i].sym) return false;
  return true;
}

int64_t shape_count(const Shape *s) {
  if (s->rank < 0) return -1;
  int64_t n = 1;
  for (int i = 0; i < s->rank; i++)
    if (!size_mul(n, s->dim[i].n, &n)) return -1;
  return n;
}

char *shape_text(Ctx *c, DType t, const Shape *s) {
  Text out = {.ctx = c};
  text_add(&out, "%s[", t == DT_NONE ? "?" : dtype_short(t));
  if (s->rank < 0) text_add(&out, "?");
  for (int i = 0; i < s->rank; i++) {
    const Dim *d = &s->dim[i];
    if (i) text_add(&out, ",");
    if (d->sym && d->n >= 0)
      text_add(&out, "n%d<=%lld", d->sym, (long long)d->n);
    else if (d->n < 0)
      text_add(&out, "?");
    else
      text_add(&out, "%lld", (long long)d->n);
  }
  text_add(&out, "]");
  return out.text;
}

/* ---- tensors ---- */

void pages_forget(const void *data, size_t bytes) {
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  uintptr_t from = ((uintptr_t)data + page - 1) / page * page, to = ((uintptr_t)data + bytes) / page * page;
  if (from < to) madvise((void *)from, to - from, MADV_DONTNEED);
}

void tensor_rest(const Tensor *t) {
  if (t->mapped) pages_forget(t->data, t->bytes);
}

Tensor *tensor_new(Ctx *c, DType t, int rank, const int64_t *dims, const void *data) {
  Tensor *x = ctx_alloc(c, sizeof *x);
  x->dtype = t;
  x->rank = rank;
  int64_t bytes = (int64_t)dtype_size(t);
  for (int i = 0; i < rank; i++) {
    x->dim[i] = dims[i];
    if (!size_mul(bytes, dims[i], &bytes)) ctx_fail(c, NULL, "a constant's size does not fit 63 bits");
  }
  x->bytes = (size_t)bytes;
  x->data = data ? data : ctx_alloc(c, x->bytes);
  return x;
}

void *tensor_writable(Tensor *t) { return (void *)(uintptr_t)t->data; }

int64_t tensor_count(const Tensor *t) {
  int64_t n = 1;
  for (int i = 0; i < t->rank; i++) n *= t->dim[i];
  return n;
}

uint64_t tensor_hash(Tensor *t) {
  if (!t->hash) {
    uint64_t h = hash_bytes(t->dim, sizeof(int64_t) * (size_t)t->rank, (uint64_t)t->dtype);
    t->hash = hash_bytes(t->data, t->bytes, h) | 1;
  }
  return t->hash;
}

bool tensor_equal(Tensor *a, Tensor *b) {
  if (a == b) return true;
  if (a->dtype != b->dtype || a->rank != b->rank || a->bytes != b->bytes) return false;
  if (memcmp(a->dim, b->dim, sizeof(int64_t) * (size_t)a->rank) != 0) return false;
  return tensor_hash(a) == tensor_hash(b) && (a->data == b->data || memcmp(a->data, b->data, a->bytes) == 0);
}

#define LOAD(type)                                                                                                     \
  type x;                                                                                                              \
  memcpy(&x, (const char *)t->data + (size_t)i * sizeof x, sizeof x)

int64_t tensor_integer(const Tensor *t, int64_t i) {
  switch (t->dtype) {
  case DT_I8: {
    LOAD(int8_t);
    return x;
  }
  case DT_U8:
  case DT_BOOL: {
    LOAD(uint8_t);
    return x;
  }
  case DT_I16: {
    LOAD(int16_t);
    return x;
  }
  case DT_U16: {
    LOAD(uint16_t);
    return x;
  }
  case DT_I32: {
    LOAD(int32_t);
    return x;
  }
  case DT_U32: {
    LOAD(uint32_t);
    return x;
  }
  case DT_I64:
  case DT_U64: {
    LOAD(int64_t);
    return x;
  }
  default: return (int64_t)tensor_number(t, i);
  }
}

double tensor_number(const Tensor *t, int64_t i) {
  switch (t->dtype) {
  case DT_F32: {
    LOAD(float);
    return (double)x;
  }
  case DT_F64: {
    LOAD(double);
    return x;
  }
  case DT_F16: {
    LOAD(uint16_t);
    return (double)half_to_float(x);
  }
  case DT_BF16: {
    LOAD(uint16_t);
    return (double)bfloat_to_float(x);
  }
  case DT_U64: {
    LOAD(uint64_t);
    return (double)x;
  }
  case DT_NONE:
  case DT_STRING: return 0;
  default: return (double)tensor_integer(t, i);
  }
}

#define STORE(type, value)                                                                                             \
  type y = (type)(value);                                                                                              \
  memcpy((char *)tensor_writable(t) + (size_t)i * sizeof y, &y, sizeof y);                                             \
  break

void tensor_set_number(Tensor *t, int64_t i, double x) {
  switch (t->dtype) {
  case DT_F32: {
    STORE(float, x);
  }
  case DT_F64: {
    STORE(double, x);
  }
  case DT_F16: {
    STORE(uint16_t, float_to_half((float)x));
  }
  case DT_BF16: {
    STORE(uint16_t, float_to_bfloat((float)x));
  }
  case DT_I8: {
    STORE(int8_t, x);
  }
  case DT_U8: {
    STORE(uint8_t, x);
  }
  case DT_BOOL: {
    STORE(uint8_t, x != 0);
  }
  case DT_I16: {
    STORE(int16_t, x);
  }
  case DT_U16: {
    STORE(uint16_t, x);
  }
  case DT_I32: {
    STORE(int32_t, x);
  }
  case DT_U32: {
    STORE(uint32_t, x);
  }
  case DT_I64: {
    STORE(int64_t, x);
  }
  case DT_U64: {
    STORE(uint64_t, x);
  }
  case DT_NONE:
  case DT_STRING:
  case DT_COUNT: break;
  }
}

/* ---- half precision ---- */

static float bits_float(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}

static uint32_t float_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

float half_to_float(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, fraction = h & 0x3ffu;
  if (exponent == 31) return bits_float(sign | 0x7f800000u | fraction << 13);
  if (exponent) return bits_float(sign | (exponent + 112) << 23 | fraction << 13);
  float f = (float)fraction * (1.0f / 16777216.0f); /* subnormal: fraction · 2^-24, exact */
  return sign ? -f : f;
}

float bfloat_to_float(uint16_t h) { return bits_float((uint32_t)h << 16); }

uint16_t float_to_half(float f) {
  uint32_t u = float_bits(f), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
  if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds to infinity */
  if (a < 0x38800000u) {                                   /* subnormal: adding 0.5 leaves round(f · 2^24) below */
    float shifted = bits_float(a) + 0.5f;
    return (uint16_t)(sign | (float_bits(shifted) - float_bits(0.5f)));
  }
  a += 0xfffu + ((a >> 13) & 1u);
  return (uint16_t)(sign | ((a - 0x38000000u) >> 13));
}

uint16_t float_to_bfloat(float f) {
  uint32_t u = float_bits(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
  return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
