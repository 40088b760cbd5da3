/* Tables of kernels: steps are summed up by kernel and shape, and by operator. */
#include "cli/profile.h"

#include "io/json.h"

#include <stdlib.h>
#include <string.h>

/* ---- reading ----------------------------------------------------------------------------------------------------- */

enum { MOST_FIELDS = 20, STEP_FIELDS = 16 };

static size_t split(char *line, char **field) {
  size_t n = 0;
  for (char *p = line; p && n < MOST_FIELDS;) {
    char *end = strchr(p, '\t');
    field[n++] = p;
    if (end) *end++ = 0;
    p = end;
  }
  return n;
}

static void add_step(Profile *p, char **f) {
  p->step = ctx_grow(p->ctx, p->step, p->n_steps, &p->cap_steps, sizeof *p->step);
  p->step[p->n_steps++] = (StepTime){.number = atoi(f[1]),
                                     .loop = atoi(f[2]),
                                     .calls = strtod(f[3], NULL),
                                     .ns = strtod(f[4], NULL),
                                     .load = strtod(f[5], NULL),
                                     .parallel = strtod(f[6], NULL),
                                     .shares = strtod(f[7], NULL),
                                     .macs = strtod(f[8], NULL),
                                     .bytes = strtod(f[9], NULL),
                                     .weights = strtod(f[10], NULL),
                                     .kernel = f[11],
                                     .op = f[12],
                                     .layer = f[13],
                                     .node = f[14],
                                     .shape = f[15]};
}

static bool read_line(Profile *p, char **f, size_t n) {
  if (strcmp(f[0], "profile") == 0 && n == 4) {
    p->threads = atoi(f[1]);
    p->runs = atoi(f[2]);
    p->lost = strtod(f[3], NULL);
  } else if (strcmp(f[0], "call") == 0 && n == 2) {
    p->call = strtod(f[1], NULL);
  } else if (strcmp(f[0], "peak") == 0 && n == 3) {
    p->peak = strtod(f[1], NULL);
    p->best = strtod(f[2], NULL);
  } else if (strcmp(f[0], "step") == 0 && n == STEP_FIELDS) {
    add_step(p, f);
  } else {
    return false;
  }
  return true;
}

Profile profile_read(Ctx *c, const char *model, const char *task, char *text) {
  Profile p = {.ctx = c, .model = model, .task = task};
  for (char *save = NULL, *line = strtok_r(text ? text : ctx_strdup(c, ""), "\n", &save); line;
       line = strtok_r(NULL, "\n", &save)) {
    char *field[MOST_FIELDS];
    size_t n = split(line, field);
    if (!read_line(&p, field, n)) ctx_fail(c, NULL, "the network's driver says what is no profile: \"%s\"", line);
  }
  if (!p.threads || !p.runs || p.call <= 0) ctx_fail(c, NULL, "the network's driver gave no profile");
  return p;
}

/* ---- summing up -------------------------------------------------------------------------------------------------- */

typedef struct {
  const char *kernel, *op, *shape;
  size_t steps;
  double calls, ns, load, parallel, shares, macs, bytes;
} Row;

typedef struct {
  Row *row;
  size_t n, cap;
  double threads; /* of the profile */
} Rows;

static Row *find_row(Ctx *c, Rows *rows, const StepTime *s, bool by_kernel) {
  for (size_t i = 0; i < rows->n; i++) {
    const Row *r = &rows->row[i];
    if (strcmp(r->op, s->op) != 0) continue;
    if (!by_kernel || (strcmp(r->kernel, s->kernel) == 0 && strcmp(r->shape, s->shape) == 0)) return &rows->row[i];
  }
  rows->row = ctx_grow(c, rows->row, rows->n, &rows->cap, sizeof *rows->row);
  rows->row[rows->n] = (Row){.op = s->op, .kernel = by_kernel ? s->kernel : "", .shape = by_kernel ? s->shape : ""};
  return &rows->row[rows->n++];
}

static int by_time(const void *a, const void *b) {
  double x = ((const Row *)a)->ns, y = ((const Row *)b)->ns;
  return (x < y) - (x > y);
}

static void add_to(Row *r, const StepTime *s) {
  r->steps++;
  r->calls += s->calls;
  r->ns += s->ns;
  r->load += s->load;
  r->parallel += s->parallel;
  r->shares += s->shares;
  r->macs += s->macs;
  r->bytes += s->bytes + s->calls * s->weights;
}

static Rows sum_up(const Profile *p, bool by_kernel) {
  Rows rows = {.threads = p->threads};
  for (size_t i = 0; i < p->n_steps; i++) add_to(find_row(p->ctx, &rows, &p->step[i], by_kernel), &p->step[i]);
  if (rows.n) qsort(rows.row, rows.n, sizeof *rows.row, by_time);
  return rows;
}

static Row total(const Profile *p) {
  Row all = {0};
  for (size_t i = 0; i < p->n_steps; i++) add_to(&all, &p->step[i]);
  return all;
}

static double rate(double work, double ns) { return ns > 0 ? work / ns : 0; }
static double gflops(const Row *r) { return rate(2 * r->macs, r->ns); }
static double of_peak(const Profile *p, const Row *r) { return rate(gflops(r), p->peak * p->threads); }
/* Part of the threads' time in parallel loops in which they compute, and neither start nor wait for each other. */
static double busy(const Profile *p, const Row *r) { return rate(r->shares, r->parallel * p->threads); }
/* Fewer multiply-adds than this for a byte: memory is what limits it, rather than arithmetic. */
static const double ARITHMETIC = 4;
static bool memory_bound(const Row *r) { return r->macs < ARITHMETIC * r->bytes; }

