/* The command line: one file for each command. */
#ifndef MOECC_CLI_H
#define MOECC_CLI_H

#include "compiler.h"

int cli_main(int argc, char **argv); /* the process's exit status */

#endif
