"""The data sets in folders, what augmentation does to pictures and labels together, the order of samples, downloads."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from skimage.morphology import thin
from torch.utils.data import DataLoader

from m3vit import data
from m3vit.config import ConfigError, DataConfig
from m3vit.data import fetch, render, rooms, transforms
from m3vit.data.folders import Cityscapes, Nyud, Pascal
from m3vit.tasks import IGNORE, MEAN, STD, TASK_SETS, Task

torch.set_num_threads(1)

H, W = 12, 18


def put(path: Path, content: Any) -> Any:
    """Writes an array (or a table) as what the path's end says, and gives it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".mat":
        savemat(path, content)
    elif path.suffix in (".txt", ".json"):
        path.write_text(content)
    else:
        Image.fromarray(content).save(path)
    return content


# ---- NYUD -------------------------------------------------------------------------------------------


@pytest.fixture
def nyud(tmp_path: Path) -> Path:
    root = tmp_path / "NYUD_MT"
    put(root / "gt_sets/train.txt", "0003\n0001\n0007\n")
    put(root / "gt_sets/val.txt", "0002\n\n")
    for seed in (1, 2, 3, 7):
        random, name = np.random.default_rng(seed), f"000{seed}"
        put(root / f"images/{name}.jpg", np.full((H, W, 3), (200, 100, 10 * seed), np.uint8))
        put(root / f"segmentation/{name}.png", random.integers(0, 41, (H, W)).astype(np.uint8))
        put(root / f"depth/{name}.npy", random.uniform(0.5, 9, (H, W)).astype(np.float32))
        put(root / f"normals/{name}.npy", random.normal(size=(H, W, 3)))
        put(root / f"edge/{name}.npy", random.integers(0, 2, (H, W)).astype(np.float64))
    return root


def test_nyud(nyud: Path) -> None:
    source = Nyud(nyud, "train", ["semseg", "depth", "normals", "edge"])
    assert len(source) == 3
    assert [source.name(i) for i in range(3)] == ["0003", "0001", "0007"]
    sample = source[0]
    assert np.abs(sample["image"].astype(int) - (200, 100, 30)).max() <= 3  # RGB, through JPEG
    with Image.open(nyud / "segmentation/0003.png") as file:
        stored = np.array(file).astype(int)
    np.testing.assert_array_equal(sample["semseg"], np.where(stored == 0, IGNORE, stored - 1))
    np.testing.assert_array_equal(sample["depth"], np.load(nyud / "depth/0003.npy"))
    np.testing.assert_array_equal(sample["edge"], np.load(nyud / "edge/0003.npy"))
    normals = np.load(nyud / "normals/0003.npy")
    normals[..., 1] = -normals[..., 1]  # stored with y down
    np.testing.assert_allclose(sample["normals"], normals, rtol=1e-6)
    assert {k: str(v.dtype) for k, v in sample.items()} == {
        "image": "uint8", "semseg": "uint8", "depth": "float32", "normals": "float32", "edge": "uint8",
    }  # fmt: skip


def test_only_the_wanted_labels_are_read(nyud: Path) -> None:
    (nyud / "depth/0001.npy").unlink()
    source = Nyud(nyud, "train", ["semseg"], count=2)
    assert len(source) == 2
    assert set(source[1]) == {"image", "semseg"}
    with pytest.raises(IndexError):
        source[2]
    with pytest.raises(ConfigError, match=r"no .*depth/0001\.npy\n(.|\n)*depth/ID\.npy"):
        Nyud(nyud, "train", ["depth"])


def test_errors_say_what_is_missing(nyud: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no folder .*elsewhere(.|\n)*gt_sets/train\.txt"):
        Nyud(tmp_path / "elsewhere", "train", ["semseg"])
    with pytest.raises(ConfigError, match=r"there is no .*gt_sets/test\.txt"):
        Nyud(nyud, "test", ["semseg"])
    with pytest.raises(ConfigError, match="no labels for human_parts; it has them for semseg, depth"):
        Nyud(nyud, "train", ["human_parts"])
    with pytest.raises(ConfigError, match="3 pictures in split 'train', 9 wanted"):
        Nyud(nyud, "train", ["semseg"], count=9)
    for file in (nyud / "edge").iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match=r"no .*edge/0003\.npy and 2 others"):
        Nyud(nyud, "train", ["edge"])
    with pytest.raises(ConfigError, match=r"data\.root"):
        data.source(DataConfig(name="nyud"), "train", TASK_SETS["nyud"])


