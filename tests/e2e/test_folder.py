"""The emitted folder: it builds everywhere without a warning, holds just what its tasks need, and reads well."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from emitted import STRICT, Compile, Emitted, data_set, emit, run

COMPILERS = [c for c in ("gcc", "clang-19", "tcc") if shutil.which(c)]
MULTI = ["m3vit-seed1-moe", "nano"]
HOSTED = (
    "_main.c",
    "moecc_npy.c",
    "moecc_npy.h",
    "moecc_rt_file.c",
    "moecc_rt_direct.c",
    "moecc_rt_threads.c",
    "moecc_rt_trace.c",
    "moecc_profile.c",
    "moecc_profile.h",
)  # need an operating system


def words(text: str) -> set[str]:
    return set(re.split(r"[^A-Za-z0-9]+", text.lower()))


# ---- building ----


@pytest.mark.parametrize("network", MULTI)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_make_without_warnings(compiled: Compile, tmp_path: Path, compiler: str, network: str) -> None:
    emitted = compiled(network)
    built = emitted.make(tmp_path / "b", CC=compiler, CFLAGS="-Wall -Werror" if compiler == "tcc" else STRICT)
    assert [line for line in run([built.program, "--list"]).splitlines() if not line.startswith(" ")] == [
        *(t["task"] for t in emitted.tasks),
        "all",
    ]
    needed = run(["readelf", "-d", built.program])
    libraries = set(re.findall(r"NEEDED.*\[(\S+?)\.so", needed))
    assert libraries <= {"libm", "libc", "libpthread", "ld-linux-x86-64"}


def test_cmake_without_warnings(compiled: Compile, networks: Path, tmp_path: Path) -> None:
    """CMakeLists.txt: two of the tasks, without threads."""
    emitted = compiled(MULTI[0])
    options = ["-DTASKS=sal;edge", "-DTHREADS=OFF", f"-DCMAKE_C_FLAGS={STRICT}", "-DCMAKE_BUILD_TYPE=Debug"]
    run(["cmake", "-S", emitted.path, "-B", tmp_path / "b", *options])
    run(["cmake", "--build", tmp_path / "b"])
    program = tmp_path / "b" / f"{emitted.name}_main"
    assert re.findall(r"^\w+", run([program, "--list"]), re.M) == ["sal", "edge"]
    inputs, expected = data_set(networks / MULTI[0])
    assert set(inputs) == {"image"}
    assert expected.keys() >= {"sal", "edge"}


def test_without_threads(compiled: Compile, tmp_path: Path) -> None:
    built = compiled(MULTI[0]).make(tmp_path / "b", THREADS="0", TASKS="sal", CFLAGS=STRICT)
    assert "pthread" not in run(["nm", "-u", built.program])
    assert "sal" in built(tmp_path / "out")


def test_cpp_accepts_the_header(compiled: Compile) -> None:
    for network in MULTI:
        emitted = compiled(network)
        header = emitted.path / f"{emitted.name}.h"
        run(["g++", "-std=c++11", "-fsyntax-only", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-x", "c++", header])


# ---- what is in a program ----


def symbols(program: Path) -> dict[str, int]:
    """Names and sizes of what a program defines."""
    found = {}
    for line in run(["nm", "-S", "--defined-only", program]).splitlines():
        fields = line.split()
        if len(fields) == 4:
            found[fields[3]] = int(fields[1], 16)
    return found


def units_of(emitted: Emitted, task: str) -> set[str]:
    return {step["unit"] for step in emitted.task(task)["schedule"] if "unit" in step}


# Small weights are arrays in C, large ones a .S that includes the pack.
@pytest.mark.parametrize(("network", "form"), [("m3vit-seed1-moe", "c"), ("nano", "S")])
def test_one_task_alone(compiled: Compile, tmp_path: Path, network: str, form: str) -> None:
    """A program of one task has nothing of the others: no code, no embedded weights."""
    emitted = compiled(network, "--weights", "embed")
    assert (emitted.path / f"{emitted.name}_weights.{form}").exists()
    task = emitted.tasks[1]["task"]
    others = [t["task"] for t in emitted.tasks if t["task"] != task]
    built = emitted.make(tmp_path / "b", TASKS=task)
    found = symbols(built.program)
    assert emitted.task(task)["function"] in found
    for other in others:
        assert not [s for s in found if other in re.split(r"[^a-z0-9]+|_", s.lower())]
        assert f"{emitted.name}_{other}" not in found
    prefix = f"{emitted.name}_w_"
    arrays = {s.removeprefix(prefix): size for s, size in found.items() if s.startswith(prefix)}
    if form == "S":  # the assembler gives no sizes: only the names tell
        arrays |= {name.removeprefix(prefix): 0 for name in re.findall(rf"{prefix}\w+", run(["nm", built.program]))}
    assert set(arrays) == units_of(emitted, task)
    share = emitted.task(task)["weight_bytes"]
    if form == "c":
        assert sum(arrays.values()) == share
    read_only = int(next(line.split()[0] for line in run(["size", built.program]).splitlines()[1:]))
    assert share <= read_only <= share + 4096 * len(arrays) + 300_000  # the rest is code
    alone = built(tmp_path / "alone")
    together = emitted.make(tmp_path / "b2")(tmp_path / "together")
    assert list(alone) == [p["name"] for p in emitted.task(task)["outputs"]]
    assert all(alone[name].tobytes() == together[name].tobytes() for name in alone)


def test_core_needs_nothing(compiled: Compile, tmp_path: Path) -> None:
    """The library without its hosted files calls only memory and mathematical functions."""
    emitted = compiled(MULTI[0])
    emitted.make(tmp_path / "b", DRIVER="0", CFLAGS=STRICT)
    archive = tmp_path / "b" / f"lib{emitted.name}.a"
    defined = set(re.findall(r"^\S+ [A-Z] (\S+)$", run(["nm", "--defined-only", archive]), re.M))
    undefined = set(re.findall(r"^ +U (\S+)$", run(["nm", "-u", archive]), re.M)) - defined
    allowed = {"memcpy", "memmove", "memset", "memcmp", "fmaf", "fma", "sqrtf", "floorf", "ceilf", "rintf", "nearbyintf"}
    assert undefined <= allowed | {"_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}


def test_no_allocation_no_stdio(compiled: Compile) -> None:
    forbidden = re.compile(r"<stdio\.h>|<stdlib\.h>|\b(malloc|calloc|realloc|free|alloca|printf)\s*\(")
    for path in compiled("nano").path.glob("*.[ch]"):
        if not path.name.endswith(HOSTED):
            assert not forbidden.search(path.read_text()), path


def test_no_recursion(compiled: Compile, tmp_path: Path) -> None:
    """The call graph that gcc writes has no cycle, and no function's stack depends on its arguments."""
    emitted = compiled(MULTI[0])
    calls: dict[str, set[str]] = {}
    for source in sorted(emitted.path.glob("*.c")):
        if source.name.endswith(HOSTED):
            continue
        flags: list[str | Path] = ["-std=gnu99", "-O1", *emitted.make_flags(), "-fcallgraph-info=su", "-I", emitted.path]
        run(["gcc", *flags, "-c", source, "-o", tmp_path / f"{source.stem}.o"])
        graph = (tmp_path / f"{source.stem}.ci").read_text()
        assert "(dynamic)" not in graph
        for caller, callee in re.findall(r'edge: \{ sourcename: "(.*?)" targetname: "(.*?)"', graph):
            calls.setdefault(caller.split(":")[-1], set()).add(callee.split(":")[-1])
    assert f"{emitted.name}_all" in calls
    calls = {caller: callees - {"__indirect_call"} for caller, callees in calls.items()}
    state: dict[str, bool] = {}  # False: being visited

    def visit(function: str) -> None:
        assert state.get(function, True), f"{function} calls itself"
        if function not in state:
            state[function] = False
            for callee in calls.get(function, ()):
                visit(callee)
            state[function] = True

    for function in calls:
        visit(function)


