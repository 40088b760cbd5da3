/* "kind key=value key=value", as in a model's metadata. */
#include "io/io.h"

#include <string.h>

static bool listed(const char *key, const char *const *keys) {
  for (; *keys; keys++)
    if (strcmp(key, *keys) == 0) return true;
  return false;
}

static void add_pair(Ctx *c, Described *d, size_t *cap, const char *about, const char *word, const char *const *keys) {
  const char *equals = strchr(word, '=');
  if (!equals || equals == word) ctx_fail(c, NULL, "%s: \"%s\" is not key=value", about, word);
  Pair p = {ctx_strndup(c, word, (size_t)(equals - word)), equals + 1};
  if (!listed(p.key, keys)) ctx_fail(c, NULL, "%s: there is no key \"%s\" for \"%s\"", about, p.key, d->kind);
  if (described_get(d, p.key, NULL)) ctx_fail(c, NULL, "%s: \"%s\" is given twice", about, p.key);
  d->pair = ctx_grow(c, d->pair, d->n, cap, sizeof *d->pair);
  d->pair[d->n++] = p;
}

Described described_parse(Ctx *c, const char *about, const char *text, const char *const *keys) {
  Described d = {.kind = ""};
  size_t cap = 0;
  for (const char *p = text + strspn(text, " \t\n"); *p; p += strspn(p, " \t\n")) {
    size_t n = strcspn(p, " \t\n");
    const char *word = ctx_strndup(c, p, n);
    if (!*d.kind)
      d.kind = word;
    else
      add_pair(c, &d, &cap, about, word, keys);
    p += n;
  }
  return d;
}

const char *described_get(const Described *d, const char *key, const char *fallback) {
  for (size_t i = 0; i < d->n; i++)
    if (strcmp(d->pair[i].key, key) == 0) return d->pair[i].value;
  return fallback;
}
