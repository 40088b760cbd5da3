"""Who is measured: how each is given a network, and what it then takes to run it.

A contender is built for one form of a network into a Program: a command that answers as serve/serve.c does. What is slow to
build is kept, under a stamp of what it was built from.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.folders import ROOT
from bench.networks import Files, Network
from bench.process import ContenderError

SERVE = ROOT / "bench/serve"
RUNTIME = ROOT / "runtime"
PATIENCE = 900  # seconds, for generators and compilers
NPY_TYPES = {"float32": "f4", "int64": "i8", "float64": "f8", "int32": "i4"}


@dataclass(frozen=True)
class Settings:
    moecc: Path
    work: Path  # for everything that is built
    cc: str = "clang-19"
    target: str = "native"


@dataclass
class Program:
    """What measuring needs to know of a contender with a network."""

    command: list[str]  # the number of threads is appended
    disk: dict[str, int] = field(default_factory=dict)  # bytes, of `code` and `model`
    facts: dict[str, Any] = field(default_factory=dict)  # of its building, for the record


@dataclass(frozen=True)
class Contender:
    name: str
    package: str  # on PyPI; empty: our own
    forms: tuple[str, ...]  # in which it is tried, `plain` being the only one of some networks
    build: Callable[[Settings, Files, str], Program]
    wanted: Callable[[Network], bool] = lambda network: True
    threads: int = 64  # at most
    optional: bool = False  # measured only if asked for by name

    @property
    def ours(self) -> bool:
        return not self.package

    def version(self) -> str | None:
        """None: it is not installed."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None


def run(command: list[str], **options: Any) -> str:
    """Runs a tool to its end. Its last line says why it failed."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False, **options
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise ContenderError(f"{Path(command[0]).name}: {problem}"[:300]) from None
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise ContenderError(f"{Path(command[0]).name}: {' '.join(lines[-1:])}"[:300])
    return done.stdout


def cached(folder: Path, parts: Iterable[str | Path], build: Callable[[Path], Program]) -> Program:
    """What `build` made in the folder from the same files and strings before, or makes now."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
        digest.update(b"\0")
    note = folder / "program.json"
    if note.exists():
        known = json.loads(note.read_text())
        if known.pop("stamp") == digest.hexdigest():
            return Program(**known)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    program = build(folder)
    note.write_text(json.dumps({"stamp": digest.hexdigest(), **asdict(program)}, indent=1))
    return program


def text_bytes(*objects: Path) -> int:
    """Code and constants of object files or archives."""
    rows = run(["size", *map(str, objects)]).splitlines()[1:]
    return sum(int(row.split()[0]) for row in rows)


def shared_libraries(*names: str) -> int:
    """Bytes of the shared objects below these modules of the installation: what a runtime consists of."""
    site = Path(importlib.metadata.distribution("numpy").locate_file("."))  # type: ignore[arg-type]
    files = (f for name in names for place in site.glob(name) for f in ([place] if place.is_file() else place.rglob("*.so*")))
    return sum(f.stat().st_size for f in set(files) if not f.is_symlink())


# ---- tables for serve/ports.c ----


def port_rows(files: Files) -> str:
    rows = []
    for kind in ("inputs", "expected"):
        for name, array in files.arrays(kind).items():
            type_name = "f4" if kind == "expected" else NPY_TYPES[array.dtype.name]
            shape = ", ".join(map(str, array.shape))
            rows.append(f'  {{"{name}", {{"{type_name}", {array.ndim}, {{{shape}}}}}, 0}},')
    return "\n".join(rows)


def table(files: Files, head: str, tasks: list[tuple[str, str, list[str]]]) -> str:
    """C: the ports, and per task its name, the expression of its call (on void *const *d) and its ports."""
    names = [*files.inputs, *files.outputs]
    calls, rows = [], []
    for number, (name, call, ports) in enumerate(tasks):
        calls.append(f"static const char *call{number}(void *const *d) {{ {call} }}")
        places = ", ".join(str(names.index(port)) for port in ports)
        rows.append(f'  {{"{name}", call{number}, {len(ports)}, {{{places}}}}},')
    return "\n".join(
        [
            head,
            *calls,
            f"Port ports[] = {{\n{port_rows(files)}\n}};",
            f"const int n_inputs = {len(files.inputs)}, n_ports = {len(names)};",
            "const Task tasks[] = {",
            *rows,
            "};",
            f"const int n_tasks = {len(tasks)};",
            "",
        ]
    )


def arguments(count: int) -> str:
    return ", ".join(f"d[{i}]" for i in range(count))


# ---- ours ----


