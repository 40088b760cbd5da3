/* Reads C for what its functions take of the stack.
 *
 * Top level: typedefs of structures, enums, and functions. In a function: declarations of arrays and structures count
 * with their size, constants in extents being enums and numbers; scalars, what registers have no room for, and arguments
 * come under an allowance for each function, which is smaller where the function is inlined. Every function whose name
 * another one mentions, it may call. Compilers that optimise let locals of different blocks and inlined functions share
 * their place, so that the deepest chain, not the sum of all functions, bounds them.
 */
#include "emit/source.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum {
  APART = 128,       /* a function of its own: return address, saved registers, scalars */
  APART_VECTORS = 4, /* and so many vectors that registers have no room for */
  INLINED = 24       /* an inlined one */
};

typedef struct {
  const char *at;
  size_t len;
} Token;

typedef struct {
  const char *name;
  int64_t value;
} Named; /* a constant, or a type's size */

typedef struct {
  const char *name;
  int64_t locals;
  bool inlined;
  const char **calls;
  size_t n_calls, cap_calls;
  int64_t depth; /* 0: not known yet; -1: being found */
} Function;

struct SourceCode {
  Ctx *ctx;
  Token *token;
  size_t n, cap;
  Named *constant, *type;
  size_t n_constants, cap_constants, n_types, cap_types;
  Function *function;
  size_t n_functions, cap_functions;
  int64_t vector;
};

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

static bool is_name(char ch) { return isalnum((unsigned char)ch) || ch == '_'; }

static const char *skip_quoted(const char *p) {
  const char quote = *p++;
  for (; *p && *p != quote; p++)
    if (*p == '\\' && p[1]) p++;
  return *p ? p + 1 : p;
}

static const char *skip_directive(const char *p) {
  for (; *p && *p != '\n'; p++)
    if (*p == '\\' && p[1]) p++;
  return p;
}

static void add_token(SourceCode *s, const char *at, size_t len) {
  s->token = ctx_grow(s->ctx, s->token, s->n, &s->cap, sizeof *s->token);
  s->token[s->n++] = (Token){at, len};
}

static void read_tokens(SourceCode *s, const char *p) {
  while (*p) {
    if (isspace((unsigned char)*p)) {
      p++;
    } else if (p[0] == '/' && p[1] == '*') {
      const char *end = strstr(p + 2, "*/");
      p = end ? end + 2 : p + strlen(p);
    } else if (*p == '#') {
      p = skip_directive(p);
    } else if (*p == '"' || *p == '\'') {
      const char *end = skip_quoted(p);
      add_token(s, p, (size_t)(end - p));
      p = end;
    } else {
      size_t n = 1;
      while (is_name(*p) && is_name(p[n])) n++;
      add_token(s, p, n);
      p += n;
    }
  }
  add_token(s, p, 0);
  s->n--; /* the end's token is there, but not counted */
}

static bool is(const SourceCode *s, size_t i, const char *text) {
  return s->token[i].len == strlen(text) && memcmp(s->token[i].at, text, s->token[i].len) == 0;
}

static bool is_identifier(const SourceCode *s, size_t i) {
  return s->token[i].len && is_name(*s->token[i].at) && !isdigit((unsigned char)*s->token[i].at);
}

static const char *text_of(const SourceCode *s, size_t i) {
  return ctx_strndup(s->ctx, s->token[i].at, s->token[i].len);
}

/* Behind the bracket that closes the one at i. */
static size_t behind(const SourceCode *s, size_t i) {
  int depth = 0;
  for (; i < s->n; i++) {
    if (is(s, i, "(") || is(s, i, "{") || is(s, i, "[")) depth++;
    if (is(s, i, ")") || is(s, i, "}") || is(s, i, "]")) depth--;
    if (depth == 0) return i + 1;
  }
  return s->n;
}

/* ---- constants --------------------------------------------------------------------------------------------------- */

