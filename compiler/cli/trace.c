/* Reads a trace and sums up, by layer and by call, what was loaded and how long the caller stood still for it. */
#include "cli/timeline.h"

#include "io/io.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int by_begin(const void *a, const void *b) {
  const TraceSpan *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return (x->end < y->end) - (x->end > y->end);
}

static void add_span(Trace *t, const Json *e) {
  const double begin = json_member_number(e, "ts", -1), time = json_member_number(e, "dur", -1);
  if (!(begin >= 0) || !(time >= 0) || !(begin + time < 1e15)) return;
  t->span = ctx_grow(t->ctx, t->span, t->n, &t->cap, sizeof *t->span);
  t->span[t->n++] =
      (TraceSpan){.name = json_member_text(e, "name", ""),
                  .kind = json_member_text(e, "cat", ""),
                  .begin = begin,
                  .end = begin + time,
                  .busy = begin,
                  .process = json_member_number(e, "pid", 0) == (double)TRACE_WEIGHTS ? TRACE_WEIGHTS : TRACE_NETWORK,
                  .thread = (int)fmin(fmax(json_member_number(e, "tid", 0), 0), 1 << 20),
                  .args = json_member(e, "args")};
  if (begin + time > t->end) t->end = begin + time;
}

static bool is(const TraceSpan *s, const char *kind) { return strcmp(s->kind, kind) == 0; }

/* The step under way when weights are taken computes once it has them. */
static void find_busy(Trace *t) {
  TraceSpan *step = NULL;
  for (size_t i = 0; i < t->n; i++) {
    TraceSpan *s = &t->span[i];
    if (s->process == TRACE_NETWORK && s->thread == 0 && json_member(s->args, "node")) step = s;
    if (is(s, "take") && step && step->busy <= s->begin && s->end <= step->end) step->busy = s->end;
  }
}

Trace trace_read(Ctx *c, const char *path) {
  size_t bytes;
  char *text = text_file_read(c, path, &bytes);
  const Json *all = json_read(c, text, bytes), *other = json_member(all, "otherData");
  const Json *events = json_member(all, "traceEvents");
  Trace t = {.ctx = c, .lost = json_member_number(other, "lost_events", 0)};
  if (strncmp(json_member_text(other, "format", ""), "moecc trace ", 12) != 0 || !events || events->kind != JSON_ARRAY)
    ctx_fail(c, NULL, "this is no trace that moecc run --trace wrote");
  for (const Json *e = events->first; e; e = e->next)
    if (strcmp(json_member_text(e, "ph", ""), "X") == 0) add_span(&t, e);
  if (!t.n) ctx_fail(c, NULL, "nothing is in this trace");
  qsort(t.span, t.n, sizeof *t.span, by_begin);
  find_busy(&t);
  return t;
}

static bool same_slot(const TraceSpan *a, const TraceSpan *b) {
  static const char *const keys[] = {"unit", "slot"};
  for (int i = 0; i < 2; i++)
    if (json_member_number(a->args, keys[i], -1) != json_member_number(b->args, keys[i], -2)) return false;
  return true;
}

/* What the layer or call is the first to take counts for it; taken[i]: the load with which span i, a take, was served. */
static TraceSum sum_of(const Trace *t, size_t i, const size_t *taken) {
  TraceSum sum = {.span = &t->span[i]};
  for (size_t k = i + 1; k < t->n && t->span[k].begin < sum.span->end; k++) {
    const TraceSpan *s = &t->span[k];
    if (is(s, "stall")) sum.stall_time += s->end - s->begin;
    if (is(s, "experts")) {
      sum.loop = ctx_grow(t->ctx, sum.loop, sum.loops, &sum.cap_loops, sizeof *sum.loop);
      sum.loop[sum.loops++] = s;
    }
    if (!taken[k]) continue;
    const TraceSpan *load = &t->span[taken[k] - 1];
    sum.loads++;
    sum.bytes += json_member_number(load->args, "bytes", 0);
    sum.load_time += load->end - load->begin;
  }
  return sum;
}

typedef struct {
  const TraceSpan *span;
  double end;
} Ending;

static int by_end(const void *a, const void *b) {
  const Ending *x = a, *y = b;
  if (x->end != y->end) return x->end < y->end ? -1 : 1;
  return (x->span > y->span) - (x->span < y->span);
}

/* By span: 1 + the load that brought what it takes, if it is the first to take it. A buffer holds what came last. */
static size_t *match_loads(const Trace *t) {
  size_t *taken = ctx_array(t->ctx, t->n, sizeof *taken), last[2] = {0, 0}, n = 0;
  Ending *ending = ctx_array(t->ctx, t->n, sizeof *ending);
  for (size_t i = 0; i < t->n; i++)
    if (is(&t->span[i], "load") || is(&t->span[i], "take")) ending[n++] = (Ending){&t->span[i], t->span[i].end};
  qsort(ending, n, sizeof *ending, by_end);
  for (size_t i = 0; i < n; i++) {
    const TraceSpan *s = ending[i].span;
    const double buffer = json_member_number(s->args, "buffer", -1);
    if (buffer != 0 && buffer != 1) continue;
    size_t *held = &last[buffer == 1];
    if (is(s, "load")) {
      *held = (size_t)(s - t->span) + 1;
    } else if (*held && same_slot(s, &t->span[*held - 1])) {
      taken[s - t->span] = *held;
      *held = 0;
    }
  }
  return taken;
}

TraceSum *trace_sums(const Trace *t, size_t *n) {
  TraceSum *sum = NULL;
  size_t cap = 0, *taken = match_loads(t);
  *n = 0;
  for (size_t i = 0; i < t->n; i++) {
    if (!is(&t->span[i], "call") && !is(&t->span[i], "layer")) continue;
    sum = ctx_grow(t->ctx, sum, *n, &cap, sizeof *sum);
    sum[(*n)++] = sum_of(t, i, taken);
  }
  return sum;
}
