"""Rooms: a data set that is rendered, not fetched. Procedural indoor and street scenes with exact labels for all tasks.

A sample is made from the seed, the split and its number alone, so a data set of any size needs no file; `cache` keeps
what was rendered. What a pixel is (semseg), how far (depth), which way it faces (normals) and which limb it is
(human_parts) come from the ray caster; edges are where neighbouring pixels belong to different things; salient is the
thing that takes the eye: the largest product of visible size and nearness to the picture's middle, people and balls
counting twice, and all others that reach half of that.

    python -m m3vit.data.rooms --preview sheet.png
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from m3vit import draw
from m3vit.data import render, transforms
from m3vit.data.render import BALL, BOX, CYLINDER, ROOM, Camera, Light, Material, Scene, Solid, turn
from m3vit.tasks import TASK_SETS

CLASSES = (
    "wall", "floor", "ceiling", "window", "door", "picture", "table", "chair", "sofa", "bed", "shelf",
    "lamp", "rug", "plant", "ball", "person", "road", "pavement", "building", "car", "sky",
)  # fmt: skip
PARTS = ("none", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")
LABEL = {name: number for number, name in enumerate(CLASSES)}
TASKS = ("semseg", "human_parts", "sal", "edge", "normals", "depth")
THINGS = tuple(
    LABEL[c] for c in ["picture", "table", "chair", "sofa", "bed", "shelf", "lamp", "plant", "ball", "person", "car"]
)
SPLITS = {"train": 0, "val": 1, "test": 2}

Colour = tuple[float, float, float]
Point = tuple[float, float, float]


class Builder:
    """Puts things into a scene. Every thing stands on the floor at (x, z), turned by an angle."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        self.solids: list[Solid] = []
        self.things = 0
        self.taken: list[tuple[float, float, float]] = []  # x, z, radius

    def number(self, low: float, high: float) -> float:
        return float(self.random.uniform(low, high))

    def chance(self, p: float) -> bool:
        return bool(self.random.random() < p)

    def colour(self, low: float = 0.15, high: float = 0.9) -> Colour:
        r, g, b = self.random.uniform(low, high, 3)
        return float(r), float(g), float(b)

    def material(self, *textures: int, shine: float = 0.0) -> Material:
        texture = int(self.random.choice(textures or (render.PLAIN,)))
        first = self.colour()
        second = tuple(float(np.clip(c + self.random.normal(0, 0.2), 0.05, 0.95)) for c in first)
        return Material(first, (second[0], second[1], second[2]), texture, self.number(0.2, 0.8), shine)

    def wood(self) -> Material:
        tone = self.number(0.3, 0.8)
        first = (tone, tone * self.number(0.6, 0.8), tone * self.number(0.3, 0.6))
        second = (first[0] * 0.8, first[1] * 0.75, first[2] * 0.7)
        return Material(first, second, render.GRAIN, self.number(0.3, 1.0), 0.1)

    def free(self, x: float, z: float, radius: float) -> bool:
        """Takes a place, if nothing is there yet."""
        if any((x - a) ** 2 + (z - b) ** 2 < (radius + r) ** 2 for a, b, r in self.taken):
            return False
        self.taken.append((x, z, radius))
        return True

    def thing(self, name: str, at: Point, angle: float = 0.0) -> Thing:
        self.things += 1
        return Thing(self, LABEL[name], self.things, at, turn(angle))


