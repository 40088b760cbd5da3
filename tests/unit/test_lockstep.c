/* Which steps of two tasks are alike, how far the tasks go together, and where their regions then lie.
 *
 * Two tasks read a value that both need. Each has a router of its own, three steps on shared weights, and a head:
 *
 *   value -> router -> first -> second -> third -> head
 */
#include "schedule/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { ROUTER, FIRST, SECOND, THIRD, HEAD, STEPS, TASKS = 2 };

static Kernel product = {.name = "product"}, sum = {.name = "sum"};
static const int64_t table[] = {1, 2, 3}, other_table[] = {1, 2, 4};

typedef struct {
  Program program;
  Schedule schedule;
  Step *step[TASKS][STEPS];
  Unit shared[STEPS], own[TASKS][STEPS];
} Net;

static Storage *add_storage(Net *n, int kind, int64_t bytes) {
  Program *p = &n->program;
  Storage *s = ctx_alloc(p->ctx, sizeof *s);
  *s = (Storage){.kind = (enum StorageKind)kind, .id = (int)p->n_storage, .dtype = DT_F32, .bytes = bytes};
  p->storage = ctx_grow(p->ctx, p->storage, p->n_storage, &p->cap_storage, sizeof *p->storage);
  return p->storage[p->n_storage++] = s;
}

/* Reads two values (from NULL: none) and writes one; its numbers are those of a product. */
static Step *add_step(Net *n, Segment *segment, Storage *a, Storage *b, Storage *to, Unit *unit) {
  Ctx *c = n->program.ctx;
  Step *s = ctx_alloc(c, sizeof *s);
  *s = (Step){.kind = STEP_CALL, .kernel = &product, .unit = unit, .tasks = segment->tasks};
  s->arg = ctx_array(c, 5, sizeof *s->arg);
  if (a) s->arg[s->n_args++] = (Arg){.kind = ARG_READ, .dtype = DT_F32, .storage = a};
  if (b) s->arg[s->n_args++] = (Arg){.kind = ARG_READ, .dtype = DT_F32, .storage = b};
  s->arg[s->n_args++] = (Arg){.kind = ARG_WRITE, .dtype = DT_F32, .storage = to};
  s->arg[s->n_args++] = (Arg){.kind = ARG_SIZE, .i = 96};
  s->arg[s->n_args++] = (Arg){.kind = ARG_TABLE, .table = table, .n_table = 3};
  segment->step = ctx_grow(c, segment->step, segment->n_steps, &segment->cap_steps, sizeof *segment->step);
  return segment->step[segment->n_steps++] = s;
}

static Net *make_net(Ctx *c, int64_t value_bytes, int64_t unit_bytes) {
  Net *n = ctx_alloc(c, sizeof *n);
  n->program.ctx = c;
  n->schedule.segment = ctx_array(c, TASKS + 1, sizeof *n->schedule.segment);
  n->schedule.n_segments = TASKS + 1;
  Segment *s = n->schedule.segment;
  s[0].tasks = 3;
  Storage *value = add_storage(n, ST_ARENA, value_bytes);
  add_step(n, &s[0], NULL, NULL, value, NULL);
  for (int t = 0; t < TASKS; t++) {
    Storage *before = value, *x = value;
    s[1 + t].tasks = (uint64_t)1 << t;
    for (int i = 0; i < STEPS; i++) {
      Storage *to = add_storage(n, i == HEAD ? ST_OUTPUT : ST_ARENA, value_bytes);
      n->shared[i].bytes = n->own[t][i].bytes = unit_bytes;
      Unit *unit = i == ROUTER || i == HEAD ? &n->own[t][i] : &n->shared[i];
      n->step[t][i] = add_step(n, &s[1 + t], x, before, to, unit);
      before = x;
      x = to;
    }
  }
  return n;
}

/* The steps that go together; 0: none. */
static size_t together(Net *n) {
  schedule_lockstep(&n->program, &n->schedule);
  if (!n->schedule.n_lockstep) {
    assert_int_equal(n->schedule.n_segments, TASKS + 1);
    return 0;
  }
  assert_int_equal(n->schedule.n_lockstep, 1);
  assert_int_equal(n->schedule.lockstep->first, 1);
  assert_int_equal(n->schedule.lockstep->n, TASKS);
  assert_int_equal(n->schedule.n_segments, 2 * TASKS + 1);
  const Segment *s = n->schedule.segment;
  for (size_t i = 1; i < n->schedule.n_segments; i++) assert_true(s[i].in_lockstep == (i <= TASKS));
  assert_int_equal(s[1].n_steps, s[2].n_steps);
  assert_int_equal(s[1].n_steps + s[4].n_steps, STEPS);
  assert_true(s[3].tasks == s[2].tasks && s[4].tasks == s[1].tasks); /* what lies highest goes on first */
  return s[1].n_steps;
}

/* ---- what is alike ---- */

