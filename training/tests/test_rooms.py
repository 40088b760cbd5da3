"""Rooms: the ray caster against closed forms and rays met one by one, and what the labels promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from m3vit.data import render, rooms
from m3vit.data.render import BALL, BOX, CYLINDER, ROOM, Camera, Light, Material, Scene, Solid, turn

GREY = Material((0.5, 0.5, 0.5))
AHEAD = Camera((0.0, 0.0, 0.0), turn(0), 1.0)
SIZE = 40, 56


def scene_of(*solids: Solid, camera: Camera = AHEAD, lights: tuple[Light, ...] = ()) -> Scene:
    return Scene(list(solids), camera, list(lights), (0.4, 0.4, 0.4), ((0, 0, 0), (0, 0, 0)), sky_label=20)


def rays(camera: Camera, height: int, width: int) -> Any:
    """Of a pinhole camera, in its own frame (x right, y up, z ahead), 1 along the axis: [H, W, 3]."""
    out = np.ones((height, width, 3))
    for row in range(height):
        for column in range(width):
            out[row, column, 0] = (column + 0.5 - width / 2) / (camera.focal * height)
            out[row, column, 1] = (height / 2 - row - 0.5) / (camera.focal * height)
    return out


def meet(solid: Solid, origin: Any, direction: Any) -> tuple[Any, Any]:
    """Where rays [N, 3] first meet a solid's surface, by trying each of its faces: distance [N], normal [N, 3]."""
    size, turned = np.asarray(solid.size, float), np.asarray(solid.rotation, float)
    o = (origin - np.asarray(solid.centre)) @ turned / size
    d = direction @ turned / size
    best, normal = np.full(len(d), np.inf), np.zeros_like(d)

    def face(t: Any, valid: Any, n: Any) -> None:
        nearer = valid & (t > 1e-3) & (t < best)
        best[nearer] = t[nearer]
        normal[nearer] = np.broadcast_to(n, d.shape)[nearer]

    with np.errstate(all="ignore"):
        if solid.shape in (BOX, ROOM):
            for axis in range(3):
                for side in (-1, 1):
                    t = (side - o[:, axis]) / d[:, axis]
                    others = np.delete(o + t[:, None] * d, axis, 1)
                    outward = np.eye(3)[axis] * (side if solid.shape == BOX else -side)
                    face(t, (np.abs(others) <= 1).all(1), outward)
        round_ = [0, 1, 2] if solid.shape == BALL else [0, 2]
        if solid.shape in (BALL, CYLINDER):
            a, b, c = (d[:, round_] ** 2).sum(1), (o * d)[:, round_].sum(1), (o[:, round_] ** 2).sum(1) - 1
            for sign in (-1, 1):
                t = (-b + sign * np.sqrt(b * b - a * c)) / a
                p = o + t[:, None] * d
                n = np.where(np.isin(np.arange(3), round_), p, 0)
                face(t, (b * b > a * c) & ((np.abs(p[:, 1]) <= 1) | (solid.shape == BALL)), n)
        if solid.shape == CYLINDER:
            for side in (-1, 1):
                t = (side - o[:, 1]) / d[:, 1]
                p = o + t[:, None] * d
                face(t, (p[:, 0] ** 2 + p[:, 2] ** 2) <= 1, np.array([0, side, 0]))
    normal = normal / size @ turned.T
    return best, normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)


def compare(scene: Scene, height: int, width: int, wrong: float = 0.002) -> None:
    """A rendering with rays met one by one; `wrong`: share of pixels on an outline that may fall on its other side."""
    r = render.render(scene, height, width)
    inside = rays(scene.camera, height, width).reshape(-1, 3)
    direction = inside @ np.asarray(scene.camera.rotation, float).T
    origin = np.broadcast_to(np.asarray(scene.camera.position, float), direction.shape)
    met = [meet(s, origin, direction) for s in scene.solids]
    distance = np.stack([t for t, _ in met])
    first = distance.argmin(0)
    depth = distance.min(0)
    seen = np.isfinite(depth)
    normal = np.stack([n for _, n in met])[first, np.arange(len(first))] @ np.asarray(scene.camera.rotation, float)
    normal = np.where(seen[:, None], normal * [1, 1, -1], 0)  # z towards the viewer
    depth = np.where(seen, depth, 0)

    same = np.isclose(r.depth.ravel(), depth, rtol=1e-3, atol=1e-3)
    assert (~same).mean() <= wrong
    alone = same & (np.sort(distance, 0)[:2].min(0) > 0)
    if len(distance) > 1:
        near = np.sort(distance, 0)
        with np.errstate(invalid="ignore"):
            alone &= ~(near[1] - near[0] < 2e-3)  # two solids in one place: either may be seen
    across = np.abs(r.normals.reshape(-1, 3) - normal).max(1)
    assert (across[alone] > 0.02).mean() <= wrong  # at an edge of a box either face may be met
    labels = np.array([s.label for s in scene.solids], np.uint8)
    expected = np.where(seen, labels[first], scene.sky_label)
    assert (r.label.ravel()[alone] != expected[alone]).mean() <= wrong