class Thing:
    """One instance: solids given in its own frame."""

    def __init__(self, builder: Builder, label: int, instance: int, at: Point, rotation: render.Array) -> None:
        self.builder, self.label, self.instance = builder, label, instance
        self.at, self.rotation = np.array(at), rotation

    def add(
        self,
        shape: int,
        centre: Sequence[float],
        size: Point,
        material: Material,
        rotation: render.Array | None = None,
        part: int = 0,
    ) -> None:
        x, y, z = (float(c) for c in self.at + self.rotation @ np.asarray(centre))
        own = self.rotation if rotation is None else self.rotation @ rotation
        self.builder.solids.append(
            Solid(
                shape,
                (x, y, z),
                size,
                material,
                own.astype(np.float32),
                self.label,
                part,
                self.instance,
            )
        )

    def box(self, centre: Point, size: Point, material: Material) -> None:
        self.add(BOX, centre, size, material)

    def limb(self, start: Point, end: Point, radius: float, material: Material, part: int = 0) -> None:
        """A cylinder from one point to another."""
        a, b = np.array(start), np.array(end)
        length = float(np.linalg.norm(b - a))
        y = (b - a) / length
        x = np.cross(y, [0.31, 0.17, 0.94])
        x /= np.linalg.norm(x)
        frame = np.stack([x, y, np.cross(x, y)], 1)
        self.add(CYLINDER, (a + b) / 2, (radius, length / 2, radius), material, frame, part)


# ---- things ---------------------------------------------------------------------------------------


def table(b: Builder, at: Point, angle: float) -> None:
    t, wood = b.thing("table", at, angle), b.wood()
    w, d, h = b.number(0.4, 0.9), b.number(0.3, 0.5), b.number(0.4, 0.8)
    t.box((0, h, 0), (w, 0.03, d), wood)
    for x in (-w + 0.05, w - 0.05):
        for z in (-d + 0.05, d - 0.05):
            t.box((x, h / 2, z), (0.03, h / 2, 0.03), wood)


def chair(b: Builder, at: Point, angle: float) -> None:
    t, cloth, wood = b.thing("chair", at, angle), b.material(render.PLAIN, render.STRIPES), b.wood()
    h = b.number(0.4, 0.5)
    t.box((0, h, 0), (0.22, 0.03, 0.22), cloth)
    t.box((0, h + 0.3, 0.2), (0.22, 0.28, 0.025), cloth)
    for x in (-0.19, 0.19):
        for z in (-0.19, 0.19):
            t.box((x, h / 2, z), (0.02, h / 2, 0.02), wood)


def sofa(b: Builder, at: Point, angle: float) -> None:
    t, cloth = b.thing("sofa", at, angle), b.material(render.PLAIN, render.CHECKER, render.STRIPES)
    w = b.number(0.7, 1.1)
    t.box((0, 0.22, 0), (w, 0.2, 0.4), cloth)
    t.box((0, 0.55, 0.35), (w, 0.3, 0.1), cloth)
    for x in (-w, w):
        t.box((x, 0.32, 0), (0.1, 0.3, 0.42), cloth)


def bed(b: Builder, at: Point, angle: float) -> None:
    t, cloth, wood = b.thing("bed", at, angle), b.material(render.CHECKER, render.STRIPES), b.wood()
    t.box((0, 0.2, 0), (0.7, 0.18, 1.0), wood)
    t.box((0, 0.42, 0), (0.68, 0.08, 0.98), cloth)
    t.box((0, 0.55, 0.97), (0.72, 0.45, 0.04), wood)
    t.add(BALL, (0, 0.52, 0.7), (0.45, 0.1, 0.2), Material((0.9, 0.9, 0.88)))


def shelf(b: Builder, at: Point, angle: float) -> None:
    t, wood = b.thing("shelf", at, angle), b.wood()
    w, h, boards = b.number(0.3, 0.6), b.number(0.5, 1.0), int(b.random.integers(2, 5))
    for x in (-w, w):
        t.box((x, h, 0), (0.02, h, 0.16), wood)
    for i in range(boards + 1):
        y = 0.04 + (2 * h - 0.06) * i / boards
        t.box((0, y, 0), (w, 0.02, 0.16), wood)
        if i < boards:
            wide, tall = b.number(0.2, 0.8) * w, b.number(0.1, 0.28) * 2 * h / boards
            t.box((w - wide - 0.03, y + 0.02 + tall, 0), (wide, tall, 0.1), b.material(render.STRIPES))


