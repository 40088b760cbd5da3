"""Losses per task, as M3ViT was trained (after Multi-Task-Learning-PyTorch). Predictions are [B, C, H, W].

Every loss is a sum over the judged pixels divided by their number. The number can be given: pictures that are spread
over processes, or over the passes of one step, then have the loss of all of them together, however unevenly the pixels
to be ignored are spread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from m3vit.tasks import IGNORE, Task

EDGE_POSITIVE = 0.95  # weight of edge pixels; the others have the rest

Size = tuple[int, ...]
Pixels = Callable[[str, Size], Tensor]  # of a task, with the target at a size (H, W): see count


def judged(name: str, target: Tensor) -> Tensor:
    """Where a task's target says something: bool, [B, H, W] or [B, 1, H, W]."""
    if name == "depth":
        return target > 0
    if name == "normals":
        return (target != 0).any(1, keepdim=True)
    return target != IGNORE


def count(name: str, target: Tensor) -> Tensor:
    """[2]: the number of judged pixels, and of those that are 1 (for sal)."""
    known = judged(name, target)
    ones = (target == 1).sum() if name == "sal" else known.new_zeros((), dtype=torch.int64)
    return torch.stack([known.sum(), ones]).float()


def cross_entropy(prediction: Tensor, target: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Mean over pixels that are not ignored. target: [B, H, W]."""
    pixels = count("semseg", target) if pixels is None else pixels
    return F.cross_entropy(prediction, target, ignore_index=IGNORE, reduction="sum") / _some(pixels[0])


def balanced(prediction: Tensor, target: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Cross entropy of two classes, each weighed by the share of the other, so that a small one counts as much as a
    large one. target: [B, H, W]."""
    pixels = count("sal", target) if pixels is None else pixels
    ones = pixels[1] / _some(pixels[0])
    weight = torch.stack([ones, 1 - ones]).to(prediction.dtype)
    total = F.cross_entropy(prediction, target, weight, ignore_index=IGNORE, reduction="sum")
    return total / _some(pixels[0])


def edges(prediction: Tensor, target: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Binary cross entropy of logits [B, 1, H, W]; edges weigh EDGE_POSITIVE."""
    pixels = count("edge", target) if pixels is None else pixels
    weight = torch.where(target == 1, EDGE_POSITIVE, 1 - EDGE_POSITIVE) * judged("edge", target)
    edge = (target == 1).to(prediction.dtype)
    total = F.binary_cross_entropy_with_logits(prediction, edge, weight, reduction="sum")
    return total / _some(pixels[0])


def normals(prediction: Tensor, target: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Mean absolute difference of unit vectors [B, 3, H, W], where there is a normal."""
    pixels = count("normals", target) if pixels is None else pixels
    each = (F.normalize(prediction, dim=1) - target).abs() * judged("normals", target)
    return each.sum() / (3 * _some(pixels[0]))


def depth(prediction: Tensor, target: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Mean absolute difference, metres, where the depth is known. target: [B, 1, H, W]."""
    pixels = count("depth", target) if pixels is None else pixels
    return ((prediction - target).abs() * judged("depth", target)).sum() / _some(pixels[0])


def _some(number: Tensor) -> Tensor:
    """A number to divide by: 1 in place of 0."""
    return torch.where(number == 0, 1.0, number)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "semseg": cross_entropy,
    "human_parts": cross_entropy,
    "sal": balanced,
    "edge": edges,
    "normals": normals,
    "depth": depth,
}


def multitask(
    outputs: Mapping[str, Tensor],
    sample: Mapping[str, Tensor],
    tasks: Sequence[Task],
    weights: Mapping[str, float],
    pixels: Pixels | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum over tasks, and each task's own loss without its weight.

    An output "NAME@LEVEL" is one more prediction of task NAME, and is added with the same weight; one of another size
    is compared with the target at its size. `pixels`: the numbers to divide by, if not those of this sample.
    """
    each = {task.name: torch.zeros((), device=outputs[task.name].device) for task in tasks}
    for key, prediction in outputs.items():
        name = key.split("@")[0]
        if name in each:
            size = tuple(prediction.shape[-2:])
            number = pixels(name, size) if pixels else None
            each[name] = each[name] + LOSSES[name](at_least_float32(prediction), at_size(sample[name], size), number)
    losses = [weights.get(task.name, task.kind.loss_weight) * each[task.name] for task in tasks]
    return torch.stack(losses).sum(), {name: loss.detach() for name, loss in each.items()}


def at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def at_size(target: Tensor, size: Size) -> Tensor:
    """A target [B, H, W] or [B, C, H, W] at another size, by its nearest pixels."""
    if target.shape[-2:] == size:
        return target
    planes = target[:, None] if target.dim() == 3 else target
    planes = F.interpolate(planes.float(), size, mode="nearest-exact").to(target.dtype)
    return planes[:, 0] if target.dim() == 3 else planes
