/* Chooses the command, runs it, and says what went wrong. */
#include "cli/cli.h"

#include "interrupt.h"
#include "progress.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

typedef struct {
  const char *name;
  Command command;
  void (*run)(Options *o);
  const char *arguments;
  size_t least, most; /* how many */
  const char *doc;
} CommandInfo;

static const CommandInfo commands[] = {
    {"compile", FOR_COMPILE, command_compile, "MODEL.onnx -o DIR", 1, 1, "compile a model to a folder of C"},
    {"run", FOR_RUN, command_run, "MODEL.onnx|DIR --input NAME=FILE... -o OUT", 1, 1, "run tasks on inputs"},
    {"verify", FOR_VERIFY, command_verify, "MODEL.onnx FOLDER", 2, 2,
     "compare with expected outputs (ONNX's test_data_set layout)"},
    {"bench", FOR_BENCH, command_bench, "MODEL.onnx|DIR", 1, 1, "time each task's function"},
    {"tune", FOR_TUNE, command_tune, "MODEL.onnx -o FILE", 1, 1, "measure kernels' tiles on this machine, for --tune"},
    {"build", FOR_BUILD, command_build, "DIR", 1, 1, "run the right compiler on an emitted folder"},
    {"inspect", FOR_INSPECT, command_inspect, "MODEL.onnx|DIR|TRACE.json", 1, 1,
     "show how a model is understood, what a compiled folder takes, or a trace as a page"},
    {"ops", FOR_OPS, command_ops, "", 0, 0, "the operators that are supported"},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_usage(FILE *f) {
  fprintf(
      f, "moecc %s: compiles multi-task mixture-of-experts vision transformers (and other networks) from ONNX to C\n\n",
      MOECC_VERSION);
  for (int i = 0; i < N_COMMANDS; i++)
    fprintf(f, "  moecc %-8s %-44s %s\n", commands[i].name, commands[i].arguments, commands[i].doc);
  fprintf(f, "\nmoecc COMMAND --help lists a command's options. Exit status: 0 done, 1 the model or data is at fault, "
             "2 the command\n"
             "line is, 3 the machine is.\n");
}

static const CommandInfo *find_command(const char *name) {
  for (int i = 0; i < N_COMMANDS; i++)
    if (strcmp(commands[i].name, name) == 0) return &commands[i];
  return NULL;
}

typedef struct {
  const CommandInfo *command;
  int argc;
  char **argv;
  Options *options;
} Call;

static void run_command(Ctx *c, void *arg) {
  Call *call = arg;
  Options *o = call->options = ctx_alloc(c, sizeof *o);
  o->ctx = c;
  options_read(o, call->command->command, call->argc, call->argv);
  progress_start(progress_mode(o->quiet, o->verbose));
  if (o->n_arguments < call->command->least || o->n_arguments > call->command->most)
    ctx_fail_status(c, EXIT_USAGE, "usage: moecc %s %s", call->command->name, call->command->arguments);
  call->command->run(o);
}

/* Names of a model may hold anything; a terminal is not to obey them. */
static void print_line(const char *text) {
  for (; *text; text++) {
    bool control = ((unsigned char)*text < 32 && *text != '\n' && *text != '\t') || *text == 127;
    (void)fputc(control ? '?' : *text, stderr);
  }
  (void)fputc('\n', stderr);
}

static void print_messages(const Ctx *c, bool quiet) {
  for (size_t i = 0; i < ctx_message_count(c); i++)
    if (ctx_message_is_error(c, i) || !quiet) print_line(ctx_message(c, i));
}

/* Descriptors 0 to 2 must be taken, or the first files opened would be written to as if they were stdout: a closed one
 * becomes one that fails (stdin, stdout) or drops everything (stderr). */
static void open_standard_files(void) {
  for (int fd = 0; fd <= 2; fd++)
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) (void)open("/dev/null", fd == 0 || fd == 2 ? O_WRONLY : O_RDONLY);
}

/* What was printed has arrived, or that is an error, too. */
static ExitStatus close_results(ExitStatus status) {
  bool bad = fflush(stdout) != 0 || ferror(stdout) != 0;
  if (bad && status == EXIT_DONE)
    fprintf(stderr, "moecc: cannot write the results: %s\n", errno ? strerror(errno) : "an earlier write failed");
  return bad && status == EXIT_DONE ? EXIT_MACHINE : status;
}

static ExitStatus help(const CommandInfo *command) {
  if (!command)
    print_usage(stdout);
  else {
    printf("usage: moecc %s %s\n%s\n\n", command->name, command->arguments, command->doc);
    options_help(command->command, stdout);
  }
  return close_results(EXIT_DONE);
}

static ExitStatus run(const CommandInfo *command, int argc, char **argv) {
  Ctx *c = ctx_new();
  if (!c) return fputs("moecc: out of memory\n", stderr), EXIT_MACHINE;
  Call call = {.command = command, .argc = argc, .argv = argv};
  interrupt_watch();
  ExitStatus status = ctx_run(c, run_command, &call);
  progress_stop();
  errno = 0;
  status = close_results(status);
  print_messages(c, call.options && call.options->quiet);
  ctx_free(c);
  return status;
}

static ExitStatus no_command(const char *name) {
  if (name) fprintf(stderr, "moecc: there is no command \"%s\"\n", name);
  print_usage(stderr);
  return EXIT_USAGE;
}

static ExitStatus choose(int argc, char **argv) {
  const char *first = argc > 1 ? argv[1] : NULL;
  if (!first) return no_command(NULL);
  if (strcmp(first, "--version") == 0) return printf("moecc %s\n", MOECC_VERSION), close_results(EXIT_DONE);
  if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) return help(NULL);
  bool asked = strcmp(first, "help") == 0;
  if (asked && argc == 2) return help(NULL);
  const char *name = asked ? argv[2] : first;
  const CommandInfo *command = find_command(name);
  if (!command) return no_command(name);
  if (asked || options_want_help(argc - 2, argv + 2)) return help(command);
  return run(command, argc - 2, argv + 2);
}

int cli_main(int argc, char **argv) {
  open_standard_files();
  return (int)choose(argc, argv);
}
