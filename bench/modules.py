"""What the networks of models.py are made of beyond M3ViT's own modules: here alone, so that loading a pickled network does
not load what only its export needs. training/ must be on the path."""

from __future__ import annotations

from m3vit.model import M3ViT, MoE
from torch import Tensor, nn


class InOrder(nn.Module):
    """Outputs by name as a tuple."""

    def __init__(self, net: M3ViT) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.net(image).values())


class Layer(nn.Module):
    """A mixture of experts and nothing else."""

    def __init__(self, moe: MoE) -> None:
        super().__init__()
        self.moe = moe

    def forward(self, x: Tensor) -> Tensor:
        return self.moe(x, 0)
