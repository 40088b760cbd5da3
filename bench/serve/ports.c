/* Inputs from .npy files, outputs to them, and calls of tasks by name. */
#define _GNU_SOURCE
#include "ports.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "serve.h"

enum { ALIGN = 4096, LARGE = 2 << 20 };

/* As the emitted driver does it: large memory asks for large pages. */
void *ports_allocate(size_t bytes) {
  void *p = NULL;
  size_t large = (bytes + LARGE - 1) / LARGE * LARGE;
  if (large - bytes > bytes / 4) large = bytes / LARGE * LARGE;
  if (bytes < large) bytes = large;
  if (posix_memalign(&p, large > 0 ? LARGE : ALIGN, bytes > 0 ? bytes : 1) != 0) {
    fprintf(stderr, "no memory for %zu bytes\n", bytes);
    exit(3);
  }
#ifdef MADV_HUGEPAGE
  if (large > 0) (void)madvise(p, large, MADV_HUGEPAGE);
#endif
  return p;
}

const char *ports_open(const char *folder) {
  char path[4096];
  const char *wrong = NULL;
  for (int i = 0; i < n_ports && !wrong; i++) {
    ports[i].data = ports_allocate(moecc_npy_bytes(&ports[i].array));
    (void)snprintf(path, sizeof path, "%s/%s.npy", folder, ports[i].name);
    if (i < n_inputs) wrong = moecc_npy_read(path, &ports[i].array, ports[i].data, NULL);
  }
  return wrong;
}

const char *ports_call(const char *name) {
  void *data[64];
  for (int t = 0; t < n_tasks; t++) {
    if (*name && strcmp(name, tasks[t].name)) continue;
    for (int i = 0; i < tasks[t].n; i++) data[i] = ports[tasks[t].port[i]].data;
    return tasks[t].call(data);
  }
  return "there is no such task";
}

const char *serve_run(const char *what) { return ports_call(what); }

const char *serve_outputs(const char *folder) {
  char path[4096];
  const char *wrong = NULL;
  for (int i = n_inputs; i < n_ports && !wrong; i++) {
    (void)snprintf(path, sizeof path, "%s/%s.npy", folder, ports[i].name);
    wrong = moecc_npy_write(path, &ports[i].array, ports[i].data);
  }
  return wrong;
}