# ---- the ray caster ---------------------------------------------------------------------------------


def test_a_ball() -> None:
    centre, radius = np.array([0.3, -0.2, 4.0]), 1.1
    r = render.render(scene_of(Solid(BALL, tuple(centre), (radius,) * 3, GREY)), *SIZE)
    d = rays(AHEAD, *SIZE)
    # |t d - c|² = r², the smaller root
    a, b, c = (d * d).sum(-1), (d * centre).sum(-1), centre @ centre - radius**2
    root = b * b - a * c
    clear = np.abs(root) > 1e-3
    hit = root > 0
    assert ((r.depth > 0) == hit)[clear].all()
    assert hit.sum() > 200
    t = (b - np.sqrt(np.maximum(root, 0))) / a
    inside = hit & clear
    np.testing.assert_allclose(r.depth[inside], t[inside], rtol=1e-4)
    normal = (t[..., None] * d - centre) / radius * [1, 1, -1]
    np.testing.assert_allclose(r.normals[inside], normal[inside], atol=2e-3)
    middle = round(20 + 0.2 / 4 * 40), round(28 + 0.3 / 4 * 40)
    assert r.depth[middle] == pytest.approx(np.sqrt(centre @ centre) - radius, abs=0.1)
    assert r.normals[middle][2] > 0.95


@pytest.mark.parametrize("shape", [BALL, BOX, CYLINDER])
def test_turned_and_stretched_solids(shape: int) -> None:
    random = np.random.default_rng(shape)
    for _ in range(4):
        where = tuple(random.uniform([-1.0, -0.6, 2.5], [1.0, 0.6, 6.0]))
        size = tuple(random.uniform(0.2, 1.0, 3))
        solid = Solid(shape, where, size, GREY, turn(*random.uniform(-3, 3, 3)), label=3)
        compare(scene_of(solid), *SIZE, wrong=0.004)


def test_a_room_is_seen_from_within() -> None:
    compare(scene_of(Solid(ROOM, (0.2, 0.3, 1.0), (2.0, 1.5, 3.0), GREY, turn(0.4))), *SIZE)


def test_solids_near_and_beside_the_camera() -> None:
    """Bounding windows must not cut anything off."""
    near = [
        Solid(BOX, (0.6, 0.0, 0.5), (0.3, 2.0, 0.2), GREY),
        Solid(CYLINDER, (-3.0, -0.5, 1.0), (0.4, 3.0, 0.4), GREY, turn(0, 0.2, 1.5)),
        Solid(BOX, (0.0, -1.2, 10.0), (3.0, 0.3, 12.0), GREY),
        Solid(BALL, (1.2, 0.0, 1.7), (1.0, 1.0, 1.0), GREY),
        Solid(BALL, (0.0, -1.0, 1.7), (1.0, 1.0, 1.0), GREY),
        Solid(BALL, (0.0, 0.0, -3.0), (1.0, 1.0, 1.0), GREY),
    ]
    wide = Camera((0.0, 0.0, 0.0), turn(0), 0.25)
    for solid in near:
        compare(scene_of(solid), *SIZE, wrong=0.004)
        compare(scene_of(solid, camera=wide), *SIZE, wrong=0.004)
    assert not render.render(scene_of(near[-1]), *SIZE).depth.any()


@pytest.mark.parametrize("index", range(6))
def test_whole_scenes(index: int) -> None:
    scene, _ = rooms.scene_of(1, "train", index)
    compare(scene, 20, 36, wrong=0.01)


def test_the_camera_turned() -> None:
    """Camera and world turned together about the camera: the same picture in the camera's frame."""
    about = turn(0.7, -0.3, 0.4)
    solids = [
        Solid(BOX, (-0.5, 0.2, 3.0), (0.5, 0.4, 0.3), GREY, turn(0.3, 0.2, 0.1)),
        Solid(BALL, (0.7, -0.2, 4.0), (0.5, 0.8, 0.6), GREY),
    ]
    moved = [
        Solid(s.shape, tuple(about @ np.asarray(s.centre)), s.size, GREY, (about @ s.rotation).astype(np.float32))
        for s in solids
    ]
    one = render.render(scene_of(*solids), *SIZE)
    two = render.render(scene_of(*moved, camera=Camera((0.0, 0.0, 0.0), about, 1.0)), *SIZE)
    same = np.isclose(one.depth, two.depth, atol=1e-3)
    assert same.mean() > 0.998
    assert np.abs(one.normals - two.normals).max(-1)[same].max() < 5e-3


