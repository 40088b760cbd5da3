/* Builds ONNX files byte by byte for the tests of the frontend, so that a test shows what it reads, and can also write
 * what no library would. Field numbers are those of frontends/onnx/onnx.proto. */
#ifndef MOECC_TESTS_ONNX_BYTES_H
#define MOECC_TESTS_ONNX_BYTES_H

#include "compiler.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

typedef struct {
  uint8_t *data;
  size_t n, cap;
} Bytes;

static inline void put(Bytes *b, const void *data, size_t n) {
  if (b->n + n > b->cap) {
    b->cap = 2 * (b->n + n) + 64;
    b->data = realloc(b->data, b->cap);
    assert_non_null(b->data);
  }
  if (n) memcpy(b->data + b->n, data, n);
  b->n += n;
}

static inline void put_raw_varint(Bytes *b, uint64_t v) {
  for (; v > 0x7f; v >>= 7) put(b, &(uint8_t){(uint8_t)(v | 0x80)}, 1);
  put(b, &(uint8_t){(uint8_t)v}, 1);
}

static inline void put_int(Bytes *b, unsigned field, int64_t v) {
  put_raw_varint(b, field << 3);
  put_raw_varint(b, (uint64_t)v);
}

static inline void put_float(Bytes *b, unsigned field, float f) {
  put_raw_varint(b, field << 3 | 5);
  put(b, &f, sizeof f);
}

static inline void put_bytes(Bytes *b, unsigned field, const void *data, size_t n) {
  put_raw_varint(b, field << 3 | 2);
  put_raw_varint(b, n);
  put(b, data, n);
}

static inline void put_text(Bytes *b, unsigned field, const char *s) { put_bytes(b, field, s, strlen(s)); }

/* Adds a message and frees it. */
static inline void put_message(Bytes *b, unsigned field, Bytes m) {
  put_bytes(b, field, m.data, m.n);
  free(m.data);
}

/* ---- ONNX messages ---- */

enum {
  ONNX_FLOAT = 1,
  ONNX_UINT8,
  ONNX_INT8,
  ONNX_UINT16,
  ONNX_INT16,
  ONNX_INT32,
  ONNX_INT64,
  ONNX_STRING,
  ONNX_BOOL,
  ONNX_FLOAT16,
  ONNX_DOUBLE,
  ONNX_UINT32,
  ONNX_UINT64
};

static inline Bytes tensor_head(const char *name, int type, int rank, const int64_t *dims) {
  Bytes t = {0};
  for (int i = 0; i < rank; i++) put_int(&t, 1, dims[i]);
  put_int(&t, 2, type);
  if (name) put_text(&t, 8, name);
  return t;
}

static inline Bytes raw_tensor(const char *name, int type, int rank, const int64_t *dims, const void *data, size_t n) {
  Bytes t = tensor_head(name, type, rank, dims);
  put_bytes(&t, 9, data, n);
  return t;
}

static inline Bytes int64_vector(const char *name, int64_t n, const int64_t *v) {
  return raw_tensor(name, ONNX_INT64, 1, &n, v, (size_t)n * sizeof *v);
}

static inline Bytes float_vector(const char *name, int64_t n, const float *v) {
  return raw_tensor(name, ONNX_FLOAT, 1, &n, v, (size_t)n * sizeof *v);
}

/* A ValueInfoProto; a dimension below 0 is the free one called N. */
static inline Bytes value_info(const char *name, int type, int rank, const int64_t *dims) {
  Bytes shape = {0}, tensor = {0}, t = {0}, info = {0};
  for (int i = 0; i < rank; i++) {
    Bytes d = {0};
    if (dims[i] >= 0)
      put_int(&d, 1, dims[i]);
    else
      put_text(&d, 2, "N");
    put_message(&shape, 1, d);
  }
  put_int(&tensor, 1, type);
  put_message(&tensor, 2, shape);
  put_message(&t, 1, tensor);
  put_text(&info, 1, name);
  put_message(&info, 2, t);
  return info;
}

/* Names are words in one string: "a b"; "-" is an absent operand. */
static inline void put_words(Bytes *b, unsigned field, const char *words) {
  for (const char *p = words; *p;) {
    size_t n = strcspn(p, " ");
    put_bytes(b, field, p, n == 1 && *p == '-' ? 0 : n);
    p += n + (p[n] == ' ');
  }
}

