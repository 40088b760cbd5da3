/* Inputs and outputs of a network that is measured, and its tasks. A table of them is written for each network. */
#ifndef PORTS_H
#define PORTS_H

#include "moecc_npy.h"

typedef struct {
  const char *name;
  moecc_npy array;
  void *data; /* from ports_open */
} Port;

/* Its ports in the order of its function, as places in the table of ports. */
typedef struct {
  const char *name;
  const char *(*call)(void *const *data);
  int n;
  int port[64];
} Task;

extern Port ports[];
extern const int n_inputs, n_ports; /* the inputs come first */
extern const Task tasks[];
extern const int n_tasks;

/* Memory for all ports, inputs read from FOLDER/<input>.npy. */
const char *ports_open(const char *folder);
/* Calls a task; the first if `name` is empty. */
const char *ports_call(const char *name);
void *ports_allocate(size_t bytes);

#endif