def test_turn_is_a_rotation() -> None:
    m = turn(0.5, 0.2, -0.9).astype(float)
    np.testing.assert_allclose(m @ m.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(m) == pytest.approx(1)
    np.testing.assert_allclose(turn(np.pi / 2) @ [0, 0, 1], [1, 0, 0], atol=1e-6)  # yaw: from ahead to the right
    np.testing.assert_allclose(turn(0, 0.1) @ [0, 0, 1], [0, -np.sin(0.1), np.cos(0.1)], atol=1e-6)  # pitch: down


@pytest.mark.parametrize("sun", [True, False])
def test_shadows(sun: bool) -> None:
    """A ball over a floor: under the sun a disc of its radius is dark, under a lamp one that grew with the distance."""
    floor = Solid(BOX, (0.0, -1.5, 6.0), (20.0, 0.5, 20.0), GREY)  # its top is at y = -1
    ball = Solid(BALL, (0.0, 1.0, 4.0), (0.5, 0.5, 0.5), GREY)
    lamp = Light((0.0, 1.0, 0.0), (0.5, 0.5, 0.5), True) if sun else Light((0.0, 4.0, 4.0), (0.5, 0.5, 0.5))
    camera = Camera((0.0, 0.0, 0.0), turn(0, 0.2), 1.0)
    r = render.render(scene_of(floor, ball, camera=camera, lights=(lamp,)), 60, 90)
    d = rays(camera, 60, 90) @ np.asarray(camera.rotation, float).T
    point = d * r.depth[..., None]
    on_floor = (r.depth > 0) & (np.abs(point[..., 1] + 1) < 1e-2)
    across = np.hypot(point[..., 0], point[..., 2] - 4)
    # A cone from the lamp 3 m over the ball's middle touches it: sin = 0.5 / 3; the floor is 5 m below the lamp.
    radius = 0.5 if sun else 5 * np.tan(np.arcsin(0.5 / 3))
    dark, lit = on_floor & (across < radius - 0.03), on_floor & (across > radius + 0.03)
    assert dark.sum() > 30
    assert lit.sum() > 300
    np.testing.assert_allclose(r.colour[dark], 0.5 * 0.4, atol=1e-5)
    strength = np.full(across.shape, 0.5)
    if not sun:
        far = across**2 + 25
        strength = 0.5 * 5 / np.sqrt(far) / (1 + 0.08 * far)
    np.testing.assert_allclose(r.colour[lit][:, 0], 0.5 * (0.4 + strength[lit]), rtol=2e-3)


def test_unlit() -> None:
    """Without a lamp there is the light that comes from everywhere, more of it from above."""
    ball = Solid(BALL, (0.0, 0.0, 3.0), (1.0, 1.0, 1.0), Material((0.2, 0.5, 0.8)))
    r = render.render(scene_of(ball), *SIZE)
    seen = r.depth > 0
    expected = 0.4 * (0.75 + 0.25 * r.normals[seen][:, 1:2]) * [0.2, 0.5, 0.8]
    np.testing.assert_allclose(r.colour[seen], expected, atol=1e-5)
    assert not r.colour[~seen].any()


# ---- labels -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Scene, render.Rendering]]:
    made = [rooms.scene_of(0, "val", i)[0] for i in range(60)]
    return [(scene, render.render(scene, 32, 64)) for scene in made]


def test_normals_are_unit_and_face_the_viewer(scenes: list[tuple[Scene, render.Rendering]]) -> None:
    for scene, r in scenes:
        seen = r.depth > 0
        np.testing.assert_allclose(np.linalg.norm(r.normals[seen], axis=-1), 1, atol=1e-4)
        assert not r.normals[~seen].any()
        towards = (rays(scene.camera, 32, 64) * [-1, -1, 1] * r.normals).sum(-1)
        assert towards.min() > -2e-3


def test_labels_agree_with_each_other(scenes: list[tuple[Scene, render.Rendering]]) -> None:
    person, sky = rooms.LABEL["person"], rooms.LABEL["sky"]
    for scene, r in scenes:
        assert set(np.unique(r.part[r.label != person])) <= {0}
        assert (r.part[r.label == person] > 0).all()
        assert ((r.depth == 0) == (r.label == sky)).all()
        assert r.depth.max() < 100
        assert len({(i, c) for i, c in zip(r.instance.flat, r.label.flat, strict=True)}) == len(np.unique(r.instance))
        salient = rooms.salient(r.label, r.instance)
        assert set(np.unique(salient)) <= {0, 1}
        assert set(np.unique(r.label[salient == 1])) <= set(rooms.THINGS)
        for instance in np.unique(r.instance):  # a thing is salient as a whole, or not at all
            assert len(np.unique(salient[r.instance == instance])) == 1
        assert r.colour.min() >= 0
        assert r.colour.max() <= 1
        assert {s.instance for s in scene.solids if s.part} == {s.instance for s in scene.solids if s.label == person}


def test_every_class_and_part_is_there(scenes: list[tuple[Scene, render.Rendering]]) -> None:
    labels = set(np.unique(np.concatenate([r.label.ravel() for _, r in scenes])))
    assert labels == set(range(len(rooms.CLASSES)))
    parts = set(np.unique(np.concatenate([r.part.ravel() for _, r in scenes])))
    assert parts == set(range(len(rooms.PARTS)))
    assert np.mean([rooms.salient(r.label, r.instance).any() for _, r in scenes]) > 0.9


def test_edges_are_between_things() -> None:
    instance = np.random.default_rng(0).integers(0, 3, (9, 11)).astype(np.int32)
    found = rooms.edges(instance)
    for y in range(9):
        for x in range(11):
            right = x + 1 < 11 and instance[y, x] != instance[y, x + 1]
            below = y + 1 < 9 and instance[y, x] != instance[y + 1, x]
            assert found[y, x] == (right or below)


def test_the_salient_thing() -> None:
    label, instance = np.zeros((20, 40), np.uint8), np.zeros((20, 40), np.int32)
    label[8:12, 18:22], instance[8:12, 18:22] = rooms.LABEL["chair"], 1  # in the middle
    label[0:4, 0:4], instance[0:4, 0:4] = rooms.LABEL["person"], 2  # in a corner
    label[14:20, 30:40], instance[14:20, 30:40] = rooms.LABEL["rug"], 3  # not a thing
    np.testing.assert_array_equal(rooms.salient(label, instance), instance == 1)
    label[8:12, 22:26], instance[8:12, 22:26] = rooms.LABEL["ball"], 4  # twice as much, nearly as near the middle
    np.testing.assert_array_equal(rooms.salient(label, instance), (instance == 1) | (instance == 4))
    assert not rooms.salient(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.int32)).any()


