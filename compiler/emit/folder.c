/* The output folder: written beside its place, then exchanged with what stands there. */
#include "emit/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct Folder {
  Ctx *ctx;
  const char *path;   /* final */
  const char *build;  /* beside it */
  const char *lock;
  int lock_fd;
  FILE *file;
  const char *file_name;
  const char **names;
  size_t n_names, cap_names;
};

static _Noreturn void machine(Folder *f, const char *what, const char *path) {
  ctx_fail_status(f->ctx, EXIT_MACHINE, "%s \"%s\": %s", what, path, strerror(errno));
}

static void remove_folder(const char *path) {
  DIR *d = opendir(path);
  if (!d) return;
  int fd = dirfd(d);
  for (struct dirent *entry; (entry = readdir(d));)
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) unlinkat(fd, entry->d_name, 0);
  closedir(d);
  rmdir(path);
}

static void clean_up(void *arg) {
  Folder *f = arg;
  if (f->file) fclose(f->file);
  if (f->build) remove_folder(f->build);
  if (f->lock_fd >= 0) {
    unlink(f->lock);
    close(f->lock_fd);
  }
}

Folder *folder_begin(Ctx *c, const char *path) {
  Folder *f = ctx_alloc(c, sizeof *f);
  f->ctx = c;
  f->path = ctx_strdup(c, path);
  f->lock_fd = -1;
  f->lock = ctx_format(c, "%s.lock", path);
  ctx_defer(c, clean_up, f);
  f->lock_fd = open(f->lock, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  if (f->lock_fd < 0) machine(f, "cannot write beside the output folder:", f->lock);
  if (flock(f->lock_fd, LOCK_EX | LOCK_NB) != 0)
    ctx_fail_status(c, EXIT_MACHINE, "the output folder \"%s\" is being written by another run", path);
  const char *build = ctx_format(c, "%s.building", path);
  remove_folder(build);
  if (mkdir(build, 0755) != 0) machine(f, "cannot make", build);
  f->build = build;
  return f;
}

static void end_file(Folder *f) {
  if (!f->file) return;
  FILE *file = f->file;
  f->file = NULL;
  bool bad = fflush(file) != 0;
  if (fclose(file) != 0 || bad) machine(f, "cannot write", f->file_name);
}

void folder_file(Folder *f, const char *name) {
  end_file(f);
  f->file_name = ctx_format(f->ctx, "%s/%s", f->build, name);
  f->file = fopen(f->file_name, "wb");
  if (!f->file) machine(f, "cannot write", f->file_name);
  f->names = ctx_grow(f->ctx, f->names, f->n_names, &f->cap_names, sizeof *f->names);
  f->names[f->n_names++] = ctx_strdup(f->ctx, name);
}

void folder_write(Folder *f, const void *data, size_t bytes) {
  if (bytes && fwrite(data, 1, bytes, f->file) != bytes) machine(f, "cannot write", f->file_name);
}

void folder_text(Folder *f, const char *name, const char *text) {
  folder_file(f, name);
  folder_write(f, text, strlen(text));
}

void folder_commit(Folder *f) {
  Text t = {.ctx = f->ctx};
  for (size_t i = 0; i < f->n_names; i++) text_add(&t, "%s\n", f->names[i]);
  text_add(&t, "MANIFEST\n");
  folder_text(f, "MANIFEST", t.text);
  end_file(f);
  remove_folder(f->path);
  if (rename(f->build, f->path) != 0) machine(f, "cannot put in place", f->path);
  f->build = NULL;
}