static void nothing(Net *n, Step *s) { (void)n, (void)s; }
static void kernel(Net *n, Step *s) { (void)n, s->kernel = &sum; }
static void number(Net *n, Step *s) { (void)n, s->arg[3].i = 97; }
static void numbers(Net *n, Step *s) { (void)n, s->arg[4].table = other_table; }
static void offset(Net *n, Step *s) { (void)n, s->arg[0].offset = 4; }
static void type(Net *n, Step *s) { (void)n, s->arg[0].dtype = DT_I32; }
static void fewer(Net *n, Step *s) { (void)n, s->n_args--; }
static void same_value_twice(Net *n, Step *s) { (void)n, s->arg[1].storage = s->arg[0].storage; }
static void other_tasks_value(Net *n, Step *s) { (void)s, s->arg[0].storage = n->step[0][FIRST]->arg[2].storage; }
static void common_value(Net *n, Step *s) { s->arg[1].storage = n->schedule.segment[0].step[0]->arg[0].storage; }
static void larger(Net *n, Step *s) { (void)n, s->arg[2].storage->bytes *= 2; }
static void without_weights(Net *n, Step *s) { (void)n, s->unit = NULL; }
static void own_weights(Net *n, Step *s) { s->unit = &n->own[1][SECOND]; }
static void in_place(Net *n, Step *s) {
  for (int t = 0; t < TASKS; t++) {
    n->step[t][SECOND]->arg[1] = (Arg){.kind = ARG_UPDATE, .dtype = DT_F32};
    common_value(n, n->step[t][SECOND]);
  }
  (void)s;
}

static const struct {
  const char *what;
  void (*change)(Net *n, Step *s); /* of the second task's second step */
  size_t steps;
} cases[] = {{"nothing", nothing, 4},
             {"kernel", kernel, 2},
             {"number", number, 2},
             {"table", numbers, 2},
             {"offset", offset, 2},
             {"type", type, 2},
             {"fewer arguments", fewer, 2},
             {"one value for two", same_value_twice, 2},
             {"another task's value", other_tasks_value, 2},
             {"a common value for its own", common_value, 2},
             {"size of a value", larger, 2},
             {"no weights", without_weights, 2},
             {"weights of its own", own_weights, 4},
             {"both write a common value", in_place, 2}};

static void alike(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    Ctx *c = ctx_new();
    Net *n = make_net(c, 64, 100000);
    cases[i].change(n, n->step[1][SECOND]);
    size_t steps = together(n);
    if (steps != cases[i].steps) fail_msg("%s: %zu steps go together", cases[i].what, steps);
    ctx_free(c);
  }
}

/* Values that are large beside the weights are not kept for both tasks at once. */
static void worth_it(void **state) {
  (void)state;
  Ctx *c = ctx_new();
  assert_int_equal(together(make_net(c, 1 << 20, 1000)), 0);
  assert_int_equal(together(make_net(c, 1000, 1 << 20)), 4);
  Net *n = make_net(c, 64, 1000);
  for (int t = 0; t < TASKS; t++) n->step[t][THIRD]->arg[2].storage->bytes = 1 << 20;
  assert_int_equal(together(n), 3); /* the third would save less than its value takes */
  ctx_free(c);
}

/* ---- where it lies ---- */

static void regions(void **state) {
  (void)state;
  Ctx *c = ctx_new();
  Net *n = make_net(c, 64, 100000);
  /* only the second task's head wants what its first step made, and the common value */
  n->step[1][HEAD]->arg[0].storage = n->step[1][FIRST]->arg[2].storage;
  common_value(n, n->step[1][HEAD]);
  assert_int_equal(together(n), 4);
  schedule_memory(&n->program, &n->schedule);
  const Schedule *s = &n->schedule;
  const Storage *value = s->segment[0].step[0]->arg[0].storage;
  int64_t kept = n->step[1][FIRST]->arg[2].storage->offset;
  for (int i = ROUTER; i < HEAD; i++) { /* one plan for both, clear of what either wants later */
    const Storage *a = n->step[0][i]->arg[2].storage, *b = n->step[1][i]->arg[2].storage;
    assert_int_equal(a->offset, b->offset);
    assert_int_not_equal(a->offset, value->offset);
    if (i != FIRST) assert_int_not_equal(a->offset, kept);
  }
  assert_int_equal(s->base_all[1], s->segment[0].exports);
  assert_int_equal(s->base_all[2], s->base_all[1] + s->segment[1].bytes);
  assert_int_equal(s->segment[1].bytes, s->segment[2].bytes);
  assert_true(s->base_all[3] >= s->base_all[2] + s->segment[2].exports); /* the second task's head */
  assert_true(s->base_all[4] >= s->base_all[1] + s->segment[1].exports);
  assert_true(s->arena_all >= s->base_all[2] + s->segment[2].bytes);
  assert_int_equal(arena_of_task(s, 0), s->segment[1].bytes); /* regions of one task lie over each other */
  ctx_free(c);
}

static void loads(void **state) {
  (void)state;
  Unit u = {.bytes = 10, .count = 8};
  Step body[1] = {{.kind = STEP_CALL, .unit = &u}};
  Step loop = {.kind = STEP_EXPERTS, .unit = &u, .body = body, .n_body = 1, .experts = 8, .queue_entries = 3};
  Step call = {.kind = STEP_CALL, .unit = &u};
  assert_int_equal(step_most_loads_together(&call, 5), 10);
  assert_int_equal(step_most_loads_together(&loop, 1), 30);
  assert_int_equal(step_most_loads_together(&loop, 2), 60);
  assert_int_equal(step_most_loads_together(&loop, 3), 80); /* there are no more */
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(alike), cmocka_unit_test(worth_it), cmocka_unit_test(regions),
                                     cmocka_unit_test(loads)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
