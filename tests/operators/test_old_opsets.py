"""Older forms of operators, upgraded on reading, against ONNX's reference evaluator or numpy."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from harness import Case, verify_all

# IR versions old enough for every opset, new enough for constants that are not graph inputs.
IR_VERSION = 8
LEAST_CASES = 200


def ints(*values: int) -> np.ndarray:
    """A vector of int64."""
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray:
    """A vector of float32."""
    return np.array(values, np.float32)


def data(*shape: int) -> np.ndarray:
    """Reproducible values around 0, none of them equal."""
    count = int(np.prod(shape))
    order = np.random.default_rng(count).permutation(count)
    return ((order - count / 2) / max(count, 1) * 6 + 0.1).astype(np.float32).reshape(shape)


def make(
    name: str,
    op: str,
    opset: int,
    inputs: Sequence[np.ndarray],
    constants: Sequence[np.ndarray | None] = (),
    outputs: int = 1,
    expected: Sequence[np.ndarray] | None = None,
    **attributes: Any,
) -> Case:
    """One node whose first operands are inputs, the further ones constants (None: absent)."""
    in_names = [f"x{i}" for i in range(len(inputs))]
    constant_names = ["" if c is None else f"c{i}" for i, c in enumerate(constants)]
    out_names = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, in_names + constant_names, out_names, name="node", **attributes)
    kind = [helper.np_dtype_to_tensor_dtype(x.dtype) for x in inputs]
    graph = helper.make_graph(
        [node],
        name,
        [helper.make_tensor_value_info(n, t, x.shape) for n, t, x in zip(in_names, kind, inputs, strict=True)],
        [helper.make_empty_tensor_value_info(n) for n in out_names],
        [numpy_helper.from_array(c, n) for n, c in zip(constant_names, constants, strict=True) if c is not None],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)
    feeds = dict(zip(in_names, inputs, strict=True))
    results = list(expected) if expected is not None else ReferenceEvaluator(model).run(None, feeds)
    del graph.output[:]
    for out, array in zip(out_names, results, strict=True):
        element = helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)
        graph.output.append(helper.make_tensor_value_info(out, element, np.asarray(array).shape))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return Case(f"{name}-{opset}", model, list(inputs), [np.asarray(r) for r in results])


def flat_softmax(x: np.ndarray, axis: int, logarithm: bool) -> np.ndarray:
    """Softmax before opset 13: over everything from `axis` on, taken as one axis."""
    rows = x.reshape(int(np.prod(x.shape[:axis])), -1).astype(np.float64)
    rows = rows - rows.max(axis=1, keepdims=True)
    rows = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    result: np.ndarray = (rows if logarithm else np.exp(rows)).reshape(x.shape)
    return result.astype(np.float32)


def softmax_cases() -> list[Case]:
    """One default axis (1), several axes at once."""
    cases = []
    for opset in (7, 11, 12):
        for op in ("Softmax", "LogSoftmax"):
            for shape, axis in (((3, 4), 1), ((2, 3, 4), 1), ((2, 3, 4), 2), ((2, 3, 4), 0)):
                x = data(*shape)
                expected = [flat_softmax(x, axis, op == "LogSoftmax")]
                cases.append(make(f"{op}-{len(shape)}d-{axis}", op, opset, [x], expected=expected, axis=axis))
            x = data(2, 3, 5)
            cases.append(
                make(
                    f"{op}-default",
                    op,
                    opset,
                    [x],
                    expected=[flat_softmax(x, 1, op == "LogSoftmax")],
                )
            )
    return cases


def axes_cases() -> list[Case]:
    """Axes as attributes."""
    cases = []
    for opset in (7, 11, 12):
        cases.append(make("squeeze", "Squeeze", opset, [data(1, 3, 1, 2)], axes=[0, 2]))
        cases.append(make("squeeze-all", "Squeeze", opset, [data(1, 3, 1, 2)]))
        cases.append(make("unsqueeze", "Unsqueeze", opset, [data(3, 2)], axes=[0, 3]))
        cases.append(make("unsqueeze-one", "Unsqueeze", opset, [data(5)], axes=[0]))
    for opset in (7, 11, 13, 17):
        for op in (
            "ReduceMean",
            "ReduceMax",
            "ReduceMin",
            "ReduceL2",
            "ReduceProd",
            "ReduceLogSumExp",
            "ReduceL1",
        ):
            cases.append(make(f"{op}-axes", op, opset, [data(3, 4, 2)], axes=[1], keepdims=0))
        cases.append(make("ReduceMean-all", "ReduceMean", opset, [data(3, 4)]))
        cases.append(make("ReduceMean-two", "ReduceMean", opset, [data(2, 3, 4)], axes=[0, 2]))
    for opset in (7, 11):
        cases.append(make("ReduceSum-axes", "ReduceSum", opset, [data(3, 4, 2)], axes=[2]))
        cases.append(make("ReduceSum-all", "ReduceSum", opset, [data(3, 4)], keepdims=0))
    return cases


def clip_cases() -> list[Case]:
    """Bounds as attributes until opset 10, as operands from 11 on."""
    cases = []
    for shape in ((5,), (2, 3, 4)):
        x = data(*shape)
        cases.append(make(f"clip-{len(shape)}d", "Clip", 7, [x], min=-1.0, max=1.5))
        cases.append(make(f"clip-max-{len(shape)}d", "Clip", 10, [x], max=0.25))
        cases.append(
            make(
                f"clip-{len(shape)}d",
                "Clip",
                11,
                [x],
                [np.array(-1, np.float32), np.array(2, np.float32)],
            )
        )
        cases.append(make(f"clip-max-{len(shape)}d", "Clip", 12, [x], [None, np.array(2, np.float32)]))
    return cases


def pad_slice_split_cases() -> list[Case]:
    """Pad, Slice and Split with attributes; TopK's k; Tile and Expand are unchanged."""
    cases = []
    around = ((1, 0), (2, 1))
    expected = [np.pad(data(3, 4), around, constant_values=1.5)]
    cases.append(make("pad-value", "Pad", 7, [data(3, 4)], expected=expected, pads=[1, 2, 0, 1], value=1.5))
    for mode in ("constant", "edge", "reflect"):
        expected = [np.pad(data(3, 4), around, mode=mode)]
        cases.append(
            make(
                f"pad-{mode}",
                "Pad",
                7,
                [data(3, 4)],
                expected=expected,
                mode=mode,
                pads=[1, 2, 0, 1],
            )
        )
        cases.append(make(f"pad-{mode}", "Pad", 11, [data(3, 4)], [ints(1, 2, 0, 1)], mode=mode))
        cases.append(make(f"pad-{mode}", "Pad", 13, [data(2, 3, 4)], [ints(0, 1, 1, 0, 2, 0)], mode=mode))
    x = data(4, 6)
    cases.append(make("slice", "Slice", 7, [x], expected=[x[1:3, 2:-1]], starts=[1, 2], ends=[3, -1]))
    cases.append(make("slice-axes", "Slice", 9, [x], expected=[x[:, -3:]], starts=[-3], ends=[1000], axes=[1]))
    cases.append(make("slice", "Slice", 10, [x], [ints(3), ints(0), ints(0), ints(-2)]))
    cases.append(make("slice", "Slice", 11, [x], [ints(0, 5), ints(4, 0), ints(0, -1), ints(2, -2)]))
    for opset in (7, 11):
        cases.append(
            make(
                "split",
                "Split",
                opset,
                [x],
                outputs=2,
                expected=[x[:1], x[1:]],
                split=[1, 3],
                axis=0,
            )
        )
        cases.append(make("split-even", "Split", opset, [x], outputs=3, expected=np.split(x, 3, 1), axis=1))
    cases.append(make("split-even", "Split", 13, [x], outputs=2, expected=np.split(x, 2, 0)))
    cases.append(
        make(
            "split",
            "Split",
            13,
            [x],
            [ints(2, 4)],
            outputs=2,
            expected=[x[:, :2], x[:, 2:]],
            axis=1,
        )
    )
    for shape, k in (((3, 5), 2), ((2, 3, 4), 3)):
        x = data(*shape)
        order = np.argsort(-x, axis=-1, kind="stable")[..., :k]
        both = [np.take_along_axis(x, order, -1), order.astype(np.int64)]
        cases.append(make(f"topk-{len(shape)}d", "TopK", 7, [x], outputs=2, expected=both, k=k))
        cases.append(make(f"topk-{len(shape)}d", "TopK", 10, [x], [ints(k)], outputs=2, expected=both))
        cases.append(
            make(
                f"topk-{len(shape)}d",
                "TopK",
                11,
                [x],
                [ints(k)],
                outputs=2,
                expected=both,
                largest=1,
            )
        )
    return cases


