/* One compilation's memory, diagnostics and cleanup.
 *
 * Memory is an arena of blocks that live until ctx_free; nothing is freed singly. An error leaves through longjmp to
 * ctx_run, so a function either returns its result or does not return: no half-made state has to be undone, because all
 * of it lies in the arena or was registered with ctx_defer.
 */
#include "compiler.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 256 * 1024, ALIGNMENT = 16 };

typedef struct Block {
  struct Block *next;
  size_t used, size;
  char pad[8]; /* keeps the bytes behind it aligned to 16 */
} Block;

typedef struct Deferred {
  struct Deferred *next;
  void (*fn)(void *);
  void *arg;
} Deferred;

typedef struct {
  char *text;
  bool error;
} Message;

struct Ctx {
  Block *blocks;
  Deferred *deferred;
  jmp_buf *leave; /* where ctx_fail goes; NULL outside ctx_run */
  ExitStatus status;
  const char *file;
  Message *message;
  size_t n_messages, cap_messages;
  size_t errors;
  size_t fail_in; /* allocations until one fails; 0: none */
  bool out_of_memory;
  struct Jit *jit;
};

struct Jit **ctx_jit(Ctx *c) { return &c->jit; }

Ctx *ctx_new(void) { return calloc(1, sizeof(Ctx)); }

void ctx_free(Ctx *c) {
  if (!c) return;
  for (Deferred *d = c->deferred; d; d = d->next)
    if (d->fn) d->fn(d->arg);
  for (Block *b = c->blocks, *next; b; b = next) {
    next = b->next;
    free(b);
  }
  free(c);
}

ExitStatus ctx_run(Ctx *c, void (*body)(Ctx *c, void *arg), void *arg) {
  jmp_buf here;
  c->leave = &here;
  c->status = EXIT_DONE;
  if (setjmp(here) == 0) body(c, arg);
  c->leave = NULL;
  return c->status;
}

static _Noreturn void leave(Ctx *c, ExitStatus status) {
  c->status = status;
  if (!c->leave) abort(); /* a bug of the caller: work outside ctx_run */
  longjmp(*c->leave, 1);
}

/* ---- memory ---- */

static _Noreturn void out_of_memory(Ctx *c) {
  c->out_of_memory = true; /* the message is a constant: see ctx_message */
  leave(c, EXIT_MACHINE);
}

static bool told_to_fail(Ctx *c) {
  if (c->fail_in == 0) return false;
  c->fail_in--;
  return c->fail_in == 0;
}

