"""Networks of other kinds than the compiler was made for, each small and instructive.

The first are made of a few layers of torch.nn that networks of vision are built from, in the ways
that exporters write them; the others are architectures of the transformers library which do
something that no other does. Outputs are computed in float64.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import math
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F

from m3vit_package import export
from testset import Array, Network
from transformer_nets import Float64
from weights import randomise

AGREEMENT = 1e-5  # of float32 and float64 in PyTorch; less means that a choice was close
Draw = Callable[[torch.Generator], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Extra:
    """A network, what it is fed, and how it is exported."""

    build: Callable[[], nn.Module]
    draw: Draw
    opset: int = 20
    traced: bool = False  # by the exporter that traces, which older versions have


def _normal(*shapes: tuple[int, ...]) -> Draw:
    return lambda g: tuple(torch.randn(s, generator=g) for s in shapes)


def _flat(result: Any) -> tuple[Tensor, ...]:
    if isinstance(result, Tensor):
        return (result,)
    return tuple(t for part in result for t in _flat(part))


class _Flat(nn.Module):
    """Returns the tensors of a result as one tuple."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        return _flat(self.net(*args))


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Any:
        return self.function(*args)


# ---- layers ----


class UNet(nn.Module):
    """Two steps down and up again; `norm` makes the normalisation of so many channels."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()

        def block(before: int, after: int) -> nn.Module:
            first = nn.Conv2d(before, after, 3, padding=1)
            second = nn.Conv2d(after, after, 3, padding=1)
            return nn.Sequential(first, norm(after), nn.SiLU(), second, norm(after), nn.SiLU())

        self.first, self.second, self.third = block(3, 8), block(8, 16), block(16, 24)
        self.up2, self.join2 = nn.ConvTranspose2d(24, 16, 2, 2), block(32, 16)
        self.up1, self.join1 = nn.ConvTranspose2d(16, 8, 4, 2, 1), block(16, 8)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x.to(self.head.weight.dtype))
        b = self.second(F.max_pool2d(a, 2))
        c = self.third(F.max_pool2d(b, 2))
        d = self.join2(torch.cat([self.up2(c), b], 1))
        return self.head(self.join1(torch.cat([self.up1(d), a], 1)))


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 4, 1)
        self.up = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


def _groups() -> nn.Module:
    """Groups of 8 and 4 channels, dilation, padding by reflection, excitation."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1),
        nn.Conv2d(32, 64, 3, 1, 1, groups=8),
        nn.BatchNorm2d(64),
        Squeeze(64),
        nn.Hardswish(),
        nn.Conv2d(64, 64, 3, 1, 2, dilation=2, groups=16, padding_mode="reflect"),
        nn.Hardsigmoid(),
        nn.AdaptiveAvgPool2d((2, 3)),
        nn.Flatten(),
        nn.Linear(384, 10),
    )


def _windows(x: Tensor) -> tuple[Tensor, ...]:
    """Pools whose last window is partial, or larger than the picture, or as wide as it wants."""
    return (
        F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
        F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        F.avg_pool2d(x, 40, ceil_mode=True),
        F.max_pool2d(x, 3, 2, 1, dilation=2, ceil_mode=True),
        F.lp_pool2d(x, 2, 3, 2),
        F.adaptive_avg_pool2d(x, (3, 5)),
        F.adaptive_max_pool2d(x, (7, 3)),
    )


def _resampled(x: Tensor) -> tuple[Tensor, ...]:
    """Every kind of interpolation, up and down, by whole and other factors."""
    kinds: list[dict[str, Any]] = [
        {"mode": "nearest", "scale_factor": 2.0},
        {"mode": "nearest", "size": (5, 20)},
        {"mode": "nearest-exact", "size": (5, 20)},
        {"mode": "bilinear", "scale_factor": 1.7},
        {"mode": "bilinear", "size": (4, 23), "align_corners": True},
        {"mode": "bilinear", "size": (4, 5), "antialias": True},
        {"mode": "bicubic", "scale_factor": 2.0},
        {"mode": "bicubic", "size": (13, 6), "align_corners": True},
    ]
    return tuple(F.interpolate(x, **kind) for kind in kinds)


def _sampled(x: Tensor, grid: Tensor) -> tuple[Tensor, ...]:
    """A picture read at given places, some of them outside."""
    return tuple(
        F.grid_sample(x, grid * 1.3, mode, padding, corners)
        for mode in ("bilinear", "nearest", "bicubic")
        for padding, corners in (("zeros", False), ("border", True), ("reflection", False))
    )


