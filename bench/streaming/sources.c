/* Opens each source as an emitted network's user would: see sources.h. */
#define _GNU_SOURCE
#include "sources.h"

#include <stdio.h>
#include <string.h>

#include "network.h"
#include "ports.h"

static moecc_file file;

/* The whole pack in memory, verified. */
static moecc_status load_whole(const char *path) {
  moecc_status s = moecc_file_load(&file, path, NULL, 0, NULL, NULL); /* how large it is */
  if (s != MOECC_ERROR_ARENA) return s;
  return moecc_file_load(&file, path, ports_allocate((size_t)file.bytes), (size_t)file.bytes, NULL, NULL);
}

static const char *open_resident(const char *path, const moecc_source **source) {
  moecc_status s = load_whole(path);
  *source = &file.source;
  return outcome(s);
}

static const char *open_map(const char *path, const moecc_source **source) {
  moecc_status s = moecc_file_map(&file, path);
  *source = &file.source;
  return outcome(s);
}

static const char *open_embedded(const char *path, const moecc_source **source) {
  (void)path;
  *source = NULL;
  return NULL;
}

static const char *open_memory(const char *path, const moecc_source **source) {
  static moecc_source copy;
  moecc_status s = load_whole(path);
  if (s == MOECC_OK) s = moecc_memory_source(&copy, file.source.self, file.bytes, 1);
  *source = &copy;
  return outcome(s);
}

static const char *open_file(const char *path, const moecc_source **source) {
  moecc_status s = moecc_file_open(&file, path);
  *source = &file.source;
  return outcome(s);
}

static const char *open_loader(const char *path, const moecc_source **source) {
  static moecc_source recorded;
  const char *wrong = open_file(path, source);
  if (wrong) return wrong;
  recorded = behind(&file.source);
  *source = moecc_loader_start(ports_allocate(moecc_loader_bytes()), &recorded);
  return *source == &recorded ? "no thread for the loader" : NULL;
}

#ifdef WITH_DIRECT
static const char *open_direct(const char *path, const moecc_source **source) {
  static moecc_direct direct;
  moecc_status s = moecc_direct_open(&direct, path, 0);
  *source = &direct.source;
  if (s == MOECC_OK && !(direct.direct && direct.in_background)) return "no O_DIRECT or no io_uring here";
  return outcome(s);
}
#endif

static const struct {
  const char *name;
  const char *(*open)(const char *path, const moecc_source **source);
} known[] = {
    {"resident", open_resident}, {"map", open_map},   {"embedded", open_embedded},
    {"memory", open_memory},     {"file", open_file}, {"loader", open_loader},
#ifdef WITH_DIRECT
    {"direct", open_direct},
#endif
};

const char *open_source(const char *name, const char *path, const moecc_source **source) {
  size_t i;
  for (i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(known[i].name, name)) return known[i].open(path, source);
  return "there is no such source";
}
