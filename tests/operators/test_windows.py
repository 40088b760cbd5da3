"""Convolutions with constant weights, as networks have them, on tcc and on this machine's vectors.

Every way they are computed (a matrix product, through pointers, depthwise by tiles, transposed by
phases), strides, dilation, padding, groups, odd sizes, what is fused behind them, and results that
go straight into a Concat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from onnx.reference.op_run import OpRun

from builder import Builder
from harness import Case, verify


@dataclass(frozen=True)
class Window:
    """A convolution: channels in and out, the picture, its kernel."""

    c: int
    n: int
    size: tuple[int, ...]
    taps: tuple[int, ...]
    stride: int = 1
    pad: int = 0
    pad_end: int | None = None
    dilation: int = 1
    group: int = 1
    extra: int = 0  # output_padding

    def attributes(self) -> dict[str, Any]:
        d = len(self.taps)
        end = self.pad if self.pad_end is None else self.pad_end
        return {
            "kernel_shape": list(self.taps),
            "strides": [self.stride] * d,
            "dilations": [self.dilation] * d,
            "pads": [self.pad] * d + [end] * d,
            "group": self.group,
        }


CONVOLUTIONS = [
    Window(5, 7, (6, 9), (1, 1)),
    Window(40, 33, (5, 7), (1, 1), stride=2),
    Window(3, 20, (17, 15), (7, 7), stride=2, pad=3),
    Window(3, 35, (12, 13), (3, 3), pad=1),
    Window(64, 48, (7, 7), (3, 3), pad=1),
    Window(130, 17, (6, 5), (3, 3), pad=2, dilation=2),
    Window(24, 36, (9, 8), (3, 2), pad=1, pad_end=0, group=3),
    Window(600, 20, (3, 4), (2, 2), stride=2),
    Window(18, 18, (14, 15), (3, 3), pad=1, group=18),
    Window(33, 33, (9, 31), (3, 3), stride=2, pad=1, group=33),
    Window(70, 70, (8, 8), (7, 7), pad=3, group=70),
    Window(16, 16, (20, 11), (5, 5), stride=3, pad=2, group=16),
    Window(20, 20, (9, 9), (3, 3), pad=2, dilation=2, group=20),
    Window(12, 12, (40,), (5,), stride=2, pad=2, group=12),
    Window(9, 11, (25,), (4,), stride=3, pad=1),
    Window(5, 6, (4, 5, 6), (3, 2, 3), pad=1),
]
TRANSPOSED = [
    Window(8, 24, (5, 6), (2, 2), stride=2),
    Window(20, 17, (6, 5), (4, 4), stride=2, pad=1),
    Window(7, 5, (4, 7), (3, 3), stride=2, pad=1, extra=1),
    Window(16, 40, (5, 5), (3, 3), pad=1),
    Window(6, 9, (4, 4), (2, 3), stride=4, extra=1),  # some outputs have no tap
    Window(12, 20, (5, 4), (3, 3), stride=2, pad=2, dilation=2),
    Window(10, 10, (5, 4), (3, 3), stride=3, dilation=2),
    Window(12, 60, (6, 6), (4, 4), stride=2, pad=1, group=2),
    Window(9, 9, (6, 6), (3, 3), stride=2, pad=1, group=9),
    Window(11, 13, (9,), (5,), stride=3, pad=2),
    Window(4, 3, (3, 4, 5), (2, 2, 2), stride=2),
]


class ConvTranspose(OpRun):
    """The definition, in double: every input spreads over the outputs.

    ONNX's own evaluator fails with groups.
    """

    def _run(self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, **attributes: Any) -> tuple[np.ndarray]:
        stride, step, pads = attributes["strides"], attributes["dilations"], attributes["pads"]
        extra, group, d = (
            attributes.get("output_padding"),
            attributes["group"],
            len(attributes["strides"]),
        )
        last = [(x.shape[2 + i] - 1) * stride[i] + (w.shape[2 + i] - 1) * step[i] + 1 for i in range(d)]
        full = np.zeros((x.shape[0], w.shape[1] * group, *(n + 8 for n in last)))
        c, n = x.shape[1] // group, w.shape[1]
        for g in range(group):
            here = x[:, g * c : (g + 1) * c].astype(np.float64)
            for t in np.ndindex(*w.shape[2:]):
                spread = np.einsum("bc...,cn->bn...", here, w[(slice(g * c, (g + 1) * c), slice(None), *t)])
                to = tuple(
                    slice(t[i] * step[i], t[i] * step[i] + x.shape[2 + i] * stride[i], stride[i]) for i in range(d)
                )
                full[(slice(None), slice(g * n, (g + 1) * n), *to)] += spread
        end = [last[i] - pads[d + i] + (extra[i] if extra else 0) for i in range(d)]
        y = full[(slice(None), slice(None), *(slice(pads[i], end[i]) for i in range(d)))]
        return ((y if b is None else y + b.reshape(-1, *[1] * d)).astype(np.float32),)


class Windows(Builder):
    own_operators = (ConvTranspose,)

    def __init__(self) -> None:
        super().__init__(seed=7)

    def convolution(self, w: Window, x: str, transposed: bool, bias: bool) -> str:
        shape = (w.c, w.n // w.group) if transposed else (w.n, w.c // w.group)
        operands = [x, self.weights(*shape, *w.taps)] + ([self.weights(w.n)] if bias else [])
        more = {"output_padding": [w.extra] * len(w.taps)} if w.extra else {}
        return self.node("ConvTranspose" if transposed else "Conv", *operands, **w.attributes(), **more)


def windows(windows: list[Window], transposed: bool) -> Case:
    """Each alone and with what is fused behind it: a residual and an activation."""
    b = Windows()
    for i, w in enumerate(windows):
        x = b.input(1 + i % 2, w.c, *w.size)
        b.outputs.append(b.convolution(w, x, transposed, i % 3 > 0))
        y = b.convolution(w, x, transposed, True)
        b.outputs.append(b.node("Relu", b.node("Add", y, b.outputs[-1])))
    return b.case("transposed" if transposed else "convolutions")


def joined() -> Case:
    """Convolutions, a product and a resampling that a Concat joins, along channels and lines."""
    b = Windows()
    x = b.input(2, 6, 5, 4)
    b.constants.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
    up = b.convolution(Window(6, 9, (5, 4), (4, 4), stride=2, pad=1), x, True, True)
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    big = b.node(
        "Resize",
        b.convolution(Window(6, 18, (5, 4), (1, 1)), x, False, True),
        "",
        "scales",
        **linear,
    )
    twice = b.node("Resize", x, "", "scales", **linear)
    fine = b.node("Relu", b.convolution(Window(6, 7, (10, 8), (3, 3), pad=1), twice, False, False))
    point = b.convolution(Window(6, 21, (10, 8), (1, 1)), twice, False, True)
    all_channels = b.node("Concat", up, big, fine, point, twice, axis=1)
    b.outputs.append(b.convolution(Window(61, 10, (10, 8), (3, 3), pad=1), all_channels, False, True))
    lower = b.convolution(Window(6, 10, (10, 8), (3, 3), pad=1), twice, False, True)
    lines = b.node("Concat", b.convolution(Window(6, 10, (10, 8), (1, 1)), twice, False, True), lower, axis=2)
    b.outputs.append(b.node("MaxPool", lines, kernel_shape=[2, 2], strides=[2, 2]))
    return b.case("joined")


@pytest.mark.parametrize("engine", ["tcc", "cc"])
@pytest.mark.parametrize(
    "case",
    [windows(CONVOLUTIONS, False), windows(TRANSPOSED, True), joined()],
    ids=lambda c: c.name,
)
def test_windows(case: Case, engine: str) -> None:
    assert verify(case, engine) == ""
