/* @NAME@_main: runs the network's tasks on .npy files, and shows how a program calls the network.
 *
 *   @NAME@_main --input NAME=FILE.npy … -o DIR      each task's outputs as DIR/<output>.npy, and its time
 *
 * What a call takes is at the end: load_weights, then @NAME@_init with memory for it, then one function per task.
 * Exit status: 0 done, 1 the data is at fault, 2 the command line is, 3 the machine is.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "@NAME@.h"
#include "moecc_npy.h"
#include "moecc_profile.h"

#ifndef MOECC_THREADS
#define MOECC_THREADS 1 /* 0: built without moecc_rt_threads.c */
#endif

enum { DONE = 0, DATA = 1, USAGE = 2, MACHINE = 3 };

/* ---- the network's tasks ----------------------------------------------------------------------------------------- */

/* An input or output: its name in the model, a name that is safe in a path, and what its .npy file holds. */
typedef struct {
  const char *name, *file;
  moecc_npy array;
} Tensor;

typedef @NAME@ Network;

/* A task: its bit for @NAME@_init (or bits, for several at once), its function with arguments as
 * arrays, inputs and outputs in the function's order. */
typedef struct {
  const char *name;
  unsigned bits;
  moecc_status (*call)(Network *m, const void *const *in, void *const *out);
  const Tensor *in;
  size_t n_in;
  const Tensor *out;
  size_t n_out;
} Task;

enum { NEEDS_WEIGHTS = @NEEDS_WEIGHTS@ }; /* 0: they are embedded */
enum { STREAMS = @STREAMS@ };             /* 1: weights are loaded while computing, unless --source says otherwise */

@TABLE@
static const size_t n_tasks = sizeof tasks / sizeof *tasks;

/* ---- the command line -------------------------------------------------------------------------------------------- */

enum { MAX_INPUTS = 64 };

/* Where weights come from. */
enum { MEMORY, MAP, READS, LOADER, DIRECT, COPY, WAYS, UNSAID };
static const char *const ways[WAYS] = {"memory", "map", "file", "loader", "direct", "copy"};

typedef struct {
  const char *task; /* NULL: each */
  const char *weights, *folder, *trace;
  const char *input[MAX_INPUTS]; /* NAME=FILE */
  size_t n_inputs;
  long threads, runs, timeout_ms;
  int warm_up;
  int source, json, noise, quiet, steps, cpu_time;
} Options;

static const char usage[] =
    "usage: @NAME@_main [options] --input NAME=FILE.npy … [-o DIR]\n"
    "  --task T        only this task (default: each)\n"
    "  --input N=FILE  an input; the file's type and shape must be the network's\n"
    "  --noise         inputs that are not given: numbers between 0 and 1, the same every time\n"
    "  -o DIR          where outputs go, as DIR/<output>.npy; without it they are dropped\n"
    "  --threads N     default 1\n"
    "  --runs N        time N runs after a warm-up; default: one without a warm-up\n"
    "  --weights FILE  default: @NAME@_weights.bin beside this program, in the folder above, or here\n"
    "  --source WAY    where they come from while it runs:\n"
    "                  memory  all of them are loaded first (or --load)@LOAD_DEFAULT@\n"
    "                  map     the file is mapped; it must not change meanwhile (or --map)\n"
    "                  loader  piece by piece through two buffers, read by a thread (or --stream)@STREAM_DEFAULT@\n"
    "                  file    the same without a thread\n"
    "                  direct  the same past the system's cache, read by the kernel or else by a thread\n"
    "                  copy    loaded first, then copied piece by piece\n"
    "  --timeout MS    give up when a piece of the weights takes longer (loader, direct); default: never\n"
    "  --json          one JSON object per task on stdout\n"
    "  --cpu-time      with one thread: its processor time, which a busy machine does not stretch\n"
    "  --quiet         no times\n"
