"""Metrics against naive loops, other libraries' figures, closed forms and published tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.classification import binary_precision_recall_curve

from m3vit import metrics
from m3vit.tasks import IGNORE, Task

H, W, COUNT = 24, 32, 6


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(name: str, channels: int) -> tuple[Tensor, Tensor]:
    """Predictions [COUNT, channels, H, W], and targets with some pixels ignored."""
    g = generator(len(name))
    prediction = torch.randn(COUNT, channels, H, W, generator=g)
    unknown = torch.rand(COUNT, H, W, generator=g) < 0.2
    if name == "normals":
        target = prediction + 0.8 * torch.randn(COUNT, 3, H, W, generator=g)
        return prediction, target / target.norm(dim=1, keepdim=True) * ~unknown[:, None]
    if name == "depth":
        target = prediction + torch.randn(COUNT, 1, H, W, generator=g) + 4
        return prediction + 4, torch.where(unknown[:, None], -1.0, target.clamp_min(0.1))
    if name == "edge":
        target = (prediction + torch.randn(COUNT, 1, H, W, generator=g) > 1.5).float()
        return prediction, torch.where(unknown[:, None], IGNORE, target)
    target = (prediction + torch.randn(COUNT, channels, H, W, generator=g)).argmax(1)
    return prediction, torch.where(unknown, IGNORE, target)


def figures(name: str, prediction: Tensor, target: Tensor, batch: int = 2) -> dict[str, float]:
    metric = metrics.make(Task(name, prediction.shape[1]))
    for p, t in zip(prediction.split(batch), target.split(batch), strict=True):
        metric.update(p, t)
    return metric.compute()


TASKS = {"semseg": 5, "human_parts": 7, "depth": 1, "normals": 3, "sal": 2, "edge": 1}


@pytest.mark.parametrize(("name", "channels"), TASKS.items())
def test_batches_do_not_matter(name: str, channels: int) -> None:
    prediction, target = made(name, channels)
    one, all_at_once = (figures(name, prediction, target, n) for n in (1, COUNT))
    assert one == pytest.approx(all_at_once, rel=1e-12)
    assert next(iter(one)) == Task(name, channels).kind.metric
    assert all(math.isfinite(v) for v in one.values())


@pytest.mark.parametrize(("name", "channels"), TASKS.items())
def test_nothing_judged(name: str, channels: int) -> None:
    """Where all is ignored there is no figure; and what is ignored does not matter."""
    prediction, target = made(name, channels)
    blank = {"normals": 0.0, "depth": 0.0, "edge": 255.0}.get(name, IGNORE)
    nothing = torch.full_like(target, blank)
    assert math.isnan(next(iter(figures(name, prediction, nothing).values())))
    judged = (
        (target != 0).any(1, keepdim=True)
        if name == "normals"
        else (target > 0 if name == "depth" else target != IGNORE)
    )
    if judged.dim() == 3:
        judged = judged[:, None]
    other = torch.where(judged, prediction, torch.randn(prediction.shape, generator=generator(9)))
    assert figures(name, other, target) == figures(name, prediction, target)


def test_iou_by_hand() -> None:
    # One row of pixels. Class 0: 1 of 2; class 1: 2 of 4; class 2 is predicted once and never there: 0; 3 is nowhere.
    target = torch.tensor([[[0, 0, 1, 1, 1, IGNORE]]])
    label = torch.tensor([[[0, 1, 1, 1, 2, 3]]])
    prediction = torch.nn.functional.one_hot(label, 4).permute(0, 3, 1, 2).float()
    assert figures("semseg", prediction, target)["mIoU"] == pytest.approx(100 * (1 / 2 + 2 / 4 + 0) / 3)


def test_iou_against_sets() -> None:
    prediction, target = made("semseg", 5)
    label = prediction.argmax(1)
    shares = []
    for c in range(5):
        said = {tuple(i) for i in ((label == c) & (target != IGNORE)).nonzero().tolist()}
        true = {tuple(i) for i in (target == c).nonzero().tolist()}
        shares.append(len(said & true) / len(said | true))
    assert figures("semseg", prediction, target)["mIoU"] == pytest.approx(100 * float(np.mean(shares)), rel=1e-6)


def test_rmse() -> None:
    prediction, target = made("depth", 1)
    known = target > 0
    want = float(mean_squared_error(prediction[known], target[known], squared=False))
    assert figures("depth", prediction, target)["rmse"] == pytest.approx(want, rel=1e-5)
    flat = torch.full((1, 1, 4, 4), 3.0)
    assert figures("depth", flat, flat + 0.25)["rmse"] == 0.25


def test_angles() -> None:
    """Against the angle by its tangent, the length of the cross product to the dot product."""
    prediction, target = made("normals", 3)
    known = (target != 0).any(1).numpy()
    a, b = (x.permute(0, 2, 3, 1).double().numpy()[known] for x in (prediction, target))
    angle = np.rad2deg(np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), (a * b).sum(1)))
    found = figures("normals", prediction, target)
    assert found["mean"] == pytest.approx(angle.mean(), rel=1e-7)
    assert found["median"] == pytest.approx(np.quantile(angle, 0.5, method="inverted_cdf"), abs=1e-3)
    for limit in (11.25, 22.5, 30):
        assert found[f"within {limit:g}"] == pytest.approx(100 * (angle < limit).mean(), abs=1e-9)


def test_angle_of_equal_and_opposite_normals() -> None:
    target = made("normals", 3)[1]
    for factor, want in ((3.0, 0.0), (-0.1, 180.0)):
        found = figures("normals", factor * target, target)
        assert found["mean"] == pytest.approx(want, abs=1e-3)
        assert found["within 11.25"] == (100 if want == 0 else 0)


def test_saliency_against_torchmetrics() -> None:
    """Its curve of each picture, averaged over pictures."""
    prediction, target = made("sal", 2)
    curves = []
    for p, t in zip(prediction.double(), target, strict=True):
        chance = torch.sigmoid(p[1] - p[0])
        thresholds = torch.linspace(0.2, 0.9, 15, dtype=torch.float64)
        precision, recall, _ = binary_precision_recall_curve(chance, t, thresholds=thresholds, ignore_index=IGNORE)
        curves.append(torch.stack([precision[:-1], recall[:-1]]))
    p, r = torch.stack(curves).mean(0)
    found = figures("sal", prediction, target)
    assert found["maxF"] == pytest.approx(100 * float((2 * p * r / (p + r)).max()), rel=1e-6)
    # With one picture F and the Jaccard index J are of the same counts: F = 2 J / (1 + J).
    one = figures("sal", prediction[:1], target[:1])
    assert one["maxF"] == pytest.approx(100 * 2 * one["mIoU"] / (100 + one["mIoU"]), rel=1e-9)


def test_saliency_where_there_is_none() -> None:
    none = torch.zeros(1, H, W, dtype=torch.int64)
    sure = torch.tensor([4.0, -4.0])[None, :, None, None].expand(1, 2, H, W)
    assert figures("sal", sure, none)["maxF"] == 100
    assert figures("sal", -sure, none)["maxF"] == 0


def lines(*columns: int, rows: slice = slice(2, 62), height: int = 64, width: int = 96) -> np.ndarray[Any, Any]:
    picture = np.zeros((height, width), np.float32)
    for column in columns:
        picture[rows, column] = 1
    return picture


def edge_figures(*pictures: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> dict[str, float]:
    """Of pairs of chance and truth."""
    metric = metrics.make(Task("edge", 1))
    for chance, truth in pictures:
        logits = torch.logit(torch.from_numpy(chance).double(), eps=1e-9)
        metric.update(logits[None, None], torch.from_numpy(truth)[None, None])
    return metric.compute()


def test_edges_may_be_a_little_off() -> None:
    """0.0075 of a diagonal of 115.4 pixels is 0.87 pixels; of one of 1154, 8.65."""
    small, truth = 0.9 * lines(20), lines(20)
    assert edge_figures((small, truth))["odsF"] == 100
    assert edge_figures((0.9 * lines(21), truth))["odsF"] == 0
    size: dict[str, Any] = {"height": 640, "width": 960, "rows": slice(2, 600)}
    for off, want in ((8, 100), (9, 0)):
        metric = metrics.Edges([0.5])
        metric.add(0.9 * lines(20 + off, **size).astype(np.float64), lines(20, **size))
        assert metric.compute()["odsF"] == want


def test_a_thick_edge_is_thinned() -> None:
    """Five columns become one; a little is lost at the ends. Not thinned, F would be 1/3."""
    size: dict[str, Any] = {"height": 300, "width": 400, "rows": slice(2, 290)}
    thick, thin = lines(18, 19, 20, 21, 22, **size), lines(20, **size)
    for chance, truth in ((0.9 * thick, thin), (0.9 * thin, thick)):
        assert edge_figures((chance, truth))["odsF"] > 97


def test_a_true_pixel_is_matched_once() -> None:
    """Two lines beside one: half of what was found is right. F = 2 / (1 + 1/1 + ...) of P = 1/2, R = 1."""
    size: dict[str, Any] = {"height": 300, "width": 400, "rows": slice(2, 290)}
    chance, truth = 0.9 * lines(20, 23, **size).astype(np.float64), lines(21, **size)
    metric = metrics.Edges([0.5])
    metric.add(chance, truth)
    assert metric.compute()["odsF"] == pytest.approx(100 * 2 / 3)


def test_one_threshold_for_all_pictures() -> None:
    """First picture: the edge, weakly. Second: the edge, strongly, and a weak one that is none. By a low threshold
    2 of 3 lines are right and all are found, F = 0.8; by a high one 1 of 1 and half of them, F = 2/3; each picture by
    its own would reach 1."""
    weak, strong = 0.3 * lines(20), np.maximum(0.9 * lines(20), 0.3 * lines(60))
    found = edge_figures((weak, lines(20)), (strong, lines(20)))
    assert found["odsF"] == pytest.approx(80)
    assert found["threshold"] < 0.31
    assert edge_figures((strong, lines(20)))["odsF"] == 100


@pytest.mark.parametrize("distance", [1.0, 1.5, 2.9])
def test_matching_is_the_largest(distance: float) -> None:
    """Against an assignment of least cost, as the measure is defined, solved by another algorithm."""
    random = np.random.default_rng(int(10 * distance))
    for share in (0.02, 0.1, 0.3):
        one, two = (random.random((20, 24)) < share for _ in range(2))
        far = cdist(np.argwhere(one), np.argwhere(two)) > distance
        want = int((~far[linear_sum_assignment(far.astype(float))]).sum())
        assert metrics.matched(one, two, distance) == want
    assert metrics.matched(one, np.zeros_like(two), distance) == 0


# PASCAL-Context, as published with M3ViT: semseg, normals, human_parts, sal, edge, Δm.
SINGLE = (66.2, 13.9, 59.9, 66.3, 68.8)
PUBLISHED = {
    "ViT-small, multi-task": (70.7, 15.5, 58.7, 64.9, 68.8, -1.77),
    "M3ViT, multi-gate": (72.8, 14.5, 62.1, 66.3, 71.7, 2.71),
    "M3ViT, task-conditioned": (72.0, 14.4, 61.3, 65.8, 71.8, 2.22),
}


@pytest.mark.parametrize("network", PUBLISHED)
def test_delta_m_of_published_tables(network: str) -> None:
    names = ("semseg", "normals", "human_parts", "sal", "edge")
    *values, want = PUBLISHED[network]
    tasks = [Task(name, 1) for name in names]
    got = metrics.delta_m(dict(zip(names, values, strict=True)), dict(zip(names, SINGLE, strict=True)), tasks)
    assert round(got, 2) == want
