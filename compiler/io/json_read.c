/* Reads JSON: one document, strings in UTF-8, nested 64 deep at most. What is wrong is said with the byte where it is. */
#include "io/json.h"

#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 64 };

typedef struct {
  Ctx *ctx;
  const char *start, *at, *end;
  int depth;
} Reader;

_Noreturn static void fail(const Reader *r, const char *what) {
  ctx_fail(r->ctx, NULL, "this is no JSON: %s at byte %zu", what, (size_t)(r->at - r->start));
}

static void skip_space(Reader *r) {
  while (r->at < r->end && strchr(" \t\r\n", *r->at) && *r->at) r->at++;
}

static char peek(Reader *r) {
  skip_space(r);
  return r->at < r->end ? *r->at : 0;
}

static bool accept(Reader *r, char wanted) {
  if (peek(r) != wanted) return false;
  r->at++;
  return true;
}

static unsigned read_hex(Reader *r) {
  unsigned code = 0;
  for (int i = 0; i < 4; i++, r->at++) {
    static const char digits[] = "0123456789abcdefABCDEF";
    const char *d = r->at < r->end && *r->at ? strchr(digits, *r->at) : NULL;
    if (!d) fail(r, "\\u wants four hexadecimal digits");
    code = code << 4 | (unsigned)(d - digits < 16 ? d - digits : d - digits - 6);
  }
  return code;
}

static void add_code(Text *t, unsigned code) {
  char utf8[4];
  size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  for (size_t i = n; i-- > 1; code >>= 6) utf8[i] = (char)(0x80 | (code & 0x3f));
  static const unsigned lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
  utf8[0] = (char)(lead[n] | code);
  text_write(t, utf8, n);
}

/* Behind the backslash. */
static void read_escape(Reader *r, Text *t) {
  static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
  const char *name = r->at < r->end && *r->at ? strchr(names, *r->at) : NULL;
  if (name) {
    text_write(t, &values[name - names], 1);
    r->at++;
    return;
  }
  if (r->at >= r->end || *r->at != 'u') fail(r, "there is no such escape");
  r->at++;
  unsigned code = read_hex(r);
  if (code >= 0xd800 && code < 0xdc00 && r->end - r->at > 2 && r->at[0] == '\\' && r->at[1] == 'u') {
    r->at += 2;
    unsigned low = read_hex(r);
    code = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00) : 0xfffd;
  }
  if (code == 0 || (code >= 0xd800 && code < 0xe000)) code = 0xfffd; /* no part of a C string, or of a character */
  add_code(t, code);
}

static const char *read_text(Reader *r) {
  Text t = {.ctx = r->ctx};
  if (!accept(r, '"')) fail(r, "a string is missing");
  const char *from = r->at;
  for (; r->at < r->end && *r->at != '"'; from = r->at) {
    while (r->at < r->end && *r->at != '"' && *r->at != '\\' && (unsigned char)*r->at >= 32) r->at++;
    if (r->at < r->end && *r->at == '"' && !t.len) break; /* mostly so: nothing to unescape */
    text_write(&t, from, (size_t)(r->at - from));
    if (r->at < r->end && *r->at == '\\') {
      r->at++;
      read_escape(r, &t);
    } else if (r->at < r->end && *r->at != '"') {
      fail(r, "a control character in a string");
    }
  }
  if (r->at >= r->end) fail(r, "a string does not end");
  const char *text = t.len ? t.text : ctx_strndup(r->ctx, from, (size_t)(r->at - from));
  r->at++;
  return text;
}

static void read_value(Reader *r, Json *v);

static void read_members(Reader *r, Json *v, char close) {
  Json **tail = &v->first;
  if (++r->depth > DEEPEST) fail(r, "nested too deep");
  r->at++;
  for (bool more = !accept(r, close); more; more = accept(r, ',')) {
    Json *member = *tail = ctx_alloc(r->ctx, sizeof *member);
    tail = &member->next;
    if (v->kind == JSON_OBJECT) {
      member->key = read_text(r);
      if (!accept(r, ':')) fail(r, "a colon is missing");
    }
    read_value(r, member);
    if (peek(r) != ',' && accept(r, close)) break;
    if (peek(r) != ',') fail(r, "a comma or the end is missing");
  }
  r->depth--;
}

static void read_word(Reader *r, Json *v) {
  static const struct {
    const char *word;
    JsonKind kind;
    double number;
  } words[] = {{"true", JSON_BOOL, 1}, {"false", JSON_BOOL, 0}, {"null", JSON_NULL, 0}};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    size_t n = strlen(words[i].word);
    if ((size_t)(r->end - r->at) < n || memcmp(r->at, words[i].word, n) != 0) continue;
    v->kind = words[i].kind;
    v->number = words[i].number;
    r->at += n;
    return;
  }
  fail(r, "a value is missing");
}

static void read_number(Reader *r, Json *v) {
  char *end;
  v->kind = JSON_NUMBER;
  v->number = strtod(r->at, &end);
  if (end == r->at || end > r->end) fail(r, "a number is wrong");
  r->at = end;
}

static void read_value(Reader *r, Json *v) {
  char first = peek(r);
  if (first == '{' || first == '[') {
    v->kind = first == '{' ? JSON_OBJECT : JSON_ARRAY;
    read_members(r, v, first == '{' ? '}' : ']');
  } else if (first == '"') {
    v->kind = JSON_TEXT;
    v->text = read_text(r);
  } else if (first == '-' || (first >= '0' && first <= '9')) {
    read_number(r, v);
  } else {
    read_word(r, v);
  }
}

const Json *json_read(Ctx *c, const char *text, size_t bytes) {
  Reader r = {.ctx = c, .start = text, .at = text, .end = text + bytes};
  Json *v = ctx_alloc(c, sizeof *v);
  read_value(&r, v);
  if (peek(&r)) fail(&r, "something follows the end");
  return v;
}

const Json *json_member(const Json *object, const char *key) {
  const Json *m = object && object->kind == JSON_OBJECT ? object->first : NULL;
  while (m && strcmp(m->key, key) != 0) m = m->next;
  return m;
}

double json_member_number(const Json *object, const char *key, double otherwise) {
  const Json *m = json_member(object, key);
  return m && m->kind == JSON_NUMBER ? m->number : otherwise;
}

const char *json_member_text(const Json *object, const char *key, const char *otherwise) {
  const Json *m = json_member(object, key);
  return m && m->kind == JSON_TEXT ? m->text : otherwise;
}