void *ctx_alloc(Ctx *c, size_t bytes) {
  if (told_to_fail(c)) out_of_memory(c);
  if (bytes > SIZE_MAX / 2) out_of_memory(c);
  bytes = (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
  Block *b = c->blocks;
  if (!b || b->size - b->used < bytes) {
    size_t size = bytes > BLOCK_BYTES / 4 ? bytes : BLOCK_BYTES;
    b = calloc(1, sizeof(Block) + size);
    if (!b) out_of_memory(c);
    b->size = size;
    if (c->blocks && size == bytes) { /* a block of its own goes behind the current one, which still has room */
      b->next = c->blocks->next;
      c->blocks->next = b;
    } else {
      b->next = c->blocks;
      c->blocks = b;
    }
  }
  void *p = (char *)(b + 1) + b->used;
  b->used += bytes;
  return p;
}

void *ctx_array(Ctx *c, size_t count, size_t size) {
  if (size && count > SIZE_MAX / 2 / size) out_of_memory(c);
  return ctx_alloc(c, count * size);
}

void *ctx_grow(Ctx *c, void *items, size_t count, size_t *cap, size_t size) {
  if (count < *cap) return items;
  size_t wanted = *cap ? *cap * 2 : 4;
  void *bigger = ctx_array(c, wanted, size);
  if (count) memcpy(bigger, items, count * size);
  *cap = wanted;
  return bigger;
}

char *ctx_strndup(Ctx *c, const char *s, size_t n) {
  char *copy = ctx_alloc(c, n + 1);
  if (n) memcpy(copy, s, n);
  return copy;
}

char *ctx_strdup(Ctx *c, const char *s) { return ctx_strndup(c, s, strlen(s)); }

char *ctx_vformat(Ctx *c, const char *fmt, va_list ap) {
  va_list again;
  va_copy(again, ap);
  int n = vsnprintf(NULL, 0, fmt, ap);
  char *s = ctx_alloc(c, (size_t)n + 1);
  vsnprintf(s, (size_t)n + 1, fmt, again);
  va_end(again);
  return s;
}

char *ctx_format(Ctx *c, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  char *s = ctx_vformat(c, fmt, ap);
  va_end(ap);
  return s;
}

void ctx_defer(Ctx *c, void (*fn)(void *), void *arg) {
  Deferred *d = ctx_alloc(c, sizeof *d);
  *d = (Deferred){.next = c->deferred, .fn = fn, .arg = arg};
  c->deferred = d;
}

void ctx_undefer(Ctx *c, void (*fn)(void *), void *arg) {
  for (Deferred *d = c->deferred; d; d = d->next)
    if (d->fn == fn && d->arg == arg) {
      d->fn = NULL;
      return;
    }
}

void ctx_fail_allocation(Ctx *c, size_t n) { c->fail_in = n; }

/* ---- messages ---- */

void ctx_set_file(Ctx *c, const char *file) { c->file = ctx_strdup(c, file); }

static bool is_known(const Ctx *c, const char *text) {
  for (size_t i = 0; i < c->n_messages; i++)
    if (strcmp(c->message[i].text, text) == 0) return true;
  return false;
}

/* "model.onnx: node 12 "n" (Add): what is wrong", and under an error what the node's operands are. */
static void add_message(Ctx *c, const Node *node, bool error, const char *fmt, va_list ap) {
  Text t = {.ctx = c};
  text_add(&t, "%s: ", c->file ? c->file : "moecc");
  if (node) text_add(&t, "%s: ", node_describe(c, node));
  text_add(&t, "%s%s", error ? "" : "warning: ", ctx_vformat(c, fmt, ap));
  if (node && error) text_add(&t, "\n    %s", node_operands(c, node));
  if (!error && is_known(c, t.text)) return; /* the same model may be read twice */
  c->message = ctx_grow(c, c->message, c->n_messages, &c->cap_messages, sizeof *c->message);
  c->message[c->n_messages++] = (Message){.text = t.text, .error = error};
  c->errors += error;
}

void ctx_report(Ctx *c, const Node *node, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  add_message(c, node, true, fmt, ap);
  va_end(ap);
}

void ctx_warn(Ctx *c, const Node *node, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  add_message(c, node, false, fmt, ap);
  va_end(ap);
}

void ctx_fail(Ctx *c, const Node *node, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  add_message(c, node, true, fmt, ap);
  va_end(ap);
  leave(c, EXIT_MODEL);
}

void ctx_fail_status(Ctx *c, ExitStatus status, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  add_message(c, NULL, true, fmt, ap);
  va_end(ap);
  leave(c, status);
}

void ctx_stop_on_errors(Ctx *c) {
  if (c->errors) leave(c, EXIT_MODEL);
}

size_t ctx_message_count(const Ctx *c) { return c->n_messages + c->out_of_memory; }

const char *ctx_message(const Ctx *c, size_t i) {
  return i < c->n_messages ? c->message[i].text : "moecc: out of memory";
}

bool ctx_message_is_error(const Ctx *c, size_t i) { return i < c->n_messages ? c->message[i].error : true; }

/* ---- sizes, text, hashes ---- */

bool size_mul(int64_t a, int64_t b, int64_t *out) { return a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, out); }

bool size_add(int64_t a, int64_t b, int64_t *out) { return a >= 0 && b >= 0 && !__builtin_add_overflow(a, b, out); }

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

void text_write(Text *t, const char *s, size_t n) {
  if (t->len + n + 1 > t->cap) {
    size_t cap = t->cap ? t->cap : 1024;
    while (cap < t->len + n + 1) cap *= 2;
    char *bigger = ctx_alloc(t->ctx, cap);
    if (t->len) memcpy(bigger, t->text, t->len);
    t->text = bigger;
    t->cap = cap;
  }
  if (n) memcpy(t->text + t->len, s, n);
  t->len += n;
  t->text[t->len] = 0;
}

void text_add(Text *t, const char *fmt, ...) {
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  char small[512];
  int n = vsnprintf(small, sizeof small, fmt, ap);
  if (n < (int)sizeof small)
    text_write(t, small, (size_t)n);
  else
    text_write(t, ctx_vformat(t->ctx, fmt, again), (size_t)n);
  va_end(again);
  va_end(ap);
}

static uint64_t mix(uint64_t h) {
  h ^= h >> 32;
  h *= 0x9e3779b97f4a7c15u;
  h ^= h >> 29;
  h *= 0xd6e8feb86659fd93u;
  return h ^ (h >> 32);
}

uint64_t hash_bytes(const void *data, size_t bytes, uint64_t seed) {
  const unsigned char *p = data;
  uint64_t lane[4] = {seed ^ 0x243f6a8885a308d3u, seed + 0x13198a2e03707344u, seed ^ 0xa4093822299f31d0u,
                      seed + 0x082efa98ec4e6c89u};
  size_t left = bytes;
  for (; left >= 32; left -= 32, p += 32)
    for (int i = 0; i < 4; i++) {
      uint64_t word;
      memcpy(&word, p + 8 * i, 8);
      lane[i] = ((lane[i] ^ word) * 0x9fb21c651e98df25u);
      lane[i] = (lane[i] << 31) | (lane[i] >> 33);
    }
  uint64_t h = mix(lane[0]) + 3 * mix(lane[1]) + 5 * mix(lane[2]) + 7 * mix(lane[3]) + bytes;
  for (; left >= 8; left -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    h = mix(h ^ word);
  }
  for (; left; left--) h = mix(h ^ *p++);
  return mix(h);
}
