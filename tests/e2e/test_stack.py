"""The bounds on stack: compilers' own figures for each function along the deepest chain of calls, and painted stacks."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from emitted import Compile, Emitted, run

NODE = re.compile(r'^node: \{ title: "(?:[^"]*:)?([^":]+)" label: "[^"]*?\\n(\d+) bytes \((\w+(?:,bounded)?)\)', re.M)
EDGE = re.compile(r'^edge: \{ sourcename: "(?:[^"]*:)?([^":]+)" targetname: "(?:[^"]*:)?([^":]+)"', re.M)
LOOPS = {"moecc_for", "pool_run", "run_share", "run_shares", "work"}  # what calls a body through a pointer


class Calls:
    """Every function of a folder: its frame, as a compiler gives it, and whom it calls. Where a compiler does not say
    that, it is asked of gcc: what was inlined has no frame of its own."""

    def __init__(self, emitted: Emitted, folder: Path, compiler: Sequence[str], level: str) -> None:
        folder.mkdir()
        gcc = "gcc" in compiler[0]
        self.size: dict[str, int] = {}
        self.calls: dict[str, set[str]] = {}
        sources = [
            p for p in sorted(emitted.path.glob("*.c")) if not re.search(r"(_main|npy|_profile|_trace|_weights)\.c$", p.name)
        ]
        options = ["-std=gnu99", "-ffp-contract=fast", "-w", *emitted.make_flags(), "-I", str(emitted.path), "-c"]
        for source in sources:
            target = folder / f"{source.stem}.o"
            flags = ["-fstack-usage", *(["-fcallgraph-info=su"] if gcc else [])]
            run([*compiler, *options, level, *flags, source, "-o", target])
            if not gcc:
                for line in target.with_suffix(".su").read_text().splitlines():
                    name, size, kind = line.split("\t")
                    self.add(name.split(":")[-1], int(size), kind)
                target = folder / f"{source.stem}-calls.o"
                run(["gcc", *options, "-O0", "-fcallgraph-info", source, "-o", target])
            graph = target.with_suffix(".ci").read_text()
            for name, bytes_, kind in NODE.findall(graph) if gcc else ():
                self.add(name, int(bytes_), kind)
            for caller, callee in EDGE.findall(graph):
                self.calls.setdefault(caller, set()).add(callee)
        text = emitted.text("_kernels.c")
        self.kernels = set(re.findall(r"^void (\w+)\(", emitted.text("_kernels.h"), re.M))
        self.bodies = set(re.findall(r"moecc_for\(\s*\w+,\s*(\w+)", text))
        mine = tuple(f"{k}_" for k in self.kernels)
        named = (f for f in self.calls.keys() | self.size if re.match(r"(?!moecc|held)\w+_(begin|wait|copy|forget)$", f))
        self.sources = {f for f in named if not f.startswith(mine)}

    def add(self, name: str, size: int, kind: str) -> None:
        assert kind != "dynamic", f"{name} takes an amount of stack that is known only when it runs"
        self.size[name] = max(self.size.get(name, 0), size)

    def through_pointer(self, caller: str, kernel: str | None, path: tuple[str, ...]) -> set[str]:
        """Whom a call through a pointer may reach: a kernel's own body, the pool, or a source of weights."""
        if caller.split(".")[0] not in LOOPS:
            return set() if set(path) & self.bodies else self.sources - set(path)  # one source may stand before another
        reached = {b for b in self.calls.keys() | self.size if b.split(".")[0] in self.bodies}
        if kernel:
            reached = {b for b in reached if b.startswith(f"{kernel}_")}
        return reached | ({"pool_run"} if caller == "moecc_for" else set())

    def depth(self, name: str, kernel: str | None = None, path: tuple[str, ...] = ()) -> int:
        assert name not in path, f"{name} calls itself: {path}"
        if name in self.kernels:
            kernel = name
        callees = set(self.calls.get(name, ()))
        if "__indirect_call" in callees:
            callees = callees - {"__indirect_call"} | self.through_pointer(name, kernel, (*path, name))
        below = [self.depth(c, kernel, (*path, name)) for c in sorted(callees) if c in self.calls or c in self.size]
        return self.size.get(name, 0) + max(below, default=0)


# Target, compiler, and levels of optimisation.
BUILDS: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    ("x86-64-v3", ("gcc",), ("-O1", "-O2", "-O3", "-Os")),
    ("x86-64-v3", ("clang-19",), ("-O1", "-O3")),
    ("x86-64-v4", ("gcc",), ("-O1", "-O3")),
    ("x86-64-v4", ("clang-19",), ("-O3",)),
    ("generic", ("gcc",), ("-O1", "-O3")),
    ("generic", ("clang-19",), ("-O3",)),
    ("aarch64", ("aarch64-linux-gnu-gcc",), ("-O1", "-O3")),
    ("riscv64", ("riscv64-linux-gnu-gcc",), ("-O1", "-O3")),
]