def bilinear(x: np.ndarray, scale: int) -> np.ndarray:
    """Linear resampling of the last two axes: output pixel i lies at input i / scale."""
    for axis in (2, 3):
        n = x.shape[axis]
        at = np.minimum(np.arange(n * scale) / scale, n - 1)
        low = np.floor(at).astype(int)
        part = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(4)])
        x = np.take(x, low, axis) * (1 - part) + np.take(x, np.minimum(low + 1, n - 1), axis) * part
    return x.astype(np.float32)


def nearest(x: np.ndarray, scale: int) -> np.ndarray:
    """Each pixel of the last two axes repeated."""
    return x.repeat(scale, 2).repeat(scale, 3)


def resize_cases() -> list[Case]:
    """Upsample, and Resize with two operands (opset 10) and four."""
    cases = []
    for shape in ((1, 1, 2, 3), (1, 2, 4, 3)):
        x = data(*shape)
        for scale in (2, 3):
            tag = f"{shape[2]}x{shape[3]}-{scale}"
            scales = [1.0, 1.0, float(scale), float(scale)]
            for mode, expected in (("nearest", nearest(x, scale)), ("linear", bilinear(x, scale))):
                cases.append(
                    make(
                        f"upsample-{mode}-{tag}",
                        "Upsample",
                        7,
                        [x],
                        expected=[expected],
                        mode=mode,
                        scales=scales,
                    )
                )
                cases.append(
                    make(
                        f"upsample-{mode}-{tag}",
                        "Upsample",
                        9,
                        [x],
                        [floats(*scales)],
                        expected=[expected],
                        mode=mode,
                    )
                )
                cases.append(
                    make(
                        f"resize-{mode}-{tag}",
                        "Resize",
                        10,
                        [x],
                        [floats(*scales)],
                        expected=[expected],
                        mode=mode,
                    )
                )
            empty = floats()
            for mode in ("nearest", "linear", "cubic"):
                for opset in (11, 13, 18):
                    cases.append(
                        make(
                            f"resize-{mode}-{tag}",
                            "Resize",
                            opset,
                            [x],
                            [empty, floats(*scales)],
                            mode=mode,
                        )
                    )
                cases.append(
                    make(
                        f"resize-{mode}-sizes-{tag}",
                        "Resize",
                        13,
                        [x],
                        [None, None, ints(shape[0], shape[1], shape[2] * scale + 1, shape[3] + 2)],
                        mode=mode,
                        coordinate_transformation_mode="align_corners",
                    )
                )
    return cases


