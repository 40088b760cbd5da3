/* The runtime's core: statuses, parallel loops, checksums, weights through two buffers, contexts.
 *
 * No malloc, no stdio, no recursion, no global state: everything is in the caller's structures. Weights are slots of
 * units: an embedded slot is used where it lies, a resident source's where the source says; all others arrive in one of
 * two buffers, one slot being computed with while the next is under way.
 */
#include "moecc_rt.h"

#include <string.h>

const char *moecc_status_text(moecc_status s) {
  static const char *const text[] = {
      "done",
      "an argument is null or out of range",
      "not initialised, initialised already, or in use by another call",
      "the arena is missing, misaligned or too small",
      "no such task, or it was not given to init",
      "the weights belong to another model or compilation",
      "not a weight pack, or of another version or byte order",
      "the weight pack is shorter or longer than it says",
      "a checksum does not match: the weights were damaged",
      "the weights could not be read",
      "the weights did not arrive in time",
      "there are no weights",
  };
  return (size_t)s < sizeof text / sizeof *text ? text[(size_t)s] : "unknown status";
}

void moecc_for(const moecc_pool *pool, moecc_body *body, const void *args, size_t count) {
  if (count == 0) return;
  if (pool && pool->threads > 1 && count > 1)
    pool->run(pool->self, body, args, count);
  else
    body(args, 0, count, 0);
}

/* ---- checksum -------------------------------------------------------------------------------------------------- */

/* Eight lanes, each s = rotate((s ^ word) * odd): one-to-one in s and in the word, so that a change within one word
 * always changes its lane, and the lanes are joined one-to-one in each as well. The bytes are four quarters of whole
 * blocks of 64 bytes, with two lanes each, and a rest: weights come out of main memory here, and four streams, read
 * ahead, keep it busier than one does. */
#define LANE_MUL  UINT64_C(0xd1b54a32d192ed03)
#define FINAL_MUL UINT64_C(0x9fb21c651e98df25)

enum { QUARTERS = 4, LANES = 2 * QUARTERS };

#if defined(__GNUC__) && !defined(__TINYC__)
#define READ_AHEAD(p) __builtin_prefetch((p) + 1024)
#else
#define READ_AHEAD(p) ((void)0)
#endif

static inline uint64_t rotate(uint64_t x, unsigned n) { return x << n | x >> (64 - n); }

static inline uint64_t word_at(const unsigned char *p) {
  uint64_t w;
#if defined(__BYTE_ORDER__) && defined(__ORDER_BIG_ENDIAN__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  unsigned i;
  for (w = 0, i = 8; i-- > 0;) w = w << 8 | p[i];
#else
  memcpy(&w, p, 8);
#endif
  return w;
}

static inline uint64_t lane_step(uint64_t s, uint64_t word) { return rotate((s ^ word) * LANE_MUL, 29); }

/* The last 1 … 7 bytes as a word, zeros behind them. */
static uint64_t word_partial(const unsigned char *p, size_t n) {
  uint64_t w = 0;
  while (n-- > 0) w = w << 8 | p[n];
  return w;
}

/* The lanes of four quarters of so many bytes, which are a multiple of 64. */
static void quarters_sum(const unsigned char *data, size_t quarter, uint64_t *lane) {
  size_t i, k, j;
  for (i = 0; i < quarter; i += 64)
    for (k = 0; k < QUARTERS; k++) {
      const unsigned char *p = data + k * quarter + i;
      uint64_t a = lane[2 * k], b = lane[2 * k + 1];
      READ_AHEAD(p);
      for (j = 0; j < 64; j += 16) {
        a = lane_step(a, word_at(p + j));
        b = lane_step(b, word_at(p + j + 8));
      }
      lane[2 * k] = a, lane[2 * k + 1] = b;
    }
}