@pytest.mark.parametrize("network", ["m3vit-odd-moe", "mobilenetv2-op20"])
@pytest.mark.parametrize(
    ("target", "compiler", "levels"), BUILDS, ids=lambda x: x if isinstance(x, str) else "-".join(x).replace("--", "-")
)
def test_chains(
    compiled: Compile, tmp_path: Path, network: str, target: str, compiler: tuple[str, ...], levels: tuple[str, ...]
) -> None:
    """No chain of calls is deeper than the report says, of any task, kernel or worker; nor is the bound far away."""
    emitted = compiled(network, "--target", target, "--weights", "stream")
    deepest = 0
    for level in levels:
        calls = Calls(emitted, tmp_path / level, compiler, level)
        assert calls.kernels
        assert calls.bodies
        assert calls.sources
        for kernel, bound in emitted.report["kernel_stack_bytes"].items():
            assert kernel in calls.size
            assert calls.depth(kernel) <= bound, kernel
        functions = [(t["function"], t["stack"]) for t in emitted.tasks]
        if len(functions) > 1:
            functions.append((f"{emitted.name}_all", emitted.report["all_tasks"]["stack"]))
        for function, stack in functions:
            found = calls.depth(function)
            deepest = max(deepest, found)
            assert found <= stack["caller"], function
        whole = emitted.report["all_tasks"]["stack"]
        assert calls.depth("work") <= whole["worker"]
        assert calls.depth(f"{emitted.name}_init") <= whole["caller"]
    assert deepest > 500
    assert whole["caller"] <= 6 * deepest


PAINTED = """
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "NET.h"

enum {{ STACK = 1 << 20, PAINT = 0xa5, THREADS = 3 }};
static unsigned char *stacks[8];
static int n_stacks;

/* Every thread gets a painted stack. */
int __real_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*body)(void *), void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*body)(void *), void *arg) {{
  pthread_attr_t own;
  unsigned char *p = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  (void)a;
  memset(p, PAINT, STACK);
  stacks[n_stacks++] = p;
  pthread_attr_init(&own);
  pthread_attr_setstack(&own, p, STACK);
  return __real_pthread_create(t, &own, body, arg);
}}
static size_t used(const unsigned char *p) {{
  size_t i = 0;
  while (i < STACK && p[i] == PAINT) i++;
  return STACK - i;
}}
static void *nothing(void *arg) {{ return arg; }}

static void *call(void *arg) {{
  static NET m;
  static moecc_file file;
  void *loader = aligned_alloc(64, (moecc_loader_bytes() + 63) & ~(size_t)63);
  void *pool = aligned_alloc(64, (moecc_threads_bytes() + 63) & ~(size_t)63);
  const size_t bytes = UPPER_RAM_BYTES(THREADS);
  void *arena = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
  const moecc_source *source;
  moecc_options o = {{0}};
  (void)arg;
  if (moecc_file_open(&file, "PACK")) return "open";
  o.pool = moecc_threads_start(pool, THREADS);
  source = moecc_loader_start(loader, &file.source);
  if (NET_init(&m, UPPER_TASKS_ALL, arena, bytes, source, &o)) return "init";
{calls}
  NET_close(&m);
  moecc_loader_stop(loader);
  moecc_threads_stop(pool);
  return NULL;
}}

int main(void) {{
  pthread_t t;
  void *result;
  int i;
  pthread_create(&t, NULL, nothing, NULL);
  pthread_join(t, NULL);
  pthread_create(&t, NULL, call, NULL);
  pthread_join(t, &result);
  if (result) return fprintf(stderr, "%s failed\\n", (char *)result), 1;
  for (i = 0; i < n_stacks; i++) printf("%zu\\n", used(stacks[i]));
  return 0;
}}
"""


def program(emitted: Emitted) -> str:
    """Calls every task, on zeros, in a painted thread, with painted workers."""
    calls = []

    def buffer(port: dict[str, Any]) -> str:
        return f"calloc({max(port['elements'], 1)}, 8)"

    for task in emitted.tasks:
        arguments = ", ".join(["&m", *(buffer(p) for p in (*task["inputs"], *task["outputs"]))])
        calls.append(f'  if ({task["function"]}({arguments})) return "{task["function"]}";')
    text = PAINTED.format(calls="\n".join(calls))
    names = {"NET": emitted.name, "UPPER": emitted.name.upper(), "PACK": str(emitted.path / f"{emitted.name}_weights.bin")}
    return re.sub(r"NET|UPPER|PACK", lambda m: names[m[0]], text)


@pytest.mark.parametrize("network", ["m3vit-odd-moe", "mobilenetv2-op20"])
@pytest.mark.parametrize("level", ["-O1", "-O3"])
def test_painted(compiled: Compile, tmp_path: Path, network: str, level: str) -> None:
    """What a call leaves untouched of its thread's stack, and of its workers': more than the bound promises."""
    emitted = compiled(network, "--target", "generic", "--weights", "stream")
    (tmp_path / "painted.c").write_text(program(emitted))
    sources = [p for p in sorted(emitted.path.glob("*.c")) if not re.search(r"(_main|npy|_profile|_trace)\.c$", p.name)]
    options = ["-std=gnu99", "-w", "-ffp-contract=fast", level, "-static", "-Wl,--wrap=pthread_create", "-I", str(emitted.path)]
    run(["gcc", *options, "-o", tmp_path / "painted", tmp_path / "painted.c", *sources, "-lm", "-lpthread"])
    result = subprocess.run([tmp_path / "painted"], check=True, capture_output=True, text=True)
    empty, caller, *workers = map(int, result.stdout.split())
    bound = emitted.report["all_tasks"]["stack"]
    assert len(workers) == 3  # two of the pool and the loader
    assert 0 < caller - empty <= bound["caller"]
    assert all(w - empty <= bound["worker"] for w in workers[:2])
    assert any(w > empty for w in workers[:2])
