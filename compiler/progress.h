/* What is being done, on stderr: on a terminal one line for whatever takes over a second, or, when asked to be verbose,
 * a line with its time for each step. A process has one terminal, so the state is the process's. */
#ifndef MOECC_PROGRESS_H
#define MOECC_PROGRESS_H

#include "compiler.h"

typedef enum { PROGRESS_NONE, PROGRESS_LINE, PROGRESS_STEPS } ProgressMode;

/* PROGRESS_LINE where stderr is a terminal that can erase a line, else PROGRESS_NONE. */
ProgressMode progress_mode(bool quiet, bool verbose);
void progress_start(ProgressMode mode);
/* A step begins, and the one before has ended. The text must be printable ASCII: nothing from a model. */
void progress_step(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* The step is over, and the terminal free for something else until the next one. */
void progress_pause(void);
void progress_stop(void);

#endif
