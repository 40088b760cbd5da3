"""Routing extremes, seen from the source of the weights: exactly the chosen experts are read, each once per layer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnx.utils
import pytest
from emitted import NO_UNIT, Array, Compile, Network, assert_close, data_set

# Case: the experts that every layer's tokens choose (see tests/models/m3vit_nets.py), or at least these and no others.
CASES = {
    "herd": ({2}, {2}),
    "herd-of-two": ({0, 3}, {0, 3}),
    "unloved": (set(), {0, 2, 3, 5}),
    "all-chosen": ({0, 1, 2, 3}, {0, 1, 2, 3}),
    "one-expert": ({0}, {0}),
}


def reads_by_layer(network: Network, task: str) -> list[Counter[int]]:
    """How often each expert of each layer was read since the last time, in the layers' order."""
    queues = network.emitted.task(task)["queues"]
    counts: dict[int, Counter[int]] = {q["unit_id"]: Counter() for q in queues}
    for unit, index in network.counting.read:
        assert unit != NO_UNIT
        if unit in counts:
            counts[unit][index] += 1
    network.counting.read.clear()
    assert len(counts) == len(queues), "two layers share their experts"
    return [counts[q["unit_id"]] for q in queues]


def chosen_experts(model: Path, scratch: Path, task: str, inputs: dict[str, Array]) -> list[set[int]]:
    """What each TopK of the task in the plain ONNX form of a network chooses, computed by ONNX's reference."""
    nodes = onnx.load(model).graph.node
    indices = [n.output[1] for n in nodes if n.op_type == "TopK" and n.name.startswith(f"/{task}/")]
    onnx.utils.extract_model(str(model), str(scratch), list(inputs), indices)
    found = onnx.reference.ReferenceEvaluator(str(scratch)).run(None, dict(inputs))
    return [set(np.unique(np.asarray(array)).tolist()) for array in found]


@pytest.mark.parametrize("order", ["expert-major", "token-major"])
@pytest.mark.parametrize("case", CASES)
def test_extremes(compiled: Compile, networks: Path, tmp_path: Path, case: str, order: str) -> None:
    name = f"m3vit-{case}-moe"
    least, most = CASES[case]
    network = compiled(name, "--target", "generic", "--moe", order).library(tmp_path / "b")
    inputs, expected = data_set(networks / name)
    arena = network.open([t["task"] for t in network.emitted.tasks])
    for task in network.emitted.tasks:
        for output, array in network.run(task["task"], inputs).items():
            assert_close(array, expected[output].ravel())
        layers = reads_by_layer(network, task["task"])
        assert len(layers) == 2
        for reads in layers:
            assert least <= set(reads) <= most
            if order == "expert-major":
                assert set(reads.values()) == {1}
    arena.check()
    network.close()


@pytest.mark.parametrize("case", ["seed1", "unloved"])
def test_just_the_chosen_ones(compiled: Compile, networks: Path, tmp_path: Path, case: str) -> None:
    """What is read is what ONNX's reference chooses, no expert twice in a layer, whichever task ran before."""
    network = compiled(f"m3vit-{case}-moe", "--target", "generic").library(tmp_path / "b")
    inputs, _ = data_set(networks / f"m3vit-{case}-moe")
    tasks = [t["task"] for t in network.emitted.tasks]
    network.open(tasks)
    for task in (tasks[0], tasks[-1], tasks[0]):
        network.run(task, inputs)
        layers = reads_by_layer(network, task)
        wanted = chosen_experts(networks / f"m3vit-{case}-dense" / "model.onnx", tmp_path / "router.onnx", task, inputs)
        assert [set(reads) for reads in layers] == wanted
        assert all(set(reads.values()) == {1} for reads in layers)
    network.close()
