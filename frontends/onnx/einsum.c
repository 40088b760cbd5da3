/* Einsum, as Transpose, Reshape and MatMul.
 *
 * Operands are contracted from left to right. Of two operands a and b each letter is of one kind: batch (in both and
 * kept), inner (in both and summed), outer (in one and kept) or summed at once (in one, not kept). a becomes
 * [batch, outer a, inner], b [batch, inner, outer b], and MatMul does the rest; several letters of a kind are joined
 * into one dimension, none becomes a dimension of 1. Sizes that are not declared are taken from Shape. The dimensions
 * of an ellipsis get digits for letters; a diagonal is every n+1st element of the two dimensions joined.
 */
#include "frontend.h"

#include <ctype.h>
#include <string.h>

enum { LETTERS = 128, LONGEST = MAX_RANK + 1 };

typedef struct {
  RawNode *node;
  int64_t size[LETTERS];  /* of each letter's dimension; -1 not known */
  Value *source[LETTERS]; /* a value with such a dimension */
  int axis[LETTERS];      /* which one of it */
} Einsum;

/* A value with a letter per dimension. */
typedef struct {
  Value *value;
  char letters[LONGEST];
} Term;

static bool has(const char *letters, char c) { return strchr(letters, c) != NULL; }

static void append(char *letters, char c) {
  size_t n = strlen(letters);
  if (n + 1 >= LONGEST) return;
  letters[n] = c;
  letters[n + 1] = 0;
}

static Value *with_ints(Einsum *e, const char *op, Value *v, size_t n, const int64_t *ints) {
  Value *in[2] = {v, constant_ints(e->node, n, ints)};
  return raw_emit(e->node, op, 2, in, NULL)->out[0];
}

static size_t order(const Term *t, const char *wanted, int64_t *perm) {
  size_t n = strlen(wanted);
  for (size_t i = 0; i < n; i++) perm[i] = strchr(t->letters, wanted[i]) - t->letters;
  return n;
}

static void reorder(Einsum *e, Term *t, const char *wanted) {
  if (strcmp(t->letters, wanted) == 0) return;
  int64_t perm[LONGEST];
  size_t n = order(t, wanted, perm);
  Node *made = raw_emit(e->node, "Transpose", 1, &t->value, NULL);
  node_set_ints(made, "perm", n, perm);
  t->value = made->out[0];
  strcpy(t->letters, wanted);
}

/* Sums the letters that are neither in `kept` nor in `other`. */
static void sum_away(Einsum *e, Term *t, const char *kept, const char *other) {
  int64_t axes[LONGEST];
  size_t n = 0;
  char rest[LONGEST] = "";
  for (int i = 0; t->letters[i]; i++)
    if (has(kept, t->letters[i]) || has(other, t->letters[i]))
      append(rest, t->letters[i]);
    else
      axes[n++] = i;
  if (!n) return;
  t->value = with_ints(e, "ReduceSum", t->value, n, axes);
  node_set_int(t->value->producer, "keepdims", 0);
  strcpy(t->letters, rest);
}

/* The product of the letters' sizes, -1 if one is not known. */
static int64_t joined_size(const Einsum *e, const char *letters) {
  int64_t n = 1;
  for (; *letters; letters++)
    if (!size_mul(n, e->size[(int)*letters], &n)) return -1;
  return n;
}

/* The same as a vector of one element. */
static Value *size_value(Einsum *e, const char *letters) {
  int64_t known = joined_size(e, letters), n;
  if (known >= 0) return constant_ints(e->node, 1, &known);
  Value *product = NULL;
  for (; *letters; letters++) {
    unsigned char c = (unsigned char)*letters;
    n = e->axis[c];
    Value *size = raw_emit(e->node, "Shape", 1, &e->source[c], NULL)->out[0];
    Value *one[2] = {size, constant_ints(e->node, 1, &n)};
    size = raw_emit(e->node, "Gather", 2, one, NULL)->out[0];
    Value *both[2] = {product, size};
    product = product ? raw_emit(e->node, "Mul", 2, both, NULL)->out[0] : size;
  }
  return product;
}

