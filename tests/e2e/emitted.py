"""An emitted folder: compiling to one, building it, running its driver, and calling it in process."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.numpy_helper

# Five tasks, sizes that fit no vector, routing extremes, a task-conditioned router, and a CNN.
NETWORKS = [
    *(f"m3vit-{case}-moe" for case in ("seed1", "odd", "herd", "herd-of-two", "unloved", "all-chosen", "one-expert")),
    "m3vit-seed1-dense",
    "m3vit-unloved-dense",
    "m3vit-conditioned-moe",
    "m3vit-crowd-dense",
    "mobilenetv2-op20",
    "vit-op20",
    "swinv2-masks-op20",
]

Array = npt.NDArray[Any]
STRICT = "-O1 -Wall -Wextra -Wconversion -Werror"
FAST = "-O2"
SANITIZERS = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined"


def run(command: Sequence[str | Path], **environment: str) -> str:
    """Runs a command that must succeed without a word on stderr; returns its stdout."""
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ | environment)
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}"
    assert not result.stderr, result.stderr
    return result.stdout


def tensor(path: Path) -> tuple[str, Array]:
    """A TensorProto's name and elements."""
    proto = onnx.TensorProto.FromString(path.read_bytes())
    return proto.name, onnx.numpy_helper.to_array(proto)


def data_set(network: Path, number: int = 0) -> tuple[dict[str, Array], dict[str, Array]]:
    """A network's inputs and expected outputs, by name."""
    folder = network / f"test_data_set_{number}"
    return (
        dict(tensor(p) for p in sorted(folder.glob("input_*.pb"))),
        dict(tensor(p) for p in sorted(folder.glob("output_*.pb"))),
    )


def assert_close(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    assert np.abs(found.astype(np.float64) - expected).max() <= 1e-5 * np.abs(expected).max()


def assert_same_bits(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert array.tobytes() == expected[name].tobytes(), f"{name} differs"


@dataclass
class Built:
    """A folder's driver, and how it is started."""

    program: Path
    name: str
    launcher: list[str] = field(default_factory=list)

    def __call__(self, out: Path, inputs: dict[str, Array] | None = None, *options: str) -> dict[str, Array]:
        """Runs it; without inputs on its own noise. Returns the outputs by name of their files."""
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        given: list[str] = ["--noise"] if inputs is None else []
        for name, array in (inputs or {}).items():
            np.save(out / f"in-{name}.npy", array)
            given += ["--input", f"{name}={out / f'in-{name}.npy'}"]
        run([*self.launcher, self.program, *given, "-o", out / "result", *options])
        return {p.stem: np.load(p) for p in sorted((out / "result").glob("*.npy"))}


@dataclass
class Emitted:
    """A folder that the compiler wrote."""

    path: Path
    name: str

    @functools.cached_property
    def report(self) -> dict[str, Any]:
        with (self.path / "report.json").open() as file:
            report: dict[str, Any] = json.load(file)
        return report

    @property
    def tasks(self) -> list[dict[str, Any]]:
        tasks: list[dict[str, Any]] = self.report["tasks"]
        return tasks

    def task(self, name: str) -> dict[str, Any]:
        return next(t for t in self.tasks if t["task"] == name)

    def text(self, suffix: str) -> str:
        """N<suffix>, for instance ".c"."""
        return (self.path / f"{self.name}{suffix}").read_text()

    def own_files(self) -> list[Path]:
        """The C that was made for this network, without the driver, tables of weights and the runtime."""
        files = [*self.path.glob(f"{self.name}*.c"), *self.path.glob(f"{self.name}*.h")]
        return sorted(f for f in files if not f.stem.endswith(("_main", "_weights")))

    def make(self, build: Path, **variables: str) -> Built:
        """Builds it by its own Makefile, into the folder `build`."""
        settings = [f"{key}={value}" for key, value in ({"CFLAGS": FAST} | variables).items()]
        run(["make", "-s", "-j2", "-C", self.path, f"BUILD={build}", *settings])
        program = build / f"{self.name}_main"
        pack = self.path / f"{self.name}_weights.bin"
        if program.exists() and pack.exists():
            (build / pack.name).unlink(missing_ok=True)
            (build / pack.name).symlink_to(pack)
        return Built(program, self.name)

    def make_flags(self) -> list[str]:
        """What the target needs."""
        lines = (self.path / "Makefile").read_text().splitlines()
        return next(line.split(":=")[1] for line in lines if line.startswith("TARGET_FLAGS")).split()

    def library(self, build: Path, *flags: str) -> Network:
        """Builds it as a shared library, to be called in process."""
        build.mkdir(parents=True, exist_ok=True)
        sources = [p for p in sorted(self.path.glob("*.[cS]")) if not p.name.endswith(("_main.c", "moecc_npy.c"))]
        options = ["-std=gnu99", "-O1", "-ffp-contract=fast", *self.make_flags(), *flags, "-shared", "-fPIC"]
        run(["gcc", *options, "-I", self.path, "-o", build / "net.so", *sources, "-lm", "-lpthread"])
        return Network(self, ctypes.CDLL(str(build / "net.so")))


def emit(moecc: Path, model: Path, out: Path, *options: str) -> Emitted:
    """Compiles a model; its folder's name, made an identifier, is the network's."""
    out.parent.mkdir(parents=True, exist_ok=True)
    run([moecc, "compile", "--quiet", model, "-o", out, *options])
    return Emitted(out, next(out.glob("*_internal.h")).name.removesuffix("_internal.h"))


Compile = Callable[..., Emitted]  # compiled(network, *options): see conftest.py

# ---- in process: what moecc_rt.h declares ----


class Piece(ctypes.Structure):
    _fields_ = (
        ("offset", ctypes.c_uint64),
        ("bytes", ctypes.c_size_t),
        ("unit", ctypes.c_uint32),
        ("index", ctypes.c_uint32),
    )


BEGIN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Piece), ctypes.c_void_p)
WAIT = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Piece), ctypes.c_void_p, ctypes.c_uint, ctypes.POINTER(ctypes.c_void_p)
)
NO_UNIT = 0xFFFFFFFF


