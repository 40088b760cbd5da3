/* The weight pack's format, as the runtime reads it (runtime/moecc_rt.h says what each field means).
 *
 * Nothing is opened here: bytes leave through a callback, in order, one slot in memory at a time. Packs are little
 * endian, as are all targets and the machines the compiler runs on.
 */
#ifndef MOECC_EMIT_PACK_H
#define MOECC_EMIT_PACK_H

#include "compiler.h"

/* A unit: `count` slots of `bytes`. The unit's index in its array is its id. */
typedef struct {
  uint64_t bytes;          /* of one slot, at least 1 */
  uint32_t count;          /* at least 1 */
  uint32_t layout;         /* which packing */
  uint32_t tasks;          /* bit t: task t needs it */
  uint64_t offset, stride; /* set by pack_place */
} PackUnit;

/* Takes n bytes; false ends the writing (no space, …). */
typedef bool PackWrite(void *self, const void *data, size_t n);
/* Fills slot `index` of unit `unit`: dst is zeroed, 64-byte aligned and has the unit's bytes. */
typedef void PackFill(void *self, size_t unit, uint32_t index, void *dst);

/* Sets every unit's offset and stride; returns the bytes of the whole pack. Fails (ctx_fail) if they overflow. */
uint64_t pack_place(Ctx *c, PackUnit *units, size_t n);
/* Writes the whole pack of units that pack_place has placed. False as soon as a write was. */
bool pack_write(Ctx *c, const PackUnit *units, size_t n, uint64_t model, PackFill *fill, void *fill_self,
                PackWrite *write, void *write_self);
/* Writes one unit's slots as they lie in the pack, from its offset to the end of its last slot's checksum: what an
 * embedded array holds. */
bool pack_write_unit(Ctx *c, const PackUnit *units, size_t unit, PackFill *fill, void *fill_self, PackWrite *write,
                     void *write_self);
/* The bytes that pack_write_unit writes. */
uint64_t pack_unit_bytes(const PackUnit *unit);

#endif
