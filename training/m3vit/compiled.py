"""A network that moecc has compiled to C, called from Python.

`build` runs moecc on an ONNX file, the folder's own Makefile, and the C compiler once more for a shared library.
`Compiled` loads that and calls the tasks' C functions through ctypes, one picture at a time. Between the two stands a
little C (HOLDER), so that nothing here depends on how the runtime's structures are laid out.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import onnx
import torch
from torch import Tensor

NAME = "net"  # of the network in C
ROOT = Path(__file__).resolve().parents[2]

HOLDER = r"""
/* Everything that the network "net" needs to run, in one piece of memory whose insides a caller need not know. */
#include <stdlib.h>
#include <string.h>
#include "net.h"

typedef struct {
  net network; /* first: the tasks' functions take the holder's address */
  moecc_file file;
  void *weights, *arena, *threads;
} Holder;

static void *allocate(size_t bytes) {
  void *p = NULL;
  return posix_memalign(&p, MOECC_ALIGN, bytes > 0 ? bytes : 1) == 0 ? p : NULL;
}

void holder_close(Holder *h) {
  if (!h) return;
  net_close(&h->network);
  moecc_file_close(&h->file);
  if (h->threads) moecc_threads_stop(h->threads);
  free(h->threads);
  free(h->arena);
  free(h->weights);
  free(h);
}

static moecc_status load_weights(Holder *h, const char *pack) {
  moecc_status s = moecc_file_load(&h->file, pack, NULL, 0, NULL, NULL);
  if (s != MOECC_ERROR_ARENA) return s;
  h->weights = allocate((size_t)h->file.bytes);
  return moecc_file_load(&h->file, pack, h->weights, (size_t)h->file.bytes, NULL, NULL);
}

static moecc_status start(Holder *h, unsigned threads) {
  moecc_options options = {NULL, 0, 0};
  moecc_status s;
  h->threads = allocate(moecc_threads_bytes());
  if (h->threads) options.pool = moecc_threads_start(h->threads, threads);
  s = net_init(&h->network, NET_TASKS_ALL, NULL, 0, &h->file.source, &options);
  if (s != MOECC_ERROR_ARENA) return s;
  h->arena = allocate(h->network.c.needed);
  return net_init(&h->network, NET_TASKS_ALL, h->arena, h->network.c.needed, &h->file.source, &options);
}

/* Gives a holder that is ready, or says what is wrong. */
Holder *holder_open(const char *pack, unsigned threads, moecc_status *status) {
  Holder *h = allocate(sizeof *h);
  *status = MOECC_ERROR_ARENA;
  if (!h) return NULL;
  memset(h, 0, sizeof *h);
  *status = load_weights(h, pack);
  if (*status == MOECC_OK) *status = start(h, threads);
  if (*status == MOECC_OK) return h;
  holder_close(h);
  return NULL;
}
"""


class CompiledError(Exception):
    """What could not be found, compiled or run."""


def find_moecc(given: str | None = None) -> Path:
    """The compiler: as given, else $MOECC, else on the path, else where this repository builds it."""
    for wanted, source in ((given, "--moecc"), (os.environ.get("MOECC"), "$MOECC")):
        if wanted:
            found = shutil.which(wanted)
            if not found:
                raise CompiledError(f"{source}: {wanted} is not a program")
            return Path(found)
    found = shutil.which("moecc") or shutil.which(ROOT / "build" / "moecc")
    if not found:
        raise CompiledError("there is no moecc: ./build.sh makes it; --moecc or $MOECC say where it is")
    return Path(found)


def build(model: Path, folder: Path, moecc: Path, flags: str = "-O3") -> Path:
    """Compiles an ONNX file to C, in the folder, and that to a shared library, whose path it returns."""
    _run("moecc", [str(moecc), "compile", str(model), "-o", str(folder), "--name", NAME, "--quiet"])
    tasks = " ".join(function.removeprefix(f"{NAME}_") for function in functions(folder).values())
    make = ["make", "-s", f"-j{os.cpu_count() or 1}", "-C", str(folder)]
    _run("make", [*make, f"TASKS={tasks}", f"CFLAGS={flags} -fPIC", f"build/lib{NAME}.a"])
    (folder / "holder.c").write_text(HOLDER, encoding="utf-8")
    library = folder / f"lib{NAME}.so"
    objects = sorted(map(str, (folder / "build").glob("*.o")))
    compiler = os.environ.get("CC", "cc").split()
    options = ["-shared", "-fPIC", "-O1", f"-I{folder}", "-o", str(library)]
    _run("the C compiler", [*compiler, *options, str(folder / "holder.c"), *objects, "-lm", "-lpthread"])
    return library


def functions(folder: Path) -> dict[str, str]:
    """The C function of each task."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {task["task"]: task["function"] for task in report["tasks"]}