static const int64_t *find_named(const SourceCode *s, const Named *list, size_t n, size_t token) {
  for (size_t i = n; i-- > 0;)
    if (is(s, token, list[i].name)) return &list[i].value;
  return NULL;
}

typedef struct {
  SourceCode *s;
  size_t at;
} Reader;

static int64_t read_sum(Reader *r);

static int64_t read_factor(Reader *r) {
  const SourceCode *s = r->s;
  if (is(s, r->at, "(")) {
    r->at++;
    int64_t x = read_sum(r);
    r->at++;
    return x;
  }
  const int64_t *value = find_named(s, s->constant, s->n_constants, r->at);
  if (value) return r->at++, *value;
  if (!isdigit((unsigned char)*s->token[r->at].at))
    ctx_fail(s->ctx, NULL, "internal error: the extent of a local array is not constant: \"%s\"", text_of(s, r->at));
  return strtoll(text_of(s, r->at++), NULL, 10);
}

static int64_t read_product(Reader *r) {
  int64_t x = read_factor(r);
  for (;;) {
    bool times = is(r->s, r->at, "*");
    if (!times && !is(r->s, r->at, "/")) return x;
    r->at++;
    int64_t y = read_factor(r);
    x = times ? x * y : y ? x / y : 0;
  }
}

static int64_t read_sum(Reader *r) {
  int64_t x = read_product(r);
  for (;;) {
    bool plus = is(r->s, r->at, "+");
    if (!plus && !is(r->s, r->at, "-")) return x;
    r->at++;
    int64_t y = read_product(r);
    x = plus ? x + y : x - y;
  }
}

static void add_constant(SourceCode *s, const char *name, int64_t value) {
  s->constant = ctx_grow(s->ctx, s->constant, s->n_constants, &s->cap_constants, sizeof *s->constant);
  s->constant[s->n_constants++] = (Named){name, value};
}

static void add_type(SourceCode *s, const char *name, int64_t value) {
  s->type = ctx_grow(s->ctx, s->type, s->n_types, &s->cap_types, sizeof *s->type);
  s->type[s->n_types++] = (Named){name, value};
}

/* Of an enum, whose brace is at i. */
static void read_enum(SourceCode *s, size_t i) {
  const size_t end = behind(s, i) - 1;
  int64_t next = 0;
  for (i++; i < end; i++) {
    const char *name = text_of(s, i++);
    if (is(s, i, "=")) {
      bool number = isdigit((unsigned char)*s->token[i + 1].at) || is(s, i + 1, "(") ||
                    find_named(s, s->constant, s->n_constants, i + 1);
      Reader r = {s, i + 1};
      if (!number) { /* a negative one, or the like: no extent */
        while (i < end && !is(s, i, ",")) i++;
        continue;
      }
      next = read_sum(&r);
      i = r.at;
    }
    add_constant(s, name, next++);
  }
}

/* ---- declarations ------------------------------------------------------------------------------------------------ */

/* Bytes of the declarators from *i on, up to a semicolon: arrays, and of `scalar` bytes each what is none; pointers
 * have 8. */
static int64_t read_declarators(SourceCode *s, size_t *i, int64_t type, int64_t scalar) {
  int64_t sum = 0;
  while (*i < s->n && !is(s, *i, ";")) {
    bool pointer = false, array = false;
    for (; is(s, *i, "*") || is(s, *i, "const"); ++*i) pointer |= is(s, *i, "*");
    if (is(s, *i, "(")) { /* a pointer to a function */
      *i = behind(s, behind(s, *i));
      sum += 8;
      continue;
    }
    ++*i;
    int64_t bytes = pointer ? 8 : type;
    while (is(s, *i, "[")) {
      Reader r = {s, *i + 1};
      bytes *= read_sum(&r);
      *i = r.at + 1;
      array = true;
    }
    sum += array ? bytes : pointer ? (scalar ? 8 : 0) : scalar;
    while (*i < s->n && !is(s, *i, ";") && !is(s, *i, ",")) {
      bool bracket = is(s, *i, "(") || is(s, *i, "{") || is(s, *i, "[");
      *i = bracket ? behind(s, *i) : *i + 1;
    }
    if (is(s, *i, ",")) ++*i;
  }
  return sum;
}

