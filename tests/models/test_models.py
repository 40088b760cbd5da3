"""The generators themselves: what they write agrees with onnxruntime where that can be trusted."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

import m3vit_nets
import make_models
import operator_nets
import transformer_nets
from m3vit_package import export, model
from testset import Array, Network, write_network

torch.set_num_threads(1)

# What onnxruntime's CPU kernels leave out or do otherwise: see operator_nets.
NOT_IN_ONNXRUNTIME = {
    "moe-silu-fc3", "moe-swiglu-halves", "moe-swiglu-fc3",
    "qmoe-8", "qmoe-4-zero-points", "qmoe-8-block", "qmoe-8-block-zero-points",
}  # fmt: skip


def worst_error(network: Network) -> float:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(network.model.SerializeToString(), options)
    worst = 0.0
    for given, wanted in network.runs:
        for got, want in zip(session.run(list(wanted), dict(given)), wanted.values(), strict=True):
            assert got.dtype == want.dtype
            assert got.shape == want.shape
            worst = max(worst, float(np.abs(got - want).max() / np.abs(want).max()))
    return worst


@pytest.mark.parametrize("opset", transformer_nets.OPSETS)
@pytest.mark.parametrize("name", ["vit", "mixtral", "mobilenetv2"])
def test_transformer_network(name: str, opset: int) -> None:
    network = transformer_nets.make(name, opset)
    assert worst_error(network) < 2e-6
    assert network.model.ByteSize() < 2**21


def test_m3vit_networks() -> None:
    networks = dict(m3vit_nets.make("plain"))
    assert list(networks) == [f"m3vit-plain-{form}" for form in m3vit_nets.FORMS]
    for name, network in networks.items():
        onnx.checker.check_model(network.model)
        if name != "m3vit-plain-moe":  # onnxruntime's GELU is the tanh form there
            assert worst_error(network) < 2e-6


@pytest.mark.parametrize(("name", "counts"), [("herd", {2}), ("herd-of-two", {0, 3}), ("unloved", {0, 2, 3, 5})])
def test_crafted_routers_do_as_they_are_said_to(name: str, counts: set[int]) -> None:
    case = m3vit_nets.CASES[name]
    net = m3vit_nets.build(case)
    chosen: set[int] = set()

    def watch(moe: model.MoE, x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        chosen.update(moe.choose(logits)[1].flatten().tolist())
        return model.routed(moe, x, logits)

    for moe in net.moe_layers().values():
        moe.mix = watch
    net(**export.example_inputs(net))
    assert chosen == counts


@pytest.mark.parametrize("name", sorted(operator_nets.LAYERS.keys() - NOT_IN_ONNXRUNTIME))
def test_operator_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gelu_tanh(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    monkeypatch.setitem(operator_nets.ACTIVATIONS, "gelu", gelu_tanh)
    assert worst_error(operator_nets.make(name)) < 1e-6


def test_packing_starts_at_the_lowest_bits() -> None:
    assert operator_nets.pack(np.array([1, 2, 15], np.uint8), 4).tolist() == [0x21, 0x0F]
    assert operator_nets.pack(np.array([1, 2, 3, 0, 3], np.uint8), 2).tolist() == [0b00111001, 3]
    assert operator_nets.pack(np.array([7, 255], np.uint8), 8).tolist() == [7, 255]


def test_same_bytes_every_time() -> None:
    first, second = (transformer_nets.make("convnext", 20) for _ in range(2))
    assert first.model.SerializeToString() == second.model.SerializeToString()
    for (a, b), (c, d) in zip(first.runs, second.runs, strict=True):
        assert all(np.array_equal(a[k], c[k]) for k in a)
        assert all(np.array_equal(b[k], d[k]) for k in b)


def test_folder_layout_and_cache(tmp_path: Path) -> None:
    group = next(g for g in make_models.operator_groups() if g.names == ("moe-default",))
    assert make_models.make_group(group, {"moe-default"}, tmp_path) == (1, 0)
    assert make_models.make_group(group, {"moe-default"}, tmp_path) == (0, 1)
    folder = tmp_path / "moe-default"
    tensor = onnx.TensorProto.FromString((folder / "test_data_set_0/output_0.pb").read_bytes())
    assert tensor.name == "y"
    assert numpy_helper.to_array(tensor).shape == (11, 32)
    (folder / make_models.STAMP).write_text("older")
    assert make_models.make_group(group, {"moe-default"}, tmp_path) == (1, 0)
    assert [p.name for p in tmp_path.iterdir()] == ["moe-default"]


def test_a_network_needs_all_its_tensors(tmp_path: Path) -> None:
    network = operator_nets.make("moe-default")
    nothing: dict[str, Array] = {}
    with pytest.raises(ValueError, match="outputs are"):
        write_network(tmp_path / "x", Network(network.model, [(network.runs[0][0], nothing)]))