def test_a_label_of_another_size(nyud: Path) -> None:
    small = put(nyud / "segmentation/0003.png", np.arange(1, 7, dtype=np.uint8).reshape(2, 3))
    sample = Nyud(nyud, "train", ["semseg"])[0]
    np.testing.assert_array_equal(sample["semseg"], np.kron(small, np.ones((6, 6), int)) - 1)


# ---- PASCAL-Context ---------------------------------------------------------------------------------


def structs(fields: str, *rows: tuple[Any, ...]) -> Any:
    """A MATLAB array of structs, [1, N]."""
    out = np.empty((1, len(rows)), [(name, object) for name in fields.split()])
    for i, row in enumerate(rows):
        out[0, i] = row
    return out


@pytest.fixture
def pascal(tmp_path: Path) -> Path:
    root = tmp_path / "PASCAL_MT"
    put(root / "ImageSets/Context/val.txt", "2008_01\n2008_02\n")
    for number, name in enumerate(("2008_01", "2008_02")):
        random = np.random.default_rng(number)
        put(root / f"JPEGImages/{name}.jpg", np.full((H, W, 3), 99, np.uint8))
        put(
            root / f"semseg/{'pascal-context' if number else 'VOC12'}/{name}.png", np.full((H, W), 5 + number, np.uint8)
        )
        put(root / f"sal_distill/{name}.png", random.integers(0, 256, (H, W)).astype(np.uint8))
        put(root / f"normals_distill/{name}.png", random.integers(0, 256, (H, W, 3)).astype(np.uint8))
        context = np.full((H, W), 440, np.uint16)  # a wall
        context[:, 9:] = 187  # grass
        context[5:] = 397  # a table
        put(root / f"pascal-context/trainval/{name}.mat", {"LabelMap": context})
    mask = np.zeros((5, H, W), np.uint8)
    mask[0, 2:4], mask[1, 6:, :3], mask[2, 6:, 3:5], mask[3, :2], mask[4, 8:, 10:] = 1, 1, 1, 1, 1
    person = structs("part_name mask", ("hair", mask[0]), ("llarm", mask[1]), ("rhand", mask[2]))
    other = structs("part_name mask", ("torso", mask[3]))  # of a second person
    leg = structs("part_name mask", ("rfoot", mask[4]))  # of a horse
    objects = structs(
        "class class_ind mask parts",
        ("person", 15, mask.max(0), person), ("horse", 13, mask[4], leg), ("person", 15, mask[3], other),
        ("person", 15, mask[4], np.zeros((0, 0))),
    )  # fmt: skip
    put(root / "human_parts/2008_01.mat", {"anno": structs("imname objects", ("2008_01", objects))})
    lonely = structs("class class_ind mask parts", ("horse", 13, mask[4], leg))
    put(root / "human_parts/2008_02.mat", {"anno": structs("imname objects", ("2008_02", lonely))})
    return root


def test_pascal(pascal: Path) -> None:
    source = Pascal(pascal, "val", ["semseg", "human_parts", "sal", "edge", "normals"])
    assert [source.name(i) for i in range(len(source))] == ["2008_01", "2008_02"]
    one, two = source[0], source[1]
    assert (one["semseg"] == 5).all()
    assert (two["semseg"] == 6).all()

    parts = np.zeros((H, W), int)
    parts[2:4], parts[6:, :3], parts[6:, 3:5], parts[:2] = 1, 4, 4, 2
    np.testing.assert_array_equal(one["human_parts"], parts)
    assert (two["human_parts"] == IGNORE).all()  # nobody is there
    assert two["human_parts"].shape == (H, W)

    with Image.open(pascal / "sal_distill/2008_01.png") as file:
        np.testing.assert_array_equal(one["sal"], np.array(file) / 255 > 0.5)
    with Image.open(pascal / "normals_distill/2008_01.png") as file:
        normals = 2 * (np.array(file) / 255) - 1
    normals[..., 1] *= -1
    normals[:5, 9:] = 0  # the network that found them knows no grass
    np.testing.assert_allclose(one["normals"], normals, atol=1e-6)

    # The 4-neighbour Laplacian of the class numbers, mirrored about the outermost pixels.
    context = np.full((H, W), 440.0)
    context[:, 9:] = 187
    context[5:] = 397
    changes = np.zeros((H, W), bool)
    for y in range(H):
        for x in range(W):
            around = [(abs(y - 1), x), (min(y + 1, 2 * H - 3 - y), x), (y, abs(x - 1)), (y, min(x + 1, 2 * W - 3 - x))]
            changes[y, x] = sum(context[p] for p in around) != 4 * context[y, x]
    np.testing.assert_array_equal(one["edge"], thin(changes))
    assert 0 < one["edge"].sum() < changes.sum()
    assert {str(one[k].dtype) for k in ("image", "semseg", "human_parts", "sal", "edge")} == {"uint8"}


