/* Einsum, as Transpose, Reshape and MatMul.
 *
 * Operands are contracted from left to right. Of two operands a and b each letter is of one kind: batch (in both and
 * kept), inner (in both and summed), outer (in one and kept) or summed at once (in one, not kept). a becomes
 * [batch, outer a, inner], b [batch, inner, outer b], and MatMul does the rest; several letters of a kind are joined
 * into one dimension, which needs their sizes, none becomes a dimension of 1.
 */
#include "frontend.h"

#include <ctype.h>
#include <string.h>

enum { LETTERS = 128, LONGEST = MAX_RANK + 1 };

typedef struct {
  RawNode *node;
  int64_t size[LETTERS]; /* of each letter's dimension; -1 not known */
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

/* Makes one dimension each of the last two groups of letters, [batch, first, second]; false if a size is not known. */
static bool join(Einsum *e, Term *t, const char *batch, const char *first, const char *second) {
  if (strlen(first) == 1 && strlen(second) == 1) return true;
  int64_t shape[LONGEST + 2] = {0}; /* 0: as it is */
  size_t n = strlen(batch);
  shape[n++] = joined_size(e, first);
  shape[n++] = joined_size(e, second);
  if (shape[n - 1] < 0 && shape[n - 2] < 0) return false;
  t->value = with_ints(e, "Reshape", t->value, n, shape);
  return true;
}

/* Gives every letter its own dimension again. */
static bool split(Einsum *e, Term *t, const char *batch, const char *first, const char *second) {
  if (strlen(first) == 1 && strlen(second) == 1) return true;
  int64_t shape[LONGEST] = {0};
  size_t n = strlen(batch);
  for (const char *p = first; *p; p++) shape[n++] = e->size[(int)*p];
  for (const char *p = second; *p; p++) shape[n++] = e->size[(int)*p];
  size_t unknown = 0;
  for (size_t i = 0; i < n; i++) unknown += shape[i] < 0;
  if (unknown > 1) return false;
  t->value = with_ints(e, "Reshape", t->value, n, shape);
  return true;
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
  if (!join(e, &a, batch, left, inner) || !join(e, &b, batch, inner, right))
    return raw_fault(e->node, "needs the shapes of its operands declared: run shape inference on the model");
  Value *in[2] = {a.value, b.value};
  out->value = raw_emit(e->node, "MatMul", 2, in, NULL)->out[0];
  snprintf(text, sizeof text, "%s%s%s", batch, left, right);
  strcpy(out->letters, text);
  return split(e, out, batch, left, right) ||
         raw_fault(e->node, "needs the shapes of its operands declared: run shape inference on the model");
}

/* ---- the equation ---- */

typedef struct {
  char term[16][LONGEST];
  int n;
  char result[LONGEST];
  bool has_result;
} Equation;

/* One letter of a term, which it may not have already. */
static bool add_letter(RawNode *n, char *letters, char c) {
  if (c == '.') return raw_fault(n, "an ellipsis in the equation is not supported: export with named dimensions");
  if (!isalpha((unsigned char)c))
    return raw_fault(n, "the equation contains \"%c\"", isprint((unsigned char)c) ? c : '?');
  if (has(letters, c)) return raw_fault(n, "the equation takes a diagonal (%c), which is not supported", c);
  if (strlen(letters) == MAX_RANK) return raw_fault(n, "the equation has more than %d letters in a term", MAX_RANK);
  append(letters, c);
  return true;
}

/* Without "->": the letters that occur once, in order of the alphabet. */
static void implicit_result(Equation *q) {
  for (char c = 'A'; c <= 'z'; c++) {
    int terms = 0;
    for (int i = 0; i < q->n && isalpha((unsigned char)c); i++) terms += has(q->term[i], c);
    if (terms == 1) append(q->result, c);
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
    } else if (!add_letter(n, q->has_result ? q->result : q->term[q->n - 1], *p)) {
      return false;
    }
  }
  if (!q->has_result) implicit_result(q);
  if (q->n != n->n_in) return raw_fault(n, "the equation has %d terms for %d inputs", q->n, n->n_in);
  for (const char *p = q->result; *p; p++) {
    bool found = false;
    for (int i = 0; i < q->n; i++) found = found || has(q->term[i], *p);
    if (!found) return raw_fault(n, "the equation's result has a letter of no term: %c", *p);
  }
  return true;
}

/* The sizes of letters as far as the operands' shapes are declared. */
static bool read_sizes(Einsum *e, const Equation *q) {
  for (int c = 0; c < LETTERS; c++) e->size[c] = -1;
  for (int i = 0; i < q->n; i++) {
    const Value *v = e->node->in[i];
    if (!v) return raw_fault(e->node, "input %d is missing", i);
    if (v->shape.rank < 0) continue;
    if (v->shape.rank != (int)strlen(q->term[i]))
      return raw_fault(e->node, "input %d has %d dimensions, its term %s", i, v->shape.rank, q->term[i]);
    for (int d = 0; d < v->shape.rank; d++) {
      int64_t *size = &e->size[(int)q->term[i][d]], n = v->shape.dim[d].sym ? -1 : v->shape.dim[d].n;
      if (n >= 0 && *size >= 0 && *size != n)
        return raw_fault(e->node, "dimension %c is %lld and %lld", q->term[i][d], (long long)*size, (long long)n);
      if (n >= 0) *size = n;
    }
  }
  return true;
}

bool compose_einsum(RawNode *n) {
  Equation q = {0};
  Einsum e = {.node = n};
  if (!parse(n, &q) || !read_sizes(&e, &q)) return false;
  Term t = {.value = n->in[0]};
  strcpy(t.letters, q.term[0]);
  for (int i = 1; i < q.n; i++) {
    char kept[LETTERS + 1] = ""; /* what the result or a later term still needs */
    strcpy(kept, q.result);
    for (int k = i + 1; k < q.n; k++) strncat(kept, q.term[k], sizeof kept - strlen(kept) - 1);
    Term next = {.value = n->in[i]};
    strcpy(next.letters, q.term[i]);
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