def task_table(files: Files, report: dict[str, Any]) -> str:
    tasks = []
    for task in report["tasks"]:
        ports = [port["name"] for key in ("inputs", "outputs") for port in task[key]]
        tasks.append((task["task"], f"return outcome({task['function']}(&network, {arguments(len(ports))}));", ports))
    if len(tasks) > 1:
        ports = [*files.inputs, *files.outputs]
        tasks.append(("all", f"return outcome(net_all(&network, {arguments(len(ports))}));", ports))
    return table(files, '#include "network.h"', tasks)


def total_macs(report: dict[str, Any]) -> int:
    """Of all tasks at once: what they share is done once."""
    return sum({step["step"]: int(step["macs"]) for task in report["tasks"] for step in task["schedule"]}.values())


def build_moecc(settings: Settings, files: Files, form: str, *options: str) -> Program:
    network = files.network.name

    def build(folder: Path) -> Program:
        code = folder / "net"
        wanted = [*options, "--target", settings.target, "--name", "net", "--quiet"]
        start = time.perf_counter()
        run([str(settings.moecc), "compile", str(files.form(form)), "-o", str(code), *wanted])
        generating = time.perf_counter() - start
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(["make", "-s", "-C", str(code), f"CC={settings.cc}", "build/libnet.a"])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        report = json.loads((code / "report.json").read_text())
        (folder / "table.c").write_text(task_table(files, report))
        flags = (code / "build/flags").read_text().split()
        sources = [SERVE / "serve.c", SERVE / "ports.c", SERVE / "network.c", folder / "table.c", RUNTIME / "moecc_npy.c"]
        program = folder / "program"
        command = [*flags, f"-I{SERVE}", f"-I{RUNTIME}", f"-I{code}", *map(str, sources), str(code / "build/libnet.a")]
        run([*command, "-o", str(program), "-Wl,--gc-sections", "-lm", "-lpthread"])
        weights = code / "net_weights.bin"
        facts = {
            "generate_s": generating,
            "compile_cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "lines": sum(len(f.read_bytes().splitlines()) for f in code.glob("net*.[ch]")),
            "flops": 2.0 * total_macs(report),
            "weight_bytes": report["pack_bytes"],
            "tasks": [task["task"] for task in report["tasks"]],
        }
        disk = {"code": text_bytes(code / "build/libnet.a"), "model": weights.stat().st_size}
        return Program([str(program), str(weights), str(files.folder / "inputs")], disk, facts)

    name = "-".join(["moecc", form, *(o.strip("-") for o in options)])
    sources: list[str | Path] = [
        settings.moecc,
        files.form(form),
        *sorted(SERVE.glob("*.[ch]")),
        *sorted(RUNTIME.glob("moecc_npy.*")),
    ]
    stamp = [*sources, settings.cc, settings.target, json.dumps(files.outputs)]
    return cached(settings.work / network / name, stamp, build)


def token_major(settings: Settings, files: Files, form: str) -> Program:
    return build_moecc(settings, files, form, "--moe", "token-major")


# ---- runtimes called from Python ----


def worker(runtime: str, files: Files, model: Path, *libraries: str) -> Program:
    command = [sys.executable, "-m", "bench.worker", runtime, str(model), str(files.folder)]
    return Program(command, {"code": shared_libraries(*libraries), "model": model.stat().st_size})


def build_onnxruntime(settings: Settings, files: Files, form: str) -> Program:
    return worker("onnxruntime", files, files.form(form), "onnxruntime")


def build_openvino(settings: Settings, files: Files, form: str) -> Program:
    return worker("openvino", files, files.form(form), "openvino")


def build_torch(settings: Settings, files: Files, form: str) -> Program:
    return worker("torch-eager", files, files.folder / "module.pt", "torch", "torch.libs")


def build_inductor(settings: Settings, files: Files, form: str) -> Program:
    return worker("torch-inductor", files, files.folder / "module.pt", "torch", "torch.libs")


def build_mnn(settings: Settings, files: Files, form: str) -> Program:
    """Converted by the tool's library: its command line sends reports of its use, and installs what that takes."""

    def build(folder: Path) -> Program:
        model = folder / "model.mnn"
        tool = "import sys, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"
        given = ["-f", "ONNX", "--modelFile", str(files.form(form)), "--MNNModel", str(model), "--bizCode", "bench"]
        said = run([sys.executable, "-c", tool, *given])
        if not model.exists():
            reasons = [line for line in said.splitlines() if "not support" in line.lower() or "error" in line.lower()]
            raise ContenderError(f"mnnconvert: {' '.join(reasons or said.splitlines()[-1:])}"[:300])
        return worker("mnn", files, model, "MNN", "_mnncengine*.so", "mnn.libs")

    version = importlib.metadata.version("MNN")
    return cached(settings.work / files.network.name / f"mnn-{form}", [files.form(form), version], build)


