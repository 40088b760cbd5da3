"""Every form of the exported graph, for every option of the network, against PyTorch in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from m3vit import M3ViT
from m3vit import export as ex
from m3vit.config import from_dict
from m3vit.lower import lower
from m3vit.zoo import build_model

FORMS = [
    ("moe", "dense"),
    ("dense", "dense"),
    ("routed", "dense"),
    ("function", "dense"),
    ("function", "routed"),
]
WINDOW: dict[str, Any] = {"regu_experts_fromtask": True, "num_experts_pertask": 2}
NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {"blocks": 4},
    "ragged": {"height": 70, "width": 45, "dim": 35, "heads": 5, "experts": 3, "top_k": 1},  # opset 17
    "conditioned": {"routing": "conditioned", "gate_task_specific_dim": 6, **WINDOW, "experts": 5},
    "one_hot": {"routing": "conditioned", "task_one_hot": True, "gate_input_ahead": True, "distilled": True},
    "window_pruned": {**WINDOW, "expert_prune": True, "prune_threshold": 0.6},  # often of both experts
    "noisy_pruned": {
        "height": 80, "width": 48, "dim": 72, "heads": 3, "experts": 5, "top_k": 3,
        "gate": "noisy", "expert_prune": True, "prune_threshold": 0.4,
    },  # opset 18
    "shared": {"routing": "shared", "multi_level": True},
    "dense": {"experts": 0, "multi_level": True, "tam": True},
    "one_expert": {"experts": 1, "top_k": 1, "decoder": "none"},
}  # fmt: skip
OPSETS = {"ragged": 17, "noisy_pruned": 18}

Exported = Callable[[str], tuple[M3ViT, onnx.ModelProto]]


@pytest.fixture(scope="module")
def exported(micro: Any) -> Exported:
    """The network of a name, and its graph in the form moe. Exporting takes a second: each is made once."""
    made: dict[str, tuple[M3ViT, onnx.ModelProto]] = {}

    def get(name: str) -> tuple[M3ViT, onnx.ModelProto]:
        if name not in made:
            model = micro(5, **{"blocks": 2, **NETWORKS[name]})
            model.all_levels = name == "shared"
            made[name] = model, ex.export(model, "moe", opset=OPSETS.get(name, 20))
        return made[name]

    return get


@pytest.mark.parametrize("name", NETWORKS)
def test_all_forms_agree_with_float64(exported: Exported, name: str) -> None:
    model, base = exported(name)
    for form, body in FORMS:
        graph = lower(base, form, body)
        onnx.checker.check_model(graph, full_check=form != "moe")
        names = [n.name for n in graph.graph.node]
        assert len(names) == len(set(names))
        assert ex.check(model, graph) <= ex.TOLERANCE
    if name != "shared":
        assert [o.name for o in base.graph.output] == ["semseg", "depth"]


@pytest.mark.parametrize("name", OPSETS)
def test_older_opsets(exported: Exported, name: str) -> None:
    graph = lower(exported(name)[1], "function", "routed")
    assert [o.version for o in graph.opset_import if o.domain == ""] == [OPSETS[name]]
    assert "Gelu" not in {n.op_type for n in (*graph.graph.node, *graph.functions[0].node)}


def test_forms_are_what_they_say(exported: Exported) -> None:
    base = exported("plain")[1]

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


def test_noise_gate_in_microsofts_node(exported: Exported) -> None:
    """Softmax over the chosen is softmax over all, renormalised."""
    for name, k, flag in (("plain", 2, 0), ("noisy_pruned", 3, 1)):
        node = next(n for n in exported(name)[1].graph.node if n.op_type == "MoE")
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert values == {"k": k, "activation_type": b"gelu", "normalize_routing_weights": flag}


def test_nodes_are_named_after_layers(exported: Exported) -> None:
    names = [n.name for n in lower(exported("plain")[1], "routed").graph.node]
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


def test_metadata(exported: Exported) -> None:
    graph = exported("plain")[1]
    notes = {p.key: p.value for p in graph.metadata_props}
    assert notes == {
        "moecc.input.image": "image layout=NCHW color=RGB mean=0.485,0.456,0.406 std=0.229,0.224,0.225 resize=stretch",
        "moecc.task.semseg": "outputs=semseg",
        "moecc.output.semseg": "labels classes=3",
        "moecc.task.depth": "outputs=depth",
        "moecc.output.depth": "depth unit=m",
    }
    conditioned = exported("conditioned")[1]
    notes = {p.key: p.value for p in conditioned.metadata_props}
    assert notes["moecc.task.depth"] == "outputs=depth bind=task_id:1"
    assert [i.name for i in conditioned.graph.input] == ["image", "task_id"]


def test_without_a_decoder_the_outputs_are_tokens(exported: Exported, micro: Any) -> None:
    model, graph = exported("one_expert")
    tokens = 1 + model.config.grid[0] * model.config.grid[1]
    for output in graph.graph.output:
        shape = [d.dim_value for d in output.type.tensor_type.shape.dim]
        assert shape == [1, tokens, model.config.dim]
    assert not [p.key for p in graph.metadata_props if p.key.startswith("moecc.output")]
    with pytest.raises(ValueError, match="decoder is one of"):
        micro(decoder="down")


def test_nothing_but_the_network_is_in_the_file(exported: Exported) -> None:
    text = lower(exported("plain")[1], "routed").SerializeToString()
    assert b".py" not in text
    assert b"pkg.torch" not in text
    assert b"site-packages" not in text


def test_a_wrong_graph_is_found(exported: Exported) -> None:
    model, base = exported("plain")
    graph = lower(base, "dense")
    _add(graph, "blocks.3.moe.experts.1.fc2.bias", 0.01)
    with pytest.raises(ex.ExportError, match="differs from PyTorch"):
        ex.check(model, graph)
    model, base = exported("shared")
    graph = lower(base, "dense")
    _add(graph, "heads.depth.levels.1.bias", 0.01)
    with pytest.raises(ex.ExportError, match="depth@level2 differs"):
        ex.check(model, graph)


def _add(graph: onnx.ModelProto, name: str, shift: float) -> None:
    tensor = next(t for t in graph.graph.initializer if t.name == name)
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.flat[0] += shift
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))


def test_reference_restores_the_model_and_finds_margins(exported: Exported) -> None:
    model = exported("plain")[0]
    inputs = ex.example_inputs(model, 1)
    out, margins = ex.reference(model, inputs)
    assert all(v.dtype == torch.float64 for v in out.values())
    assert model.patch_embed.weight.dtype == torch.float32
    assert all(0 < m < 1 for m in margins.values())
    assert margins["semseg"] != margins["depth"]
    np.testing.assert_allclose(model(**inputs)["depth"].detach(), out["depth"], rtol=1e-4, atol=1e-5)
    shared = exported("shared")[0]
    margins = ex.reference(shared, ex.example_inputs(shared, 1))[1]
    assert margins["semseg"] == margins["depth"] < 1  # one backbone for both


def test_margins_keep_away_from_the_threshold(micro: Any) -> None:
    """A weight that is close to the threshold may be over it in float32 and under it in float64."""
    model = micro(blocks=2, expert_prune=True)
    inputs, moe = ex.example_inputs(model), model.blocks[1].moe
    seen = []
    with ex.mixing([moe], lambda m, x, logits: seen.append(m.best(logits)[0]) or torch.zeros_like(x)), torch.no_grad():
        model.double()(inputs["image"].double())
    moe.threshold = float(seen[0][3, 1]) + 1e-9
    margins = ex.reference(model, inputs)[1]
    assert margins["semseg"] == pytest.approx(1e-9, rel=1e-3)
    assert margins["depth"] > 1e-8


def test_the_pruned_scores_give_the_pruned_weights(micro: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(200, 5, generator=generator).double()
    logits[:3] = 0.0  # each expert has a fifth
    for gate, threshold in (("noisy_vmoe", 0.05), ("noisy_vmoe", 0.25), ("noisy_vmoe", 0.7), ("noisy", 0.34)):
        moe = micro(gate=gate, experts=5, top_k=3, expert_prune=True, prune_threshold=threshold).blocks[1].moe
        weights, index = moe.choose(logits)
        want = torch.zeros(200, 5).double().scatter(1, index, weights)
        scores, factor = ex.pruned_scores(moe, logits)
        got_weights, got_index = moe.best(scores)
        got = torch.zeros(200, 5).double().scatter(1, got_index, got_weights) * factor
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-15)
        assert 0 < int((want > 0).sum()) < 600


def test_what_runs_once_is_in_the_graph_once(exported: Exported) -> None:
    def attentions(name: str) -> int:
        return sum(n.op_type == "Softmax" for n in exported(name)[1].graph.node)

    assert attentions("plain") == 2 + 2 * 2  # before the first router all tasks are alike
    assert attentions("shared") == 2
    assert attentions("dense") == 2
    for name in ("shared", "dense"):
        notes = {p.key: p.value for p in exported(name)[1].metadata_props}
        assert notes["moecc.task.depth"].startswith("outputs=depth")


def test_levels_as_outputs(exported: Exported) -> None:
    graph = exported("shared")[1]
    levels = ["level1", "level2", "level3"]
    names = ["semseg", "depth", *(f"{task}@{level}" for task in ("semseg", "depth") for level in levels)]
    assert [o.name for o in graph.graph.output] == names
    assert [d.dim_value for d in graph.graph.output[3].type.tensor_type.shape.dim] == [1, 3, 12, 16]
    notes = {p.key: p.value for p in graph.metadata_props}
    assert notes["moecc.task.depth"] == "outputs=depth,depth@level1,depth@level2,depth@level3"
    assert notes["moecc.output.depth@level1"] == "depth unit=m"


SIZE = ["--height", "32", "--width", "48", "--blocks", "2", "--dim", "24", "--head-width", "4"]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--tasks", "semseg:3,depth:1", "--multi-level", "true", "--levels", "--distilled", "true"]
    files = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for file in files:
        assert ex.main(["-o", str(file), *options, *SIZE]) == 0
    assert "tasks semseg, depth" in capsys.readouterr().err
    assert files[0].read_bytes() == files[1].read_bytes()
    graph = onnx.load(files[0]).graph
    assert [o.name for o in graph.output][:3] == ["semseg", "depth", "semseg@level1"]
    assert [list(t.dims) for t in graph.initializer if t.name == "pos_embed"] == [[1, 2 + 2 * 3, 24]]
    assert sorted(tmp_path.iterdir()) == files
    assert ex.main(["-o", str(tmp_path / "c.onnx"), "--top-k", "9"]) == 2
    assert "9 of 8 experts" in capsys.readouterr().err
    assert ex.main(["-o", str(tmp_path / "no" / "d.onnx")]) == 2
    assert "no such folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        ex.main(["-o", str(files[0]), "--tasks", "semseg"])
    with pytest.raises(SystemExit):
        ex.main(["-o", str(files[0]), "--distilled", "perhaps"])
    assert "expected true or false" in capsys.readouterr().err

    parsed = ex.parse_arguments([*SIZE, "--routing", "conditioned", "--task-one-hot", "true", "-o", "x"])
    assert ex.build(parsed)[0].config.vector_width == 5


def test_a_checkpoint_of_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = from_dict({
        "tasks": {"depth": 1},
        "data": {"height": 32, "width": 48},
        "model": {"blocks": 2, "dim": 24, "head_width": 4, "moe_experts": 4, "moe_top_k": 2, "gate_input_ahead": True},
    })  # fmt: skip
    torch.manual_seed(7)
    model = build_model(config).eval()
    torch.save({"config": config.as_dict(), "model": model.state_dict(), "step": 3}, tmp_path / "best.pt")
    out = ["-o", str(tmp_path / "a.onnx")]
    assert ex.main(["--checkpoint", str(tmp_path / "best.pt"), *out]) == 0
    inputs = ex.example_inputs(model, 3)  # type: ignore[arg-type]
    with torch.no_grad():
        want = model(**inputs)
    for name, got in ex.run(onnx.load(tmp_path / "a.onnx"), inputs).items():
        np.testing.assert_allclose(got, want[name], rtol=1e-3, atol=1e-4)
    assert ex.main(["--checkpoint", str(tmp_path / "best.pt"), *out, "--dim", "48"]) == 2
    assert "dim cannot be replaced" in capsys.readouterr().err
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("not weights")
    for name, message in (("weights.pt", "not a checkpoint of m3vit.train"), ("text.pt", "m3vit.export: ")):
        assert ex.main(["--checkpoint", str(tmp_path / name), *out]) == 2
        assert message in capsys.readouterr().err