/* Reshapes to `kept` dimensions as they are, then one for each group of letters. */
static Value *reshaped(Einsum *e, Value *v, size_t kept, size_t n, char group[][LONGEST]) {
  int64_t shape[2 * LONGEST] = {0}, unknown = 0; /* 0: as it is */
  for (size_t i = 0; i < n; i++) {
    shape[kept + i] = joined_size(e, group[i]);
    unknown += shape[kept + i] < 0;
  }
  if (unknown <= 1) return with_ints(e, "Reshape", v, kept + n, shape);
  Value *part[LONGEST + 1] = {constant_ints(e->node, kept, shape)};
  for (size_t i = 0; i < n; i++) part[i + 1] = size_value(e, group[i]);
  Node *joined = raw_emit(e->node, "Concat", (int)n + 1, part, NULL);
  node_set_int(joined, "axis", 0);
  Value *in[2] = {v, joined->out[0]};
  return raw_emit(e->node, "Reshape", 2, in, NULL)->out[0];
}

/* Makes one dimension each of the last two groups of letters, [batch, first, second]. */
static void join(Einsum *e, Term *t, const char *batch, const char *first, const char *second) {
  if (strlen(first) == 1 && strlen(second) == 1) return;
  char group[2][LONGEST];
  strcpy(group[0], first);
  strcpy(group[1], second);
  t->value = reshaped(e, t->value, strlen(batch), 2, group);
}

/* Gives every letter its own dimension again. */
static void split(Einsum *e, Term *t, const char *batch, const char *first, const char *second) {
  if (strlen(first) == 1 && strlen(second) == 1) return;
  char group[2 * LONGEST][LONGEST];
  size_t n = 0;
  for (const char *p = first; *p; p++, n++) memcpy(group[n], (char[]){*p, 0}, 2);
  for (const char *p = second; *p; p++, n++) memcpy(group[n], (char[]){*p, 0}, 2);
  t->value = reshaped(e, t->value, strlen(batch), n, group);
}

/* The product of two terms with the letters of `kept` that they have. */
static bool contract(Einsum *e, Term a, Term b, const char *kept, Term *out) {
  sum_away(e, &a, kept, b.letters);
  sum_away(e, &b, kept, a.letters);
  char batch[LONGEST] = "", inner[LONGEST] = "", left[LONGEST] = "", right[LONGEST] = "";
  for (const char *p = a.letters; *p; p++) append(!has(b.letters, *p) ? left : has(kept, *p) ? batch : inner, *p);
  for (const char *p = b.letters; *p; p++)
    if (!has(a.letters, *p)) append(right, *p);
  if (strlen(batch) + strlen(left) + strlen(right) > MAX_RANK) return raw_fault(e->node, "has too many dimensions");
  char text[3 * LONGEST];
  snprintf(text, sizeof text, "%s%s%s", batch, left, inner);
  reorder(e, &a, text);
  snprintf(text, sizeof text, "%s%s%s", batch, inner, right);
  reorder(e, &b, text);
  join(e, &a, batch, left, inner);
  join(e, &b, batch, inner, right);
  Value *in[2] = {a.value, b.value};
  out->value = raw_emit(e->node, "MatMul", 2, in, NULL)->out[0];
  snprintf(text, sizeof text, "%s%s%s", batch, left, right);
  strcpy(out->letters, text);
  split(e, out, batch, left, right);
  return true;
}

/* ---- the equation ---- */

typedef struct {
  char term[16][LONGEST];
  int n;
  char result[LONGEST];
  bool has_result;
} Equation;

/* One letter of a term, or '.' for its ellipsis. */
static bool add_letter(RawNode *n, char *letters, char c) {
  if (!isalpha((unsigned char)c) && c != '.')
    return raw_fault(n, "the equation contains \"%c\"", isprint((unsigned char)c) ? c : '?');
  if (c == '.' && has(letters, c)) return raw_fault(n, "the equation has two ellipses in a term");
  if (strlen(letters) == MAX_RANK) return raw_fault(n, "the equation has more than %d letters in a term", MAX_RANK);
  append(letters, c);
  return true;
}