class Source(ctypes.Structure):
    _fields_ = (
        ("begin", BEGIN),
        ("wait", WAIT),
        ("forget", ctypes.c_void_p),
        ("self", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
        ("resident", ctypes.c_int),
    )


class Counting:
    """A source that copies from the pack and notes every slot that is asked for."""

    def __init__(self, pack: Path) -> None:
        self.pack = pack.read_bytes()
        self.read: list[tuple[int, int]] = []
        self.bytes = 0  # of them
        self.source = Source(BEGIN(self.begin), WAIT(self.wait), None, None, len(self.pack), 0)

    def begin(self, _self: int, piece: Any, dst: int) -> int:
        p = piece.contents
        if p.unit != NO_UNIT:
            self.read.append((p.unit, p.index))
            self.bytes += p.bytes
        ctypes.memmove(dst, self.pack[p.offset : p.offset + p.bytes], p.bytes)
        return 0

    def take_bytes(self) -> int:
        """Bytes of the slots read since the last time."""
        found, self.bytes = self.bytes, 0
        return found

    def wait(self, _self: int, _piece: Any, dst: int, _timeout: int, where: Any) -> int:
        where[0] = dst
        return 0


class Arena:
    """Memory aligned to 64 bytes, full of a NaN's bytes, with a red zone behind it."""

    RED, FILL = 4096, 0xFF

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory = np.full(size + self.RED + 64, self.FILL, np.uint8)
        self.start = -self.memory.ctypes.data % 64
        self.address = self.memory.ctypes.data + self.start

    def check(self) -> None:
        """Nothing outside was written."""
        assert (self.memory[: self.start] == self.FILL).all()
        assert (self.memory[self.start + self.size :] == self.FILL).all()


class Network:
    """A network in this process: one context, an arena, and a counting source."""

    def __init__(self, emitted: Emitted, library: ctypes.CDLL) -> None:
        self.emitted = emitted
        self.library = library
        self.counting = Counting(emitted.path / f"{emitted.name}_weights.bin")
        self.context = ctypes.create_string_buffer(4096)  # a moecc_context is a few hundred bytes

    def _function(self, name: str) -> Any:
        return self.library[f"{self.emitted.name}_{name}"]

    def open(self, tasks: Sequence[str]) -> Arena:
        """Prepares the tasks with just the memory that the report promises."""
        bits, sizes = 0, []
        for i, task in enumerate(self.emitted.tasks):
            if task["task"] in tasks:
                bits |= 1 << i
                sizes.append(task["ram"]["one_thread_streaming"])
        if len(sizes) == len(self.emitted.tasks):
            sizes.append(self.emitted.report["all_tasks"]["ram"]["one_thread_streaming"])
        arena = Arena(max(sizes))
        assert self.init(bits, arena, arena.size) == 0
        return arena

    def init(self, bits: int, arena: Arena, size: int) -> int:
        """The status of N_init for a set of tasks and so much of the arena."""
        self.arena = arena  # alive while the context is
        memory = ctypes.c_void_p(arena.address), ctypes.c_size_t(size)
        source = ctypes.byref(self.counting.source)
        status: int = self._function("init")(self.context, ctypes.c_uint(bits), *memory, source, None)
        return status

    def close(self) -> None:
        self._function("close")(self.context)

    def call(self, function: str, ports: list[dict[str, Any]], inputs: dict[str, Array]) -> dict[str, Array]:
        """Calls N_<function>, whose inputs are given and whose outputs are those in `ports`."""
        given = [np.ascontiguousarray(a) for a in inputs.values()]
        found = {p["name"]: np.full(p["elements"], np.nan, np.float32) for p in ports}
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*given, *found.values())]
        assert self._function(function)(self.context, *pointers) == 0
        return found

    def run(self, name: str, inputs: dict[str, Array]) -> dict[str, Array]:
        """Runs one task."""
        task = self.emitted.task(name)
        wanted = {p["name"]: inputs[p["name"]] for p in task["inputs"]}
        return self.call(task["function"].removeprefix(f"{self.emitted.name}_"), task["outputs"], wanted)

    def run_all(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Runs all tasks in one call; for networks whose tasks bind nothing."""
        return self.call("all", [p for t in self.emitted.tasks for p in t["outputs"]], inputs)
