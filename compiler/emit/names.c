/* Identifiers and literals in emitted C. */
#include "emit/names.h"

#include <ctype.h>
#include <string.h>

struct NameSet {
  Ctx *ctx;
  const char **name;
  size_t n, cap;
};

NameSet *names_new(Ctx *c) {
  NameSet *s = ctx_alloc(c, sizeof *s);
  s->ctx = c;
  return s;
}

bool name_taken(const NameSet *s, const char *name) {
  for (size_t i = 0; i < s->n; i++)
    if (strcmp(s->name[i], name) == 0) return true;
  return false;
}

const char *name_unique(NameSet *s, const char *name) {
  const char *candidate = name;
  for (int i = 2; name_taken(s, candidate); i++) candidate = ctx_format(s->ctx, "%s_%d", name, i);
  s->name = ctx_grow(s->ctx, s->name, s->n, &s->cap, sizeof *s->name);
  return s->name[s->n++] = candidate;
}

static const char *const reserved[] = {
    /* C99, gnu99, C++ */
    "alignas", "alignof", "and", "and_eq", "asm", "auto", "bitand", "bitor", "bool", "break", "case", "catch", "char",
    "class", "compl", "concept", "const", "const_cast", "consteval", "constexpr", "constinit", "continue", "decltype",
    "default", "delete", "do", "double", "dynamic_cast", "else", "enum", "explicit", "export", "extern", "false",
    "float", "for", "friend", "goto", "if", "inline", "int", "linux", "long", "mutable", "namespace", "new", "noexcept",
    "not", "not_eq", "nullptr", "operator", "or", "or_eq", "private", "protected", "public", "register",
    "reinterpret_cast", "requires", "restrict", "return", "short", "signed", "sizeof", "static", "static_assert",
    "static_cast", "struct", "switch", "template", "this", "throw", "true", "try", "typedef", "typeid", "typename",
    "typeof", "union", "unix", "unsigned", "using", "virtual", "void", "volatile", "wchar_t", "while", "xor", "xor_eq",
    /* what emitted functions use themselves, and what headers may define */
    "m", "f", "w", "e", "next", "begin", "count", "first", "status", "vf", "main", "NULL", "errno", "stdin", "stdout",
    "stderr", "size_t", "memcpy", "memset", "memmove", "I", "near", "far"};

static bool is_reserved(const char *name) {
  for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
    if (strcmp(reserved[i], name) == 0) return true;
  return strncmp(name, "moecc", 5) == 0 || strncmp(name, "vf_", 3) == 0;
}

const char *name_identifier(Ctx *c, const char *text) {
  char out[64];
  size_t n = 0;
  for (const char *p = text; *p && n < sizeof out - 3; p++) {
    unsigned char ch = (unsigned char)*p;
    if (ch < 128 && isalnum(ch)) {
      if (!n && isdigit(ch)) out[n++] = 'n';
      out[n++] = (char)ch;
    } else if (n && out[n - 1] != '_') {
      out[n++] = '_';
    }
  }
  while (n && out[n - 1] == '_') n--;
  if (!n) out[n++] = 'x';
  out[n] = 0;
  if (is_reserved(out)) out[n++] = '_', out[n] = 0;
  return ctx_strdup(c, out);
}

const char *name_upper(Ctx *c, const char *identifier) {
  char *out = ctx_strdup(c, identifier);
  for (char *p = out; *p; p++) *p = (char)toupper((unsigned char)*p);
  return out;
}

const char *text_harmless(Ctx *c, const char *text) {
  enum { LONGEST = 200 };
  char *out = ctx_strndup(c, text, strlen(text) < LONGEST ? strlen(text) : LONGEST);
  for (char *p = out; *p; p++) {
    bool ends_comment = (*p == '/' && p > out && p[-1] == '*') || (*p == '*' && p > out && p[-1] == '/');
    if (*p < 32 || *p > 126 || *p == '"' || *p == '\\' || ends_comment || (*p == '?' && p > out && p[-1] == '?'))
      *p = '_';
  }
  return out;
}

const char *c_string(Ctx *c, const char *text) {
  Text t = {.ctx = c};
  text_write(&t, "", 0);
  for (; *text; text++) {
    unsigned char ch = (unsigned char)*text;
    if (ch < 32 || ch > 126 || ch == '"' || ch == '\\' || ch == '?')
      text_add(&t, "\\%03o", ch);
    else
      text_write(&t, text, 1);
  }
  return t.text;
}

static const char *path_safe(Ctx *c, const char *name) {
  char *safe = ctx_strndup(c, name, strlen(name) < 100 ? strlen(name) : 100);
  for (char *p = safe; *p; p++)
    if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", *p) && !(*p == '.' && p > safe))
      *p = '_';
  return *safe ? safe : "unnamed";
}

const char **port_file_names(Ctx *c, Value *const *ports, size_t n) {
  NameSet *names = names_new(c);
  const char **file = ctx_array(c, n + 1, sizeof *file);
  for (size_t i = 0; i < n; i++) file[i] = name_unique(names, path_safe(c, ports[i]->name));
  return file;
}
