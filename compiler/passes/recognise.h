/* The passes of this folder that work on the whole graph, by name; passes.c lists them in order, each file's head says
 * what it needs, gives and breaks.
 */
#ifndef MOECC_RECOGNISE_H
#define MOECC_RECOGNISE_H

#include "compiler.h"

void pass_algebra(Graph *g);     /* small exact cleanups, canonical forms */
void pass_widen(Graph *g);       /* half precision arithmetic to float32 */
void pass_layernorm(Graph *g);   /* LayerNormalization, RMSNormalization */
void pass_gelu(Graph *g);        /* Gelu */
void pass_moe(Graph *g);         /* moecc.Moe */
void pass_gelu_form(Graph *g);   /* --gelu erf or tanh */
void pass_attention(Graph *g);   /* moecc.Attention */
void pass_convbn(Graph *g);      /* BatchNormalization, per-channel factors and Pad into Conv */
void pass_resize_conv(Graph *g); /* moecc.ResizeConv */
void pass_fuse(Graph *g);        /* elementwise work into Node.expr */

/* Why the mixture-of-experts layer that n seems to belong to was not recognised, for messages; NULL: n is in none. */
const char *moe_why_not(Node *n);

#endif
