/* The command line: cli.c chooses the command, options.c reads the options, and each command has a file. */
#ifndef MOECC_CLI_H
#define MOECC_CLI_H

#include "engine/engine.h"
#include "pipeline.h"

/* Options, as given; what a command does not take was refused. */
typedef struct {
  Ctx *ctx;
  const char *argument[2];
  size_t n_arguments;     /* what stands without a dash */
  CompileOptions compile; /* model, tasks, bind, dims, target, weights, passes … */
  const char *out;        /* -o */
  const char *const *input;
  size_t n_inputs; /* --input NAME=FILE */
  EngineKind engine;
  bool all_tasks;            /* --task all */
  bool weights_given;        /* --weights */
  const char *source;        /* --source; NULL: as the network was compiled */
  const char *for_streaming; /* --stream-buffer or --resident, if one was given */
  bool layers, json, text, kernels, cpu_time, quiet, verbose;
  const char *html, *trace, *tune;
  double rtol, atol;
  bool tolerance_given;
  long threads, runs;
  const char *option; /* being read: for messages */
} Options;

typedef enum {
  FOR_COMPILE = 1,
  FOR_RUN = 2,
  FOR_VERIFY = 4,
  FOR_BENCH = 8,
  FOR_TUNE = 16,
  FOR_BUILD = 32,
  FOR_INSPECT = 64,
  FOR_OPS = 128,
  FOR_ALL = 255
} Command;

int cli_main(int argc, char **argv);           /* the process's exit status */
bool options_want_help(int argc, char **argv); /* --help or -h, before any -- */
/* Reads the arguments behind the command; leaves with EXIT_USAGE and a message that says what would be right. */
void options_read(Options *o, Command command, int argc, char **argv);
void options_help(Command command, FILE *f); /* the options of a command, with units and defaults */

void command_compile(Options *o);
void command_run(Options *o);
void command_verify(Options *o);
void command_bench(Options *o);
void command_tune(Options *o);
void command_build(Options *o);
void command_inspect(Options *o);
void command_ops(Options *o);

#endif