# ---- what the files say ----


@pytest.mark.parametrize("network", MULTI)
def test_core_names_no_task(compiled: Compile, network: str) -> None:
    emitted = compiled(network)
    assert not words(emitted.text(".c")) & {t["task"].lower() for t in emitted.tasks}


@pytest.mark.parametrize("network", [*MULTI, "vit-op20"])
def test_header_agrees_with_report(compiled: Compile, network: str) -> None:
    emitted = compiled(network)
    header, upper = emitted.text(".h"), emitted.name.upper()
    macros = dict(re.findall(r"#define (\w+)(?:\(threads\))? +(.+?)(?: +/\*.*)?$", header, re.M))
    lengths = {p["macro"]: p["elements"] for t in emitted.tasks for p in (*t["inputs"], *t["outputs"])}
    assert {name: int(macros[name]) for name in lengths} == lengths
    sizes = {"": (emitted.report["arena_bytes_all_tasks"], emitted.report["scratch_bytes_per_thread"])}
    for task in emitted.tasks:
        sizes[f"{task['task'].upper()}_"] = task["arena_bytes"], task["scratch_bytes_per_thread"]
    for prefix, (arena, scratch) in sizes.items():
        assert macros[f"{upper}_{prefix}ARENA_BYTES"] == f"((size_t){arena} + (size_t)(threads) * {scratch})"
    assert macros[f"{upper}_STREAM_BYTES"] == f"((size_t){emitted.report['stream_bytes']})"
    whole = emitted.report["all_tasks"]
    for prefix, bounds in {"": whole, **{f"{t['task'].upper()}_": t for t in emitted.tasks}}.items():
        assert macros[f"{upper}_{prefix}RAM_BYTES"] == macros[f"{upper}_{prefix}ARENA_BYTES"], "not --weights stream"
        assert macros[f"{upper}_{prefix}RESIDENT_BYTES"] == "((size_t)0)"
        assert macros[f"{upper}_{prefix}READ_BYTES"] == f"UINT64_C({bounds['reads_worst_case']['bytes']})"
        assert macros[f"{upper}_{prefix}READ_SLOTS"] == f"((size_t){bounds['reads_worst_case']['slots']})"
        assert macros[f"{upper}_{prefix}QUEUE_BYTES"] == f"((size_t){bounds['queue_bytes']})"
        assert macros[f"{upper}_{prefix}STACK_BYTES"] == f"((size_t){bounds['stack']['caller']})"
        assert macros[f"{upper}_{prefix}STACK_BYTES_WORKER"] == f"((size_t){bounds['stack']['worker']})"
    assert macros[f"{upper}_WEIGHT_BYTES"] == f"UINT64_C({emitted.report['pack_bytes']})"
    assert emitted.report["pack_bytes"] == (emitted.path / f"{emitted.name}_weights.bin").stat().st_size