uint64_t moecc_checksum(const void *data, size_t bytes, uint64_t seed) {
  const size_t quarter = bytes / (QUARTERS * 64) * 64;
  const unsigned char *p = data;
  uint64_t lane[LANES], h = seed ^ ((uint64_t)bytes * FINAL_MUL);
  size_t n = bytes - QUARTERS * quarter, i;
  for (i = 0; i < LANES; i++) lane[i] = h + i + 1;
  quarters_sum(p, quarter, lane);
  p += QUARTERS * quarter;
  for (i = 0; n >= 8; n -= 8, p += 8, i++) lane[i % LANES] = lane_step(lane[i % LANES], word_at(p));
  if (n > 0) lane[i % LANES] = lane_step(lane[i % LANES], word_partial(p, n));
  h = lane[0];
  for (i = 1; i < LANES; i++) h = ((h ^ h >> 31) * FINAL_MUL) ^ lane[i];
  h = (h ^ h >> 29) * FINAL_MUL;
  return h ^ h >> 32;
}

static uint64_t slot_offset(const moecc_unit *unit, uint32_t index) { return unit->offset + unit->stride * index; }

uint64_t moecc_slot_sum(const moecc_unit *unit, uint32_t index, const void *data) {
  return moecc_checksum(data, (size_t)unit->bytes, slot_offset(unit, index));
}

/* The checksum that lies behind the slot's bytes. */
static uint64_t stored_sum(uint64_t bytes, const void *data) {
  return word_at((const unsigned char *)data + (size_t)(MOECC_SLOT_BYTES(bytes) - 8));
}

/* ---- the two buffers --------------------------------------------------------------------------------------------- */

/* Each file of a network has its own constants of the units that it names: what counts is the place in the pack. */
static int holds(const moecc_held *h, const moecc_unit *unit, uint32_t index) {
  return h->unit && h->index == index && h->unit->offset == unit->offset;
}

static int misaligned(const void *p) { return ((uintptr_t)p & (MOECC_ALIGN - 1)) != 0; }
static int off_block(const void *p) { return ((uintptr_t)p & (MOECC_BLOCK - 1)) != 0; }

/* Bytes of all blocks that a piece touches. */
static uint64_t blocks_of(const moecc_piece *piece) {
  uint64_t bytes = piece->offset % MOECC_BLOCK + piece->bytes;
  return (bytes + MOECC_BLOCK - 1) & ~(uint64_t)(MOECC_BLOCK - 1);
}

static int under_way(const moecc_held *h) { return h->unit && !h->ready; }

static moecc_piece slot_piece(const moecc_unit *unit, uint32_t index) {
  moecc_piece piece;
  piece.offset = slot_offset(unit, index);
  piece.bytes = (size_t)MOECC_SLOT_BYTES(unit->bytes);
  piece.unit = unit->id;
  piece.index = index;
  return piece;
}

/* Asks the source for a slot into buffer b, where nothing is under way. */
static moecc_status held_begin(moecc_weights *w, unsigned b, const moecc_unit *unit, uint32_t index) {
  moecc_held *h = &w->held[b];
  moecc_status s;
  h->unit = NULL;
  h->piece = slot_piece(unit, index);
  if (blocks_of(&h->piece) > w->buffer_bytes) return MOECC_ERROR_ARENA;
  s = w->source->begin(w->source->self, &h->piece, w->buffer[b]);
  if (s != MOECC_OK) return s;
  h->unit = unit;
  h->index = index;
  h->ready = 0;
  return MOECC_OK;
}

/* After a timeout nothing counts as asked for. */
static void forget(moecc_weights *w) {
  unsigned b;
  if (w->source->forget) w->source->forget(w->source->self);
  for (b = 0; b < 2; b++)
    if (under_way(&w->held[b])) w->held[b].unit = NULL;
}

/* Values of moecc_held.ready. */
enum { UNDER_WAY, ARRIVED, CHECKED };

/* Waits for what is under way in buffer b; afterwards it is there, or nothing. */
static moecc_status held_wait(moecc_weights *w, unsigned b) {
  moecc_held *h = &w->held[b];
  moecc_status s = w->source->wait(w->source->self, &h->piece, w->buffer[b], w->timeout_ms, &h->where);
  if (s == MOECC_OK && (!h->where || misaligned(h->where))) s = MOECC_ERROR_IO;
  if (s == MOECC_ERROR_TIMEOUT)
    forget(w);
  else if (s == MOECC_OK)
    h->ready = w->check ? ARRIVED : CHECKED;
  else
    h->unit = NULL;
  return s;
}

/* A slot that nobody asked for, into the buffer that was not given out last; a slot on its way there, which was asked
 * for in vain, arrives first. */
