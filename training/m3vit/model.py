"""M3ViT (NeurIPS 2022): one vision transformer for several dense prediction tasks.

A ViT backbone whose odd blocks have a mixture of experts in place of the MLP,
and one convolutional decoder per task. The experts are shared by all tasks;
what a task has of its own is the router that picks them ('multi': one router
matrix per task and layer) or a vector that the one router sees beside the
token ('conditioned'). So the backbone runs once for each task wanted.

Everything is in this file: configuration, router, experts, blocks, decoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m3vit.tasks import TASK_SETS, Task

GATES = ("noisy_vmoe", "noisy")
ROUTINGS = ("multi", "conditioned")
DECODERS = ("up", "none")


# --------------------------------------------------------------------------------------
# Configuration


@dataclass(frozen=True)
class M3ViTConfig:
    """The shape of one network. Sizes are in pixels, tokens or channels."""

    height: int = 512
    width: int = 512
    patch: int = 16
    dim: int = 384
    heads: int = 12
    blocks: int = 12  # the odd ones have experts
    mlp_ratio: float = 4.0  # hidden width of a dense MLP / dim
    experts: int = 16
    top_k: int = 4
    expert_ratio: float = 1.0  # hidden width of an expert / dim
    gate: str = "noisy_vmoe"  # softmax, then top-k | "noisy": top-k, then softmax
    routing: str = "multi"  # a router per task | "conditioned": one, which is told the task
    gate_task_specific_dim: int = -1  # width of the task vector of conditioned routing
    noise_std: float = 1.0  # of noisy_vmoe's noise in training, divided by experts
    decoder: str = "up"  # a convolutional head per task | "none": the backbone, tokens as outputs
    head_width: int = 256
    tasks: tuple[Task, ...] = TASK_SETS["pascal"]

    def __post_init__(self) -> None:
        def check(ok: bool, message: str) -> None:
            if not ok:
                raise ValueError(message)

        for field in ("patch", "dim", "heads", "blocks", "experts", "top_k", "head_width"):
            check(getattr(self, field) >= 1, f"{field} must be at least 1")
        check(min(self.height, self.width) >= self.patch, "the picture is smaller than a patch")
        check(self.dim % self.heads == 0, f"dim {self.dim} is not divisible by {self.heads} heads")
        check(self.top_k <= self.experts, f"top_k {self.top_k} of {self.experts} experts")
        check(self.gate in GATES, f"gate is one of {GATES}, not {self.gate!r}")
        check(self.routing in ROUTINGS, f"routing is one of {ROUTINGS}, not {self.routing!r}")
        check(self.decoder in DECODERS, f"decoder is one of {DECODERS}, not {self.decoder!r}")
        check(
            (self.routing == "conditioned") == (self.gate_task_specific_dim > 0),
            "conditioned routing and gate_task_specific_dim > 0 belong together",
        )
        names = [t.name for t in self.tasks]
        check(len(names) > 0, "a network needs a task")
        check(len(set(names)) == len(names), f"tasks named twice: {names}")
        check(all(t.channels >= 1 for t in self.tasks), "a task needs a channel")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; what does not fill a patch is not seen."""
        return self.height // self.patch, self.width // self.patch

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> M3ViTConfig:
        """A preset with some fields replaced, e.g. preset("nano", top_k=4)."""
        if name not in PRESETS:
            raise ValueError(f"config is one of {sorted(PRESETS)}, not {name!r}")
        known = {f.name for f in fields(cls)}
        if unknown := set(overrides) - known:
            raise ValueError(f"no such field: {sorted(unknown)}; there are {sorted(known)}")
        return replace(PRESETS[name], **overrides)


PRESETS: dict[str, M3ViTConfig] = {
    # Small enough to live in a repository: about 2.4 M parameters.
    "nano": M3ViTConfig(
        height=128,
        width=256,
        dim=96,
        heads=3,
        blocks=8,
        experts=8,
        top_k=2,
        expert_ratio=2.0,
        head_width=48,
        tasks=TASK_SETS["scene"],
    ),
    "tiny": M3ViTConfig(
        height=128,
        width=256,
        dim=192,
        heads=3,
        top_k=2,
        expert_ratio=2.0,
    ),
    "small": M3ViTConfig(dim=384, heads=12),
    "base": M3ViTConfig(dim=768, heads=12),
}


