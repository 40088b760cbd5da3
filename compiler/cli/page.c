/* What pages share: escaping, numbers with units, and a text with holes. */
#include "cli/page.h"

#include "emit/embedded.h"
#include "io/io.h"
#include "io/json.h"

#include <string.h>

void page_text(Text *t, const char *s) {
  for (; *s; s++) {
    static const struct {
      char c;
      const char *as;
    } special[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&#39;"}};
    const char *as = NULL;
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
      if (special[i].c == *s) as = special[i].as;
    if (!as && ((unsigned char)*s < 32 || *s == 127)) as = "&#xfffd;";
    if (as)
      text_add(t, "%s", as);
    else
      text_write(t, s, 1);
  }
}

void page_json(Text *t, const char *s) {
  for (const char *j = json_text(t->ctx, s); *j; j++)
    if (*j == '<')
      text_add(t, "\\u003c");
    else
      text_write(t, j, 1);
}

const char *time_text(Ctx *c, double us) {
  if (us >= 1e6) return ctx_format(c, "%.3f s", us * 1e-6);
  return us >= 1e3 ? ctx_format(c, "%.3f ms", us * 1e-3) : ctx_format(c, "%.1f µs", us);
}

const char *bytes_text(Ctx *c, double bytes) {
  if (bytes >= 1e6) return ctx_format(c, "%.2f MB", bytes * 1e-6);
  return bytes >= 1e3 ? ctx_format(c, "%.1f kB", bytes * 1e-3) : ctx_format(c, "%.0f B", bytes);
}

const char *count_text(Ctx *c, int64_t n) {
  const char *digits = ctx_format(c, "%lld", (long long)n);
  const size_t length = strlen(digits);
  Text t = {.ctx = c};
  for (size_t i = 0; i < length; i++) {
    if (i && digits[i - 1] != '-' && (length - i) % 3 == 0) text_write(&t, ",", 1);
    text_write(&t, digits + i, 1);
  }
  return t.text;
}

const char *page_make(Ctx *c, const char *file, void (*fill)(void *self, Text *t, const char *hole), void *self) {
  Text t = {.ctx = c};
  const char *at = embedded_find(file)->text;
  for (const char *hole; (hole = strstr(at, "@@")) != NULL;) {
    const char *end = strstr(hole + 2, "@@");
    if (!end) break;
    text_write(&t, at, (size_t)(hole - at));
    const char *name = ctx_strndup(c, hole + 2, (size_t)(end - hole) - 2);
    if (strcmp(name, "STYLE") == 0)
      text_add(&t, "%s", embedded_find("compiler/cli/page.css")->text);
    else
      fill(self, &t, name);
    at = end + 2;
  }
  text_add(&t, "%s", at);
  return t.text;
}

void page_write(Ctx *c, const char *path, const char *page) {
  char *making;
  FILE *f = text_file_begin(c, path, &making);
  text_file_finish(c, f, path, making, page);
}
