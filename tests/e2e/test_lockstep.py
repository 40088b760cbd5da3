"""N_all where weights are streamed: tasks side by side, which reads what they share once and changes no bit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from emitted import SANITIZERS, STRICT, Array, Compile, Emitted, Network, assert_same_bits, data_set, emit
from onnx import TensorProto, helper, numpy_helper

STREAM = ("--weights", "stream", "--target", "generic")
NETWORKS = [f"m3vit-{case}-moe" for case in ("seed1", "odd", "herd-of-two", "unloved", "all-chosen", "conditioned")]
COMPILERS = {
    "gcc": {"CC": "gcc", "CFLAGS": STRICT},
    "clang": {"CC": "clang-19", "CFLAGS": STRICT},
    "tcc": {"CC": "tcc", "CFLAGS": ""},
    "sanitizers": {"CC": "gcc", "CFLAGS": SANITIZERS},
}

# ---- small networks of several tasks ----


class Maker:
    """Tasks that each multiply by a matrix of their own (or of their pair), then by ones that all tasks share."""

    TOKENS, WIDTH, EXPERTS, HIDDEN = 7, 48, 6, 64

    def __init__(self) -> None:
        self.random = np.random.default_rng(7)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, npt.NDArray[np.float32]] = {}

    def weight(self, name: str, *shape: int) -> str:
        if name not in self.weights:
            scale = 1 / np.sqrt(shape[-2] if len(shape) > 1 else 1)
            self.weights[name] = (self.random.standard_normal(shape) * scale).astype(np.float32)
        return name

    def node(self, op: str, task: str, *inputs: str, **attributes: Any) -> str:
        name = f"/{task}/{op}_{len(self.nodes)}"
        output = f"{name}_output_0"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name, **attributes))
        return output

    def product(self, task: str, x: str, weight: str, width: int = WIDTH) -> str:
        return self.node("Relu", task, self.node("MatMul", task, x, self.weight(weight, self.WIDTH, width)))

    def experts(self, task: str, x: str, table: str, first: int, count: int) -> str:
        """A mixture with a router for each task, of experts first … first+count-1 of a table."""
        e, h, i = self.EXPERTS, self.WIDTH, self.HIDDEN
        gate = self.node("MatMul", task, x, self.weight(f"{task}.{table}.gate", h, count))
        tensors = []
        for name, shape in (("w1", (e, i, h)), ("b1", (e, i)), ("w2", (e, h, i)), ("b2", (e, h))):
            whole = self.weights[self.weight(f"{table}.{name}", *shape)]
            part = f"{table}.{name}.{first}.{count}"
            self.weights[part] = whole[first : first + count]
            tensors.append(part)
        y = self.node("MoE", task, x, gate, *tensors, domain="com.microsoft", k=2, activation_type="relu")
        return self.node("Add", task, x, y)

    def save(self, path: Path, outputs: dict[str, str]) -> Path:
        for task, x in outputs.items():
            self.nodes.append(helper.make_node("Identity", [x], [task], f"/{task}/give"))
        used = {name for node in self.nodes for name in node.input}
        graph = helper.make_graph(
            self.nodes,
            "tasks",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [self.TOKENS, self.WIDTH])],
            [helper.make_tensor_value_info(task, TensorProto.FLOAT, None) for task in outputs],
            [numpy_helper.from_array(w, name) for name, w in self.weights.items() if name in used],
        )
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        for task in outputs:
            model.metadata_props.add(key=f"moecc.task.{task}", value=f"outputs={task}")
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)
        return path


def nothing_shared(path: Path) -> Path:
    m, outputs = Maker(), {}
    for i, task in enumerate(("near", "far")):
        x = m.product(task, "x", f"{task}.a")
        outputs[task] = m.product(task, m.product(task, x, f"{task}.b"), f"{task}.c", 8 + i)
    return m.save(path, outputs)


def pairs(path: Path) -> Path:
    """Two pairs of tasks: each pair its own beginning, each task then its own matrix, and all the same experts."""
    m, outputs = Maker(), {}
    for i, task in enumerate(("red", "green", "cold", "warm")):
        first = m.product("pair", "x", f"pair{i // 2}.a")
        x = m.product(task, m.product(task, first, f"{task}.b"), "all.c")
        x = m.experts(task, x, "all.d", 0, m.EXPERTS)
        outputs[task] = m.product(task, m.product(task, x, "all.e"), f"{task}.f", 4 + i)
    return m.save(path, outputs)


def windows(path: Path) -> Path:
    """Three tasks that may choose from different experts of the first mixture, and from all of the second."""
    m, outputs = Maker(), {}
    for i, task in enumerate(("left", "middle", "right")):
        x = m.product(task, m.product(task, "x", f"{task}.a"), "all.b")
        x = m.product(task, m.experts(task, x, "all.c", i, 4), "all.d")
        x = m.experts(task, x, "all.e", 0, m.EXPERTS)
        outputs[task] = m.product(task, m.product(task, x, "all.f"), f"{task}.g", 5 + i)
    return m.save(path, outputs)


def one_apart(path: Path) -> Path:
    """Three tasks that go together, and one that does something else."""
    m, outputs = Maker(), {}
    for i, task in enumerate(("a", "b", "c", "d")):
        x = m.product(task, "x", f"{task}.first")
        x = m.node("Sigmoid", task, x) if task == "b" else m.product(task, x, "all.b")
        x = m.experts(task, m.product(task, x, "all.c"), "all.d", 0, m.EXPERTS)
        outputs[task] = m.product(task, x, f"{task}.head", 3 + i % 2)
    return m.save(path, outputs)


MADE = {"nothing_shared": nothing_shared, "pairs": pairs, "windows": windows, "one_apart": one_apart}

# ---- reads ----


def some_inputs(emitted: Emitted) -> dict[str, Array]:
    random = np.random.default_rng(3)
    ports = {p["name"]: p for t in emitted.tasks for p in t["inputs"]}
    return {name: random.standard_normal(p["elements"]).astype(np.float32) for name, p in ports.items()}


def reads_of(network: Network) -> Counter[tuple[int, int]]:
    reads = Counter(network.counting.read)
    network.counting.read.clear()
    return reads


def compare(network: Network, inputs: dict[str, Array]) -> tuple[dict[str, Counter[tuple[int, int]]], Counter[tuple[int, int]]]:
    """One task after another, then all at once, in an arena of just that size full of NaN: the same bits. Returns what
    each task read, and what the call of all did."""
    tasks = [t["task"] for t in network.emitted.tasks]
    inputs = {p["name"]: inputs[p["name"]] for t in network.emitted.tasks for p in t["inputs"]}  # not those that are bound
    arena = network.open(tasks)
    single: dict[str, Counter[tuple[int, int]]] = {}
    found: dict[str, Array] = {}
    network.counting.read.clear()
    for task in tasks:
        found |= network.run(task, inputs)
        network.close()
        arena = network.open(tasks)  # nothing is left in the buffers
        single[task] = reads_of(network)
    together = network.run_all(inputs)
    reads = reads_of(network)
    assert_same_bits(together, found)
    assert_same_bits(network.run_all(inputs), found)
    arena.check()
    network.close()
    return single, reads


@pytest.mark.parametrize("network", [*NETWORKS, "nano"])
def test_networks(compiled: Compile, networks: Path, tmp_path: Path, network: str) -> None:
    emitted = compiled(network, *STREAM)
    if network == "nano":
        inputs = some_inputs(emitted)
    else:
        inputs, _ = data_set(networks / network)
    single, reads = compare(emitted.library(tmp_path / "b"), inputs)
    check_reads(emitted, single, reads)
    assert sum(reads.values()) < sum(sum(r.values()) for r in single.values())


def check_reads(emitted: Emitted, single: dict[str, Counter[tuple[int, int]]], reads: Counter[tuple[int, int]]) -> None:
    """In a call of all tasks each slot is read as often as by the task that reads it most often, but for small units of
    the heads, which are named in the report."""
    apart = {u["unit_id"] for u in emitted.report["all_tasks"]["read_more_than_once"]}
    for slot in set().union(*single.values()):
        most = max(r[slot] for r in single.values())
        if slot[0] in apart:
            assert most <= reads[slot] <= sum(r[slot] for r in single.values())
        else:
            assert reads[slot] == most, slot
    assert set(reads) == set().union(*single.values())


@pytest.mark.parametrize("name", MADE)
def test_made(moecc: Path, tmp_path: Path, name: str) -> None:
    model = MADE[name](tmp_path / f"{name}.onnx")
    stream = emit(moecc, model, tmp_path / "stream", *STREAM)
    single, reads = compare(stream.library(tmp_path / "b"), some_inputs(stream))
    check_reads(stream, single, reads)
    groups = [g["tasks"] for g in stream.report["all_tasks"]["lockstep"]]
    wanted: dict[str, list[list[str]]] = {
        "nothing_shared": [],
        "pairs": [["red", "green"], ["cold", "warm"]],
        "windows": [["left", "middle", "right"]],
        "one_apart": [["a", "c", "d"]],
    }
    assert groups == wanted[name]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_compilers(moecc: Path, tmp_path: Path, compiler: str) -> None:
    """Each compiler's streamed call of all tasks gives the bits of its resident single calls, with threads and without."""
    model, results = windows(tmp_path / "windows.onnx"), []
    for mode in ("file", "stream"):
        emitted = emit(moecc, model, tmp_path / mode, "--weights", mode, "--target", "generic")
        built = emitted.make(tmp_path / f"{mode}-b", **COMPILERS[compiler])
        inputs = some_inputs(emitted)
        given = {name: array.reshape(Maker.TOKENS, Maker.WIDTH) for name, array in inputs.items()}
        options = [()] if mode == "file" else [("--task", "all", "--stream"), ("--task", "all", "--stream", "--threads", "3")]
        results += [built(tmp_path / "out", given, *o) for o in options]
    for found in results[1:]:
        assert_same_bits(found, results[0])