#ifdef MOECC_TRACE
    "  --trace FILE    when each step ran, as JSON for Perfetto or Chrome (ui.perfetto.dev, chrome://tracing)\n"
    "  --steps         each step's time, the median of the runs, as lines for programs: see moecc_profile.h\n"
#endif
    "  --list          the tasks, their inputs and outputs\n";

static int bad_usage(const char *what, const char *value) {
  fprintf(stderr, "@NAME@_main: %s%s%s\n%s", what, value ? " " : "", value ? value : "", usage);
  return USAGE;
}

static int list_tasks(FILE *f) {
  size_t t, i;
  char text[128];
  for (t = 0; t < n_tasks; t++) {
    fprintf(f, "%s\n", tasks[t].name);
    for (i = 0; i < tasks[t].n_in + tasks[t].n_out; i++) {
      const Tensor *x = i < tasks[t].n_in ? &tasks[t].in[i] : &tasks[t].out[i - tasks[t].n_in];
      moecc_npy_text(&x->array, text, sizeof text);
      fprintf(f, "  %s %s %s\n", i < tasks[t].n_in ? "in " : "out", x->name, text);
    }
  }
  return DONE;
}

static int parse_number(const char *text, long least, long most, long *out) {
  char *end;
  errno = 0;
  *out = strtol(text, &end, 10);
  return *text && !*end && errno == 0 && *out >= least && *out <= most;
}

static int choose_source(Options *o, int way) {
  if (o->source != UNSAID && o->source != way) return bad_usage("there is one --source; --load, --stream and --map are some", NULL);
  o->source = way;
  return DONE;
}

static int parse_source(Options *o, const char *name) {
  int way;
  for (way = 0; way < WAYS; way++)
    if (!strcmp(name, ways[way])) return choose_source(o, way);
  return bad_usage("--source wants memory, map, loader, file, direct or copy, not", name);
}

/* One option that takes a value. */
static int parse_value(Options *o, const char *option, const char *value) {
  if (!strcmp(option, "--task"))
    o->task = value;
  else if (!strcmp(option, "-o"))
    o->folder = value;
#ifdef MOECC_TRACE
  else if (!strcmp(option, "--trace"))
    o->trace = value;
#endif
  else if (!strcmp(option, "--weights"))
    o->weights = value;
  else if (!strcmp(option, "--source"))
    return parse_source(o, value);
  else if (!strcmp(option, "--input")) {
    if (o->n_inputs == MAX_INPUTS || !strchr(value, '=')) return bad_usage("--input wants NAME=FILE, not", value);
    o->input[o->n_inputs++] = value;
  } else if (!strcmp(option, "--threads")) {
    if (!parse_number(value, 1, 64, &o->threads)) return bad_usage("--threads wants 1 to 64, not", value);
  } else if (!strcmp(option, "--runs")) {
    if (!parse_number(value, 1, 1000000, &o->runs)) return bad_usage("--runs wants 1 to 1000000, not", value);
    o->warm_up = 1;
  } else if (!strcmp(option, "--timeout")) {
    if (!parse_number(value, 0, 86400000, &o->timeout_ms)) return bad_usage("--timeout wants milliseconds, not", value);
  } else
    return bad_usage("there is no option", option);
  return DONE;
}

/* Is the task to run? Several at once (more than one bit) only if it is named. */
static int chosen(const Options *o, const Task *task) {
  return o->task ? !strcmp(o->task, task->name) : (task->bits & (task->bits - 1)) == 0;
}