def _rearranged(x: Tensor) -> tuple[Tensor, ...]:
    """Blocks of pixels and back, overlapping ones too."""
    blocks = F.unfold(x, 3, padding=1, stride=2)
    return (
        F.pixel_shuffle(x, 2),
        F.pixel_unshuffle(x, 2),
        F.channel_shuffle(x, 4),
        blocks,
        F.fold(blocks, (8, 10), 3, padding=1, stride=2),
        x.roll((1, -2), (2, 3)).flip(1),
    )


def _volume() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 6, 3, padding=1),
        nn.BatchNorm3d(6),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(6, 6, (1, 3, 3), padding=(0, 1, 1), groups=3),
        nn.InstanceNorm3d(6, affine=True),
        nn.ConvTranspose3d(6, 3, 2, 2),
        nn.AvgPool3d(2),
    )


def _line() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 8, 5, 2, 2),
        nn.BatchNorm1d(8),
        nn.GELU(),
        nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=8),
        nn.MaxPool1d(2),
        nn.AvgPool1d(3, 2, 1),
        nn.ConvTranspose1d(8, 5, 4, 2, 1),
    )


class Heads(nn.Module):
    """nn.MultiheadAttention over other tokens, some of them padding; weights are wanted too."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(24, 3, batch_first=True)

    def forward(self, x: Tensor, y: Tensor, padding: Tensor) -> Any:
        return self.attention(x, y, y, key_padding_mask=padding)


def _heads_inputs(g: torch.Generator) -> tuple[Tensor, ...]:
    padding = torch.arange(7)[None] >= torch.tensor([[3], [7]])
    return (*_normal((2, 5, 24), (2, 7, 24))(g), padding)


def _attention_of_groups(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Four heads of queries over two of keys, as it is and causal with a mask of numbers."""
    mask = torch.linspace(-1, 1, 25, dtype=q.dtype).view(5, 5)
    return (
        F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        F.scaled_dot_product_attention(q[:, ::2], k, v, is_causal=True, scale=0.3),
        F.scaled_dot_product_attention(q[:, ::2], k, v, attn_mask=mask),
    )