@pytest.mark.parametrize("network", [*MULTI, "m3vit-odd-moe", "mobilenetv2-op20"])
def test_report(compiled: Compile, network: str) -> None:
    emitted = compiled(network)
    kernels = set(re.findall(r"^void (\w+)\(", emitted.text("_kernels.h"), re.M))
    layers = set(re.findall(r"^static moecc_status (\w+)\(", "".join(f.read_text() for f in emitted.own_files()), re.M))
    for task in emitted.tasks:
        steps = task["schedule"]
        assert task["macs"] == sum(s["macs"] for s in steps) > 0
        assert {k for s in steps for k in ([s["kernel"]] if isinstance(s["kernel"], str) else s["kernel"])} <= kernels
        assert {s["layer"] for s in steps} <= layers
        assert sum(v["bytes"] for v in task["peak"]["values"]) <= task["largest_live_bytes"] <= task["arena_bytes"]
        assert all(0 <= v["offset"] <= task["arena_bytes"] - v["bytes"] for v in task["peak"]["values"])
        experts = sum(min(q["experts"], q["entries"]) * q["bytes_per_expert"] for q in task["queues"])
        dense = sum(s["bytes"] for s in steps if "unit" in s and isinstance(s["kernel"], str))
        assert task["loaded_bytes_worst_case"] == experts + dense
        assert bool(task["queues"]) == network.startswith(("m3vit", "nano"))
        assert task["ram"]["one_thread"] == task["arena_bytes"] + task["scratch_bytes_per_thread"]


