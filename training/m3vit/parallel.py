"""Data parallel and expert parallel training on torch.distributed; gloo on processors, nccl on graphics cards.

Every process sees its share of each batch. Data parallel: all hold all weights, and gradients are averaged. Expert
parallel: each holds only its experts (number e // (E / processes)); a mixture sends each token to the processes of its
experts and gets the results back, all to all, as fastmoe does, and the gradients of experts need no exchange.

What is not a mean over pictures is made so that the processes together do what one would do with the whole batch: the
statistics of batch normalisation, the number of pixels that a loss is divided by, and the balance of the experts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce as differentiable_all_reduce

from m3vit.model import Experts, MoE


@dataclass(frozen=True)
class World:
    """The processes that train together."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

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
        return x if self.size == 1 else differentiable_all_reduce(x)

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


@contextlib.contextmanager
def world() -> Iterator[World]:
    """The processes that torchrun has started; one, if it has not."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
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


def broadcast(model: nn.Module, world: World) -> None:
    """All processes begin with the weights of the first."""
    if world.size > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


def average_gradients(model: nn.Module, world: World) -> None:
    """Of shared weights over the processes. A process's experts have gradients from the tokens of all of them."""
    if world.size == 1:
        return
    own = {id(p) for p in expert_parameters(model)} if is_sharded(model) else set()
    shared = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
    for p in shared:
        if p.grad is None:  # not needed for this process's share
            p.grad = torch.zeros_like(p)
    flat = torch.cat([p.grad.flatten() for p in shared if p.grad is not None])
    dist.all_reduce(flat)
    flat /= world.size
    at = 0
    for p in shared:
        assert p.grad is not None
        p.grad.copy_(flat[at : at + p.numel()].view_as(p))
        at += p.numel()
    for p in model.parameters():
        if id(p) in own and p.grad is not None:
            p.grad /= world.size


def clip_gradients(model: nn.Module, limit: float, world: World) -> None:
    """Scales all gradients so that their norm, experts everywhere included, is at most limit."""
    own = {id(p) for p in expert_parameters(model)} if is_sharded(model) else set()
    squares = torch.zeros(2, dtype=torch.float64, device=world.device)
    for p in model.parameters():
        if p.grad is not None:
            squares[int(id(p) in own)] += p.grad.double().square().sum()
    experts = world.mean(squares[1]) * world.size
    norm = float((squares[0] + experts).sqrt())
    if norm > limit:
        for p in model.parameters():
            if p.grad is not None:
                p.grad *= limit / norm


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all processes' pictures. (torch's own wants a graphics card.)"""

    world = World()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = (0, 2, 3)
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = self.world.total(torch.cat([x.sum(axes), count]))
        count = sums[-1:].detach()
        mean = sums[:-1] / count
        centred = x - mean[:, None, None]
        variance = self.world.total(centred.square().sum(axes)) / count
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            rate = (
                self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            )
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(variance * count / (count - 1), rate)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale[:, None, None] + self.bias[:, None, None]


def share_statistics(model: nn.Module, world: World) -> None:
    """Every batch normalisation of the model takes the statistics of all processes."""
    if world.size == 1:
        return
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
            module.world = world
        elif isinstance(module, MoE):
            module.total = world.total


# --------------------------------------------------------------------------------------
# Experts


class _Exchange(torch.autograd.Function):
    """Rows to all processes: the first send[0] to process 0, and so on. Back the same way."""

    @staticmethod
    def forward(ctx, x: Tensor, send: list[int], receive: list[int]) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.send, ctx.receive = send, receive
        out = x.new_empty((sum(receive), *x.shape[1:]))
        dist.all_to_all_single(out, x.contiguous(), receive, send)
        return out

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        back = grads[0].new_empty((sum(ctx.send), *grads[0].shape[1:]))
        dist.all_to_all_single(back, grads[0].contiguous(), ctx.send, ctx.receive)
        return back, None, None


@dataclass(frozen=True)
class Sharded:
    """In place of `routed`: the experts are those of all processes, and here are experts first … first + own - 1."""

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
        rows = _Exchange.apply(x[token], send, receive)

        expert = torch.arange(own, device=x.device).repeat(size).repeat_interleave(coming)
        by_expert = expert.argsort(stable=True)
        parts = rows[by_expert].split(torch.bincount(expert, minlength=own).tolist())
        done = torch.cat([moe.experts(part, e) for e, part in enumerate(parts)])
        results = _Exchange.apply(done[by_expert.argsort()], receive, send)
        weighted = weights.flatten()[order, None] * results
        return torch.zeros_like(x).index_add(0, token, weighted)


def expert_parameters(model: nn.Module) -> list[nn.Parameter]:
    return [p for m in model.modules() if isinstance(m, Experts) for p in m.parameters()]


def is_sharded(model: nn.Module) -> bool:
    return any(isinstance(m.mix, Sharded) for m in model.modules() if isinstance(m, MoE))


def shard_experts(model: nn.Module, world: World) -> None:
    """Every process keeps only its experts."""
    for moe in model.modules():
        if not isinstance(moe, MoE) or world.size == 1:
            continue
        if moe.count % world.size:
            raise ValueError(
                f"{moe.count} experts cannot be shared evenly by {world.size} processes"
            )
        own = moe.count // world.size
        for name, p in list(moe.experts.named_parameters()):
            part = p.data[world.rank * own : (world.rank + 1) * own].clone()
            setattr(moe.experts, name, nn.Parameter(part))
        moe.mix = Sharded(world)


def full_state(model: nn.Module, state: dict[str, Tensor], world: World) -> dict[str, Tensor]:
    """A state by parameter name (weights, or an optimiser's moments) with the experts of all processes."""
    if not is_sharded(model):
        return state
    experts = {
        n for n, p in model.named_parameters() if any(p is e for e in expert_parameters(model))
    }
    full = {}
    for name, tensor in state.items():
        if name in experts and tensor.dim() > 0:
            parts = [torch.empty_like(tensor) for _ in range(world.size)]
            dist.all_gather(parts, tensor.contiguous())
            full[name] = torch.cat(parts)
        else:
            full[name] = tensor
    return full


def own_state(model: nn.Module, state: dict[str, Tensor], world: World) -> dict[str, Tensor]:
    """The reverse of full_state."""
    own = {}
    shape = {name: p.shape for name, p in model.named_parameters()}
    for name, tensor in state.items():
        mine = shape.get(name, tensor.shape)
        if tensor.dim() > 0 and tensor.shape != mine and tensor.shape[0] == world.size * mine[0]:
            tensor = tensor[world.rank * mine[0] : (world.rank + 1) * mine[0]].clone()
        own[name] = tensor
    return own


def shard_batch(count: int, world: World) -> range:
    """Which of a batch's pictures this process sees."""
    return range(count * world.rank // world.size, count * (world.rank + 1) // world.size)
