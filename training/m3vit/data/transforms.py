"""From stored arrays to tensors, and the augmentation of training: flips, scaling, crops, colours.

A transform takes and gives a dict of NumPy arrays: image u8 [H, W, 3]; labels [H, W] or [H, W, C], in the forms that
`tensors` knows. All labels move with the picture, and those that say something about space change their values: normals
turn round in a flip, and depth shrinks when the picture is enlarged, as if the camera had come nearer.
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
FILL = {"image": 0, "sal": IGNORE, "edge": IGNORE, "semseg": IGNORE, "human_parts": IGNORE}
SMOOTH = ("image", "depth", "normals")  # resized bilinearly; what is counted keeps its values


def flip(sample: Arrays, random: np.random.Generator) -> Arrays:
    """Left and right change places in half of the samples."""
    if random.random() < 0.5:
        return sample
    sample = {name: array[:, ::-1].copy() for name, array in sample.items()}
    if "normals" in sample:
        sample["normals"][..., 0] *= -1
    return sample


def resize(sample: Arrays, height: int, width: int) -> Arrays:
    """To height by width. Depth keeps its values: see Scale for the change of distance."""
    return {name: _resize(name, array, height, width) for name, array in sample.items()}


def _resize(name: str, array: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    if array.shape[:2] == (height, width):
        return array
    planes = torch.from_numpy(np.atleast_3d(array).astype(np.float32)).permute(2, 0, 1)[None]
    if name in SMOOTH:
        known = _known(name, planes)
        total = F.interpolate(planes * known, (height, width), mode="bilinear", antialias=True)
        share = F.interpolate(known, (height, width), mode="bilinear", antialias=True)
        planes = torch.where(share > 0.5, total / share.clamp_min(1e-6), 0.0)
    else:
        planes = F.interpolate(planes, (height, width), mode="nearest-exact")
    out = planes[0].permute(1, 2, 0).numpy().reshape(height, width, *array.shape[2:])
    if np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(array.dtype)
        out = np.clip(np.rint(out), limits.min, limits.max)
    return out.astype(array.dtype)


def _known(name: str, planes: Tensor) -> Tensor:
    """1 where there is a value to be averaged: [1, 1, H, W]."""
    if name == "depth":
        return (planes > 0).float()
    if name == "normals":
        return (planes.abs().sum(1, keepdim=True) > 0).float()
    return torch.ones_like(planes[:, :1])


@dataclass(frozen=True)
class Scale:
    """Enlarges or shrinks by one of some factors."""

    factors: Sequence[float] = (1.0, 1.2, 1.5)

    def __call__(self, sample: Arrays, random: np.random.Generator) -> Arrays:
        factor = float(random.choice(np.asarray(self.factors)))
        height, width = sample["image"].shape[:2]
        sample = resize(sample, round(height * factor), round(width * factor))
        if "depth" in sample and factor != 1.0:
            sample["depth"] = (sample["depth"] / factor).astype(sample["depth"].dtype)
        return sample


@dataclass(frozen=True)
class ScaleRotate:
    """By any factor and angle (degrees) of two ranges, about the middle."""

    factors: tuple[float, float] = (0.75, 1.25)
    angles: tuple[float, float] = (-20.0, 20.0)

    def __call__(self, sample: Arrays, random: np.random.Generator) -> Arrays:
        factor = float(random.uniform(*self.factors))
        angle = float(np.deg2rad(random.uniform(*self.angles)))
        height, width = sample["image"].shape[:2]
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        x, y = x - (width - 1) / 2, y - (height - 1) / 2
        cos, sin = np.cos(angle) / factor, np.sin(angle) / factor
        column = np.rint(cos * x + sin * y + (width - 1) / 2).astype(np.int64)
        row = np.rint(-sin * x + cos * y + (height - 1) / 2).astype(np.int64)
        outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
        row, column = row.clip(0, height - 1), column.clip(0, width - 1)
        out = {name: array[row, column] for name, array in sample.items()}
        for name, array in out.items():
            array[outside] = FILL.get(name, 0)
        if "normals" in out:
            first, second = (
                out["normals"][..., 0].astype(np.float32),
                out["normals"][..., 1].astype(np.float32),
            )
            turned = np.stack(
                [
                    np.cos(angle) * first + np.sin(angle) * second,
                    np.cos(angle) * second - np.sin(angle) * first,
                ],
                -1,
            )
            out["normals"][..., :2] = (
                turned if out["normals"].dtype.kind == "f" else np.rint(turned)
            )
        if "depth" in out:
            out["depth"] = (out["depth"] / factor).astype(out["depth"].dtype)
        return out


@dataclass(frozen=True)
class Crop:
    """A window of height by width, anywhere (or in the middle); what is smaller is filled up, and not judged there."""

    height: int
    width: int
    middle: bool = False

    def __call__(self, sample: Arrays, random: np.random.Generator) -> Arrays:
        height, width = sample["image"].shape[:2]
        more_rows, more_columns = max(self.height - height, 0), max(self.width - width, 0)
        if more_rows or more_columns:
            sample = {
                name: np.pad(
                    array,
                    [(0, more_rows), (0, more_columns)] + [(0, 0)] * (array.ndim - 2),
                    constant_values=FILL.get(name, 0),
                )
                for name, array in sample.items()
            }
        free = height + more_rows - self.height, width + more_columns - self.width
        top, left = (f // 2 if self.middle else int(random.integers(0, f + 1)) for f in free)
        return {
            name: a[top : top + self.height, left : left + self.width] for name, a in sample.items()
        }


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
            out[name] = (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
                :, None, None
            ]
        elif name == "normals":
            out[name] = F.normalize(
                torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1), dim=0
            )
        elif name in ("edge", "depth"):
            out[name] = torch.from_numpy(array.astype(np.float32))[None]
        else:
            out[name] = torch.from_numpy(array.astype(np.int64))
    return out