static moecc_status held_load(moecc_weights *w, const moecc_unit *unit, uint32_t index, unsigned *at) {
  unsigned b = w->current ^ 1u;
  if (under_way(&w->held[b]) && held_wait(w, b) == MOECC_ERROR_TIMEOUT) return MOECC_ERROR_TIMEOUT;
  *at = b;
  return held_begin(w, b, unit, index);
}

/* A slot of a source that is resident: no buffers, nothing to remember, and nothing to begin. */
static const void *resident_slot(moecc_weights *w, const moecc_unit *unit, uint32_t index, moecc_status *status) {
  const moecc_source *source = w->source;
  moecc_piece piece = slot_piece(unit, index);
  const void *where = NULL;
  moecc_status s = source->wait(source->self, &piece, NULL, w->timeout_ms, &where);
  if (s == MOECC_OK && (!where || misaligned(where))) s = MOECC_ERROR_IO;
  if (s != MOECC_OK) *status = s;
  return s == MOECC_OK ? where : NULL;
}

/* Where the slot of a resident unit is, or NULL: it is streamed, or there is no resident area. */
static unsigned char *resident_place(const moecc_weights *w, const moecc_unit *unit, uint32_t index) {
  if (!w->resident || !unit->resident) return NULL;
  return w->resident + (size_t)(unit->resident + unit->stride * index);
}

/* Loads a slot into its place. A source may read the blocks around a piece: what is less than a page goes through a
 * buffer, and larger slots lie in whole blocks here as they do in the pack. */
static moecc_status resident_load(moecc_weights *w, const moecc_unit *unit, uint32_t index) {
  const moecc_source *source = w->source;
  const moecc_piece piece = slot_piece(unit, index);
  unsigned char *place = resident_place(w, unit, index);
  void *dst = MOECC_SLOT_ALIGN(unit->bytes) < MOECC_BLOCK ? w->buffer[0] : place;
  const void *where = NULL;
  moecc_status s;
  if (dst != place && piece.bytes > w->buffer_bytes) return MOECC_ERROR_ARENA;
  s = source->begin(source->self, &piece, dst);
  if (s == MOECC_OK) s = source->wait(source->self, &piece, dst, w->timeout_ms, &where);
  if (s == MOECC_ERROR_TIMEOUT && source->forget) source->forget(source->self);
  if (s == MOECC_OK && (!where || misaligned(where))) s = MOECC_ERROR_IO;
  if (s != MOECC_OK) return s;
  if (where != place) memcpy(place, where, piece.bytes);
  if (w->check && moecc_slot_sum(unit, index, place) != stored_sum(unit->bytes, place)) return MOECC_ERROR_CHECKSUM;
  return MOECC_OK;
}

/* The resident units of the tasks; on failure w->fault says which slot it was. */
static moecc_status residents_load(moecc_weights *w, const moecc_network *n, unsigned tasks) {
  moecc_status s = MOECC_OK;
  size_t i;
  uint32_t k;
  for (i = 0; w->source && w->resident && i < n->residents; i++) {
    const moecc_unit *unit = &n->resident[i].unit;
    for (k = 0; (n->resident[i].tasks & tasks) && k < unit->count; k++) {
      s = resident_load(w, unit, k);
      if (s == MOECC_OK) continue;
      w->fault.unit = unit;
      w->fault.index = k;
      return s;
    }
  }
  return s;
}

static const void *buffered_slot(moecc_weights *w, const moecc_unit *unit, uint32_t index, moecc_status *status) {
  moecc_status s = MOECC_OK;
  unsigned b = 0;
  if (holds(&w->held[1], unit, index))
    b = 1;
  else if (!holds(&w->held[0], unit, index))
    s = held_load(w, unit, index, &b);
  if (s == MOECC_OK && !w->held[b].ready) s = held_wait(w, b);
  if (s != MOECC_OK) {
    *status = s;
    return NULL;
  }
  w->current = b;
  return w->held[b].where;
}

/* Verifies the slot that a take gives out, once; `where` is not of a buffer, or the current one's. */
static moecc_status check_slot(moecc_weights *w, const void *where) {
  moecc_held *h = &w->held[w->current];
  if (!h->unit || h->ready != ARRIVED || h->where != where) return MOECC_OK;
  if (moecc_slot_sum(h->unit, h->index, where) == stored_sum(h->unit->bytes, where)) {
    h->ready = CHECKED;
    return MOECC_OK;
  }
  h->unit = NULL;
  return MOECC_ERROR_CHECKSUM;
}

