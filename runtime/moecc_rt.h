/* moecc_rt.h: the runtime that emitted networks are built against.
 *
 * Core (moecc_rt.c): statuses, contexts, weight units and where they come from, parallel loops. No malloc, no stdio, no
 * recursion; all state is in the caller's structures. Optional files, each needing only the core: moecc_rt_file.c
 * (weights from files: read, mapped or loaded whole) and moecc_rt_threads.c (a thread pool, and a thread that loads
 * ahead); moecc_rt_direct.c (weights from files, past the system's cache) needs moecc_rt_file.c too.
 */
#ifndef MOECC_RT_H
#define MOECC_RT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  MOECC_OK = 0,
  MOECC_ERROR_ARGUMENT, /* a null pointer, or an option out of range */
  MOECC_ERROR_STATE,    /* used before init, initialised twice, or used by two threads at once */
  MOECC_ERROR_ARENA,    /* arena NULL, misaligned or too small: moecc_context.needed says how much */
  MOECC_ERROR_TASK,     /* no such task, or it was not given to init */
  MOECC_ERROR_MODEL,    /* the weights belong to another model, or to another compilation of it */
  MOECC_ERROR_FORMAT,   /* not a weight pack, or of another version or byte order */
  MOECC_ERROR_LENGTH,   /* the pack is shorter or longer than its head says */
  MOECC_ERROR_CHECKSUM, /* bytes changed: moecc_context.weights.fault says in which unit */
  MOECC_ERROR_IO,       /* the source failed: likewise */
  MOECC_ERROR_TIMEOUT,  /* the source did not deliver in time: likewise */
  MOECC_ERROR_MISSING   /* no weights were given and none are embedded, or there is no such file */
} moecc_status;
/* One English line, without a full stop; never NULL. */
const char *moecc_status_text(moecc_status s);

/* Flags that a call sets in its context; nothing is wrong with the output of a call that set none. */
enum { MOECC_FLAG_NAN_SCORE = 1 /* a router's score was NaN: sorted last */ };

/* ---- parallel loops ------------------------------------------------------------------------------------------- */

/* Work items begin … end-1 of a kernel. `thread` counts from 0 and selects scratch memory. */
typedef void moecc_body(const void *args, size_t begin, size_t end, unsigned thread);
/* Something that runs body over 0 … count-1, statically divided; run returns when all is done. */
typedef struct moecc_pool {
  unsigned threads; /* 1 or more */
  void (*run)(void *self, moecc_body *body, const void *args, size_t count);
  void *self;
} moecc_pool;
/* pool NULL or of one thread, or count 1: runs in the caller. The items a thread gets never change results. A body must
 * not call moecc_for itself. */
void moecc_for(const moecc_pool *pool, moecc_body *body, const void *args, size_t count);

/* An operand of a kernel's epilogue: element (row, col) at p[row * this->row + col] (see the kernel's epilogue). */
typedef struct moecc_operand {
  const float *p;
  size_t row;
} moecc_operand;

/* ---- weights: units and slots --------------------------------------------------------------------------------- */

/* A unit: `count` slots of the same size, `stride` apart; a slot is what is loaded at once. A dense layer's unit has
 * one slot, a table of experts one for each, so tables do not grow with the experts. In the pack, and in an embedded
 * array, a slot is its `bytes`, zeros up to a multiple of 8, and then 8 bytes: moecc_slot_sum, little endian. */
typedef struct moecc_unit {
  const char *name; /* for people; may be NULL */
  const void *data; /* embedded: slot 0, 64-byte aligned (the others `stride` apart); NULL: from the source */
  uint64_t offset;  /* of slot 0 in the pack */
  uint64_t bytes;   /* of one slot, without its checksum */
  uint64_t stride;  /* MOECC_SLOT_STRIDE(bytes) */
  uint32_t count;
  uint32_t id; /* index in the pack's directory */
  /* 0: streamed. Else it is loaded in init and stays: slot 0 so far behind the resident area's start, the others
   * `stride` apart. On a multiple of 64, where slots of a page or more are of 4096. */
  uint64_t resident;
} moecc_unit;
/* What is read from the pack for one slot, and the distance of slots: a slot starts on a multiple of 64 bytes, one of a
 * page or more on a page. Units start on a multiple of MOECC_SLOT_ALIGN. */
