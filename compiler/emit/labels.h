/* What people call things: short identifiers for layers, units and values, made of their paths in the model. */
#ifndef MOECC_EMIT_LABELS_H
#define MOECC_EMIT_LABELS_H

#include "emit/names.h"

/* A value's: "/blocks.0/norm1/LayerNormalization_output_0" within "blocks.0" is "norm1"; with `full`
 * "norm1_layernormalization". within: what the reader knows already. An identifier, lower case. */
const char *label_value(Ctx *c, const char *name, const char *within, bool full);
/* A unit's: the same of the node's name. scope: the node's, put before a name that is no path. many: of a table of
 * experts
 * ("experts.7" is then "experts"). */
const char *label_unit(Ctx *c, const char *name, const char *scope, const char *within, bool many, bool full);
/* The longest path of whole components that both begin with, as long as *path. Shortens path. */
void label_common(char *path, const char *other);
/* What of the path is beyond `within`: the path itself if it does not begin with it. */
const char *label_beyond(const char *path, const char *within);
/* The path without the tasks' names in it ("heads.depth/Resize" is then "heads/Resize"): for what several tasks share.
 */
const char *label_shared(Ctx *c, const Graph *g, const char *path);

#endif
