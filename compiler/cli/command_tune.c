/* moecc tune: measures tiles on this machine, and writes the best of each kernel and shape to a file.
 *
 * What is measured is the network itself: it is compiled with other tiles for all kernels at once, traced, and the
 * times of its steps say which tile served each of them best. So every candidate is seen with the caches, epilogues
 * and neighbours that it will have, and there are as many rounds as there are candidates for one kernel. In a round the
 * network with the candidates and the one with the model's tiles run in turn, and the median of the ratios counts: what
 * else the machine does meets both.
 */
#include "cli/profile.h"
#include "cli/runnable.h"
#include "io/io.h"
#include "lower/tuning.h"
#include "progress.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MOST_TILES = 6, PAIRS = 7 };
static const double ENOUGH_SECONDS = 80; /* after which no round is begun */
/* A tile has to be so much faster than the model's for a change: less may be chance. */
static const double WORTH = 0.97;
/* Rows of a block in percent of the model's, which are tried once the tiles are known. */
static const int blocks[] = {50, 200};
enum { N_BLOCKS = sizeof blocks / sizeof *blocks };

/* A kernel and shape of the network, and how its candidates compare with the model's tile. */
typedef struct {
  TileRequest request; /* its tile: the choice so far */
  double ratio;        /* of its time to the model's */
  double model;        /* ns a call with the model's tile, in the first measurement */
  Tile candidate[MOST_TILES];
  size_t n_candidates;
  Tile tile;            /* in the round under way */
  double now;           /* ns in the measurement under way */
  double ratios[PAIRS]; /* of the round */
  size_t n_ratios;
} Place;

typedef struct {
  Options *o;
  Graph *graph;
  Place *place;
  size_t n, cap;
  Runnable model; /* the network with the model's tiles */
  long runs;      /* timed calls of a measurement */
  double started;
} Tuner;

