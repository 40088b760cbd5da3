"""The mixture of experts: a router scores the experts for each token, and the token goes to its k best.

Options, by the names that M3ViTConfig has for them:

- gate: noisy_vmoe takes the softmax over all experts and then the k best, whose weights sum to less than 1; noisy takes
  the k best and then the softmax over those.
- routing: a router per task (multi), one that is told the task by a vector (conditioned), one for all alike (shared).
- regu_experts_fromtask: task t may use only the window of num_experts_pertask experts from config.window_start(t) on.
- expert_prune: of the chosen experts those whose weight is not over prune_threshold are dropped; the others' weights
  stay as they are.
- gate_input_ahead: the router sees what entered the block, in place of what the experts see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from m3vit.model import M3ViTConfig

CLOSED = -1e30  # score of an expert that cannot be chosen: its exponential is 0, and no arithmetic makes it NaN


class Router(nn.Module):
    """Scores of the experts for each token: x W, one W per task or for all, or [x, t] W for a task vector t.

    In training the scores get noise, so that every expert is tried: of fixed size for noisy_vmoe, of a size learned
    from the token for noisy.
    """

    def __init__(self, config: M3ViTConfig) -> None:
        super().__init__()
        self.noise_std = config.noise_std / config.open_experts
        self.own = config.routing == "multi"
        copies = len(config.tasks) if self.own else 1
        width = config.dim + config.vector_width
        self.gates = nn.ModuleList(nn.Linear(width, config.experts, bias=False) for _ in range(copies))
        self.noise = (
            nn.ModuleList(nn.Linear(width, config.experts, bias=False) for _ in range(copies))
            if config.gate == "noisy"
            else None
        )
        self.slices = [slice(None)] * len(config.tasks)  # which experts a task may use
        self.windows: Tensor | None  # [tasks, E]: 0, or CLOSED
        closed = None
        if config.regu_experts_fromtask:
            starts = [config.window_start(t) for t in range(len(config.tasks))]
            self.slices = [slice(start, start + config.num_experts_pertask) for start in starts]
            closed = torch.full((len(starts), config.experts), CLOSED)
            for row, window in zip(closed, self.slices, strict=True):
                row[window] = 0
        self.register_buffer("windows", closed, persistent=False)

    def forward(self, x: Tensor, task: int | Tensor, vector: Tensor | None) -> Tensor:
        """Scores [T, E] of tokens [T, dim], without noise. task: its number, as int64 [1] if it is an input."""
        logits = self._linear(self.gates, x, task, vector)
        return logits if self.windows is None else logits + self.windows[task]

    def spread(self, x: Tensor, task: int | Tensor, vector: Tensor | None) -> Tensor:
        """Standard deviation of the noise that training adds to the scores: [T, E] or [1, 1]."""
        if self.noise is None:
            return torch.full((1, 1), self.noise_std, dtype=x.dtype, device=x.device)
        return F.softplus(self._linear(self.noise, x, task, vector)) + 1e-2

    def _linear(self, gates: nn.ModuleList, x: Tensor, task: int | Tensor, vector: Tensor | None) -> Tensor:
        gate = gates[int(task) if self.own else 0]
        if vector is None:
            return gate(x)
        # [x, t] W = x W_x + t W_t, and t W_t is the same for every token.
        weight = gate.weight
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
        self.threshold = config.prune_threshold if config.expert_prune else 0.0
        self.router = Router(config)
        self.experts = Experts(config.experts, config.dim, int(config.dim * config.expert_ratio))
        self.mix: Callable[[MoE, Tensor, Tensor], Tensor] = routed
        self.balance_loss: Tensor | None = None  # of one training pass, summed over tasks
        self.total: Callable[[Tensor], Tensor] = _alone  # over processes that share a batch

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and indices [T, k] of the experts of each token; a pruned one has the weight 0."""
        weights, index = self.best(logits)
        if self.threshold > 0:
            weights = torch.where(weights > self.threshold, weights, 0.0)
        return weights, index

    def best(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The same before pruning."""
        if self.gate == "noisy":
            scores, index = logits.topk(self.top_k, dim=-1)
            return scores.softmax(dim=-1), index
        return logits.softmax(dim=-1).topk(self.top_k, dim=-1)  # not renormalised

    def forward(
        self, x: Tensor, task: int | Tensor, vector: Tensor | None = None, ahead: Tensor | None = None
    ) -> Tensor:
        """x: [B, N, dim]. task: its number. vector: [1, its width]. ahead: what the router sees, if not x."""
        rows = x.flatten(0, 1)
        seen = rows if ahead is None else ahead.flatten(0, 1)
        logits = self.router(seen, task, vector)
        if self.training:
            spread = self.router.spread(seen, task, vector)
            noisy = logits + spread * torch.randn_like(logits)
            window = self.router.slices[int(task)]
            loss = self._balance(*(t if t.shape[1] == 1 else t[:, window] for t in (logits, noisy, spread)))
            self.balance_loss = loss if self.balance_loss is None else self.balance_loss + loss
            logits = noisy
        return self.mix(self, rows, logits).view_as(x)

    def _balance(self, clean: Tensor, noisy: Tensor, spread: Tensor) -> Tensor:
        """cv²(importance) + cv²(load): the sum of weights and the number of tokens per expert.

        A number of tokens has no gradient. Its smooth stand-in is the chance that an expert would be among the k best
        if its noise were drawn again.
        """
        clean, noisy, spread = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (clean, noisy, spread))
        weights, index = self.best(noisy)
        importance = torch.zeros_like(clean).scatter(1, index, weights).sum(0)
        if self.top_k == clean.shape[1] or float(spread.detach().max()) == 0.0:
            load = torch.zeros_like(clean).scatter(1, index, 1.0).sum(0)
        else:
            best = noisy.topk(self.top_k + 1, dim=-1).values
            inside = noisy > best[:, self.top_k :]
            threshold = torch.where(inside, best[:, self.top_k :], best[:, self.top_k - 1 : self.top_k])
            load = torch.special.ndtr((clean - threshold) / spread).sum(0)
        return _cv_squared(self.total(importance)) + _cv_squared(self.total(load))


def _alone(x: Tensor) -> Tensor:
    return x


def _cv_squared(x: Tensor) -> Tensor:
    """The squared coefficient of variation, 0 when all are equal."""
    if x.numel() == 1:
        return x.new_zeros(())
    return x.var() / (x.mean() ** 2 + 1e-10)


# --------------------------------------------------------------------------------------
# Ways to compute the same sum


def routed(moe: MoE, x: Tensor, logits: Tensor) -> Tensor:
    """Sum over experts in ascending order; each sees only the tokens that chose it."""
    weights, index = moe.choose(logits)
    if moe.threshold > 0:
        index = index.masked_fill(weights == 0, -1)
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