static inline Bytes node(const char *op, const char *name, const char *in, const char *out) {
  Bytes n = {0};
  put_words(&n, 1, in);
  put_words(&n, 2, out);
  put_text(&n, 3, name);
  put_text(&n, 4, op);
  return n;
}

static inline Bytes attribute(const char *name, int type) {
  Bytes a = {0};
  put_text(&a, 1, name);
  put_int(&a, 20, type);
  return a;
}

static inline void attr_int(Bytes *n, const char *name, int64_t v) {
  Bytes a = attribute(name, 2);
  put_int(&a, 3, v);
  put_message(n, 5, a);
}

static inline void attr_float(Bytes *n, const char *name, float v) {
  Bytes a = attribute(name, 1);
  put_float(&a, 2, v);
  put_message(n, 5, a);
}

static inline void attr_text(Bytes *n, const char *name, const char *v) {
  Bytes a = attribute(name, 3);
  put_text(&a, 4, v);
  put_message(n, 5, a);
}

static inline void attr_ints(Bytes *n, const char *name, size_t count, const int64_t *v) {
  Bytes a = attribute(name, 7);
  for (size_t i = 0; i < count; i++) put_int(&a, 8, v[i]);
  put_message(n, 5, a);
}

static inline void attr_reference(Bytes *n, const char *name, int type, const char *of) {
  Bytes a = attribute(name, type);
  put_text(&a, 21, of);
  put_message(n, 5, a);
}

static inline Bytes opset(const char *domain, int64_t version) {
  Bytes o = {0};
  put_text(&o, 1, domain);
  put_int(&o, 2, version);
  return o;
}

/* The model around a graph, which is freed. */
static inline Bytes model(Bytes graph, int64_t version) {
  Bytes m = {0};
  put_int(&m, 1, 8);
  put_message(&m, 8, opset("", version));
  put_message(&m, 7, graph);
  return m;
}

/* A graph with one float input x [2,3,4] and an output y, without nodes. */
static inline Bytes graph_xy(void) {
  Bytes g = {0}, y = {0};
  put_text(&g, 2, "g");
  put_message(&g, 11, value_info("x", ONNX_FLOAT, 3, (const int64_t[]){2, 3, 4}));
  put_text(&y, 1, "y");
  put_message(&g, 12, y);
  return g;
}

/* ---- reading ---- */

typedef struct {
  Ctx *ctx;
  Bytes bytes;
  const char *folder;
  Graph *graph;
  ExitStatus status;
} Reading;

static inline void reading_body(Ctx *c, void *arg) {
  Reading *r = arg;
  r->graph = onnx_read_memory(c, r->bytes.data, r->bytes.n, r->folder);
  graph_verify(r->graph, "reading");
}

/* Reads a model; the graph is NULL if it was refused. End with done. */
static inline Reading read_bytes(Bytes b, const char *folder) {
  Reading r = {.ctx = ctx_new(), .bytes = b, .folder = folder};
  r.status = ctx_run(r.ctx, reading_body, &r);
  if (r.status != EXIT_DONE) r.graph = NULL;
  return r;
}

static inline void done(Reading *r) {
  ctx_free(r->ctx);
  free(r->bytes.data);
}

static inline bool says(const Reading *r, const char *part) {
  for (size_t i = 0; i < ctx_message_count(r->ctx); i++)
    if (strstr(ctx_message(r->ctx, i), part)) return true;
  return false;
}

static inline void print_messages(const Reading *r) {
  for (size_t i = 0; i < ctx_message_count(r->ctx); i++) print_message("  %s\n", ctx_message(r->ctx, i));
}

/* The model must be refused with a message that contains `part`. Frees it. */
static inline void refused(Bytes b, const char *part) {
  Reading r = read_bytes(b, NULL);
  if (r.status != EXIT_MODEL || !says(&r, part)) {
    print_message("status %d, wanted \"%s\" in:\n", (int)r.status, part);
    print_messages(&r);
    fail();
  }
  done(&r);
}

/* The model must be taken. */
static inline Reading accepted(Bytes b) {
  Reading r = read_bytes(b, NULL);
  if (r.status != EXIT_DONE) {
    print_messages(&r);
    fail();
  }
  return r;
}

static inline const Node *find_node(const Graph *g, const char *name) {
  for (const Node *n = g->first; n; n = n->next)
    if (strcmp(n->name, name) == 0) return n;
  return NULL;
}

static inline size_t count_nodes(const Graph *g) {
  size_t count = 0;
  for (const Node *n = g->first; n; n = n->next) count++;
  return count;
}

#endif
