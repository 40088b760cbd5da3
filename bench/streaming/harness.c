/* A compiled network that streams its weights, and says when: bench/README.md has the whole picture.
 *
 *   harness WEIGHTS INPUTS SOURCE THREADS
 *
 * answers one line on stdin with one on stdout, "ok ..." or "error TEXT":
 *
 *   open             -> ok MS          opens the source and initialises the context
 *   set NAME 0|1     -> ok             serial: nothing is read ahead; check: checksums; cold: the file's pages are dropped
 *                                      from the system's cache before each call
 *   run N TASK       -> ok MS MS ...   calls
 *   replay N         -> ok MS MS ...   reads what the last call read, in its order, and computes nothing
 *   events FILE      -> ok             when what happened in the last call or replay
 *   answer           -> ok HASH        of the outputs
 *   memory           -> ok NAME BYTES ...
 *
 * Two things are put between the network and the runtime: the linker's --wrap shows each take, and a source in front of the
 * one that is measured shows each request. A second one behind the loader's thread sees when reading began and ended. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "network.h"
#include "serve.h"
#include "sources.h"

net network; /* starts as zeros */

enum { MOST = 1 << 14 }; /* takes, and loads, of a call */

typedef struct Take {
  const moecc_unit *unit;
  uint32_t index;
  uint64_t begin, end; /* nanoseconds */
  uint64_t waiting;    /* of these: in the source's wait */
  uint64_t asking;     /* and in its begin */
} Take;

typedef struct Load {
  moecc_piece piece;
  void *dst;
  uint32_t take;   /* how many takes had begun when it was asked for */
  uint32_t within; /* it was asked for within the last of them */
  uint64_t asked, begun,
      arrived;          /* begun, arrived: by the loader's thread; else the source's begin and the end of wait */
  uint64_t wait, there; /* begin and end of the wait */
} Load;

static struct {
  Take take[MOST];
  Load load[MOST];
  size_t takes, loads, served;
  uint64_t begin, end;
  long interrupted; /* how often the system gave a thread's processor to others */
  int within;       /* a take */
} record;

static int serial, cold;
static const moecc_source *measured;

