"""Random weights under which every layer of a network matters.

A library's own initialisation (weights of std 0.02, norms that are the
identity) would hide a wrong kernel behind values close to zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def randomise(net: nn.Module, generator: torch.Generator) -> None:
    """Redraws every parameter and statistic at the scale its layer keeps activations at."""

    def normal(shape: torch.Size, std: float) -> Tensor:
        return torch.randn(shape, generator=generator) * std

    norms = {
        id(p)
        for module in net.modules()
        if "norm" in type(module).__name__.lower()
        for p in [getattr(module, "weight", None)]
        if p is not None
    }
    embeddings = {id(m.weight) for m in net.modules() if isinstance(m, nn.Embedding)}
    for name, p in net.named_parameters():
        leaf = name.rsplit(".", 1)[-1]
        if id(p) in norms:
            p.data = 1 + normal(p.shape, 0.2)
        elif id(p) in embeddings or "token" in leaf or "embedding" in leaf:
            p.data = normal(p.shape, 0.5)
        elif leaf == "logit_scale":
            p.data = p.data + normal(p.shape, 0.2)
        elif leaf.endswith("bias"):
            p.data = normal(p.shape, 0.1)
        elif p.dim() >= 2:  # of rank 3: matrices stacked by expert
            fan_in = p[0].numel() if p.dim() != 3 else p.shape[-1]
            p.data = normal(p.shape, 1 / math.sqrt(fan_in))
        else:  # layer scales
            p.data = 0.5 + normal(p.shape, 0.2)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean = normal(module.running_mean.shape, 0.3)
            module.running_var = 0.5 + torch.rand(module.running_var.shape, generator=generator)