#define MOECC_SLOT_BYTES(bytes) ((((uint64_t)(bytes) + 7) & ~(uint64_t)7) + 8)
#define MOECC_SLOT_ALIGN(bytes) (MOECC_SLOT_BYTES(bytes) < 4096 ? (uint64_t)64 : (uint64_t)4096)
#define MOECC_SLOT_STRIDE(bytes)                                                                                       \
  ((MOECC_SLOT_BYTES(bytes) + MOECC_SLOT_ALIGN(bytes) - 1) & ~(MOECC_SLOT_ALIGN(bytes) - 1))

/* A fast 64-bit checksum: the same on every machine; any change within a word of 8 bytes is found for certain. */
uint64_t moecc_checksum(const void *data, size_t bytes, uint64_t seed);
/* The checksum stored behind a slot's bytes: moecc_checksum(data, bytes, offset of the slot in the pack). */
uint64_t moecc_slot_sum(const moecc_unit *unit, uint32_t index, const void *data);

/* ---- weights: sources ------------------------------------------------------------------------------------------- */

/* A piece of the pack that is wanted. unit and index are for sources that keep units apart; MOECC_NO_UNIT: the head. */
typedef struct moecc_piece {
  uint64_t offset;
  size_t bytes;
  uint32_t unit, index;
} moecc_piece;
#define MOECC_NO_UNIT UINT32_MAX

/* Buffers are made of whole blocks of 4096 bytes, and so large that a piece can be read with the whole blocks around it,
 * as O_DIRECT and many devices want: what MOECC_STREAM_BUFFER gives for the largest piece. A piece lies in a pack as
 * slots do: one of less than a block touches two blocks at most, a longer one begins with a block. */
enum { MOECC_BLOCK = 4096 };
#define MOECC_STREAM_BUFFER(bytes)                                                                                     \
  ((size_t)(bytes) < 2 * (size_t)MOECC_BLOCK ? 2 * (size_t)MOECC_BLOCK                                                 \
                                             : ((size_t)(bytes) + MOECC_BLOCK - 1) & ~((size_t)MOECC_BLOCK - 1))

/* Where weights come from. begin asks for a piece and should return at once; dst is where it may be put: aligned to
 * MOECC_BLOCK, with room for all the blocks that the piece touches, from (piece->offset rounded down to a block) on.
 * wait returns when the piece is there and says where: dst, dst + piece->offset % MOECC_BLOCK when whole blocks were
 * read, or the source's own memory. At most
 * two pieces are under way at once; each is waited for, in any order, with the piece and dst that begin was given,
 * until wait returns something other than MOECC_ERROR_TIMEOUT. A source that can time out has `forget`: it drops what
 * is under way; a piece being read may still be written to its dst, but before anything that is begun later is. One
 * thread at a time uses a source. */
typedef struct moecc_source {
  moecc_status (*begin)(void *self, const moecc_piece *piece, void *dst);
  moecc_status (*wait)(void *self, const moecc_piece *piece, void *dst, unsigned timeout_ms, const void **where);
  void (*forget)(void *self); /* or NULL */
  void *self;
  uint64_t bytes; /* of the whole pack; 0: unknown */
  int resident;   /* wait returns memory that stays valid: there are no buffers, dst is NULL; begin is only advice */
} moecc_source;

/* A pack in memory (64-byte aligned): resident, or, with stream, copied through the two buffers: the simplest source.
 */
moecc_status moecc_memory_source(moecc_source *s, const void *pack, uint64_t bytes, int stream);

/* ---- weights: the two buffers ----------------------------------------------------------------------------------- */

/* What a buffer holds. */
typedef struct moecc_held {
  const moecc_unit *unit; /* NULL: nothing */
  uint32_t index;
  uint32_t ready;    /* 0: under way; 1: there; 2: there and checked, or not to be */
  const void *where; /* when ready */
  moecc_piece piece; /* as the source was asked */
} moecc_held;