def lamp(b: Builder, at: Point, angle: float) -> None:
    t, metal = b.thing("lamp", at, angle), Material((0.3, 0.3, 0.32), shine=0.5)
    h = b.number(1.2, 1.7)
    t.add(CYLINDER, (0, 0.02, 0), (0.16, 0.02, 0.16), metal)
    t.add(CYLINDER, (0, h / 2, 0), (0.02, h / 2, 0.02), metal)
    t.add(CYLINDER, (0, h, 0), (0.2, 0.14, 0.2), Material((0.95, 0.9, b.number(0.6, 0.9))))


def street_lamp(b: Builder, at: Point, angle: float) -> None:
    t, metal = b.thing("lamp", at, angle), Material((0.25, 0.27, 0.27))
    h = b.number(3.5, 5)
    t.add(CYLINDER, (0, h / 2, 0), (0.07, h / 2, 0.07), metal)
    t.limb((0, h, 0), (0.9, h + 0.1, 0), 0.05, metal)
    t.add(BALL, (0.95, h, 0), (0.22, 0.12, 0.14), Material((0.95, 0.93, 0.8)))


def plant(b: Builder, at: Point, angle: float) -> None:
    t = b.thing("plant", at, angle)
    t.add(CYLINDER, (0, 0.15, 0), (0.14, 0.15, 0.14), b.material())
    for _ in range(4):
        x, z, y, r = (
            b.number(-0.16, 0.16),
            b.number(-0.16, 0.16),
            b.number(0.4, 0.8),
            b.number(0.12, 0.2),
        )
        t.add(BALL, (x, y, z), (r, r * 1.3, r), leaves(b))


def tree(b: Builder, at: Point, angle: float) -> None:
    t, h = b.thing("plant", at, angle), b.number(1.5, 2.5)
    t.add(CYLINDER, (0, h / 2, 0), (0.13, h / 2, 0.13), b.wood())
    for _ in range(4):
        r = b.number(0.6, 1.0)
        t.add(
            BALL,
            (b.number(-0.6, 0.6), h + b.number(0, 0.9), b.number(-0.6, 0.6)),
            (r, r, r),
            leaves(b),
        )


def leaves(b: Builder) -> Material:
    green = b.number(0.35, 0.65)
    dark = (0.12, green * 0.6, 0.08)
    return Material((b.number(0.1, 0.35), green, b.number(0.05, 0.2)), dark, render.GRAIN, b.number(0.1, 0.3))


def ball(b: Builder, at: Point, angle: float) -> None:
    r = b.number(0.1, 0.3)
    texture = b.material(render.PLAIN, render.STRIPES, render.CHECKER, shine=0.8)
    texture.period = r
    b.thing("ball", at, angle).add(BALL, (0, r, 0), (r, r, r), texture)


def car(b: Builder, at: Point, angle: float) -> None:
    t = b.thing("car", at, angle)
    paint, glass = b.material(shine=0.6), Material((0.15, 0.2, 0.25), shine=0.9)
    rubber = Material((0.06, 0.06, 0.06))
    length = b.number(1.7, 2.2)
    t.box((0, 0.55, 0), (0.8, 0.28, length), paint)
    t.box((0, 1.0, -0.1), (0.7, 0.22, length * 0.5), glass)
    t.box((0, 1.24, -0.1), (0.7, 0.03, length * 0.48), paint)
    for z in (-length * 0.6, length * 0.6):
        for x in (-0.8, 0.62):
            t.limb((x, 0.3, z), (x + 0.18, 0.3, z), 0.3, rubber)