def test_pascal_says_both_places_of_a_class_map(pascal: Path) -> None:
    (pascal / "semseg/VOC12/2008_01.png").unlink()
    with pytest.raises(ConfigError, match=r"VOC12/2008_01\.png or .*pascal-context/2008_01\.png"):
        Pascal(pascal, "val", ["semseg"])
    assert len(Pascal(pascal, "val", ["sal"])) == 2


# ---- Cityscapes -------------------------------------------------------------------------------------


def test_cityscapes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, city, number in (("train", "ulm", 1), ("train", "aachen", 2), ("val", "lindau", 3)):
        where, name = f"{split}/{city}", f"{city}_00000{number}_000019"
        put(tmp_path / f"leftImg8bit/{where}/{name}_leftImg8bit.png", np.full((H, W, 3), number, np.uint8))
        put(
            tmp_path / f"gtFine/{where}/{name}_gtFine_labelIds.png",
            (np.arange(H * W) % 34).reshape(H, W).astype(np.uint8),
        )
        put(tmp_path / f"disparity/{where}/{name}_disparity.png", random.integers(0, 20000, (H, W)).astype(np.uint16))
        camera = {"extrinsic": {"baseline": 0.2}, "intrinsic": {"fx": 2000.0}}
        put(tmp_path / f"camera/{where}/{name}_camera.json", json.dumps(camera))
    path = tmp_path / "disparity/train/aachen/aachen_000002_000019_disparity.png"
    with Image.open(path) as file:
        disparity = np.array(file)
    disparity[0, :4] = 0, 1, 257, 1 + 256 * 8
    put(path, disparity)

    source = Cityscapes(tmp_path, "train", ["semseg", "depth"])
    assert [source.name(i) for i in range(len(source))] == ["aachen_000002_000019", "ulm_000001_000019"]
    sample = source[0]
    assert (sample["image"] == 2).all()
    classes = (
        "road sidewalk building wall fence pole light sign vegetation terrain sky person rider car truck bus train"
    )
    numbers = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert len(numbers) == len(classes.split()) + 2  # motorcycle, bicycle
    expected = [numbers.index(i % 34) if i % 34 in numbers else IGNORE for i in range(H * W)]
    np.testing.assert_array_equal(sample["semseg"].ravel(), expected)

    # Z = baseline · focal length / disparity; 400 m · pixels here; 1 pixel is 400 m, farther than what counts
    np.testing.assert_allclose(sample["depth"][0, :4], [0, 0, 0, 50])
    known = sample["depth"] > 0
    np.testing.assert_allclose(sample["depth"][known], 400 / ((disparity[known] - 1.0) / 256), rtol=1e-5)
    np.testing.assert_array_equal(known, disparity.astype(float) - 1 >= 256 * 400 / 300)

    with pytest.raises(ConfigError, match=r"no folder .*leftImg8bit/test"):
        Cityscapes(tmp_path, "test", ["semseg"])
    (tmp_path / "camera/val/lindau/lindau_000003_000019_camera.json").unlink()
    assert len(Cityscapes(tmp_path, "val", ["semseg"])) == 1
    with pytest.raises(ConfigError, match=r"camera/val/lindau(.|\n)*baseline"):
        Cityscapes(tmp_path, "val", ["depth"])


# ---- transforms -------------------------------------------------------------------------------------


