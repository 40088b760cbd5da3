/* Everything between bytes and protobuf-c.
 *
 * protobuf-c recurses without a limit and believes lengths, so a message is first walked here with an explicit stack,
 * guided by the descriptors that protoc-c generated from onnx.proto. The same walk, done a second time, writes what is
 * unpacked: a copy without the fields we have no use for, and with a Span of 16 bytes in place of each tensor's data,
 * so that weights are never copied. Lengths of messages in the copy are five-byte varints, patched when the message
 * ends.
 */
#include "frontend.h"

#include <limits.h>
#include <string.h>

enum { VARINT = 0, FIXED64 = 1, LENGTH = 2, FIXED32 = 5, PATCHED_LENGTH = 5 };

/* Memory that unpacking may take: enough for any graph of a real size, far below what a bomb would want. */
static const uint64_t MEMORY_BASE = 64u << 20, MEMORY_PER_BYTE = 32, MEMORY_MOST = 1u << 30;
enum { MEMORY_PER_FIELD = 64 }; /* protobuf-c's own notes of a field: 32 bytes in slabs that double */

typedef struct {
  const ProtobufCMessageDescriptor *type;
  size_t end;       /* in the input */
  size_t length_at; /* where in the output its length goes */
  uint64_t seen;    /* single messages already met, by index of field */
} Frame;

typedef struct {
  Ctx *ctx;
  const char *what;
  const uint8_t *data;
  size_t at;
  uint8_t *out; /* NULL in the first walk, which only counts */
  size_t n_out, room;
  uint64_t memory, most_memory;
  Frame frame[WIRE_MAX_DEPTH];
  int depth;
} Walk;

static _Noreturn void PRINTF_LIKE(3, 4) bad(const Walk *w, size_t at, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  const char *why = ctx_vformat(w->ctx, fmt, ap);
  va_end(ap);
  const char *in = w->depth ? w->frame[w->depth - 1].type->short_name : w->what;
  ctx_fail(w->ctx, NULL, "is not a valid %s: at byte %zu, in %s: %s", w->what, at, in, why);
}

static size_t end_of(const Walk *w) { return w->frame[w->depth - 1].end; }

static uint64_t read_varint(Walk *w, size_t end) {
  size_t start = w->at;
  uint64_t v = 0;
  for (unsigned shift = 0; shift < 70; shift += 7) {
    if (w->at >= end) bad(w, start, "a varint is cut off");
    uint8_t b = w->data[w->at++];
    if (shift == 63 && b > 1) break;
    v |= (uint64_t)(b & 0x7f) << shift;
    if (!(b & 0x80)) return v;
  }
  bad(w, start, "a varint has more than 64 bits");
}

uint64_t wire_varint(const uint8_t *data, size_t *at, size_t end) {
  uint64_t v = 0;
  for (unsigned shift = 0; shift < 64 && *at < end; shift += 7) {
    uint8_t b = data[(*at)++];
    v |= (uint64_t)(b & 0x7f) << shift;
    if (!(b & 0x80)) break;
  }
  return v;
}

/* ---- output ---- */

/* The next n bytes of the output, NULL in the first walk. The file is mapped: it may change between the walks. */
static uint8_t *reserve(Walk *w, size_t n) {
  uint8_t *p = w->out ? w->out + w->n_out : NULL;
  if (w->out && n > w->room - w->n_out) bad(w, w->at, "the file changes while it is read");
  w->n_out += n;
  return p;
}

static void put(Walk *w, const void *bytes, size_t n) {
  uint8_t *p = reserve(w, n);
  if (p && n) memcpy(p, bytes, n);
}

static void put_varint(Walk *w, uint64_t v) {
  uint8_t b[10];
  size_t n = 0;
  do {
    b[n++] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
    v >>= 7;
  } while (v);
  put(w, b, n);
}

static void put_tag(Walk *w, const ProtobufCFieldDescriptor *f, unsigned wire_type) {
  put_varint(w, (uint64_t)f->id << 3 | wire_type);
}

static void put_span(Walk *w, const ProtobufCFieldDescriptor *f, size_t offset, size_t bytes) {
  Span s = {offset, bytes};
  put_tag(w, f, LENGTH);
  put_varint(w, sizeof s);
  put(w, &s, sizeof s);
}

Span wire_span(const ProtobufCBinaryData *b) {
  Span s = {0, 0};
  if (b->len == sizeof s) memcpy(&s, b->data, sizeof s);
  return s;
}