/* A type's name at *i, qualifiers around it: its bytes, and *i is behind it. 0: there is none. */
static int64_t read_type(SourceCode *s, size_t *i, bool *structure) {
  static const Named basic[] = {{"float", 4},    {"double", 8},   {"char", 1},    {"short", 2},    {"int", 4},
                                {"unsigned", 4}, {"signed", 4},   {"long", 8},    {"size_t", 8},   {"ptrdiff_t", 8},
                                {"int64_t", 8},  {"uint64_t", 8}, {"int32_t", 4}, {"uint32_t", 4}, {"int16_t", 2},
                                {"uint16_t", 2}, {"int8_t", 1},   {"uint8_t", 1}, {"void", 1}};
  int64_t bytes = 0;
  *structure = false;
  for (bool any = true; any; *i += any) {
    const int64_t *size = find_named(s, basic, sizeof basic / sizeof *basic, *i);
    any = size || is(s, *i, "const") || is(s, *i, "static");
    if (size) bytes = *size;
  }
  if (bytes) return bytes;
  const int64_t *size = find_named(s, s->type, s->n_types, *i);
  if (is(s, *i, "vf") || is(s, *i, "vi") || is(s, *i, "vm"))
    bytes = s->vector;
  else if (size)
    bytes = *size, *structure = true;
  if (bytes) ++*i;
  while (bytes && is(s, *i, "const")) ++*i;
  return bytes;
}

/* Of a structure, whose brace is at i. */
static int64_t read_structure(SourceCode *s, size_t i) {
  const size_t end = behind(s, i) - 1;
  int64_t sum = 0;
  for (i++; i < end; i++) {
    bool structure;
    int64_t type = read_type(s, &i, &structure);
    if (!type) { /* another library's, of which there are pointers only; or an enum */
      type = 8;
      if (is(s, i, "enum")) i++;
      i = is(s, i, "{") ? behind(s, i) : i + 1;
    }
    sum += read_declarators(s, &i, type, type < 8 ? 8 : type);
  }
  return sum;
}

/* ---- functions --------------------------------------------------------------------------------------------------- */

static Function *find_function(SourceCode *s, const char *name) {
  for (size_t i = 0; i < s->n_functions; i++)
    if (strcmp(s->function[i].name, name) == 0) return &s->function[i];
  return NULL;
}

static void add_call(SourceCode *s, Function *f, const char *name) {
  f->calls = ctx_grow(s->ctx, f->calls, f->n_calls, &f->cap_calls, sizeof *f->calls);
  f->calls[f->n_calls++] = name;
}

/* Is a function called, or given to another one? */
static bool is_mentioned(const SourceCode *s, size_t i) {
  if (!is_identifier(s, i)) return false;
  if (is(s, i + 1, "(")) return true;
  return (is(s, i - 1, "(") || is(s, i - 1, ",")) && (is(s, i + 1, ",") || is(s, i + 1, ")"));
}

/* A body, whose brace is at i: what it declares and whom it mentions. */
static void read_body(SourceCode *s, Function *f, size_t i) {
  const size_t end = behind(s, i) - 1;
  bool start = true;
  int64_t locals = 0;
  for (i++; i < end; i++) {
    if (start && is(s, i, "enum") && is(s, i + 1, "{")) read_enum(s, i + 1);
    bool structure, constant = is(s, i, "static"); /* not on the stack */
    size_t at = i;
    int64_t type = start && is_identifier(s, i) ? read_type(s, &at, &structure) : 0;
    if (type && !constant && (is(s, at, "*") || is_identifier(s, at))) {
      size_t declared = at;
      locals += read_declarators(s, &declared, type, structure ? type : 0);
    }
    if (is_mentioned(s, i)) add_call(s, f, text_of(s, i));
    start = is(s, i, ";") || is(s, i, "{") || is(s, i, "}");
  }
  if (locals > f->locals) f->locals = locals;
}

