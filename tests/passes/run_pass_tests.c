/* Runs the pass tests of this folder: each case is a graph as text, the passes to run, and the graph that must result.
 *
 *   ==== what the case shows
 *   passes: algebra gelu        in this order; also "infer" (shape inference), "tasks" (find and mark tasks) and
 * "share" graph before
 *   ----
 *   graph after, or the one word `unchanged`; or lines `error: text` that the message must hold
 *
 * Both graphs are printed with inner values renamed in order of use and compared as text, so names and the types of
 * inner values need not be given; shapes are inferred before the first pass unless the line says `raw`.
 * The verifier runs after every pass. The number of cases that ran is printed: none is a failure.
 */
#include "compiler.h"
#include "../../frontends/text/text.h"
#include "../../compiler/passes/recognise.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
  const char *title, *before, *after, *passes, *file;
  Text got, want;
  bool ok;
} Case;

static int passed, failed;

/* ---- one case ---- */

static void run_named(Graph *g, const char *name) {
  static const struct {
    const char *name;
    void (*run)(Graph *g);
  } extra[] = {{"infer", infer_shapes},       {"share", share_equal},  {"algebra", pass_algebra},
               {"widen", pass_widen},         {"gelu", pass_gelu},     {"layernorm", pass_layernorm},
               {"attention", pass_attention}, {"convbn", pass_convbn}, {"fuse", pass_fuse}};
  if (strcmp(name, "raw") == 0) return;
  if (strcmp(name, "tasks") == 0) {
    tasks_find(g, NULL, 0);
    graph_mark_tasks(g);
    return;
  }
  for (size_t i = 0; i < sizeof extra / sizeof *extra; i++)
    if (strcmp(extra[i].name, name) == 0) {
      extra[i].run(g);
      graph_verify(g, name);
      return;
    }
  const Pass *p = pass_find(name);
  if (!p) ctx_fail(g->ctx, NULL, "there is no pass \"%s\"", name);
  p->run(g);
  graph_verify(g, name);
}

static void print(Graph *g, Text *out) {
  TextStyle style = {.full = 4096, .rename = true};
  text_print_styled(g, out, &style);
}

static void run_case(Ctx *c, void *arg) {
  Case *k = arg;
  Graph *before = onnx_text_read(c, k->before, "before");
  bool raw = strstr(k->passes, "raw") != NULL;
  if (!raw) infer_shapes(before);
  if (!raw) graph_remove_dead(before);
  graph_mark_tasks(before);
  Graph *after = NULL;
  if (strcmp(k->after, "unchanged") != 0 && strncmp(k->after, "error:", 6) != 0)
    after = onnx_text_read(c, k->after, "after");
  if (after && !raw) infer_shapes(after);
  k->want.ctx = k->got.ctx = c;
  print(after ? after : before, &k->want);
  char *list = ctx_strdup(c, k->passes), *save = NULL;
  for (char *word = strtok_r(list, " \t\n", &save); word; word = strtok_r(NULL, " \t\n", &save))
    run_named(before, word);
  print(before, &k->got);
  k->ok = strcmp(k->got.text, k->want.text) == 0;
}

/* Does a message hold each text wanted? */
static bool expected_error(const Ctx *c, const Case *k) {
  if (strncmp(k->after, "error:", 6) != 0) return false;
  const char *wanted = k->after + 6 + strspn(k->after + 6, " ");
  for (size_t i = 0; i < ctx_message_count(c); i++)
    if (strstr(ctx_message(c, i), wanted)) return true;
  return false;
}

static void check_case(Case *k) {
  Ctx *c = ctx_new();
  if (!c) exit(3);
  ExitStatus status = ctx_run(c, run_case, k);
  bool ok = status == EXIT_DONE ? k->ok && strncmp(k->after, "error:", 6) != 0 : expected_error(c, k);
  if (ok) {
    passed++;
  } else {
    failed++;
    printf("FAILED %s: %s\n", k->file, k->title);
    for (size_t i = 0; i < ctx_message_count(c); i++) printf("  %s\n", ctx_message(c, i));
    if (status == EXIT_DONE) printf("--- wanted\n%s--- got\n%s", k->want.text, k->got.text);
  }
  ctx_free(c);
}

/* ---- files ---- */

static char *read_file(const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f) return NULL;
  size_t n = 0, cap = 1 << 16;
  char *text = malloc(cap + 1);
  while (text) {
    size_t got = fread(text + n, 1, cap - n, f);
    n += got;
    if (got == 0) break;
    if (n == cap) text = realloc(text, (cap *= 2) + 1);
  }
  fclose(f);
  if (text) text[n] = 0;
  return text;
}

/* Cuts the line that begins at p off; returns what follows. */
static char *cut_line(char *p) {
  char *end = strchr(p, '\n');
  if (!end) return p + strlen(p);
  *end = 0;
  return end + 1;
}

static void trim_end(char *s) {
  size_t n = strlen(s);
  while (n && strchr(" \t\r\n", s[n - 1])) s[--n] = 0;
}

/* The text of one case, from behind its "==== " on. */
static bool parse_case(char *text, Case *k) {
  char *rest = cut_line(text), *middle;
  k->title = text;
  while (*rest == '\n' || *rest == '#') rest = cut_line(rest);
  if (strncmp(rest, "passes:", 7) != 0) return false;
  k->passes = rest + 7;
  rest = cut_line(rest);
  middle = strncmp(rest, "----", 4) == 0 ? rest : strstr(rest, "\n----");
  if (!middle) return false;
  k->before = rest;
  k->after = cut_line(middle + 1);
  *middle = 0;
  while (*k->after == '\n' || *k->after == ' ') k->after++;
  trim_end((char *)k->after);
  return true;
}

static void run_file(const char *path) {
  char *text = read_file(path);
  if (!text) {
    printf("FAILED %s: cannot be read\n", path);
    failed++;
    return;
  }
  char *at = strncmp(text, "==== ", 5) == 0 ? text : strstr(text, "\n==== ");
  int before = passed + failed;
  while (at) {
    char *body = strstr(at, "==== ") + 5, *next = strstr(body, "\n==== ");
    if (next) *next++ = 0;
    Case k = {.file = path};
    if (parse_case(body, &k)) {
      check_case(&k);
    } else {
      printf("FAILED %s: %s: needs a line \"passes: …\" and a line \"----\"\n", path, k.title);
      failed++;
    }
    at = next;
  }
  if (passed + failed == before) {
    printf("FAILED %s: holds no case\n", path);
    failed++;
  }
  free(text);
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) run_file(argv[i]);
  printf("%d passed, %d failed\n", passed, failed);
  return failed || !passed;
}
