"""The network against its description: sizes, gates, routing, losses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from m3vit import PRESETS, TASK_SETS, M3ViT, M3ViTConfig, Task
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
        {"experts": -1},
        {"task_one_hot": True},
        {"routing": "conditioned", "gate_task_specific_dim": 8, "task_one_hot": True},
        {"regu_experts_fromtask": True},
        {"regu_experts_fromtask": True, "num_experts_pertask": 1},
        {"regu_experts_fromtask": True, "num_experts_pertask": 5},
        {"regu_experts_fromtask": True, "num_experts_pertask": 2, "routing": "shared"},
        {"prune_threshold": 1.0},
        {"tam": True, "tasks": (Task("depth", 1),)},
        {"multi_level": True, "decoder": "none"},
    ],
)
def test_impossible_configurations_are_refused(micro: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        micro(**wrong)
    with pytest.raises(ValueError, match="no such field"):
        M3ViTConfig.preset("nano", depth=3)


# --------------------------------------------------------------------------------------
# Published sizes


PUBLISHED = {  # dim, heads: parameters with a classifier of 1000 classes; the same, distilled
    # DeiT, table 1 (https://arxiv.org/abs/2012.12877), and the files of its authors
    "tiny": (192, 3, 5_717_416, 5_910_800),
    "small": (384, 6, 22_050_664, 22_436_432),
    "base": (768, 12, 86_567_656, 87_338_192),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_dense_networks_are_vit_and_deit(name: str) -> None:
    dim, heads, plain, distilled = PUBLISHED[name]
    for published, second in ((plain, False), (distilled, True)):
        size = {"height": 224, "width": 224, "dim": dim, "heads": heads, "distilled": second}
        with torch.device("meta"):
            model = M3ViT(M3ViTConfig(**size, experts=0, decoder="none"))
        classifier = 1000 * dim + 1000
        assert parameters(model) + 2 * dim + classifier * model.config.prefix == published


# --------------------------------------------------------------------------------------
# Options


WINDOW: dict[str, Any] = {"regu_experts_fromtask": True, "num_experts_pertask": 2}
CONDITIONED: dict[str, Any] = {"routing": "conditioned", "gate_task_specific_dim": 6}
ONE_HOT: dict[str, Any] = {"routing": "conditioned", "task_one_hot": True}
OPTIONS: dict[str, dict[str, Any]] = {
    "window": WINDOW,
    "window_conditioned": {**WINDOW, **CONDITIONED},
    "one_hot": ONE_HOT,
    "window_one_hot": {**WINDOW, **ONE_HOT, "gate": "noisy"},
    "prune": {"expert_prune": True, "prune_threshold": 0.3},
    "prune_noisy": {"expert_prune": True, "prune_threshold": 0.45, "gate": "noisy", "top_k": 3},
    "prune_window": {"expert_prune": True, "prune_threshold": 0.4, **WINDOW},
    "ahead": {"gate_input_ahead": True},
    "ahead_conditioned": {"gate_input_ahead": True, **CONDITIONED},
    "distilled": {"distilled": True},
    "shared": {"routing": "shared"},
    "dense": {"experts": 0},
    "multi_level": {"multi_level": True},
    "tam": {"tam": True},
    "all": {
        "distilled": True, "gate_input_ahead": True, "expert_prune": True, "prune_threshold": 0.2,
        "multi_level": True, "tam": True, **WINDOW, **CONDITIONED,
    },
}  # fmt: skip


def by_hand(model: M3ViT, image: Tensor, task: int) -> Tensor:
    """The backbone's tokens for a task, from the description of every option, one token at a time in the experts."""
    c, p = model.config, dict(model.named_parameters())

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], 1e-6)

    def experts(x: Tensor, seen: Tensor, name: str) -> Tensor:
        router = f"{name}.router.gates.{task if c.routing == 'multi' else 0}.weight"
        if c.routing == "conditioned":
            vector = torch.eye(len(c.tasks)).double()[task]
            if not c.task_one_hot:
                hidden = F.gelu(linear(vector, "task_vector.mlp.fc1"))
                out = linear(hidden, "task_vector.mlp.fc2")
                vector = F.layer_norm(out, out.shape, p["task_vector.norm.weight"], p["task_vector.norm.bias"])
            seen = torch.cat([seen, vector.expand(len(seen), -1)], 1)
        start, size = (c.window_start(task), c.num_experts_pertask) if c.regu_experts_fromtask else (0, c.experts)
        out = torch.zeros_like(x)
        for t in range(len(x)):
            scores = (p[router][start : start + size] @ seen[t]).exp().tolist()
            best = sorted(range(size), key=lambda e: -scores[e])[: c.top_k]
            total = sum(scores[e] for e in (best if c.gate == "noisy" else range(size)))
            for e in best:
                if c.expert_prune and scores[e] / total <= c.prune_threshold:
                    continue
                own = [p[f"{name}.experts.{part}"][start + e] for part in ("fc1_weight", "fc1_bias")]
                two = [p[f"{name}.experts.{part}"][start + e] for part in ("fc2_weight", "fc2_bias")]
                out[t] += scores[e] / total * F.linear(F.gelu(F.linear(x[t], *own)), *two)
        return out

    x = F.conv2d(image, p["patch_embed.weight"], p["patch_embed.bias"], stride=c.patch)[0].flatten(1).T
    x = torch.cat([p[name][0] for name in ("cls_token", "dist_token") if name in p] + [x]) + p["pos_embed"][0]
    for i in range(c.blocks):
        block, before = f"blocks.{i}", x
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = qkv.view(len(x), 3, c.heads, -1).permute(1, 2, 0, 3)
        x = x + linear(F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1), f"{block}.attn.proj")
        y = norm(x, f"{block}.norm2")
        if i % 2 == 1 and c.experts > 0:
            x = x + experts(y, before if c.gate_input_ahead else y, f"{block}.moe")
        else:
            x = x + linear(F.gelu(linear(y, f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
    return x


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_against_a_naive_loop(micro: Any, name: str) -> None:
    model = micro(1, **{"blocks": 3, **OPTIONS[name]}).double()
    image = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(3)).double()
    with torch.no_grad():
        tokens = model.tokens(image)
        for task, got in enumerate(tokens):
            torch.testing.assert_close(got[0], by_hand(model, image, task), rtol=1e-10, atol=1e-10)
            if model.config.routing == "conditioned":
                one = model.tokens(image, torch.tensor([task]))
                torch.testing.assert_close(one[task], got, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_trains_every_parameter(micro: Any, name: str) -> None:
    torch.manual_seed(0)
    model = micro(2, **OPTIONS[name]).train()
    out = model(torch.randn(2, 3, 48, 64))
    loss = sum(o.square().mean() for o in out.values()) + model.auxiliary_loss()
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())] == []
    assert all(bool(p.grad.any()) for n, p in model.named_parameters() if "gates" in n)
    assert (float(model.auxiliary_loss().detach()) > 0) == (model.config.experts > 0)


def test_a_window_closes_all_other_experts(micro: Any) -> None:
    model = micro(**WINDOW, experts=8, tasks=(Task("semseg", 3), Task("depth", 1), Task("edge", 1)))
    assert [model.config.window_start(t) for t in range(3)] == [0, 3, 6]
    moe = model.blocks[1].moe
    for task, start in enumerate((0, 3, 6)):
        _, index = moe.choose(moe.router(torch.randn(50, 24), task, None))
        assert sorted(set(index.flatten().tolist())) == [start, start + 1]
    noise = micro(**WINDOW, noise_std=3.0).blocks[1].moe.router.spread(torch.zeros(1, 24), 0, None)
    assert float(noise) == 1.5  # divided by those there are to choose from


def test_pruning_drops_weights_and_leaves_the_others(micro: Any) -> None:
    logits = torch.tensor([[0.6, 0.25, 0.1, 0.05], [0.3, 0.28, 0.22, 0.2]]).double().log()
    moe = micro(expert_prune=True, prune_threshold=0.26).blocks[1].moe
    weights, index = moe.choose(logits)
    torch.testing.assert_close(weights, torch.tensor([[0.6, 0], [0.3, 0.28]]).double())
    assert index.tolist() == [[0, 1], [0, 1]]
    seen = []
    moe.experts.register_forward_pre_hook(lambda _, args: seen.append((args[1], len(args[0]))))
    routed(moe, torch.zeros(2, 24), logits.float())
    assert seen == [(0, 2), (1, 1), (2, 0), (3, 0)]


def test_the_backbone_runs_once_if_no_task_changes_it(micro: Any) -> None:
    image = torch.randn(1, 3, 48, 64)
    for options, calls in (({"routing": "shared"}, 1), ({"experts": 0}, 1), ({}, 2)):
        model, seen = micro(**options), []
        model.blocks[1].register_forward_hook(lambda *_, seen=seen: seen.append(1))
        model(image)
        assert len(seen) == calls


def test_a_second_token_is_learned_and_not_decoded(micro: Any) -> None:
    model, image = micro(distilled=True), torch.randn(1, 3, 48, 64)
    assert model.pos_embed.shape == (1, 2 + 3 * 4, 24)
    tokens = model.tokens(image)[0]
    moved = tokens.clone()
    moved[:, :2] += 1
    assert torch.equal(model.heads["depth"](tokens), model.heads["depth"](moved))
    moved[:, 2] += torch.randn(24)
    assert not torch.equal(model.heads["depth"](tokens), model.heads["depth"](moved))


def test_extra_predictions_come_in_training_only(micro: Any) -> None:
    image = torch.randn(2, 3, 48, 64)
    model = micro(multi_level=True, tam=True, tam_level1=False)
    assert list(model(image)) == ["semseg", "depth"]
    shapes = {name: tuple(x.shape) for name, x in model.train()(image).items()}
    assert shapes == {
        "semseg": (2, 3, 48, 64), "depth": (2, 1, 48, 64),
        "semseg@level1": (2, 3, 6, 8), "semseg@level2": (2, 3, 12, 16), "semseg@level3": (2, 3, 24, 32),
        "depth@level1": (2, 1, 6, 8), "depth@level2": (2, 1, 12, 16), "depth@level3": (2, 1, 24, 32),
        "semseg@tam0": (2, 3, 6, 8), "depth@tam0": (2, 1, 6, 8),
        "semseg@tam2": (2, 3, 24, 32), "depth@tam2": (2, 1, 24, 32),
    }  # fmt: skip
    model.eval().all_levels = True
    assert set(model(image)) == {name for name in shapes if "tam" not in name}


def test_a_level_is_what_the_head_has_made_so_far(micro: Any) -> None:
    model, image = micro(multi_level=True), torch.randn(1, 3, 48, 64)
    model.all_levels = True
    features: list[Tensor] = []
    head = model.heads["depth"]
    out = model(image)
    head(model.tokens(image)[1], features)
    for i, x in enumerate(features[:3]):
        doubled = F.interpolate(head.levels[i](x), scale_factor=2, mode="bilinear", align_corners=False)
        torch.testing.assert_close(out[f"depth@level{i + 1}"], doubled)  # a 1x1 convolution may come first


@pytest.mark.parametrize("count", [2, 3, 5])
def test_tam_weighs_half_of_the_tasks_against_the_others(micro: Any, count: int) -> None:
    tasks = tuple(Task(f"t{i}", 2) for i in range(count))
    tam = micro(tam=True, tasks=tasks).tam["0"].double()
    features = [torch.randn(1, 8, 6, 10).double() for _ in tasks]
    seen = []
    tam.mix.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    out = tam(features)
    assert {name: tuple(x.shape) for name, x in out.items()} == {t.name: (1, 2, 6, 10) for t in tasks}
    shares = [(a / b) for a, b in zip(seen[0].split(8, 1), features, strict=True)]
    first = count // 2
    torch.testing.assert_close(sum(shares), torch.ones(1, 8, 6, 10).double())
    for group in (shares[:first], shares[first:]):
        for share in group:
            torch.testing.assert_close(share, group[0])
    assert 0 < float(first * shares[0].detach().min()) < float(first * shares[0].detach().max()) < 1


def test_all_tasks_reach_each_prediction_of_tam(micro: Any) -> None:
    tam = micro(tam=True).tam["1"].double()
    features = [torch.randn(1, 8, 12, 16).double().requires_grad_() for _ in range(2)]
    tam(features)["depth"].sum().backward()
    assert all(f.grad is not None and bool(f.grad.any()) for f in features)


def test_mixed_precision_trains(micro: Any) -> None:
    model = micro(multi_level=True, tam=True, gate="noisy", **WINDOW).train()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(torch.randn(2, 3, 48, 64))
        loss = sum(o.float().square().mean() for o in out.values()) + model.auxiliary_loss()
    loss.backward()
    assert model.auxiliary_loss().dtype == torch.float32
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
