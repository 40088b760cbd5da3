/* Sums up traces, and writes them for viewers: see moecc_profile.h. */
#include "moecc_profile.h"

#ifdef MOECC_TRACE

#include <stdlib.h>
#include <string.h>

#include "moecc_simd.h"

enum { MOST_EVENTS = 1 << 20 }; /* of each thread; memory that is not touched costs nothing */

/* ---- what one core can do ---------------------------------------------------------------------------------------- */

enum { CHAINS = 12, ROUNDS = 20000, TRIES = 6 };

/* Multiply-adds alone, in as many chains as hide their latency and fit in 16 registers. The chains differ, or a
 * compiler would make them one. */
static float multiply_add(float x) {
  vf s0 = vf_set1(x), s1 = vf_set1(x + 1), s2 = vf_set1(x + 2), s3 = vf_set1(x + 3), s4 = vf_set1(x + 4);
  vf s5 = vf_set1(x + 5), s6 = vf_set1(x + 6), s7 = vf_set1(x + 7), s8 = vf_set1(x + 8), s9 = vf_set1(x + 9);
  vf s10 = vf_set1(x + 10), s11 = vf_set1(x + 11);
  const vf a = vf_set1(0.5f), b = vf_set1(x);
  long i;
  for (i = 0; i < ROUNDS; i++) {
    s0 = vf_fma(s0, a, b), s1 = vf_fma(s1, a, b), s2 = vf_fma(s2, a, b), s3 = vf_fma(s3, a, b);
    s4 = vf_fma(s4, a, b), s5 = vf_fma(s5, a, b), s6 = vf_fma(s6, a, b), s7 = vf_fma(s7, a, b);
    s8 = vf_fma(s8, a, b), s9 = vf_fma(s9, a, b), s10 = vf_fma(s10, a, b), s11 = vf_fma(s11, a, b);
  }
  return vf_get((s0 + s1 + s2 + s3) + (s4 + s5 + s6 + s7) + (s8 + s9 + s10 + s11), 0);
}

/* GFLOP/s of one core at this moment: the best of a few short tries, since the processor may be wanted elsewhere. */
static double measure_peak(void) {
  volatile float seen = 1.0f;
  double best = 0;
  int i;
  for (i = 0; i < TRIES; i++) {
    uint64_t start = moecc_trace_now(), ns;
    double rate;
    seen = multiply_add(seen * 0.0f + 1.0f);
    ns = moecc_trace_now() - start;
    rate = 2.0 * (double)(CHAINS * ROUNDS * VF_LANES) / (double)(ns > 0 ? ns : 1);
    if (rate > best) best = rate;
  }
  return best;
}

/* ---- summing up -------------------------------------------------------------------------------------------------- */

const moecc_pool *moecc_profile_start(moecc_profile *p, const moecc_step *steps, size_t n, const moecc_pool *pool,
                                      size_t runs, int keep) {
  const unsigned threads = pool ? pool->threads : 1;
  memset(p, 0, sizeof *p);
  p->steps = steps;
  p->n_steps = n;
  p->runs = runs;
  p->keep = keep;
  p->memory = malloc(moecc_trace_bytes(threads, MOST_EVENTS));
  p->sum = calloc(n + 1, sizeof *p->sum);
  p->ns = calloc(runs * n + 1, sizeof *p->ns);
  p->call = calloc(runs + 1, sizeof *p->call);
  p->peak = calloc(runs + 1, sizeof *p->peak);
  if (!p->memory || !p->sum || !p->ns || !p->call || !p->peak) return NULL;
  moecc_trace_start(&p->trace, pool, p->memory, MOST_EVENTS);
  return &p->trace.pool;
}

void moecc_profile_stop(moecc_profile *p) {
  moecc_trace_stop();
  free(p->memory);
  free(p->sum);
  free(p->ns);
  free(p->call);
  free(p->peak);
}

void moecc_profile_task(moecc_profile *p) {
  p->done = 0;
  memset(p->sum, 0, p->n_steps * sizeof *p->sum);
  memset(p->ns, 0, p->runs * p->n_steps * sizeof *p->ns);
}