const void *moecc_take_expert(moecc_weights *w, const moecc_unit *unit, size_t index, const moecc_unit *next,
                              size_t next_index, moecc_status *status) {
  const void *where = NULL;
  moecc_status s;
  uint32_t i = (uint32_t)index;
  if (index >= unit->count)
    *status = MOECC_ERROR_ARGUMENT;
  else if (unit->data)
    where = (const unsigned char *)unit->data + (size_t)(unit->stride * i);
  else if (!w->source)
    *status = MOECC_ERROR_MISSING;
  else if (w->source->resident)
    where = resident_slot(w, unit, i, status);
  else if ((where = resident_place(w, unit, i)) == NULL)
    where = buffered_slot(w, unit, i, status);
  if (where && next) moecc_ask_expert(w, next, next_index); /* before the checksum: the source is not to stand still */
  s = where ? check_slot(w, where) : MOECC_OK;
  if (s != MOECC_OK) *status = s;
  if (where && s == MOECC_OK) return where;
  w->fault.unit = unit;
  w->fault.index = i;
  return NULL;
}

const void *moecc_take(moecc_weights *w, const moecc_unit *unit, const moecc_unit *next, moecc_status *status) {
  return moecc_take_expert(w, unit, 0, next, 0, status);
}

void moecc_ask_expert(moecc_weights *w, const moecc_unit *unit, size_t index) {
  unsigned b = w->current ^ 1u;
  uint32_t i = (uint32_t)index;
  if (!unit || unit->data || index >= unit->count || !w->source) return;
  if (w->source->resident) {
    moecc_piece piece = slot_piece(unit, i);
    (void)w->source->begin(w->source->self, &piece, NULL);
    return;
  }
  if (resident_place(w, unit, i)) return;
  if (holds(&w->held[0], unit, i) || holds(&w->held[1], unit, i) || under_way(&w->held[b])) return;
  (void)held_begin(w, b, unit, i); /* if this fails, the take asks again and reports */
}

void moecc_ask(moecc_weights *w, const moecc_unit *unit) { moecc_ask_expert(w, unit, 0); }

/* ---- the pack ------------------------------------------------------------------------------------------------------
 */

/* How the head and the directory are read. */
typedef struct {
  const moecc_source *source;
  void *buffer; /* a block, or NULL */
  unsigned timeout_ms;
} Reader;

/* The 64 bytes at offset, which are the head or an entry of the directory. */
static moecc_status read_head(const Reader *r, uint64_t offset, void *dst) {
  const moecc_source *s = r->source;
  const void *where = NULL;
  moecc_status status;
  moecc_piece piece;
  piece.offset = offset;
  piece.bytes = sizeof(moecc_pack_head);
  piece.unit = MOECC_NO_UNIT;
  piece.index = 0;
  if (s->bytes && (offset > s->bytes || piece.bytes > s->bytes - offset)) return MOECC_ERROR_LENGTH;
  status = s->begin(s->self, &piece, r->buffer);
  if (status == MOECC_OK) status = s->wait(s->self, &piece, r->buffer, r->timeout_ms, &where);
  if (status == MOECC_ERROR_TIMEOUT && s->forget) s->forget(s->self);
  if (status == MOECC_OK && !where) status = MOECC_ERROR_IO;
  if (status == MOECC_OK) memcpy(dst, where, piece.bytes);
  return status;
}

static moecc_status check_head(const moecc_source *s, const moecc_pack_head *h, uint64_t model) {
  if (memcmp(h->magic, MOECC_PACK_MAGIC, sizeof h->magic) != 0) return MOECC_ERROR_FORMAT;
  if (h->order != MOECC_PACK_ORDER || h->version != MOECC_PACK_VERSION) return MOECC_ERROR_FORMAT;
  if (model && h->model != model) return MOECC_ERROR_MODEL;
  if (s->bytes && s->bytes != h->bytes) return MOECC_ERROR_LENGTH;
  return MOECC_OK;
}