/* ---- for people -------------------------------------------------------------------------------------------------- */

static const char *cell(Ctx *c, bool shown, const char *format, double x) {
  char text[32];
  if (!shown) return "";
  (void)snprintf(text, sizeof text, format, x); /* NOLINT(clang-diagnostic-format-nonliteral): the callers' own */
  return ctx_strdup(c, text);
}

static void print_row(const Profile *p, const Row *r) {
  Ctx *c = p->ctx;
  bool bound = memory_bound(r) && r->bytes > 0;
  printf("%9.3f %6.1f %7.0f %8s %6s %7s", r->ns * 1e-6, 100 * rate(r->ns, p->call), r->calls,
         cell(c, r->macs > 0, "%.1f", gflops(r)), cell(c, r->macs > 0, "%.0f", 100 * of_peak(p, r)),
         cell(c, bound, "%.1f", rate(r->bytes, r->ns)));
  if (p->threads > 1) printf(" %5s", cell(c, r->parallel > 0, "%.0f", 100 * busy(p, r)));
  if (*r->kernel)
    printf("  %s  %s\n", r->kernel, r->shape);
  else
    printf("  %s (%zu)\n", r->op, r->steps);
}

static void print_rows(const Profile *p, bool by_kernel) {
  Rows rows = sum_up(p, by_kernel);
  printf("\n%9s %6s %7s %8s %6s %7s", "ms", "%", "calls", "GFLOP/s", "peak %", "GB/s");
  if (p->threads > 1) printf(" %5s", "busy%");
  printf(by_kernel ? "  kernel, shapes\n" : "  operator (steps)\n");
  for (size_t i = 0; i < rows.n; i++) print_row(p, &rows.row[i]);
}

void profile_print(const Profile *p) {
  Row all = total(p);
  double rest = p->call - all.ns - all.load;
  const char *cores = p->threads > 1 ? ctx_format(p->ctx, "%d cores", p->threads) : "one core";
  printf("%s: %.3f ms a call (median of %d, %d thread%s), traced\n", p->task, p->call * 1e-6, p->runs, p->threads,
         p->threads > 1 ? "s" : "");
  printf("peak, multiply-adds alone on one core: %.1f GFLOP/s (median; best %.1f); shares are of %s\n", p->peak,
         p->best, cores);
  print_rows(p, true);
  print_rows(p, false);
  printf("\n%9.3f ms in kernels, %.3f ms waiting for weights, %.3f ms (%.1f %%) not accounted for\n", all.ns * 1e-6,
         all.load * 1e-6, rest * 1e-6, 100 * rest / p->call);
  printf("%9.3f GFLOP: %.1f GFLOP/s over the whole call, %.0f %% of the peak\n", 2e-9 * all.macs,
         2 * all.macs / p->call, 100 * rate(2 * all.macs / p->call, p->peak * p->threads));
  if (p->lost > 0) printf("%.0f events found no room: the sums are too small\n", p->lost);
}

/* ---- for programs ------------------------------------------------------------------------------------------------ */

static void json_row(const Profile *p, const Row *r) {
  Ctx *c = p->ctx;
  printf("{\"operator\": %s, ", json_text(c, r->op));
  if (*r->kernel) printf("\"kernel\": %s, \"shape\": %s, ", json_text(c, r->kernel), json_text(c, r->shape));
  printf("\"steps\": %zu, \"calls\": %.6g, \"ms\": %.6g, \"load_ms\": %.6g, \"share\": %.4g, ", r->steps, r->calls,
         r->ns * 1e-6, r->load * 1e-6, rate(r->ns, p->call));
  printf("\"macs\": %.17g, \"bytes\": %.17g, \"gflops\": %.5g, \"peak_share\": %.4g, \"gb_per_s\": %.5g, "
         "\"memory_bound\": %s, \"busy\": %.4g}",
         r->macs, r->bytes, gflops(r), of_peak(p, r), rate(r->bytes, r->ns), memory_bound(r) ? "true" : "false",
         busy(p, r));
}

static void json_rows(const Profile *p, bool by_kernel) {
  Rows rows = sum_up(p, by_kernel);
  for (size_t i = 0; i < rows.n; i++) {
    if (i) printf(", ");
    json_row(p, &rows.row[i]);
  }
}

void profile_json(const Profile *p) {
  Row all = total(p);
  printf("{\"model\": %s, \"task\": %s, \"threads\": %d, \"runs\": %d, ", json_text(p->ctx, p->model),
         json_text(p->ctx, p->task), p->threads, p->runs);
  printf("\"median_ms\": %.6g, \"peak_gflops\": %.5g, \"best_peak_gflops\": %.5g, \"peak_share\": %.4g, ",
         p->call * 1e-6, p->peak, p->best, rate(2 * all.macs / p->call, p->peak * p->threads));
  printf("\"kernels_ms\": %.6g, \"load_ms\": %.6g, \"unaccounted_ms\": %.6g, \"lost_events\": %.0f, \"kernels\": [",
         all.ns * 1e-6, all.load * 1e-6, (p->call - all.ns - all.load) * 1e-6, p->lost);
  json_rows(p, true);
  printf("], \"operators\": [");
  json_rows(p, false);
  printf("]}\n");
}
