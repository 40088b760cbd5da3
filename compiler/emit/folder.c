/* The output folder: written beside its place, then exchanged with what stands there.
 *
 * For DIR there are, beside it: .DIR.moecc-lock, held while a run writes; .DIR.moecc-building, the new folder, or for a
 * moment the old one; and, only where the system cannot exchange two names, for a moment .DIR.moecc-old. A run that was
 * killed leaves some of these behind; the next one, once it has the lock, puts the old folder back if DIR is missing
 * and removes the rest. These names are ours alone: nobody else's file is ever removed.
 */
#include "emit/folder.h"

#include "interrupt.h"

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
  const char *path, *parent, *building, *old, *lock;
  int lock_fd; /* -1: not held */
  bool made;   /* building exists */
  FILE *file;
  const char *file_name;
  const char **names;
  size_t n_names, cap_names;
};

static void check_signals(Folder *f) {
  if (interrupt_seen()) ctx_fail_status(f->ctx, EXIT_MACHINE, "interrupted; \"%s\" is as it was", f->path);
}

/* ---- removing ---- */

enum { DEEPEST = 64 };

/* Never through a symbolic link. */
static void remove_tree(const char *path, int depth) {
  char inner[4096];
  int fd = depth < DEEPEST ? open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
  DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
  for (struct dirent *entry; d && (entry = readdir(d));) {
    struct stat s;
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name) >= (int)sizeof inner) continue;
    if (lstat(inner, &s) == 0 && S_ISDIR(s.st_mode))
      remove_tree(inner, depth + 1);
    else
      (void)unlink(inner);
  }
  if (d)
    (void)closedir(d);
  else if (fd >= 0)
    (void)close(fd);
  if (rmdir(path) != 0) (void)unlink(path);
}

static void clean_up(void *arg) {
  Folder *f = arg;
  if (f->file) (void)fclose(f->file);
  if (f->made) remove_tree(f->building, 0);
  if (f->lock_fd >= 0) {
    (void)unlink(f->lock);
    (void)close(f->lock_fd);
  }
}

static _Noreturn void machine(Folder *f, const char *what, const char *path) {
  int error = errno;
  ctx_fail_status(f->ctx, EXIT_MACHINE, "%s \"%s\": %s%s", what, path, strerror(error),
                  error == ENOSPC || error == EDQUOT ? " (free some space; what stood there before is untouched)" : "");
}

/* ---- before any work ---- */