def person(b: Builder, at: Point, angle: float) -> None:
    """A figure of balls and limbs, walking or standing, about 1.7 m."""
    t = b.thing("person", at, angle)
    scale = b.number(0.85, 1.1)
    tone = b.number(0.35, 0.9)
    skin = Material((tone, tone * 0.78, tone * 0.62))
    shirt, trousers = b.material(render.PLAIN, render.STRIPES, render.CHECKER), b.material()
    shirt.period = 0.2

    def at_height(x: float, y: float, z: float) -> Point:
        return x * scale, y * scale, z * scale

    t.add(BALL, at_height(0, 1.6, 0), at_height(0.1, 0.13, 0.11), skin, part=1)
    t.limb(at_height(0, 1.4, 0), at_height(0, 1.5, 0), 0.05 * scale, skin, 1)
    t.add(BALL, at_height(0, 1.15, 0), at_height(0.2, 0.34, 0.13), shirt, part=2)
    t.add(BALL, at_height(0, 0.88, 0), at_height(0.17, 0.13, 0.12), trousers, part=2)
    stride = b.number(0, 0.5)
    for side, step in ((-1, stride), (1, -stride)):
        swing, bend = -step + b.number(-0.2, 0.2), b.number(0.0, 1.2)
        shoulder = np.array([0.2 * side, 1.38, 0])
        spread = b.number(0.05, 0.5) * side
        elbow = shoulder + 0.29 * _direction(spread, swing)
        hand = elbow + 0.27 * _direction(spread * 0.5, swing + bend)
        hip = np.array([0.09 * side, 0.88, 0])
        knee = hip + 0.42 * _direction(0.05 * side, step)
        foot = knee + 0.44 * _direction(0.02 * side, step - b.number(0, 0.4))
        for part, a, c, r, m in (
            (3, shoulder, elbow, 0.05, shirt),
            (4, elbow, hand, 0.04, skin),
            (5, hip, knee, 0.08, trousers),
            (6, knee, foot, 0.06, trousers),
        ):
            t.limb(at_height(*a), at_height(*c), r * scale, m, part)


def _direction(sideways: float, forward: float) -> NDArray[np.float64]:
    """Down, tilted by two angles."""
    v = np.array([np.sin(sideways), -np.cos(sideways) * np.cos(forward), -np.sin(forward)])
    return v / np.linalg.norm(v)


# ---- scenes ---------------------------------------------------------------------------------------

FURNITURE = (
    (table, 0.8),
    (chair, 0.4),
    (sofa, 0.9),
    (bed, 1.1),
    (shelf, 0.5),
    (lamp, 0.25),
    (plant, 0.25),
)


def indoor(random: np.random.Generator) -> Scene:
    b = Builder(random)
    w, h, d = b.number(1.8, 3.2), b.number(1.2, 1.5), b.number(2.2, 3.5)  # half extents
    _walls(b, w, h, d)
    eye = (b.number(-0.5, 0.5) * w, b.number(1.1, 1.7), -d + b.number(0.2, 0.6))
    b.free(eye[0], eye[2], 0.7)
    for make, radius in FURNITURE:
        if b.chance(0.55):
            _stand(b, make, w, d, radius)
    for make, radius, most in ((person, 0.35, 4), (ball, 0.3, 3), (chair, 0.4, 3)):
        for _ in range(int(random.integers(0, most))):
            _stand(b, make, w, d, radius)
    camera = Camera(eye, turn(b.number(-0.35, 0.35), b.number(0.02, 0.3)), b.number(0.75, 1.1))
    warm = b.number(0.8, 1.0)
    lights = [
        Light(
            (b.number(-0.6, 0.6) * w, 2 * h - 0.25, b.number(-0.6, 0.6) * d),
            (0.8, 0.78 * warm, 0.7 * warm),
        )
        for _ in range(int(random.integers(1, 3)))
    ]
    ambient = b.number(0.25, 0.45)
    return Scene(b.solids, camera, lights, (ambient, ambient, ambient), ((0, 0, 0), (0, 0, 0)), LABEL["wall"])


def _stand(b: Builder, make: Any, w: float, d: float, radius: float) -> None:
    """Somewhere on the floor, with a few tries."""
    for _ in range(8):
        x, z = b.number(-w + radius, w - radius), b.number(-d + radius, d - radius)
        if b.free(x, z, radius):
            make(b, (x, 0.0, z), b.number(-np.pi, np.pi))
            return