static uint64_t now(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static long interruptions(void) {
  struct rusage usage;
  return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_nivcsw : 0;
}

static double milliseconds(uint64_t begin, uint64_t end) { return (double)(end - begin) * 1e-6; }

/* ---- takes ---- */

const void *__real_moecc_take_expert(moecc_weights *w, const moecc_unit *unit, size_t index, const moecc_unit *next,
                                     size_t next_index, moecc_status *status);
const void *__wrap_moecc_take_expert(moecc_weights *w, const moecc_unit *unit, size_t index, const moecc_unit *next,
                                     size_t next_index, moecc_status *status);
const void *__wrap_moecc_take(moecc_weights *w, const moecc_unit *unit, const moecc_unit *next, moecc_status *status);

const void *__wrap_moecc_take_expert(moecc_weights *w, const moecc_unit *unit, size_t index, const moecc_unit *next,
                                     size_t next_index, moecc_status *status) {
  Take *t = &record.take[record.takes < MOST - 1 ? record.takes : MOST - 1];
  const void *where;
  memset(t, 0, sizeof *t);
  t->unit = unit;
  t->index = (uint32_t)index;
  record.takes++;
  record.within = 1;
  t->begin = now();
  where = __real_moecc_take_expert(w, unit, index, next, next_index, status);
  t->end = now();
  record.within = 0;
  return where;
}

const void *__wrap_moecc_take(moecc_weights *w, const moecc_unit *unit, const moecc_unit *next, moecc_status *status) {
  return __wrap_moecc_take_expert(w, unit, 0, next, 0, status);
}

/* ---- the source in front ---- */

static Take *this_take(void) { return record.within && record.takes < MOST ? &record.take[record.takes - 1] : NULL; }

static Load *load_of(const moecc_piece *piece, const void *dst) {
  size_t i;
  for (i = record.loads < MOST ? record.loads : MOST; i-- > 0;)
    if (record.load[i].piece.offset == piece->offset && record.load[i].dst == dst) return &record.load[i];
  return NULL;
}

static moecc_status front_begin(void *self, const moecc_piece *piece, void *dst) {
  Load *l = &record.load[record.loads < MOST - 1 ? record.loads : MOST - 1];
  Take *t = this_take();
  moecc_status s = MOECC_OK;
  (void)self;
  memset(l, 0, sizeof *l);
  l->piece = *piece;
  l->dst = dst;
  l->take = (uint32_t)record.takes;
  l->within = record.within != 0;
  l->asked = l->begun = now();
  record.loads++;
  if (!serial) s = measured->begin(measured->self, piece, dst);
  if (s != MOECC_OK) record.loads--;
  if (t) t->asking += now() - l->asked;
  return s;
}

static moecc_status front_wait(void *self, const moecc_piece *piece, void *dst, unsigned timeout_ms,
                               const void **where) {
  Load *l = load_of(piece, dst);
  Take *t = this_take();
  moecc_status s = MOECC_OK;
  uint64_t begin = now(), end;
  (void)self;
  if (serial) {
    if (l) l->begun = begin;
    s = measured->begin(measured->self, piece, dst);
  }
  if (s == MOECC_OK) s = measured->wait(measured->self, piece, dst, timeout_ms, where);
  end = now();
  if (l) l->wait = begin, l->there = end;
  if (l && !l->arrived) l->arrived = end;
  if (t) t->waiting += end - begin;
  return s;
}

static void front_forget(void *self) {
  (void)self;
  if (measured->forget) measured->forget(measured->self);
}

/* ---- the source behind the loader's thread, which serves requests in their order ---- */

static moecc_status back_begin(void *self, const moecc_piece *piece, void *dst) {
  const moecc_source *from = self;
  if (record.served < MOST) record.load[record.served].begun = now();
  return from->begin(from->self, piece, dst);
}

static moecc_status back_wait(void *self, const moecc_piece *piece, void *dst, unsigned timeout_ms,
                              const void **where) {
  const moecc_source *from = self;
  moecc_status s = from->wait(from->self, piece, dst, timeout_ms, where);
  if (record.served < MOST) record.load[record.served++].arrived = now();
  return s;
}

moecc_source behind(const moecc_source *from) {
  moecc_source s = *from;
  s.begin = back_begin;
  s.wait = back_wait;
  s.forget = NULL;
  s.self = (void *)(uintptr_t)from;
  return s;
}

/* ---- opening ---- */

static const char *weights_path, *inputs_path, *source_name;
static unsigned threads;

static const char *initialise(void) {
  static moecc_source front;
  moecc_options options = {NULL, 0, 0};
  const moecc_source *s = NULL;
  moecc_status status;
  if (threads > 1) options.pool = moecc_threads_start(ports_allocate(moecc_threads_bytes()), threads);
  if (measured) {
    front = *measured;
    if (!measured->resident) {
      front.begin = front_begin;
      front.wait = front_wait;
      front.forget = front_forget;
      front.self = NULL;
    }
    s = &front;
  }
  status = net_init(&network, NET_TASKS_ALL, NULL, 0, s, &options);
  if (status == MOECC_ERROR_ARENA)
    status = net_init(&network, NET_TASKS_ALL, ports_allocate(network.c.needed), network.c.needed, s, &options);
  return outcome(status);
}

static const char *answer_open(void) {
  uint64_t begin = now();
  const char *wrong = ports_open(inputs_path);
  if (!wrong) wrong = open_source(source_name, weights_path, &measured);
  if (!wrong) wrong = initialise();
  if (!wrong) printf("ok %.4f\n", milliseconds(begin, now()));
  return wrong;
}

/* A slot that an earlier call left in a buffer is loaded again, so that all calls do the same; one that it asked for and did
 * not take arrives first. */
static void forget_slots(void) {
  moecc_weights *w = &network.c.weights;
  unsigned b;
  for (b = 0; b < 2; b++) {
    moecc_held *h = &w->held[b];
    const void *where;
    if (h->unit && !h->ready) (void)w->source->wait(w->source->self, &h->piece, w->buffer[b], 0, &where);
    h->unit = NULL;
  }
}

static const char *answer_set(const char *line) {
  char name[16];
  int value;
  if (sscanf(line, "%15s %d", name, &value) != 2) return "set wants a name and 0 or 1";
  forget_slots(); /* as they were asked for */
  if (!strcmp(name, "serial"))
    serial = value;
  else if (!strcmp(name, "cold"))
    cold = value;
  else if (!strcmp(name, "check"))
    network.c.weights.check = value;
  else
    return "set serial, cold or check";
  printf("ok\n");
  return NULL;
}

/* ---- calls ---- */

/* Nothing of the file stays in the system's cache; other processes must not have it mapped. */
static const char *drop_cache(void) {
  int fd = open(weights_path, O_RDONLY | O_CLOEXEC), failed;
  if (fd < 0) return strerror(errno);
  failed = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  (void)close(fd);
  return failed ? strerror(failed) : NULL;
}

static const char *one_call(const char *task) {
  const char *wrong;
  forget_slots();
  wrong = cold ? drop_cache() : NULL;
  if (wrong) return wrong;
  record.takes = record.loads = record.served = 0;
  record.interrupted = -interruptions();
  record.begin = now();
  wrong = ports_call(task);
  record.end = now();
  record.interrupted += interruptions();
  if (!wrong && (record.takes >= MOST || record.loads >= MOST)) wrong = "more takes or loads than there is room for";
  return wrong;
}

/* One load after another, as a call that computes nothing would ask for them: each one once the one before is there. */
static const char *one_replay(const char *unused) {
  const char *wrong;
  moecc_status s = MOECC_OK;
  size_t i, n = record.loads;
  (void)unused;
  forget_slots();
  wrong = cold ? drop_cache() : NULL;
  if (wrong) return wrong;
  record.takes = record.served = 0;
  record.begin = now();
  for (i = 0; i < n && s == MOECC_OK; i++) {
    Load *l = &record.load[i];
    const void *where = NULL;
    l->take = 0;
    l->asked = l->begun = l->wait = now();
    s = measured->begin(measured->self, &l->piece, l->dst);
    if (s == MOECC_OK) s = measured->wait(measured->self, &l->piece, l->dst, 0, &where);
    l->arrived = l->there = now();
  }
  record.end = now();
  return outcome(s);
}

static const char *answer_times(const char *line, const char *one(const char *)) {
  static double ms[4096];
  char what[256] = "";
  const char *wrong = NULL;
  int i, n = 0;
  if (sscanf(line, "%d %255s", &n, what) < 1 || n < 1 || n > 4096) return "a number of calls is wanted";
  for (i = 0; i < n && !wrong; i++) {
    wrong = one(what);
    ms[i] = milliseconds(record.begin, record.end);
  }
  if (wrong) return wrong;
  printf("ok");
  for (i = 0; i < n; i++) printf(" %.5f", ms[i]);
  printf("\n");
  return NULL;
}

/* ---- what happened ---- */

/* Times are nanoseconds since the call began. */
static uint64_t since(uint64_t t) { return t > record.begin ? t - record.begin : 0; }

static const char *answer_events(const char *path) {
  FILE *f = fopen(path, "w");
  size_t i;
  int failed;
  if (!f) return strerror(errno);
  fprintf(f, "call %" PRIu64 " %ld\n", since(record.end), record.interrupted);
  for (i = 0; i < record.takes; i++) {
    const Take *t = &record.take[i];
    fprintf(f, "take %s %u %u %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", t->unit->name, t->index,
            t->unit->count, t->unit->offset + t->unit->stride * t->index, since(t->begin), since(t->end), t->waiting,
            t->asking);
  }
  for (i = 0; i < record.loads; i++) {
    const Load *l = &record.load[i];
    fprintf(f, "load %" PRIu64 " %zu %u %u %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
            l->piece.offset, l->piece.bytes, l->take, l->within, since(l->asked), since(l->begun), since(l->arrived),
            since(l->wait), since(l->there));
  }
  failed = ferror(f);
  if (fclose(f) != 0 || failed) return "the events could not be written";
  printf("ok\n");
  return NULL;
}

static const char *answer_answer(void) {
  uint64_t sum = 0;
  int i;
  for (i = n_inputs; i < n_ports; i++) sum = moecc_checksum(ports[i].data, moecc_npy_bytes(&ports[i].array), sum);
  printf("ok %016" PRIx64 "\n", sum);
  return NULL;
}

/* The numbers behind these names in a file of /proc, in bytes. */
static void print_numbers(const char *path, const char *const *names, long long scale) {
  char line[256];
  FILE *f = fopen(path, "r");
  while (f && fgets(line, sizeof line, f)) {
    const char *const *name;
    for (name = names; *name; name++) {
      size_t n = strlen(*name);
      if (!strncmp(line, *name, n) && line[n] == ':')
        printf(" %s %lld", *name, strtoll(line + n + 1, NULL, 10) * scale);
    }
  }
  if (f) (void)fclose(f);
}

static const char *answer_memory(void) {
  static const char *const status[] = {"VmHWM", "VmRSS", "RssAnon", "RssFile", "VmData", NULL};
  static const char *const io[] = {"read_bytes", NULL};
  printf("ok arena %zu", network.c.needed);
  print_numbers("/proc/self/status", status, 1024);
  print_numbers("/proc/self/io", io, 1);
  printf("\n");
  return NULL;
}

static const char *answer(const char *line) {
  if (!strcmp(line, "open")) return answer_open();
  if (!strncmp(line, "set ", 4)) return answer_set(line + 4);
  if (!strncmp(line, "run ", 4)) return answer_times(line + 4, one_call);
  if (!strncmp(line, "replay ", 7)) return answer_times(line + 7, one_replay);
  if (!strncmp(line, "events ", 7)) return answer_events(line + 7);
  if (!strcmp(line, "answer")) return answer_answer();
  if (!strcmp(line, "memory")) return answer_memory();
  return "open, set, run, replay, events, answer or memory";
}

int main(int count, char **arguments) {
  char line[4096];
  if (count != 5) {
    fprintf(stderr, "harness WEIGHTS INPUTS SOURCE THREADS\n");
    return 2;
  }
  weights_path = arguments[1];
  inputs_path = arguments[2];
  source_name = arguments[3];
  threads = (unsigned)atoi(arguments[4]);
  while (fgets(line, sizeof line, stdin)) {
    const char *wrong;
    line[strcspn(line, "\n")] = 0;
    wrong = answer(line);
    if (wrong) printf("error %s\n", wrong);
    (void)fflush(stdout);
  }
  return 0;
}
