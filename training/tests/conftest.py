from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from m3vit import M3ViT, M3ViTConfig, Task

torch.set_num_threads(1)

MICRO: dict[str, Any] = {
    "height": 48,
    "width": 64,
    "dim": 24,
    "heads": 2,
    "blocks": 4,
    "experts": 4,
    "top_k": 2,
    "mlp_ratio": 2.0,
    "head_width": 8,
    "tasks": (Task("semseg", 3), Task("depth", 1)),
}


@pytest.fixture(scope="session")
def micro() -> Any:
    """A function that makes a micro network whose every parameter matters."""

    def make(seed: int = 0, **overrides: Any) -> M3ViT:
        model = M3ViT(M3ViTConfig(**{**MICRO, **overrides}))
        generator = torch.Generator().manual_seed(seed)
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if "norm" in name or ".bn." in name:
                p.data = noise * 0.2 + (1.0 if name.endswith("weight") else 0.0)
            elif p.dim() < 2 or name.endswith("bias"):
                p.data = noise * 0.1
            else:
                p.data = noise / math.sqrt(p.shape[-1] if p.dim() == 3 else p[0].numel())
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.copy_(torch.randn(b.shape, generator=generator) * 0.3)
            elif name.endswith("running_var"):
                b.copy_(0.5 + torch.rand(b.shape, generator=generator))
        return model.eval()

    return make
