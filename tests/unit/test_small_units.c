/* Which small weight units come with a neighbour, what the joined unit holds, and how often it is then taken.
 *
 * A program is a line of text with a character for each step, '|' between segments:
 *
 *   a … y   takes the small unit of that letter      .       takes none
 *   A … Y   takes the large one                      *       is an expert loop
 *   1, 2    this segment is of that task only, not of both
 *
 * and what becomes of it is written step by step: the units whose parts its unit has, in their order, or '=' where the
 * unit is there already. Behind all others comes a segment that takes the largest unit, Z, as whose size the buffers
 * have.
 */
#include "emit/emit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SMALL = 100, LARGE = 40001, LARGEST = 100000, LIMIT = 16 << 10, EXPERTS = 4, SEGMENTS = 8, STEPS = 32 };

typedef struct {
  int64_t a, largest; /* bytes of the units a and Z; 0: SMALL, LARGEST */
  size_t tasks;       /* in lockstep; 0: two, and not in lockstep */
} Setting;

static const Setting usual = {0};

typedef struct {
  Setting setting;
  Program program;
  Graph graph;
  Schedule schedule;
  Unit *unit[128]; /* by letter; '*': the experts' */
  Storage storage;
  Step *step[STEPS];
  char letter[STEPS]; /* by step: the unit that it was made with */
  size_t n_steps;
} Net;

/* ---- programs ---- */

static unsigned char content(int64_t letter, int64_t part, int64_t i) {
  return (unsigned char)(1 + (letter * 7 + part * 31 + i * 3) % 255);
}

static void write_part(const UnitPart *p, int64_t expert, void *dst) {
  unsigned char *to = dst;
  (void)expert;
  for (int64_t i = 0; i < p->bytes; i++) to[i] = content(p->param[0], p->param[1], i);
}

static void add_part(Ctx *c, Unit *u, int64_t letter, int64_t offset, int64_t bytes) {
  u->part = ctx_grow(c, u->part, u->n_parts, &u->cap_parts, sizeof *u->part);
  u->part[u->n_parts] = (UnitPart){.offset = offset, .bytes = bytes, .write = write_part, .layout = 1};
  u->part[u->n_parts].param[0] = letter;
  u->part[u->n_parts].param[1] = (int64_t)u->n_parts;
  u->n_parts++;
}

static int64_t bytes_of(const Net *n, int letter) {
  if (letter == 'a' && n->setting.a) return n->setting.a;
  if (letter == 'Z') return n->setting.largest ? n->setting.largest : LARGEST;
  return letter >= 'a' ? SMALL : LARGE;
}

/* The unit of a letter, of two parts. */
static Unit *unit_of(Net *n, int letter) {
  Program *p = &n->program;
  if (n->unit[letter]) return n->unit[letter];
  const int64_t bytes = bytes_of(n, letter);
  Unit *u = ctx_alloc(p->ctx, sizeof *u);
  *u = (Unit){.id = (int)p->n_units, .bytes = bytes, .count = letter == '*' ? EXPERTS : 1};
  const int64_t first = bytes / 2, second = round_up(first, 64);
  add_part(p->ctx, u, letter, 0, first);
  add_part(p->ctx, u, letter, second, bytes - second);
  p->unit = ctx_grow(p->ctx, p->unit, p->n_units, &p->cap_units, sizeof *p->unit);
  return n->unit[letter] = p->unit[p->n_units++] = u;
}

/* Arguments of a call: a value, the unit's first part, and two operands, one of them its second part. */
static void add_args(Net *n, Step *s) {
  Ctx *c = n->program.ctx;
  const Arg value = {.kind = ARG_READ, .dtype = DT_F32, .storage = &n->storage, .offset = 64};
  s->arg = ctx_array(c, 3, sizeof *s->arg);
  s->arg[s->n_args++] = value;
  if (!s->unit) return;
  s->arg[s->n_args++] = (Arg){.kind = ARG_WEIGHT, .dtype = DT_F32};
  Arg *operand = ctx_array(c, 4, sizeof *operand);
  operand[0] = value;
  operand[1] = (Arg){.kind = ARG_SIZE, .i = 64};
  operand[2] = (Arg){.kind = ARG_WEIGHT, .dtype = DT_F32, .offset = s->unit->part[1].offset};
  operand[3] = (Arg){.kind = ARG_SIZE, .i = 64};
  s->arg[s->n_args++] = (Arg){.kind = ARG_OPERANDS, .operand = operand, .n_operands = 2};
}

