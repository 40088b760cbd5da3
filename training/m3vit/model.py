"""M3ViT (NeurIPS 2022): one vision transformer for several dense prediction tasks.

A ViT backbone whose odd blocks have a mixture of experts (moe.py) in place of the MLP, and one convolutional decoder
per task. The experts are shared by all tasks; what a task has of its own is the router that picks them ('multi': one
router matrix per task and layer) or a vector that the one router sees beside the token ('conditioned'). So the backbone
runs once for each task wanted.

Two simpler networks are the same thing with less: with routing 'shared' one router serves all tasks (ViT-MoE), and with
no experts all blocks are dense (ViT). Their backbone runs once for all tasks.

Configuration, blocks and decoder are in this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m3vit.moe import Experts, MoE, Router, masked, routed
from m3vit.tasks import TASK_SETS, Task

__all__ = [
    "DECODERS", "GATES", "PRESETS", "ROUTINGS", "Experts", "M3ViT", "M3ViTConfig", "MoE", "Router", "UpHead",
    "initialise", "masked", "routed",
]  # fmt: skip

GATES = ("noisy_vmoe", "noisy")
ROUTINGS = ("multi", "conditioned", "shared")
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
    distilled: bool = False  # a second learned token beside the class token, as in DeiT
    experts: int = 16  # 0: all blocks are dense
    top_k: int = 4
    expert_ratio: float = 1.0  # hidden width of an expert / dim
    gate: str = "noisy_vmoe"  # softmax, then top-k | "noisy": top-k, then softmax
    routing: str = "multi"  # a router per task | "conditioned": one, which is told the task | "shared": one for all
    gate_task_specific_dim: int = -1  # width of the task vector of conditioned routing
    task_one_hot: bool = False  # the task vector is the one-hot of the task itself
    gate_input_ahead: bool = False  # routers see what enters the block, not what the experts see
    regu_experts_fromtask: bool = False  # a task may use a window of the experts only,
    num_experts_pertask: int = -1  # which is of this size
    expert_prune: bool = False  # experts are dropped whose weight is
    prune_threshold: float = 0.1  # not over this
    noise_std: float = 1.0  # of noisy_vmoe's noise in training, divided by the experts there are to choose from
    decoder: str = "up"  # a convolutional head per task | "none": the backbone, tokens as outputs
    head_width: int = 256
    multi_level: bool = False  # heads predict after each doubling, in training
    tam: bool = False  # tasks attend to each other's features, in training, after a head's
    tam_level0: bool = True  # second,
    tam_level1: bool = True  # third
    tam_level2: bool = True  # and last convolution
    tasks: tuple[Task, ...] = TASK_SETS["pascal"]

    def __post_init__(self) -> None:
        def check(ok: bool, message: str) -> None:
            if not ok:
                raise ValueError(message)

        for field in ("patch", "dim", "heads", "blocks", "head_width"):
            check(getattr(self, field) >= 1, f"{field} must be at least 1")
        check(min(self.height, self.width) >= self.patch, "the picture is smaller than a patch")
        check(self.dim % self.heads == 0, f"dim {self.dim} is not divisible by {self.heads} heads")
        check(self.gate in GATES, f"gate is one of {GATES}, not {self.gate!r}")
        check(self.routing in ROUTINGS, f"routing is one of {ROUTINGS}, not {self.routing!r}")
        check(self.decoder in DECODERS, f"decoder is one of {DECODERS}, not {self.decoder!r}")
        check(self.experts >= 0, "experts must be at least 0")
        check(self.experts == 0 or self.top_k >= 1, "top_k must be at least 1")
        check(self.experts == 0 or self.top_k <= self.experts, f"top_k {self.top_k} of {self.experts} experts")
        check(0 <= self.prune_threshold < 1, "prune_threshold is a share: 0 or more and less than 1")
        check(
            (self.routing == "conditioned") == (self.gate_task_specific_dim > 0 or self.task_one_hot),
            "conditioned routing and gate_task_specific_dim > 0 or task_one_hot belong together",
        )
        check(
            not (self.gate_task_specific_dim > 0 and self.task_one_hot),
            "the task vector is learned (gate_task_specific_dim > 0) or task_one_hot, not both",
        )
        if self.regu_experts_fromtask:
            check(self.routing != "shared", "a window of experts for each task needs multi or conditioned routing")
            check(
                self.top_k <= self.num_experts_pertask <= self.experts,
                f"num_experts_pertask {self.num_experts_pertask}: from top_k {self.top_k} to {self.experts} experts",
            )
        check(self.decoder == "up" or not (self.multi_level or self.tam), "multi_level and tam are of the decoder up")
        check(not self.tam or len(self.tasks) > 1, "tam needs several tasks")
        names = [t.name for t in self.tasks]
        check(len(names) > 0, "a network needs a task")
        check(len(set(names)) == len(names), f"tasks named twice: {names}")
        check(all(t.channels >= 1 for t in self.tasks), "a task needs a channel")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; what does not fill a patch is not seen."""
        return self.height // self.patch, self.width // self.patch

    @property
    def prefix(self) -> int:
        """Tokens before those of the patches."""
        return 2 if self.distilled else 1

    @property
    def once(self) -> bool:
        """The backbone is the same for all tasks."""
        return self.experts == 0 or self.routing == "shared"

    @property
    def vector_width(self) -> int:
        """Of the vector that tells a router the task; 0: none does."""
        return len(self.tasks) if self.task_one_hot else max(self.gate_task_specific_dim, 0)

    @property
    def open_experts(self) -> int:
        """Experts that one task may use."""
        return self.num_experts_pertask if self.regu_experts_fromtask else self.experts

    def window_start(self, task: int) -> int:
        """First expert of a task's window: spread evenly, from the first to the last possible one."""
        return task * (self.experts - self.open_experts) // max(len(self.tasks) - 1, 1)

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
        dense = number % 2 == 0 or config.experts == 0
        self.mlp = Mlp(config.dim, int(config.dim * config.mlp_ratio)) if dense else None
        self.moe = None if dense else MoE(config)
        self.gate_input_ahead = config.gate_input_ahead

    def forward(self, x: Tensor, task: int | Tensor, vector: Tensor | None) -> Tensor:
        ahead = x if self.gate_input_ahead else None
        x = x + self.attn(self.norm1(x))
        y: Tensor = self.norm2(x)
        if self.moe is not None:
            y = self.moe(y, task, vector, ahead)
        elif self.mlp is not None:
            y = self.mlp(y)
        return x + y