def test_same_input_same_bytes(compiled: Compile, moecc: Path, nano: Path, tmp_path: Path) -> None:
    first = compiled("nano").path
    run([moecc, "compile", "--quiet", nano, "-o", tmp_path / "again"])
    files = (first / "MANIFEST").read_text().splitlines()
    assert len(files) > 20
    for name in files:
        assert (first / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


# ---- reading ----


@pytest.mark.parametrize("network", [*MULTI, "vit-op20", "m3vit-conditioned-moe"])
def test_reads_well(compiled: Compile, network: str) -> None:
    """Lines fit on a page, layers on a screen or two, and no exporter's counters are left in names."""
    emitted = compiled(network)
    assert len(emitted.own_files()) >= 5
    for path in [*emitted.own_files(), emitted.path / f"{emitted.name}_main.c"]:
        text = path.read_text()
        code = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        assert max(len(line) for line in text.splitlines()) <= 120, path
        assert text.startswith((f"/* {path.name}: ", f"/* {path.stem}: ")), path
        assert "\n\n\n" not in text, path
        assert not re.search(r" $|\t", text, re.M), path
        assert not re.search(r"\w+_output_\d|val_\d{3}|^static .*= \{0?\};", code, re.M), path
    layers = re.compile(r"^static moecc_status \w+\(.*?^\}", re.M | re.S)
    for body in layers.findall("".join(f.read_text() for f in emitted.own_files())):
        assert body.count("\n") < 170, body[:100]


@pytest.mark.skipif(not shutil.which("clang-format-19"), reason="clang-format-19 is not installed")
@pytest.mark.parametrize("network", ["nano", "vit-op20"])
def test_is_formatted(compiled: Compile, network: str) -> None:
    """What is emitted is what clang-format makes of it, but for long tables of numbers."""
    emitted = compiled(network)
    style = Path(__file__).resolve().parent.parent.parent / ".clang-format"
    for path in emitted.own_files():
        if path.name.endswith("_kernels.c"):  # from templates, which have their own rules
            continue
        result = run(["clang-format-19", f"--style=file:{style}", path])
        tables = re.compile(r"(static const (?:int64_t|size_t) \w+\[\](?:\[2\])? = \{).*?\};", re.S)
        assert tables.sub(r"\1};", path.read_text()) == tables.sub(r"\1};", result), path


def test_names_from_hostile_models_are_harmless(moecc: Path, tmp_path: Path) -> None:
    """Names with comment marks, quotes and keywords reach neither C nor a path; what comes out builds and runs."""
    from onnx import TensorProto, helper, save

    names = ['*/ int x; /*"', "while", "../../etc/x", "exp", "a\nb", "unit_0"]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in names]
    nodes = [
        helper.make_node("Relu", [names[0]], [names[1]], name="/exp/*/Relu"),
        helper.make_node("Sigmoid", [names[1]], [names[2]], name="/unit/while/Sigmoid"),
        helper.make_node("Tanh", [names[2]], [names[3]], name="main"),
        helper.make_node("Neg", [names[3]], [names[4]], name='a"b\\'),
        helper.make_node("Abs", [names[4]], [names[5]], name="??/"),
    ]
    graph = helper.make_graph(nodes, "g*/", values[:1], [values[2], values[5]])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "m.onnx")
    emitted = emit(moecc, tmp_path / "m.onnx", tmp_path / "out")
    built = emitted.make(tmp_path / "b", CFLAGS=STRICT)
    assert len(built(tmp_path / "run")) == 2
    assert [t["task"] for t in emitted.tasks] == [names[2], names[5]]


def test_manifest_lists_what_is_there(compiled: Compile) -> None:
    path = compiled("nano").path
    assert sorted((path / "MANIFEST").read_text().split()) == sorted(p.name for p in path.iterdir() if p.name != "build")
    assert subprocess.run(["make", "-n", "-C", path], capture_output=True).returncode == 0