/* The directory's entry is of a form that the writer makes, and its slots are inside the pack. */
static moecc_status check_entry(const moecc_pack_entry *e, const moecc_pack_head *h) {
  uint64_t room, first = sizeof *h + (uint64_t)h->units * sizeof *e;
  if (e->bytes == 0 || e->count == 0 || e->bytes > h->bytes) return MOECC_ERROR_FORMAT;
  if (e->stride != MOECC_SLOT_STRIDE(e->bytes) || e->offset % MOECC_SLOT_ALIGN(e->bytes)) return MOECC_ERROR_FORMAT;
  if (e->offset < first) return MOECC_ERROR_FORMAT;
  if (e->offset > h->bytes || MOECC_SLOT_BYTES(e->bytes) > h->bytes - e->offset) return MOECC_ERROR_LENGTH;
  room = h->bytes - e->offset - MOECC_SLOT_BYTES(e->bytes);
  return (e->count - 1) <= room / e->stride ? MOECC_OK : MOECC_ERROR_LENGTH;
}

static moecc_status read_entry(const Reader *r, uint32_t i, moecc_pack_entry *e) {
  return read_head(r, sizeof(moecc_pack_head) + (uint64_t)i * sizeof *e, e);
}

moecc_status moecc_pack_check(const moecc_source *s, uint64_t model, unsigned tasks, void *buffer,
                              unsigned timeout_ms) {
  Reader reader;
  moecc_pack_head head;
  moecc_pack_entry entry;
  uint64_t sum;
  uint32_t i;
  moecc_status status, found = MOECC_OK;
  if (!s || !s->begin || !s->wait || (!s->resident && (!buffer || off_block(buffer)))) return MOECC_ERROR_ARGUMENT;
  reader.source = s, reader.buffer = buffer, reader.timeout_ms = timeout_ms;
  status = read_head(&reader, 0, &head);
  if (status == MOECC_OK) status = check_head(s, &head, model);
  if (status != MOECC_OK) return status;
  if (head.bytes < sizeof head || head.units > (head.bytes - sizeof head) / sizeof entry) return MOECC_ERROR_FORMAT;
  sum = moecc_checksum(&head, offsetof(moecc_pack_head, sum), 0);
  for (i = 0; i < head.units; i++) {
    status = read_entry(&reader, i, &entry);
    if (status != MOECC_OK) return status;
    sum = moecc_checksum(&entry, sizeof entry, sum);
    if (found == MOECC_OK && (entry.tasks & tasks)) found = check_entry(&entry, &head);
  }
  return sum == head.sum ? found : MOECC_ERROR_CHECKSUM;
}

/* All slots of one unit, through the buffer or where they are. */
static moecc_status verify_unit(const moecc_source *s, const moecc_unit *unit, void *buffer, uint32_t *index) {
  moecc_status status = MOECC_OK;
  uint32_t i;
  for (i = 0; i < unit->count && status == MOECC_OK; i++) {
    moecc_piece piece = slot_piece(unit, i);
    const void *where = NULL;
    *index = i;
    status = s->begin(s->self, &piece, buffer);
    if (status == MOECC_OK) status = s->wait(s->self, &piece, buffer, 0, &where);
    if (status == MOECC_OK && moecc_slot_sum(unit, i, where) != stored_sum(unit->bytes, where))
      status = MOECC_ERROR_CHECKSUM;
  }
  return status;
}

static moecc_status verify_entry(const Reader *r, uint32_t i, size_t bytes, uint32_t *unit, uint32_t *index) {
  moecc_pack_entry entry;
  moecc_unit u;
  moecc_status status = read_entry(r, i, &entry);
  if (status != MOECC_OK) return status;
  memset(&u, 0, sizeof u);
  u.offset = entry.offset;
  u.bytes = entry.bytes;
  u.stride = entry.stride;
  u.count = entry.count;
  u.id = i;
  if (!r->source->resident && bytes < MOECC_STREAM_BUFFER(MOECC_SLOT_BYTES(u.bytes))) return MOECC_ERROR_ARENA;
  *unit = i;
  status = verify_unit(r->source, &u, r->buffer, index);
  if (status == MOECC_OK) *unit = MOECC_NO_UNIT;
  return status;
}

