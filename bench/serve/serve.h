/* What a C program that is measured provides: network.c for compiled networks, emx.c for another generator's code, peak.c
 * for the machine itself. serve.c is the rest of the program. */
#ifndef SERVE_H
#define SERVE_H

/* Gets ready to run: `arguments` are those of the command line. Returns NULL, or what went wrong. */
const char *serve_load(int count, char **arguments);
/* One call. `what` is the name of a task, or empty. */
const char *serve_run(const char *what);
/* Writes the outputs of the calls so far to FOLDER/<output>.npy. */
const char *serve_outputs(const char *folder);

#endif
