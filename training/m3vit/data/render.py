"""A small ray caster: boxes, balls and cylinders, textured, lit and shadowed, with exact labels for every pixel.

The world is in metres, x to the right, y up, z forward. A solid is a unit shape (a cube from -1 to 1, the unit ball, a
cylinder along y of radius and half height 1) that is scaled, turned and moved. A ray's hit is found in the shape's own
frame, so any ellipsoid or slanted limb is one solid. Only the pixels that a solid's bounding ball covers are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

BOX, BALL, CYLINDER, ROOM = range(4)  # a room is a box seen from within
PLAIN, CHECKER, STRIPES, BRICKS, GRAIN, PANES = range(6)  # textures
FAR = np.float32(1e6)
NEAR = 1e-3


def turn(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Array:
    """[3, 3]: first about z (roll), then about x (pitch), then about y (yaw), in radians."""
    cy, sy, cp, sp, cr, sr = (f(angle) for angle in (yaw, pitch, roll) for f in (np.cos, np.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (about_y @ about_x @ about_z).astype(np.float32)


@dataclass
class Material:
    colour: tuple[float, float, float]
    second: tuple[float, float, float] = (0.0, 0.0, 0.0)
    texture: int = PLAIN
    period: float = 0.5  # metres
    shine: float = 0.0


@dataclass
class Solid:
    shape: int
    centre: tuple[float, float, float]
    size: tuple[float, float, float]  # half extents
    material: Material
    rotation: Array = field(default_factory=lambda: np.eye(3, dtype=np.float32))
    label: int = 0  # semantic class
    part: int = 0  # of a person
    instance: int = 0


@dataclass
class Camera:
    position: tuple[float, float, float]
    rotation: Array
    focal: float  # in picture heights


@dataclass
class Light:
    position: tuple[float, float, float]  # of a lamp, or the direction of the sun
    colour: tuple[float, float, float]
    sun: bool = False


@dataclass
class Scene:
    solids: list[Solid]
    camera: Camera
    lights: list[Light]
    ambient: tuple[float, float, float]
    sky: tuple[tuple[float, float, float], tuple[float, float, float]]  # at the horizon, above
    sky_label: int = 0


@dataclass
class Rendering:
    """Of H by W pixels. Where there is sky, depth and normals are 0, the instance and the part too."""

    colour: Array  # [H, W, 3], 0 … 1
    depth: Array  # [H, W], metres along the optical axis
    normals: Array  # [H, W, 3], in the camera's frame: x to the right, y up, z towards the viewer
    label: NDArray[np.uint8]  # [H, W]
    part: NDArray[np.uint8]
    instance: NDArray[np.int32]


def dot(a: Array, b: Array) -> Array:
    """Of vectors along the last axis."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


# ---- one solid ------------------------------------------------------------------------------------


def _ball(o: Array, d: Array) -> Array:
    a, b, c = dot(d, d), dot(o, d), dot(o, o) - 1
    root = b * b - a * c
    near = (-b - np.sqrt(np.maximum(root, 0))) / a
    return np.where((root > 0) & (near > NEAR), near, FAR)


def _slabs(o: Array, d: Array) -> tuple[Array, Array]:
    """Where rays enter and leave the cube."""
    with np.errstate(divide="ignore", invalid="ignore"):
        one, two = (-1 - o) / d, (1 - o) / d
    first, last = np.fmin(one, two), np.fmax(one, two)
    enter = np.maximum(np.maximum(first[..., 0], first[..., 1]), first[..., 2])
    return enter, np.minimum(np.minimum(last[..., 0], last[..., 1]), last[..., 2])


def _box(o: Array, d: Array) -> Array:
    enter, leave = _slabs(o, d)
    return np.where((enter < leave) & (enter > NEAR), enter, FAR)


def _room(o: Array, d: Array) -> Array:
    enter, leave = _slabs(o, d)
    return np.where((enter < leave) & (leave > NEAR), leave, FAR)