def build_iree(settings: Settings, files: Files, form: str) -> Program:
    tools = Path(sys.executable).parent

    def build(folder: Path) -> Program:
        graph, model = folder / "model.mlir", folder / "model.vmfb"
        run([str(tools / "iree-import-onnx"), str(files.form(form)), "-o", str(graph), "--opset-version", "20"])
        backend = ["--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu"]
        run([str(tools / "iree-compile"), str(graph), *backend, "--iree-llvmcpu-target-cpu=host", "-O3", "-o", str(model)])
        return worker("iree", files, model, "iree/_runtime_libs", "iree_base_runtime.libs")

    version = importlib.metadata.version("iree-base-compiler")
    return cached(settings.work / files.network.name / f"iree-{form}", [files.form(form), version], build)


# ---- another generator of C ----


def build_emx(settings: Settings, files: Files, form: str) -> Program:
    def build(folder: Path) -> Program:
        code = folder / "generated.c"
        start = time.perf_counter()
        tool = str(Path(sys.executable).parent / "emx-onnx-cgen")
        run([tool, "compile", str(files.form(form)), str(code), "--model-name", "generated", "--restrict-arrays"])
        generating = time.perf_counter() - start
        ports = [*files.inputs, *files.outputs]
        prototypes = f'#include "ports.h"\nvoid generated({", ".join(["void *"] * len(ports))});'
        (folder / "table.c").write_text(
            table(files, prototypes, [("all", f"generated({arguments(len(ports))}); return 0;", ports)])
        )
        flags = ["gcc", "-O3", "-march=native", "-w"]
        start = time.perf_counter()
        run([*flags, "-c", str(code), "-o", str(folder / "generated.o")])
        compiling = time.perf_counter() - start
        sources = [SERVE / "serve.c", SERVE / "ports.c", SERVE / "emx.c", folder / "table.c", RUNTIME / "moecc_npy.c"]
        program = folder / "program"
        linked = [*flags, f"-I{SERVE}", f"-I{RUNTIME}", *map(str, sources), str(folder / "generated.o")]
        run([*linked, "-o", str(program), "-lm"])
        weights = folder / "generated.bin"
        facts = {
            "generate_s": generating,
            "compile_cpu_s": compiling,
            "lines": len(code.read_bytes().splitlines()),
        }
        disk = {"code": text_bytes(folder / "generated.o"), "model": weights.stat().st_size}
        return Program([str(program), str(weights), str(files.folder / "inputs")], disk, facts)

    version = importlib.metadata.version("emx-onnx-cgen")
    stamp: list[str | Path] = [files.form(form), *sorted(SERVE.glob("*.[ch]")), version]
    return cached(settings.work / files.network.name / f"emx-{form}", stamp, build)


# ---- the machine itself ----

PEAK_FLOPS = 2_000_000_000


def build_peak(settings: Settings) -> Program:
    """The machine's own limits, as vectors of the compiled networks' target reach them."""
    program = settings.work / "peak"
    features = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    target = settings.target
    if target == "native" and "avx512vl" in features:
        target = "x86-64-v4"
    flags = ["-std=gnu11", "-O3", f"-march={target}", "-ffp-contract=fast", f"-DPEAK_FLOPS={PEAK_FLOPS}L"]
    sources = [str(SERVE / "peak.c"), str(SERVE / "serve.c")]
    run([settings.cc, *flags, *sources, "-o", str(program), "-lpthread"])
    return Program([str(program)])


# Each is tried in its forms; the fastest that is exact is measured. PyTorch has the network itself.
_OURS, _PLAIN = ("routed", "plain"), ("routed", "dense", "plain")
CONTENDERS = [
    Contender("moecc", "", _OURS, build_moecc),
    Contender("moecc token-major", "", _OURS, token_major, lambda n: n.orders),
    Contender("onnxruntime", "onnxruntime", (*_PLAIN, "moe"), build_onnxruntime),
    Contender("OpenVINO", "openvino", _PLAIN, build_openvino),
    Contender("MNN", "MNN", _PLAIN, build_mnn),
    Contender("PyTorch eager", "torch", ("module",), build_torch, lambda n: not n.switching),
    Contender("PyTorch inductor", "torch", ("module",), build_inductor, lambda n: n.everyone, threads=1),
    Contender("emx-onnx-cgen", "emx-onnx-cgen", ("dense", "plain"), build_emx, lambda n: n.everyone, threads=1),
    Contender("IREE", "iree-base-runtime", ("dense", "plain"), build_iree, lambda n: n.everyone, optional=True),
]


def chosen(names: list[str]) -> list[Contender]:
    """Those named, or all that are not optional. `moecc` is always among them."""
    if not names:
        return [c for c in CONTENDERS if not c.optional]
    known = {c.name.lower(): c for c in CONTENDERS}
    unknown = [n for n in names if n.lower() not in known]
    if unknown:
        raise SystemExit(f"bench: no contender {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[n] for n in dict.fromkeys(["moecc", *(n.lower() for n in names)])]


def cores() -> int:
    return len(os.sched_getaffinity(0))