static void add_step(Net *n, Segment *segment, int letter) {
  Program *p = &n->program;
  Ctx *c = p->ctx;
  Step *s = ctx_alloc(c, sizeof *s);
  Node *node = ctx_alloc(c, sizeof *node);
  const char *kind = letter == '*' ? "loop" : letter >= 'a' ? "small" : "large";
  *node = (Node){.op_type = "MatMul", .name = ctx_format(c, "/%s/%c/MatMul", kind, letter), .scope = ""};
  *s = (Step){.kind = letter == '*' ? STEP_EXPERTS : STEP_CALL, .tasks = segment->tasks, .node = node};
  if (letter != '.') s->unit = unit_of(n, letter);
  if (s->unit) s->unit->tasks |= segment->tasks;
  add_args(n, s);
  if (s->kind == STEP_EXPERTS) {
    Step *body = ctx_alloc(c, sizeof *body);
    *body = *s;
    body->kind = STEP_CALL;
    s->body = body;
    s->n_body = 1;
    s->n_args = 0;
    s->experts = s->queue_entries = EXPERTS;
  }
  segment->step = ctx_grow(c, segment->step, segment->n_steps, &segment->cap_steps, sizeof *segment->step);
  segment->step[segment->n_steps++] = s;
  *(p->last ? &p->last->next : &p->first) = s;
  p->last = s;
  n->letter[n->n_steps] = (char)letter;
  n->step[n->n_steps++] = s;
}

static Net *make_net(Ctx *c, const char *program, Setting setting) {
  Net *n = ctx_alloc(c, sizeof *n);
  n->setting = setting;
  n->graph.n_tasks = setting.tasks ? setting.tasks : 2;
  n->graph.tasks = ctx_array(c, 2, sizeof *n->graph.tasks);
  n->graph.tasks[0].name = "depth", n->graph.tasks[1].name = "edges";
  n->program =
      (Program){.ctx = c, .graph = &n->graph, .lockstep = setting.tasks != 0, .target = target_find("generic")};
  n->schedule.root = "";
  Segment *segment = n->schedule.segment = ctx_array(c, SEGMENTS, sizeof *segment);
  segment->tasks = 3;
  for (const char *t = program; *t; t++)
    if (*t == '|')
      (++segment)->tasks = 3;
    else if (*t == '1' || *t == '2')
      segment->tasks = (uint64_t)(*t - '0');
    else
      add_step(n, segment, *t);
  (++segment)->tasks = 3;
  add_step(n, segment, 'Z');
  n->schedule.n_segments = (size_t)(segment + 1 - n->schedule.segment);
  return n;
}

/* ---- what becomes of them ---- */

static void show_step(Text *t, const Step *s) {
  if (s->kind == STEP_EXPERTS) {
    text_add(t, "*");
    return;
  }
  if (!s->unit || s->holds) text_add(t, s->unit ? "=" : ".");
  for (size_t i = 0; s->unit && !s->holds && i < s->unit->n_parts; i += 2)
    text_add(t, "%c", (char)s->unit->part[i].param[0]);
}

static const char *show(Net *n) {
  Text t = {.ctx = n->program.ctx};
  for (size_t i = 0; i + 1 < n->schedule.n_segments; i++) {
    if (i) text_add(&t, "|");
    for (size_t k = 0; k < n->schedule.segment[i].n_steps; k++) {
      if (k) text_add(&t, " ");
      show_step(&t, n->schedule.segment[i].step[k]);
    }
  }
  return t.text;
}

/* The unit's bytes, as in the pack. */
static unsigned char *packed(Ctx *c, const Unit *u) {
  unsigned char *bytes = ctx_array(c, (size_t)u->bytes, 1);
  for (size_t i = 0; i < u->n_parts; i++) {
    const UnitPart *part = &u->part[i];
    assert_int_equal(part->offset % 64, 0);
    assert_true(part->offset + part->bytes <= u->bytes);
    for (int64_t b = 0; b < part->bytes; b++) assert_int_equal(bytes[part->offset + b], 0); /* of no other part */
    part->write(part, 0, bytes + part->offset);
  }
  return bytes;
}

static void check_part(const unsigned char *bytes, const Arg *arg, char letter, int64_t part, int64_t n) {
  assert_int_equal(arg->kind, ARG_WEIGHT);
  for (int64_t i = 0; i < n; i++)
    if (bytes[arg->offset + i] != content(letter, part, i)) fail_msg("%c, part %d, byte %d", letter, (int)part, (int)i);
}

