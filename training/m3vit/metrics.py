"""Metrics per task. All are sums over a data set, and give the same whatever the batch size.

| task | figures |
|---|---|
| semseg, human_parts | mIoU, %: mean over the classes that are there or were predicted |
| depth | rmse, metres, over all known pixels |
| normals | mean and median angle, degrees; shares within 11.25, 22.5 and 30 degrees, % |
| sal | maxF, %: of all thresholds the best F (beta² = 0.3) of all pixels together |
| edge | odsF, %: one threshold for the whole data set; edges thinned, and matched one to one within a distance |

Edges are judged as by seism (Pont-Tuset and Marques, TPAMI 2016), which takes over the measure of Martin et al. (TPAMI
2004): a predicted pixel is right if it can be paired with a true one no farther than 0.0075 of the picture's diagonal.
Pairs are a maximum matching, as there, of which the cost plays no part in the figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree
from skimage.morphology import thin
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanSquaredError
from torchmetrics.classification import BinaryPrecisionRecallCurve, MulticlassJaccardIndex

from m3vit.tasks import IGNORE, Task


class Metric(Protocol):
    def update(self, prediction: Tensor, target: Tensor) -> None:
        """prediction: [B, C, H, W], as the network gives it; target: see tasks.py."""

    def compute(self) -> dict[str, float]:
        """The figures over all that was given, the one that counts first."""


class IoU:
    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.metric = MulticlassJaccardIndex(
            num_classes=classes, ignore_index=IGNORE, average="macro", validate_args=False
        )

    def update(self, prediction: Tensor, target: Tensor) -> None:
        self.metric.update(prediction.argmax(1), target)

    def compute(self) -> dict[str, float]:
        return {"mIoU": 100 * float(self.metric.compute())}


class Depth:
    def __init__(self) -> None:
        self.metric = MeanSquaredError(squared=False)
        self.metric.set_dtype(torch.float64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        known = target > 0
        self.metric.update(prediction[known].double(), target[known].double())

    def compute(self) -> dict[str, float]:
        return {"rmse": float(self.metric.compute())}


class Normals:
    """Angles are counted in bins of 0.01 degrees for the median."""

    BINS = 18000

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0
        self.bins = torch.zeros(self.BINS, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        known = (target != 0).any(1)
        cosine = (F.normalize(prediction.double(), dim=1) * target.double()).sum(1)[known]
        angle = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
        self.total += float(angle.sum())
        self.count += angle.numel()
        place = (angle * (self.BINS / 180)).long().clamp_max(self.BINS - 1)
        self.bins += torch.bincount(place, minlength=self.BINS)

    def compute(self) -> dict[str, float]:
        upto = self.bins.cumsum(0)
        step, count = 180 / self.BINS, max(self.count, 1)
        figures = {"mean": self.total / count}
        figures["median"] = step * (int((2 * upto < self.count).sum()) + 0.5)
        for limit in (11.25, 22.5, 30.0):
            figures[f"within {limit:g}"] = 100 * int(upto[round(limit / step) - 1]) / count
        return figures


class Saliency:
    BETA2, STEPS = 0.3, 256

    def __init__(self) -> None:
        self.metric = BinaryPrecisionRecallCurve(
            thresholds=self.STEPS, ignore_index=IGNORE, validate_args=False
        )

    def update(self, prediction: Tensor, target: Tensor) -> None:
        self.metric.update(prediction.softmax(1)[:, 1], target)

    def compute(self) -> dict[str, float]:
        precision, recall, _ = self.metric.compute()
        top = (1 + self.BETA2) * precision * recall
        return {
            "maxF": 100
            * float((top / (self.BETA2 * precision + recall).clamp_min(1e-12)).nan_to_num().max())
        }


def matched(predicted: NDArray[np.bool_], true: NDArray[np.bool_], distance: float) -> int:
    """The largest number of pairs of pixels, one of each picture, no farther apart than distance (pixels)."""
    one, two = np.argwhere(predicted), np.argwhere(true)
    if len(one) == 0 or len(two) == 0:
        return 0
    near = cKDTree(one).query_ball_tree(cKDTree(two), distance)
    pointer = np.cumsum([0, *(len(n) for n in near)])
    column = np.concatenate([np.asarray(n, np.int32) for n in near])
    graph = csr_matrix((np.ones(len(column), np.int8), column, pointer), shape=(len(one), len(two)))
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())


class Edges:
    DISTANCE = 0.0075  # of the diagonal

    def __init__(self, thresholds: Iterable[float] = np.linspace(0.05, 0.95, 19)) -> None:
        self.thresholds = [float(t) for t in thresholds]
        self.pairs = np.zeros(len(self.thresholds))
        self.predicted = np.zeros(len(self.thresholds))
        self.true = 0

    def update(self, prediction: Tensor, target: Tensor) -> None:
        for logits, truth in zip(prediction, target, strict=True):
            self.add(torch.sigmoid(logits[0].double()).numpy(), truth[0].numpy())

    def add(self, chance: NDArray[np.float64], truth: NDArray[np.float32]) -> None:
        """One picture: [H, W]."""
        judged = truth != IGNORE
        edge = thin((truth == 1) & judged)
        distance = self.DISTANCE * float(np.hypot(*truth.shape))
        self.true += int(edge.sum())
        for i, threshold in enumerate(self.thresholds):
            found = thin((chance >= threshold) & judged)
            self.predicted[i] += found.sum()
            self.pairs[i] += matched(found, edge, distance)

    def compute(self) -> dict[str, float]:
        precision = self.pairs / np.maximum(self.predicted, 1)
        recall = self.pairs / max(self.true, 1)
        f = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = int(f.argmax())
        return {"odsF": 100 * float(f[best]), "threshold": self.thresholds[best]}


def make(task: Task) -> Metric:
    if task.name in ("semseg", "human_parts"):
        return IoU(task.channels)
    return {"depth": Depth, "normals": Normals, "sal": Saliency, "edge": Edges}[task.name]()


def delta_m(
    results: Mapping[str, float], single: Mapping[str, float], tasks: Iterable[Task]
) -> float:
    """Mean change against single-task networks, in percent; positive is better (Maninis et al., CVPR 2019)."""
    changes = []
    for task in tasks:
        sign = 1 if task.kind.higher_is_better else -1
        changes.append(sign * (results[task.name] - single[task.name]) / single[task.name])
    return 100 * sum(changes) / len(changes)
