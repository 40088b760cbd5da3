"""Metrics per task. All are sums over a data set, and give the same whatever the batch size.

| task | figures |
|---|---|
| semseg, human_parts | mIoU, %: mean over the classes that are there or were predicted, of all pixels together |
| depth | rmse, metres, over all known pixels |
| normals | mean and median angle, degrees; shares within 11.25, 22.5 and 30 degrees, % |
| sal | maxF, %: precision and recall of each picture, averaged; of 15 thresholds the best F; mIoU likewise |
| edge | odsF, %: one threshold for the whole data set; edges thinned, and matched one to one within a distance |

Saliency is judged as M3ViT's authors do (after Maninis et al., CVPR 2019), with F's precision and recall weighing the
same. Edges are judged as by seism (Pont-Tuset and Marques, TPAMI 2016), which takes over the measure of Martin et al.
(TPAMI 2004): a predicted pixel is right if it can be paired with a true one no farther than 0.0075 of the picture's
diagonal. Pairs are a maximum matching, as there; which of several plays no part in the figure. True edges are thinned
as well, so that a perfect prediction has 100 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
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
from torchmetrics.classification import MulticlassJaccardIndex

from m3vit.tasks import IGNORE, Task


class Metric(Protocol):
    def update(self, prediction: Tensor, target: Tensor) -> None:
        """prediction: [B, C, H, W], as the network gives it; target: see tasks.py."""

    def compute(self) -> dict[str, float]:
        """The figures over all that was given, the one that counts first; NaN where nothing could be judged."""


class IoU:
    def __init__(self, classes: int) -> None:
        # The process that judges does so alone: see train.evaluate.
        self.metric = MulticlassJaccardIndex(
            num_classes=classes, ignore_index=IGNORE, average="macro", validate_args=False, sync_on_compute=False
        )
        self.judged = 0

    def update(self, prediction: Tensor, target: Tensor) -> None:
        self.metric.update(prediction.argmax(1), target)
        self.judged += int((target != IGNORE).sum())

    def compute(self) -> dict[str, float]:
        return {"mIoU": 100 * float(self.metric.compute()) if self.judged else math.nan}


class Depth:
    def __init__(self) -> None:
        self.metric = MeanSquaredError(squared=False, sync_on_compute=False)
        self.metric.set_dtype(torch.float64)
        self.judged = 0

    def update(self, prediction: Tensor, target: Tensor) -> None:
        known = target > 0
        self.metric.update(prediction[known].double(), target[known].double())
        self.judged += int(known.sum())

    def compute(self) -> dict[str, float]:
        return {"rmse": float(self.metric.compute()) if self.judged else math.nan}


class Normals:
    """Angles are counted in bins of 0.001 degrees for the median."""

    BINS = 180_000

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0
        self.bins = torch.zeros(self.BINS, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        known = (target != 0).any(1)
        cosine = (F.normalize(prediction.double(), dim=1) * F.normalize(target.double(), dim=1)).sum(1)[known]
        angle = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
        self.total += float(angle.sum())
        self.count += angle.numel()
        place = (angle * (self.BINS / 180)).long().clamp_max(self.BINS - 1)
        self.bins += torch.bincount(place, minlength=self.BINS)

    def compute(self) -> dict[str, float]:
        step, count = 180 / self.BINS, self.count or math.nan
        upto = self.bins.cumsum(0)
        middle = step * (int((2 * upto < self.count).sum()) + 0.5)
        figures = {"mean": self.total / count, "median": middle if self.count else math.nan}
        for limit in (11.25, 22.5, 30.0):
            figures[f"within {limit:g}"] = 100 * int(upto[round(limit / step) - 1]) / count
        return figures


class Saliency:
    THRESHOLDS = np.linspace(0.2, 0.9, 15)

    def __init__(self) -> None:
        self.sums = torch.zeros(3, len(self.THRESHOLDS), dtype=torch.float64)  # precision, recall, Jaccard index
        self.pictures = 0

    def update(self, prediction: Tensor, target: Tensor) -> None:
        for chance, truth in zip(prediction.double().softmax(1)[:, 1], target, strict=True):
            judged = truth != IGNORE
            if bool(judged.any()):
                self.add(chance[judged], truth[judged] == 1)

    def add(self, chance: Tensor, truth: Tensor) -> None:
        """One picture: its judged pixels, [N]. Where nothing is salient it is right to find nothing."""
        found = chance > torch.from_numpy(self.THRESHOLDS)[:, None]
        hits, predicted, true = (found & truth).sum(1), found.sum(1), truth.sum()
        of = torch.stack([predicted, true.expand_as(predicted), predicted + true - hits])
        self.sums += torch.where(predicted + true == 0, 1.0, hits / of.clamp_min(1).double())
        self.pictures += 1

    def compute(self) -> dict[str, float]:
        precision, recall, jaccard = self.sums / (self.pictures or math.nan)
        f = 2 * precision * recall / (precision + recall).clamp_min(1e-12)
        return {"maxF": 100 * float(f.max()), "mIoU": 100 * float(jaccard.max())}


def thinned(edges: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Lines of one pixel, by the method of Guo and Hall, which seism has from MATLAB's bwmorph. [H, W]."""
    return thin(edges)  # type: ignore[no-untyped-call]


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
        self.true, self.judged = 0, 0

    def update(self, prediction: Tensor, target: Tensor) -> None:
        for logits, truth in zip(prediction, target, strict=True):
            self.add(torch.sigmoid(logits[0].double()).numpy(), truth[0].numpy())

    def add(self, chance: NDArray[np.float64], truth: NDArray[np.float32]) -> None:
        """One picture: [H, W]."""
        judged = truth != IGNORE
        edge = thinned((truth == 1) & judged)
        distance = self.DISTANCE * float(np.hypot(*truth.shape))
        self.judged += int(judged.sum())
        self.true += int(edge.sum())
        for i, threshold in enumerate(self.thresholds):
            found = thinned((chance >= threshold) & judged)
            self.predicted[i] += found.sum()
            self.pairs[i] += matched(found, edge, distance)

    def compute(self) -> dict[str, float]:
        if not self.judged:
            return {"odsF": math.nan, "threshold": math.nan}
        f = 2 * self.pairs / np.maximum(self.predicted + self.true, 1)  # of precision and recall
        best = int(f.argmax())
        return {"odsF": 100 * float(f[best]), "threshold": self.thresholds[best]}


def make(task: Task) -> Metric:
    if task.name in ("semseg", "human_parts"):
        return IoU(task.channels)
    kinds: dict[str, Callable[[], Metric]] = {"depth": Depth, "normals": Normals, "sal": Saliency, "edge": Edges}
    return kinds[task.name]()


def delta_m(results: Mapping[str, float], single: Mapping[str, float], tasks: Iterable[Task]) -> float:
    """Mean change against single-task networks, in percent; positive is better (Maninis et al., CVPR 2019)."""
    changes = [change(results[task.name], single[task.name], task) for task in tasks]
    return sum(changes) / len(changes)


def change(result: float, single: float, task: Task) -> float:
    """Of one task's figure, in percent; positive is better."""
    sign = 1 if task.kind.higher_is_better else -1
    return sign * 100 * (result - single) / single