moecc_status moecc_pack_verify(const moecc_source *s, void *buffer, size_t bytes, uint32_t *unit, uint32_t *index) {
  Reader reader;
  moecc_pack_head head;
  uint32_t i, unused_unit, unused_index;
  moecc_status status = MOECC_OK;
  if (!unit) unit = &unused_unit;
  if (!index) index = &unused_index;
  *unit = MOECC_NO_UNIT;
  *index = 0;
  if (!s || (!s->resident && bytes < MOECC_BLOCK)) return MOECC_ERROR_ARGUMENT;
  status = moecc_pack_check(s, 0, ~0u, buffer, 0);
  reader.source = s, reader.buffer = buffer, reader.timeout_ms = 0;
  if (status == MOECC_OK) status = read_head(&reader, 0, &head);
  if (status != MOECC_OK) return status;
  for (i = 0; i < head.units && status == MOECC_OK; i++) status = verify_entry(&reader, i, bytes, unit, index);
  return status;
}

/* ---- a pack in memory -------------------------------------------------------------------------------------------- */

static moecc_status memory_begin(void *self, const moecc_piece *piece, void *dst) {
  (void)self, (void)piece, (void)dst;
  return MOECC_OK;
}

/* self is the pack. Its length is known to be at least a head's, and its own head says the rest. */
static moecc_status memory_find(void *self, const moecc_piece *piece, const void **where) {
  const unsigned char *pack = self;
  uint64_t bytes = sizeof(moecc_pack_head);
  if (piece->unit != MOECC_NO_UNIT) memcpy(&bytes, pack + offsetof(moecc_pack_head, bytes), sizeof bytes);
  if (piece->unit != MOECC_NO_UNIT && (piece->offset > bytes || piece->bytes > bytes - piece->offset))
    return MOECC_ERROR_LENGTH;
  *where = pack + (size_t)piece->offset;
  return MOECC_OK;
}

static moecc_status memory_wait(void *self, const moecc_piece *piece, void *dst, unsigned timeout_ms,
                                const void **where) {
  (void)dst, (void)timeout_ms;
  return memory_find(self, piece, where);
}

static moecc_status memory_copy(void *self, const moecc_piece *piece, void *dst, unsigned timeout_ms,
                                const void **where) {
  const void *from;
  moecc_status s = memory_find(self, piece, &from);
  (void)timeout_ms;
  if (s != MOECC_OK) return s;
  memcpy(dst, from, piece->bytes);
  *where = dst;
  return MOECC_OK;
}

moecc_status moecc_memory_source(moecc_source *s, const void *pack, uint64_t bytes, int stream) {
  if (!s || !pack || misaligned(pack)) return MOECC_ERROR_ARGUMENT;
  if (bytes < sizeof(moecc_pack_head)) return MOECC_ERROR_LENGTH;
  s->begin = memory_begin;
  s->wait = stream ? memory_copy : memory_wait;
  s->forget = NULL;
  s->self = (void *)(uintptr_t)pack; /* read only */
  s->bytes = bytes;
  s->resident = !stream;
  return MOECC_OK;
}

/* ---- contexts ---------------------------------------------------------------------------------------------------- */

#define STATE_READY UINT32_C(0x6d6f6563)

/* Two threads that meet here must both see it; without atomics (tcc, targets without threads) a plain flag has to do.
 */
static uint32_t busy_set(moecc_context *m) {
#if defined(__GCC_ATOMIC_INT_LOCK_FREE) && __GCC_ATOMIC_INT_LOCK_FREE == 2 && !defined(__TINYC__)
  return __atomic_exchange_n(&m->busy, 1u, __ATOMIC_ACQUIRE);
#else
  uint32_t before = m->busy;
  m->busy = 1;
  return before;
#endif
}

static void busy_clear(moecc_context *m) {
#if defined(__GCC_ATOMIC_INT_LOCK_FREE) && __GCC_ATOMIC_INT_LOCK_FREE == 2 && !defined(__TINYC__)
  __atomic_store_n(&m->busy, 0u, __ATOMIC_RELEASE);
#else
  m->busy = 0;
#endif
}

size_t moecc_resident_bytes(const moecc_network *n, unsigned tasks) {
  size_t bytes = 0, i;
  for (i = 0; i < n->residents; i++) {
    const moecc_unit *u = &n->resident[i].unit;
    const size_t end = (size_t)(u->resident + u->stride * u->count);
    if ((n->resident[i].tasks & tasks) && end > bytes) bytes = end;
  }
  return bytes;
}

