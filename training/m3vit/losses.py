"""Losses per task, as M3ViT was trained (after Multi-Task-Learning-PyTorch). Predictions are [B, C, H, W]."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from m3vit.tasks import IGNORE, Task

Count = Callable[
    [Tensor], Tensor
]  # of pixels here to the mean over processes; the same, with one process
EDGE_POSITIVE = 0.95  # weight of edge pixels; the others have the rest


def alone(count: Tensor) -> Tensor:
    return count


def cross_entropy(prediction: Tensor, target: Tensor, mean: Count = alone) -> Tensor:
    """Mean over pixels that are not ignored. target: [B, H, W]."""
    total = F.cross_entropy(prediction, target, ignore_index=IGNORE, reduction="sum")
    return total / _count(target != IGNORE, mean)


def balanced(prediction: Tensor, target: Tensor, mean: Count = alone) -> Tensor:
    """Cross entropy of two classes, which weigh the same however many pixels they have. target: [B, H, W]."""
    known = target != IGNORE
    positive = mean((target == 1).sum().float()) / _count(known, mean)
    weight = torch.stack([positive, 1 - positive]).to(prediction.dtype)
    each = F.cross_entropy(prediction, target, ignore_index=IGNORE, reduction="none")
    return (each * weight[target.clamp_max(1)])[known].sum() / _count(known, mean)


def edges(prediction: Tensor, target: Tensor, mean: Count = alone) -> Tensor:
    """Binary cross entropy of logits [B, 1, H, W]; edges weigh EDGE_POSITIVE."""
    known = target != IGNORE
    weight = torch.where(target == 1, EDGE_POSITIVE, 1 - EDGE_POSITIVE)
    each = F.binary_cross_entropy_with_logits(
        prediction, (target == 1).to(prediction.dtype), reduction="none"
    )
    return (each * weight)[known].sum() / _count(known, mean)


def normals(prediction: Tensor, target: Tensor, mean: Count = alone) -> Tensor:
    """Mean absolute difference of unit vectors [B, 3, H, W], where there is a normal."""
    known = (target != 0).any(1, keepdim=True)
    each = (F.normalize(prediction, dim=1) - target).abs() * known
    return each.sum() / (3 * _count(known, mean))


def depth(prediction: Tensor, target: Tensor, mean: Count = alone) -> Tensor:
    """Mean absolute difference, metres, where the depth is known. target: [B, 1, H, W]."""
    known = target > 0
    return ((prediction - target).abs() * known).sum() / _count(known, mean)


def _count(known: Tensor, mean: Count) -> Tensor:
    """Pixels that are judged, at least 1 of all processes."""
    return mean(known.sum().float()).clamp_min(1)


LOSSES = {
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
    mean: Count = alone,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum over tasks, and each task's own loss without its weight.

    An output "NAME@LEVEL" is one more prediction of task NAME (see model.py), and is added with the same weight; a
    smaller one is compared with the target at its size. `mean`: of a count over the processes, so that the mean of
    their losses is the loss of all their pictures together.
    """
    each = {task.name: outputs[task.name].new_zeros(()) for task in tasks}
    for key, prediction in outputs.items():
        name = key.split("@")[0]
        if name in each:
            target = _at_size(sample[name], prediction)
            each[name] = each[name] + LOSSES[name](prediction.float(), target, mean)
    losses = [weights.get(task.name, task.kind.loss_weight) * each[task.name] for task in tasks]
    return torch.stack(losses).sum(), {name: loss.detach() for name, loss in each.items()}


def _at_size(target: Tensor, prediction: Tensor) -> Tensor:
    size = prediction.shape[-2:]
    if target.shape[-2:] == size:
        return target
    planes = target[:, None] if target.dim() == 3 else target
    planes = F.interpolate(planes.float(), size, mode="nearest").to(target.dtype)
    return planes[:, 0] if target.dim() == 3 else planes