/* Whatever unit a call has now, its arguments point to what they did before. */
static void check_call(Net *n, const Step *s, char letter) {
  assert_int_equal(s->arg[0].offset, 64);
  if (!s->unit) return;
  const unsigned char *bytes = packed(n->program.ctx, s->unit);
  const int64_t all = bytes_of(n, letter), first = all / 2;
  check_part(bytes, &s->arg[1], letter, 0, first);
  check_part(bytes, &s->arg[2].operand[2], letter, 1, all - round_up(first, 64));
  assert_int_equal(s->arg[2].operand[1].i, 64);
  assert_int_equal(s->arg[2].operand[0].offset, 64);
}

static Net *scheduled(Ctx *c, const char *program, Setting setting) {
  Net *n = make_net(c, program, setting);
  schedule_small_units(&n->program, &n->schedule);
  schedule_held_units(&n->schedule);
  return n;
}

static void check(const char *what, const char *program, const char *becomes, Setting setting) {
  Ctx *c = ctx_new();
  Net *n = scheduled(c, program, setting);
  const char *found = show(n);
  if (strcmp(found, becomes) != 0) fail_msg("%s: %s becomes %s", what, program, found);
  for (size_t i = 0; i < n->n_steps; i++)
    check_call(n, n->step[i]->kind == STEP_EXPERTS ? n->step[i]->body : n->step[i], n->letter[i]);
  ctx_free(c);
}

/* ---- which are joined ---- */

static void with_a_neighbour(void **state) {
  (void)state;
  check("the one behind", "aB", "Ba =", usual);
  check("without weights in between", "a.B", "Ba . =", usual);
  check("the one behind rather than the one before", "BaC", "B Ca =", usual);
  check("before an expert loop: the one before", "Ba*", "Ba = *", usual);
  check("before the end: the one before", "Ba", "Ba =", usual);
  check("behind an expert loop: the one behind", "*aB", "* Ba =", usual);
  check("calls that share it", "aaBB", "Ba = = =", usual);
  check("the same each time", "aB|C|aB", "Ba =|C|Ba =", usual);
  check("a task's own, one task at a time", "1aA|2bB", "Aa =|Bb =", usual);
}

static void chains(void **state) {
  (void)state;
  check("three small ones", "abc", "cba = =", usual);
  check("three small ones and a large one", "abcD", "Dcba = = =", usual);
  check("the last of a chain goes with what came before it", "Dab*", "Dba = = *", usual);
  check("each time", "abcD|abcD", "Dcba = = =|Dcba = = =", usual);
  check("as far as there is room", "abC", "ba = C",
        (Setting){.largest = round_up(LARGE, 64) + round_up(SMALL, 64) + SMALL - 1});
  check("all the room there is", "abC",
        "Cba = =", (Setting){.largest = round_up(LARGE, 64) + round_up(SMALL, 64) + SMALL});
}

static void not_joined(void **state) {
  (void)state;
  check("something else behind the second time", "aB|aC", "a B|a C", usual);
  check("and the third time as the first", "aB|aC|aB", "a B|a C|a B", usual);
  check("something else before the one behind", "aB|CB", "a B|C B", usual);
  check("nothing before the one behind the second time", "aB|B", "a B|B", usual);
  check("nothing behind the second time", "aB|a", "a B|a", usual);
  check("something else before", "Ba*|Ca*", "B a *|C a *", usual);
  check("nothing before the second time", "Ba*|a*", "B a *|a *", usual);
  check("something else behind the one before", "Ba*|BC", "B a *|B C", usual);
  check("an expert loop in between", "a*B", "a * B", usual);
  check("an expert loop in between, the second time", "aB|a*B", "a B|a * B", usual);
  check("a segment's end in between", "a|B", "a|B", usual);
  check("a segment's beginning", "B|a", "B|a", usual);
  check("both are large", "AB", "A B", usual);
}

static void sizes(void **state) {
  (void)state;
  check("just small", "aB", "Ba =", (Setting){.a = LIMIT});
  check("no longer small", "aB", "a B", (Setting){.a = LIMIT + 1});
  check("just room behind", "aB", "Ba =", (Setting){.largest = round_up(LARGE, 64) + SMALL});
  check("no room behind", "aB", "a B", (Setting){.largest = round_up(LARGE, 64) + SMALL - 1});
  check("just room before", "Ba*", "Ba = *", (Setting){.largest = round_up(LARGE, 64) + SMALL});
  check("no room before", "Ba*", "B a *", (Setting){.largest = round_up(LARGE, 64) + SMALL - 1});
  check("room, because an expert is as large", "ab*", "ba = *", (Setting){.largest = SMALL});
  check("no room behind, but before", "baB", "ab = B", (Setting){.largest = round_up(LARGE, 64) + SMALL - 1});
}

