/* engine.h: a DMA engine in front of a flash chip, as a microcontroller has it: some registers, a transfer at a time, and
 * an interrupt when one has ended.
 *
 * There is no such device on a desktop, so a thread stands in for it (engine.c). Of that only this interface is seen; on
 * a real target its functions are a line or two each, as said beside them.
 */
#ifndef ENGINE_H
#define ENGINE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Engine {
  /* Registers. */
  uint64_t from; /* address in the flash */
  void *to;
  size_t length;
  enum { ENGINE_IDLE, ENGINE_BUSY } status;
  int failed; /* the last transfer ended with an error */
  /* The vector table's entry. */
  void (*interrupt)(void *self);
  void *self;
  /* Inside. */
  const unsigned char *flash;
  size_t flash_bytes;
  unsigned long transfers;
  unsigned long breaks_at; /* the how-many-th transfer never ends; 0: none */
  int off, abort;
  pthread_t thread;
  pthread_mutex_t lock; /* held: interrupts are off */
  pthread_cond_t changed;
} Engine;

/* 0: no thread could be had. */
int engine_power_on(Engine *e, const void *flash, size_t bytes, void (*interrupt)(void *self), void *self);
void engine_power_off(Engine *e);

void engine_interrupts_off(Engine *e); /* __disable_irq(); the interrupt itself runs with interrupts off */
void engine_interrupts_on(Engine *e);  /* __enable_irq() */

/* With interrupts off: */
void engine_start(Engine *e, uint64_t from, void *to, size_t length); /* the registers, then the enable bit */
void engine_abort(Engine *e);                                         /* clears the enable bit, waits for it to clear */
/* Sleeps until an interrupt came, or so many milliseconds are over (0: never): __WFI() with a timer set. 0: they are. */
int engine_sleep(Engine *e, unsigned ms);

#endif
