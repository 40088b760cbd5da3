"""From stored arrays to tensors, and the augmentation of training: flips, scaling, rotation, crops, colours.

A transform takes and gives a dict of NumPy arrays: image u8 [H, W, 3]; labels [H, W] or [H, W, C], in the forms that
`tensors` knows. All labels move with the picture, and those that say something about space change their values: normals
turn with the picture, and depth shrinks when the picture is enlarged, as if the camera had come nearer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from m3vit.tasks import IGNORE, MEAN, STD

Arrays = dict[str, NDArray[Any]]
Transform = Callable[[Arrays, np.random.Generator], Arrays]
FILL = {"sal": IGNORE, "edge": IGNORE, "semseg": IGNORE, "human_parts": IGNORE}  # where there is no picture; others 0
SMOOTH = ("image", "normals")  # resized bilinearly; a class, or a depth, between two others means nothing


def flip(sample: Arrays, random: np.random.Generator) -> Arrays:
    """Left and right change places in half of the samples."""
    if random.random() < 0.5:
        return sample
    sample = {name: array[:, ::-1].copy() for name, array in sample.items()}
    if "normals" in sample:
        sample["normals"][..., 0] *= -1
    return sample


def resize(sample: Arrays, height: int, width: int) -> Arrays:
    """To height by width. Depth keeps its values: see ScaleCrop for the change of distance."""
    return {name: _resize(name, array, height, width) for name, array in sample.items()}


def _resize(name: str, array: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    if array.shape[:2] == (height, width):
        return array
    planes = torch.from_numpy(np.atleast_3d(array).astype(np.float32)).permute(2, 0, 1)[None]
    if name in SMOOTH:
        known = torch.ones_like(planes[:, :1])
        if name == "normals":
            known = (planes != 0).any(1, keepdim=True).float()  # what is not known is 0, and left out of the mean
        total = F.interpolate(planes, (height, width), mode="bilinear", antialias=True)
        share = F.interpolate(known, (height, width), mode="bilinear", antialias=True)
        planes = torch.where(share > 0.5, total / share.clamp_min(1e-6), 0.0)
    else:
        planes = F.interpolate(planes, (height, width), mode="nearest-exact")
    out = planes[0].permute(1, 2, 0).numpy().reshape(height, width, *array.shape[2:])
    return _as_stored(out, array)


def _as_stored(values: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """Values in another array's type, rounded where it has whole numbers."""
    if np.issubdtype(like.dtype, np.integer):
        limits = np.iinfo(like.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(like.dtype)


def _nearer(sample: Arrays, factor: float) -> Arrays:
    """Depth after the picture was enlarged by a factor."""
    if "depth" not in sample or factor == 1.0:
        return sample
    return {**sample, "depth": (sample["depth"] / factor).astype(sample["depth"].dtype)}


@dataclass(frozen=True)
class ScaleCrop:
    """A window of the picture, enlarged to height by width. It is smaller than the picture by one of some factors, and
    lies anywhere or in the middle."""

    height: int
    width: int
    factors: Sequence[float] = (1.0, 1.2, 1.5)
    middle: bool = False

    def __call__(self, sample: Arrays, random: np.random.Generator) -> Arrays:
        factor = float(random.choice(np.asarray(self.factors)))
        size = sample["image"].shape[:2]
        rows, columns = (int(n / factor) for n in size)
        free = size[0] - rows, size[1] - columns
        top, left = (f // 2 if self.middle else int(random.integers(0, f + 1)) for f in free)
        window = {name: array[top : top + rows, left : left + columns] for name, array in sample.items()}
        return _nearer(resize(window, self.height, self.width), factor)


@dataclass(frozen=True)
class ScaleRotate:
    """By any factor and angle (degrees, clockwise) of two ranges, about the middle."""

    factors: tuple[float, float] = (0.75, 1.25)
    angles: tuple[float, float] = (-20.0, 20.0)

    def __call__(self, sample: Arrays, random: np.random.Generator) -> Arrays:
        factor = float(random.uniform(*self.factors))
        angle = float(np.deg2rad(random.uniform(*self.angles)))
        return rotate(sample, factor, angle)


def rotate(sample: Arrays, factor: float, angle: float) -> Arrays:
    """Enlarges by a factor and turns clockwise by an angle (radians), about the middle."""
    height, width = sample["image"].shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    cos, sin = np.cos(angle) / factor, np.sin(angle) / factor
    x, y = cos * x + sin * y + (width - 1) / 2, cos * y - sin * x + (height - 1) / 2  # where it comes from
    column, row = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
    outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
    row, column = row.clip(0, height - 1), column.clip(0, width - 1)
    out = {}
    for name, array in sample.items():
        if name == "image":
            grid = torch.from_numpy(
                np.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1).astype(np.float32)
            )
            planes = torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1)[None]
            smooth = F.grid_sample(planes, grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)
            out[name] = _as_stored(smooth[0].permute(1, 2, 0).numpy(), array)
        else:
            out[name] = array[row, column]
            out[name][outside] = FILL.get(name, 0)
    if "normals" in out:
        right, up = (out["normals"][..., i].astype(np.float32) for i in (0, 1))
        turned = np.cos(angle) * right + np.sin(angle) * up, np.cos(angle) * up - np.sin(angle) * right
        out["normals"][..., :2] = _as_stored(np.stack(turned, -1), out["normals"])
    return _nearer(out, factor)


@dataclass(frozen=True)
class Colours:
    """Brightness, contrast and saturation, each by a factor from 1 - spread to 1 + spread."""

    spread: float = 0.3

    def __call__(self, sample: Arrays, random: np.random.Generator) -> Arrays:
        bright, contrast, saturation = random.uniform(1 - self.spread, 1 + self.spread, 3)
        image = sample["image"].astype(np.float32) * bright
        image = image.mean() + contrast * (image - image.mean())
        grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
        image = grey[..., None] + saturation * (image - grey[..., None])
        return {**sample, "image": np.clip(np.rint(image), 0, 255).astype(np.uint8)}


def tensors(sample: Arrays) -> dict[str, Tensor]:
    """The picture normalised, [3, H, W]; labels in the forms of tasks.py."""
    out = {}
    for name, array in sample.items():
        if name == "image":
            image = torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1) / 255
            out[name] = (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        elif name == "normals":
            out[name] = F.normalize(torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1), dim=0)
        elif name in ("edge", "depth"):
            out[name] = torch.from_numpy(array.astype(np.float32))[None]
        else:
            out[name] = torch.from_numpy(array.astype(np.int64))
    return out
