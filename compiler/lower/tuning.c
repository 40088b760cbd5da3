/* Measured tiles: lookup, candidates, and the file. Its first line has the version, its second the target; then a line
 * for each kernel and shape. What follows a # is for people. */
#include "tuning.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { VERSION = 1, MOST_ROWS = 14, MOST_VECTORS = 4 }; /* the last two as in runtime/moecc_gemm.h */

/* ---- the choice -------------------------------------------------------------------------------------------------- */

const TileRequest *tuning_find(const Tuning *t, const char *kernel, int64_t rows, int64_t columns, int64_t depth) {
  for (size_t i = 0; t && i < t->n; i++) {
    const TileRequest *e = &t->entry[i];
    if (e->rows == rows && e->columns == columns && e->depth == depth && strcmp(e->kernel, kernel) == 0) return e;
  }
  return NULL;
}

void tuning_add(Ctx *c, Tuning *t, TileRequest entry) {
  for (size_t i = 0; i < t->n; i++)
    if (tuning_find(t, entry.kernel, entry.rows, entry.columns, entry.depth) == &t->entry[i]) {
      t->entry[i].tile = entry.tile;
      return;
    }
  t->entry = ctx_grow(c, t->entry, t->n, &t->cap, sizeof *t->entry);
  t->entry[t->n++] = entry;
}

Tile gemm_tile(Program *p, const char *kernel, int64_t rows, int64_t columns, int64_t depth) {
  const TileRequest *tuned = tuning_find(p->tuning, kernel, rows, columns, depth);
  TileRequest *r = ctx_alloc(p->ctx, sizeof *r);
  int64_t widest = gemm_widest(p, depth);
  *r = (TileRequest){kernel, rows, columns, depth, {0}};
  r->tile = tuned && tuned->tile.nr <= widest ? tuned->tile : gemm_tile_model(p->target, rows, columns, widest);
  p->wants_tile = r;
  return r->tile;
}

bool tile_is_possible(const Target *t, Tile tile) {
  int vectors = tile.nr / t->lanes;
  return tile.mr >= 1 && tile.mr <= MOST_ROWS && vectors >= 1 && vectors <= MOST_VECTORS && tile.nr % t->lanes == 0 &&
         tile.block >= 0 && tile.block <= 1600;
}

size_t tile_candidates(const Target *t, const TileRequest *r, Tile *tile, size_t most) {
  size_t n = 0;
  const Tile model = gemm_tile_model(t, r->rows, r->columns, INT64_MAX);
  if (n < most) tile[n++] = model;
  for (int vectors = MOST_VECTORS; vectors >= 1; vectors--) {
    int full = (t->registers - 1 - vectors) / vectors, nr = vectors * t->lanes;
    if (full > MOST_ROWS) full = MOST_ROWS;
    if (vectors > 1 && nr - t->lanes >= r->columns) continue; /* a vector that no column needs */
    for (int less = 0; less < 2; less++) {
      const Tile one = {.mr = less ? full - full / 4 : full, .nr = nr};
      bool known = one.mr == full && less;
      for (size_t i = 0; i < n; i++) known |= tile[i].mr == one.mr && tile[i].nr == one.nr;
      if (!known && n < most && tile_is_possible(t, one)) tile[n++] = one;
    }
  }
  return n;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

char *tuning_text(Ctx *c, const Tuning *t) {
  Text text = {.ctx = c};
  text_add(&text,
           "moecc-tiles %d\ntarget %s\n"
           "# kernel, rows, columns and depth of its product; rows and columns of a tile; rows of a block, in percent\n"
           "# of what the model says. Made by moecc tune; compile, run, verify and bench read it with --tune.\n",
           VERSION, t->target->name);
  for (size_t i = 0; i < t->n; i++) {
    const TileRequest *e = &t->entry[i];
    text_add(&text, "%s %lld %lld %lld %dx%d %d\n", e->kernel, (long long)e->rows, (long long)e->columns,
             (long long)e->depth, e->tile.mr, e->tile.nr, e->tile.block ? e->tile.block : 100);
  }
  return text.text;
}

typedef struct {
  Ctx *ctx;
  const char *path;
  int line;
  const Target *target;
} Reader;

static _Noreturn void wrong(const Reader *r, const char *what) {
  ctx_fail(r->ctx, NULL, "%s: line %d: %s: make the file anew with moecc tune", r->path, r->line, what);
}

static TileRequest read_entry(const Reader *r, const char *line) {
  TileRequest e = {0};
  char kernel[64], rest[2];
  int n =
      sscanf(line, "%63s %" SCNd64 " %" SCNd64 " %" SCNd64 " %dx%d %d %1s", /* NOLINT(cert-err34-c): checked below */
             kernel, &e.rows, &e.columns, &e.depth, &e.tile.mr, &e.tile.nr, &e.tile.block, rest);
  if (n != 7) wrong(r, "not \"kernel rows columns depth ROWSxCOLUMNS percent\"");
  if (!tile_is_possible(r->target, e.tile) || e.tile.block < 1)
    wrong(r, ctx_format(r->ctx, "no kernel can be made with a tile of %dx%d and blocks of %d percent", e.tile.mr,
                        e.tile.nr, e.tile.block));
  e.kernel = ctx_strdup(r->ctx, kernel);
  return e;
}

static void read_target(const Reader *r, const char *line) {
  if (strncmp(line, "target ", 7) != 0) wrong(r, "not \"target NAME\"");
  if (strcmp(line + 7, r->target->name) != 0)
    ctx_fail(r->ctx, NULL,
             "%s: its tiles were measured for the target %s, and this is for %s: tune again, or leave it out", r->path,
             line + 7, r->target->name);
}

static void read_version(const Reader *r, const char *line) {
  int version = 0;
  char rest[2];
  if (sscanf(line, "moecc-tiles %d%1s", &version, rest) != 1) /* NOLINT(cert-err34-c): a wrong number is refused */
    ctx_fail(r->ctx, NULL, "%s: this is no file of moecc tune: it does not begin with \"moecc-tiles\"", r->path);
  if (version != VERSION) wrong(r, ctx_format(r->ctx, "version %d is not read, only %d", version, VERSION));
}

static char *read_all(Ctx *c, const char *path) {
  enum { MOST = 1 << 20 };
  FILE *f = fopen(path, "rb");
  if (!f) ctx_fail(c, NULL, "cannot read \"%s\": %s", path, strerror(errno));
  char *text = ctx_array(c, MOST + 1, 1);
  errno = 0;
  size_t n = fread(text, 1, MOST, f);
  bool bad = ferror(f) != 0 || !feof(f) || memchr(text, 0, n);
  (void)fclose(f);
  if (bad) ctx_fail(c, NULL, "%s: this is no file of moecc tune", path);
  return text;
}

const Tuning *tuning_read(Ctx *c, const char *path, const Target *target) {
  Tuning *t = ctx_alloc(c, sizeof *t);
  Reader r = {.ctx = c, .path = path, .target = target};
  t->target = target;
  for (char *next = read_all(c, path), *line; *next;) {
    line = next;
    next += strcspn(line, "\n");
    if (*next) *next++ = 0;
    r.line++;
    line[strcspn(line, "#\r")] = 0;
    if (r.line == 1)
      read_version(&r, line);
    else if (r.line == 2)
      read_target(&r, line);
    else if (line[strspn(line, " \t")])
      tuning_add(c, t, read_entry(&r, line));
  }
  if (r.line < 2) ctx_fail(c, NULL, "%s: this is no file of moecc tune: it is cut off", path);
  return t;
}
