/* Calls of model-local functions and If with a constant condition: the body takes the node's place.
 *
 * A body is converted afresh for each call, its names prefixed with the call's, so that they stay unique and say where
 * they came from. Its results are given the values that the call's outputs already have.
 */
#include "frontend.h"

#include <string.h>

enum { MOST_DEPTH = 100, LONGEST_PREFIX = 200 };

static const char *text(const char *s) { return s ? s : ""; }
static const char *domain_of(const char *s) { return !s || strcmp(s, "ai.onnx") == 0 ? "" : s; }

/* ---- which function ---- */

static const char *key_of(Ctx *c, const char *domain, const char *name, const char *overload) {
  return ctx_format(c, "%s:%s:%s", domain_of(domain), text(name), text(overload));
}

void functions_index(Reader *r) {
  for (size_t i = 0; i < r->model->n_functions; i++) {
    const Onnx__FunctionProto *f = r->model->functions[i];
    const char *key = key_of(r->ctx, f->domain, f->name, f->overload);
    if (names_find(&r->functions, key))
      ctx_report(r->ctx, NULL, "function %s of domain %s is defined twice", quoted(r->ctx, text(f->name)),
                 quoted(r->ctx, text(f->domain)));
    else
      names_add(r->ctx, &r->functions, key, BY_NODE, i);
  }
}

const Onnx__FunctionProto *function_find(Reader *r, const Onnx__NodeProto *n) {
  if (!r->functions.n) return NULL;
  const Def *d = names_find(&r->functions, key_of(r->ctx, n->domain, n->op_type, n->overload));
  return d ? r->model->functions[d->index] : NULL;
}

/* ---- what both share ---- */

static const char *prefix_for(Ctx *c, const Body *b, const RawNode *n, const char *fallback) {
  const char *name = *text(n->proto->name) ? n->proto->name : fallback;
  if (strlen(b->prefix) + strlen(name) < LONGEST_PREFIX) return ctx_format(c, "%s%s/", b->prefix, name);
  return ctx_format(c, "inlined_%zu/", n->reader->n_nodes);
}

static void check_depth(const RawNode *n, const Body *b) {
  if (b->depth >= MOST_DEPTH)
    ctx_fail(n->reader->ctx, NULL, "%s: calls are nested deeper than %d", n->where, MOST_DEPTH);
}

/* Results that another name already holds (an input, a constant, a result given twice) get a copy. */
static void copy_results(RawNode *n, Body *inner) {
  for (size_t i = 0; i < inner->n_out_name; i++) {
    if (!inner->result[i]) continue;
    const char *name = inner->out_name[i];
    Value *v = NULL;
    bool known = false;
    for (const Body *in = inner; in && !known; in = in->outer) {
      const Def *d = names_find(&in->names, name);
      known = d != NULL;
      if (d) v = d->value;
    }
    if (!known) raw_fault(n, "its result %s is defined nowhere in its body", quoted(n->reader->ctx, name));
    if (known && !v) raw_fault(n, "its result %s is an input that the call leaves out", quoted(n->reader->ctx, name));
    if (v && v != inner->result[i]) raw_emit(n, "Identity", 1, &v, inner->result[i]);
  }
}

static void set_results(RawNode *n, Body *inner, char **names, size_t count) {
  inner->out_name = names;
  inner->n_out_name = count;
  inner->result = ctx_array(n->reader->ctx, count + 1, sizeof *inner->result);
  for (size_t i = 0; i < count && i < (size_t)n->n_out; i++) inner->result[i] = n->out[i];
}

/* ---- functions ---- */

/* A function that is being inlined already must not be called again: prints the cycle. */
static bool check_recursion(RawNode *n, const Body *b, const Onnx__FunctionProto *f) {
  Ctx *c = n->reader->ctx;
  const char *path = quoted(c, text(f->name));
  for (const Body *in = b; in; in = in->caller ? in->caller : in->outer) {
    if (in->function && in->caller) path = ctx_format(c, "%s -> %s", quoted(c, text(in->function->name)), path);
    if (in->function == f) return raw_fault(n, "the function calls itself: %s", path);
  }
  return true;
}

static bool declares(const Onnx__FunctionProto *f, const char *attr) {
  for (size_t i = 0; i < f->n_attribute; i++)
    if (strcmp(f->attribute[i], attr) == 0) return true;
  for (size_t i = 0; i < f->n_attribute_proto; i++)
    if (f->attribute_proto[i]->name && strcmp(f->attribute_proto[i]->name, attr) == 0) return true;
  return false;
}

