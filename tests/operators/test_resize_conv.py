"""Convolutions of resized pictures, which multiply before they resample, against ONNX's reference:
every kind of resampling, odd sizes and single pixels, windows with strides and dilation, what
follows fused, a result that goes into a Concat, a picture that others read, too; a pointwise
convolution that is computed at once."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from builder import Builder
from harness import MOECC, Case, verify

LINEAR = {"mode": "linear"}
CORNERS = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
ASYMMETRIC = {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}
PYTORCH = {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}
CUBIC = {"mode": "cubic", "cubic_coeff_a": -0.5}
NEAREST = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}


@dataclass(frozen=True)
class Picture:
    """x [images, c, *size] resized to `to`, then convolved to n channels."""

    c: int
    n: int
    size: tuple[int, int]
    to: tuple[int, int]
    resize: dict[str, Any] = field(default_factory=lambda: LINEAR)
    taps: tuple[int, int] = (3, 3)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    stride: int = 1
    dilation: int = 1
    images: int = 1


PICTURES = [
    Picture(5, 7, (4, 6), (8, 12)),
    Picture(17, 33, (5, 3), (10, 6), images=2),
    Picture(20, 65, (1, 1), (2, 2)),
    Picture(16, 9, (2, 1), (4, 2)),
    Picture(64, 40, (7, 9), (14, 18), PYTORCH),
    Picture(12, 18, (5, 6), (10, 12), ASYMMETRIC),
    Picture(12, 18, (5, 6), (10, 12), NEAREST),
    Picture(33, 12, (6, 5), (13, 16), CORNERS),
    Picture(40, 6, (3, 4), (12, 16), CUBIC),
    Picture(9, 8, (4, 5), (12, 15), taps=(5, 2), pads=(2, 0, 1, 3)),
    Picture(24, 5, (6, 6), (18, 18), stride=2, pads=(0, 1, 2, 0)),
    Picture(24, 5, (6, 7), (12, 14), dilation=2, pads=(2, 2, 2, 2)),
    Picture(48, 21, (4, 5), (8, 10), taps=(1, 1), pads=(0, 0, 0, 0)),
    Picture(8, 4, (3, 40), (6, 320)),
]


class Pictures(Builder):
    def __init__(self) -> None:
        super().__init__(seed=11)

    def resized(self, p: Picture, sizes: bool) -> str:
        x = self.input(p.images, p.c, *p.size)
        if sizes:
            to = self.constant(np.array([p.images, p.c, *p.to], np.int64))
            return self.node("Resize", x, "", "", to, **p.resize)
        scale = np.array([1, 1, p.to[0] / p.size[0], p.to[1] / p.size[1]], np.float32)
        return self.node("Resize", x, "", self.constant(scale), **p.resize)

    def convolution(self, p: Picture, x: str, n: int, bias: bool) -> str:
        operands = [x, self.weights(n, p.c, *p.taps)]
        if bias:
            operands.append(self.weights(n))
        stride, dilation = [p.stride] * 2, [p.dilation] * 2
        return self.node("Conv", *operands, strides=stride, dilations=dilation, pads=list(p.pads))


def pictures() -> Case:
    """Each alone and, with a residual and an activation behind, into a Concat with a second one."""
    b = Pictures()
    for i, p in enumerate(PICTURES):
        r = b.resized(p, sizes=i % 2 > 0 or p.resize is CORNERS)
        plain = b.convolution(p, r, p.n, i % 3 > 0)
        b.outputs.append(plain)
        fused = b.node("Relu", b.node("Add", b.convolution(p, r, p.n, True), plain))
        other = b.node("Sigmoid", b.convolution(p, r, 3, False))
        b.outputs.append(b.node("Concat", fused, other, axis=1))
    return b.case("pictures")


def shared() -> Case:
    """The resized picture is an output, too."""
    b = Pictures()
    p = Picture(19, 11, (5, 4), (10, 8))
    r = b.resized(p, sizes=False)
    b.outputs += [r, b.convolution(p, r, p.n, True)]
    return b.case("shared")


LARGE = Picture(9, 70, (64, 75), (128, 150))


@cache
def followed(keep: bool = False) -> Case:
    """Large maps that one pointwise convolution reads; with `keep` they are outputs, too, so that
    two convolutions cannot become one kernel."""
    b = Pictures()
    for p in (LARGE, replace(LARGE, n=64, resize=CORNERS)):
        r = b.resized(p, sizes=True)
        m = b.node("Relu", b.convolution(p, r, p.n, True))
        point = Picture(p.n, 21, p.to, p.to, taps=(1, 1), pads=(0, 0, 0, 0))
        y = b.convolution(point, m, 21 if p is LARGE else 5, bias=p is LARGE)
        b.outputs.append(y if p is LARGE else b.node("Abs", y))
        if keep:
            b.outputs.append(m)
    return b.case("followed")


def schedule(model: onnx.ModelProto, *options: str) -> list[dict[str, Any]]:
    """The steps of the compiled network."""
    with tempfile.TemporaryDirectory(prefix="moecc-resize-") as name:
        path, out = Path(name) / "model.onnx", Path(name) / "out"
        onnx.save(model, str(path))
        command = [str(MOECC), "compile", str(path), "-o", str(out), "--quiet", *options]
        subprocess.run(command, check=True, capture_output=True)
        report = json.loads((out / "report.json").read_text())
    return [s for task in report["tasks"] for s in task["schedule"] if "node" in s]


def layers(model: onnx.ModelProto, *options: str) -> set[str]:
    """The layers of the compiled network that are computed this way."""
    return {s["node"] for s in schedule(model, *options) if s["operator"] == "ResizeConv"}


@pytest.mark.parametrize("engine", ["tcc", "cc"])
@pytest.mark.parametrize("case", [pictures(), shared(), followed()], ids=lambda c: c.name)
def test_resize_conv(case: Case, engine: str) -> None:
    assert verify(case, engine) == ""


def taken() -> onnx.ModelProto:
    b = Pictures()
    for i, p in enumerate(PICTURES):
        b.outputs.append(b.convolution(p, b.resized(p, sizes=i % 2 > 0), p.n, True))
    return b.case("taken").model


def test_all_are_taken() -> None:
    """All of the pictures go this way, unless told otherwise."""
    assert len(layers(taken())) == len(PICTURES)
    assert not layers(taken(), "--no-resizeconv")


def joined(model: onnx.ModelProto) -> int:
    """How many pointwise convolutions are computed with the one before."""
    return sum(s["kernel"].startswith("resize_conv_point") for s in schedule(model))


def test_pointwise_is_joined() -> None:
    """Unless the map is small, or others read it."""
    assert joined(followed().model) == 2
    assert joined(followed(keep=True).model) == 0
    assert joined(pictures().model) == 0


def computed(case: Case, engine: str, folder: Path, *options: str) -> list[bytes]:
    """The outputs' bits, those that maps are left out."""
    folder.mkdir()
    onnx.save(case.model, str(folder / "model.onnx"))
    command = [
        str(MOECC),
        "run",
        str(folder / "model.onnx"),
        "--engine",
        engine,
        "-o",
        str(folder),
        "--quiet",
    ]
    for name, value in zip([i.name for i in case.model.graph.input], case.inputs, strict=True):
        np.save(folder / f"{name}.npy", value)
        command += ["--input", f"{name}={folder / name}.npy"]
    subprocess.run([*command, *options], check=True, capture_output=True)
    wanted = [o.name for o in case.model.graph.output]
    return [np.load(folder / f"{name}.npy").tobytes() for name in wanted]


@pytest.mark.parametrize("engine", ["tcc", "cc"])
def test_joined_to_the_bit(engine: str, tmp_path: Path) -> None:
    """One kernel or two, one thread or three: the same bits."""
    apart = computed(followed(keep=True), engine, tmp_path / "apart")
    together = computed(followed(), engine, tmp_path / "together")
    threads = computed(followed(), engine, tmp_path / "threads", "--threads", "3")
    assert together == apart[::2]
    assert threads == together
