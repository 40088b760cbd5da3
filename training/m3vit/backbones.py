"""What turns a picture into maps: dilated ResNets, HRNets, a dense ViT.

The residual layers, and the ResNets made of them, are those of the transformers library; here they are dilated, and
HRNet (Wang et al., 2019, https://arxiv.org/abs/1908.07919) is put together from them. Weights can be read from files
that others publish, see `load_pretrained`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ResNetConfig, ResNetModel
from transformers.models.resnet.modeling_resnet import ResNetBasicLayer, ResNetBottleNeckLayer

from m3vit.model import M3ViT, M3ViTConfig
from m3vit.pretrained import PretrainedError, read

__all__ = ["Backbone", "HRNet", "ResNet", "ResNetBasicLayer", "ResNetBottleNeckLayer", "ViT", "conv_bn", "resize"]


class Backbone(nn.Module):
    """forward: image [B, 3, H, W] -> maps [B, channels[i], H / strides[i], W / strides[i]], the largest first."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1, relu: bool = True) -> nn.Module:
    """Convolution that keeps the size (but for its stride), batch normalisation and, if wanted, ReLU."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([nn.ReLU()] if relu else []))


def resize(x: Tensor, size: Iterable[int]) -> Tensor:
    """Bilinear, by the centres of pixels."""
    size = list(size)
    return x if list(x.shape[-2:]) == size else F.interpolate(x, size, mode="bilinear", align_corners=False)


def add(terms: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, terms)


# --------------------------------------------------------------------------------------
# ResNet

RESNETS = {18: ("basic", 1, [2, 2, 2, 2]), 50: ("bottleneck", 4, [3, 4, 6, 3])}  # layers, their widening, depths


class ResNet(Backbone):
    """ResNet-18 or -50, one map; late stages dilate their convolutions in place of taking strides.

    The map of an output stride of 8 or 16 holds the one of 32 as its every fourth or second row and column: the
    weights mean the same, so those of a classifier (output stride 32) can be loaded.
    """

    def __init__(self, depth: int = 18, output_stride: int = 8, width: int = 64) -> None:
        super().__init__()
        kind, expansion, depths = RESNETS[depth]
        sizes = [expansion * width * 2**i for i in range(4)]
        net = ResNetModel(ResNetConfig(embedding_size=width, hidden_sizes=sizes, depths=depths, layer_type=kind))
        self.stages = nn.ModuleList([net.embedder, *net.encoder.stages])
        for stage, stride in zip(self.stages, (4, 4, 8, 16, 32), strict=True):
            if stride > output_stride:
                dilate(stage, stride // output_stride)
        self.stage_channels = (width, *sizes)
        self.stage_strides = tuple(min(s, output_stride) for s in (4, 4, 8, 16, 32))
        self.channels, self.strides = self.stage_channels[-1:], self.stage_strides[-1:]

    def forward(self, image: Tensor) -> list[Tensor]:
        x = image
        for stage in self.stages:
            x = stage(x)
        return [x]

    def around_last(self, stage: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """What a stage's last layer sees, and what it makes of that."""
        layers = self.stages[stage].layers
        assert isinstance(layers, nn.Sequential)
        before = layers[:-1](x)
        return before, layers[-1](before)


def dilate(stage: nn.Module, dilation: int) -> None:
    """Gives up the stage's stride; its kernels see what they would have seen, a map `dilation` times as dense."""
    for conv in stage.modules():
        if isinstance(conv, nn.Conv2d):
            before = conv.stride == (2, 2)  # sees the previous stage's map
            conv.stride = (1, 1)
            if conv.kernel_size == (3, 3):
                step = dilation // 2 if before else dilation
                conv.dilation, conv.padding = (step, step), (step, step)


# --------------------------------------------------------------------------------------
# HRNet


class HRNet(Backbone):
    """HRNet: four maps, of strides 4 to 32, computed side by side and exchanged again and again.

    W18-C is the default; W18-small-v2, which Multi-Task-Learning-PyTorch takes, has modules (1, 3, 2) of 2 blocks.
    """

    def __init__(self, width: int = 18, modules: Sequence[int] = (1, 4, 3), blocks: int = 4) -> None:
        super().__init__()
        channels = tuple(width * 2**i for i in range(4))
        stem = min(64, 4 * width)
        self.stem = nn.Sequential(conv_bn(3, stem, 3, stride=2), conv_bn(stem, stem, 3, stride=2))
        self.layer1 = nn.Sequential(
            *(ResNetBottleNeckLayer(stem if i == 0 else 4 * stem, 4 * stem) for i in range(blocks))
        )
        self.transitions = nn.ModuleList()
        self.stages = nn.ModuleList()
        before: tuple[int, ...] = (4 * stem,)
        for number, count in enumerate(modules, 2):
            now = channels[:number]
            self.transitions.append(Transition(before, now))
            self.stages.append(nn.Sequential(*(Exchange(now, blocks) for _ in range(count))))
            before = now
        self.channels, self.strides = channels, (4, 8, 16, 32)

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = [self.layer1(self.stem(image))]
        for transition, stage in zip(self.transitions, self.stages, strict=True):
            maps = stage(transition(maps))
        return maps