static void take_memory(Walk *w, uint64_t bytes) {
  w->memory += bytes + 16; /* the arena's alignment */
  if (w->memory > w->most_memory)
    bad(w, w->at, "so many fields that unpacking it would take more than %llu MiB of memory",
        (unsigned long long)(w->most_memory >> 20));
}

/* ---- fields ---- */

static const ProtobufCFieldDescriptor *field_of(const ProtobufCMessageDescriptor *type, uint64_t id) {
  for (unsigned i = 0; i < type->n_fields; i++)
    if (type->fields[i].id == id) return &type->fields[i];
  return NULL;
}

/* Bytes are left in the file, except attributes' own strings. */
static bool is_span(const Walk *w, const ProtobufCFieldDescriptor *f) {
  if (f->type != PROTOBUF_C_TYPE_BYTES) return false;
  return w->frame[w->depth - 1].type != &onnx__attribute_proto__descriptor || (f->id != 4 && f->id != 9);
}

/* The wire type of one element of a field as ONNX, not onnx.proto, declares it. */
static unsigned element_wire_type(const Walk *w, const ProtobufCFieldDescriptor *f) {
  if (w->frame[w->depth - 1].type == &onnx__tensor_proto__descriptor && f->type == PROTOBUF_C_TYPE_BYTES)
    switch (f->id) {
    case 4: return FIXED32;
    case 5:
    case 7:
    case 11: return VARINT;
    case 10: return FIXED64;
    default: return LENGTH;
    }
  switch (f->type) {
  case PROTOBUF_C_TYPE_FLOAT: return FIXED32;
  case PROTOBUF_C_TYPE_INT32:
  case PROTOBUF_C_TYPE_INT64: return VARINT;
  default: return LENGTH; /* string, bytes, message: onnx.proto has no others */
  }
}

/* Checks the elements packed in [at, end) and returns how many there are. */
static uint64_t check_packed(Walk *w, unsigned wire_type, size_t end) {
  size_t size = wire_type == FIXED32 ? 4 : 8, n = end - w->at;
  if (wire_type != VARINT) {
    if (n % size) bad(w, w->at, "packed numbers of %zu bytes each take %zu bytes", size, n);
    w->at = end;
    return n / size;
  }
  uint64_t count = 0;
  for (; w->at < end; count++) read_varint(w, end);
  return count;
}

/* Skips one value and returns where its payload begins. */
static size_t skip_value(Walk *w, unsigned wire_type, size_t *payload) {
  size_t end = end_of(w), start = w->at;
  uint64_t n = 0;
  switch (wire_type) {
  case VARINT:
    read_varint(w, end);
    *payload = w->at - start;
    return start;
  case FIXED64: n = 8; break;
  case FIXED32: n = 4; break;
  default: n = read_varint(w, end); break;
  }
  if (n > end - w->at)
    bad(w, start, "a field of %llu bytes reaches beyond the end of its message, %zu bytes on", (unsigned long long)n,
        end - w->at);
  size_t from = w->at;
  w->at += (size_t)n;
  *payload = (size_t)n;
  return from;
}

static void enter(Walk *w, const ProtobufCFieldDescriptor *f, unsigned index) {
  size_t start = w->at, end = end_of(w);
  uint64_t n = read_varint(w, end);
  if (n > end - w->at)
    bad(w, start, "message %s of %llu bytes reaches beyond the end of the one around it, %zu bytes on", f->name,
        (unsigned long long)n, end - w->at);
  Frame *outer = &w->frame[w->depth - 1];
  if (f->label != PROTOBUF_C_LABEL_REPEATED) {
    if (outer->seen >> index & 1) bad(w, start, "field %s is there twice", f->name);
    outer->seen |= (uint64_t)1 << index;
  }
  if (w->depth == WIRE_MAX_DEPTH) bad(w, start, "messages are nested deeper than %d", WIRE_MAX_DEPTH);
  put_tag(w, f, LENGTH);
  const ProtobufCMessageDescriptor *type = f->descriptor;
  take_memory(w, type->sizeof_message + 8);
  w->frame[w->depth++] = (Frame){.type = type, .end = w->at + (size_t)n, .length_at = w->n_out};
  reserve(w, PATCHED_LENGTH);
}

static void leave_message(Walk *w) {
  Frame *f = &w->frame[--w->depth];
  size_t n = w->n_out - f->length_at - PATCHED_LENGTH;
  if (!w->out) return;
  for (unsigned i = 0; i < PATCHED_LENGTH; i++)
    w->out[f->length_at + i] = (uint8_t)((n >> (7 * i) & 0x7f) | (i + 1 < PATCHED_LENGTH ? 0x80 : 0));
}

