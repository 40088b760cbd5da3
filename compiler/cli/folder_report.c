/* inspect DIR: what a compiled folder's report.json says of memory, stack and reads, without its schedule. */
#include "cli/inspect.h"
#include "cli/page.h"
#include "engine/engine.h"
#include "io/io.h"

#include <string.h>

/* Where a task's figures are in its object; also in that of all tasks in one call, unless single. */
typedef struct {
  const char *group, *key;     /* group NULL: in the object itself */
  const char *title, *meaning; /* of the column; NULL: only for programs */
  bool streaming, count, single;
} Figure;

static const Figure figures[] = {
    {NULL, "macs", NULL, NULL, false, true, true},
    {NULL, "weight_bytes", "weights", "what the task needs of the pack", false, false, true},
    {"ram", "arena", "arena", "values, known when compiling", false, false, false},
    {"ram", "scratch_per_thread", "scratch", "what each thread has for itself, behind the arena", false, false, false},
    {"ram", "stream_buffers", "buffers", "both of those that weights come through", true, false, false},
    {"ram", "resident", "resident", "weights that stay in memory from init on", true, false, false},
    {"ram", "one_thread", NULL, NULL, false, false, false},
    {"ram", "one_thread_streaming", "in all", "what init wants for one thread: arena, scratch, buffers, resident", true,
     false, false},
    {"reads_worst_case", "bytes", "read", "bytes of weights that a call reads, at most", true, false, false},
    {"reads_worst_case", "slots", "reads", "in how many pieces, at most", true, true, false},
    {NULL, "queue_bytes", NULL, NULL, false, false, false},
    {"stack", "caller", "stack", "of the thread that calls, at most, in builds with optimisation", false, false, false},
    {"stack", "worker", NULL, NULL, false, false, false},
};
enum { FIGURES = sizeof figures / sizeof *figures, COLUMN = 10 };

static double number(Ctx *c, const Json *object, const char *group, const char *key) {
  const Json *in = group ? json_member(object, group) : object, *found = in ? json_member(in, key) : NULL;
  if (!found || found->kind != JSON_NUMBER)
    ctx_fail(c, NULL, "its report.json lacks \"%s\": was it compiled by another version of moecc?", key);
  return found->number;
}

const Json *folder_report_read(Ctx *c, const char *folder) {
  size_t bytes;
  (void)folder_network(c, folder); /* it is one */
  char *text = text_file_read(c, ctx_format(c, "%s/report.json", folder), &bytes);
  const Json *report = json_read(c, text, bytes), *tasks = json_member(report, "tasks");
  if (!tasks || tasks->kind != JSON_ARRAY || !json_member(report, "all_tasks"))
    ctx_fail(c, NULL, "its report.json is none that moecc compile wrote");
  return report;
}

/* ---- for people -------------------------------------------------------------------------------------------------- */

static bool shown(const Figure *f, bool streams) { return f->title && (streams || !f->streaming); }

static void add_row(Text *t, const Json *task, const char *name, int width, bool streams, bool all) {
  Ctx *c = t->ctx;
  text_add(t, "%-*s", width, name);
  for (int i = 0; i < FIGURES; i++) {
    const Figure *f = &figures[i];
    if (!shown(f, streams)) continue;
    const double x = all && f->single ? 0 : number(c, task, f->group, f->key);
    const char *cell = f->count ? ctx_format(c, "%.0f", x) : bytes_text(c, x);
    text_add(t, "%*s", COLUMN, all && f->single ? "" : cell);
  }
  text_add(t, "\n");
}

static const char *way_of(const char *weights) {
  if (strcmp(weights, "stream") == 0) return "read while computing";
  return strcmp(weights, "embed") == 0 ? "in the code" : "in a file, loaded before the first call";
}

static const char all_name[] = "(all)";

void folder_report_print(Ctx *c, const Json *report) {
  Text text = {.ctx = c}, *t = &text;
  const char *weights = json_member_text(report, "weights", "");
  const bool streams = strcmp(weights, "stream") == 0;
  const Json *tasks = json_member(report, "tasks");
  int width = 8;
  size_t n = 0;
  for (const Json *task = tasks->first; task; task = task->next, n++) {
    const int length = (int)strlen(json_member_text(task, "task", "")) + 1;
    if (length > width) width = length;
  }
  text_add(t, "%s: for %s, %s of weights, %s", json_member_text(report, "model", ""),
           json_member_text(report, "target", ""), bytes_text(c, number(c, report, NULL, "pack_bytes")),
           way_of(weights));
  if (streams) text_add(t, " through two buffers of %s", bytes_text(c, number(c, report, NULL, "stream_buffer_bytes")));
  text_add(t, "\n\n%-*s", width, "task");
  for (int i = 0; i < FIGURES; i++)
    if (shown(&figures[i], streams)) text_add(t, "%*s", COLUMN, figures[i].title);
  text_add(t, "\n");
  for (const Json *task = tasks->first; task; task = task->next)
    add_row(t, task, json_member_text(task, "task", ""), width, streams, false);
  if (n > 1) add_row(t, json_member(report, "all_tasks"), all_name, width, streams, true);
  text_add(t, "\n");
  for (int i = 0; i < FIGURES; i++)
    if (shown(&figures[i], streams)) text_add(t, "%-*s%s\n", COLUMN, figures[i].title, figures[i].meaning);
  if (n > 1) text_add(t, "%-*sall tasks in one call\n", COLUMN, all_name);
  fputs(text.text, stdout);
}

/* ---- for programs ------------------------------------------------------------------------------------------------ */

/* Members as report.json has them; figures of one group follow each other. */
static void json_figures(Text *t, const Json *task, bool all) {
  const char *group = NULL, *separator = "";
  for (int i = 0; i < FIGURES; i++) {
    const Figure *f = &figures[i];
    if (all && f->single) continue;
    const bool same = group && f->group && strcmp(group, f->group) == 0;
    if (group && !same) text_add(t, "}");
    text_add(t, "%s", separator);
    if (f->group && !same) text_add(t, "\"%s\": {", f->group);
    text_add(t, "\"%s\": %.0f", f->key, number(t->ctx, task, f->group, f->key));
    group = f->group;
    separator = ", ";
  }
  text_add(t, "%s}", group ? "}" : "");
}

void folder_report_json(Ctx *c, const Json *report) {
  Text text = {.ctx = c}, *t = &text;
  static const char *const texts[] = {"name", "model", "target", "weights"};
  static const char *const counts[] = {"pack_bytes", "units", "stream_buffer_bytes"};
  text_add(t, "{");
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    text_add(t, "\"%s\": %s, ", texts[i], json_text(c, json_member_text(report, texts[i], "")));
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
    text_add(t, "\"%s\": %.0f, ", counts[i], number(c, report, NULL, counts[i]));
  text_add(t, "\n \"all_tasks\": {");
  json_figures(t, json_member(report, "all_tasks"), true);
  text_add(t, ",\n \"tasks\": [");
  for (const Json *task = json_member(report, "tasks")->first; task; task = task->next) {
    text_add(t, "\n  {\"task\": %s, ", json_text(c, json_member_text(task, "task", "")));
    json_figures(t, task, false);
    text_add(t, "%s", task->next ? "," : "");
  }
  text_add(t, "]}\n");
  fputs(text.text, stdout);
}
