/* What verify says: lines as it goes, or one JSON object at the end. */
#include "io/json.h"
#include "cli/verify.h"

static const char *task_names(const Report *r, uint64_t tasks) {
  Text t = {.ctx = r->ctx};
  for (size_t i = 0; i < r->run->graph->n_tasks; i++)
    if (tasks >> i & 1) text_add(&t, "%s%s", t.len ? "," : "", r->run->graph->tasks[i].name);
  return t.text ? t.text : "";
}

static const char *layer_name(const Node *n) { return n->scope && *n->scope ? n->scope : n->name; }

/* ---- for people ---- */

static void print_output(const SetResult *s, const OutputResult *o) {
  printf("%s %s %s: ", s->name, o->task, o->output);
  if (!o->r.same_shape) {
    printf("FAILED: is %s, expected %s\n", o->got, o->expected);
    return;
  }
  printf("%s error %.3g of largest %.3g (%.2g)", o->r.ok ? "ok:" : "FAILED:", o->r.error, o->r.largest, o->r.relative);
  if (!o->r.ok) printf(", largest at element %lld: is %s, expected %s", (long long)o->r.at, o->got, o->expected);
  printf("\n");
}

static void print_routing(const Report *r, const SetResult *s) {
  const Routing *m = &s->routing;
  if (!m->node) {
    printf("%s routing: no expert is rejected anywhere\n", s->name);
    return;
  }
  printf("%s routing: smallest margin %.3g (%s) at token %lld of \"%s\", task %s\n", s->name, m->margin, m->of,
         (long long)m->token, layer_name(m->node), task_names(r, m->node->tasks));
}

static void print_layers(const Report *r, const SetResult *s) {
  const LayerResults *l = &s->layers;
  for (size_t i = 0; i < l->n; i++) {
    const Value *v = l->layer[i].value;
    printf("%s layer %s %.2g \"%s\" %s\n", s->name, l->layer[i].r.ok ? "ok:" : "DIFFERS:", l->layer[i].r.relative,
           v->name, shape_text(r->ctx, v->dtype, &v->shape));
  }
  if (l->first < 0) {
    printf("%s layers: %zu values agree with the plain graph's\n", s->name, l->n);
    return;
  }
  const LayerResult *first = &l->layer[l->first];
  const Node *n = computing_node(r->run, first->value);
  printf("%s layers: the first that differs is \"%s\", by %.3g of %.3g at element %lld: node %d \"%s\" (%s), layer "
         "\"%s\", "
         "task %s, kernel %s\n",
         s->name, first->value->name, first->r.error, first->r.largest, (long long)first->r.at, n->id, n->name,
         n->op_type ? n->op_type : op_info(n->op)->name, n->scope, task_names(r, n->tasks), kernels_of(r->run, n));
}

void report_set_text(const Report *r, const SetResult *s) {
  for (size_t i = 0; i < s->n_outputs; i++) print_output(s, &s->output[i]);
  for (size_t i = 0; i < s->n_skipped; i++)
    printf("%s %s: skipped: the data set has no such output\n", s->name, s->skipped[i]);
  if (r->has_moe) print_routing(r, s);
  if (r->has_layers) print_layers(r, s);
  (void)fflush(stdout);
}

void report_text(const Report *r) {
  printf("%zu outputs in %zu data sets, %zu wrong; largest relative error %.2g\n", r->outputs, r->n_sets, r->wrong,
         r->worst);
}

/* ---- for programs ---- */

static void json_comparison(const Report *r, const Comparison *c) {
  printf("\"ok\": %s, \"error\": %s, \"largest\": %s, \"relative\": %s", c->ok ? "true" : "false",
         c->same_shape ? json_number(r->ctx, c->error) : "null",
         c->same_shape ? json_number(r->ctx, c->largest) : "null",
         c->same_shape ? json_number(r->ctx, c->relative) : "null");
}

static void json_output(const Report *r, const OutputResult *o) {
  Ctx *c = r->ctx;
  printf("{\"task\": %s, \"output\": %s, ", json_text(c, o->task), json_text(c, o->output));
  json_comparison(r, &o->r);
  if (!o->r.ok)
    printf(", \"element\": %lld, \"is\": %s, \"expected\": %s", (long long)o->r.at, json_text(c, o->got),
           json_text(c, o->expected));
  printf("}");
}

static void json_routing(const Report *r, const Routing *m) {
  Ctx *c = r->ctx;
  printf(",\n     \"routing\": ");
  if (!m->node) {
    printf("null");
    return;
  }
  printf("{\"margin\": %s, \"of\": \"%s\", \"token\": %lld, \"layer\": %s, \"tasks\": %s}", json_number(c, m->margin),
         m->of, (long long)m->token, json_text(c, layer_name(m->node)), json_text(c, task_names(r, m->node->tasks)));
}

static void json_layers(const Report *r, const LayerResults *l) {
  Ctx *c = r->ctx;
  printf(",\n     \"layers\": [");
  for (size_t i = 0; i < l->n; i++) {
    printf("%s\n       {\"value\": %s, ", i ? "," : "", json_text(c, l->layer[i].value->name));
    json_comparison(r, &l->layer[i].r);
    printf("}");
  }
  printf("],\n     \"first_that_differs\": ");
  if (l->first < 0) {
    printf("null");
    return;
  }
  const Node *n = computing_node(r->run, l->layer[l->first].value);
  printf("{\"value\": %s, \"node\": %s, \"operator\": %s, \"layer\": %s, \"tasks\": %s, \"kernel\": %s}",
         json_text(c, l->layer[l->first].value->name), json_text(c, n->name),
         json_text(c, n->op_type ? n->op_type : op_info(n->op)->name), json_text(c, n->scope),
         json_text(c, task_names(r, n->tasks)), json_text(c, kernels_of(r->run, n)));
}

static void json_set(const Report *r, const SetResult *s) {
  printf("\n    {\"set\": %s, \"outputs\": [", json_text(r->ctx, s->name));
  for (size_t i = 0; i < s->n_outputs; i++) {
    printf("%s\n       ", i ? "," : "");
    json_output(r, &s->output[i]);
  }
  printf("],\n     \"skipped\": [");
  for (size_t i = 0; i < s->n_skipped; i++) printf("%s%s", i ? ", " : "", json_text(r->ctx, s->skipped[i]));
  printf("]");
  if (r->has_moe) json_routing(r, &s->routing);
  if (r->has_layers) json_layers(r, &s->layers);
  printf("}");
}

void report_json(const Report *r) {
  Ctx *c = r->ctx;
  printf("{\"model\": %s, \"folder\": %s, \"engine\": \"%s\", \"target\": \"%s\", \"outputs\": %zu, "
         "\"wrong\": %zu, \"largest_relative_error\": %s,\n"
         "  \"sets\": [",
         json_text(c, r->model), json_text(c, r->folder), r->engine, r->run->program->target->name, r->outputs,
         r->wrong, json_number(c, r->worst));
  for (size_t i = 0; i < r->n_sets; i++) {
    printf("%s", i ? "," : "");
    json_set(r, &r->set[i]);
  }
  printf("]}\n");
}