# --------------------------------------------------------------------------------------
# Experts


class Router(nn.Module):
    """Scores of the experts for each token: x W, one W per task, or [x, t] W for a task vector t.

    In training the scores get noise, so that every expert is tried: of fixed
    size for noisy_vmoe, of a size learned from the token for noisy.
    """

    def __init__(self, config: M3ViTConfig) -> None:
        super().__init__()
        self.noise_std = config.noise_std / config.experts
        self.shared = config.routing == "conditioned"
        copies = 1 if self.shared else len(config.tasks)
        width = config.dim + max(config.gate_task_specific_dim, 0)
        self.gates = nn.ModuleList(
            nn.Linear(width, config.experts, bias=False) for _ in range(copies)
        )
        self.noise = (
            nn.ModuleList(nn.Linear(width, config.experts, bias=False) for _ in range(copies))
            if config.gate == "noisy"
            else None
        )

    def forward(self, x: Tensor, task: int, vector: Tensor | None) -> Tensor:
        """Scores [T, E] of tokens [T, dim], without noise."""
        return self._linear(self.gates, x, task, vector)

    def spread(self, x: Tensor, task: int, vector: Tensor | None) -> Tensor:
        """Standard deviation of the noise that training adds to the scores."""
        if self.noise is None:
            return torch.full((1, 1), self.noise_std, dtype=x.dtype, device=x.device)
        return F.softplus(self._linear(self.noise, x, task, vector)) + 1e-2

    def _linear(self, gates: nn.ModuleList, x: Tensor, task: int, vector: Tensor | None) -> Tensor:
        if not self.shared:
            return gates[task](x)
        # [x, t] W = x W_x + t W_t, and t W_t is the same for every token.
        assert vector is not None
        weight = gates[0].weight
        assert isinstance(weight, Tensor)
        width = x.shape[1]
        return x @ weight[:, :width].T + vector @ weight[:, width:].T


