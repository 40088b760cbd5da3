/* A small weight pack for the runtime's tests, made by the compiler's own pack writer: dense units below and above a
 * page and a table of experts, whose bytes are known from unit, slot and position. */
#ifndef RUNTIME_FIXTURE_H
#define RUNTIME_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compiler.h"
#include "emit/pack.h"
#include "moecc_rt.h"

enum { UNITS = 5, EXPERT_UNIT = 2, EXPERTS = 6, MODEL = 0x1234567, ALL_TASKS = 3 };

typedef struct {
  unsigned char *pack; /* 64-byte aligned */
  size_t bytes;
  moecc_unit unit[UNITS];
  moecc_network network;
  Ctx *ctx;
} Fixture;

static inline unsigned char expected_byte(size_t unit, uint32_t index, size_t i) {
  return (unsigned char)(i * 7 + unit * 31 + index * 101 + (i >> 8));
}

static inline void fill_slot(void *self, size_t unit, uint32_t index, void *dst) {
  const PackUnit *units = self;
  unsigned char *p = dst;
  for (size_t i = 0; i < units[unit].bytes; i++) p[i] = expected_byte(unit, index, i);
}

static inline bool append(void *self, const void *data, size_t n) {
  Fixture *f = self;
  memcpy(f->pack + f->bytes, data, n);
  f->bytes += n;
  return true;
}

static inline bool slot_is_right(const moecc_unit *u, uint32_t index, const void *data) {
  const unsigned char *p = data;
  for (size_t i = 0; i < u->bytes; i++)
    if (p[i] != expected_byte(u->id, index, i)) return false;
  return true;
}

static inline void make_pack(Ctx *c, void *arg) {
  Fixture *f = arg;
  static const char *const name[UNITS] = {"patch", "router", "experts", "head_a", "head_b"};
  PackUnit units[UNITS] = {{.bytes = 40, .count = 1, .tasks = 3},
                           {.bytes = 5001, .count = 1, .tasks = 3},
                           {.bytes = 700, .count = EXPERTS, .tasks = 3, .layout = 2},
                           {.bytes = 4080, .count = 1, .tasks = 1},
                           {.bytes = 9000, .count = 1, .tasks = 2}};
  uint64_t bytes = pack_place(c, units, UNITS);
  f->pack = aligned_alloc(64, (size_t)((bytes + 63) & ~63ull));
  f->bytes = 0;
  if (!pack_write(c, units, UNITS, MODEL, fill_slot, units, append, f) || f->bytes != bytes) abort();
  f->network = (moecc_network){.model = MODEL, .tasks = ALL_TASKS, .packed = ALL_TASKS};
  for (uint32_t i = 0; i < UNITS; i++) {
    f->unit[i] = (moecc_unit){.name = name[i],
                              .offset = units[i].offset,
                              .bytes = units[i].bytes,
                              .stride = units[i].stride,
                              .count = units[i].count,
                              .id = i};
    if (f->network.buffer < MOECC_SLOT_BYTES(units[i].bytes))
      f->network.buffer = (size_t)MOECC_SLOT_BYTES(units[i].bytes);
  }
}

static inline int fixture_open(void **state) {
  Fixture *f = calloc(1, sizeof *f);
  f->ctx = ctx_new();
  *state = f;
  return ctx_run(f->ctx, make_pack, f) == EXIT_DONE ? 0 : -1;
}

static inline int fixture_close(void **state) {
  Fixture *f = *state;
  ctx_free(f->ctx);
  free(f->pack);
  free(f);
  return 0;
}

/* A copy of the pack that a test may damage. */
static inline unsigned char *copy_pack(const Fixture *f) {
  unsigned char *p = aligned_alloc(64, (f->bytes + 63) & ~(size_t)63);
  memcpy(p, f->pack, f->bytes);
  return p;
}

/* A buffer of whole blocks for any slot. */
static inline unsigned char *new_buffer(const Fixture *f, size_t *bytes) {
  *bytes = MOECC_STREAM_BUFFER(f->network.buffer);
  return aligned_alloc(MOECC_BLOCK, *bytes);
}

/* An arena with the stream buffers and `values` bytes in front. */
static inline unsigned char *new_arena(const Fixture *f, size_t values, size_t *bytes) {
  *bytes = values + MOECC_STREAM_BYTES(f->network.buffer);
  return aligned_alloc(64, *bytes);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open, fixture_close)

#endif
