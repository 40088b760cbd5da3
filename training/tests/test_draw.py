"""Pictures: colours that can be told apart and read back, and everything in its place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from m3vit import draw
from m3vit.data import transforms
from m3vit.tasks import IGNORE, Task

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("count", [7, 21, 40])
def test_palette(count: int) -> None:
    colours = draw.palette(count)
    assert colours.shape == (count, 3)
    assert np.array_equal(colours, draw.palette(40)[:count])
    assert pdist(np.vstack([colours, draw.UNKNOWN]).astype(float)).min() > 25


def test_shades_are_viridis() -> None:
    """Its colours at 0, 1/4, 1/2, 3/4 and 1, as matplotlib has them."""
    wanted = ["440154", "3b528b", "21918c", "5ec962", "fde725"]
    assert ["".join(f"{c:02x}" for c in colour) for colour in draw.shades(np.linspace(0, 1, 5))] == wanted
    grey = draw.shades(np.linspace(0, 1, 64)) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(grey) > 0).all()


def test_photo_undoes_the_normalisation() -> None:
    image = RANDOM.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    assert np.array_equal(draw.photo(transforms.tensors({"image": image})["image"]), image)


@pytest.mark.parametrize("name", ["semseg", "human_parts"])
def test_label_maps(name: str) -> None:
    task = Task(name, 7)
    label = torch.from_numpy(RANDOM.integers(0, 7, (6, 8)))
    drawn = draw.picture(task, torch.where(torch.eye(6, 8) > 0, IGNORE, label))
    colours = {tuple(c): i for i, c in enumerate(draw.palette(7))}
    if name == "human_parts":
        colours = {(0, 0, 0) if i == 0 else c: i for c, i in colours.items()}
    for y in range(6):
        for x in range(8):
            colour = tuple(drawn[y, x])
            assert colour == draw.UNKNOWN if x == y else colours[colour] == label[y, x]


def test_masks_and_edges() -> None:
    chance = torch.tensor([[0.0, 0.2, 1.0, 255.0]])
    for name, label in (("edge", chance[None]), ("sal", chance)):
        assert draw.picture(Task(name, 1), label)[0, :, 0].tolist() == [0, 51, 255, draw.UNKNOWN[0]]


def test_depth_is_the_brighter_the_nearer_on_a_fixed_range() -> None:
    task = Task("depth", 1)
    metres = torch.tensor([0.1, 0.5, 1, 2, 5, 10, 20, 50, 90])
    drawn = draw.picture(task, metres[None, None])[0]
    grey = drawn @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(grey[1:-1]) < 0).all()
    assert drawn[0].tolist() == drawn[1].tolist() == draw.VIRIDIS[-1].tolist()
    assert drawn[-1].tolist() == drawn[-2].tolist() == draw.VIRIDIS[0].tolist()
    assert draw.picture(task, metres[None, None, :4])[0].tolist() == drawn[:4].tolist()
    assert draw.picture(task, torch.zeros(1, 1, 1))[0, 0].tolist() == list(draw.UNKNOWN)


def test_normals() -> None:
    vectors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]).T[:, None]
    drawn = draw.picture(Task("normals", 3), vectors)[0]
    assert drawn[:3].tolist() == [[255, 128, 128], [128, 255, 128], [128, 128, 255]]
    assert drawn[3].tolist() == list(draw.UNKNOWN)


def test_predictions_in_the_form_of_labels() -> None:
    """A prediction that is sure of the label is drawn as the label is."""
    label = torch.from_numpy(RANDOM.integers(0, 2, (6, 8)))
    logits = 40.0 * torch.stack([1 - label, label]).float() - 20
    for name, channels, prediction, target in (
        ("semseg", 2, logits, label),
        ("sal", 2, logits, label),
        ("edge", 1, logits[1:], label[None].float()),
        ("depth", 1, logits[1:], logits[1:].clamp_min(draw.NEAR)),
        ("normals", 3, torch.full((3, 6, 8), 5.0), torch.full((3, 6, 8), 3**-0.5)),
    ):
        task = Task(name, channels)
        assert np.array_equal(draw.picture(task, draw.as_label(task, prediction)), draw.picture(task, target)), name


def test_sheet() -> None:
    """Every picture is where its column and row say."""
    tasks = (Task("semseg", 4), Task("edge", 1))
    image = torch.from_numpy(RANDOM.standard_normal((3, 20, 30)).astype(np.float32))
    labels = {"semseg": torch.from_numpy(RANDOM.integers(0, 4, (20, 30))), "edge": torch.zeros(1, 20, 30)}
    predictions = {"semseg": torch.randn(4, 20, 30), "edge": torch.full((1, 20, 30), 9.0)}
    drawn = np.asarray(draw.sheet([draw.Shown(n, image, labels, predictions) for n in ("one", "a longer name")], tasks))
    pitch, height = 30 + draw.GAP, 20
    left = drawn.shape[1] - 3 * pitch
    for row in range(2):
        top = draw.LINE + row * (2 * (height + draw.GAP) + draw.GAP)
        assert np.array_equal(drawn[top : top + 20, left : left + 30], draw.photo(image))
        for column, task in enumerate(tasks, 1):
            x = left + column * pitch
            assert np.array_equal(drawn[top : top + 20, x : x + 30], draw.picture(task, labels[task.name]))
            y = top + height + draw.GAP
            predicted = draw.as_label(task, predictions[task.name])
            assert np.array_equal(drawn[y : y + 20, x : x + 30], draw.picture(task, predicted))


def test_heat_map() -> None:
    """The largest share is the brightest, 0 the darkest; a gap and a missing expert have no colour."""
    values = np.array([[0.0, 75.0, 25.0], [np.nan] * 3, [50.0, 50.0, np.nan]])
    drawn = np.asarray(draw.heat_map("title", ["blocks.1 semseg", "", "blocks.3 semseg"], values))
    cell, top = (34, draw.LINE + 2), 2 * (draw.LINE + draw.GAP)
    left = drawn.shape[1] - 2 * draw.GAP - 3 * cell[0]
    corners = [[drawn[top + r * cell[1], left + c * cell[0]].tolist() for c in range(3)] for r in range(3)]
    assert corners[0][:2] == [list(map(int, draw.VIRIDIS[i])) for i in (0, -1)]
    assert corners[1] == [list(draw.BACKGROUND)] * 3
    assert corners[2][2] == list(draw.BACKGROUND)
    assert corners[2][0] == corners[2][1] == draw.shades(np.array(50 / 75)).tolist()