/* Which slot a failure was about; unit NULL: the pack's head or directory, or no failure. */
typedef struct moecc_fault {
  const moecc_unit *unit;
  uint32_t index;
} moecc_fault;

/* The two buffers and what is in them. Embedded in every context. */
typedef struct moecc_weights {
  const moecc_source *source; /* NULL: embedded units only */
  void *buffer[2];            /* NULL if the source is resident */
  size_t buffer_bytes;        /* of each */
  unsigned char *resident;    /* the resident area, or NULL */
  moecc_held held[2];
  unsigned current;    /* the buffer that the last take gave out */
  unsigned timeout_ms; /* of one slot; 0: for ever */
  int check;           /* verify checksums as slots arrive in a buffer */
  moecc_fault fault;
} moecc_weights;

/* The slot's bytes: waits for it, asking for it first if nobody has; then at once asks for `next` (NULL: nothing),
 * which goes into the other buffer. The pointer is 64-byte aligned and valid until the next take from these weights;
 * embedded and resident ones for ever. A slot that still is in a buffer is not loaded again. NULL: failed; *status
 * (which success leaves alone) and w->fault say why. */
const void *moecc_take(moecc_weights *w, const moecc_unit *unit, const moecc_unit *next, moecc_status *status);
const void *moecc_take_expert(moecc_weights *w, const moecc_unit *unit, size_t index, const moecc_unit *next,
                              size_t next_index, moecc_status *status);
/* Asks for a slot ahead of its take, for instance for the first expert once a router has run. Leaves the slot last
 * taken alone. Never fails: what goes wrong shows in the take. */
void moecc_ask(moecc_weights *w, const moecc_unit *unit);
void moecc_ask_expert(moecc_weights *w, const moecc_unit *unit, size_t index);

/* ---- weights: the pack ------------------------------------------------------------------------------------------- */

/* A pack is a head, a directory of units, then the units' slots. */
enum { MOECC_PACK_VERSION = 2, MOECC_PACK_ORDER = 0x01020304 };
#define MOECC_PACK_MAGIC "moeccpk\n"
typedef struct moecc_pack_head { /* 64 bytes */
  char magic[8];                 /* MOECC_PACK_MAGIC without its zero */
  uint32_t version;
  uint32_t order;       /* MOECC_PACK_ORDER in the target's byte order */
  uint64_t model;       /* hash of the model and of how it was compiled */
  uint64_t bytes;       /* of the whole pack */
  uint32_t units;       /* entries of the directory, which follows this head */
  uint32_t reserved[5]; /* 0 */
  uint64_t sum;         /* of the 56 bytes before, chained (as seed) through each entry of the directory */
} moecc_pack_head;
typedef struct moecc_pack_entry { /* 64 bytes: one unit */
  uint64_t offset, bytes, stride;
  uint32_t count;
  uint32_t layout;      /* which packing: the compiler's layout id */
  uint32_t tasks;       /* bit t: task t needs it */
  uint32_t reserved[7]; /* 0 */
} moecc_pack_entry;
/* Checks head, version, byte order, model, length and directory, and that the given tasks' units lie inside. Reads
 * nothing of the units. model 0: any. buffer: a block, aligned to MOECC_BLOCK; NULL for a resident source. */
moecc_status moecc_pack_check(const moecc_source *s, uint64_t model, unsigned tasks, void *buffer, unsigned timeout_ms);
/* Checks every slot's checksum: for mapped files, or whenever one wants to know. buffer (aligned to
 * MOECC_BLOCK, `bytes` long, MOECC_STREAM_BUFFER of the largest MOECC_SLOT_BYTES) is NULL for a resident source. *unit
 * and *index (may be NULL) name the first bad slot, *unit being MOECC_NO_UNIT when the head or directory is at fault. */
moecc_status moecc_pack_verify(const moecc_source *s, void *buffer, size_t bytes, uint32_t *unit, uint32_t *index);

/* ---- context ------------------------------------------------------------------------------------------------------
 */