class OneHot(nn.Module):
    """The vector of a task: 1 at its number, else 0."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.rows: Tensor
        self.register_buffer("rows", torch.eye(count), persistent=False)

    def forward(self, task: Tensor) -> Tensor:
        """task: [1] int64 -> [1, count]."""
        return self.rows[task]


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


Activation = Callable[[Tensor], Tensor]


class ConvBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1, activation: Activation = F.relu) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.bn = nn.BatchNorm2d(outputs)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.bn(self.conv(x)))


class UpBlock(nn.Module):
    """A transposed convolution to twice the size."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1)
        self.bn = nn.BatchNorm2d(width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.bn(self.conv(x)))


class UpHead(nn.Module):
    """Tokens to a map of the picture's size: four convolutions, each but the first after a doubling.

    levels: predictions in training from what the first three convolutions make, doubled (multi_level).
    """

    def __init__(self, config: M3ViTConfig, channels: int) -> None:
        super().__init__()
        self.grid, self.size, self.prefix = config.grid, (config.height, config.width), config.prefix
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        width = config.head_width
        self.convs = nn.ModuleList(ConvBlock(config.dim if i == 0 else width, width) for i in range(4))
        self.predict = nn.Conv2d(width, channels, 1)
        self.levels = nn.ModuleList(nn.Conv2d(width, channels, 1) for _ in range(3 if config.multi_level else 0))

    def forward(self, tokens: Tensor, features: list[Tensor] | None = None) -> Tensor:
        """tokens: [B, N, dim]. features: a list that is given what each convolution makes, coarse to fine."""
        x = self.norm(tokens[:, self.prefix :])
        x = x.transpose(1, 2).reshape(x.shape[0], -1, *self.grid)
        for i, conv in enumerate(self.convs):
            x = conv(_twice(x) if i > 0 else x)
            if features is not None:
                features.append(x)
        x = _twice(self.predict(x))
        if tuple(x.shape[2:]) != self.size:
            x = F.interpolate(x, size=self.size, mode="bilinear", align_corners=False)
        return x


class Tam(nn.Module):
    """Task attention: features of all tasks, [B, width, H, W] each, raised where a mask made of all of them says.

    A first mask weighs the first half of the tasks against the others; an encoder and decoder make of the weighted
    features the mask M, and each task predicts from all tasks' features times 1 + M. Used in training only.
    """

    def __init__(self, config: M3ViTConfig) -> None:
        super().__init__()
        count, width = len(config.tasks), config.head_width
        self.first = count // 2
        self.join = ConvBlock(count * width, width)
        self.balance = ConvBlock(width, width, activation=torch.sigmoid)
        self.mix = ConvBlock(count * width, width)
        self.down = nn.ModuleList(ConvBlock(width, width, stride=2) for _ in range(2))
        self.up = UpBlock(width, F.relu)
        self.mask = UpBlock(width, torch.sigmoid)
        self.convs = nn.ModuleDict({t.name: ConvBlock(count * width, width) for t in config.tasks})
        self.predict = nn.ModuleDict({t.name: nn.Conv2d(width, t.channels, 1) for t in config.tasks})

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """In the order of the tasks. Returns [B, channels, H, W] by task."""
        first, others = self.first, len(features) - self.first
        share = self.balance(self.join(torch.cat(list(features), 1)))
        weights = [share / first if i < first else (1 - share) / others for i in range(len(features))]
        x = self.mix(torch.cat([f * w for f, w in zip(features, weights, strict=True)], 1))
        for conv in self.down:
            x = conv(x)
        mask = self.mask(self.up(x))
        size = features[0].shape[2:]
        if mask.shape[2:] != size:  # of a size that is no multiple of 4
            mask = F.interpolate(mask, size=size, mode="bilinear", align_corners=False)
        raised = torch.cat([f * (1 + mask) for f in features], 1)
        return {name: predict(self.convs[name](raised)) for name, predict in self.predict.items()}


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _task_vector(config: M3ViTConfig) -> nn.Module | None:
    if config.experts == 0 or config.routing != "conditioned":
        return None
    return OneHot(len(config.tasks)) if config.task_one_hot else TaskVector(len(config.tasks), config.vector_width)


