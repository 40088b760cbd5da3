"""Routing extremes, seen from the source of the weights: exactly the chosen experts are read, each once per layer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnx.utils
import pytest
from emitted import NO_UNIT, Compile, Network, assert_close, data_set

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


def chosen_experts(model: Path, inputs: dict[str, np.ndarray], count: int) -> list[set[int]]:
    """What each of the first `count` TopK of the plain ONNX form chooses, computed by ONNX's reference."""
    graph = onnx.load(model).graph
    indices = [node.output[1] for node in graph.node if node.op_type == "TopK"][:count]
    onnx.utils.extract_model(str(model), str(model.parent / "router.onnx"), list(inputs), indices)
    found = onnx.reference.ReferenceEvaluator(str(model.parent / "router.onnx")).run(None, dict(inputs))
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


def test_just_the_chosen_ones(compiled: Compile, networks: Path, tmp_path: Path) -> None:
    """Five tasks with routers of their own: what is read is what ONNX's reference chooses, no expert twice in a layer."""
    network = compiled("m3vit-seed1-moe", "--target", "generic").library(tmp_path / "b")
    inputs, _ = data_set(networks / "m3vit-seed1-moe")
    first = network.emitted.tasks[0]["task"]
    dense = tmp_path / "model.onnx"
    dense.write_bytes((networks / "m3vit-seed1-dense" / "model.onnx").read_bytes())
    network.open([t["task"] for t in network.emitted.tasks])
    network.run(first, inputs)
    layers = reads_by_layer(network, first)
    wanted = router_outputs(dense, first, len(layers))
    assert [set(reads) for reads in layers] == chosen(dense, inputs, wanted)
    assert all(set(reads.values()) == {1} for reads in layers)
    network.close()
