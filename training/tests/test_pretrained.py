"""Weights from files against the networks of the transformers library that they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import DeiTConfig, DeiTModel, ViTConfig, ViTModel

from m3vit import M3ViT, M3ViTConfig
from m3vit.pretrained import PretrainedError, in_timms_names, load_pretrained, read, resize_positions

SIZE: dict[str, Any] = {"dim": 24, "heads": 3, "blocks": 3, "mlp_ratio": 2.0, "patch": 8, "decoder": "none"}
THEIRS: dict[str, Any] = {
    "hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 3, "intermediate_size": 48, "patch_size": 8,
    "image_size": 32, "layer_norm_eps": 1e-6,
}  # fmt: skip


def theirs(distilled: bool = False) -> Any:
    """A network of the library, every weight of it drawn."""
    torch.manual_seed(0)
    kind, config = (DeiTModel, DeiTConfig) if distilled else (ViTModel, ViTConfig)
    model: nn.Module = kind(config(**THEIRS), add_pooling_layer=False)
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    return model.double().eval()


def ours(height: int = 32, width: int = 32, **options: Any) -> M3ViT:
    return M3ViT(M3ViTConfig(**{**SIZE, "experts": 0, "height": height, "width": width, **options})).double().eval()


def tokens(model: M3ViT, image: Tensor, norm: nn.Module) -> Tensor:
    """With the library's last norm, which is a part of the decoders here."""
    return norm(model.tokens(image)[0])


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names in the files that were released before the library renamed its modules."""
    pairs = (
        ("layers.", "encoder.layer."), ("attention.q_proj", "attention.attention.query"),
        ("attention.k_proj", "attention.attention.key"), ("attention.v_proj", "attention.attention.value"),
        ("attention.o_proj", "attention.output.dense"), ("mlp.fc1", "intermediate.dense"), ("mlp.fc2", "output.dense"),
    )  # fmt: skip
    renamed = {}
    for name, tensor in state.items():
        for new, old in pairs:
            name = name.replace(new, old)
        renamed["vit." + name] = tensor
    return renamed


def timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{'module.' * (name != 'pos_embed')}{name}": t for name, t in in_timms_names(state).items()}


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("names", [dict, old_names, timm_names])
def test_same_outputs_as_the_library(tmp_path: Path, distilled: bool, names: Any) -> None:
    reference, model = theirs(distilled), ours(distilled=distilled)
    state = names(dict(reference.state_dict()))
    for path in (tmp_path / "a.pt", tmp_path / "a.safetensors"):
        if path.suffix == ".pt":
            torch.save({"model": state}, path)
        else:
            save_file({n: t.float() for n, t in state.items()}, path, {"format": "pt"})
        report = load_pretrained(model, path)
        assert report.random == []
        assert report.notes == []
        assert set(report.left_out) == {"norm.weight", "norm.bias"}
        assert set(report.loaded) == {n for n, _ in model.named_parameters()}
        reference.float().double()  # what a file in float32 keeps
        image = torch.randn(2, 3, 32, 32).double()
        with torch.no_grad():
            want = reference(image).last_hidden_state
            torch.testing.assert_close(tokens(model, image, reference.layernorm), want, rtol=1e-9, atol=1e-9)
        for p in model.parameters():
            nn.init.zeros_(p)


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("size", [(48, 80), (24, 32), (41, 39)])
def test_positions_are_resized_as_the_library_does(tmp_path: Path, distilled: bool, size: tuple[int, int]) -> None:
    reference, model = theirs(distilled).float().double(), ours(*size, distilled=distilled)
    torch.save(reference.state_dict(), tmp_path / "a.pth")
    report = load_pretrained(model, tmp_path / "a.pth")
    grid = model.config.grid
    assert report.notes == [
        f"pos_embed: [1, {16 + model.config.prefix}, 24] resized to [1, {grid[0] * grid[1] + model.config.prefix}, 24]"
    ]
    image = torch.randn(1, 3, grid[0] * 8, grid[1] * 8).double()
    with torch.no_grad():
        want = reference(image, interpolate_pos_encoding=True).last_hidden_state
        torch.testing.assert_close(tokens(model, image, reference.layernorm), want, rtol=1e-6, atol=1e-6)


def test_another_number_of_first_tokens() -> None:
    positions = torch.arange(18.0).view(1, 18, 1)
    assert resize_positions(positions, 2, 1, (4, 4)).flatten().tolist() == [0, *range(2, 18)]
    assert resize_positions(positions[:, 1:], 1, 2, (4, 4)).flatten().tolist() == [1, 1, *range(2, 18)]
    assert resize_positions(positions[:, 2:], 0, 1, (4, 4)).flatten().tolist() == [0, *range(2, 18)]
    assert resize_positions(positions[:, :9], 1, 1, (2, 4)).shape == (1, 9, 1)  # of the same grid, which is no square


def test_experts_take_the_dense_weights(tmp_path: Path) -> None:
    """With all experts chosen, and weights that sum to 1, a mixture of equal experts is the MLP that they come from."""
    reference = theirs().float().double()
    torch.save(reference.state_dict(), tmp_path / "a.pt")
    model = ours(experts=4, top_k=3, gate="noisy", expert_ratio=2.0, routing="shared")
    report = load_pretrained(model, tmp_path / "a.pt")
    assert report.notes == ["blocks.1.mlp: for each of 4 experts"]
    assert report.random == ["blocks.1.moe.router.gates.0.weight", "blocks.1.moe.router.noise.0.weight"]
    image = torch.randn(1, 3, 32, 32).double()
    with torch.no_grad():
        want = reference(image).last_hidden_state
        torch.testing.assert_close(tokens(model, image, reference.layernorm), want, rtol=1e-9, atol=1e-9)


def test_experts_of_another_width(tmp_path: Path) -> None:
    reference = theirs()
    torch.save(reference.state_dict(), tmp_path / "a.pt")
    narrow = ours(experts=4, top_k=2, expert_ratio=1.0)
    report = load_pretrained(narrow, tmp_path / "a.pt")
    assert report.notes == ["blocks.1.mlp: for each of 4 experts, cut from 48 to 24 hidden units"]
    dense, experts = reference.layers[1].mlp, narrow.blocks[1].moe.experts
    for e in range(4):
        assert torch.equal(experts.fc1_weight[e].float(), dense.fc1.weight[:24].float())
        assert torch.equal(experts.fc2_weight[e].float(), dense.fc2.weight[:, :24].float())
        assert torch.equal(experts.fc1_bias[e].float(), dense.fc1.bias[:24].float())
        assert torch.equal(experts.fc2_bias[e].float(), dense.fc2.bias.float())
    wide = ours(experts=4, top_k=2, expert_ratio=3.0)
    before = {n: p.clone() for n, p in wide.named_parameters() if "experts" in n}
    report = load_pretrained(wide, tmp_path / "a.pt")
    assert {n for n in report.random if "experts" in n} == set(before)
    assert all(torch.equal(p, before[n]) for n, p in wide.named_parameters() if n in before)
    assert report.left_out["blocks.1.mlp.fc1.weight"] == "experts have 72 hidden units, the file's MLP 48"


def test_switches(tmp_path: Path) -> None:
    torch.save(theirs().state_dict(), tmp_path / "a.pt")
    without = load_pretrained(ours(), tmp_path / "a.pt", pos_emb_from_pretrained=False)
    assert without.random == ["pos_embed"]
    only = load_pretrained(ours(), tmp_path / "a.pt", backbone_random_init=True)
    assert only.loaded == ["pos_embed"]
    none = load_pretrained(ours(), tmp_path / "a.pt", False, True)
    assert none.loaded == []


def test_networks_of_another_size(tmp_path: Path) -> None:
    torch.save(theirs(distilled=True).state_dict(), tmp_path / "a.pt")
    fewer = load_pretrained(ours(blocks=2), tmp_path / "a.pt")  # and no second token
    assert fewer.random == []
    assert fewer.left_out["blocks.2.norm1.weight"] == "the network has 2 blocks"
    assert fewer.left_out["dist_token"] == "the network has no such parameter"
    more = load_pretrained(ours(blocks=4), tmp_path / "a.pt")
    assert {name.split(".")[1] for name in more.random} == {"3"}
    assert "stay random" in str(more)
    with pytest.raises(PretrainedError, match="no weights in it fit"):
        load_pretrained(ours(dim=27, patch=4), tmp_path / "a.pt")


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        tensors = {"a": torch.randn(2, 3).to(dtype), "b": torch.tensor(0.1, dtype=dtype)}
        tensors["c"] = torch.zeros(0, 2, dtype=dtype)
        save_file(tensors, path)
        assert all(torch.equal(t, tensors[n].float()) for n, t in read(path).items())
    whole = path.read_bytes()
    for broken in (b"", whole[:5], whole[:40], whole[:-1], b"\xff" * 64):
        path.write_bytes(broken)
        with pytest.raises(PretrainedError, match="safetensors"):
            read(path)
    for name, content in (("c.pt", b"not a file"), ("d.pt", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PretrainedError, match="not a file of weights"):
            read(tmp_path / name)
    torch.save([1, 2], tmp_path / "e.pt")
    torch.save({"epoch": 3}, tmp_path / "f.pt")
    for name, message in (("e.pt", "not a table"), ("f.pt", "no tensors"), ("g.pt", "No such file")):
        with pytest.raises(PretrainedError, match=message):
            read(tmp_path / name)
    with pytest.raises(PretrainedError, match=r"attn.q.weight is there, blocks.0.attn.k.weight is not"):
        in_timms_names({"layers.0.attention.q_proj.weight": torch.zeros(2, 2)})