/* Without "->": the ellipsis and the letters that occur once, in order of the alphabet. */
static void implicit_result(Equation *q) {
  for (int i = 0; i < q->n; i++)
    if (has(q->term[i], '.') && !*q->result) append(q->result, '.');
  for (int c = 'A'; c <= 'z'; c++) {
    int times = 0;
    for (int i = 0; i < q->n && isalpha(c); i++)
      for (const char *p = q->term[i]; *p; p++) times += *p == c;
    if (times == 1) append(q->result, (char)c);
  }
}

static bool parse(RawNode *n, Equation *q) {
  q->n = 1;
  for (const char *p = raw_string(n, "equation", ""); *p; p++) {
    if (*p == ' ') continue;
    if (*p == ',' && !q->has_result) {
      if (q->n++ == 16) return raw_fault(n, "has more than 16 operands");
    } else if (p[0] == '-' && p[1] == '>' && !q->has_result) {
      q->has_result = true;
      p++;
    } else {
      if (!add_letter(n, q->has_result ? q->result : q->term[q->n - 1], *p)) return false;
      if (*p == '.' && (p[1] != '.' || p[2] != '.')) return raw_fault(n, "the equation contains \".\"");
      if (*p == '.') p += 2;
    }
  }
  if (!q->has_result) implicit_result(q);
  if (q->n != n->n_in) return raw_fault(n, "the equation has %d terms for %d inputs", q->n, n->n_in);
  for (const char *p = q->result; *p; p++) {
    bool found = false;
    for (int i = 0; i < q->n; i++) found = found || has(q->term[i], *p) || *p == '.';
    if (!found) return raw_fault(n, "the equation's result has a letter of no term: %c", *p);
    if (strchr(p + 1, *p)) return raw_fault(n, "the equation's result has a letter twice: %c", *p);
  }
  return true;
}

/* Puts the last `n` of the digits of an ellipsis of `all` dimensions in place of '.'. */
static bool expand(RawNode *node, char *letters, int n, int all) {
  char *at = strchr(letters, '.'), text[2 * LONGEST];
  if (!at) return true;
  snprintf(text, sizeof text, "%.*s%.*s%s", (int)(at - letters), letters, n, &"01234567"[all - n], at + 1);
  if (strlen(text) >= LONGEST) return raw_fault(node, "has a term of more than %d dimensions", MAX_RANK);
  strcpy(letters, text);
  return true;
}

/* The dimensions of ellipses, which are aligned at the last one. */
static bool expand_ellipses(RawNode *n, Equation *q) {
  int dims[16] = {0}, all = 0;
  for (int i = 0; i < q->n; i++) {
    if (!has(q->term[i], '.')) continue;
    int rank = n->in[i] ? n->in[i]->shape.rank : -1;
    if (rank < 0)
      return raw_fault(
          n, "has an ellipsis for an operand (%d) whose shape is not declared: run shape inference on the model", i);
    dims[i] = rank + 1 - (int)strlen(q->term[i]);
    if (dims[i] < 0) return raw_fault(n, "input %d has %d dimensions, its term %s", i, rank, q->term[i]);
    if (dims[i] > all) all = dims[i];
  }
  for (int i = 0; i < q->n; i++)
    if (!expand(n, q->term[i], dims[i], all)) return false;
  return expand(n, q->result, all, all);
}

/* Where a dimension of an ellipsis is 1 in one operand and more in another, the former does without. */
static void drop_ones(Einsum *e, Term *t) {
  int64_t axes[LONGEST];
  size_t n = 0;
  char rest[LONGEST] = "";
  const Shape *s = &t->value->shape;
  for (int i = 0; t->letters[i]; i++)
    if (isdigit((unsigned char)t->letters[i]) && !s->dim[i].sym && s->dim[i].n == 1 && e->size[(int)t->letters[i]] != 1)
      axes[n++] = i;
    else
      append(rest, t->letters[i]);
  if (!n) return;
  t->value = with_ints(e, "Squeeze", t->value, n, axes);
  strcpy(t->letters, rest);
}