/* The function whose name is at i, its head beginning at `head`: behind its body. */
static size_t read_function(SourceCode *s, size_t head, size_t i) {
  size_t body = behind(s, i + 1);
  if (!is(s, body, "{")) return body;
  Function *f = find_function(s, text_of(s, i));
  if (!f) {
    s->function = ctx_grow(s->ctx, s->function, s->n_functions, &s->cap_functions, sizeof *s->function);
    f = &s->function[s->n_functions++];
    *f = (Function){.name = text_of(s, i)};
  }
  for (size_t k = head; k < i; k++) f->inlined |= is(s, k, "inline") || is(s, k, "MOECC_INLINE");
  read_body(s, f, body);
  return behind(s, body);
}

/* A typedef at i: behind it. */
static size_t read_typedef(SourceCode *s, size_t i) {
  size_t brace = i;
  while (brace < s->n && !is(s, brace, "{") && !is(s, brace, ";")) brace++;
  if (!is(s, brace, "{")) return brace + 1;
  size_t name = behind(s, brace);
  if (is(s, i + 1, "struct")) add_type(s, text_of(s, name), read_structure(s, brace));
  if (is(s, i + 1, "enum")) {
    read_enum(s, brace);
    add_type(s, text_of(s, name), 4);
  }
  return name + 1;
}

void source_read(SourceCode *s, const char *text) {
  s->n = 0;
  read_tokens(s, text);
  for (size_t i = 0, head = 0; i < s->n;) {
    if (is(s, i, "typedef")) {
      head = i = read_typedef(s, i);
    } else if (is(s, i, "enum") && is(s, i + 1, "{")) {
      read_enum(s, i + 1);
      i = behind(s, i + 1);
    } else if (is_identifier(s, i) && is(s, i + 1, "(") && !is(s, i, "__attribute__") && !is(s, i, "defined")) {
      head = i = read_function(s, head, i);
    } else if (is(s, i, "{")) {
      i = i && is(s, i - 1, "\"C\"") ? i + 1 : behind(s, i);
    } else {
      if (is(s, i, ";") || is(s, i, "}")) head = i + 1;
      i++;
    }
  }
}

SourceCode *source_new(Ctx *c, int lanes) {
  SourceCode *s = ctx_alloc(c, sizeof *s);
  s->ctx = c;
  s->vector = 4 * lanes;
  add_constant(s, "VF_LANES", lanes);
  return s;
}

/* ---- depth ------------------------------------------------------------------------------------------------------- */

static int64_t depth_of(SourceCode *s, Function *f);

static int64_t depth_below(SourceCode *s, Function *f) {
  int64_t most = 0;
  for (size_t i = 0; i < f->n_calls; i++) {
    Function *g = find_function(s, f->calls[i]);
    int64_t depth = g ? depth_of(s, g) : 0;
    if (depth > most) most = depth;
  }
  return most;
}

static int64_t depth_of(SourceCode *s, Function *f) {
  if (f->depth < 0) ctx_fail(s->ctx, NULL, "internal error: %s may call itself", f->name);
  if (f->depth > 0) return f->depth;
  f->depth = -1;
  int64_t below = depth_below(s, f),
          own = f->inlined ? INLINED
                           : APART + APART_VECTORS * (s->vector < 16 ? 16 : s->vector); /* 16: without being asked */
  return f->depth = own + round_up(f->locals, 16) + below;
}

static Function *known(SourceCode *s, const char *name) {
  Function *f = find_function(s, name);
  if (!f) ctx_fail(s->ctx, NULL, "internal error: no function %s was read", name);
  return f;
}

int64_t source_depth(SourceCode *s, const char *function) { return depth_of(s, known(s, function)); }

int64_t source_depth_below(SourceCode *s, const char *function) { return depth_below(s, known(s, function)); }