class Transition(nn.ModuleList):
    """One map more, half as large as the smallest; the others get the channels they should have."""

    def __init__(self, before: Sequence[int], now: Sequence[int]) -> None:
        kept = [nn.Identity() if b == n else conv_bn(b, n, 3) for b, n in zip(before, now, strict=False)]
        super().__init__([*kept, nn.Sequential(conv_bn(before[-1], now[-1], 3, stride=2))])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self, [*maps, maps[-1]], strict=True)]


class Exchange(nn.Module):
    """Residual layers on each map, then every map becomes the sum of all, brought to its size."""

    def __init__(self, channels: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(ResNetBasicLayer(c, c) for _ in range(blocks))) for c in channels)
        places = range(len(channels))
        self.fuse_layers = nn.ModuleList(nn.ModuleList(_path(channels, j, i) for j in places) for i in places)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        out = []
        for own, paths in zip(maps, self.fuse_layers, strict=True):
            pairs = zip(cast(nn.ModuleList, paths), maps, strict=True)
            out.append(F.relu(add([resize(path(x), own.shape[-2:]) for path, x in pairs])))
        return out


def _path(channels: Sequence[int], start: int, end: int) -> nn.Module:
    """From one map to another: a 1x1 convolution upwards (the caller resizes), strided 3x3 ones downwards."""
    if start == end:
        return nn.Identity()
    if start > end:
        return conv_bn(channels[start], channels[end], 1, relu=False)
    steps = [conv_bn(channels[start], channels[start], 3, stride=2) for _ in range(end - start - 1)]
    return nn.Sequential(*steps, conv_bn(channels[start], channels[end], 3, stride=2, relu=False))


# --------------------------------------------------------------------------------------
# ViT


class ViT(Backbone):
    """A vision transformer whose blocks are dense, or have experts that all tasks choose alike; its tokens as a map."""

    def __init__(self, config: M3ViTConfig) -> None:
        super().__init__()
        assert config.once, "one map serves all tasks"
        self.net = M3ViT(replace(config, decoder="none"))
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.channels, self.strides = (config.dim,), (config.patch,)

    def forward(self, image: Tensor) -> list[Tensor]:
        config = self.net.config
        tokens = next(iter(self.net(image).values()))
        x = self.norm(tokens[:, config.prefix :])
        return [x.transpose(1, 2).reshape(x.shape[0], -1, *config.grid)]


# --------------------------------------------------------------------------------------
# Weights of others

IN_A_LAYER = (
    (r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.convolution."),
    (r"\.bn(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.normalization."),
    (r"\.downsample\.0\.", ".shortcut.convolution."),
    (r"\.downsample\.1\.", ".shortcut.normalization."),
)
RENAMED = {
    ResNet: (
        (r"^resnet\.", ""),  # as the transformers library names them
        (r"^embedder\.", "stages.0."),
        (r"^encoder\.stages\.(\d)", lambda m: f"stages.{int(m[1]) + 1}"),
        (r"^conv1\.", "stages.0.embedder.convolution."),  # as torchvision names them
        (r"^bn1\.", "stages.0.embedder.normalization."),
        (r"^layer(\d)\.", r"stages.\1.layers."),
        *IN_A_LAYER,
    ),
    HRNet: (  # as its authors name them
        (r"^conv(\d)\.", lambda m: f"stem.{int(m[1]) - 1}.0."),
        (r"^bn(\d)\.", lambda m: f"stem.{int(m[1]) - 1}.1."),
        (r"^transition(\d)\.", lambda m: f"transitions.{int(m[1]) - 1}."),
        (r"^stage(\d)\.", lambda m: f"stages.{int(m[1]) - 2}."),
        *IN_A_LAYER,
    ),
}


def own_name(kind: type[Backbone], name: str) -> str:
    """The name here of a parameter in such a file."""
    for pattern, new in RENAMED[kind]:
        name = re.sub(pattern, new, name)
    return name


def load_pretrained(backbone: ResNet | HRNet, path: str | Path) -> None:
    """From a state_dict of torchvision's, the transformers library's or HRNet's authors'; a classifier is left out."""
    own = backbone.state_dict()
    given = {own_name(type(backbone), name): tensor for name, tensor in read(path).items()}
    found = {name: tensor for name, tensor in given.items() if name in own}
    missing = [name for name in own if name not in found and not name.endswith("num_batches_tracked")]
    if missing:
        raise PretrainedError(f"{path} has not all of the backbone's weights: {missing[0]} is missing")
    wrong = [name for name, tensor in found.items() if tensor.shape != own[name].shape]
    if wrong:
        name = wrong[0]
        raise PretrainedError(f"{path}: {name} has shape {list(found[name].shape)}, not {list(own[name].shape)}")
    backbone.load_state_dict(found, strict=False)