static double seconds(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- a round ----------------------------------------------------------------------------------------------------- */

static Place *place_of(Tuner *t, const TileRequest *r) {
  for (size_t i = 0; i < t->n; i++) {
    const TileRequest *known = &t->place[i].request;
    if (known->rows == r->rows && known->columns == r->columns && known->depth == r->depth &&
        strcmp(known->kernel, r->kernel) == 0)
      return &t->place[i];
  }
  t->place = ctx_grow(t->o->ctx, t->place, t->n, &t->cap, sizeof *t->place);
  Place *p = &t->place[t->n++];
  *p = (Place){.request = *r, .ratio = 1};
  p->n_candidates = tile_candidates(t->o->compile.target, r, p->candidate, MOST_TILES);
  return p;
}

static void add_time(Tuner *t, const Step *s, const Profile *times, bool *counted) {
  if (!s->tile) return;
  for (size_t i = 0; i < times->n_steps; i++)
    if (times->step[i].number == s->number && !counted[s->number]) {
      place_of(t, s->tile)->now += times->step[i].ns;
      counted[s->number] = true;
    }
}

/* Steps that several tasks share count once. */
static void add_times(Tuner *t, const Program *p, const Profile *times, bool *counted) {
  for (const Step *s = p->first; s; s = s->next) {
    add_time(t, s, times, counted);
    for (size_t b = 0; b < s->n_body; b++) add_time(t, &s->body[b], times, counted);
  }
}

static size_t count_numbers(const Program *p) {
  size_t n = 1;
  for (const Step *s = p->first; s; s = s->next) n += 1 + s->n_body;
  return n;
}

static Runnable build(Tuner *t, const Tuning *tiles) {
  CompileOptions compile = t->o->compile;
  compile.tuning = tiles;
  return runnable_build(t->o->ctx, t->graph, &compile, ENGINE_CC, true);
}

/* Runs the network and leaves each place's time in `now`; returns a call's time, ns. */
static double measure(Tuner *t, const Runnable *run) {
  Ctx *c = t->o->ctx;
  Arguments a = {.ctx = c};
  argument_add(&a, "--noise");
  argument_add(&a, "--quiet");
  argument_add(&a, "--steps");
  argument_add(&a, "--cpu-time");
  argument_pair(&a, "--runs", ctx_format(c, "%ld", t->runs));
  Text lines = {.ctx = c};
  const char *task = run->has_all ? "all" : t->graph->tasks[0].name;
  runnable_read(run, &a, task, "the network does not run", &lines);
  Profile times = profile_read(c, run->name, task, lines.text);
  bool *counted = ctx_array(c, count_numbers(run->program) + 1, sizeof *counted);
  for (size_t i = 0; i < t->n; i++) t->place[i].now = 0;
  add_times(t, run->program, &times, counted);
  return times.call;
}

/* One after the other, and each place's ratio of their times. */
static void measure_pair(Tuner *t, const Runnable *run) {
  double *model = ctx_array(t->o->ctx, t->n, sizeof *model);
  measure(t, &t->model);
  for (size_t i = 0; i < t->n; i++) model[i] = t->place[i].now;
  measure(t, run);
  for (size_t i = 0; i < t->n; i++) {
    Place *p = &t->place[i];
    if (p->now > 0 && model[i] > 0) p->ratios[p->n_ratios++] = p->now / model[i];
  }
}

/* ---- the search -------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Measures each place's `tile`, and keeps those that are worth it. */
static void try_round(Tuner *t) {
  Tuning *tiles = ctx_alloc(t->o->ctx, sizeof *tiles);
  tiles->target = t->o->compile.target;
  for (size_t i = 0; i < t->n; i++) {
    TileRequest r = t->place[i].request;
    r.tile = t->place[i].tile;
    tuning_add(t->o->ctx, tiles, r);
    t->place[i].n_ratios = 0;
  }
  Runnable run = build(t, tiles);
  for (int pair = 0; pair < PAIRS; pair++) measure_pair(t, &run);
  for (size_t i = 0; i < t->n; i++) {
    Place *p = &t->place[i];
    if (!p->n_ratios) continue;
    qsort(p->ratios, p->n_ratios, sizeof *p->ratios, by_value);
    double ratio = p->ratios[p->n_ratios / 2];
    if (ratio >= WORTH || ratio >= p->ratio) continue;
    p->ratio = ratio;
    p->request.tile = p->tile;
  }
}

static bool time_left(const Tuner *t) { return seconds() - t->started < ENOUGH_SECONDS; }

static bool has_blocks(const Place *p) {
  static const char *const kernels[] = {"matmul", "conv", "moe_expert_in", "moe_expert_out"};
  for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
    if (strcmp(p->request.kernel, kernels[i]) == 0) return true;
  return false;
}

static void try_tiles(Tuner *t) {
  size_t rounds = 0;
  for (size_t i = 0; i < t->n; i++)
    if (t->place[i].n_candidates > rounds) rounds = t->place[i].n_candidates;
  for (size_t round = 1; round < rounds && time_left(t); round++) { /* 0 is the model's */
    for (size_t i = 0; i < t->n; i++) {
      Place *p = &t->place[i];
      p->tile = round < p->n_candidates ? p->candidate[round] : p->request.tile;
    }
    try_round(t);
  }
}

static void try_blocks(Tuner *t) {
  bool any = false;
  for (size_t i = 0; i < t->n; i++) any |= has_blocks(&t->place[i]);
  for (int round = 0; round < N_BLOCKS && any && time_left(t); round++) {
    for (size_t i = 0; i < t->n; i++) {
      t->place[i].tile = t->place[i].request.tile;
      if (has_blocks(&t->place[i])) t->place[i].tile.block = blocks[round];
    }
    try_round(t);
  }
}

/* The first measurement finds the places, and how many runs a measurement should have: about a tenth of a second. */
static void search(Tuner *t) {
  enum { FEWEST = 3, MOST = 200 };
  static const double enough = 1e8;
  t->model = build(t, NULL);
  t->runs = FEWEST;
  double call = measure(t, &t->model);
  for (size_t i = 0; i < t->n; i++) t->place[i].model = t->place[i].now;
  long runs = call > 0 ? (long)(enough / call) : MOST;
  t->runs = runs < FEWEST ? FEWEST : runs > MOST ? MOST : runs;
  try_tiles(t);
  try_blocks(t);
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static const char *tile_text(Ctx *c, Tile tile) {
  const char *text = ctx_format(c, "%dx%d", tile.mr, tile.nr);
  return tile.block && tile.block != 100 ? ctx_format(c, "%s %d%%", text, tile.block) : text;
}

static void print_result(const Tuner *t) {
  Ctx *c = t->o->ctx;
  double before = 0, after = 0;
  printf("%-16s %24s  %10s %10s  %12s %10s\n", "kernel", "rows x columns x depth", "ms", "model", "measured", "time");
  for (size_t i = 0; i < t->n; i++) {
    const Place *p = &t->place[i];
    const TileRequest *r = &p->request;
    before += p->model;
    after += p->model * p->ratio;
    printf("%-16s %24s  %10.3f %10s  %12s %9.0f%%\n", r->kernel,
           ctx_format(c, "%lldx%lldx%lld", (long long)r->rows, (long long)r->columns, (long long)r->depth),
           p->model * 1e-6, tile_text(c, p->candidate[0]), tile_text(c, r->tile), 100 * p->ratio);
  }
  printf("%s: these kernels take %.1f %% of the time that they take with the model's tiles\n", t->o->out,
         before > 0 ? 100 * after / before : 100);
}

void command_tune(Options *o) {
  Ctx *c = o->ctx;
  if (!o->out) ctx_fail_status(c, EXIT_USAGE, "tune wants the file to write: -o FILE");
  if (is_folder(o->out)) ctx_fail_status(c, EXIT_USAGE, "-o wants a file, and \"%s\" is a folder", o->out);
  Tuner t = {.o = o, .started = seconds()};
  ctx_set_file(c, o->argument[0]);
  t.graph = pipeline_graph(c, &o->compile);
  char *making;
  FILE *file = text_file_begin(c, o->out, &making);
  search(&t);
  Tuning result = {.target = o->compile.target};
  for (size_t i = 0; i < t.n; i++) tuning_add(c, &result, t.place[i].request);
  text_file_finish(c, file, o->out, making, tuning_text(c, &result));
  print_result(&t);
}