def places(height: int, width: int) -> dict[str, Any]:
    """A sample in which every pixel says where it is."""
    y, x = np.mgrid[0:height, 0:width]
    normals = np.stack([np.cos(x), np.sin(x) * np.cos(y), np.sin(x) * np.sin(y)], -1).astype(np.float32)
    return {
        "image": np.stack([4 * x, 4 * y, 2 * x + 2 * y], -1).astype(np.uint8),
        "semseg": y.astype(np.uint8),
        "human_parts": x.astype(np.uint8),
        "sal": ((x + y) % 2).astype(np.uint8),
        "edge": (x % 3 == 0).astype(np.uint8),
        "normals": normals,
        "depth": (1 + x + 100 * y).astype(np.float32),
    }


def where(sample: dict[str, Any]) -> tuple[Any, Any]:
    return sample["semseg"].astype(int), sample["human_parts"].astype(int)


def follow(before: dict[str, Any], after: dict[str, Any]) -> Any:
    """All labels came from one place; where there is one at all."""
    y, x = where(after)
    known = y != IGNORE
    np.testing.assert_array_equal(known, x != IGNORE)
    for name in ("sal", "edge"):
        np.testing.assert_array_equal(after[name][known], before[name][y[known], x[known]])
        assert (after[name][~known] == IGNORE).all()
    assert not after["depth"][~known].any()
    assert not after["normals"][~known].any()
    return known


def test_flip() -> None:
    before, kept = places(6, 9), 0
    for seed in range(200):
        after = transforms.flip(before, np.random.default_rng(seed))
        y, x = where(after)
        if (x == where(before)[1]).all():
            kept += 1
            continue
        assert follow(before, after).all()
        np.testing.assert_array_equal(x, where(before)[1][:, ::-1])
        np.testing.assert_array_equal(after["image"], before["image"][y, x])
        np.testing.assert_array_equal(after["depth"], before["depth"][y, x])
        np.testing.assert_array_equal(after["normals"], before["normals"][y, x] * [-1, 1, 1])
    assert 75 < kept < 125
    assert all((before[k] == v).all() for k, v in places(6, 9).items())  # not changed in place


