"""Losses against torch's own and against loops over pixels."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import HEIGHT, TASKS, WIDTH, Masked
from torch import Tensor
from torch.nn import functional as F

from m3vit import Task, losses
from m3vit.tasks import IGNORE, KINDS


def batch(*indices: int) -> dict[str, Tensor]:
    samples = [Masked(10)[i] for i in indices]
    return {name: torch.stack([s[name] for s in samples]) for name in samples[0]}


def predictions(count: int, seed: int = 0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(count, c, HEIGHT, WIDTH, generator=random) for name, c in TASKS.items()}


def tasks() -> list[Task]:
    return [Task(name, channels) for name, channels in TASKS.items()]


@pytest.mark.parametrize("name", ["semseg", "human_parts"])
def test_cross_entropy_is_torchs(name: str) -> None:
    target, prediction = batch(3, 5)[name], predictions(2)[name]
    assert (target == IGNORE).any()
    expected = F.cross_entropy(prediction, target, ignore_index=IGNORE)
    torch.testing.assert_close(losses.LOSSES[name](prediction, target, None), expected)


def test_balanced_by_hand() -> None:
    target, prediction = batch(3, 5)["sal"], predictions(2)["sal"]
    chance = prediction.softmax(1).movedim(1, -1)
    pairs = [(int(t), p.tolist()) for t, p in zip(target.flatten(), chance.flatten(0, 2), strict=True) if t != IGNORE]
    ones = sum(t for t, _ in pairs) / len(pairs)
    assert 0.2 < ones < 0.3
    total = sum(-((1 - ones) if t else ones) * math.log(p[t]) for t, p in pairs)
    assert float(losses.balanced(prediction, target)) == pytest.approx(total / len(pairs), rel=1e-5)


def test_both_classes_of_sal_weigh_the_same() -> None:
    """A network that knows nothing gains nothing by choosing the more frequent class."""
    target = batch(3)["sal"]
    base = torch.zeros(1, 2, HEIGHT, WIDTH, requires_grad=True)
    losses.balanced(base, target).backward()
    assert base.grad is not None
    torch.testing.assert_close(base.grad[:, 0].sum(), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_edges_by_hand() -> None:
    target, prediction = batch(3, 5)["edge"], predictions(2)["edge"]
    total, count = 0.0, 0
    for t, x in zip(target.flatten().tolist(), prediction.flatten().tolist(), strict=True):
        if t != IGNORE:
            chance = 1 / (1 + math.exp(-x))
            total += -0.95 * math.log(chance) if t == 1 else -0.05 * math.log(1 - chance)
            count += 1
    assert float(losses.edges(prediction, target)) == pytest.approx(total / count, rel=1e-5)


def test_normals_by_hand() -> None:
    target, prediction = batch(3, 5)["normals"], predictions(2)["normals"]
    total, count = 0.0, 0
    rows = zip(
        target.movedim(1, -1).reshape(-1, 3).tolist(), prediction.movedim(1, -1).reshape(-1, 3).tolist(), strict=True
    )
    for t, x in rows:
        if any(t):
            total += sum(abs(a / math.hypot(*x) - b) for a, b in zip(x, t, strict=True))
            count += 3
    assert float(losses.normals(prediction, target)) == pytest.approx(total / count, rel=1e-5)


def test_depth_is_torchs_where_it_is_known() -> None:
    target, prediction = batch(3, 5)["depth"], predictions(2)["depth"]
    known = target > 0
    assert not known.all()
    torch.testing.assert_close(losses.depth(prediction, target), F.l1_loss(prediction[known], target[known]))


@pytest.mark.parametrize("name", list(TASKS))
def test_what_is_ignored_has_no_gradient(name: str) -> None:
    target = batch(5)[name]
    prediction = predictions(1)[name].requires_grad_()
    losses.LOSSES[name](prediction, target, None).backward()
    assert prediction.grad is not None
    judged = losses.judged(name, target)
    judged = (judged if judged.dim() == 4 else judged[:, None]).expand_as(prediction)
    assert 0 < int(judged.sum()) < judged.numel()
    assert not prediction.grad[~judged].any()
    assert prediction.grad[judged].all()


@pytest.mark.parametrize("name", list(TASKS))
def test_nothing_to_judge(name: str) -> None:
    target = torch.full_like(batch(0)[name], 0 if name in ("normals", "depth") else IGNORE)
    prediction = predictions(1)[name].requires_grad_()
    loss = losses.LOSSES[name](prediction, target, None)
    loss.backward()
    assert float(loss.detach()) == 0
    assert prediction.grad is not None
    assert not prediction.grad.any()


def test_parts_with_common_counts_make_the_whole() -> None:
    """The mean over two parts with very different masks is the loss of all, if both divide by the same numbers."""
    sample, outputs = batch(0, 4, 9), predictions(3)
    parts = [slice(0, 1), slice(1, 3)]

    def pixels(name: str, size: losses.Size) -> Tensor:
        return losses.count(name, losses.at_size(sample[name], size)) / len(parts)

    whole, each = losses.multitask(outputs, sample, tasks(), {})
    found = [
        losses.multitask(
            {k: x[p] for k, x in outputs.items()}, {k: x[p] for k, x in sample.items()}, tasks(), {}, pixels
        )
        for p in parts
    ]
    torch.testing.assert_close((found[0][0] + found[1][0]) / 2, whole)
    for name in TASKS:
        torch.testing.assert_close((found[0][1][name] + found[1][1][name]) / 2, each[name])


def test_weights_of_tasks() -> None:
    sample, outputs = batch(2), predictions(1)
    total, each = losses.multitask(outputs, sample, tasks(), {"depth": 7.0})
    known = {"semseg": 1, "human_parts": 2, "sal": 5, "edge": 50, "normals": 10, "depth": 7}
    assert {name: KINDS[name].loss_weight for name in TASKS} == {**known, "depth": 1}
    assert float(total) == pytest.approx(sum(known[name] * float(each[name]) for name in TASKS), rel=1e-5)


def test_more_predictions_of_a_task_are_added() -> None:
    sample, outputs = batch(2), predictions(1)
    _, each = losses.multitask(outputs, sample, tasks(), {})
    small = F.interpolate(outputs["semseg"], scale_factor=0.25)
    _, more = losses.multitask({**outputs, "semseg@1/4": small, "sal@2": outputs["sal"]}, sample, tasks(), {})
    target = sample["semseg"][:, 2::4, 2::4]  # the pixel nearest to the middle of each four by four
    torch.testing.assert_close(more["semseg"] - each["semseg"], F.cross_entropy(small, target, ignore_index=IGNORE))
    torch.testing.assert_close(more["sal"], 2 * each["sal"])
    torch.testing.assert_close(more["depth"], each["depth"])
