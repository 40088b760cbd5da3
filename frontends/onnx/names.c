/* Names of one graph: who defines each, in an open hash table, and how they look in messages. */
#include "frontend.h"

#include <string.h>

static size_t slot_of(const Def *slot, size_t cap, const char *name) {
  size_t i = (size_t)hash_bytes(name, strlen(name), 0) & (cap - 1);
  while (slot[i].name && strcmp(slot[i].name, name) != 0) i = (i + 1) & (cap - 1);
  return i;
}

Def *names_find(const Names *names, const char *name) {
  if (!names->cap) return NULL;
  Def *d = &names->slot[slot_of(names->slot, names->cap, name)];
  return d->name ? d : NULL;
}

static void grow(Ctx *c, Names *names) {
  size_t cap = names->cap ? 2 * names->cap : 64;
  Def *slot = ctx_array(c, cap, sizeof *slot);
  for (size_t i = 0; i < names->cap; i++)
    if (names->slot[i].name) slot[slot_of(slot, cap, names->slot[i].name)] = names->slot[i];
  names->slot = slot;
  names->cap = cap;
}

Def *names_add(Ctx *c, Names *names, const char *name, Definer by, size_t index) {
  if (2 * (names->n + 1) > names->cap) grow(c, names);
  Def *d = &names->slot[slot_of(names->slot, names->cap, name)];
  *d = (Def){.name = name, .by = by, .index = index};
  names->n++;
  return d;
}

const char *quoted(Ctx *c, const char *name) {
  enum { SHOWN = 100 };
  char out[4 * SHOWN + 8];
  size_t n = 0, shown = strnlen(name, SHOWN + 1);
  bool cut = shown > SHOWN;
  if (cut) shown = SHOWN;
  while (cut && shown && ((unsigned char)name[shown] & 0xc0) == 0x80) shown--; /* no half character */
  out[n++] = '"';
  for (size_t i = 0; i < shown; i++) {
    unsigned char ch = (unsigned char)name[i];
    if (ch < 32 || ch == 127)
      n += (size_t)snprintf(out + n, 5, "\\x%02x", ch);
    else if (ch == '"' || ch == '\\')
      n += (size_t)snprintf(out + n, 3, "\\%c", ch);
    else
      out[n++] = name[i];
  }
  n += (size_t)snprintf(out + n, 6, "%s\"", cut ? "…" : "");
  return ctx_strndup(c, out, n);
}