def _walls(b: Builder, w: float, h: float, d: float) -> None:
    """Six faces of a room: the walls are one solid, floor and ceiling are slabs, the rest hangs on walls."""
    paint = b.material(render.PLAIN, render.PLAIN, render.STRIPES, render.BRICKS)
    paint.colour = b.colour(0.5, 0.95)
    b.thing("wall", (0, h, 0)).add(ROOM, (0, 0, 0), (w, h, d), paint)
    floor = b.wood() if b.chance(0.6) else b.material(render.CHECKER, render.PLAIN)
    b.thing("floor", (0, -0.04, 0)).box((0, 0, 0), (w, 0.05, d), floor)
    white = b.number(0.8, 0.95)
    b.thing("ceiling", (0, 2 * h, 0)).box((0, 0, 0), (w, 0.02, d), Material((white, white, white)))
    if b.chance(0.5):
        b.thing("rug", (b.number(-0.4, 0.4) * w, 0.015, b.number(-0.3, 0.6) * d), b.number(-0.3, 0.3)).box(
            (0, 0, 0),
            (b.number(0.5, 1.0), 0.01, b.number(0.4, 0.9)),
            b.material(render.STRIPES, render.CHECKER),
        )
    for at, angle, width in (
        ((0, 0, d), 0.0, w),
        ((-w, 0, 0), np.pi / 2, d),
        ((w, 0, 0), np.pi / 2, d),
    ):
        places = [-0.55 * width, 0.0, 0.55 * width]
        for place in places:
            if not b.chance(0.55):
                continue
            what = str(b.random.choice(["window", "door", "picture", "picture"]))
            flat = np.array(at) + turn(angle) @ np.array([place, 0, 0])
            _hang(b, what, (float(flat[0]), 0.0, float(flat[2])), angle, h)


def _hang(b: Builder, what: str, at: Point, angle: float, h: float) -> None:
    t = b.thing(what, at, angle)
    frame = b.wood()
    if what == "door":
        t.box((0, 1.0, 0), (0.42, 1.0, 0.04), frame)
        t.add(BALL, (0.33, 1.0, -0.06), (0.03, 0.03, 0.03), Material((0.8, 0.7, 0.3), shine=0.8))
        t.add(BALL, (0.33, 1.0, 0.06), (0.03, 0.03, 0.03), Material((0.8, 0.7, 0.3), shine=0.8))
    elif what == "window":
        pane = Material((b.number(0.6, 0.9), b.number(0.8, 0.95), 1.0), (0.9, 0.9, 0.9), render.PANES, 0.4)
        t.box((0, 1.5, 0), (0.45, 0.5, 0.03), pane)
        t.box((0, 0.98, 0), (0.5, 0.03, 0.08), frame)
    else:
        size = (b.number(0.2, 0.45), b.number(0.2, 0.4), 0.03)
        t.box(
            (0, h + b.number(0.1, 0.4), 0),
            size,
            b.material(render.GRAIN, render.CHECKER, render.STRIPES),
        )