def test_resize_keeps_values_of_classes_and_depth() -> None:
    before = places(8, 12)
    after = transforms.resize(before, 16, 36)
    assert follow(before, after).all()
    y, x = where(after)
    np.testing.assert_array_equal(y, np.broadcast_to(np.arange(16)[:, None] // 2, y.shape))
    np.testing.assert_array_equal(x, np.broadcast_to(np.arange(36) // 3, x.shape))
    np.testing.assert_array_equal(after["depth"], before["depth"][y, x])
    ramp = 4 * ((np.arange(36) + 0.5) / 3 - 0.5)  # a ramp stays one, but for its ends
    np.testing.assert_allclose(after["image"][3, 3:-3, 0], ramp[3:-3], atol=0.51)
    assert {k: v.dtype for k, v in after.items()} == {k: v.dtype for k, v in before.items()}


def test_unknown_normals_are_left_out_of_means() -> None:
    normals = np.zeros((8, 8, 3), np.float32)
    normals[:, :6] = 0.6, 0.0, 0.8
    sample = {"image": np.zeros((8, 8, 3), np.uint8), "normals": normals}
    small = transforms.resize(sample, 4, 4)["normals"]
    known = small.any(-1)
    np.testing.assert_array_equal(known, np.broadcast_to([True, True, True, False], (4, 4)))
    np.testing.assert_allclose(small[known], np.broadcast_to([0.6, 0, 0.8], small[known].shape), atol=1e-6)


@pytest.mark.parametrize("middle", [False, True])
def test_scale_and_crop(middle: bool) -> None:
    before = places(30, 60)
    seen = Counter[float]()
    for seed in range(60):
        crop = transforms.ScaleCrop(30, 60, (1.0, 1.5, 2.0), middle)
        after = crop(before, np.random.default_rng(seed))
        assert follow(before, after).all()
        y, x = where(after)
        ratio = before["depth"][y, x] / after["depth"]
        factor = float(ratio.mean())
        np.testing.assert_allclose(ratio, factor, rtol=1e-5)
        seen[round(factor, 3)] += 1
        top, left = y[0, 0], x[0, 0]
        rows = ((np.arange(30) + 0.5) / factor).astype(int) + top
        np.testing.assert_array_equal(y, np.broadcast_to(rows[:, None], y.shape))
        columns = ((np.arange(60) + 0.5) / factor).astype(int) + left
        np.testing.assert_array_equal(x, np.broadcast_to(columns, x.shape))
        if middle:
            assert (top, left) == ((30 - int(30 / factor)) // 2, (60 - int(60 / factor)) // 2)
        across = np.abs(after["image"][..., 0] / 4 - ((np.arange(60) + 0.5) / factor - 0.5 + left))
        assert across[:, 2:-2].max() < 0.2  # the picture moved with the labels
    assert set(seen) == {1.0, 1.5, 2.0}


def test_a_crop_of_a_large_picture() -> None:
    """Made smaller at once: how far things are depends on the window alone."""
    before = places(40, 60)
    for seed in range(10):
        after = transforms.ScaleCrop(10, 15, (2.0,))(before, np.random.default_rng(seed))
        assert follow(before, after).all()
        y, x = where(after)
        assert (np.diff(y, axis=0) == 2).all()
        assert (np.diff(x, axis=1) == 2).all()
        np.testing.assert_allclose(after["depth"], before["depth"][y, x] / 2)
        assert np.abs(after["image"][1:-1, 1:-1, 1] / 4.0 - y[1:-1, 1:-1]).max() <= 1


def test_a_quarter_turn_is_exact() -> None:
    before = places(16, 16)
    after = transforms.rotate(before, 1.0, np.pi / 2)
    assert follow(before, after).all()
    for name in ("image", "semseg", "depth"):
        np.testing.assert_array_equal(after[name], np.rot90(before[name], -1))
    x, y, z = np.moveaxis(np.rot90(before["normals"], -1), -1, 0)
    np.testing.assert_allclose(after["normals"], np.stack([y, -x, z], -1), atol=1e-6)  # up becomes right


def test_rotation_is_that_of_the_camera() -> None:
    """What turns the picture clockwise is a camera that rolls the other way: also for depth and normals."""
    scene, _ = rooms.scene_of(0, "train", 3)
    size, angle = 64, 0.3

    def sample() -> dict[str, Any]:
        r = render.render(scene, size, size)
        image = np.rint(r.colour * 255).astype(np.uint8)
        return {"image": image, "semseg": r.label, "depth": r.depth, "normals": r.normals}

    turned = transforms.rotate(sample(), 1.0, angle)
    scene.camera.rotation = scene.camera.rotation @ render.turn(0, 0, angle)
    rolled = sample()
    same = (turned["semseg"] == rolled["semseg"]) & (turned["semseg"] != IGNORE)
    assert same.sum() > 0.95 * (turned["semseg"] != IGNORE).sum()
    cosine = (turned["normals"] * rolled["normals"]).sum(-1)[same & (rolled["depth"] > 0)]
    assert np.median(cosine) > 0.9999
    assert (cosine > 0.99).mean() > 0.95
    near = np.isclose(turned["depth"], rolled["depth"], rtol=0.05)[same]
    assert near.mean() > 0.95
    assert np.median(np.abs(turned["image"].astype(int) - rolled["image"])[same]) <= 3


def test_scale_and_rotate() -> None:
    before = places(24, 40)
    ratios, shares = [], []
    for seed in range(30):
        after = transforms.ScaleRotate()(before, np.random.default_rng(seed))
        known = follow(before, after)
        y, x = where(after)
        y, x = y[known], x[known]
        ratios.append(float(np.median(before["depth"][y, x] / after["depth"][known])))
        shares.append(known.mean())
        assert known[12, 20]
        assert abs(y.mean() - 11.5) < 3
        np.testing.assert_allclose(  # turned about the line of sight, with the angle between normal and it kept
            after["normals"][known][:, 2], before["normals"][y, x, 2], atol=1e-6
        )
        length = np.linalg.norm(after["normals"][known], axis=-1)
        np.testing.assert_allclose(length, 1, atol=1e-5)
        assert {k: v.dtype for k, v in after.items()} == {k: v.dtype for k, v in before.items()}
    assert 0.75 <= min(ratios) < 0.85
    assert 1.15 < max(ratios) <= 1.25
    assert np.corrcoef(ratios, shares)[0, 1] > 0.5  # what was made smaller leaves a border that is not judged


def test_colours() -> None:
    before = places(8, 8)
    same = transforms.Colours(0.0)(before, np.random.default_rng(0))
    assert np.abs(same["image"].astype(int) - before["image"]).max() <= 1
    changed = [transforms.Colours()(before, np.random.default_rng(seed)) for seed in range(20)]
    assert len({c["image"].tobytes() for c in changed}) == 20
    assert all(c["semseg"] is before["semseg"] for c in changed)
    grey = {"image": np.full((4, 4, 3), 100, np.uint8)}  # has neither contrast nor saturation
    values = [transforms.Colours(0.2)(grey, np.random.default_rng(seed))["image"] for seed in range(50)]
    assert all((v == v[0, 0, 0]).all() for v in values)
    assert 80 <= min(v.min() for v in values) < 90
    assert 110 < max(v.max() for v in values) <= 120


def test_tensors() -> None:
    sample = places(5, 7)
    out = transforms.tensors(sample)
    assert {k: (v.dtype, tuple(v.shape)) for k, v in out.items()} == {
        "image": (torch.float32, (3, 5, 7)),
        "semseg": (torch.int64, (5, 7)),
        "human_parts": (torch.int64, (5, 7)),
        "sal": (torch.int64, (5, 7)),
        "edge": (torch.float32, (1, 5, 7)),
        "normals": (torch.float32, (3, 5, 7)),
        "depth": (torch.float32, (1, 5, 7)),
    }
    image = (sample["image"] / 255 - MEAN) / STD
    np.testing.assert_allclose(out["image"].permute(1, 2, 0).numpy(), image, rtol=1e-4, atol=1e-5)
    whole = {"normals": np.array([[[0, 60, -80], [0, 0, 0]]], np.int8)}
    np.testing.assert_allclose(transforms.tensors(whole)["normals"][:, 0, 0], [0, 0.6, -0.8], atol=1e-6)
    assert not transforms.tensors(whole)["normals"][:, 0, 1].any()


# ---- samples and their order ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return DataConfig(height=16, width=32, train=11, val=3, cache=str(tmp_path_factory.mktemp("rooms")))


def equal(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_chance_depends_on_seed_epoch_and_sample(cached: DataConfig) -> None:
    train = data.build_dataset(cached, "train", TASK_SETS["rooms"], seed=1)
    again = data.build_dataset(cached, "train", TASK_SETS["rooms"], seed=1)
    assert set(train[0]) == {"image", *(t.name for t in TASK_SETS["rooms"])}
    assert equal(train[2, 5], again[2, 5])
    assert not equal(train[2, 5], train[3, 5])
    assert not equal(train[2, 5], data.build_dataset(cached, "train", TASK_SETS["rooms"], seed=2)[2, 5])
    val = data.build_dataset(cached, "val", TASK_SETS["rooms"][:2])
    assert (len(train), len(val), val.name(1)) == (11, 3, "val-000001")
    assert set(val[0]) == {"image", "semseg", "depth"}
    assert equal(val[0], transforms.tensors({k: rooms.make(0, "val", 0, 16, 32)[k] for k in val[0]}))
    plain = DataConfig(**{**vars(cached), "augment": False})
    unchanged = data.build_dataset(plain, "train", TASK_SETS["rooms"])
    assert equal(unchanged[0, 4], unchanged[9, 4])


@pytest.mark.parametrize("name", ["nyud", "pascal"])
def test_folders_as_samples(name: str, nyud: Path, pascal: Path) -> None:
    root, split = (nyud, "train") if name == "nyud" else (pascal, "val")
    config = DataConfig(name=name, root=str(root), height=20, width=24)
    tasks = TASK_SETS[name]
    val = data.build_dataset(config, split, tasks)[0]
    augmented = data.Samples(data.source(config, split, tasks), tasks, (20, 24), data.augmentation(config))
    for sample in (val, augmented[0, 0], augmented[1, 1]):
        assert set(sample) == {"image", *(t.name for t in tasks)}
        assert {tuple(v.shape[-2:]) for v in sample.values()} == {(20, 24)}
        length = sample["normals"].norm(dim=0)
        assert torch.all((length < 1e-6) | ((length - 1).abs() < 1e-4))
    if name == "pascal":
        put(root / "ImageSets/Context/train.txt", "2008_01\n")
    trained = data.build_dataset(config, "train", tasks)
    assert not equal(trained[0, 0], trained[1, 0])


def test_order_has_every_picture_once() -> None:
    batches = list(data.Order(count=23, batch=4, seed=3, epoch=2))
    assert len(batches) == len(data.Order(23, 4, 3, 2)) == 5
    assert all(epoch == 2 for batch in batches for epoch, _ in batch)
    numbers = [n for batch in batches for _, n in batch]
    assert len(numbers) == len(set(numbers)) == 20
    assert set(numbers) < set(range(23))
    assert sorted(n for b in data.Order(24, 4, 3, 2) for _, n in b) == list(range(24))
    assert batches == list(data.Order(23, 4, 3, 2))
    assert [n for b in data.Order(23, 4, 3, 3) for _, n in b] != numbers
    assert [n for b in data.Order(23, 4, 4, 2) for _, n in b] != numbers


def test_order_goes_on_and_is_shared_out() -> None:
    whole = list(data.Order(24, 4, 0, 1))
    for start in range(7):
        rest = data.Order(24, 4, 0, 1, start)
        assert list(rest) == whole[start:]
        assert len(rest) == len(whole) - start
    parts = [list(data.Order(24, 4, 0, 1, part=p)) for p in (range(0, 2), range(2, 3), range(3, 4), range(0))]
    joined = [[n for share in batches for n in share] for batches in zip(*parts, strict=True)]
    assert joined == whole


def test_workers_change_nothing(cached: DataConfig) -> None:
    train = data.build_dataset(cached, "train", TASK_SETS["rooms"])
    order = data.Order(len(train), 3, 0, 0)
    alone = list(DataLoader(train, batch_sampler=order))
    helped = list(DataLoader(train, batch_sampler=order, num_workers=2))
    assert len(alone) == len(helped) == 3
    assert all(equal(a, b) for a, b in zip(alone, helped, strict=True))
    assert alone[0]["image"].shape == (3, 3, 16, 32)


def test_an_unknown_task_is_named(nyud: Path) -> None:
    with pytest.raises(ConfigError, match="no labels for sal"):
        data.source(DataConfig(name="nyud", root=str(nyud)), "train", [Task("sal", 2)])


# ---- fetching ---------------------------------------------------------------------------------------


class Server(http.server.BaseHTTPRequestHandler):
    """Gives `content`, from where a request says; of the first replies only so many bytes."""

    content = b""
    cut: list[int]
    starts: list[int]
    ranges = True

    def do_GET(self) -> None:
        if not self.path.endswith(".tar"):
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
        self.starts.append(start)
        if start >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        end = start + self.cut.pop(0) if self.cut else len(self.content)
        self.wfile.write(self.content[start:end])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[Server], str]]:
    class Mine(Server):
        cut: list[int] = []  # noqa: RUF012
        starts: list[int] = []  # noqa: RUF012

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mine) as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.01,))
        thread.start()
        yield Mine, f"http://127.0.0.1:{service.server_address[1]}/data/set.tar"
        service.shutdown()
        thread.join()


def tar_of(members: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in more:
            archive.addfile(info)
    return buffer.getvalue()


def sha(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_a_download_that_broke_off_goes_on(server: tuple[type[Server], str], tmp_path: Path) -> None:
    handler, url = server
    handler.content = tar_of({"Set/a/one.txt": b"1" * 5000, "Set/two.txt": b"2", "Other/three.txt": b"3"})
    handler.cut = [700, 2000]
    archive = fetch.Archive(url, sha(handler.content), {"Set/a/": "images/", "Set/": ""})
    assert fetch.fetch(archive, tmp_path) == 2
    assert handler.starts == [0, 700, 2700]
    unpacked = {"images/one.txt": b"1" * 5000, "two.txt": b"2"}
    assert files(tmp_path) == {**unpacked, "downloads/set.tar": handler.content}
    assert fetch.fetch(archive, tmp_path) == 2  # nothing is left to do
    assert len(handler.starts) == 3
    (tmp_path / "two.txt").unlink()
    (tmp_path / "downloads/set.tar").rename(tmp_path / "downloads/set.tar.part")
    fetch.fetch(archive, tmp_path)  # was whole, but not yet checked
    assert files(tmp_path) == {**unpacked, "downloads/set.tar": handler.content}


def test_a_server_that_cannot_go_on(server: tuple[type[Server], str], tmp_path: Path) -> None:
    handler, url = server
    handler.content, handler.ranges, handler.cut = tar_of({"a": b"x" * 100}), False, [50]
    fetch.download(url, tmp_path / "a.tar", sha(handler.content))
    assert (tmp_path / "a.tar").read_bytes() == handler.content
    handler.cut = [50] * 9
    with pytest.raises(fetch.FetchError, match="broke off"):
        fetch.download(url, tmp_path / "b.tar", sha(handler.content))


def test_a_wrong_checksum_leaves_nothing(server: tuple[type[Server], str], tmp_path: Path) -> None:
    handler, url = server
    handler.content = tar_of({"a": b"x"})
    with pytest.raises(fetch.FetchError, match=r"sha256 [0-9a-f]{64}, not 00"):
        fetch.fetch(fetch.Archive(url, "sha256:00", {"": ""}), tmp_path)
    assert files(tmp_path) == {}
    with pytest.raises(fetch.FetchError, match="KIND:HEX"):
        fetch.fetch(fetch.Archive(url, "00", {"": ""}), tmp_path)
    with pytest.raises(fetch.FetchError, match="404"):
        fetch.download(url + "x", tmp_path / "x", "sha256:00")
    with pytest.raises(fetch.FetchError, match="not of http"):
        fetch.download("ftp://127.0.0.1/x", tmp_path / "x", "sha256:00")


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/out.txt", "a\\..\\out.txt", "c:/out.txt"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_lead_out_are_refused(name: str, kind: str, tmp_path: Path) -> None:
    path, root = tmp_path / f"bad.{kind}", tmp_path / "root"
    if kind == "tar":
        path.write_bytes(tar_of({name: b"!"}))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"!")
    with pytest.raises(fetch.FetchError, match="does not stay"):
        fetch.unpack(path, root, {"": ""})
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [path.name]


def test_links_are_left_out(tmp_path: Path) -> None:
    link, hard = tarfile.TarInfo("folder"), tarfile.TarInfo("hard")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    hard.type, hard.linkname = tarfile.LNKTYPE, "/etc/hostname"
    path, root = tmp_path / "links.tar", tmp_path / "root"
    path.write_bytes(tar_of({"./kept.txt": b"k"}, link, hard))
    assert fetch.unpack(path, root, {"": ""}) == 1
    assert files(root) == {"kept.txt": b"k"}
    assert not (root / "folder").exists()
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as archive:
        info = zipfile.ZipInfo("folder")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, str(tmp_path))
        archive.writestr("empty/", b"")
        archive.writestr("kept.txt", b"k")
    assert fetch.unpack(tmp_path / "links.zip", tmp_path / "zip", {"": ""}) == 1
    assert files(tmp_path / "zip") == {"kept.txt": b"k"}
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(fetch.FetchError, match=r"links\.tar"):
        fetch.unpack(path, root / "again", {"": ""})


def test_the_command(nyud: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An archive of the whole becomes a folder that the data set reads."""
    archive = tmp_path / "NYUD_MT.tgz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(nyud, "NYUD_MT")
    root, checksum = tmp_path / "data" / "nyud", sha(archive.read_bytes())
    assert fetch.main(["nyud", "--root", str(root), "--archive", str(archive), "--checksum", checksum]) == 0
    assert "22 files" in capsys.readouterr().out
    assert len(Nyud(root, "train", ["semseg", "depth", "normals", "edge"])) == 3
    url = archive.as_uri()
    assert fetch.main(["nyud", "--root", str(tmp_path / "two"), "--archive", url, "--checksum", checksum]) == 0
    assert len(Nyud(tmp_path / "two", "val", ["depth"])) == 1
    capsys.readouterr()
    assert fetch.main(["nyud", "--root", str(root), "--archive", url]) == 1
    assert "needs a --checksum" in capsys.readouterr().err
    assert fetch.main(["nyud", "--root", str(root), "--archive", str(archive), "--checksum", "md5:1"]) == 1
    assert "not 1" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nyud", "cityscapes"])
def test_what_cannot_be_fetched_is_said(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch.main([name, "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert fetch.SOURCES[name].layout in out
    assert {"nyud": "NYUD_MT.tgz", "cityscapes": "disparity_trainvaltest.zip"}[name] in out


def test_checksums_are_of_a_known_form() -> None:
    for source in fetch.SOURCES.values():
        for archive in source.archives:
            kind, _, value = archive.checksum.partition(":")
            assert len(value) == 2 * hashlib.new(kind).digest_size
            assert set(value) <= set("0123456789abcdef")