typedef struct moecc_options {
  const moecc_pool *pool; /* NULL: one thread */
  unsigned timeout_ms;    /* of one slot's load; 0: for ever */
  int trust_weights;      /* do not verify checksums as slots arrive */
} moecc_options;

/* A unit that stays in memory while the context is initialised, and bits of the tasks that need it. */
typedef struct moecc_resident {
  moecc_unit unit;
  uint32_t tasks;
} moecc_resident;

/* What the compiler knows of a network: one constant in the emitted code. */
typedef struct moecc_network {
  uint64_t model;  /* as in the pack */
  uint32_t tasks;  /* bit t: task t exists */
  uint32_t packed; /* bit t: task t has units that are not embedded, so that it needs a source */
  /* Bytes of one stream buffer: the largest MOECC_SLOT_BYTES that is neither embedded nor resident, or 0. With resident
   * units at least 64, and what their slots of less than a page take. */
  size_t buffer;
  const moecc_resident *resident; /* in the order in which they are loaded; NULL: none */
  size_t residents;
} moecc_network;

/* The part that every emitted context begins with. Starts as zeros. */
typedef struct moecc_context {
  uint32_t state; /* 0: not initialised */
  uint32_t tasks; /* bit t: task t was given to init */
  uint32_t flags; /* MOECC_FLAG_… of the last call */
  uint32_t busy;  /* a call is under way */
  const moecc_pool *pool;
  unsigned char *arena;
  size_t needed; /* arena bytes that init wanted, buffers and resident area included; also after MOECC_ERROR_ARENA */
  moecc_weights weights;
} moecc_context;
/* Arena alignment, bytes. */
enum { MOECC_ALIGN = 64 };
/* The two stream buffers, which lie behind the values in the arena when a source is given that is not resident, with
 * what is lost before the first block; `buffer` as in moecc_network. */
#define MOECC_STREAM_BYTES(buffer) (2 * MOECC_STREAM_BUFFER(buffer) + MOECC_BLOCK - MOECC_ALIGN)
/* Behind them, and under the same condition, the resident area: bytes for these tasks' units. */
size_t moecc_resident_bytes(const moecc_network *n, unsigned tasks);
/* `needed`: arena bytes for the values, with the pool's threads; a multiple of 64. Resident units of the tasks are
 * loaded, and their checksums verified unless the options say otherwise. On failure the context is as it was before,
 * but for `needed` and weights.fault. */
moecc_status moecc_context_init(moecc_context *m, const moecc_network *n, unsigned tasks, void *arena, size_t bytes,
                                size_t needed, const moecc_source *source, const moecc_options *o);
/* Not while a call is under way. The context may be initialised again. Waits for slots under way, at most timeout_ms
 * each: after MOECC_ERROR_TIMEOUT stop the source before giving the arena away. NULL and a context of zeros are
 * allowed. */
void moecc_context_close(moecc_context *m);
moecc_status moecc_call_begin(moecc_context *m,
                              unsigned task);                  /* state, busy and task checks; clears flags and fault */
moecc_status moecc_call_end(moecc_context *m, moecc_status s); /* returns s; only after a begin that succeeded */

/* ---- expert queues ------------------------------------------------------------------------------------------------
 */

/* The next expert at or after e whose queue is not empty; `experts` if none. begin has experts+1 entries. */
static inline size_t moecc_next_expert(const uint32_t *begin, size_t e, size_t experts) {
  while (e < experts && begin[e] == begin[e + 1]) e++;
  return e;
}
/* The same for several tasks: the next expert whose queue is not empty in any of them. */
static inline size_t moecc_next_expert_of(const uint32_t *const *begin, size_t tasks, size_t e, size_t experts) {
  size_t t;
  for (t = 0; t < tasks; t++) experts = moecc_next_expert(begin[t], e, experts);
  return experts;
}

/* ---- optional: weights from files (moecc_rt_file.c) ---------------------------------------------------------------
 */

