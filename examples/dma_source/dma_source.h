/* dma_source.h: weights that a DMA engine brings from flash. This and dma_source.c are what one writes for a device of
 * one's own. */
#ifndef DMA_SOURCE_H
#define DMA_SOURCE_H

#include "engine.h"
#include "moecc_rt.h"

typedef enum { FREE, QUEUED, RUNNING, DONE, FAILED } TransferState;
typedef struct {
  moecc_piece piece;
  void *to;
  TransferState state;
  unsigned number; /* order of arrival */
} Transfer;

typedef struct {
  moecc_source source; /* give this to N_init */
  Engine *engine;
  Transfer transfer[2]; /* never are more asked for at once */
  unsigned arrivals;
} DmaSource;

/* `pack_bytes`: of the pack, which begins at the flash's address 0; 0 if unknown. */
void dma_source_open(DmaSource *s, Engine *engine, uint64_t pack_bytes);

/* The engine's interrupt; self is the DmaSource. */
void dma_source_interrupt(void *self);

#endif
