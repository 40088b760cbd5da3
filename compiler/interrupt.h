/* Signals that end a run: noted when they come, acted on where work can be left without leaving anything behind. */
#ifndef MOECC_INTERRUPT_H
#define MOECC_INTERRUPT_H

#include "compiler.h"

/* From now on SIGINT, SIGTERM and SIGHUP are noted (a second one kills); a broken pipe and a file that grows over its
 * limit are failed writes, no signals. What is ignored already stays so. */
void interrupt_watch(void);
/* In a child that runs other code: as it was. */
void interrupt_unwatch(void);
int interrupt_seen(void);     /* the signal's number, or 0 */
void interrupt_check(Ctx *c); /* leaves with EXIT_MACHINE if there was one */

#endif
