/* Mapping of the model and of the files its external data is in.
 *
 * External locations come out of the model, so they are opened component by component below the model's folder with no
 * link followed, and only plain files with one name are taken: nothing outside the folder can be reached, whatever is
 * renamed meanwhile. Mappings live as long as the Ctx, because constants point into them.
 */
#include "frontend.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
  FileMap map; /* first: a FileMap is one of these */
  int fd;
  struct stat at_open;
  void *address;
} OpenFile;

static void release(void *arg) {
  OpenFile *f = arg;
  if (f->fd >= 0) close(f->fd);
  if (f->address) munmap(f->address, f->map.bytes);
}

static OpenFile *open_file_new(Ctx *c, const char *name) {
  OpenFile *f = ctx_alloc(c, sizeof *f);
  f->fd = -1;
  f->map.name = ctx_strdup(c, name);
  ctx_defer(c, release, f);
  return f;
}

static const char *kind_of_file(mode_t mode) {
  return S_ISDIR(mode)    ? "a folder"
         : S_ISLNK(mode)  ? "a symbolic link"
         : S_ISFIFO(mode) ? "a FIFO"
         : S_ISSOCK(mode) ? "a socket"
                          : "a device";
}

static FileMap *map_open_file(Ctx *c, OpenFile *f) {
  f->map.bytes = (size_t)f->at_open.st_size;
  f->map.data = (const uint8_t *)"";
  if (f->map.bytes) {
    void *p = mmap(NULL, f->map.bytes, PROT_READ, MAP_PRIVATE, f->fd, 0);
    if (p == MAP_FAILED) ctx_fail_status(c, EXIT_MACHINE, "cannot map %s: %s", quoted(c, f->map.name), strerror(errno));
    f->address = p;
    f->map.data = p;
  }
  return &f->map;
}

FileMap *file_map(Ctx *c, const char *path) {
  OpenFile *f = open_file_new(c, path);
  f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (f->fd < 0) ctx_fail(c, NULL, "cannot open: %s", strerror(errno));
  if (fstat(f->fd, &f->at_open)) ctx_fail_status(c, EXIT_MACHINE, "cannot stat: %s", strerror(errno));
  if (!S_ISREG(f->at_open.st_mode)) ctx_fail(c, NULL, "is %s, not a file", kind_of_file(f->at_open.st_mode));
  return map_open_file(c, f);
}

/* Opens `part` in the folder `at`, closing that one. */
static int step_into(int at, const char *part, bool last) {
  int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK | (last ? 0 : O_DIRECTORY);
  int fd = openat(at, part, flags);
  int error = errno;
  close(at);
  errno = error;
  return fd;
}

/* What is wrong with a location as text, or NULL. */
static const char *location_fault(const char *location) {
  if (!*location) return "is empty";
  if (*location == '/') return "is absolute; only files below the model's folder are read";
  for (const char *p = location; *p;) {
    size_t n = strcspn(p, "/");
    if (n == 2 && p[0] == '.' && p[1] == '.') return "leads out of its folder with \"..\"";
    p += n;
    while (*p == '/') p++;
  }
  if (location[strlen(location) - 1] == '/') return "is a folder";
  return NULL;
}

static _Noreturn void refuse(Ctx *c, const char *owner, const char *location, const char *why) {
  ctx_fail(c, NULL, "%s: external data %s %s", owner, quoted(c, location), why);
}

static const char *open_fault(Ctx *c, const char *part) {
  switch (errno) {
  case ELOOP: return ctx_format(c, "goes through the symbolic link %s: links are not followed", quoted(c, part));
  case ENOTDIR: return ctx_format(c, "goes through %s, which is a link or not a folder", quoted(c, part));
  case ENXIO: return "is a FIFO, socket or device, not a plain file";
  default: return ctx_format(c, "cannot be opened: %s", strerror(errno));
  }
}

static void open_below(Ctx *c, OpenFile *f, const char *folder, const char *location, const char *owner) {
  char *copy = ctx_strdup(c, location);
  f->fd = open(*folder ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (f->fd < 0) refuse(c, owner, location, ctx_format(c, "has no folder %s: %s", quoted(c, folder), strerror(errno)));
  for (char *part = copy, *next; part; part = next) {
    size_t n = strcspn(part, "/");
    next = part[n] ? part + n + 1 + strspn(part + n + 1, "/") : NULL;
    part[n] = 0;
    if (strcmp(part, ".") == 0 || !*part) continue;
    f->fd = step_into(f->fd, part, !next);
    if (f->fd < 0) refuse(c, owner, location, open_fault(c, part));
  }
}

FileMap *file_map_external(Ctx *c, const char *folder, const char *location, const char *owner) {
  const char *fault = location_fault(location);
  if (fault) refuse(c, owner, location, fault);
  OpenFile *f = open_file_new(c, location);
  open_below(c, f, folder, location, owner);
  if (fstat(f->fd, &f->at_open)) refuse(c, owner, location, strerror(errno));
  if (!S_ISREG(f->at_open.st_mode))
    refuse(c, owner, location, ctx_format(c, "is %s, not a plain file", kind_of_file(f->at_open.st_mode)));
  if (f->at_open.st_nlink > 1) refuse(c, owner, location, "is a hard link (a file with several names): copy it");
  return map_open_file(c, f);
}

void file_finish(Ctx *c, FileMap *map) {
  OpenFile *f = (OpenFile *)map;
  if (f->fd < 0) return;
  const struct stat *was = &f->at_open;
  struct stat now;
  bool same = fstat(f->fd, &now) == 0 && now.st_size == was->st_size && now.st_mtim.tv_sec == was->st_mtim.tv_sec &&
              now.st_mtim.tv_nsec == was->st_mtim.tv_nsec;
  close(f->fd);
  f->fd = -1;
  if (!same) ctx_fail(c, NULL, "%s was changed while it was read", quoted(c, map->name));
}

uint64_t file_hash(const void *data, size_t bytes, uint64_t seed) {
  enum { CHUNK = 4 << 20 };
  for (size_t at = 0; at < bytes;) {
    size_t n = bytes - at < CHUNK ? bytes - at : CHUNK;
    seed = hash_bytes((const char *)data + at, n, seed);
    pages_forget((const char *)data + at, n);
    at += n;
  }
  return seed;
}