/* Takes the diagonal of two dimensions with the same letter; false where there are none. */
static bool take_diagonal(Einsum *e, Term *t) {
  size_t n = strlen(t->letters), twin = 0;
  while (twin < n && !strchr(t->letters + twin + 1, t->letters[twin])) twin++;
  if (twin == n) return false;
  const char letter[] = {t->letters[twin], 0};
  size_t other = (size_t)(strchr(t->letters + twin + 1, *letter) - t->letters), k = 0;
  int64_t perm[LONGEST] = {0}, shape[LONGEST] = {0}, zero = 0, axis, end = INT64_MAX, one = 1;
  char rest[LONGEST] = "";
  for (size_t i = 0; i < n; i++)
    if (i != twin && i != other) perm[k++] = (int64_t)i, append(rest, t->letters[i]);
  axis = (int64_t)k;
  perm[k] = (int64_t)twin;
  perm[k + 1] = (int64_t)other;
  Node *moved = raw_emit(e->node, "Transpose", 1, &t->value, NULL);
  node_set_ints(moved, "perm", n, perm);
  shape[k] = -1;
  Value *step[2] = {size_value(e, letter), constant_ints(e->node, 1, &one)};
  Value *in[5] = {with_ints(e, "Reshape", moved->out[0], k + 1, shape), constant_ints(e->node, 1, &zero),
                  constant_ints(e->node, 1, &end), constant_ints(e->node, 1, &axis),
                  raw_emit(e->node, "Add", 2, step, NULL)->out[0]};
  t->value = raw_emit(e->node, "Slice", 5, in, NULL)->out[0];
  append(rest, *letter);
  strcpy(t->letters, rest);
  return true;
}

static Term read_term(Einsum *e, const Equation *q, int i) {
  Term t = {.value = e->node->in[i]};
  strcpy(t.letters, q->term[i]);
  if (t.value->shape.rank >= 0) drop_ones(e, &t);
  while (take_diagonal(e, &t)) continue;
  return t;
}

/* The sizes of letters as far as the operands' shapes are declared. */
static bool read_sizes(Einsum *e, const Equation *q) {
  for (int c = 0; c < LETTERS; c++) e->size[c] = -1;
  for (int i = 0; i < q->n; i++) {
    const Value *v = e->node->in[i];
    if (!v) return raw_fault(e->node, "input %d is missing", i);
    for (int d = 0; q->term[i][d]; d++) {
      e->source[(int)q->term[i][d]] = e->node->in[i];
      e->axis[(int)q->term[i][d]] = d;
    }
    if (v->shape.rank < 0) continue;
    if (v->shape.rank != (int)strlen(q->term[i]))
      return raw_fault(e->node, "input %d has %d dimensions, its term %s", i, v->shape.rank, q->term[i]);
    for (int d = 0; d < v->shape.rank; d++) {
      int64_t *size = &e->size[(int)q->term[i][d]], n = v->shape.dim[d].sym ? -1 : v->shape.dim[d].n;
      if (isdigit((unsigned char)q->term[i][d]) && (n == 1 || *size == 1))
        n = n > *size ? n : *size;
      else if (n >= 0 && *size >= 0 && *size != n)
        return raw_fault(e->node, "dimension %c is %lld and %lld", q->term[i][d], (long long)*size, (long long)n);
      if (n >= 0) *size = n;
    }
  }
  return true;
}

bool compose_einsum(RawNode *n) {
  Equation q = {0};
  Einsum e = {.node = n};
  if (!parse(n, &q) || !expand_ellipses(n, &q) || !read_sizes(&e, &q)) return false;
  Term t = read_term(&e, &q, 0);
  for (int i = 1; i < q.n; i++) {
    char kept[LETTERS + 1] = ""; /* what the result or a later term still needs */
    strcpy(kept, q.result);
    for (int k = i + 1; k < q.n; k++) strncat(kept, q.term[k], sizeof kept - strlen(kept) - 1);
    Term next = read_term(&e, &q, i);
    if (!contract(&e, t, next, kept, &t)) return false;
  }
  sum_away(&e, &t, q.result, "");
  int64_t *perm = ctx_array(n->reader->ctx, LONGEST, sizeof *perm);
  size_t rank = order(&t, q.result, perm);
  n->n_in = 0;
  raw_set_input(n, 0, t.value);
  raw_become(n, "", rank ? "Transpose" : "Identity");
  if (rank) raw_set_attr(n, (Attr){.name = "perm", .kind = ATTR_INTS, .ints = perm, .n = rank});
  return true;
}
