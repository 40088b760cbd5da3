"""The network against its description: sizes, gates, routing, losses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from m3vit import PRESETS, TASK_SETS, M3ViT, M3ViTConfig
from m3vit.model import MoE, masked, routed


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def count(c: M3ViTConfig) -> int:
    """The number of parameters, by hand."""
    d, w, e = c.dim, c.head_width, c.experts
    mlp, expert = int(d * c.mlp_ratio), int(d * c.expert_ratio)
    tokens = 1 + c.grid[0] * c.grid[1]
    embed = d * 3 * c.patch**2 + d + d + tokens * d
    attention = 4 * d + d * 3 * d + 3 * d + d * d + d
    dense = 2 * d * mlp + mlp + d
    moe = e * (2 * d * expert + expert + d) + len(c.tasks) * d * e
    head = 2 * d + 9 * d * w + 3 * 9 * w * w + 4 * 3 * w
    heads = sum(head + w * t.channels + t.channels for t in c.tasks)
    return embed + c.blocks * attention + (c.blocks + 1) // 2 * dense + c.blocks // 2 * moe + heads


@pytest.mark.parametrize("name", ["nano", "tiny", "small"])
def test_parameter_count(name: str) -> None:
    config = PRESETS[name]
    with torch.device("meta"):
        model = M3ViT(config)
    assert parameters(model) == count(config)


def test_known_sizes() -> None:
    """Figures known of the published networks."""
    with torch.device("meta"):
        tiny = M3ViT(M3ViTConfig.preset("tiny", tasks=TASK_SETS["pascal"][:1]))
        nano = M3ViT(PRESETS["nano"])
    assert parameters(tiny) * 4 / 2**20 == pytest.approx(78, abs=1)  # MiB with one head
    assert parameters(tiny.heads) * 4 / 1e6 == pytest.approx(8.9, abs=0.1)
    expert = parameters(tiny.blocks[1].moe.experts) / tiny.config.experts
    assert expert * 4 / 1e6 == pytest.approx(0.59, abs=0.01)
    assert 2.2e6 < parameters(nano) < 2.6e6


def test_every_block_but_the_even_ones_has_experts() -> None:
    with torch.device("meta"):
        model = M3ViT(PRESETS["tiny"])
    assert [b.moe is not None for b in model.blocks] == [False, True] * 6
    assert list(model.heads) == ["semseg", "human_parts", "sal", "edge", "normals"]


def naive(moe: MoE, x: Tensor, logits: Tensor) -> Tensor:
    """One token, one expert at a time; of equal scores the lower index."""
    out = torch.zeros_like(x)
    for t in range(x.shape[0]):
        scores = [math.exp(v) for v in logits[t].tolist()]
        order = sorted(range(moe.count), key=lambda e: (-scores[e], e))[: moe.top_k]
        total = sum(scores[e] for e in (order if moe.gate == "noisy" else range(moe.count)))
        for e in sorted(order):
            p = moe.experts
            h = F.gelu(p.fc1_weight[e] @ x[t] + p.fc1_bias[e])
            out[t] += scores[e] / total * (p.fc2_weight[e] @ h + p.fc2_bias[e])
    return out


@pytest.mark.parametrize("gate", ["noisy_vmoe", "noisy"])
@pytest.mark.parametrize(("experts", "k"), [(4, 2), (5, 3), (3, 1), (4, 4), (1, 1)])
def test_mixture_is_the_naive_loop(micro: Any, gate: str, experts: int, k: int) -> None:
    for seed in range(3):
        moe = micro(seed, gate=gate, experts=experts, top_k=k).blocks[1].moe.double()
        x = torch.randn(9, 24, generator=torch.Generator().manual_seed(seed)).double()
        logits = moe.router(x, 0, None)
        want = naive(moe, x, logits)
        for mix in (routed, masked):
            torch.testing.assert_close(mix(moe, x, logits), want, rtol=1e-12, atol=1e-12)


def test_gates_differ_only_by_the_sum_of_their_weights(micro: Any) -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0, -1.0]]).double()
    vmoe = micro(gate="noisy_vmoe").blocks[1].moe.choose(logits)
    noisy = micro(gate="noisy").blocks[1].moe.choose(logits)
    assert vmoe[1].tolist() == noisy[1].tolist() == [[1, 2]]
    assert float(vmoe[0].sum()) < 1
    torch.testing.assert_close(noisy[0], vmoe[0] / vmoe[0].sum())


def test_the_router_decides_which_task_sees_what(micro: Any) -> None:
    """The tasks share all but routers and heads: with equal routers the tokens are equal."""
    model = micro().double()
    x = torch.randn(1, 3, 48, 64).double()
    trunk = model.trunk(x)
    assert not torch.equal(model.branch(trunk, 0, None), model.branch(trunk, 1, None))
    for moe in model.moe_layers().values():
        moe.router.gates[1].weight.data = moe.router.gates[0].weight.data
    assert torch.equal(model.branch(trunk, 0, None), model.branch(trunk, 1, None))


def test_conditioned_router_joins_token_and_task(micro: Any) -> None:
    model = micro(routing="conditioned", gate_task_specific_dim=6).double()
    moe = model.blocks[1].moe
    x, vector = torch.randn(7, 24).double(), model.task_vector(torch.tensor([1]))
    joined = torch.cat([x, vector.expand(7, -1)], dim=1)
    torch.testing.assert_close(moe.router(x, 1, vector), moe.router.gates[0](joined))
    image = torch.randn(1, 3, 48, 64).double()
    every, one = model(image), model(image, torch.tensor([1]))
    torch.testing.assert_close(every["depth"], one["depth"])
    assert not torch.allclose(every["semseg"], one["semseg"])


@pytest.mark.parametrize("size", [(48, 64), (70, 45), (16, 16)])
def test_outputs_have_the_size_of_the_picture(micro: Any, size: tuple[int, int]) -> None:
    model = micro(height=size[0], width=size[1])
    out = model(torch.randn(2, 3, *size))
    assert {k: tuple(v.shape) for k, v in out.items()} == {
        "semseg": (2, 3, *size),
        "depth": (2, 1, *size),
    }


@pytest.mark.parametrize("gate", ["noisy_vmoe", "noisy"])
def test_training_pass_gives_gradients_to_all(micro: Any, gate: str) -> None:
    torch.manual_seed(0)
    model = micro(gate=gate, height=64, width=96).train()
    out = model(torch.randn(2, 3, 64, 96))
    loss = sum(o.square().mean() for o in out.values()) + model.auxiliary_loss()
    loss.backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert missing == []
    assert float(model.auxiliary_loss().detach()) > 0


def test_balance_loss_is_least_when_the_load_is_even(micro: Any) -> None:
    moe = micro(top_k=1, noise_std=0.0).blocks[1].moe
    spread = torch.zeros(1, 1)
    even, uneven = torch.eye(4) * 8, torch.eye(4)[[0, 0, 0, 1]] * 8
    assert float(moe._balance(even, even, spread)) == pytest.approx(0, abs=1e-6)
    assert float(moe._balance(uneven, uneven, spread)) > 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"top_k": 5, "experts": 4},
        {"heads": 7},
        {"gate": "loud"},
        {"routing": "conditioned"},
        {"gate_task_specific_dim": 8},
        {"tasks": ()},
        {"height": 8},
        {"experts": 0},
    ],
)
def test_impossible_configurations_are_refused(micro: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        micro(**wrong)
    with pytest.raises(ValueError, match="no such field"):
        M3ViTConfig.preset("nano", depth=3)
