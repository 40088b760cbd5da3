"""Pictures of what a network is given and gives: label maps, depth, normals, masks, contact sheets, heat maps.

A prediction is first brought into the form of its task's label (`as_label`), then both are drawn alike (`picture`).
What is ignored, or not known, is grey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.color import rgb2lab
from torch import Tensor
from torch.nn import functional as F

from m3vit.tasks import IGNORE, MEAN, STD, Task

Picture = NDArray[np.uint8]  # [H, W, 3]

UNKNOWN = (96, 96, 96)
NEAR, FAR = 0.5, 50.0  # metres; depth is drawn by its logarithm, from bright to dark
VIRIDIS = np.array(
    [(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)]
)  # matplotlib's, at quarters
BACKGROUND, INK = (255, 255, 255), (40, 40, 40)
LINE = 16  # height of a line of text, pixels
GAP = 4


# ---- colours ------------------------------------------------------------------------------------------------------


def palette(count: int) -> Picture:
    """[count, 3]: colours for classes. Each is the one that looks least like those before it, UNKNOWN, black and white,
    so the first are the same for any count."""
    steps = np.linspace(40, 240, 8)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    seen = rgb2lab(candidates / 255)
    avoided = rgb2lab(np.array([UNKNOWN, (0, 0, 0), (255, 255, 255)]) / 255)
    apart = np.linalg.norm(seen[:, None] - avoided, axis=-1).min(1)
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(int(apart.argmax()))
        apart = np.minimum(apart, np.linalg.norm(seen - seen[chosen[-1]], axis=-1))
    return np.rint(candidates[chosen]).astype(np.uint8)


def shades(values: NDArray[Any]) -> Picture:
    """Numbers from 0, dark, to 1, bright. [...] -> [..., 3]."""
    places = np.linspace(0, 1, len(VIRIDIS))
    return np.stack([np.rint(np.interp(values, places, VIRIDIS[:, c])) for c in range(3)], -1).astype(np.uint8)


# ---- one picture ----------------------------------------------------------------------------------------------------


def photo(image: Tensor) -> Picture:
    """What the network sees, [3, H, W], as it was before it was normalised."""
    values = image.cpu().float().permute(1, 2, 0) * torch.tensor(STD) + torch.tensor(MEAN)
    return np.rint(255 * values.clamp(0, 1).numpy()).astype(np.uint8)


def as_label(task: Task, prediction: Tensor) -> Tensor:
    """A prediction [C, H, W] in the form of its task's label; of masks and edges the chance."""
    if task.name in ("semseg", "human_parts"):
        return prediction.argmax(0)
    if task.name == "sal":
        return prediction.float().softmax(0)[1]
    if task.name == "edge":
        return prediction.float().sigmoid()
    if task.name == "normals":
        return F.normalize(prediction.float(), dim=0)
    return prediction.float().clamp_min(1e-6)  # no depth is unknown here


def picture(task: Task, label: Tensor) -> Picture:
    """A label, or a prediction in its form: see tasks.py."""
    values = label.cpu().numpy()
    if task.name == "normals":
        drawn = np.rint(127.5 * (values.transpose(1, 2, 0) + 1)).astype(np.uint8)
        known = (values != 0).any(0)
    elif task.name == "depth":
        values = values[0]
        known = values > 0
        metres = np.log(np.clip(values, NEAR, FAR))
        drawn = shades((np.log(FAR) - metres) / np.log(FAR / NEAR))
    elif task.name in ("sal", "edge"):
        values = values.reshape(values.shape[-2:])
        known = values != IGNORE
        drawn = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)[..., None].repeat(3, -1)
    else:
        known = values != IGNORE
        colours = palette(task.channels)
        if task.name == "human_parts":
            colours[0] = 0  # no person
        drawn = colours[np.where(known, values, 0)]
    return np.where(known[..., None], drawn, np.array(UNKNOWN, np.uint8))


# ---- sheets and tables ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A row of a contact sheet: a picture [3, H, W], and by task its label and its prediction [C, H, W]."""

    name: str
    image: Tensor
    labels: Mapping[str, Tensor]
    predictions: Mapping[str, Tensor]


def sheet(shown: Sequence[Shown], tasks: Sequence[Task]) -> Image.Image:
    """For each picture two rows, labels above predictions, and a column per task."""
    height, width = shown[0].image.shape[-2:]
    left = max(_width(text) for text in ("prediction", "label", *(s.name for s in shown))) + 2 * GAP
    size = (left + (1 + len(tasks)) * (width + GAP), LINE + len(shown) * (2 * (height + GAP) + GAP))
    canvas = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for column, title in enumerate(("picture", *(t.name for t in tasks))):
        pen.text((left + column * (width + GAP), 1), title, INK)
    for row, one in enumerate(shown):
        top = LINE + row * (2 * (height + GAP) + GAP)
        pen.text((GAP, top), f"{one.name}\nlabel", INK)
        pen.text((GAP, top + height + GAP), "prediction", INK)
        canvas.paste(Image.fromarray(photo(one.image)), (left, top))
        for column, task in enumerate(tasks, 1):
            place = left + column * (width + GAP)
            predicted = as_label(task, one.predictions[task.name])
            canvas.paste(Image.fromarray(picture(task, one.labels[task.name])), (place, top))
            canvas.paste(Image.fromarray(picture(task, predicted)), (place, top + height + GAP))
    return canvas


def heat_map(title: str, names: Sequence[str], values: NDArray[Any]) -> Image.Image:
    """Shares in percent, [rows, columns], each in a cell that is the brighter the larger. A row "" is a gap."""
    cell = 34, LINE + 2
    left = max(_width(name) for name in (*names, "")) + 2 * GAP
    top = 2 * (LINE + GAP)
    size = max(left + cell[0] * values.shape[1], _width(title)) + 2 * GAP, top + cell[1] * len(names) + GAP
    canvas = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    pen.text((GAP, 2), title, INK)
    for column in range(values.shape[1]):
        _centred(pen, (left + column * cell[0], LINE + GAP), cell, str(column), INK)
    scale = max(float(np.nanmax(values)), 1e-9)
    for row, name in enumerate(names):
        if not name:
            continue
        y = top + row * cell[1]
        pen.text((GAP, y + 2), name, INK)
        for column, value in enumerate(values[row]):
            if np.isnan(value):
                continue
            x = left + column * cell[0]
            colour = tuple(int(c) for c in shades(np.array(value / scale)))
            pen.rectangle((x, y, x + cell[0] - 2, y + cell[1] - 2), colour)
            _centred(pen, (x, y), cell, f"{value:.0f}", INK if value > 0.6 * scale else BACKGROUND)
    return canvas


def _centred(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], cell: tuple[int, int], text: str, ink: tuple[int, int, int]
) -> None:
    pen.text((at[0] + (cell[0] - 2 - _width(text)) // 2, at[1] + 2), text, ink)


def _width(text: str) -> int:
    return max(int(ImageFont.load_default().getlength(line)) for line in text.split("\n"))