/* What ref_attr_name in the body can refer to: the call's attributes, then the defaults of the others. */
static bool collect_attributes(RawNode *n, const Onnx__FunctionProto *f, Body *inner) {
  Ctx *c = n->reader->ctx;
  Attr *attr = ctx_array(c, n->n_attr + f->n_attribute_proto + 1, sizeof *attr);
  size_t count = 0;
  bool good = true;
  for (size_t i = 0; i < n->n_attr; i++) {
    if (!declares(f, n->attr[i].name))
      good =
          raw_fault(n, "attribute %s does not exist: the function has none of that name", quoted(c, n->attr[i].name));
    attr[count++] = n->attr[i];
  }
  for (size_t i = 0; i < f->n_attribute_proto; i++) {
    const Onnx__AttributeProto *a = f->attribute_proto[i];
    if (!a->name || raw_attr(n, a->name)) continue;
    if (attribute_convert(n, a, &attr[count]))
      count++;
    else
      good = false;
  }
  inner->attr = attr;
  inner->n_attr = count;
  return good;
}

static void define_arguments(RawNode *n, Body *inner, const Onnx__FunctionProto *f) {
  for (size_t i = 0; i < f->n_input; i++) {
    Def *d = body_define(n->reader, inner, f->input[i], BY_INPUT, i);
    if (!d) continue;
    d->value = i < (size_t)n->n_in ? n->in[i] : NULL;
    d->ready = true;
  }
}

static const char *scope_of_call(RawNode *n, const Body *b, const Onnx__FunctionProto *f) {
  if (strcmp(n->scope, b->scope) != 0) return n->scope; /* the node says which layer it is */
  const char *own = *text(n->proto->name) ? n->proto->name : text(f->name);
  return scope_join(n->reader->ctx, b->scope, own);
}

void inline_call(RawNode *n, const Body *b, const Onnx__FunctionProto *f) {
  Reader *r = n->reader;
  check_depth(n, b);
  if (!check_recursion(n, b, f)) return;
  if ((size_t)n->n_in > f->n_input || (size_t)n->n_out > f->n_output) {
    raw_fault(n, "is called with %d inputs and %d outputs, but the function has %zu and %zu", n->n_in, n->n_out,
              f->n_input, f->n_output);
    return;
  }
  Body inner = {.caller = b,
                .function = f,
                .node = f->node,
                .n_node = f->n_node,
                .opset = f->opset_import,
                .n_opset = f->n_opset_import,
                .depth = b->depth + 1};
  inner.prefix = prefix_for(r->ctx, b, n, text(f->name));
  inner.scope = scope_of_call(n, b, f);
  opset_check(r, f->opset_import, f->n_opset_import, ctx_format(r->ctx, "function %s", quoted(r->ctx, text(f->name))));
  if (!collect_attributes(n, f, &inner)) return;
  set_results(n, &inner, f->output, f->n_output);
  define_arguments(n, &inner, f);
  body_define_outputs(r, &inner);
  body_convert(r, &inner);
  copy_results(n, &inner);
}

/* ---- If ---- */

static const Onnx__GraphProto *branch(const RawNode *n, const char *name) {
  for (size_t i = 0; i < n->proto->n_attribute; i++) {
    const Onnx__AttributeProto *a = n->proto->attribute[i];
    if (a->name && strcmp(a->name, name) == 0) return a->g;
  }
  return NULL;
}

bool inline_if(RawNode *n, const Body *b) {
  Reader *r = n->reader;
  const Tensor *condition = n->n_in == 1 && n->in[0] ? n->in[0]->tensor : NULL;
  if (!condition || condition->dtype != DT_BOOL || tensor_count(condition) != 1) return false;
  const Onnx__GraphProto *g = branch(n, tensor_integer(condition, 0) ? "then_branch" : "else_branch");
  if (!g) return raw_fault(n, "has no branch for its condition"), true;
  if (g->n_output != (size_t)n->n_out)
    return raw_fault(n, "has %d outputs, but its branch has %zu", n->n_out, g->n_output), true;
  check_depth(n, b);
  Body inner = {.outer = b,
                .caller = b->caller,
                .function = b->function,
                .node = g->node,
                .n_node = g->n_node,
                .opset = b->opset,
                .n_opset = b->n_opset,
                .attr = b->attr,
                .n_attr = b->n_attr,
                .depth = b->depth + 1};
  inner.prefix = prefix_for(r->ctx, b, n, "If");
  inner.scope = n->scope;
  char **names = ctx_array(r->ctx, g->n_output + 1, sizeof *names);
  for (size_t i = 0; i < g->n_output; i++) names[i] = g->output[i]->name ? g->output[i]->name : ctx_strdup(r->ctx, "");
  set_results(n, &inner, names, g->n_output);
  body_define_initializers(r, &inner, g);
  body_load_initializers(r, &inner, g);
  body_define_outputs(r, &inner);
  body_convert(r, &inner);
  copy_results(n, &inner);
  return true;
}
