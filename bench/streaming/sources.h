/* The sources that harness.c measures, by name. */
#ifndef SOURCES_H
#define SOURCES_H

#include "moecc_rt.h"

/* resident: loaded whole; map: mapped; embedded: none; memory: copied from memory; file: read when waited for, the system
 * being told before; loader: by a thread of its own; direct: without the system's cache. *source is NULL for embedded. Gives
 * NULL, or what went wrong. */
const char *open_source(const char *name, const char *path, const moecc_source **source);

/* harness.c: what a loader's thread reads from, with a record of it. */
moecc_source behind(const moecc_source *from);

#endif