def _run(what: str, command: Sequence[str]) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CompiledError(f"{what}: {command[0]} cannot be run: {error.strerror}") from error
    if result.returncode:
        said = (result.stderr or result.stdout).strip()[-4000:]
        raise CompiledError(f"{what} failed with status {result.returncode}: {' '.join(command)}\n{said}")


class Compiled:
    """The tasks of a compiled network, each of which gives one output of its own name.

    Calling it gives what the PyTorch network gives, for a batch of one picture.
    """

    def __init__(self, model: onnx.ModelProto, folder: Path, library: Path, threads: int = 1) -> None:
        self.image = _shape(next(v for v in model.graph.input if v.name == "image"))
        self.outputs = {value.name: _shape(value) for value in model.graph.output}
        self.library = ctypes.CDLL(str(library))
        missing = set(self.outputs) - set(functions(folder))
        if missing:
            raise CompiledError(f"{folder}: there is no task {', '.join(sorted(missing))}")
        self.tasks = {name: getattr(self.library, functions(folder)[name]) for name in self.outputs}
        for task in self.tasks.values():
            task.restype, task.argtypes = ctypes.c_int, [ctypes.c_void_p] * 3
        self.library.moecc_status_text.restype = ctypes.c_char_p
        self.library.holder_close.argtypes = [ctypes.c_void_p]
        self.library.holder_open.restype = ctypes.c_void_p
        status = ctypes.c_int()
        pack = os.fsencode(folder / f"{NAME}_weights.bin")
        self.holder = self.library.holder_open(pack, ctypes.c_uint(threads), ctypes.byref(status))
        self._check(f"opening {folder}", status.value)

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """image: [1, 3, H, W], of the size that the network was exported for."""
        if tuple(image.shape) != self.image:
            raise CompiledError(f"the picture is {tuple(image.shape)}, the compiled network wants {self.image}")
        picture = image.detach().to("cpu", torch.float32).contiguous()
        results = {name: torch.empty(shape) for name, shape in self.outputs.items()}
        for name, result in results.items():
            self._check(name, self.tasks[name](self.holder, picture.data_ptr(), result.data_ptr()))
        return results

    def _check(self, what: str, status: int) -> None:
        if status:
            text = self.library.moecc_status_text(status)
            raise CompiledError(f"{what}: {text.decode() if text else status}")

    def close(self) -> None:
        if self.holder:
            self.library.holder_close(self.holder)
        self.holder = None

    def __enter__(self) -> Compiled:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def compile_network(model: onnx.ModelProto, moecc: Path, threads: int = 1, flags: str = "-O3") -> Compiled:
    """Compiled and loaded; nothing is left on the disk."""
    with tempfile.TemporaryDirectory(prefix="m3vit-") as place:
        path, folder = Path(place) / "model.onnx", Path(place) / "c"
        onnx.save(model, path)
        return Compiled(model, folder, build(path, folder, moecc, flags), threads)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    shape = tuple(int(d.dim_value) for d in value.type.tensor_type.shape.dim)
    if not all(shape):
        raise CompiledError(f"{value.name} has a dimension without a number")
    return shape
