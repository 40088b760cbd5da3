/* The page of a trace: sums, a table of layers and an overview, all of which need no script, and the spans as numbers,
 * which the page's own script (timeline.html) draws and enlarges. Nothing in it comes from a network.
 */
#include "cli/timeline.h"

#include "cli/page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of the time in which slots were under way, what the caller did not stand still for. */
static const char *hidden_text(Ctx *c, const TraceSum *s) {
  if (s->load_time <= 0) return "";
  return ctx_format(c, "%.0f %%", 100 * fmax(0, 1 - s->stall_time / s->load_time));
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

enum { MOST_BARS = 4096, CHART = 22 };

/* " (left 3, right 4)": an expert's tokens by task, of a loop that several go through together. */
static void add_tasks(Text *t, const TraceSpan *loop, const char *expert) {
  const Json *by_task = json_member(loop->args, "tokens_by_task");
  const char *separator = " (";
  for (const Json *task = by_task ? by_task->first : NULL; task; task = task->next) {
    const double tokens = json_member_number(task, expert, 0);
    if (!(tokens > 0)) continue;
    text_add(t, "%s", separator);
    page_text(t, task->key);
    text_add(t, " %.0f", tokens);
    separator = ", ";
  }
  if (*separator == ',') text_add(t, ")");
}

/* A bar for each expert, as high as its queue is long. */
static void add_queues(Text *t, const TraceSpan *loop) {
  const Json *tokens = json_member(loop->args, "tokens");
  const int experts = (int)fmin(fmax(json_member_number(loop->args, "experts", 0), 0), MOST_BARS);
  const int width = experts > 256 ? 1 : experts > 64 ? 3 : 7;
  double most = 1, least = -1;
  for (const Json *q = tokens ? tokens->first : NULL; q; q = q->next) {
    most = fmax(most, q->number);
    least = least < 0 ? q->number : fmin(least, q->number);
  }
  text_add(t, "<svg class=\"queues\" width=\"%d\" height=\"%d\"><path d=\"", experts * width + 1, CHART);
  for (const Json *q = tokens ? tokens->first : NULL; q; q = q->next) {
    const double expert = strtod(q->key, NULL), height = ceil((CHART - 2) * q->number / most);
    if (!(expert >= 0 && expert < experts)) continue;
    text_add(t, "M%.0f %dv-%.0fh%dv%.0fz", expert * width, CHART - 1, height, width > 2 ? width - 1 : width, height);
  }
  text_add(t, "\"/><title>");
  for (const Json *q = tokens ? tokens->first : NULL; q; q = q->next) {
    page_text(t, q->key);
    text_add(t, ": %.0f", q->number);
    add_tasks(t, loop, q->key);
    text_add(t, "%s", q->next ? ", " : "");
  }
  text_add(t, "</title></svg> %.0f", fmax(least, 0));
  if (most > least) text_add(t, " – %.0f", most);
}

/* Expert loops, one below the other: where tasks have experts of their own, each task's. */
static void add_loops(Text *t, const TraceSum *s) {
  text_add(t, "<td>");
  for (size_t i = 0; i < s->loops; i++) {
    const char *task = json_member_text(s->loop[i]->args, "task", "");
    text_add(t, "<div>");
    page_text(t, task);
    text_add(t, "%s%.0f of %.0f</div>", *task ? ": " : "", json_member_number(s->loop[i]->args, "experts_used", 0),
             json_member_number(s->loop[i]->args, "experts", 0));
  }
  text_add(t, "</td><td class=\"left\">");
  for (size_t i = 0; i < s->loops; i++) {
    text_add(t, "<div>");
    add_queues(t, s->loop[i]);
    text_add(t, "</div>");
  }
  text_add(t, "</td>");
}

static void add_row(Text *t, const TraceSum *s, bool call) {
  Ctx *c = t->ctx;
  text_add(t, "<tr%s data-begin=\"%.3f\" data-end=\"%.3f\"><td>", call ? " class=\"call\"" : "", s->span->begin,
           s->span->end);
  page_text(t, s->span->name);
  text_add(t, "</td><td>%s</td>", time_text(c, s->span->end - s->span->begin));
  add_loops(t, s);
  text_add(t, "<td>%s</td><td>%s</td><td>%s</td><td%s>%s</td><td>%s</td></tr>\n",
           s->loads > 0 ? ctx_format(c, "%.0f", s->loads) : "", s->loads > 0 ? bytes_text(c, s->bytes) : "",
           s->loads > 0 ? time_text(c, s->load_time) : "", s->stall_time > 0 ? " class=\"stall\"" : "",
           s->loads > 0 ? time_text(c, s->stall_time) : "", hidden_text(c, s));
}

static void add_table(Text *t, const TraceSum *sum, size_t n) {
  for (size_t i = 0; i < n; i++) {
    TraceSum s = sum[i];
    bool call = strcmp(s.span->kind, "call") == 0;
    if (call) s.loops = 0; /* the layers' rows say it */
    add_row(t, &s, call);
  }
}

/* ---- rows of the drawing ----------------------------------------------------------------------------------------- */

typedef enum {
  ROW_CALL,
  ROW_LAYER,
  ROW_LOOP,
  ROW_EXPERT,
  ROW_TASK,
  ROW_KERNEL,
  ROW_STALL,
  ROW_BUFFER,
  ROW_WORKER = 10
} Row;
enum { MOST_THREADS = 64, ROWS = ROW_WORKER + MOST_THREADS };

/* The row of a span; -1: it is not drawn. */
static int row_of(const TraceSpan *s) {
  static const struct {
    const char *kind;
    int row;
  } rows[] = {{"call", ROW_CALL},     {"layer", ROW_LAYER}, {"experts", ROW_LOOP},
              {"expert", ROW_EXPERT}, {"task", ROW_TASK},   {"stall", ROW_STALL},
              {"take", -1},           {"share", -1},        {"load", -1}};
  if (s->process == TRACE_WEIGHTS) return s->thread < TRACE_PLACES ? ROW_BUFFER + s->thread : -1;
  if (s->thread > 0) return s->thread < MOST_THREADS ? ROW_WORKER + s->thread : -1;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (strcmp(rows[i].kind, s->kind) == 0) return rows[i].row;
  return ROW_KERNEL;
}

static const char *row_name(Ctx *c, int row) {
  static const char *const names[] = {"call",   "layer",          "expert loop", "expert",   "task",
                                      "kernel", "standing still", "buffer 0",    "buffer 1", "resident"};
  return row < ROW_WORKER ? names[row] : ctx_format(c, "worker %d", row - ROW_WORKER);
}

/* ---- the overview ------------------------------------------------------------------------------------------------ */

enum { BINS = 1000, LANE = 16, OVERVIEW_ROWS = 4 };

/* Where something of a row is, in parts of the whole: one path of rectangles. */
static void add_lane(const Trace *t, Text *out, int row, int lane) {
  bool bin[BINS + 1] = {false};
  const double scale = t->end > 0 ? (double)BINS / t->end : 0;
  for (size_t i = 0; i < t->n; i++) {
    const TraceSpan *s = &t->span[i];
    if (row_of(s) != row) continue;
    int last = (int)fmin(ceil(s->end * scale), BINS);
    for (int b = (int)(s->busy * scale); b < last; b++) bin[b] = true;
  }
  text_add(out, "<g><title>%s</title><path class=\"r%d\" d=\"", row_name(t->ctx, row), row);
  for (int b = 0, from = 0; b <= BINS; b++) {
    if (b < BINS && bin[b]) continue;
    if (from < b) text_add(out, "M%d %dh%dv%dh-%dz", from, lane * LANE + 1, b - from, LANE - 2, b - from);
    from = b + 1;
  }
  text_add(out, "\"/></g>\n");
}

static void add_overview(const Trace *t, Text *out) {
  static const int rows[OVERVIEW_ROWS] = {ROW_KERNEL, ROW_STALL, ROW_BUFFER, ROW_BUFFER + 1};
  static const char *const names[OVERVIEW_ROWS] = {"kernels", "stalls", "buffer 0", "buffer 1"};
  text_add(out, "<svg id=\"overview\" viewBox=\"-80 0 %d %d\">\n", BINS + 80, OVERVIEW_ROWS * LANE);
  for (int i = 0; i < OVERVIEW_ROWS; i++) {
    text_add(out, "<text x=\"-6\" y=\"%d\">%s</text>", i * LANE + LANE - 4, names[i]);
    add_lane(t, out, rows[i], i);
  }
  text_add(out, "<rect id=\"part\" x=\"0\" y=\"0\" width=\"%d\" height=\"%d\"/></svg>", BINS, OVERVIEW_ROWS * LANE);
}

/* ---- spans as numbers -------------------------------------------------------------------------------------------- */

/* Texts, each once. */
typedef struct {
  Ctx *ctx;
  const char **text;
  size_t n, cap;
  size_t *slot, slots; /* 1 + index, by hash */
} Pool;

static void pool_grow(Pool *p) {
  p->slots = p->slots ? 2 * p->slots : 256;
  p->slot = ctx_array(p->ctx, p->slots, sizeof *p->slot);
  for (size_t i = 0; i < p->n; i++) {
    size_t at = hash_bytes(p->text[i], strlen(p->text[i]), 0) & (p->slots - 1);
    while (p->slot[at]) at = (at + 1) & (p->slots - 1);
    p->slot[at] = i + 1;
  }
}

static size_t pool_index(Pool *p, const char *text) {
  if (2 * p->n >= p->slots) pool_grow(p);
  size_t at = hash_bytes(text, strlen(text), 0) & (p->slots - 1);
  for (; p->slot[at]; at = (at + 1) & (p->slots - 1))
    if (strcmp(p->text[p->slot[at] - 1], text) == 0) return p->slot[at] - 1;
  p->text = ctx_grow(p->ctx, p->text, p->n, &p->cap, sizeof *p->text);
  p->text[p->n] = text;
  p->slot[at] = ++p->n;
  return p->n - 1;
}

/* "7 tokens: left 3, right 4" */
static const char *expert_note(Ctx *c, const Json *a) {
  const Json *by_task = json_member(a, "tokens_by_task");
  const char *text = ctx_format(c, "%.0f tokens", json_member_number(a, "tokens", 0));
  for (const Json *task = by_task ? by_task->first : NULL; task; task = task->next)
    text = ctx_format(c, "%s%s %s %.0f", text, task == by_task->first ? ":" : ",", task->key, task->number);
  return text;
}

/* What the page says of a span besides its name and time. */
static const char *note(Ctx *c, const TraceSpan *s, int row) {
  const Json *a = s->args;
  if (row >= ROW_BUFFER && row < ROW_WORKER)
    return ctx_format(c, "%s, %.0f MB/s, asked for %s before", bytes_text(c, json_member_number(a, "bytes", 0)),
                      json_member_number(a, "MB/s", 0),
                      time_text(c, s->begin - json_member_number(a, "asked", s->begin)));
  if (row == ROW_EXPERT) return expert_note(c, a);
  if (row == ROW_LOOP)
    return ctx_format(c, "%s%s%.0f of %.0f experts", json_member_text(a, "task", ""),
                      *json_member_text(a, "task", "") ? ": " : "", json_member_number(a, "experts_used", 0),
                      json_member_number(a, "experts", 0));
  if (row == ROW_CALL)
    return ctx_format(c, "%.0f slots read, %s; %s standing still", json_member_number(a, "slots_read", 0),
                      bytes_text(c, json_member_number(a, "bytes_read", 0)),
                      time_text(c, json_member_number(a, "stall_us", 0)));
  if (row == ROW_KERNEL)
    return ctx_format(c, "%s %s  %s%s%s", s->kind, json_member_text(a, "node", ""), json_member_text(a, "shape", ""),
                      *json_member_text(a, "task", "") ? "  " : "", json_member_text(a, "task", ""));
  return "";
}

/* Spans of one expert have one colour, whether it is loaded or computed: 1 + expert; other weights 0. */
static double colour(const TraceSpan *s, int row) {
  if (row == ROW_EXPERT) return 1 + json_member_number(s->args, "expert", 0);
  bool many = json_member_number(s->args, "slots", 1) > 1;
  return row >= ROW_STALL && row < ROW_WORKER && many ? 1 + json_member_number(s->args, "slot", 0) : 0;
}

static void add_texts(Text *t, const char *key, const Pool *p) {
  text_add(t, "\"%s\":[", key);
  for (size_t i = 0; i < p->n; i++) {
    text_add(t, i ? "," : "");
    page_json(t, p->text[i]);
  }
  text_add(t, "],\n");
}

/* {"end", "rows": [[number, name]], "names", "notes", "spans": row, begin and length in ns, name, note, colour, …}, the
 * spans of a row by begin. */
static void add_data(const Trace *t, Text *out) {
  Pool names = {.ctx = t->ctx}, notes = {.ctx = t->ctx};
  Text spans = {.ctx = t->ctx}, rows = {.ctx = t->ctx};
  bool seen[ROWS] = {false};
  text_add(&spans, "\"spans\":[");
  const char *separator = "";
  for (size_t i = 0; i < t->n; i++) {
    const TraceSpan *s = &t->span[i];
    const int row = row_of(s);
    if (row < 0) continue;
    seen[row] = true;
    text_add(&spans, "%s%d,%.0f,%.0f,%zu,%zu,%.0f", separator, row, s->busy * 1e3, (s->end - s->busy) * 1e3,
             pool_index(&names, s->name), pool_index(&notes, note(t->ctx, s, row)), colour(s, row));
    separator = ",\n";
  }
  separator = "";
  for (int row = 0; row < ROWS; row++) {
    if (!seen[row]) continue;
    text_add(&rows, "%s[%d,", separator, row);
    page_json(&rows, row_name(t->ctx, row));
    text_add(&rows, "]");
    separator = ",";
  }
  text_add(out, "{\"end\":%.0f,\"rows\":[%s],\n", t->end * 1e3, rows.text ? rows.text : "");
  add_texts(out, "names", &names);
  add_texts(out, "notes", &notes);
  text_add(out, "%s]}", spans.text);
}

/* ---- the page ---------------------------------------------------------------------------------------------------- */

typedef struct {
  const Trace *trace;
  const char *title;
  const TraceSum *sum;
  size_t n;
} Page;

static void fill_hole(void *self, Text *t, const char *hole) {
  const Page *p = self;
  if (strcmp(hole, "TITLE") == 0) page_text(t, p->title);
  if (strcmp(hole, "TABLE") == 0) add_table(t, p->sum, p->n);
  if (strcmp(hole, "OVERVIEW") == 0) add_overview(p->trace, t);
  if (strcmp(hole, "DATA") == 0) add_data(p->trace, t);
  if (strcmp(hole, "LOST") == 0 && p->trace->lost > 0)
    text_add(t, "<p class=\"stall\">%.0f events found no room and are missing.</p>", p->trace->lost);
}

const char *timeline_page(const Trace *trace, const char *title) {
  Page p = {.trace = trace, .title = title};
  p.sum = trace_sums(trace, &p.n);
  return page_make(trace->ctx, "compiler/cli/timeline.html", fill_hole, &p);
}