# ---- the data set -----------------------------------------------------------------------------------


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(
        one[k].dtype == two[k].dtype and one[k].tobytes() == two[k].tobytes() for k in one
    )


def test_a_seed_gives_the_same_bytes() -> None:
    first = rooms.make(0, "train", 5, 24, 40)
    assert same(first, rooms.make(0, "train", 5, 24, 40))
    for other in ((1, "train", 5), (0, "val", 5), (0, "train", 6)):
        assert not same(first, rooms.make(*other, 24, 40))


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (40, 24), (9, 100)])
def test_any_size(size: tuple[int, int]) -> None:
    sample = rooms.make(0, "train", 0, *size)
    assert set(sample) == {"image", *rooms.TASKS}
    for name, array in sample.items():
        assert array.shape == size + ((3,) if name in ("image", "normals") else ())
    assert {name: str(array.dtype) for name, array in sample.items()} == {
        "image": "uint8", "semseg": "uint8", "human_parts": "uint8", "sal": "uint8", "edge": "uint8",
        "normals": "int8", "depth": "float16",
    }  # fmt: skip


def test_the_cache_keeps_what_was_rendered(tmp_path: Path) -> None:
    plain, kept = rooms.Rooms("val", 3, 16, 24), rooms.Rooms("val", 3, 16, 24, cache=tmp_path)
    for _ in range(2):  # made, then read
        assert all(same(plain[i], kept[i]) for i in range(3))
    files = sorted(p.name for p in tmp_path.rglob("*.npz"))
    assert files == ["000000.npz", "000001.npz", "000002.npz"]
    assert len(plain) == 3
    assert plain.name(2) == "val-000002"
    with pytest.raises(IndexError):
        plain[3]
    with pytest.raises(ValueError, match="train, val, test"):
        rooms.Rooms("all", 3, 16, 24)


def test_preview(tmp_path: Path) -> None:
    assert rooms.main(["--preview", str(tmp_path / "sheet.png"), "--count", "2", "--size", "16", "24"]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.array(sheet)
    assert pixels.shape == (2 * 17 - 1, 7 * 25 - 1, 3)
    np.testing.assert_array_equal(pixels[:16, :24], rooms.make(0, "train", 0, 16, 24)["image"])
    np.testing.assert_array_equal(pixels[17:, :24], rooms.make(0, "train", 1, 16, 24)["image"])
    edge = rooms.make(0, "train", 1, 16, 24)["edge"]
    np.testing.assert_array_equal(pixels[17:, 100:124, 0] > 127, edge == 1)