def _decoder(config: M3ViTConfig, task: Task) -> nn.Module:
    return UpHead(config, task.channels) if config.decoder == "up" else nn.Identity()


# --------------------------------------------------------------------------------------
# The network


class M3ViT(nn.Module):
    """The whole network. forward gives the prediction of every task.

    Extra predictions, named "TASK@LEVEL", come in training: level1 … level3 of multi_level, tam0 … tam2 of tam.
    all_levels: those of multi_level come in evaluation as well.
    """

    def __init__(self, config: M3ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.all_levels = False
        rows, columns = config.grid
        self.patch_embed = nn.Conv2d(3, config.dim, config.patch, stride=config.patch)
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.dim))
        self.dist_token = nn.Parameter(torch.empty(1, 1, config.dim)) if config.distilled else None
        self.pos_embed = nn.Parameter(torch.empty(1, config.prefix + rows * columns, config.dim))
        self.task_vector = _task_vector(config)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.blocks))
        self.heads = nn.ModuleDict({t.name: _decoder(config, t) for t in config.tasks})
        levels = [str(i) for i in range(3) if config.tam and getattr(config, f"tam_level{i}")]
        self.tam = nn.ModuleDict({level: Tam(config) for level in levels})
        initialise(self)
        for token in (self.cls_token, self.dist_token, self.pos_embed):
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02)

    def forward(self, image: Tensor, task_id: Tensor | None = None) -> dict[str, Tensor]:
        """image: [B, 3, H, W], normalised. Returns [B, channels, H, W] by task.

        Without a decoder it returns the tokens, [B, N, dim] by task. With conditioned routing and a task_id ([1],
        int64) the backbone runs once, for that task, and every head decodes the same tokens.
        """
        if self.training:
            for moe in self.moe_layers().values():
                moe.balance_loss = None
        return self.decode(self.tokens(image, task_id))

    def tokens(self, image: Tensor, task_id: Tensor | None = None) -> list[Tensor]:
        """What the backbone makes of the picture for each task: [B, N, dim]."""
        trunk, count = self.trunk(image), len(self.tasks)
        if task_id is not None:
            assert self.task_vector is not None, "task_id is for conditioned routing"
            return [self.branch(trunk, task_id, self.task_vector(task_id))] * count
        if self.config.once:
            return [self.branch(trunk, 0, None)] * count
        if self.task_vector is None:
            return [self.branch(trunk, number, None) for number in range(count)]
        numbers = [torch.tensor([number], device=image.device) for number in range(count)]
        return [self.branch(trunk, i, self.task_vector(number)) for i, number in enumerate(numbers)]

    def trunk(self, image: Tensor) -> Tensor:
        """What no router has touched, and so is the same for all tasks: [B, N, dim]."""
        x = self.patch_embed(image).flatten(2).transpose(1, 2)
        prefix = [t.expand(x.shape[0], -1, -1) for t in (self.cls_token, self.dist_token) if t is not None]
        return self.blocks[0](torch.cat([*prefix, x], dim=1) + self.pos_embed, 0, None)

    def branch(self, x: Tensor, task: int | Tensor, vector: Tensor | None) -> Tensor:
        """The rest of the backbone, for one task."""
        for block in self.blocks[1:]:
            x = block(x, task, vector)
        return x

    def decode(self, tokens: Sequence[Tensor]) -> dict[str, Tensor]:
        """The heads' predictions from the tokens of each task."""
        levels = self.config.multi_level and (self.training or self.all_levels)
        tam = dict(self.tam.items()) if self.training else {}
        if not levels and not tam:
            return {name: head(x) for (name, head), x in zip(self.heads.items(), tokens, strict=True)}
        out: dict[str, Tensor] = {}
        features: dict[str, list[Tensor]] = {name: [] for name in self.heads}
        for (name, head), x in zip(self.heads.items(), tokens, strict=True):
            out[name] = head(x, features[name])
        if levels:
            for name, head in self.heads.items():
                assert isinstance(head, UpHead)
                for i, predict in enumerate(head.levels):
                    out[f"{name}@level{i + 1}"] = predict(_twice(features[name][i]))
        for level, module in tam.items():
            predictions = module([made[int(level) + 1] for made in features.values()])
            out |= {f"{name}@tam{level}": x for name, x in predictions.items()}
        return out

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