/* -1: go on. */
static int parse(Options *o, int argc, char **argv) {
  int i, status = DONE;
  memset(o, 0, sizeof *o);
  o->source = UNSAID;
  o->threads = o->runs = 1;
  for (i = 1; i < argc; i++) {
    const char *a = argv[i];
    if (!strcmp(a, "--stream"))
      status = choose_source(o, LOADER);
    else if (!strcmp(a, "--load"))
      status = choose_source(o, MEMORY);
    else if (!strcmp(a, "--map"))
      status = choose_source(o, MAP);
    else if (!strcmp(a, "--json"))
      o->json = 1;
    else if (!strcmp(a, "--noise"))
      o->noise = 1;
    else if (!strcmp(a, "--quiet"))
      o->quiet = 1;
    else if (!strcmp(a, "--cpu-time"))
      o->cpu_time = 1;
#ifdef MOECC_TRACE
    else if (!strcmp(a, "--steps"))
      o->steps = 1;
#endif
    else if (!strcmp(a, "--list"))
      return list_tasks(stdout);
    else if (!strcmp(a, "--help"))
      return fputs(usage, stdout) < 0 ? MACHINE : DONE;
    else if (a[0] != '-')
      return bad_usage("not an option:", a);
    else if (i + 1 == argc)
      return bad_usage("unknown, or its value is missing:", a);
    else
      status = parse_value(o, a, argv[++i]);
    if (status != DONE) return USAGE;
  }
  if (o->cpu_time && o->threads > 1) return bad_usage("--cpu-time wants one thread", NULL);
  if (o->steps && o->trace) return bad_usage("--steps and --trace exclude each other", NULL);
  if (o->source == UNSAID) o->source = STREAMS ? LOADER : MEMORY;
  return -1;
}

/* Every --input must be one of some task that runs. */
static int check_inputs(const Options *o) {
  size_t k, t, i;
  for (k = 0; k < o->n_inputs; k++) {
    size_t length = (size_t)(strchr(o->input[k], '=') - o->input[k]);
    int known = 0;
    for (t = 0; t < n_tasks; t++)
      for (i = 0; i < tasks[t].n_in; i++)
        known |= strlen(tasks[t].in[i].name) == length && !strncmp(tasks[t].in[i].name, o->input[k], length);
    if (!known) return bad_usage("no task has the input of", o->input[k]);
  }
  return DONE;
}

/* ---- inputs and outputs ------------------------------------------------------------------------------------------ */

/* Large memory gets large pages where the system has them: fewer addresses have to be looked up, and a device that
 * writes into it has few pieces to go through. */
static void *allocate(size_t bytes) {
  const size_t page = (size_t)2 << 20;
  size_t large = (bytes + page - 1) / page * page; /* all of it, unless that takes much more */
  void *p = NULL;
  if (large - bytes > bytes / 4) large = bytes / page * page;
  if (bytes < large) bytes = large;
  if (posix_memalign(&p, large > 0 ? page : MOECC_ALIGN, bytes > 0 ? bytes : 1) != 0) {
    fprintf(stderr, "@NAME@_main: no memory for %zu bytes\n", bytes);
    exit(MACHINE);
  }
#ifdef MADV_HUGEPAGE
  if (large > 0) (void)madvise(p, large, MADV_HUGEPAGE);
#endif
  return p;
}

static const char *input_file(const Options *o, const Tensor *x) {
  size_t i, length = strlen(x->name);
  for (i = 0; i < o->n_inputs; i++)
    if (!strncmp(o->input[i], x->name, length) && o->input[i][length] == '=') return o->input[i] + length + 1;
  return NULL;
}

/* Numbers between 0 and 1 for float32; zeros for everything else. */
static void fill_noise(const Tensor *x, void *data, size_t bytes) {
  unsigned state = 1;
  size_t i;
  memset(data, 0, bytes);
  for (i = 0; !strcmp(x->array.type, "f4") && i < bytes / sizeof(float); i++) {
    state = state * 1664525u + 1013904223u;
    ((float *)data)[i] = (float)(state >> 8) / 16777216.0f;
  }
}

