"""Small PyTorch modules with a mixture-of-experts layer, each in a style of its own."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from moe_layer import MARGIN, OPSET, write_data
from torch import nn


class Expert(nn.Module):
    def __init__(self, h: int, i: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(h, i), nn.Linear(i, h)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(nn.functional.gelu(self.up(x)))
        return y


class Base(nn.Module):
    def __init__(self, h: int = 6, i: int = 5, e: int = 4, k: int = 2) -> None:
        super().__init__()
        self.k, self.e = k, e
        self.gate = nn.Linear(h, e, bias=False)
        self.experts = nn.ModuleList(Expert(h, i) for _ in range(e))

    def choose(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.topk(torch.softmax(self.gate(x), -1), self.k, dim=-1)


class IndexAdd(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, index = self.choose(x)
        out = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            token, slot = torch.where(index == e)
            out.index_add_(0, token, expert(x[token]) * weight[token, slot, None])
        return out


class OneHot(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        flat = x.view(-1, width)
        weight, index = self.choose(flat)
        weight = weight / weight.sum(-1, keepdim=True)
        hot = nn.functional.one_hot(index, self.e).permute(2, 1, 0)
        out = torch.zeros_like(flat)
        for e, expert in enumerate(self.experts):
            slot, token = torch.where(hot[e])
            state = expert(flat[None, token].reshape(-1, width)) * weight[token, slot, None]
            out.index_add_(0, token, state)
        return out.reshape(batch, length, width)


class ReadAddWrite(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, index = self.choose(x)
        out = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            token, slot = torch.where(index == e)
            out[token] = out[token] + weight[token, slot].unsqueeze(1) * expert(x[token])
        return out


class Scattered(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, index = torch.topk(self.gate(x), self.k, dim=-1)
        table = torch.full_like(self.gate(x), float("-inf")).scatter(-1, index, weight).softmax(-1)
        out = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            out = out + table[..., e : e + 1] * expert(x)
        return out


class Einsum(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, index = self.choose(x)
        table = torch.zeros(*x.shape[:-1], self.e).to(x).scatter(-1, index, weight)
        every = torch.stack([expert(x) for expert in self.experts], dim=-2)
        return torch.einsum("te,teh->th" if x.dim() == 2 else "bte,bteh->bth", table, every)


class EinsumWeights(Base):
    """Experts as tensors, all computed by einsum and combined by one-hot dispatch."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(self.e, 5, 6) / 2)
        self.w2 = nn.Parameter(torch.randn(self.e, 6, 5) / 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, index = self.choose(x)
        table = (nn.functional.one_hot(index, self.e).to(x) * weight.unsqueeze(-1)).sum(-2)
        hidden = nn.functional.gelu(torch.einsum("th,eih->tei", x, self.w1))
        every = torch.einsum("tei,ehi->teh", hidden, self.w2)
        return torch.einsum("te,teh->th", table, every)


class Picked(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, index = self.choose(x)
        every = torch.stack([expert(x) for expert in self.experts], dim=1)
        picked = torch.gather(every, 1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        return (picked * weight.unsqueeze(-1)).sum(1)


class WeightsGathered(Base):
    def __init__(self) -> None:
        super().__init__()
        self.up_w = nn.Parameter(torch.randn(self.e, 5, 6) / 2)
        self.up_b = nn.Parameter(torch.randn(self.e, 5) / 2)
        self.down_w = nn.Parameter(torch.randn(self.e, 6, 5) / 2)
        self.down_b = nn.Parameter(torch.randn(self.e, 6) / 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, index = self.choose(x)
        hidden = torch.einsum("th,tkih->tki", x, self.up_w[index]) + self.up_b[index]
        y = torch.einsum("tki,tkhi->tkh", nn.functional.gelu(hidden), self.down_w[index]) + self.down_b[index]
        return torch.einsum("tk,tkh->th", weight, y)


class Switch(Base):
    def __init__(self) -> None:
        super().__init__(k=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, index = self.choose(x)
        out = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            hit = index == e
            out = out + torch.where(hit, weight * expert(x), torch.zeros_like(x))
        return out


class Windowed(Base):
    """Experts 1 and 2 only, as for one task."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, index = torch.topk(torch.softmax(self.gate(x), -1)[:, 1:4], self.k, dim=-1)
        index = index + 1
        out = torch.zeros_like(x)
        for e in range(1, 4):
            token, slot = torch.where(index == e)
            out.index_add_(0, token, self.experts[e](x[token]) * weight[token, slot, None])
        return out


def torch_cases(out: Path) -> dict[str, int]:
    """Exports all of them; expected outputs from the module in float64."""
    counts = {}
    for kind, shape in [
        (IndexAdd, (7, 6)),
        (OneHot, (2, 5, 6)),
        (ReadAddWrite, (7, 6)),
        (Scattered, (7, 6)),
        (Scattered, (2, 5, 6)),
        (Einsum, (7, 6)),
        (Einsum, (2, 5, 6)),
        (EinsumWeights, (7, 6)),
        (Picked, (7, 6)),
        (WeightsGathered, (7, 6)),
        (Switch, (7, 6)),
        (Windowed, (7, 6)),
    ]:
        name = f"torch_{kind.__name__}_{len(shape)}d"
        for seed in range(100):
            torch.manual_seed(seed)
            module = kind().eval()
            x = torch.randn(*shape)
            logits = module.gate(x).sort(-1).values
            if (logits[..., 1:] - logits[..., :-1]).min() > MARGIN:
                break
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            program = torch.onnx.export(module, (x,), dynamo=True, opset_version=OPSET, verbose=False)
            assert program is not None
            program.save(str(folder / "model.onnx"))
            expected = module.double()(x.double()).numpy()
        write_data(folder, onnx.load(folder / "model.onnx"), x.numpy(), expected)
        counts[name] = 1
    return counts