static void add_event(moecc_profile *p, const moecc_event *e, double *ns) {
  moecc_step_sum *sum = p->sum + e->number - 1;
  const uint64_t time = e->end - e->begin;
  if (e->kind == MOECC_EVENT_CALL) p->call[p->done] = (double)time;
  if (e->number == 0 || e->number > p->n_steps) return;
  switch (e->kind) {
  case MOECC_EVENT_STEP:
    sum->calls++;
    ns[e->number - 1] += (double)time;
    break;
  case MOECC_EVENT_TAKE:
    sum->load += time;
    ns[e->number - 1] -= (double)time;
    break;
  case MOECC_EVENT_LOOP: sum->loop += time; break;
  case MOECC_EVENT_SHARE: sum->share += time; break;
  default: break;
  }
}

void moecc_profile_call(moecc_profile *p, const char *task, long number) {
  const moecc_events *own = &p->trace.events[0];
  unsigned thread;
  size_t i;
  if (own->n > 0 && own->event[own->n - 1].kind == MOECC_EVENT_CALL) own->event[own->n - 1].what = task;
  if (p->keep) return;
  if (number >= 0 && p->done < p->runs) {
    for (thread = 0; thread < p->trace.pool.threads; thread++)
      for (i = 0; i < p->trace.events[thread].n; i++)
        add_event(p, &p->trace.events[thread].event[i], p->ns + p->done * p->n_steps);
    p->peak[p->done++] = measure_peak();
  }
  moecc_trace_clear(&p->trace);
}

/* ---- lines for programs ------------------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Sorts what it looks at: every `step`th of n numbers. */
static double median(const double *x, size_t n, size_t step, double *room) {
  size_t i;
  if (n == 0) return 0;
  for (i = 0; i < n; i++) room[i] = x[i * step];
  qsort(room, n, sizeof *room, by_value);
  return (room[(n - 1) / 2] + room[n / 2]) / 2;
}

static void print_step(const moecc_profile *p, FILE *f, size_t i, double ns) {
  const moecc_step *s = &p->steps[i];
  const moecc_step_sum *sum = &p->sum[i];
  const double runs = (double)p->done;
  fprintf(f, "step\t%zu\t%u\t%.17g\t%.1f\t%.1f\t%.1f\t%.1f\t%llu\t%llu\t%llu\t%s\t%s\t%s\t%s\t%s\n", i + 1, s->loop,
          (double)sum->calls / runs, ns, (double)sum->load / runs, (double)sum->loop / runs, (double)sum->share / runs,
          (unsigned long long)s->macs, (unsigned long long)s->bytes, (unsigned long long)s->weights, s->kernel, s->op,
          s->layer, s->node, s->shape);
}

void moecc_profile_print(const moecc_profile *p, FILE *f) {
  double *room = calloc(p->runs + 1, sizeof *room);
  size_t i, lost = 0;
  unsigned thread;
  if (!room) return;
  for (thread = 0; thread < p->trace.pool.threads; thread++) lost += p->trace.events[thread].lost;
  fprintf(f, "profile\t%u\t%zu\t%zu\n", p->trace.pool.threads, p->done, lost);
  fprintf(f, "call\t%.1f\n", median(p->call, p->done, 1, room));
  fprintf(f, "peak\t%.3f", median(p->peak, p->done, 1, room));
  fprintf(f, "\t%.3f\n", p->done > 0 ? room[p->done - 1] : 0.0);
  for (i = 0; i < p->n_steps && p->done > 0; i++)
    if (p->sum[i].calls > 0) print_step(p, f, i, median(p->ns + i, p->done, p->n_steps, room));
  free(room);
}

/* ---- trace-event JSON -------------------------------------------------------------------------------------------- */

enum { NETWORK = 1, WEIGHTS = 2 }; /* the two processes that viewers show */

typedef struct Writer {
  FILE *f;
  const moecc_profile *p;
  uint64_t zero; /* when the trace begins */
  size_t n;
  uint64_t read;    /* bytes so far */
  size_t end;       /* the caller's events */
  int several;      /* the call being written is of several tasks */
  uint64_t *tokens; /* room for a number for each expert */
  size_t experts;
} Writer;

