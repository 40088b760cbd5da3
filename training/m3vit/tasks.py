"""The dense prediction tasks: what a network predicts, what it is compared with, and what counts.

| task | channels | target | loss | metric |
|---|---|---|---|---|
| semseg | classes | class of each pixel, 255: ignored | cross entropy | mIoU |
| human_parts | 7 | part of each pixel, 0: no person, 255: ignored | cross entropy | mIoU |
| sal | 2 | 1: salient, 0: not, 255: ignored | balanced cross entropy | max F |
| edge | 1 | 1: edge, 0: not, 255: ignored | weighted binary cross entropy | odsF |
| normals | 3 | unit vectors, 0: ignored | L1 | mean angle, degrees |
| depth | 1 | metres along the optical axis, ≤ 0: ignored | L1 | RMSE, metres |

Normals are in the camera's frame: x to the right, y up, z towards the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in 0 … 1, as for ImageNet
IGNORE = 255


@dataclass(frozen=True)
class Kind:
    """What all tasks of a name have in common."""

    name: str
    channels: int | None  # None: the number of the data set's classes
    loss_weight: float  # as M3ViT was trained
    metric: str
    higher_is_better: bool
    picture: str  # of a prediction, as the compiler's metadata describes it


KINDS = {
    kind.name: kind
    for kind in (
        Kind("semseg", None, 1.0, "mIoU", True, "labels classes={channels}"),
        Kind("human_parts", 7, 2.0, "mIoU", True, "labels classes={channels}"),
        Kind("sal", 2, 5.0, "maxF", True, "mask"),
        Kind("edge", 1, 50.0, "odsF", True, "edge"),
        Kind("normals", 3, 10.0, "mean", False, "normals"),
        Kind("depth", 1, 1.0, "rmse", False, "depth unit=m"),
    )
}


@dataclass(frozen=True)
class Task:
    """A task is a decoder: its name and how many channels it predicts."""

    name: str
    channels: int

    @property
    def kind(self) -> Kind:
        if self.name not in KINDS:
            raise ValueError(f"there is no task {self.name!r}; there are {', '.join(KINDS)}")
        return KINDS[self.name]


def tasks(**channels: int) -> tuple[Task, ...]:
    return tuple(Task(name, n) for name, n in channels.items())


TASK_SETS: dict[str, tuple[Task, ...]] = {
    "pascal": tasks(semseg=21, human_parts=7, sal=2, edge=1, normals=3),
    "nyud": tasks(semseg=40, depth=1, normals=3, edge=1),
    "cityscapes": tasks(semseg=19, depth=1),
    "scene": tasks(semseg=21, depth=1, normals=3, edge=1, sal=2),
    "rooms": tasks(semseg=21, depth=1, normals=3, edge=1, sal=2, human_parts=7),
}