static int read_input(const Options *o, const Tensor *x, void *data) {
  const char *path = input_file(o, x), *wrong;
  char want[128], has[128];
  moecc_npy found;
  if (!path && o->noise) return fill_noise(x, data, moecc_npy_bytes(&x->array)), DONE;
  if (!path) return bad_usage("a task needs --input for", x->name);
  wrong = moecc_npy_read(path, &x->array, data, &found);
  if (!wrong) return DONE;
  moecc_npy_text(&x->array, want, sizeof want);
  if (found.rank >= 0) moecc_npy_text(&found, has, sizeof has);
  fprintf(stderr, "@NAME@_main: %s: %s (%s is %s%s%s)\n", path, wrong, x->name, want,
          found.rank >= 0 ? ", the file " : "", found.rank >= 0 ? has : "");
  return DATA;
}

static int write_output(const Options *o, const Tensor *x, const void *data) {
  char path[4096];
  const char *wrong;
  int length = snprintf(path, sizeof path, "%s/%s.npy", o->folder, x->file);
  if (length < 0 || (size_t)length >= sizeof path) return bad_usage("a path is too long:", o->folder);
  wrong = moecc_npy_write(path, &x->array, data);
  if (wrong) fprintf(stderr, "@NAME@_main: %s: %s\n", path, wrong);
  return wrong ? MACHINE : DONE;
}

/* ---- tracing, in builds with -DMOECC_TRACE ------------------------------------------------------------------------ */

#ifdef MOECC_TRACE

extern const moecc_step @NAME@_trace_steps[];
extern const size_t @NAME@_trace_count;
static moecc_profile profile;
static moecc_trace_reader reader;

static int start_profile(const Options *o, const moecc_pool **pool) {
  if (!o->trace && !o->steps) return DONE;
  moecc_trace_use_processor_time(o->cpu_time);
  *pool = moecc_profile_start(&profile, @NAME@_trace_steps, @NAME@_trace_count, *pool, (size_t)o->runs, o->trace != NULL);
  if (!*pool) fprintf(stderr, "@NAME@_main: no memory for a trace\n");
  return *pool ? DONE : MACHINE;
}
/* Loads are recorded where they are asked for, and where a thread that loads ahead reads. */
#if MOECC_THREADS
static const moecc_source *traced_reads(const Options *o, const moecc_source *from) {
  return o->trace && !o->cpu_time ? moecc_trace_read_through(&reader, from) : from;
}
#endif
static const moecc_source *traced_source(const Options *o, const moecc_source *from) {
  return o->trace && !o->cpu_time ? moecc_trace_source(&profile.trace, from, reader.inner ? &reader : NULL) : from;
}
static void profile_task(const Options *o) {
  if (o->steps) moecc_profile_task(&profile);
}
static void profile_call(const Options *o, const Task *task, long run) {
  if (o->trace || o->steps) moecc_profile_call(&profile, task->name, run);
}
static void print_profile(const Options *o) {
  if (o->steps) moecc_profile_print(&profile, stdout);
}
static int finish_profile(const Options *o, int status) {
  if (o->trace && status == DONE && !moecc_profile_write(&profile, o->trace)) {
    fprintf(stderr, "@NAME@_main: %s: it cannot be written: %s\n", o->trace, strerror(errno));
    status = MACHINE;
  }
  if (o->trace || o->steps) moecc_profile_stop(&profile);
  return status;
}

#else

static int start_profile(const Options *o, const moecc_pool **pool) { return (void)o, (void)pool, DONE; }
#if MOECC_THREADS
static const moecc_source *traced_reads(const Options *o, const moecc_source *from) { return (void)o, from; }
#endif
static const moecc_source *traced_source(const Options *o, const moecc_source *from) { return (void)o, from; }
static void profile_task(const Options *o) { (void)o; }
static void profile_call(const Options *o, const Task *task, long run) { (void)o, (void)task, (void)run; }
static void print_profile(const Options *o) { (void)o; }
static int finish_profile(const Options *o, int status) { return (void)o, status; }

#endif

/* ---- running a task ---------------------------------------------------------------------------------------------- */