def street(random: np.random.Generator) -> Scene:
    b = Builder(random)
    half = b.number(2.5, 4.0)  # of the road
    grey = b.number(0.25, 0.4)
    asphalt = Material((grey, grey, grey), (grey * 0.85,) * 3, render.GRAIN, 0.4)
    b.thing("road", (0, -0.5, 30)).box((0, 0, 0), (half, 0.5, 40), asphalt)
    for i in range(8):
        b.solids.append(
            Solid(
                BOX, (0, 0.0, 3.0 + 4 * i), (0.08, 0.006, 0.8), Material((0.9, 0.9, 0.85)),
                label=LABEL["road"], instance=1,
            )
        )  # fmt: skip
    slabs = b.material(render.CHECKER, render.BRICKS)
    slabs.colour, slabs.second = (0.6, 0.58, 0.55), (0.52, 0.5, 0.48)
    for side in (-1, 1):
        b.thing("pavement", (side * (half + 4), -0.42, 30)).box((0, 0, 0), (4.0, 0.5, 40), slabs)
        z = b.number(2, 6)
        while z < 45:
            depth, tall, back = b.number(2.5, 5), b.number(2, 7), b.number(0, 1.5)
            front = b.material(render.PANES, render.PANES, render.BRICKS)
            front.period, front.second = b.number(1.2, 2.2), (0.2, 0.25, 0.35)
            at = (side * (half + 4.5 + back + 3), 0.0, z + depth)
            b.thing("building", at).box((0, tall, 0), (3, tall, depth), front)
            z += 2 * depth + (b.number(0, 3) if b.chance(0.4) else 0)
    eye = (b.number(-half, half) * 0.6, b.number(1.3, 2.2), 0.0)
    b.free(eye[0], eye[2], 1.5)
    for _ in range(int(random.integers(2, 6))):
        z, side = b.number(4, 28), int(random.choice([-1, 1]))
        if b.free(side * half * 0.55, z, 2.3):
            car(b, (side * half * 0.55, 0.0, z), b.number(-0.08, 0.08) + (np.pi if side < 0 else 0))
    for make, radius, most in (
        (person, 0.4, 7),
        (tree, 0.9, 5),
        (street_lamp, 0.3, 3),
        (ball, 0.3, 2),
    ):
        for _ in range(int(random.integers(0, most))):
            z = 2.5 + 20 * b.number(0, 1) ** 2  # mostly near
            side = int(random.choice([-1, 1]))
            x = side * (half + b.number(0.5, 3.0)) if make is not ball else b.number(-half, half)
            if make is person and b.chance(0.3):
                x = b.number(-half, half)
            if b.free(x, z, radius):
                make(b, (x, 0.08 if abs(x) > half else 0.0, z), b.number(-np.pi, np.pi))
    camera = Camera(eye, turn(b.number(-0.25, 0.25), b.number(-0.02, 0.12)), b.number(0.8, 1.3))
    bright = b.number(0.6, 1.0)
    sun = Light(
        (b.number(-1, 1), b.number(0.6, 1.5), b.number(-1, 0.6)),
        (bright, bright * 0.95, bright * 0.85),
        True,
    )
    ambient = b.number(0.3, 0.5)
    blue = b.number(0.7, 1.0)
    sky = ((0.8, 0.85, 0.9), (0.35 * blue, 0.55 * blue, blue))
    return Scene(b.solids, camera, [sun], (ambient * 0.9, ambient * 0.95, ambient * 1.1), sky, LABEL["sky"])


# ---- labels and the data set ----------------------------------------------------------------------


def edges(instance: NDArray[np.int32]) -> NDArray[np.uint8]:
    """1 where a pixel and its right or lower neighbour belong to different things. [H, W]."""
    found = np.zeros(instance.shape, np.uint8)
    found[:, :-1] |= instance[:, :-1] != instance[:, 1:]
    found[:-1] |= instance[:-1] != instance[1:]
    return found


def salient(label: NDArray[np.uint8], instance: NDArray[np.int32]) -> NDArray[np.uint8]:
    """1 where the thing is that takes the eye. [H, W]."""
    height, width = instance.shape
    y, x = np.mgrid[0:height, 0:width]
    middle = np.exp(-2 * ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) / 0.35**2)
    count = int(instance.max()) + 1
    score = np.bincount(instance.ravel(), middle.ravel(), count)
    of = np.zeros(count, np.int64)
    of[instance.ravel()] = label.ravel()
    score[~np.isin(of, THINGS)] = 0
    score[np.isin(of, (LABEL["person"], LABEL["ball"]))] *= 2
    best = score.max()
    return ((score >= 0.5 * best) & (score > 0))[instance].astype(np.uint8)


def scene_of(seed: int, split: str, index: int) -> tuple[Scene, np.random.Generator]:
    random = np.random.default_rng([seed, SPLITS[split], index])
    return (indoor if random.random() < 0.6 else street)(random), random