def _cylinder(o: Array, d: Array) -> Array:
    ox, oy, oz, dx, dy, dz = o[..., 0], o[..., 1], o[..., 2], d[..., 0], d[..., 1], d[..., 2]
    a, b, c = dx * dx + dz * dz + 1e-12, ox * dx + oz * dz, ox * ox + oz * oz - 1
    root = np.sqrt(np.maximum(b * b - a * c, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        one, two = (-1 - oy) / dy, (1 - oy) / dy
    enter = np.fmax((-b - root) / a, np.fmin(one, two))
    leave = np.fmin((-b + root) / a, np.fmax(one, two))
    return np.where((b * b > a * c) & (enter < leave) & (enter > NEAR), enter, FAR)


_HITS = {BOX: _box, BALL: _ball, CYLINDER: _cylinder, ROOM: _room}


def hit(solid: Solid, origin: Array, direction: Array) -> Array:
    """How far along rays (origin [..., 3], direction [..., 3], any length) the solid is first met; FAR: never."""
    size = np.asarray(solid.size, np.float32)
    inward = solid.rotation / size  # a row vector times it is turned back and scaled
    centre = np.asarray(solid.centre, np.float32)
    return _HITS[solid.shape](((origin - centre) @ inward).astype(np.float32), direction @ inward)


def _local_normal(shape: Array, p: Array) -> Array:
    """Normals of unit shapes at p [N, 3]."""
    normal = p.copy()  # of balls
    box = (shape == BOX) | (shape == ROOM)
    axis = np.abs(p).argmax(-1)
    flat = np.zeros_like(p)
    rows = np.arange(len(p))
    flat[rows, axis] = np.sign(p[rows, axis])
    normal[box] = flat[box]
    normal[shape == ROOM] *= -1
    round_ = shape == CYLINDER
    cap = round_ & (np.abs(p[:, 1]) > np.hypot(p[:, 0], p[:, 2]))
    normal[round_, 1] = 0
    normal[cap] = 0
    normal[cap, 1] = np.sign(p[cap, 1])
    return normal


# ---- the picture ----------------------------------------------------------------------------------


def _rays(camera: Camera, height: int, width: int) -> Array:
    """Directions [H, W, 3] in the world, with 1 along the optical axis."""
    focal = camera.focal * height
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    rays = np.stack(
        [
            (x + 0.5 - width / 2) / focal,
            (height / 2 - y - 0.5) / focal,
            np.ones((height, width), np.float32),
        ],
        -1,
    )
    return (rays @ camera.rotation.T).astype(np.float32)


def _radius(solid: Solid) -> float:
    """Of a ball around it."""
    if solid.shape == BALL:
        return max(solid.size)
    x, y, z = solid.size
    return float(np.hypot(max(x, z), y) if solid.shape == CYLINDER else np.sqrt(x * x + y * y + z * z))


def _window(solid: Solid, camera: Camera, height: int, width: int) -> tuple[slice, slice] | None:
    """Rows and columns that the bounding ball covers; None: it is behind the camera."""
    centre = (np.asarray(solid.centre) - camera.position) @ camera.rotation
    radius = _radius(solid)
    if solid.shape == ROOM or np.linalg.norm(centre) < radius + 0.05:
        return slice(0, height), slice(0, width)
    if centre[2] < -radius:
        return None
    if centre[2] < radius + 0.05:
        return slice(0, height), slice(0, width)
    focal = camera.focal * height
    spread = radius / (centre[2] - radius) * focal
    spread_x = spread * (1 + abs(centre[0]) / centre[2])
    spread_y = spread * (1 + abs(centre[1]) / centre[2])
    x = centre[0] / centre[2] * focal + width / 2
    y = height / 2 - centre[1] / centre[2] * focal
    rows = slice(max(int(y - spread_y), 0), min(int(y + spread_y) + 2, height))
    columns = slice(max(int(x - spread_x), 0), min(int(x + spread_x) + 2, width))
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def _texture(kind: NDArray[np.int64], u: Array, v: Array) -> Array:
    """How much of the second colour there is at (u, v), in periods: [N]."""
    mix = np.zeros_like(u)
    for texture in np.unique(kind):
        at = kind == texture
        a, b = u[at], v[at]
        if texture == CHECKER:
            mix[at] = (np.floor(a) + np.floor(b)) % 2
        elif texture == STRIPES:
            mix[at] = np.floor(2 * a) % 2
        elif texture == BRICKS:
            row = np.floor(2 * b)
            mix[at] = ((a + 0.5 * (row % 2)) % 1 < 0.08) | ((2 * b) % 1 < 0.12)
        elif texture == GRAIN:
            mix[at] = 0.5 + 0.25 * (np.sin(9 * a + 4 * np.sin(2 * b)) + np.sin(23 * b + 3 * a))
        elif texture == PANES:
            mix[at] = ((a % 1) > 0.25) & ((a % 1) < 0.75) & ((b % 1) > 0.3) & ((b % 1) < 0.8)
    return mix


def _shadow(scene: Scene, point: Array, towards: Array) -> NDArray[np.bool_]:
    """Which of the segments point + (0 … 1) towards are blocked: [N]."""
    dark = np.zeros(len(point), bool)
    length, start, far = dot(towards, towards), dot(point, towards), dot(point, point)
    for solid in scene.solids:
        if solid.shape == ROOM:
            continue
        radius = _radius(solid)
        centre = np.asarray(solid.centre, np.float32)
        ahead = towards @ centre - start
        along = np.clip(ahead / length, 0, 1)
        gap = far + centre @ centre - 2 * (point @ centre) + along * (along * length - 2 * ahead)
        near = np.flatnonzero((gap < radius * radius + 1e-3) & ~dark)
        if len(near):
            dark[near] = hit(solid, point[near], towards[near]) < 0.999
    return dark


def _lit(scene: Scene, point: Array, normal: Array, view: Array, shine: Array) -> Array:
    """Light that comes off a white surface: [N, 3]."""
    light = np.empty_like(point)
    light[:] = scene.ambient
    above = 0.75 + 0.25 * normal[:, 1:2]  # what faces up gets more of it
    light *= above
    for lamp in scene.lights:
        where = np.asarray(lamp.position, np.float32)
        towards = np.broadcast_to(where * 100, point.shape) if lamp.sun else (where - point).astype(np.float32)
        distance = np.sqrt(dot(towards, towards))[:, None]
        unit = (towards / distance).astype(np.float32)
        facing = dot(normal, unit)
        fade = np.ones_like(facing) if lamp.sun else 1 / (1 + 0.08 * distance[:, 0] ** 2)
        lit = np.flatnonzero(facing > 0)
        start = point[lit] + 0.01 * normal[lit]
        lit = lit[~_shadow(scene, start, (towards[lit] - 0.01 * normal[lit]).astype(np.float32))]
        half = unit[lit] - view[lit]
        half /= np.sqrt(dot(half, half))[:, None]
        gloss = shine[lit] * np.maximum(dot(half, normal[lit]), 0) ** 24
        strength = (facing[lit] + gloss) * fade[lit]
        light[lit] += strength[:, None] * np.asarray(lamp.colour, np.float32)
    return light


def render(scene: Scene, height: int, width: int) -> Rendering:
    camera = scene.camera
    origin = np.asarray(camera.position, np.float32)
    rays = _rays(camera, height, width)
    depth = np.full((height, width), FAR, np.float32)
    which = np.full((height, width), -1, np.int32)
    for number, solid in enumerate(scene.solids):
        window = _window(solid, camera, height, width)
        if window is None:
            continue
        t = hit(solid, origin, rays[window])
        nearer = t < depth[window]
        depth[window][nearer] = t[nearer]
        which[window][nearer] = number

    seen = which >= 0
    of = which[seen]
    t, d = depth[seen][:, None], rays[seen]
    solids = scene.solids
    shape = np.array([s.shape for s in solids])[of]
    rotation = np.stack([s.rotation for s in solids])[of]
    size = np.array([s.size for s in solids], np.float32)[of]
    centre = np.array([s.centre for s in solids], np.float32)[of]
    point = origin + t * d
    local = np.einsum("ni,nij->nj", point - centre, rotation)  # metres, in the solid's frame
    unit_normal = _local_normal(shape, local / size)
    normal = np.einsum("nj,nij->ni", unit_normal / size, rotation)
    normal /= np.sqrt(dot(normal, normal))[:, None]

    materials = [s.material for s in solids]
    texture = np.array([m.texture for m in materials])[of]
    period = np.array([m.period for m in materials], np.float32)[of]
    axis = np.abs(unit_normal).argmax(-1)  # a texture lies in the plane across it
    u = np.where(axis == 0, local[:, 2], local[:, 0]) / period
    v = np.where(axis == 1, local[:, 2], local[:, 1]) / period
    mix = _texture(texture, u, v)[:, None]
    first = np.array([m.colour for m in materials], np.float32)[of]
    second = np.array([m.second for m in materials], np.float32)[of]
    shine = np.array([m.shine for m in materials], np.float32)[of]
    view = (d / np.sqrt(dot(d, d))[:, None]).astype(np.float32)
    up = np.clip(rays[..., 1] / np.sqrt(dot(rays, rays)) * 2, 0, 1)[..., None]
    low, high = (np.asarray(c, np.float32) for c in scene.sky)
    colour = low + up * (high - low)
    surface = (first + mix * (second - first)).astype(np.float32)
    colour[seen] = surface * _lit(scene, point, normal, view, shine)

    normals = np.zeros((height, width, 3), np.float32)
    normals[seen] = normal @ camera.rotation * np.array([1, 1, -1], np.float32)
    label = np.full((height, width), scene.sky_label, np.uint8)
    part, instance = np.zeros((height, width), np.uint8), np.zeros((height, width), np.int32)
    label[seen] = np.array([s.label for s in solids])[of]
    part[seen] = np.array([s.part for s in solids])[of]
    instance[seen] = np.array([s.instance for s in solids])[of]
    depth[~seen] = 0
    return Rendering(np.clip(colour, 0, 1).astype(np.float32), depth, normals, label, part, instance)