/* Must stay where it is while open. */
typedef struct moecc_file {
  moecc_source source; /* give &f.source to init */
  int fd;
  void *map;
  uint64_t bytes;
} moecc_file;
/* Streamed: slots are read into the two buffers, the system being told ahead; begin never blocks, wait reads. */
moecc_status moecc_file_open(moecc_file *f, const char *path);
/* Mapped: no copy, but a file that is truncated while mapped kills the process (SIGBUS), and checksums are verified
 * only by moecc_pack_verify. What is asked for and not in memory is read ahead. */
moecc_status moecc_file_map(moecc_file *f, const char *path);
/* Reads the whole pack into the caller's memory (64-byte aligned, f->bytes bytes) and verifies it. MOECC_ERROR_ARENA if
 * memory is NULL, misaligned or too small, f->bytes then saying what is needed. *unit, *index as in moecc_pack_verify.
 */
moecc_status moecc_file_load(moecc_file *f, const char *path, void *memory, size_t bytes, uint32_t *unit,
                             uint32_t *index);
void moecc_file_close(moecc_file *f);

/* ---- optional: weights from files, past the system's cache (moecc_rt_direct.c) -----------------------------------
 */

/* A read. */
typedef struct moecc_direct_read {
  moecc_piece piece;
  void *dst;
  size_t done;     /* bytes that have come, counted from the piece's first block */
  unsigned tries;  /* how often in a row it did not get further */
  unsigned number; /* order of arrival */
  int state;
  moecc_status status; /* when it has ended */
} moecc_direct_read;

/* What is shared with the kernel. */
typedef struct moecc_ring {
  int fd;
  unsigned *memory;       /* mapped: heads, tails, results */
  unsigned char *entries; /* mapped: requests */
  size_t memory_bytes, entries_bytes;
  unsigned *sq_head, *sq_tail, *sq_array, sq_mask;
  unsigned *cq_head, *cq_tail, cq_mask;
  unsigned char *results;
} moecc_ring;

/* Must stay where it is while open. */
typedef struct moecc_direct {
  moecc_source source; /* give &d.source to init */
  int direct;          /* 1: O_DIRECT; 0: the file system refuses it, and reads go through the system's cache */
  int in_background; /* 1: io_uring, the kernel reads while the caller computes; 0: wait reads, unless a loader does */
  moecc_file file;
  moecc_ring ring;
  moecc_direct_read read[4]; /* two wanted, and two that were forgotten while being read */
  unsigned arrivals;
} moecc_direct;
/* Reads slots into the two buffers in whole blocks, two at a time, with nothing of the pack in the system's cache:
 * memory stays as small as it is said to be. begin only asks. Waits can time out. Where there is no io_uring, put
 * moecc_loader_start in front (see in_background). `without` leaves out what would be used: MOECC_WITHOUT_… */
enum { MOECC_WITHOUT_RING = 1, MOECC_WITHOUT_DIRECT = 2 };
moecc_status moecc_direct_open(moecc_direct *d, const char *path, unsigned without);
/* Not before the contexts that use it are closed. Waits for reads that are still under way. */
void moecc_direct_close(moecc_direct *d);

/* ---- optional: threads (moecc_rt_threads.c) -----------------------------------------------------------------------
 */

/* A pool. Both live in the caller's memory, aligned to 64 bytes. */
enum { MOECC_MAX_THREADS = 64 };
size_t moecc_threads_bytes(void);
/* Starts up to `threads`-1 workers, fewer if the system refuses: see the result's `threads`. Put it into moecc_options.
 * Contexts in several threads may share a pool: their loops take turns. */
const moecc_pool *moecc_threads_start(void *memory, unsigned threads);
void moecc_threads_stop(void *memory); /* joins the workers */

/* A thread that loads ahead from another source, so that loading and computing overlap, and waits can time out. */
size_t moecc_loader_bytes(void);
/* The source to give to init; `from` itself if no thread can be had: then loading does not overlap, nothing else
 * changes. */
const moecc_source *moecc_loader_start(void *memory, const moecc_source *from);
/* Joins the thread. A piece that is being loaded is forgotten if the source can forget, else it must finish. */
void moecc_loader_stop(void *memory);

#ifdef __cplusplus
}
#endif
#endif