static void begin_object(Writer *w) { fprintf(w->f, "%s\n", w->n++ > 0 ? "," : ""); }

/* Names may hold anything: a task has its own. */
static void write_text(Writer *w, const char *text) {
  fputc('"', w->f);
  for (; *text; text++)
    if ((unsigned char)*text < 32)
      fprintf(w->f, "\\u%04x", (unsigned)(unsigned char)*text);
    else
      fprintf(w->f, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
  fputc('"', w->f);
}

static double micros(const Writer *w, uint64_t time) { return (double)(time - w->zero) * 1e-3; }

/* A span, up to its arguments, which the caller adds and closes. */
static void begin_span(Writer *w, const char *name, const char *category, unsigned process, unsigned thread,
                       uint64_t begin, uint64_t end) {
  begin_object(w);
  fputs("{\"name\": ", w->f);
  write_text(w, name);
  fputs(", \"cat\": ", w->f);
  write_text(w, category);
  fprintf(w->f, ", \"ph\": \"X\", \"pid\": %u, \"tid\": %u, \"ts\": %.3f, \"dur\": %.3f, \"args\": {", process, thread,
          micros(w, begin), (double)(end - begin) * 1e-3);
}
static void end_span(Writer *w) { fputs("}}", w->f); }

static void write_counter(Writer *w, const char *name, unsigned process, const char *unit, uint64_t time,
                          uint64_t value) {
  begin_object(w);
  fprintf(w->f, "{\"name\": \"%s\", \"ph\": \"C\", \"pid\": %u, \"tid\": 0, \"ts\": %.3f, \"args\": {\"%s\": %llu}}",
          name, process, micros(w, time), unit, (unsigned long long)value);
}

static const moecc_step *step_of(const Writer *w, const moecc_event *e) {
  return e->number > 0 && e->number <= w->p->n_steps ? &w->p->steps[e->number - 1] : NULL;
}

/* ---- weights ---- */

/* The unit of an event that does not know it: some take knows. */
static const moecc_unit *unit_of(const Writer *w, const moecc_event *e) {
  const moecc_events *own = &w->p->trace.events[0];
  size_t i;
  if (e->what) return e->what;
  for (i = 0; i < own->n; i++)
    if (own->event[i].kind == MOECC_EVENT_TAKE && own->event[i].unit == e->unit) return own->event[i].what;
  return NULL;
}

/* A span named after the slot: "layer", or "experts[3]" where a unit has several. */
static void begin_slot(Writer *w, const moecc_event *e, const char *category, unsigned process, unsigned thread) {
  const moecc_unit *unit = unit_of(w, e);
  char name[256];
  if (unit && unit->name && unit->count > 1)
    (void)snprintf(name, sizeof name, "%s[%u]", unit->name, (unsigned)e->index);
  else if (unit && unit->name)
    (void)snprintf(name, sizeof name, "%s", unit->name);
  else
    (void)snprintf(name, sizeof name, "unit %u[%u]", (unsigned)e->unit, (unsigned)e->index);
  begin_span(w, name, category, process, thread, e->begin, e->end);
  fprintf(w->f, "\"step\": %u, \"unit\": %u, \"slot\": %u, \"slots\": %u, \"bytes\": %llu", (unsigned)e->number,
          (unsigned)e->unit, (unsigned)e->index, unit ? (unsigned)unit->count : 1u, (unsigned long long)e->bytes);
  if (e->buffer != MOECC_NO_BUFFER) fprintf(w->f, ", \"buffer\": %u", (unsigned)e->buffer);
}

/* When the slot was asked for: the last time before it was there. */
static uint64_t time_asked(const moecc_event *e, size_t i) {
  size_t k;
  for (k = i; k-- > 0;)
    if (e[k].kind == MOECC_EVENT_ASK && e[k].unit == e[i].unit && e[k].index == e[i].index) return e[k].begin;
  return e[i].begin;
}

static void write_load(Writer *w, const moecc_event *e, size_t i) {
  const uint64_t time = e[i].end - e[i].begin;
  begin_slot(w, &e[i], "load", WEIGHTS, e[i].buffer);
  fprintf(w->f, ", \"asked\": %.3f, \"MB/s\": %.1f", micros(w, time_asked(e, i)),
          (double)e[i].bytes * 1e3 / (double)(time > 0 ? time : 1));
  end_span(w);
  w->read += e[i].bytes;
  write_counter(w, "bytes read", WEIGHTS, "bytes", e[i].end, w->read);
}

/* Weights that are where they are needed are taken in no time: only what is read is of interest. */
static void write_weights(Writer *w, const moecc_event *e, size_t i) {
  switch (e[i].kind) {
  case MOECC_EVENT_LOAD: write_load(w, e, i); break;
  case MOECC_EVENT_TAKE:
    begin_slot(w, &e[i], "take", NETWORK, 0);
    end_span(w);
    break;
  case MOECC_EVENT_WAIT:
    begin_slot(w, &e[i], "stall", NETWORK, 0);
    end_span(w);
    break;
  default: break;
  }
}

/* What a call, event i, read, and how long it stood still. */
static void write_call(Writer *w, const moecc_event *e, size_t i) {
  uint64_t bytes = 0, stall = 0;
  size_t slots = 0, k;
  for (k = i; k-- > 0 && e[k].kind != MOECC_EVENT_CALL;) {
    if (e[k].begin < e[i].begin) continue;
    if (e[k].kind == MOECC_EVENT_LOAD) bytes += e[k].bytes, slots++;
    if (e[k].kind == MOECC_EVENT_WAIT) stall += e[k].end - e[k].begin;
  }
  begin_span(w, e[i].what ? (const char *)e[i].what : "call", "call", NETWORK, 0, e[i].begin, e[i].end);
  fprintf(w->f, "\"slots_read\": %llu, \"bytes_read\": %llu, \"stall_us\": %.3f", (unsigned long long)slots,
          (unsigned long long)bytes, (double)stall * 1e-3);
  end_span(w);
}

/* ---- steps and what they belong to ---- */

/* A call's layer, loop and task of a step: in a call of several tasks those that all of them have in common. */
static const char *layer_of(const Writer *w, const moecc_step *s) {
  return w->several && *s->together ? s->together : s->layer;
}
static uint32_t loop_of(const Writer *w, const moecc_step *s) { return w->several ? s->common_loop : s->loop; }
static const char *task_of(const Writer *w, const moecc_step *s) { return w->several ? s->task : ""; }

/* Do steps that follow one another belong together? */
static int same_layer(const Writer *w, const moecc_step *a, const moecc_step *b) {
  return strcmp(layer_of(w, a), layer_of(w, b)) == 0;
}
static int same_loop(const Writer *w, const moecc_step *a, const moecc_step *b) {
  return loop_of(w, a) == loop_of(w, b);
}
static int same_task(const Writer *w, const moecc_step *a, const moecc_step *b) {
  return same_layer(w, a, b) && strcmp(task_of(w, a), task_of(w, b)) == 0;
}

/* The last step of those from step i of a call on that belong with it. */
static size_t end_of_run(const Writer *w, const moecc_event *e, size_t i,
                         int (*same)(const Writer *, const moecc_step *, const moecc_step *)) {
  const moecc_step *first = step_of(w, &e[i]);
  size_t last = i;
  for (; i < w->end && e[i].kind != MOECC_EVENT_CALL; i++) {
    if (e[i].kind != MOECC_EVENT_STEP) continue;
    if (!same(w, first, step_of(w, &e[i]))) break;
    last = i;
  }
  return last;
}

/* Is it the step of the loop itself, in which slots are taken? */
static int is_loop_step(const Writer *w, const moecc_event *e) {
  return e->kind == MOECC_EVENT_STEP && e->number == step_of(w, e)->loop;
}

/* The mark of the expert that begins with step i of a loop, or NULL: within an expert the loop's step comes round for
 * each of its units. What is recorded while a step is under way stands before it, so this does before the next one. */
static const moecc_event *expert_of(const Writer *w, const moecc_event *e, size_t i) {
  if (!is_loop_step(w, &e[i])) return NULL;
  for (i++; i < w->end && e[i].kind != MOECC_EVENT_STEP && e[i].kind != MOECC_EVENT_CALL; i++)
    if (e[i].kind == MOECC_EVENT_EXPERT) return &e[i];
  return NULL;
}

/* An expert's steps end where those of another begin. */
static size_t end_of_expert(const Writer *w, const moecc_event *e, size_t i, size_t last) {
  size_t end = i;
  for (; i <= last; i++) {
    if (e[i].kind != MOECC_EVENT_STEP) continue;
    if (end != i && expert_of(w, e, i)) break;
    end = i;
  }
  return end;
}

/* How many experts there are: slots of a unit that is taken in the loop that begins with step i. */
static unsigned experts_of_loop(const moecc_event *e, size_t i, size_t last) {
  while (i > 0 && e[i - 1].kind != MOECC_EVENT_STEP && e[i - 1].kind != MOECC_EVENT_CALL) i--;
  for (; i <= last; i++)
    if (e[i].kind == MOECC_EVENT_TAKE && e[i].what) return (unsigned)((const moecc_unit *)e[i].what)->count;
  return 0;
}

/* Is it an expert's mark, and of this task (NULL: of any)? */
static int is_mark(const Writer *w, const moecc_event *e, const char *task) {
  return e->kind == MOECC_EVENT_EXPERT && step_of(w, e) && (!task || strcmp(task_of(w, step_of(w, e)), task) == 0);
}

/* {"expert": tokens, …} of the marks from i to last that are a task's (NULL: of all); returns how many. */
static unsigned write_queues(Writer *w, const moecc_event *e, size_t i, size_t last, const char *task) {
  const char *separator = "";
  unsigned used = 0;
  size_t k;
  memset(w->tokens, 0, w->experts * sizeof *w->tokens);
  for (; i <= last; i++)
    if (is_mark(w, &e[i], task)) w->tokens[e[i].index] += e[i].count;
  fputc('{', w->f);
  for (k = 0; k < w->experts; k++) {
    if (!w->tokens[k]) continue;
    fprintf(w->f, "%s\"%u\": %llu", separator, (unsigned)k, (unsigned long long)w->tokens[k]);
    separator = ", ";
    used++;
  }
  fputc('}', w->f);
  return used;
}

/* Tokens of the marks from i to last that are a task's (NULL: of all). */
static unsigned long long tokens_of(const Writer *w, const moecc_event *e, size_t i, size_t last, const char *task) {
  unsigned long long tokens = 0;
  for (; i <= last; i++)
    if (is_mark(w, &e[i], task)) tokens += e[i].count;
  return tokens;
}

/* Of a loop that tasks go through together, what each has of the steps i to last, the first of which an expert begins
 * with: its queues, or, of one expert, tokens. */
static void write_queues_by_task(Writer *w, const moecc_event *e, size_t i, size_t last, int one_expert) {
  const char *separator = "";
  const moecc_event *mark = expert_of(w, e, i);
  size_t k, before;
  if (!mark || *task_of(w, step_of(w, &e[i])) || !*task_of(w, step_of(w, mark))) return;
  fputs(", \"tokens_by_task\": {", w->f);
  for (k = i; k <= last; k++) {
    const char *task;
    if (!is_mark(w, &e[k], NULL)) continue;
    task = task_of(w, step_of(w, &e[k]));
    for (before = i; !is_mark(w, &e[before], task);) before++;
    if (before < k) continue; /* it has been written */
    fputs(separator, w->f);
    write_text(w, task);
    fputs(": ", w->f);
    if (one_expert)
      fprintf(w->f, "%llu", tokens_of(w, e, i, last, task));
    else
      (void)write_queues(w, e, i, last, task);
    separator = ", ";
  }
  fputc('}', w->f);
}

static void write_task_of(Writer *w, const moecc_step *s) {
  if (!*task_of(w, s)) return;
  fputs(", \"task\": ", w->f);
  write_text(w, task_of(w, s));
}

/* The experts that had tokens, each with its queue's length. */
static void write_loop(Writer *w, const moecc_event *e, size_t i, size_t last) {
  const moecc_step *s = step_of(w, &e[i]);
  unsigned used;
  begin_span(w, "experts", "experts", NETWORK, 0, e[i].begin, e[last].end);
  fprintf(w->f, "\"step\": %u, \"layer\": \"%s\", \"experts\": %u, \"tokens\": ", (unsigned)e[i].number, layer_of(w, s),
          experts_of_loop(e, i, last));
  used = write_queues(w, e, i, last, NULL);
  fprintf(w->f, ", \"experts_used\": %u", used);
  write_task_of(w, s);
  write_queues_by_task(w, e, i, last, 0);
  end_span(w);
  write_counter(w, "expert's queue", NETWORK, "tokens", e[last].end, 0);
}

/* The expert that begins with step i. */
static void write_expert(Writer *w, const moecc_event *e, size_t i, size_t last) {
  const moecc_event *mark = expert_of(w, e, i);
  const size_t end = end_of_expert(w, e, i, last);
  const unsigned long long tokens = tokens_of(w, e, i, end, NULL);
  char name[32];
  (void)snprintf(name, sizeof name, "expert %u", (unsigned)mark->index);
  begin_span(w, name, "expert", NETWORK, 0, e[i].begin, e[end].end);
  fprintf(w->f, "\"expert\": %u, \"tokens\": %llu", (unsigned)mark->index, tokens);
  write_queues_by_task(w, e, i, end, 1);
  end_span(w);
  write_counter(w, "expert's queue", NETWORK, "tokens", e[i].begin, tokens);
}

static void write_step(Writer *w, const moecc_event *e) {
  const moecc_step *s = step_of(w, e);
  if (!s) return;
  begin_span(w, s->kernel, s->op, NETWORK, 0, e->begin, e->end);
  fprintf(w->f,
          "\"step\": %u, \"node\": \"%s\", \"shape\": \"%s\", \"macs\": %llu, \"bytes\": %llu, \"weight_bytes\": %llu",
          (unsigned)e->number, s->node, s->shape, (unsigned long long)s->macs, (unsigned long long)s->bytes,
          (unsigned long long)s->weights);
  write_task_of(w, s);
  end_span(w);
}

static void write_run(Writer *w, const moecc_event *e, size_t i, size_t last, const char *name, const char *kind) {
  begin_span(w, name, kind, NETWORK, 0, e[i].begin, e[last].end);
  end_span(w);
}

/* What begins with step i, which the spans before may have reached: layer, task, expert loop, expert. */
typedef struct Reached {
  size_t layer, task, loop; /* 1 + the last step of each */
} Reached;

static void write_around(Writer *w, const moecc_event *e, size_t i, Reached *r) {
  const moecc_step *s = step_of(w, &e[i]);
  if (i >= r->layer) {
    r->layer = end_of_run(w, e, i, same_layer) + 1;
    write_run(w, e, i, r->layer - 1, *layer_of(w, s) ? layer_of(w, s) : "(no layer)", "layer");
  }
  if (i >= r->task) {
    r->task = end_of_run(w, e, i, same_task) + 1;
    if (*task_of(w, s)) write_run(w, e, i, r->task - 1, task_of(w, s), "task");
  }
  if (s->loop > 0 && i >= r->loop) {
    r->loop = end_of_run(w, e, i, same_loop) + 1;
    write_loop(w, e, i, r->loop - 1);
  }
  if (s->loop > 0 && expert_of(w, e, i)) write_expert(w, e, i, r->loop - 1);
}

/* Do steps of more than one task occur in the call that event i belongs to? */
static int has_several(const Writer *w, const moecc_event *e, size_t i) {
  const char *task = "";
  for (; i < w->end && e[i].kind != MOECC_EVENT_CALL; i++) {
    const moecc_step *s = e[i].kind == MOECC_EVENT_STEP ? step_of(w, &e[i]) : NULL;
    if (!s || !*s->task) continue;
    if (*task && strcmp(task, s->task) != 0) return 1;
    task = s->task;
  }
  return 0;
}

static void write_caller(Writer *w, const moecc_event *e) {
  Reached reached = {0, 0, 0};
  size_t i;
  w->several = has_several(w, e, 0);
  for (i = 0; i < w->end; i++) {
    write_weights(w, e, i);
    if (e[i].kind == MOECC_EVENT_CALL) {
      write_call(w, e, i);
      w->several = has_several(w, e, i + 1);
    } else if (e[i].kind == MOECC_EVENT_STEP && step_of(w, &e[i])) {
      write_around(w, e, i, &reached);
      write_step(w, &e[i]);
    }
  }
}

static void write_shares(Writer *w, unsigned thread) {
  const moecc_events *list = &w->p->trace.events[thread];
  size_t i;
  for (i = 0; i < list->n; i++) {
    const moecc_event *e = &list->event[i];
    const moecc_step *s = step_of(w, e);
    if (e->kind != MOECC_EVENT_SHARE || !s) continue;
    begin_span(w, s->kernel, "share", NETWORK, thread, e->begin, e->end);
    fprintf(w->f, "\"step\": %u, \"first\": %u, \"items\": %u", (unsigned)e->number, (unsigned)e->index,
            (unsigned)e->count);
    end_span(w);
  }
}

static void write_name(Writer *w, const char *what, unsigned process, unsigned thread, const char *name) {
  begin_object(w);
  fprintf(w->f, "{\"name\": \"%s\", \"ph\": \"M\", \"pid\": %u, \"tid\": %u, \"args\": {\"name\": \"%s\"}}", what,
          process, thread, name);
}

/* The tracks: threads, and where weights go. */
static void write_names(Writer *w) {
  static const char *const place[] = {"buffer 0", "buffer 1", "resident"};
  const moecc_events *own = &w->p->trace.events[0];
  int seen[3] = {0, 0, 0};
  char name[32];
  unsigned i;
  size_t k;
  for (k = 0; k < own->n; k++)
    if (own->event[k].kind == MOECC_EVENT_LOAD) seen[own->event[k].buffer] = 1;
  write_name(w, "process_name", NETWORK, 0, "network");
  for (i = 0; i < w->p->trace.pool.threads; i++) {
    (void)snprintf(name, sizeof name, i > 0 ? "worker %u" : "caller, %u", i);
    write_name(w, "thread_name", NETWORK, i, name);
  }
  if (seen[0] || seen[1] || seen[2]) write_name(w, "process_name", WEIGHTS, 0, "weights");
  for (i = 0; i < 3; i++)
    if (seen[i]) write_name(w, "thread_name", WEIGHTS, i, place[i]);
}

static void write_all(Writer *w) {
  const moecc_profile *p = w->p;
  const moecc_events *own = &p->trace.events[0];
  unsigned thread;
  size_t i, lost = 0;
  for (i = 0; i < own->n; i++)
    if (own->event[i].begin < w->zero) w->zero = own->event[i].begin;
  for (thread = 0; thread < p->trace.pool.threads; thread++) lost += p->trace.events[thread].lost;
  fprintf(w->f, "{\"otherData\": {\"format\": \"moecc trace 1\", \"lost_events\": %llu},\n", (unsigned long long)lost);
  fputs("\"displayTimeUnit\": \"ns\", \"traceEvents\": [", w->f);
  write_names(w);
  write_caller(w, own->event);
  for (thread = 0; thread < p->trace.pool.threads; thread++) write_shares(w, thread);
  fputs("\n]}\n", w->f);
}

int moecc_profile_write(const moecc_profile *p, const char *path) {
  Writer w = {NULL, NULL, UINT64_MAX, 0, 0, 0, 0, NULL, 0};
  const moecc_events *own = &p->trace.events[0];
  size_t i;
  int failed;
  w.p = p;
  w.end = own->n;
  for (i = 0; i < own->n; i++)
    if (own->event[i].kind == MOECC_EVENT_EXPERT && own->event[i].index >= w.experts)
      w.experts = (size_t)own->event[i].index + 1;
  w.tokens = calloc(w.experts + 1, sizeof *w.tokens);
  w.f = w.tokens ? fopen(path, "w") : NULL;
  if (!w.f) {
    free(w.tokens);
    return 0;
  }
  write_all(&w);
  failed = ferror(w.f);
  free(w.tokens);
  return fclose(w.f) == 0 && !failed;
}

#else

/* Without MOECC_TRACE there is nothing here. */
typedef int moecc_profile_is_not_built;

#endif