def sensor(colour: render.Array, random: np.random.Generator) -> NDArray[np.uint8]:
    """What a camera makes of it: exposure, white balance, a soft lens, noise. [H, W, 3]."""
    exposed = colour * random.uniform(0.85, 1.25) * random.uniform(0.93, 1.07, 3).astype(np.float32)
    across = exposed.copy()
    across[:, 1:-1] = 0.2 * exposed[:, :-2] + 0.6 * exposed[:, 1:-1] + 0.2 * exposed[:, 2:]
    soft = across.copy()
    soft[1:-1] = 0.2 * across[:-2] + 0.6 * across[1:-1] + 0.2 * across[2:]
    noisy = soft + random.normal(0, random.uniform(0.005, 0.03), soft.shape)
    return (np.clip(noisy, 0, 1) ** (1 / 1.4) * 255 + 0.5).astype(np.uint8)


def make(seed: int, split: str, index: int, height: int, width: int) -> dict[str, NDArray[Any]]:
    """A picture and all its labels: image u8 [H, W, 3]; semseg, human_parts, sal, edge u8 [H, W];
    normals i8 [H, W, 3] (127: one); depth f16 [H, W], metres."""
    scene, random = scene_of(seed, split, index)
    r = render.render(scene, height, width)
    return {
        "image": sensor(r.colour, random),
        "semseg": r.label,
        "human_parts": r.part,
        "sal": salient(r.label, r.instance),
        "edge": edges(r.instance),
        "normals": np.rint(r.normals * 127).astype(np.int8),
        "depth": r.depth.astype(np.float16),
    }


class Rooms(Dataset[dict[str, NDArray[Any]]]):
    """`count` scenes of a split, as NumPy arrays (see make); transforms make tensors of them."""

    def __init__(
        self,
        split: str,
        count: int,
        height: int,
        width: int,
        seed: int = 0,
        cache: Path | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"a split is one of {', '.join(SPLITS)}, not {split!r}")
        self.split, self.count, self.seed = split, count, seed
        self.height, self.width = height, width
        self.folder = cache / f"rooms-{height}x{width}-{seed}" / split if cache else None
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"{self.split}-{index:06d}"

    def __getitem__(self, index: int) -> dict[str, NDArray[Any]]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        if self.folder is None:
            return make(self.seed, self.split, index, self.height, self.width)
        path = self.folder / f"{index:06d}.npz"
        if not path.exists():
            part = path.with_suffix(f".{os.getpid()}.npz")
            made: dict[str, Any] = make(self.seed, self.split, index, self.height, self.width)
            np.savez(part, **made)
            part.replace(path)
        with np.load(path) as stored:
            return dict(stored)


def preview(scenes: Rooms, numbers: Sequence[int]) -> NDArray[np.uint8]:
    """A row for each scene: the picture and its labels, in the order of the tasks. White lines between."""
    line = 1
    rows = []
    for number in numbers:
        sample = transforms.tensors(scenes[number])
        pictures = [draw.photo(sample["image"]), *(draw.picture(t, sample[t.name]) for t in TASK_SETS["rooms"])]
        framed = [np.pad(p, ((0, line), (0, line), (0, 0)), constant_values=255) for p in pictures]
        rows.append(np.concatenate(framed, 1))
    return np.concatenate(rows)[:-line, :-line]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m m3vit.data.rooms", description="Draws scenes and their labels.")
    parser.add_argument("--preview", required=True, metavar="FILE.png")
    parser.add_argument("--count", type=int, default=6, metavar="N", help="scenes (6)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first one (0)")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 256), metavar=("H", "W"), help="pixels (128 256)")
    parser.add_argument("--split", choices=sorted(SPLITS), default="train")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    if arguments.count < 1 or arguments.first < 0 or min(arguments.size) < 1:
        parser.error("--count and --size are at least 1, --first is at least 0")
    last = arguments.first + arguments.count
    height, width = arguments.size
    scenes = Rooms(arguments.split, last, height, width, arguments.seed)
    Image.fromarray(preview(scenes, range(arguments.first, last))).save(arguments.preview)
    return 0


if __name__ == "__main__":
    sys.exit(main())
