"""Heads of convolutional networks: maps of a backbone in, a prediction of the largest map's size out.

M3ViT's own head, which sees tokens, is in model.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from m3vit.backbones import conv_bn, resize


def join(maps: Sequence[Tensor]) -> Tensor:
    """All maps at the size of the first, their channels in a row."""
    return torch.cat([resize(x, maps[0].shape[-2:]) for x in maps], 1) if len(maps) > 1 else maps[0]


class HRNetHead(nn.Module):
    """HRNetV2's: the maps joined, and two 1x1 convolutions."""

    def __init__(self, channels: Sequence[int], out: int) -> None:
        super().__init__()
        total = sum(channels)
        self.layers = nn.Sequential(conv_bn(total, total, 1), nn.Conv2d(total, out, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.layers(join(maps))


class DeepLabHead(nn.Module):
    """DeepLabV3's (https://arxiv.org/abs/1706.05587): dilated convolutions side by side, and one after them.

    Their dilations are 12, 24 and 36 on a map of stride 8, and so in proportion: they see the same picture.
    """

    def __init__(self, channels: Sequence[int], out: int, stride: int = 8, width: int = 256) -> None:
        super().__init__()
        total, rate = sum(channels), max(1, 96 // stride)
        self.branches = nn.ModuleList(
            [conv_bn(total, width, 1), *(conv_bn(total, width, 3, dilation=i * rate) for i in (1, 2, 3))]
        )
        self.whole = conv_bn(total, width, 1)  # of the mean over the map
        self.project = nn.Sequential(conv_bn(5 * width, width, 1), nn.Dropout(0.5))
        self.predict = nn.Sequential(conv_bn(width, width, 3), nn.Conv2d(width, out, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x = join(maps)
        mean = self.whole(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        seen = [branch(x) for branch in self.branches]
        return self.predict(self.project(torch.cat([*seen, mean], 1)))