def normalisation_cases() -> list[Case]:
    """BatchNormalization for inference, Dropout."""
    cases = []
    for opset, shape in ((7, (2, 3, 4)), (9, (1, 3, 2, 2)), (14, (2, 3, 5))):
        x, scale, bias = data(*shape), floats(1.0, 0.5, -2.0), floats(0.0, 1.0, 2.0)
        mean, variance = floats(0.1, -0.2, 0.3), floats(1.0, 2.0, 0.5)
        wide = [v.reshape([1, 3] + [1] * (len(shape) - 2)) for v in (scale, bias, mean, variance)]
        expected = [(wide[0] * (x - wide[2]) / np.sqrt(wide[3] + np.float32(1e-3)) + wide[1]).astype(np.float32)]
        constants = [scale, bias, mean, variance]
        cases.append(
            make(
                "batch-norm",
                "BatchNormalization",
                opset,
                [x],
                constants,
                expected=expected,
                epsilon=1e-3,
            )
        )
    for opset in (7, 10):
        for x in (data(3), data(2, 3)):
            cases.append(make(f"dropout-{x.ndim}d", "Dropout", opset, [x], expected=[x], ratio=0.3))
    cases.append(
        make(
            "dropout",
            "Dropout",
            12,
            [data(2, 3)],
            [np.array(0.3, np.float32)],
            expected=[data(2, 3)],
        )
    )
    return cases


def other_cases() -> list[Case]:
    """Gemm with a full addend, Scatter, Reshape, Max of two, Cast, Flatten, arithmetic."""
    a, b = data(3, 4), data(4, 2)
    cases = [
        make(f"gemm-{bias.shape}", "Gemm", opset, [a], [b, bias]) for opset in (7, 9) for bias in (data(3, 2), data(2))
    ]
    cases.append(make("max", "Max", 8, [a, a[::-1].copy()]))
    cases.append(make("min", "Min", 8, [a, data(4)]))
    cases.append(make("flatten", "Flatten", 9, [data(2, 3, 4)], axis=2))
    cases.append(make("reshape", "Reshape", 7, [data(2, 3, 4)], [ints(0, -1)]))
    cases.append(make("cast", "Cast", 9, [a], to=TensorProto.INT32))
    for opset in (9, 10):
        index, updates = np.array([[1, 0, 2]], np.int64), floats(1.0, 1.1, 1.2).reshape(1, 3)
        expected = np.zeros((3, 3), np.float32)
        expected[index[0], np.arange(3)] = updates[0]
        zeros = np.zeros((3, 3), np.float32)
        cases.append(make("scatter", "Scatter", opset, [zeros], [index, updates], expected=[expected]))
    for op in ("Add", "Sub", "Mul", "Div"):
        cases.append(make(op.lower(), op, 7, [a, data(4)]))
        cases.append(make(f"{op.lower()}-3d", op, 13, [data(2, 3, 4), data(3, 1)]))
    return cases


@functools.cache
def collect() -> dict[str, Case]:
    """All cases by name."""
    groups = (
        softmax_cases,
        axes_cases,
        clip_cases,
        pad_slice_split_cases,
        resize_cases,
        normalisation_cases,
        other_cases,
    )
    cases = [case for group in groups for case in group()]
    found = {case.name: case for case in cases}
    assert len(found) == len(cases), "two cases have one name"
    return found


@functools.cache
def results() -> dict[str, str]:
    """What moecc said to each case; run once."""
    return verify_all(list(collect().values()))


def test_enough_cases() -> None:
    """A suite that makes nothing must not pass."""
    assert len(collect()) >= LEAST_CASES


@pytest.mark.parametrize("name", list(collect()))
def test_case(name: str) -> None:
    """Same result as the reference of that opset."""
    assert not results()[name], results()[name]