/* The two buffers, when the source needs them: behind the values, from the next block on; and behind them the
 * resident area. */
static void weights_init(moecc_weights *w, unsigned char *arena, size_t needed, const moecc_network *n, unsigned tasks,
                         const moecc_source *source, const moecc_options *o) {
  unsigned char *behind;
  memset(w, 0, sizeof *w);
  w->source = source;
  w->timeout_ms = o ? o->timeout_ms : 0;
  w->check = !(o && o->trust_weights);
  if (!source || source->resident || n->buffer == 0) return;
  w->buffer_bytes = MOECC_STREAM_BUFFER(n->buffer);
  behind = arena + needed;
  behind += (MOECC_BLOCK - ((uintptr_t)behind & (MOECC_BLOCK - 1))) & (MOECC_BLOCK - 1);
  w->buffer[0] = behind;
  w->buffer[1] = behind + w->buffer_bytes;
  if (moecc_resident_bytes(n, tasks) > 0) w->resident = behind + 2 * w->buffer_bytes;
}

static moecc_status context_fill(moecc_context *m, const moecc_network *n, unsigned tasks, void *arena, size_t bytes,
                                 size_t needed, const moecc_source *source, const moecc_options *o) {
  int buffers = source && !source->resident && n->buffer > 0;
  moecc_status s = MOECC_OK;
  m->weights.fault.unit = NULL;
  if (tasks == 0 || (tasks & ~n->tasks)) return MOECC_ERROR_TASK;
  if ((tasks & n->packed) && !source) return MOECC_ERROR_MISSING;
  if (source && (!source->begin || !source->wait)) return MOECC_ERROR_ARGUMENT;
  m->needed = needed;
  if (buffers) m->needed += MOECC_STREAM_BYTES(n->buffer) + moecc_resident_bytes(n, tasks);
  if ((m->needed > 0 && !arena) || misaligned(arena) || bytes < m->needed) return MOECC_ERROR_ARENA;
  weights_init(&m->weights, arena, needed, n, tasks, source, o);
  if (tasks & n->packed) s = moecc_pack_check(source, n->model, tasks, m->weights.buffer[0], m->weights.timeout_ms);
  if (s == MOECC_OK) s = residents_load(&m->weights, n, tasks);
  if (s != MOECC_OK) return s;
  m->tasks = tasks;
  m->pool = o ? o->pool : NULL;
  m->arena = arena;
  m->flags = 0;
  m->state = STATE_READY;
  return MOECC_OK;
}

moecc_status moecc_context_init(moecc_context *m, const moecc_network *n, unsigned tasks, void *arena, size_t bytes,
                                size_t needed, const moecc_source *source, const moecc_options *o) {
  moecc_status s;
  if (!m || !n) return MOECC_ERROR_ARGUMENT;
  if (busy_set(m)) return MOECC_ERROR_STATE;
  if (m->state == STATE_READY)
    s = MOECC_ERROR_STATE;
  else
    s = context_fill(m, n, tasks, arena, bytes, needed, source, o);
  busy_clear(m);
  return s;
}

void moecc_context_close(moecc_context *m) {
  unsigned b;
  if (!m || busy_set(m)) return;
  for (b = 0; b < 2 && m->state == STATE_READY; b++)
    if (under_way(&m->weights.held[b])) (void)held_wait(&m->weights, b);
  memset(&m->weights, 0, sizeof m->weights);
  m->state = 0;
  m->tasks = 0;
  m->arena = NULL;
  m->pool = NULL;
  busy_clear(m);
}

moecc_status moecc_call_begin(moecc_context *m, unsigned task) {
  moecc_status s = MOECC_OK;
  if (!m) return MOECC_ERROR_ARGUMENT;
  if (busy_set(m)) return MOECC_ERROR_STATE;
  if (m->state != STATE_READY)
    s = MOECC_ERROR_STATE;
  else if (task >= 32 || !(m->tasks >> task & 1u))
    s = MOECC_ERROR_TASK;
  if (s != MOECC_OK) {
    busy_clear(m);
    return s;
  }
  m->flags = 0;
  m->weights.fault.unit = NULL;
  m->weights.fault.index = 0;
  return MOECC_OK;
}

moecc_status moecc_call_end(moecc_context *m, moecc_status s) {
  busy_clear(m);
  return s;
}
