/* Writes weight packs: head, directory, then each unit's slots, every slot with its checksum behind it. The head's sum
 * covers the directory, so all offsets are known before the first byte leaves; see pack_place. */
#include "emit/pack.h"

#include <string.h>

#include "moecc_rt.h"

_Static_assert(sizeof(moecc_pack_head) == 64 && sizeof(moecc_pack_entry) == 64, "the pack's records have 64 bytes");
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "packs are written on little-endian machines only"
#endif

typedef struct {
  PackWrite *write;
  void *self;
  uint64_t at; /* bytes written so far */
} Sink;

static bool put(Sink *s, const void *data, size_t n) {
  s->at += n;
  return n == 0 || s->write(s->self, data, n);
}

static bool pad(Sink *s, uint64_t to) {
  static const unsigned char zeros[4096];
  while (s->at < to) {
    uint64_t n = to - s->at;
    if (!put(s, zeros, n < sizeof zeros ? (size_t)n : sizeof zeros)) return false;
  }
  return true;
}

static uint64_t directory_end(size_t n) { return sizeof(moecc_pack_head) + (uint64_t)n * sizeof(moecc_pack_entry); }

uint64_t pack_unit_bytes(const PackUnit *unit) {
  return unit->stride * (unit->count - 1) + MOECC_SLOT_BYTES(unit->bytes);
}

uint64_t pack_place(Ctx *c, PackUnit *units, size_t n) {
  uint64_t at = directory_end(n);
  for (size_t i = 0; i < n; i++) {
    PackUnit *u = &units[i];
    if (u->bytes == 0 || u->count == 0 || u->bytes > INT64_MAX / 2)
      ctx_fail(c, NULL, "weight unit %zu has %u slots of %llu bytes", i, u->count, (unsigned long long)u->bytes);
    u->stride = MOECC_SLOT_STRIDE(u->bytes);
    u->offset = (uint64_t)round_up((int64_t)at, (int64_t)MOECC_SLOT_ALIGN(u->bytes));
    int64_t all, end;
    if (!size_mul((int64_t)u->stride, u->count, &all) || !size_add((int64_t)u->offset, all, &end) ||
        end > INT64_MAX - 4096)
      ctx_fail(c, NULL, "the weights take more than 2^63 bytes");
    at = u->offset + pack_unit_bytes(u);
  }
  return at;
}

/* The directory's entry for a unit. */
static moecc_pack_entry entry_of(const PackUnit *u) {
  return (moecc_pack_entry){.offset = u->offset,
                            .bytes = u->bytes,
                            .stride = u->stride,
                            .count = u->count,
                            .layout = u->layout,
                            .tasks = u->tasks};
}

static bool put_head(Sink *s, const PackUnit *units, size_t n, uint64_t model) {
  moecc_pack_head head = {.version = MOECC_PACK_VERSION, .order = MOECC_PACK_ORDER, .model = model};
  memcpy(head.magic, MOECC_PACK_MAGIC, sizeof head.magic);
  head.bytes = n > 0 ? units[n - 1].offset + pack_unit_bytes(&units[n - 1]) : sizeof head;
  head.units = (uint32_t)n;
  head.sum = moecc_checksum(&head, offsetof(moecc_pack_head, sum), 0);
  for (size_t i = 0; i < n; i++) {
    moecc_pack_entry entry = entry_of(&units[i]);
    head.sum = moecc_checksum(&entry, sizeof entry, head.sum);
  }
  if (!put(s, &head, sizeof head)) return false;
  for (size_t i = 0; i < n; i++) {
    moecc_pack_entry entry = entry_of(&units[i]);
    if (!put(s, &entry, sizeof entry)) return false;
  }
  return true;
}

/* Writes a unit's slots; the sink stands at the unit's offset. slot has room for the largest MOECC_SLOT_BYTES. */
static bool put_unit(Sink *s, const PackUnit *units, size_t unit, PackFill *fill, void *fill_self,
                     unsigned char *slot) {
  const PackUnit *u = &units[unit];
  const moecc_unit described = {.offset = u->offset, .bytes = u->bytes, .stride = u->stride, .count = u->count};
  size_t bytes = (size_t)MOECC_SLOT_BYTES(u->bytes);
  uint64_t start = s->at;
  for (uint32_t i = 0; i < u->count; i++) {
    if (!pad(s, start + i * u->stride)) return false;
    memset(slot, 0, bytes);
    fill(fill_self, unit, i, slot);
    uint64_t sum = moecc_slot_sum(&described, i, slot);
    memcpy(slot + bytes - sizeof sum, &sum, sizeof sum);
    if (!put(s, slot, bytes)) return false;
  }
  return true;
}

/* Room for the largest slot of the units, 64-byte aligned. */
static unsigned char *slot_room(Ctx *c, const PackUnit *units, size_t n) {
  uint64_t largest = 0;
  for (size_t i = 0; i < n; i++)
    if (units[i].bytes > largest) largest = units[i].bytes;
  unsigned char *room = ctx_alloc(c, (size_t)MOECC_SLOT_BYTES(largest) + 64);
  return room + ((0u - (uintptr_t)room) & 63u);
}

bool pack_write(Ctx *c, const PackUnit *units, size_t n, uint64_t model, PackFill *fill, void *fill_self,
                PackWrite *write, void *write_self) {
  Sink sink = {.write = write, .self = write_self};
  if (n > UINT32_MAX) ctx_fail(c, NULL, "%zu weight units are more than a pack can list", n);
  unsigned char *slot = slot_room(c, units, n);
  if (!put_head(&sink, units, n, model)) return false;
  for (size_t i = 0; i < n; i++)
    if (!pad(&sink, units[i].offset) || !put_unit(&sink, units, i, fill, fill_self, slot)) return false;
  return true;
}

bool pack_write_unit(Ctx *c, const PackUnit *units, size_t unit, PackFill *fill, void *fill_self, PackWrite *write,
                     void *write_self) {
  Sink sink = {.write = write, .self = write_self};
  return put_unit(&sink, units, unit, fill, fill_self, slot_room(c, units + unit, 1));
}