class Experts(nn.Module):
    """E two-layer MLPs, fc2_e(gelu(fc1_e(x))), with their weights stacked."""

    def __init__(self, count: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1_weight = nn.Parameter(torch.empty(count, hidden, dim))
        self.fc1_bias = nn.Parameter(torch.empty(count, hidden))
        self.fc2_weight = nn.Parameter(torch.empty(count, dim, hidden))
        self.fc2_bias = nn.Parameter(torch.empty(count, dim))

    def forward(self, x: Tensor, expert: int) -> Tensor:
        x = F.gelu(F.linear(x, self.fc1_weight[expert], self.fc1_bias[expert]))
        return F.linear(x, self.fc2_weight[expert], self.fc2_bias[expert])


class MoE(nn.Module):
    """A mixture of experts: each token goes to its k best experts."""

    def __init__(self, config: M3ViTConfig) -> None:
        super().__init__()
        self.gate, self.top_k, self.count = config.gate, config.top_k, config.experts
        self.router = Router(config)
        self.experts = Experts(config.experts, config.dim, int(config.dim * config.expert_ratio))
        self.mix: Callable[[MoE, Tensor, Tensor], Tensor] = routed
        self.balance_loss: Tensor | None = None  # of one training pass, summed over tasks
        self.total: Callable[[Tensor], Tensor] = _alone  # over processes that share a batch

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and indices [T, k] of the experts of each token."""
        if self.gate == "noisy":
            scores, index = logits.topk(self.top_k, dim=-1)
            return scores.softmax(dim=-1), index
        return logits.softmax(dim=-1).topk(self.top_k, dim=-1)  # not renormalised

    def forward(self, x: Tensor, task: int, vector: Tensor | None = None) -> Tensor:
        """x: [B, N, dim]. task: its number. vector: [1, gate_task_specific_dim]."""
        rows = x.flatten(0, 1)
        logits = self.router(rows, task, vector)
        if self.training:
            spread = self.router.spread(rows, task, vector)
            noisy = logits + spread * torch.randn_like(logits)
            loss = self._balance(logits, noisy, spread)
            self.balance_loss = loss if self.balance_loss is None else self.balance_loss + loss
            logits = noisy
        return self.mix(self, rows, logits).view_as(x)

    def _balance(self, clean: Tensor, noisy: Tensor, spread: Tensor) -> Tensor:
        """cv²(importance) + cv²(load): the sum of weights and the number of tokens per expert.

        A number of tokens has no gradient. Its smooth stand-in is the chance
        that an expert would be among the k best if its noise were drawn again.
        """
        weights, index = self.choose(noisy)
        importance = torch.zeros_like(clean).scatter(1, index, weights).sum(0)
        if self.top_k == self.count or float(spread.detach().max()) == 0.0:
            load = torch.zeros_like(clean).scatter(1, index, 1.0).sum(0)
        else:
            best = noisy.topk(self.top_k + 1, dim=-1).values
            inside = noisy > best[:, self.top_k :]
            threshold = torch.where(
                inside, best[:, self.top_k :], best[:, self.top_k - 1 : self.top_k]
            )
            load = torch.special.ndtr((clean - threshold) / spread).sum(0)
        return _cv_squared(self.total(importance)) + _cv_squared(self.total(load))


def _alone(x: Tensor) -> Tensor:
    return x


def _cv_squared(x: Tensor) -> Tensor:
    """The squared coefficient of variation, 0 when all are equal."""
    if x.numel() == 1:
        return x.new_zeros(())
    return x.var() / (x.mean() ** 2 + 1e-10)


def routed(moe: MoE, x: Tensor, logits: Tensor) -> Tensor:
    """Sum over experts in ascending order; each sees only the tokens that chose it."""
    weights, index = moe.choose(logits)
    out = torch.zeros_like(x)
    for expert in range(moe.count):
        row, slot = torch.where(index == expert)
        out = out.index_add(0, row, weights[row, slot, None] * moe.experts(x[row], expert))
    return out


def masked(moe: MoE, x: Tensor, logits: Tensor) -> Tensor:
    """The same sum, every expert seeing every token and most of it multiplied by 0."""
    weights, index = moe.choose(logits)
    mask = torch.zeros_like(logits).scatter(1, index, weights)
    out: Tensor = mask[:, :1] * moe.experts(x, 0)
    for expert in range(1, moe.count):
        out = out + mask[:, expert : expert + 1] * moe.experts(x, expert)
    return out


# --------------------------------------------------------------------------------------
# Backbone


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, 1 / math.sqrt(dim // heads)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1)) * self.scale
        x = scores.softmax(dim=-1) @ v
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, dim))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out or dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm transformer block with an MLP or a mixture of experts."""

    def __init__(self, config: M3ViTConfig, number: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=1e-6)
        self.attn = Attention(config.dim, config.heads)
        self.norm2 = nn.LayerNorm(config.dim, eps=1e-6)
        dense = number % 2 == 0
        self.mlp = Mlp(config.dim, int(config.dim * config.mlp_ratio)) if dense else None
        self.moe = None if dense else MoE(config)

    def forward(self, x: Tensor, task: int, vector: Tensor | None) -> Tensor:
        x = x + self.attn(self.norm1(x))
        y: Tensor = self.norm2(x)
        if self.moe is not None:
            y = self.moe(y, task, vector)
        elif self.mlp is not None:
            y = self.mlp(y)
        return x + y


class TaskVector(nn.Module):
    """The vector of a task: one-hot, fc, GELU, fc, LayerNorm."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.mlp = Mlp(count, width, width)
        self.norm = nn.LayerNorm(width)
        self.numbers: Tensor
        self.register_buffer("numbers", torch.arange(count), persistent=False)

    def forward(self, task: Tensor) -> Tensor:
        """task: [1] int64 -> [1, width]."""
        one_hot = torch.eq(self.numbers, task).to(self.norm.weight.dtype)
        return self.norm(self.mlp(one_hot[None]))


# --------------------------------------------------------------------------------------
# Decoder


class ConvBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class UpHead(nn.Module):
    """Tokens to a map of the picture's size: four times a convolution, each after a doubling."""

    def __init__(self, config: M3ViTConfig, channels: int) -> None:
        super().__init__()
        self.grid, self.size = config.grid, (config.height, config.width)
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        width = config.head_width
        self.convs = nn.ModuleList(
            ConvBlock(config.dim if i == 0 else width, width) for i in range(4)
        )
        self.predict = nn.Conv2d(width, channels, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(tokens[:, 1:])
        x = x.transpose(1, 2).reshape(x.shape[0], -1, *self.grid)
        for i, conv in enumerate(self.convs):
            x = conv(_twice(x) if i > 0 else x)
        x = _twice(self.predict(x))
        if tuple(x.shape[2:]) != self.size:
            x = F.interpolate(x, size=self.size, mode="bilinear", align_corners=False)
        return x


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _decoder(config: M3ViTConfig, task: Task) -> nn.Module:
    return UpHead(config, task.channels) if config.decoder == "up" else nn.Identity()


# --------------------------------------------------------------------------------------
# The network


class M3ViT(nn.Module):
    """The whole network. forward gives the prediction of every task."""

    def __init__(self, config: M3ViTConfig) -> None:
        super().__init__()
        self.config = config
        rows, columns = config.grid
        self.patch_embed = nn.Conv2d(3, config.dim, config.patch, stride=config.patch)
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + rows * columns, config.dim))
        self.task_vector = (
            TaskVector(len(config.tasks), config.gate_task_specific_dim)
            if config.routing == "conditioned"
            else None
        )
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.blocks))
        self.heads = nn.ModuleDict({t.name: _decoder(config, t) for t in config.tasks})
        initialise(self)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, image: Tensor, task_id: Tensor | None = None) -> dict[str, Tensor]:
        """image: [B, 3, H, W], normalised. Returns [B, channels, H, W] by task.

        Without a decoder it returns the tokens, [B, N, dim] by task.
        With conditioned routing and a task_id ([1], int64) the backbone runs
        once, for that task, and every head decodes the same tokens.
        """
        if self.training:
            for moe in self.moe_layers().values():
                moe.balance_loss = None
        trunk = self.trunk(image)
        if task_id is not None:
            assert self.task_vector is not None, "task_id is for conditioned routing"
            tokens = self.branch(trunk, 0, self.task_vector(task_id))
            return {name: head(tokens) for name, head in self.heads.items()}
        out = {}
        for number, (name, head) in enumerate(self.heads.items()):
            vector = None
            if self.task_vector is not None:
                vector = self.task_vector(torch.tensor([number], device=image.device))
            out[name] = head(self.branch(trunk, number, vector))
        return out

    def trunk(self, image: Tensor) -> Tensor:
        """What no router has touched, and so is the same for all tasks: [B, N, dim]."""
        x = self.patch_embed(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        return self.blocks[0](x, 0, None)

    def branch(self, x: Tensor, task: int, vector: Tensor | None) -> Tensor:
        """The rest of the backbone, for one task."""
        for block in self.blocks[1:]:
            x = block(x, task, vector)
        return x

    def moe_layers(self) -> Mapping[str, MoE]:
        return {name: m for name, m in self.named_modules() if isinstance(m, MoE)}

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.config.tasks

    def auxiliary_loss(self) -> Tensor:
        """The experts' balance: sum over layers and tasks of the last training pass."""
        losses = [m.balance_loss for m in self.moe_layers().values() if m.balance_loss is not None]
        return torch.stack(losses).sum() if losses else torch.zeros(())


def initialise(net: nn.Module) -> None:
    """Random weights for a whole network, or a part of one."""
    net.apply(_init)


def _init(module: nn.Module) -> None:
    """Weights that keep the scale of their input; routers whose scores have unit variance."""
    if isinstance(module, Router):
        for gate in module.gates:
            assert isinstance(gate, nn.Linear)
            nn.init.normal_(gate.weight, std=gate.in_features**-0.5)
        for noise in module.noise or ():
            assert isinstance(noise, nn.Linear)
            nn.init.zeros_(noise.weight)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.normal_(module.bias, std=0.02)
    elif isinstance(module, Experts):
        for weight in (module.fc1_weight, module.fc2_weight):
            bound = math.sqrt(6 / (weight.shape[1] + weight.shape[2]))
            nn.init.uniform_(weight, -bound, bound)
        nn.init.normal_(module.fc1_bias, std=0.02)
        nn.init.normal_(module.fc2_bias, std=0.02)
    elif isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