def _einsum(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    return (
        torch.einsum("...td,...sd->...ts", a, b),
        torch.einsum("bhtd,bhsd,bhse->bhte", a, b, b),
        torch.einsum("bhii->bhi", c),
        torch.einsum("bhij,bhjk->bk", c, a[:, :, :, :4].contiguous()),
    )


def _answers(x: Tensor) -> tuple[Any, ...]:
    """Indices as well as numbers."""
    return (
        x.argmax(1),
        x.argmin(-1, keepdim=True),
        x.topk(3, 1),
        x.sort(-1, descending=True),
        x.any(0),
    )


def _whole(i: Tensor, j: Tensor, small: Tensor, mask: Tensor, picture: Tensor) -> tuple[Tensor, ...]:
    """Arithmetic of integers, logic, and a picture of bytes."""
    return (
        i // j,
        i % j,
        (i * j).clamp(-20, 20),
        i & 7,
        torch.div(small, 3, rounding_mode="floor"),
        small.float().mean(0, dtype=torch.float32) / 2,
        (mask & (i > 0)) | ~mask,
        torch.where(mask, i, -j),
        mask.sum(),
        (picture.permute(0, 3, 1, 2).float() / 255 - 0.4) / 0.2,
    )


def _whole_inputs(g: torch.Generator) -> tuple[Tensor, ...]:
    def numbers(least: int, most: int, shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
        return torch.randint(least, most, shape, generator=g, dtype=kind)

    return (
        numbers(-9, 9, (4, 5), torch.int64),
        numbers(1, 9, (4, 5), torch.int64),
        numbers(-9, 9, (4, 5), torch.int32),
        numbers(0, 2, (4, 5), torch.int64) > 0,
        numbers(0, 256, (1, 6, 7, 3), torch.uint8),
    )


class Outputs(nn.Module):
    """Outputs that are inputs, constants, views of each other, twice the same, or empty."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 4))

    def forward(self, x: Tensor, unused: Tensor, nothing: Tensor) -> tuple[Tensor, ...]:
        y = x @ self.weight
        joined = torch.cat([nothing, x])
        return x, self.weight + 0, y, y, y.T, y.reshape(-1), x[:0], joined, nothing.sum(0), x.mean()


def _long(x: Tensor) -> tuple[Tensor, ...]:
    """Sums so long that adding one number after the other in float32 would be too coarse."""
    x = x.to(torch.float32) if x.dtype == torch.float32 else x
    y = x.abs()
    t = y.T.contiguous()
    return (
        y.sum(1),
        y.mean(1),
        y.square().sum(1),
        y.logsumexp(1),
        t.sum(0),
        t.norm(dim=0),
        x.softmax(1)[:, :64],
    )


class Double(nn.Module):
    """Double precision, with a float32 detour."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 16)
        self.norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.first(x.to(self.first.weight.dtype)))
        return F.softmax(self.norm(y).double(), -1).cumsum(-1)


# ---- mixtures of experts that are not the usual ones ----


class Stacked(nn.Module):
    """Experts' matrices in one tensor; 11 tokens of width 16."""

    def __init__(self, experts: int = 5, hidden: int = 24) -> None:
        super().__init__()
        self.gate = nn.Linear(16, experts)
        self.fc1 = nn.Parameter(torch.zeros(experts, 16, hidden))
        self.fc2 = nn.Parameter(torch.zeros(experts, hidden, 16))

    def experts(self, x: Tensor) -> Tensor:
        return torch.bmm(F.gelu(torch.bmm(x, self.fc1)), self.fc2)


class Capacity(Stacked):
    """Switch: the best expert, at most 3 tokens each, dispatched by one-hot matrices."""

    def forward(self, x: Tensor) -> Tensor:
        weight, chosen = self.gate(x).softmax(-1).max(-1)
        hot = F.one_hot(chosen, 5)
        place = (hot.cumsum(0) * hot).sum(-1) - 1
        slot = F.one_hot(place.clamp(max=2), 3).to(x.dtype) * (place < 3)[:, None]
        dispatch = hot.to(x.dtype)[:, :, None] * slot[:, None]
        y = self.experts(torch.einsum("tec,th->ech", dispatch, x))
        return torch.einsum("tec,ech->th", dispatch * weight[:, None, None], y)


class Soft(Stacked):
    """Soft MoE: every expert gets a mean of all tokens."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.gate(x)
        slots = logits.softmax(0).T @ x
        return logits.softmax(1) @ self.experts(slots[:, None])[:, 0]


class ExpertChoice(Stacked):
    """Experts choose tokens instead of tokens experts."""

    def forward(self, x: Tensor) -> Tensor:
        weight, token = self.gate(x).softmax(-1).T.topk(4, -1)
        y = self.experts(x[token]) * weight[..., None]
        return torch.zeros_like(x).index_add(0, token.flatten(), y.reshape(-1, 16))


class Threshold(Stacked):
    """Experts above the second best score count, the others' weights are 0."""

    def forward(self, x: Tensor) -> Tensor:
        p = self.gate(x).softmax(-1)
        p = torch.where(p >= p.topk(2, -1).values[:, -1:], p, torch.zeros_like(p))
        return torch.einsum("te,eth->th", p, self.experts(x.expand(5, -1, -1)))


class Kernels(nn.Module):
    """A convolution whose weights are mixed for each picture."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.Parameter(torch.zeros(4, 8, 3, 3, 3))
        self.gate = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        share = self.gate(x.mean((2, 3))).softmax(-1)
        w = torch.einsum("be,eoihw->boihw", share, self.kernels).reshape(-1, 3, 3, 3)
        y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), w, padding=1, groups=x.shape[0])
        return y.view(x.shape[0], -1, *x.shape[2:])


# ---- the transformers library ----


class _Picked(nn.Module):
    def __init__(self, net: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.net, self.inputs, self.outputs = net, inputs, outputs

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        result = self.net(**dict(zip(self.inputs, args, strict=True)))
        return tuple(result[name] for name in self.outputs)


def _library(
    model: str, config: str, inputs: tuple[str, ...], outputs: tuple[str, ...], **settings: Any
) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        kwargs = {k: v() if callable(v) else v for k, v in settings.items()}
        how = {k: kwargs.pop(k) for k in list(kwargs) if k.endswith("_implementation")}
        net = getattr(hf, model)._from_config(getattr(hf, config)(**kwargs), **how)
        return _Picked(net, inputs, outputs)

    return build


def _tokens(g: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.randint(3, 96, (1, 20), generator=g),)


def _padded_tokens(g: torch.Generator) -> tuple[Tensor, ...]:
    mask = torch.ones(2, 20, dtype=torch.int64)
    mask[0, 15:] = 0
    return torch.randint(3, 96, (2, 20), generator=g), mask


_picture = partial(_library, inputs=("pixel_values",))
_text = partial(_library, inputs=("input_ids",), outputs=("logits",))
_LM: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "use_cache": False,
    "experts_implementation": "batched_mm",
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 40,
    "intermediate_size": 96,
}


def _small_resnet() -> Any:
    return hf.RTDetrResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],  # type: ignore[call-arg]
    )


def _mlp_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(4, channels)


def _function(function: Callable[..., Any]) -> Callable[[], nn.Module]:
    return lambda: _Function(function)


_PIXELS = _normal((1, 3, 64, 64))
_TOKENS_16 = _normal((11, 16))

NETS: dict[str, Extra] = {
    "unet-group": Extra(lambda: UNet(_mlp_norm), _normal((1, 3, 24, 40))),
    "unet-instance": Extra(lambda: UNet(nn.InstanceNorm2d), _normal((2, 3, 16, 24)), 13, True),
    "unet-batch": Extra(lambda: UNet(nn.BatchNorm2d), _normal((1, 3, 24, 40)), 17, True),
    "unet-half": Extra(lambda: UNet(_mlp_norm).half(), lambda g: (_PIXELS(g)[0].half(),), 21),
    "groups": Extra(_groups, _normal((2, 3, 33, 47))),
    "windows": Extra(_function(_windows), _normal((2, 5, 14, 18)), 22),
    "resampled": Extra(_function(_resampled), _normal((1, 4, 9, 11))),
    "sampled": Extra(
        _function(_sampled),
        lambda g: (*_normal((2, 5, 6, 7))(g), 2 * torch.rand(2, 4, 9, 2, generator=g) - 1),
    ),
    "rearranged": Extra(_function(_rearranged), _normal((1, 16, 8, 10))),
    "volume": Extra(_volume, _normal((1, 2, 8, 12, 10)), 18),
    "line": Extra(_line, _normal((2, 3, 50)), 14, True),
    "heads": Extra(Heads, _heads_inputs, 23),
    "attention-groups": Extra(_function(_attention_of_groups), _normal((1, 4, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8)), 23),
    "einsum": Extra(_function(_einsum), _normal((2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 4, 4)), 18),
    "answers": Extra(_function(_answers), _normal((4, 6, 5))),
    "whole": Extra(_function(_whole), _whole_inputs),
    "outputs": Extra(Outputs, lambda g: (*_normal((2, 3), (4,))(g), torch.zeros(0, 3))),
    "long": Extra(_function(_long), lambda g: (torch.rand(2, 1 << 17, generator=g),)),
    "double": Extra(Double, lambda g: (_normal((3, 12))(g)[0].double(),)),
    "moe-capacity": Extra(Capacity, _TOKENS_16),
    "moe-soft": Extra(Soft, _TOKENS_16),
    "moe-expert-choice": Extra(ExpertChoice, _TOKENS_16),
    "moe-threshold": Extra(Threshold, _TOKENS_16),
    "moe-kernels": Extra(Kernels, _normal((2, 3, 7, 8))),
    # One window larger than the picture.
    "efficientnet": Extra(
        _picture(
            "EfficientNetForImageClassification",
            "EfficientNetConfig",
            outputs=("logits",),
            image_size=64,
            width_coefficient=0.25,
            depth_coefficient=0.3,
            hidden_dim=320,
            num_labels=10,
        ),
        _PIXELS,
    ),
    # Col2Im, and an attention that is linear in the number of pixels.
    "mobilevitv2": Extra(
        _picture(
            "MobileViTV2ForImageClassification",
            "MobileViTV2Config",
            outputs=("logits",),
            width_multiplier=0.25,
            num_labels=10,
        ),
        _PIXELS,
    ),
    # GridSample at places that come out of the network, which chooses among all pixels first.
    "rtdetr": Extra(
        _picture(
            "RTDetrForObjectDetection",
            "RTDetrConfig",
            outputs=("logits", "pred_boxes"),
            backbone_config=_small_resnet,
            d_model=32,
            encoder_in_channels=[24, 32, 48],
            encoder_hidden_dim=32,
            decoder_in_channels=[32, 32, 32],
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            decoder_layers=2,
            decoder_n_points=2,
            num_queries=10,
            num_denoising=0,
            num_labels=5,
        ),
        _PIXELS,
    ),
    # Windows, shifted, over a grid that they do not fill.
    "swin": Extra(
        _picture(
            "SwinForImageClassification",
            "SwinConfig",
            outputs=("logits",),
            attn_implementation="eager",
            image_size=64,
            patch_size=4,
            embed_dim=24,
            depths=[2, 2],
            num_heads=[2, 3],
            window_size=7,
            mlp_ratio=2.0,
            num_labels=10,
        ),
        _normal((1, 3, 68, 92)),
    ),
    # A norm over the whole picture.
    "convnextv2": Extra(
        _picture(
            "ConvNextV2ForImageClassification",
            "ConvNextV2Config",
            outputs=("logits",),
            hidden_sizes=[16, 24, 32, 48],
            depths=[1, 1, 2, 1],
            num_labels=10,
        ),
        _PIXELS,
    ),
    # Attention with its own bias, strides and batch normalisation.
    "levit": Extra(
        _picture(
            "LevitForImageClassification",
            "LevitConfig",
            outputs=("logits",),
            image_size=64,
            hidden_sizes=[32, 48, 64],
            num_attention_heads=[2, 3, 4],
            depths=[1, 1, 1],
            key_dim=[8, 8, 8],
            mlp_ratio=[2, 2, 2],
            num_labels=10,
        ),
        _PIXELS,
        17,
        True,
    ),
    # Buckets of relative positions.
    "t5": Extra(
        _library(
            "T5EncoderModel",
            "T5Config",
            ("input_ids", "attention_mask"),
            ("last_hidden_state",),
            attn_implementation="eager",
            vocab_size=96,
            d_model=48,
            d_kv=12,
            d_ff=64,
            num_layers=2,
            num_heads=4,
        ),
        _padded_tokens,
    ),
    # Sigmoid scores, groups of experts, the best groups first.
    "deepseekv3": Extra(
        _text(
            "DeepseekV3ForCausalLM",
            "DeepseekV3Config",
            **_LM,
            n_routed_experts=8,
            n_shared_experts=1,
            first_k_dense_replace=1,
            kv_lora_rank=16,
            q_lora_rank=24,
            qk_nope_head_dim=12,
            qk_rope_head_dim=8,
            v_head_dim=16,
            n_group=4,
            topk_group=2,
        ),
        _tokens,
    ),
}


# ---- making them ----


def _traced(
    net: nn.Module, args: tuple[Tensor, ...], inputs: list[str], outputs: list[str], opset: int
) -> onnx.ModelProto:
    """What the exporter makes that follows one run of the network."""
    file = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            args,
            file,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=opset,
            input_names=inputs,
            output_names=outputs,
        )
    return onnx.load_from_string(file.getvalue())


def _differ(results: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> float:
    """The largest difference of float32 results, relative to each output's largest value."""
    worst = 0.0
    for got, want in zip(results, exact, strict=True):
        if not want.is_floating_point():
            worst = max(worst, 0.0 if torch.equal(got, want) else math.inf)
        elif want.numel():
            difference = (got.double() - want.double()).abs().max() / want.double().abs().max()
            worst = max(worst, float(difference))
    return worst


def _references(net: nn.Module, args: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], float]:
    """The outputs in float64, and how far float32 is from them."""

    def run(kind: torch.dtype) -> tuple[Tensor, ...]:
        wanted = tuple(a.to(kind) if a.is_floating_point() else a for a in args)
        return copy.deepcopy(net).to(kind)(*wanted)

    with torch.no_grad():
        single = run(torch.float32)
        with Float64():
            wide = run(torch.float64)
    return wide, _differ(single, wide)


