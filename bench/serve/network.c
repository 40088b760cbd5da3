/* Gets a compiled network ready: WEIGHTS INPUTS THREADS are the arguments. */
#include "network.h"

#include <stdlib.h>

#include "serve.h"

net network; /* starts as zeros */

/* The whole pack in memory, verified. */
static moecc_status load_weights(moecc_file *file, const char *path) {
  moecc_status s = moecc_file_load(file, path, NULL, 0, NULL, NULL); /* how large it is */
  if (s != MOECC_ERROR_ARENA) return s;
  return moecc_file_load(file, path, ports_allocate((size_t)file->bytes), (size_t)file->bytes, NULL, NULL);
}

const char *serve_load(int count, char **arguments) {
  static moecc_file file;
  moecc_options options = {NULL, 0, 0};
  moecc_status s;
  const char *wrong;
  unsigned threads;
  if (count != 4) return "arguments are WEIGHTS INPUTS THREADS";
  threads = (unsigned)atoi(arguments[3]);
  wrong = ports_open(arguments[2]);
  if (wrong) return wrong;
  if (threads > 1) options.pool = moecc_threads_start(ports_allocate(moecc_threads_bytes()), threads);
  s = load_weights(&file, arguments[1]);
  if (s != MOECC_OK) return moecc_status_text(s);
  s = net_init(&network, NET_TASKS_ALL, NULL, 0, &file.source, &options);
  if (s == MOECC_ERROR_ARENA)
    s = net_init(&network, NET_TASKS_ALL, ports_allocate(network.c.needed), network.c.needed, &file.source, &options);
  return outcome(s);
}
