"""Every form of the exported graph against PyTorch in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from m3vit import export as ex
from m3vit.lower import lower

FORMS = [
    ("moe", "dense"),
    ("dense", "dense"),
    ("routed", "dense"),
    ("function", "dense"),
    ("function", "routed"),
]
NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "odd": {"height": 80, "width": 48, "dim": 72, "heads": 3, "experts": 5, "top_k": 3},
    "ragged": {"height": 70, "width": 45, "dim": 35, "heads": 5, "experts": 3, "top_k": 1},
    "noisy": {"gate": "noisy", "top_k": 3},
    "conditioned": {"routing": "conditioned", "gate_task_specific_dim": 6},
    "one_expert": {"experts": 1, "top_k": 1},
}


@pytest.fixture(scope="module")
def exported() -> dict[tuple[str, int], tuple[Any, onnx.ModelProto]]:
    return {}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NETWORKS)
def test_all_forms_agree_with_float64(micro: Any, name: str, seed: int) -> None:
    model = micro(seed, **NETWORKS[name])
    base = ex.export(model, "moe")
    for form, body in FORMS:
        graph = lower(base, form, body)
        onnx.checker.check_model(graph, full_check=form != "moe")
        assert ex.check(model, graph) <= ex.TOLERANCE


@pytest.mark.parametrize("opset", [17, 18, 19])
def test_older_opsets(micro: Any, opset: int) -> None:
    model = micro(height=70, width=45)
    graph = ex.export(model, "function", "routed", opset)
    assert [o.version for o in graph.opset_import if o.domain == ""] == [opset]
    assert "Gelu" not in {n.op_type for n in (*graph.graph.node, *graph.functions[0].node)}
    assert ex.check(model, graph) <= ex.TOLERANCE


def test_forms_are_what_they_say(micro: Any) -> None:
    base = ex.export(micro(), "moe")

    def operators(graph: onnx.ModelProto) -> set[str]:
        return {n.op_type for n in graph.graph.node}

    moe = [n for n in base.graph.node if n.op_type == "MoE"]
    assert len(moe) == 4  # two layers, two tasks
    assert {n.domain for n in moe} == {"com.microsoft"}
    assert "ScatterElements" in operators(lower(base, "dense"))
    assert {"NonZero", "GatherND", "ScatterND"} <= operators(lower(base, "routed"))
    function = lower(base, "function")
    assert [(f.domain, f.name) for f in function.functions] == [("m3vit", "MoE")]
    assert {o.domain for o in function.opset_import} == {"", "m3vit"}
    weights = {t.name for t in lower(base, "routed").graph.initializer}
    assert "blocks.1.moe.experts.3.fc2.bias" in weights
    assert "blocks.1.moe.experts.fc2_bias" not in weights


def test_noise_gate_in_microsofts_node(micro: Any) -> None:
    """Softmax over the chosen is softmax over all, renormalised."""
    for gate, flag in (("noisy_vmoe", 0), ("noisy", 1)):
        graph = ex.export(micro(gate=gate), "moe")
        node = next(n for n in graph.graph.node if n.op_type == "MoE")
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert values == {"k": 2, "activation_type": b"gelu", "normalize_routing_weights": flag}


def test_nodes_are_named_after_layers(micro: Any) -> None:
    names = [n.name for n in ex.export(micro(), "routed").graph.node]
    assert len(names) == len(set(names))
    for name in (
        "/patch_embed/Conv",
        "/blocks.0/attn/qkv/MatMul",
        "/blocks.1/attn/Softmax",
        "/semseg/blocks.1/moe/TopK",
        "/depth/blocks.3/moe/experts.2/fc1/Gemm",
        "/depth/blocks.2/mlp/Gelu",
        "/heads.depth/convs.1/conv/Conv",
        "/heads.semseg/Resize_3",
    ):
        assert name in names


def test_metadata(micro: Any) -> None:
    graph = ex.export(micro(), "function")
    notes = {p.key: p.value for p in graph.metadata_props}
    assert notes == {
        "moecc.input.image": "image layout=NCHW color=RGB mean=0.485,0.456,0.406 "
        "std=0.229,0.224,0.225 resize=stretch",
        "moecc.task.semseg": "outputs=semseg",
        "moecc.output.semseg": "labels classes=3",
        "moecc.task.depth": "outputs=depth",
        "moecc.output.depth": "depth unit=m",
    }
    assert [o.name for o in graph.graph.output] == ["semseg", "depth"]
    conditioned = ex.export(micro(routing="conditioned", gate_task_specific_dim=6))
    notes = {p.key: p.value for p in conditioned.metadata_props}
    assert notes["moecc.task.depth"] == "outputs=depth bind=task_id:1"
    assert [i.name for i in conditioned.graph.input] == ["image", "task_id"]


def test_without_a_decoder_the_outputs_are_tokens(micro: Any) -> None:
    model = micro(decoder="none")
    graph = ex.export(model, "routed")
    assert ex.check(model, graph) <= ex.TOLERANCE
    tokens = 1 + model.config.grid[0] * model.config.grid[1]
    for output in graph.graph.output:
        shape = [d.dim_value for d in output.type.tensor_type.shape.dim]
        assert shape == [1, tokens, model.config.dim]
    assert not [p.key for p in graph.metadata_props if p.key.startswith("moecc.output")]
    with pytest.raises(ValueError, match="decoder is one of"):
        micro(decoder="down")


def test_nothing_but_the_network_is_in_the_file(micro: Any) -> None:
    graph = ex.export(micro(), "routed")
    text = graph.SerializeToString()
    assert b".py" not in text
    assert b"pkg.torch" not in text
    assert b"site-packages" not in text


def test_a_wrong_graph_is_found(micro: Any) -> None:
    model = micro()
    graph = ex.export(model, "dense")
    bias = next(t for t in graph.graph.initializer if t.name == "blocks.3.moe.experts.1.fc2.bias")
    array = onnx.numpy_helper.to_array(bias).copy()
    array[3] += 0.01
    bias.CopyFrom(onnx.numpy_helper.from_array(array, bias.name))
    with pytest.raises(ex.ExportError, match="differs from PyTorch"):
        ex.check(model, graph)


def test_reference_restores_the_model_and_finds_margins(micro: Any) -> None:
    model = micro()
    inputs = ex.example_inputs(model, 1)
    out, margins = ex.reference(model, inputs)
    assert all(v.dtype == torch.float64 for v in out.values())
    assert model.patch_embed.weight.dtype == torch.float32
    assert all(0 < m < 1 for m in margins.values())
    assert margins["semseg"] != margins["depth"]
    np.testing.assert_allclose(
        model(**inputs)["depth"].detach(), out["depth"], rtol=1e-4, atol=1e-5
    )


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--height", "32", "--width", "48", "--blocks", "2", "--dim", "24", "--head-width", "4"]
    files = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for file in files:
        assert ex.main(["-o", str(file), "--tasks", "semseg:3,depth:1", *size]) == 0
    assert "tasks semseg, depth" in capsys.readouterr().err
    assert files[0].read_bytes() == files[1].read_bytes()
    assert sorted(tmp_path.iterdir()) == files
    assert ex.main(["-o", str(tmp_path / "c.onnx"), "--top-k", "9"]) == 2
    assert "9 of 8 experts" in capsys.readouterr().err
    assert ex.main(["-o", str(tmp_path / "no" / "d.onnx"), "--tasks", "depth:1", *size]) == 1
    with pytest.raises(SystemExit):
        ex.main(["-o", str(files[0]), "--tasks", "semseg"])
