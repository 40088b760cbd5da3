"""Data parallel and expert parallel training on torch.distributed; gloo on processors, nccl on graphics cards.

Every process sees its share of each batch. Data parallel: all hold all weights, and gradients are averaged. Expert
parallel: each holds only its experts (number e // (E / processes)); a mixture sends each token to the processes of its
experts and gets the results back, all to all, as fastmoe does, and the gradients of experts need no exchange.

What is not a mean over pictures is made so that the processes together do what one would do with the whole batch: the
statistics of batch normalisation, the number of pixels that a loss is divided by (losses.py), and the balance of the
experts. Every process must call the same functions in the same order, in evaluation too: experts may be elsewhere.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from m3vit.losses import at_least_float32
from m3vit.moe import MoE

CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """The processes that train together."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        return self.rank == 0

    def mean(self, x: Tensor) -> Tensor:
        """Over the processes, without a gradient."""
        if self.size == 1:
            return x
        x = x.detach().clone()
        dist.all_reduce(x)
        return x / self.size

    def total(self, x: Tensor) -> Tensor:
        """The sum over the processes, through which gradients flow."""
        return x if self.size == 1 else _Total.apply(x)  # type: ignore[no-untyped-call]

    def gather(self, x: Tensor) -> list[Tensor]:
        """What each process has, in their order; all of the same shape."""
        if self.size == 1:
            return [x]
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(parts, x.contiguous())
        return parts

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