/* Says what a status means, naming the piece of the weights or the memory it is about. */
static int report(const Network *m, const char *doing, moecc_status s) {
  const moecc_fault *fault = &m->c.weights.fault;
  fprintf(stderr, "@NAME@_main: %s: %s", doing, moecc_status_text(s));
  if (s == MOECC_ERROR_ARENA) fprintf(stderr, " (%zu bytes are needed)", m->c.needed);
  if (fault->unit && fault->unit->name) fprintf(stderr, ": %s", fault->unit->name);
  if (fault->unit && !fault->unit->name) fprintf(stderr, ": unit %u of the pack", (unsigned)fault->unit->id);
  if (fault->unit && fault->unit->count > 1) fprintf(stderr, "[%u]", (unsigned)fault->index);
  fputc('\n', stderr);
  return s == MOECC_ERROR_IO || s == MOECC_ERROR_TIMEOUT || s == MOECC_ERROR_ARENA ? MACHINE : DATA;
}

static double now_ms(const Options *o) {
  struct timespec t;
  (void)clock_gettime(o->cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* A string of JSON. */
static void print_quoted(const char *text) {
  putchar('"');
  for (; *text; text++) {
    if (*text == '"' || *text == '\\') printf("\\%c", *text);
    else if ((unsigned char)*text < 32) printf("\\u%04x", (unsigned)(unsigned char)*text);
    else putchar(*text);
  }
  putchar('"');
}

/* The most memory that was resident, in bytes. Linux's ru_maxrss counts what stood here before exec, too. */
static long long peak_rss(void) {
  struct rusage used;
  long long kilobytes = -1;
  char line[256];
  FILE *f = fopen("/proc/self/status", "r");
  while (f && kilobytes < 0 && fgets(line, sizeof line, f))
    if (!strncmp(line, "VmHWM:", 6)) kilobytes = strtoll(line + 6, NULL, 10);
  if (f) (void)fclose(f);
  (void)getrusage(RUSAGE_SELF, &used);
  return (kilobytes >= 0 ? kilobytes : (long long)used.ru_maxrss) * 1024;
}

static void print_times(const Options *o, const Task *task, unsigned threads, double *ms) {
  size_t n = (size_t)o->runs;
  double median;
  qsort(ms, n, sizeof *ms, by_value);
  median = (ms[(n - 1) / 2] + ms[n / 2]) / 2;
  if (o->json) {
    printf("{\"model\": \"@NAME@\", \"task\": ");
    print_quoted(task->name);
    printf(", \"threads\": %u, \"runs\": %zu, \"median_ms\": %.6g, \"min_ms\": %.6g, \"max_ms\": %.6g, "
           "\"peak_rss_bytes\": %lld}\n",
           threads, n, median, ms[0], ms[n - 1], peak_rss());
  } else if (!o->quiet) {
    printf("%s: median %.3f ms, min %.3f ms, max %.3f ms (%zu run%s, %u thread%s)\n", task->name, median, ms[0],
           ms[n - 1], n, n > 1 ? "s" : "", threads, threads > 1 ? "s" : "");
  }
}

/* One warm-up if runs are timed. */
static int time_calls(const Options *o, Network *m, const Task *task, const void *const *in, void *const *out,
                      double *ms) {
  long run;
  profile_task(o);
  for (run = o->warm_up ? -1 : 0; run < o->runs; run++) {
    double start = now_ms(o);
    moecc_status s = task->call(m, in, out);
    if (s != MOECC_OK) return report(m, task->name, s);
    if (run >= 0) ms[run] = now_ms(o) - start;
    profile_call(o, task, run);
  }
  if (m->c.flags & MOECC_FLAG_NAN_SCORE)
    fprintf(stderr, "@NAME@_main: %s: a router's score was not a number; it was ranked last\n", task->name);
  return DONE;
}

static int run_task(const Options *o, Network *m, const Task *task, unsigned threads) {
  void **in = allocate(task->n_in * sizeof *in), **out = allocate(task->n_out * sizeof *out);
  double *ms = allocate((size_t)o->runs * sizeof *ms);
  int status = DONE;
  size_t i;
  for (i = 0; i < task->n_in; i++) in[i] = allocate(moecc_npy_bytes(&task->in[i].array));
  for (i = 0; i < task->n_out; i++) out[i] = allocate(moecc_npy_bytes(&task->out[i].array));
  for (i = 0; i < task->n_in && status == DONE; i++) status = read_input(o, &task->in[i], in[i]);
  if (status == DONE) status = time_calls(o, m, task, (const void *const *)in, out, ms);
  for (i = 0; i < task->n_out && status == DONE && o->folder; i++) status = write_output(o, &task->out[i], out[i]);
  if (status == DONE) print_times(o, task, threads, ms);
  if (status == DONE) print_profile(o);
  for (i = 0; i < task->n_in; i++) free(in[i]);
  for (i = 0; i < task->n_out; i++) free(out[i]);
  free(in);
  free(out);
  free(ms);
  return status;
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* The weights, wherever they are: what has to be kept while the network is used. */
typedef struct {
  moecc_file file;
  moecc_direct direct;
  void *memory; /* the whole pack, when loaded */
  void *loader; /* the thread that loads ahead, when streamed */
  const moecc_source *source;
} Weights;

/* The pack's path: as given, else beside this program, in the folder above it, or here. */
static void find_weights(const Options *o, const char *program, char *path, size_t n) {
  static const char *const below[] = {"", "../"};
  const char *slash = strrchr(program, '/');
  int folder = slash ? (int)(slash - program) + 1 : 0;
  size_t i;
  FILE *f = NULL;
  if (o->weights) {
    (void)snprintf(path, n, "%s", o->weights);
    return;
  }
  for (i = 0; i < 2 && !f; i++) {
    (void)snprintf(path, n, "%.*s%s@NAME@_weights.bin", folder, program, below[i]);
    f = fopen(path, "rb");
  }
  if (!f)
    (void)snprintf(path, n, "@NAME@_weights.bin");
  else
    (void)fclose(f);
}

/* Loads the whole pack: first asks how large it is, then reads it into memory and verifies it. */
static moecc_status load_whole(Weights *w, const char *path, uint32_t *unit, uint32_t *index) {
  moecc_status s = moecc_file_load(&w->file, path, NULL, 0, NULL, NULL);
  if (s != MOECC_ERROR_ARENA) return s;
  w->memory = allocate((size_t)w->file.bytes);
  return moecc_file_load(&w->file, path, w->memory, (size_t)w->file.bytes, unit, index);
}

static int load_weights(const Options *o, const char *program, Weights *w) {
  char path[4096];
  uint32_t unit = MOECC_NO_UNIT, index = 0;
  moecc_status s;
  memset(w, 0, sizeof *w);
  if (!NEEDS_WEIGHTS) return DONE;
  find_weights(o, program, path, sizeof path);
  w->source = o->source == DIRECT ? &w->direct.source : &w->file.source;
  if (o->source == DIRECT)
    s = moecc_direct_open(&w->direct, path, 0);
  else if (o->source == READS || o->source == LOADER)
    s = moecc_file_open(&w->file, path);
  else if (o->source == MAP)
    s = moecc_file_map(&w->file, path);
  else
    s = load_whole(w, path, &unit, &index);
  if (s == MOECC_OK && o->source == COPY) s = moecc_memory_source(&w->file.source, w->memory, w->file.bytes, 1);
  if (s == MOECC_OK) return DONE;
  fprintf(stderr, "@NAME@_main: %s: %s", path, moecc_status_text(s));
  if (unit != MOECC_NO_UNIT) fprintf(stderr, ": unit %u, slot %u", (unsigned)unit, (unsigned)index);
  fputc('\n', stderr);
  return s == MOECC_ERROR_IO ? MACHINE : DATA;
}

/* With threads, one of them loads ahead while the others compute, unless the kernel does. */
static void start_loader(const Options *o, Weights *w) {
#if MOECC_THREADS
  int wanted = o->source == LOADER || (o->source == DIRECT && !w->direct.in_background);
  if (!wanted || !w->source) return;
  w->loader = allocate(moecc_loader_bytes());
  w->source = moecc_loader_start(w->loader, traced_reads(o, w->source));
#else
  (void)o, (void)w;
#endif
}

static void release_weights(Weights *w) {
#if MOECC_THREADS
  if (w->loader) moecc_loader_stop(w->loader);
#endif
  moecc_file_close(&w->file);
  moecc_direct_close(&w->direct);
  free(w->loader);
  free(w->memory);
}

/* ---- the network ------------------------------------------------------------------------------------------------- */

/* @NAME@_init says how much memory the tasks need when it is given none. Where memory is static, the header has the
 * same number as a macro. */
static int open_network(Network *m, unsigned bits, const moecc_source *source, const moecc_options *options,
                        void **arena) {
  moecc_status s = @NAME@_init(m, bits, NULL, 0, source, options);
  if (s == MOECC_ERROR_ARENA) {
    *arena = allocate(m->c.needed);
    s = @NAME@_init(m, bits, *arena, m->c.needed, source, options);
  }
  return s == MOECC_OK ? DONE : report(m, "init", s);
}

/* Runs the chosen tasks one after another: switching the task is calling another function. */
static int run_tasks(const Options *o, const Weights *w, const moecc_pool *pool, unsigned bits) {
  static Network m; /* starts as zeros */
  moecc_options options = {NULL, 0, 0};
  void *arena = NULL;
  size_t t;
  int status;
  status = start_profile(o, &pool);
  options.pool = pool;
  options.timeout_ms = (unsigned)o->timeout_ms;
  if (status == DONE) status = open_network(&m, bits, traced_source(o, w->source), &options, &arena);
  for (t = 0; t < n_tasks && status == DONE; t++)
    if (chosen(o, &tasks[t])) status = run_task(o, &m, &tasks[t], pool ? pool->threads : 1);
  @NAME@_close(&m);
  free(arena);
  return finish_profile(o, status);
}

static int run_with_threads(const Options *o, const Weights *w, unsigned bits) {
#if MOECC_THREADS
  void *memory = allocate(moecc_threads_bytes());
  const moecc_pool *pool = moecc_threads_start(memory, (unsigned)o->threads);
  int status = run_tasks(o, w, pool, bits);
  moecc_threads_stop(memory);
  free(memory);
  return status;
#else
  if (o->threads > 1) fprintf(stderr, "@NAME@_main: built without threads: one is used\n");
  return run_tasks(o, w, NULL, bits);
#endif
}

/* The bits of the chosen tasks for @NAME@_init; 0: there is no such task. */
static unsigned chosen_bits(const Options *o) {
  unsigned bits = 0;
  size_t t;
  for (t = 0; t < n_tasks; t++)
    if (chosen(o, &tasks[t])) bits |= tasks[t].bits;
  return bits;
}

int main(int argc, char **argv) {
  Options o;
  Weights w;
  unsigned bits;
  int status = parse(&o, argc, argv);
  if (status >= 0) return status;
  bits = chosen_bits(&o);
  if (bits == 0) {
    fprintf(stderr, "@NAME@_main: there is no task %s; the tasks are:\n", o.task);
    (void)list_tasks(stderr);
    return USAGE;
  }
  if (check_inputs(&o) != DONE) return USAGE;
  if (o.folder && mkdir(o.folder, 0777) != 0 && errno != EEXIST) {
    fprintf(stderr, "@NAME@_main: %s: it cannot be created: %s\n", o.folder, strerror(errno));
    return MACHINE;
  }
  status = load_weights(&o, argv[0], &w);
  if (status == DONE) {
    start_loader(&o, &w);
    status = run_with_threads(&o, &w, bits);
  }
  release_weights(&w);
  if (fflush(stdout) != 0 && status == DONE) status = MACHINE;
  return status;
}