/* In lockstep a task's own units are taken step by step, task by task. */
static void in_lockstep(void **state) {
  (void)state;
  check("each task's own", "1aA|2bB", "a A|b B", (Setting){.tasks = 2});
  check("each task's own, the one before", "1Aa*|2Bb*", "A a *|B b *", (Setting){.tasks = 2});
  check("what they share", "1aB|2aB", "Ba =|Ba =", (Setting){.tasks = 2});
  check("what all need", "aB", "Ba =", (Setting){.tasks = 2});
  check("a task's own beside what they share", "1paBq|2raBs", "p Ba = q|r Ba = s", (Setting){.tasks = 2});
  check("a single task", "1aA", "Aa =", (Setting){.tasks = 1});
}

/* ---- how often they are taken ---- */

static void held(void **state) {
  (void)state;
  Ctx *c = ctx_new();
  Net *n = make_net(c, "1AAPP.P*PA|2AAQQ.Q*QA", usual);
  schedule_held_units(&n->schedule);
  assert_string_equal(show(n), "A = P = . = * P A|A = Q = . = * Q A");
  n->schedule.lockstep = ctx_array(c, 1, sizeof *n->schedule.lockstep);
  n->schedule.lockstep[0] = (Lockstep){.first = 0, .n = 2};
  n->schedule.n_lockstep = 1;
  schedule_held_units(&n->schedule); /* once more, as when what goes in lockstep is known */
  assert_string_equal(show(n), "A = P P . P * P A|A = Q Q . Q * Q A");
  ctx_free(c);
}

static int64_t loads(const Net *n) {
  int64_t bytes = 0;
  for (size_t i = 0; i < n->n_steps; i++) bytes += step_most_loads(n->step[i]);
  return bytes;
}

static Bounds bounds_of(Net *n, size_t task) {
  Ctx *c = n->program.ctx;
  Emission e = {.ctx = c, .program = &n->program, .schedule = &n->schedule, .weights = WEIGHTS_STREAM, .n_tasks = 2};
  e.pack = ctx_array(c, n->program.n_units, sizeof *e.pack);
  for (size_t i = 0; i < n->program.n_units; i++) e.pack[i].bytes = (uint64_t)n->program.unit[i]->bytes;
  return emit_bounds(&e, task);
}

/* Two tasks go through B with its small neighbour, in segments of their own, and the largest unit is behind. */
static void counted_once(void **state) {
  const int64_t joined = round_up(LARGE, 64) + SMALL;
  (void)state;
  Ctx *c = ctx_new();
  Net *n = scheduled(c, "1aBB|2aBB", (Setting){.tasks = 2});
  assert_string_equal(show(n), "Ba = =|Ba = =");
  assert_int_equal(loads(n), 2 * joined + LARGEST);
  schedule_units(&n->program, &n->schedule);
  const int64_t slots = (int64_t)(MOECC_SLOT_BYTES(joined) + MOECC_SLOT_BYTES(LARGEST));
  Bounds task = bounds_of(n, 0), all = bounds_of(n, 2);
  assert_int_equal(task.read_slots, 2);
  assert_int_equal(task.read_bytes, slots);
  assert_int_equal(all.read_slots, 3); /* one task behind the other */
  n->schedule.lockstep = ctx_array(c, 1, sizeof *n->schedule.lockstep);
  n->schedule.lockstep[0] = (Lockstep){.first = 0, .n = 2};
  n->schedule.n_lockstep = 1;
  schedule_held_units(&n->schedule);
  all = bounds_of(n, 2);
  assert_int_equal(all.read_slots, 2); /* both at once */
  assert_int_equal(all.read_bytes, slots);
  ctx_free(c);
}

/* A joined unit is one in the list, named after the neighbour, however many came with it. */
static void listed_once(void **state) {
  static const char *const names[] = {"large_c", "loop", "large_d", "large_z"};
  static const size_t parts[] = {6, 2, 4, 2};
  (void)state;
  Ctx *c = ctx_new();
  Net *n = scheduled(c, "1abC*De.", usual);
  assert_int_equal(n->program.n_units, 7);
  schedule_units(&n->program, &n->schedule);
  assert_int_equal(n->program.n_units, 4);
  for (size_t i = 0; i < 4; i++) {
    const Unit *u = n->program.unit[i];
    assert_int_equal(u->id, i);
    assert_int_equal(u->n_parts, parts[i]);
    assert_string_equal(u->name, names[i]);
  }
  ctx_free(c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(with_a_neighbour), cmocka_unit_test(chains),
      cmocka_unit_test(not_joined),       cmocka_unit_test(sizes),
      cmocka_unit_test(in_lockstep),      cmocka_unit_test(held),
      cmocka_unit_test(counted_once),     cmocka_unit_test(listed_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