class _Total(torch.autograd.Function):
    """The sum over processes; each one's loss depends on it, so what comes back is summed as well."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


@contextlib.contextmanager
def world() -> Iterator[World]:
    """The processes that torchrun has started; one, if it has not."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if size == 1:
        yield World(device=device)
        return
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield World(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()


# --------------------------------------------------------------------------------------
# Data


def shard_batch(count: int, world: World) -> range:
    """Which of a batch's pictures this process sees."""
    return range(count * world.rank // world.size, count * (world.rank + 1) // world.size)


def broadcast(model: nn.Module, world: World) -> None:
    """All processes begin with the weights of the first."""
    if world.size > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


def average_gradients(model: nn.Module, world: World) -> None:
    """Over the processes. A process's own experts have gradients from the tokens of all of them already."""
    if world.size == 1:
        return
    own = own_experts(model)
    for p in own:
        if p.grad is not None:
            p.grad /= world.size
    others = {id(p) for p in own}
    shared = [p for p in model.parameters() if p.requires_grad and id(p) not in others]
    used = torch.tensor([float(p.grad is not None) for p in shared], device=world.device)
    used = world.mean(used)  # a weight that one process has not used may be used in another
    shared = [p for p, share in zip(shared, used.tolist(), strict=True) if share > 0]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in shared]
    # 0, or NaN if an own expert's gradient is not finite: float16 then has to leave out the step everywhere.
    fault = sum((p.grad.sum() * 0 for p in own if p.grad is not None), torch.zeros((), device=world.device))
    flat = world.mean(torch.cat([fault.view(1), *(g.flatten() for g in grads)]))
    fault, *parts = torch.split(flat, [1, *(g.numel() for g in grads)])
    for p, part in zip(shared, parts, strict=True):
        p.grad = part.view_as(p) + fault


def gradient_norm(model: nn.Module, world: World) -> float:
    """The norm of all gradients, experts everywhere included; the same in all processes."""
    own = {id(p) for p in own_experts(model)}
    squares = torch.zeros(2, dtype=torch.float64, device=world.device)
    for p in model.parameters():
        if p.grad is not None:
            squares[int(id(p) in own)] += p.grad.square().sum(dtype=torch.float64)
    return float((squares[0] + world.mean(squares[1]) * world.size).sqrt())


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all processes' pictures. (torch's own wants a graphics card.)"""

    world = World()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        kind, x = x.dtype, at_least_float32(x)
        axes = (0, 2, 3)
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = self.world.total(torch.cat([x.sum(axes), count]))
        count = sums[-1:].detach()
        mean = sums[:-1] / count
        centred = x - mean[:, None, None]
        variance = self.world.total(centred.square().sum(axes)) / count
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            rate = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(variance * (count / (count - 1)), rate)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(kind)


def share_statistics(model: nn.Module, world: World) -> None:
    """Every batch normalisation and every balance of experts takes the statistics of all processes."""
    if world.size == 1:
        return
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            shared: Any = module
            shared.__class__, shared.world = SharedBatchNorm, world
        elif isinstance(module, MoE):
            module.total = world.total


# --------------------------------------------------------------------------------------
# Experts


class _Exchange(torch.autograd.Function):
    """Rows to all processes: the first send[0] to process 0, and so on. Gradients go back the same way."""

    @staticmethod
    def forward(ctx, x: Tensor, send: list[int], receive: list[int]) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.send, ctx.receive = send, receive
        return _exchange(x, send, receive)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        return _exchange(grads[0], ctx.receive, ctx.send), None, None


def _exchange(x: Tensor, send: list[int], receive: list[int]) -> Tensor:
    out = x.new_empty((sum(receive), *x.shape[1:]))
    dist.all_to_all_single(out, x.contiguous(), receive, send)
    return out


@dataclass(frozen=True)
class Sharded:
    """In place of `routed`: the experts are those of all processes, and each has as many of them, in their order."""

    world: World

    def __call__(self, moe: MoE, x: Tensor, logits: Tensor) -> Tensor:
        size, own = self.world.size, moe.count // self.world.size
        weights, index = moe.choose(logits)
        order = index.flatten().argsort(stable=True)  # (token, slot) pairs, by expert
        token = order // index.shape[1]
        tokens = torch.bincount(index.flatten(), minlength=moe.count)  # of each expert
        coming = torch.empty_like(tokens)  # [process, own expert]
        dist.all_to_all_single(coming, tokens)
        send = tokens.view(size, own).sum(1).tolist()
        receive = coming.view(size, own).sum(1).tolist()
        rows = _Exchange.apply(x[token], send, receive)  # type: ignore[no-untyped-call]

        expert = torch.arange(own, device=x.device).repeat(size).repeat_interleave(coming)
        by_expert = expert.argsort(stable=True)
        parts = rows[by_expert].split(torch.bincount(expert, minlength=own).tolist())
        done = torch.cat([moe.experts(part, e).to(x.dtype) for e, part in enumerate(parts)])
        results = _Exchange.apply(done[by_expert.argsort()], receive, send)  # type: ignore[no-untyped-call]
        weighted = weights.to(x.dtype).flatten()[order, None] * results
        return torch.zeros_like(x).index_add(0, token, weighted)


def own_experts(model: nn.Module) -> list[nn.Parameter]:
    """The weights that only this process has."""
    layers = [m for m in model.modules() if isinstance(m, MoE) and isinstance(m.mix, Sharded)]
    return [p for moe in layers for p in moe.experts.parameters()]


def shard_experts(model: nn.Module, world: World) -> None:
    """Every process keeps only its experts."""
    for moe in model.modules():
        if not isinstance(moe, MoE) or world.size == 1:
            continue
        if moe.count % world.size:
            raise ValueError(
                f"{moe.count} experts cannot be shared evenly by {world.size} processes; "
                "train.expert_parallel=false copies them"
            )
        for name, p in list(moe.experts.named_parameters()):
            setattr(moe.experts, name, nn.Parameter(_part(p.data, world)))
        moe.mix = Sharded(world)


def _part(x: Tensor, world: World) -> Tensor:
    return x.chunk(world.size)[world.rank].clone()


def full_state(model: nn.Module, state: dict[str, Tensor], world: World) -> dict[str, Tensor]:
    """A state by parameter name (weights, or an optimiser's moments) with the experts of all processes."""
    experts = _expert_names(model)
    return {name: torch.cat(world.gather(x)) if name in experts and x.dim() > 0 else x for name, x in state.items()}


def own_state(model: nn.Module, state: dict[str, Tensor], world: World) -> dict[str, Tensor]:
    """The reverse of full_state."""
    experts = _expert_names(model)
    return {name: _part(x, world) if name in experts and x.dim() > 0 else x for name, x in state.items()}


def _expert_names(model: nn.Module) -> set[str]:
    own = {id(p) for p in own_experts(model)}
    return {name for name, p in model.named_parameters() if id(p) in own}