def _as_declared(model: onnx.ModelProto, results: tuple[Tensor, ...]) -> dict[str, Array]:
    """Results by output name and of the outputs' types."""
    wanted: dict[str, Array] = {}
    for output, result in zip(model.graph.output, results, strict=True):
        dtype = onnx.helper.tensor_dtype_to_np_dtype(output.type.tensor_type.elem_type)
        wanted[output.name] = result.numpy().astype(dtype)
    return wanted


def make(name: str) -> Network:
    """The network with its inputs and float64 outputs."""
    extra = NETS[name]
    seed = zlib.crc32(name.encode())
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = _Flat(extra.build()).eval()
    dtypes = {k: v.dtype for k, v in net.state_dict().items()}
    randomise(net, generator)
    for key, value in [*net.named_parameters(), *net.named_buffers()]:
        value.data = value.data.to(dtypes.get(key, value.dtype))
    for _ in range(20):
        args = extra.draw(generator)
        results, error = _references(net, args)
        if error < AGREEMENT:
            break
    else:
        raise RuntimeError(f"{name}: float32 is {error:.1e} from float64")
    inputs = [f"in{i}" for i in range(len(args))]
    outputs = [f"out{i}" for i in range(len(results))]
    exporter = _traced if extra.traced else export.to_onnx
    model = exporter(net, args, inputs, outputs, extra.opset)
    export.strip(model)
    given: dict[str, Array] = {k: np.asarray(v.numpy()) for k, v in zip(inputs, args, strict=True)}
    kept = {i.name for i in model.graph.input}
    return Network(model, [({k: v for k, v in given.items() if k in kept}, _as_declared(model, results))])
