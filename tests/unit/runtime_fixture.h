/* A small weight pack for the runtime's tests, made by the compiler's own pack writer: dense units below and above a
 * page and a table of experts, whose bytes are known from unit, slot and position. */
#ifndef RUNTIME_FIXTURE_H
#define RUNTIME_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* The pack of so many units, at most UNITS. */
static inline void make_pack_of(Ctx *c, Fixture *f, const char *const *name, PackUnit *units, uint32_t n) {
  uint64_t bytes = pack_place(c, units, n);
  f->pack = aligned_alloc(64, (size_t)((bytes + 63) & ~63ull));
  f->bytes = 0;
  if (!pack_write(c, units, n, MODEL, fill_slot, units, append, f) || f->bytes != bytes) abort();
  f->network = (moecc_network){.model = MODEL, .tasks = ALL_TASKS, .packed = ALL_TASKS};
  for (uint32_t i = 0; i < n; i++) {
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

static inline void make_pack(Ctx *c, void *arg) {
  static const char *const name[UNITS] = {"patch", "router", "experts", "head_a", "head_b"};
  PackUnit units[UNITS] = {{.bytes = 40, .count = 1, .tasks = 3},
                           {.bytes = 5001, .count = 1, .tasks = 3},
                           {.bytes = 700, .count = EXPERTS, .tasks = 3, .layout = 2},
                           {.bytes = 4080, .count = 1, .tasks = 1},
                           {.bytes = 9000, .count = 1, .tasks = 2}};
  make_pack_of(c, arg, name, units, UNITS);
}

/* make: make_pack, or one that calls make_pack_of for other units. */
static inline int fixture_open_with(void **state, void (*make)(Ctx *c, void *fixture)) {
  Fixture *f = calloc(1, sizeof *f);
  f->ctx = ctx_new();
  *state = f;
  return ctx_run(f->ctx, make, f) == EXIT_DONE ? 0 : -1;
}

static inline int fixture_open(void **state) { return fixture_open_with(state, make_pack); }

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

/* Of write_file. */
static char file_name[64];

static inline const char *write_file(const void *data, size_t bytes) {
  snprintf(file_name, sizeof file_name, "/tmp/moecc_test_%ld.bin", (long)getpid());
  FILE *f = fopen(file_name, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(data, 1, bytes, f), bytes);
  assert_int_equal(fclose(f), 0);
  return file_name;
}

/* Bytes of the blocks that a piece touches. */
static inline size_t whole_blocks(uint64_t offset, size_t bytes) {
  uint64_t first = offset / MOECC_BLOCK, behind = (offset + bytes + MOECC_BLOCK - 1) / MOECC_BLOCK;
  return (size_t)(behind - first) * MOECC_BLOCK;
}

static inline moecc_status init(const Fixture *f, moecc_context *m, unsigned char *arena, size_t bytes,
                                const moecc_source *s) {
  return moecc_context_init(m, &f->network, ALL_TASKS, arena, bytes, 0, s, NULL);
}

/* Takes every slot in order, always naming the next one; the first failure, or MOECC_OK. */
static inline moecc_status take_all(const Fixture *f, moecc_weights *w) {
  moecc_status s = MOECC_OK;
  for (size_t u = 0; u < UNITS; u++)
    for (uint32_t i = 0; i < f->unit[u].count; i++) {
      bool last = i + 1 == f->unit[u].count;
      const moecc_unit *next = !last ? &f->unit[u] : u + 1 < UNITS ? &f->unit[u + 1] : NULL;
      const void *p = moecc_take_expert(w, &f->unit[u], i, next, last ? 0 : i + 1, &s);
      if (!p) return s;
      assert_int_equal(s, MOECC_OK);
      assert_int_equal((uintptr_t)p % 64, 0);
      assert_true(slot_is_right(&f->unit[u], i, p));
    }
  return s;
}

/* The fault is at the slot that take_all takes as number n, from 0 on. */
static inline void check_fault(const Fixture *f, const moecc_weights *w, size_t n) {
  const size_t unit = n < EXPERT_UNIT ? n : n < EXPERT_UNIT + EXPERTS ? EXPERT_UNIT : n - EXPERTS + 1;
  assert_ptr_equal(w->fault.unit, &f->unit[unit]);
  assert_int_equal(w->fault.index, unit == EXPERT_UNIT ? n - EXPERT_UNIT : 0);
}

/* Init, every slot, close. */
static inline void check_source(const Fixture *f, const moecc_source *s) {
  moecc_context m = {0};
  size_t bytes;
  unsigned char *arena = new_arena(f, 0, &bytes);
  assert_int_equal(init(f, &m, arena, bytes, s), MOECC_OK);
  assert_int_equal(take_all(f, &m.weights), MOECC_OK);
  assert_int_equal(take_all(f, &m.weights), MOECC_OK);
  moecc_context_close(&m);
  free(arena);
}

/* Numbers without an order to them. */
static uint32_t random_state = 1;
static inline uint32_t random_below(uint32_t n) {
  random_state = random_state * 1664525u + 1013904223u;
  return (random_state >> 8) % n;
}

/* Asks for and takes 40 slots in any order, guessing the next one right or wrong: what arrives is right. How many takes
 * failed, which they do with MOECC_ERROR_IO only. */
static inline size_t take_in_any_order(const Fixture *f, moecc_weights *w) {
  size_t failures = 0;
  for (unsigned k = 0; k < 40; k++) {
    const moecc_unit *u = &f->unit[random_below(UNITS)], *n = &f->unit[random_below(UNITS)];
    uint32_t i = random_below(u->count), j = random_below(n->count);
    moecc_status s = MOECC_OK;
    if (random_below(3) == 0) moecc_ask_expert(w, n, j);
    const void *p = moecc_take_expert(w, u, i, random_below(4) ? n : NULL, j, &s);
    assert_true((p != NULL) == (s == MOECC_OK));
    if (p)
      assert_true(slot_is_right(u, i, p));
    else
      failures++, assert_int_equal(s, MOECC_ERROR_IO);
  }
  return failures;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open, fixture_close)

#endif
