/* Tiles that were measured: what `moecc tune` writes and `--tune FILE` reads, and the choice for each kernel, which
 * consults them first and the written model of the target otherwise. Results do not depend on tiles, only times do. */
#ifndef MOECC_LOWER_TUNING_H
#define MOECC_LOWER_TUNING_H

#include "gemm.h"

/* A place in a network that wants a tile: a kernel (its template's name) and the extents of its product. */
typedef struct TileRequest {
  const char *kernel;
  int64_t rows, columns, depth;
  Tile tile; /* the one it got */
} TileRequest;

typedef struct Tuning {
  const Target *target; /* for which it was measured */
  TileRequest *entry;
  size_t n, cap;
} Tuning;

/* The entry for a request, or NULL. */
const TileRequest *tuning_find(const Tuning *t, const char *kernel, int64_t rows, int64_t columns, int64_t depth);
void tuning_add(Ctx *c, Tuning *t, TileRequest entry); /* or changes the tile of the one that is there */
/* Can the kernels be made with this tile for the target? */
bool tile_is_possible(const Target *t, Tile tile);
/* Tiles worth measuring for a request, the model's choice first; at most `most`. Returns how many. */
size_t tile_candidates(const Target *t, const TileRequest *r, Tile *tile, size_t most);

/* Reads a file, refusing one that is for another target, of another version, or unreadable. */
const Tuning *tuning_read(Ctx *c, const char *path, const Target *target);
char *tuning_text(Ctx *c, const Tuning *t); /* what the file holds */

#endif