/* Is the entry one that the last run's MANIFEST lists, or the folder of build products? */
static bool is_ours(Folder *f, const char *manifest, const char *name) {
  size_t n = strlen(name);
  struct stat s;
  if (!*manifest || lstat(ctx_format(f->ctx, "%s/%s", f->path, name), &s) != 0) return false;
  if (S_ISDIR(s.st_mode)) return strcmp(name, "build") == 0;
  if (strchr(name, '\n')) return false;
  for (const char *line = manifest; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
    if (strncmp(line, name, n) == 0 && line[n] == '\n') return true;
  return false;
}

/* Our MANIFEST, "" if there is none: other programs write files of that name, but not with our runtime in them. */
static const char *read_manifest(Folder *f) {
  int fd = open(ctx_format(f->ctx, "%s/MANIFEST", f->path), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return "";
  Text t = {.ctx = f->ctx};
  char block[4096];
  text_add(&t, "\n");
  for (ssize_t n; (n = read(fd, block, sizeof block)) > 0;) text_write(&t, block, (size_t)n);
  (void)close(fd);
  return strstr(t.text, "\nMANIFEST\n") && strstr(t.text, "\nmoecc_rt.h\n") ? t.text : "";
}

/* Somebody's files are not removed: what stands in the folder must be ours. */
static void check_contents(Folder *f) {
  struct stat s;
  if (lstat(f->path, &s) != 0) return;
  if (!S_ISDIR(s.st_mode))
    ctx_fail_status(f->ctx, EXIT_MACHINE,
                    "the output \"%s\" exists and is not a folder: give another name, or remove it", f->path);
  const char *manifest = read_manifest(f);
  DIR *d = opendir(f->path);
  if (!d) machine(f, "cannot read the output folder", f->path);
  const char *foreign = NULL;
  for (struct dirent *entry; !foreign && (entry = readdir(d));)
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && !is_ours(f, manifest, entry->d_name))
      foreign = ctx_strdup(f->ctx, entry->d_name);
  (void)closedir(d);
  if (foreign)
    ctx_fail_status(f->ctx, EXIT_MACHINE,
                    "the output folder \"%s\" holds \"%s\", which is not from a run before (it is not in its "
                    "MANIFEST): give an empty or new folder",
                    f->path, foreign);
}

static bool still_there(const Folder *f) {
  struct stat a, b;
  return fstat(f->lock_fd, &a) == 0 && stat(f->lock, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

static void held_by_another(Folder *f) {
  char pid[32] = "";
  ssize_t n = pread(f->lock_fd, pid, sizeof pid - 1, 0);
  pid[n > 0 ? n : 0] = 0;
  (void)close(f->lock_fd);
  f->lock_fd = -1;
  ctx_fail_status(f->ctx, EXIT_MACHINE, "the output folder \"%s\" is being written by another run%s%s", f->path,
                  *pid ? ", process " : "", pid);
}

static void take_lock(Folder *f) {
  do { /* the one who held it may have removed it between our open and our lock */
    if (f->lock_fd >= 0) (void)close(f->lock_fd);
    f->lock_fd = open(f->lock, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (f->lock_fd < 0) machine(f, "cannot write beside the output folder,", f->lock);
    if (flock(f->lock_fd, LOCK_EX | LOCK_NB) != 0) held_by_another(f);
  } while (!still_there(f));
  char pid[32];
  int n = snprintf(pid, sizeof pid, "%ld", (long)getpid());
  if (ftruncate(f->lock_fd, 0) != 0 || pwrite(f->lock_fd, pid, (size_t)n, 0) != n) machine(f, "cannot write", f->lock);
}

static void recover(Folder *f) {
  struct stat s;
  if (lstat(f->old, &s) == 0 && lstat(f->path, &s) != 0) (void)rename(f->old, f->path);
  remove_tree(f->old, 0);
  remove_tree(f->building, 0);
}

/* Splits the path into its parent and its last name; "." and ".." have none that could be exchanged. */
static void name_places(Folder *f, const char *path) {
  Ctx *c = f->ctx;
  char *plain = ctx_strdup(c, path);
  for (size_t n = strlen(plain); n > 1 && plain[n - 1] == '/'; n--) plain[n - 1] = 0;
  const char *slash = strrchr(plain, '/'), *name = slash ? slash + 1 : plain;
  if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
    ctx_fail_status(c, EXIT_USAGE, "the output folder \"%s\" has no name of its own: give a folder within it", path);
  f->path = plain;
  f->parent = !slash ? "." : slash == plain ? "/" : ctx_strndup(c, plain, (size_t)(slash - plain));
  f->building = ctx_format(c, "%s/.%s.moecc-building", f->parent, name);
  f->old = ctx_format(c, "%s/.%s.moecc-old", f->parent, name);
  f->lock = ctx_format(c, "%s/.%s.moecc-lock", f->parent, name);
}

Folder *folder_begin(Ctx *c, const char *path) {
  Folder *f = ctx_alloc(c, sizeof *f);
  *f = (Folder){.ctx = c, .lock_fd = -1};
  name_places(f, path);
  ctx_defer(c, clean_up, f);
  check_contents(f);
  take_lock(f);
  recover(f);
  check_contents(f);
  if (mkdir(f->building, 0777) != 0) machine(f, "cannot make", f->building);
  f->made = true;
  return f;
}

/* ---- writing ---- */

static void end_file(Folder *f) {
  if (!f->file) return;
  FILE *file = f->file;
  bool bad = fflush(file) != 0 || fsync(fileno(file)) != 0;
  int error = errno;
  f->file = NULL;
  if (fclose(file) != 0) bad = true, error = errno;
  errno = error;
  if (bad) machine(f, "cannot write", f->file_name);
}

void folder_file(Folder *f, const char *name) {
  end_file(f);
  check_signals(f);
  f->file_name = ctx_format(f->ctx, "%s/%s", f->building, name);
  f->file = fopen(f->file_name, "wbxe");
  if (!f->file) machine(f, "cannot write", f->file_name);
  f->names = ctx_grow(f->ctx, f->names, f->n_names, &f->cap_names, sizeof *f->names);
  f->names[f->n_names++] = ctx_strdup(f->ctx, name);
}

void folder_write(Folder *f, const void *data, size_t bytes) {
  check_signals(f);
  if (bytes && fwrite(data, 1, bytes, f->file) != bytes) machine(f, "cannot write", f->file_name);
}

void folder_text(Folder *f, const char *name, const char *text) {
  folder_file(f, name);
  folder_write(f, text, strlen(text));
}

static bool sync_folder(const char *path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  bool good = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL); /* some file systems cannot sync folders */
  int error = errno;
  if (fd >= 0) (void)close(fd);
  errno = error;
  return good;
}

static _Noreturn void not_in_place(Folder *f) {
  if (errno == EBUSY || errno == EXDEV)
    ctx_fail_status(f->ctx, EXIT_MACHINE,
                    "the output folder \"%s\" is a mount point, which cannot be exchanged: give a folder within it",
                    f->path);
  machine(f, "cannot put in place", f->path);
}

/* Puts the new folder in its place; what stood there is then at `building` or `old`. */
static void exchange(Folder *f) {
  struct stat s;
  if (lstat(f->path, &s) != 0) {
    if (rename(f->building, f->path) != 0) not_in_place(f);
    f->made = false;
    return;
  }
  if (renameat2(AT_FDCWD, f->building, AT_FDCWD, f->path, RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS) not_in_place(f);
  if (rename(f->path, f->old) != 0) not_in_place(f);
  if (rename(f->building, f->path) != 0) {
    int error = errno;
    (void)rename(f->old, f->path);
    errno = error;
    machine(f, "cannot put in place", f->path);
  }
  f->made = false;
  remove_tree(f->old, 0);
}

void folder_commit(Folder *f) {
  Text t = {.ctx = f->ctx};
  for (size_t i = 0; i < f->n_names; i++) text_add(&t, "%s\n", f->names[i]);
  text_add(&t, "MANIFEST\n");
  folder_text(f, "MANIFEST", t.text);
  end_file(f);
  check_signals(f);
  if (!sync_folder(f->building)) machine(f, "cannot write", f->building);
  check_contents(f);
  exchange(f);
  (void)sync_folder(f->parent); /* it is done: a failure here would only be about a loss of power */
  ctx_undefer(f->ctx, clean_up, f);
  clean_up(f);
}
