/* Programs of the system, and temporary folders. */
#include "engine/process.h"

#include "interrupt.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- temporary folders ---- */

static void remove_tree(void *arg) {
  const char *path = arg;
  DIR *d = opendir(path);
  for (struct dirent *entry; d && (entry = readdir(d));) {
    char inner[PATH_MAX];
    struct stat s;
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name) >= (int)sizeof inner) continue;
    if (lstat(inner, &s) == 0 && S_ISDIR(s.st_mode))
      remove_tree(inner);
    else
      (void)unlink(inner);
  }
  if (d) (void)closedir(d);
  (void)rmdir(path);
}

const char *temporary_folder(Ctx *c) {
  const char *base = getenv("TMPDIR");
  char *path = ctx_format(c, "%s/moecc-XXXXXX", base && *base ? base : "/tmp");
  if (!mkdtemp(path))
    ctx_fail_status(c, EXIT_MACHINE, "cannot make a temporary folder \"%s\": %s", path, strerror(errno));
  ctx_defer(c, remove_tree, path);
  return path;
}

/* ---- processes ---- */

static void reap(pid_t child, int *status) {
  while (waitpid(child, status, 0) < 0)
    if (errno != EINTR) return;
}

/* An interrupt ends the child, too. */
static void check(Ctx *c, pid_t child, int fd) {
  int status;
  if (!interrupt_seen()) return;
  (void)kill(child, SIGTERM);
  reap(child, &status);
  if (fd >= 0) (void)close(fd);
  interrupt_check(c);
}

/* Appends what the child writes to fd until it closes it. */
static void read_all(Ctx *c, pid_t child, int fd, Text *out) {
  enum { LOOK_MS = 200 };
  char block[4096];
  for (;;) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int ready = poll(&p, 1, LOOK_MS);
    check(c, child, fd);
    if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    ssize_t n = read(fd, block, sizeof block);
    if (n > 0)
      text_write(out, block, (size_t)n);
    else if (n == 0 || errno != EINTR)
      break;
  }
  (void)close(fd);
}

/* The child's exit status once it has ended, 128 + signal if one killed it. */
static int await(Ctx *c, pid_t child) {
  enum { LONGEST_MS = 20 };
  int status = 0, pause = 1;
  for (pid_t ended; (ended = waitpid(child, &status, WNOHANG)) != child;) {
    if (ended < 0 && errno != EINTR) ctx_fail_status(c, EXIT_MACHINE, "lost a child process: %s", strerror(errno));
    (void)poll(NULL, 0, pause);
    check(c, child, -1);
    if (pause < LONGEST_MS) pause++;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void open_pipe(Ctx *c, int pipes[2]) {
  if (pipe2(pipes, O_CLOEXEC) != 0) ctx_fail_status(c, EXIT_MACHINE, "no pipe: %s", strerror(errno));
}

static int collect(Ctx *c, pid_t child, int pipes[2], Text *out) {
  if (out) {
    (void)close(pipes[1]);
    read_all(c, child, pipes[0], out);
  }
  return await(c, child);
}

/* The child is to be ended by the signals that we only note. */
static void default_signals(posix_spawnattr_t *attributes) {
  static const int numbers[] = {SIGPIPE, SIGXFSZ};
  sigset_t set;
  (void)sigemptyset(&set);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) (void)sigaddset(&set, numbers[i]);
  (void)posix_spawnattr_init(attributes);
  (void)posix_spawnattr_setsigdefault(attributes, &set);
  (void)posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGDEF);
}

int process_run(Ctx *c, const char *const *argv, Text *out, bool errors_too) {
  int pipes[2] = {-1, -1};
  if (out) open_pipe(c, pipes);
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  (void)posix_spawn_file_actions_init(&actions);
  default_signals(&attributes);
  if (out) (void)posix_spawn_file_actions_adddup2(&actions, pipes[1], 1);
  if (out && errors_too) (void)posix_spawn_file_actions_adddup2(&actions, pipes[1], 2);
  (void)fflush(NULL);
  pid_t child;
  int error = posix_spawnp(&child, argv[0], &actions, &attributes, (char *const *)(uintptr_t)argv, environ);
  (void)posix_spawn_file_actions_destroy(&actions);
  (void)posix_spawnattr_destroy(&attributes);
  if (!error) return collect(c, child, pipes, out);
  if (out) {
    (void)close(pipes[0]);
    (void)close(pipes[1]);
  }
  return -1;
}

int process_fork(Ctx *c, void (*body)(void *arg), void *arg, Text *out) {
  int pipes[2] = {-1, -1};
  if (out) open_pipe(c, pipes);
  (void)fflush(NULL);
  pid_t child = fork();
  if (child < 0) ctx_fail_status(c, EXIT_MACHINE, "cannot start a process: %s", strerror(errno));
  if (child == 0) {
    if (out) (void)dup2(pipes[1], 1);
    interrupt_unwatch();
    body(arg);
    _exit(EXIT_MACHINE);
  }
  return collect(c, child, pipes, out);
}