static void copy_value(Walk *w, const ProtobufCFieldDescriptor *f, unsigned wire_type, size_t from, size_t n) {
  if (f->type == PROTOBUF_C_TYPE_STRING && memchr(w->data + from, 0, n))
    bad(w, from, "the text of %s contains a NUL", f->name);
  put_tag(w, f, wire_type);
  if (wire_type == LENGTH) put_varint(w, n);
  put(w, w->data + from, n);
  take_memory(w, n + 16);
}

static void known_field(Walk *w, const ProtobufCFieldDescriptor *f, unsigned wire_type, size_t tag_at) {
  unsigned wanted = element_wire_type(w, f);
  bool packed = wire_type == LENGTH && wanted != LENGTH && f->label == PROTOBUF_C_LABEL_REPEATED;
  if (wire_type != wanted && !packed)
    bad(w, tag_at, "field %s has wire type %u instead of %u", f->name, wire_type, wanted);
  size_t n, from = skip_value(w, wire_type, &n);
  if (packed) {
    w->at = from;
    uint64_t count = check_packed(w, wanted, from + n);
    if (!is_span(w, f)) take_memory(w, 8 * count);
  }
  if (is_span(w, f)) {
    put_span(w, f, from, n);
    take_memory(w, 64);
  } else {
    copy_value(w, f, wire_type, from, n);
  }
}

static void field(Walk *w) {
  size_t tag_at = w->at;
  uint64_t tag = read_varint(w, end_of(w));
  unsigned wire_type = (unsigned)(tag & 7);
  if (tag >> 3 == 0 || tag >> 32) bad(w, tag_at, "field number %llu", (unsigned long long)(tag >> 3));
  if (wire_type != VARINT && wire_type != FIXED64 && wire_type != LENGTH && wire_type != FIXED32)
    bad(w, tag_at, "field %llu has the unknown wire type %u", (unsigned long long)(tag >> 3), wire_type);
  const Frame *in = &w->frame[w->depth - 1];
  const ProtobufCFieldDescriptor *f = field_of(in->type, tag >> 3);
  size_t n;
  if (!f) {
    skip_value(w, wire_type, &n);
    return;
  }
  take_memory(w, MEMORY_PER_FIELD);
  if (f->type == PROTOBUF_C_TYPE_MESSAGE && wire_type == LENGTH)
    enter(w, f, (unsigned)(f - in->type->fields));
  else
    known_field(w, f, wire_type, tag_at);
}

static void walk(Walk *w, const ProtobufCMessageDescriptor *type, size_t bytes) {
  w->at = w->n_out = 0;
  w->memory = 0;
  w->frame[0] = (Frame){.type = type, .end = bytes};
  w->depth = 1;
  for (;;) {
    while (w->depth > 1 && w->at == end_of(w)) leave_message(w);
    if (w->at == end_of(w)) return;
    field(w);
  }
}

/* ---- unpacking into the arena ---- */

static void *arena_alloc(void *ctx, size_t bytes) { return ctx_alloc(ctx, bytes); }
static void arena_free(void *ctx, void *p) {
  (void)ctx;
  (void)p;
}

ProtobufCMessage *wire_unpack(Ctx *c, const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t bytes,
                              const char *what) {
  if (bytes > INT_MAX) ctx_fail(c, NULL, "is over 2 GiB (%zu bytes): store the weights as external data", bytes);
  if (!bytes) ctx_fail(c, NULL, "is empty: not a valid %s (at byte 0)", what);
  Walk *w = ctx_alloc(c, sizeof *w);
  uint64_t allowed = MEMORY_BASE + MEMORY_PER_BYTE * bytes;
  *w = (Walk){.ctx = c, .what = what, .data = data, .most_memory = allowed < MEMORY_MOST ? allowed : MEMORY_MOST};
  walk(w, type, bytes);
  w->room = w->n_out;
  w->out = ctx_alloc(c, w->room + 1);
  walk(w, type, bytes);
  ProtobufCAllocator arena = {.alloc = arena_alloc, .free = arena_free, .allocator_data = c};
  ProtobufCMessage *m = protobuf_c_message_unpack(type, &arena, w->n_out, w->out);
  if (!m) ctx_fail(c, NULL, "is not a valid %s: protobuf-c does not take it", what);
  return m;
}
