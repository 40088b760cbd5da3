"""Small models for the tests of the command line, with data in the layout of ONNX's own tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.generic]


def value(name: str, shape: Sequence[int | str], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, array: Array) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(array), name)


def noise(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
    meta: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "net", list(inputs), list(outputs), list(constants))
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    helper.set_model_props(proto, dict(meta or {}))
    return proto


def write_tensor(path: Path, array: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(numpy_helper.from_array(np.ascontiguousarray(array)).SerializeToString())


def write_set(folder: Path, number: int, inputs: Sequence[Array], outputs: Sequence[Array | None]) -> Path:
    """One data set; an output that is None is left out."""
    place = folder / f"test_data_set_{number}"
    place.mkdir(parents=True, exist_ok=True)
    for i, array in enumerate(inputs):
        write_tensor(place / f"input_{i}.pb", array)
    for i, wanted in enumerate(outputs):
        if wanted is not None:
            write_tensor(place / f"output_{i}.pb", wanted)
    return place


# ---- models and what they compute ----

X = noise(1, 2, 8)


def relu() -> onnx.ModelProto:
    """x f32[2,3,4] -> y, the simplest there is."""
    return model([helper.make_node("Relu", ["x"], ["y"], name="relu")], [value("x", (2, 3, 4))], [value("y", (2, 3, 4))])


def dense() -> onnx.ModelProto:
    """x f32[2,8] -> y f32[2,16]: a matrix product, a bias, Erf; weights of 512 bytes and more."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"], name="product"),
        helper.make_node("Add", ["xw", "b"], ["s"], name="bias"),
        helper.make_node("Erf", ["s"], ["y"], name="erf"),
    ]
    constants = [constant("w", noise(2, 8, 16)), constant("b", noise(3, 16))]
    return model(nodes, [value("x", (2, 8))], [value("y", (2, 16))], constants)


def dense_result(x: NDArray[np.float32]) -> NDArray[np.float32]:
    product: NDArray[np.float64] = x.astype(np.float64) @ noise(2, 8, 16) + noise(3, 16)
    return np.vectorize(math.erf)(product).astype(np.float32)


def tasks() -> onnx.ModelProto:
    """Two tasks on a common trunk, chosen by the bound input `which`: a is Neg, b is Abs, each of x·w + which."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["trunk"], name="trunk"),
        helper.make_node("Cast", ["which"], ["number"], name="number", to=TensorProto.FLOAT),
        helper.make_node("Add", ["trunk", "number"], ["moved"], name="moved"),
        helper.make_node("Neg", ["moved"], ["a"], name="neg"),
        helper.make_node("Abs", ["moved"], ["b"], name="abs"),
    ]
    meta = {"moecc.task.left": "outputs=a bind=which:0", "moecc.task.right": "outputs=b bind=which:1"}
    inputs = [value("x", (2, 8)), value("which", (1,), TensorProto.INT64)]
    return model(nodes, inputs, [value("a", (2, 8)), value("b", (2, 8))], [constant("w", noise(4, 8, 8))], meta)


def tasks_results(x: NDArray[np.float32], which: int) -> list[NDArray[np.float32]]:
    moved = x.astype(np.float64) @ noise(4, 8, 8) + which
    return [(-moved).astype(np.float32), np.abs(moved).astype(np.float32)]


MOE = {"tokens": 6, "width": 8, "inner": 16, "experts": 4, "k": 2}


def moe(activation: str = "relu") -> onnx.ModelProto:
    """A router and a com.microsoft::MoE layer; x f32[6,8] -> y."""
    e, w, i = MOE["experts"], MOE["width"], MOE["inner"]
    attributes: dict[str, Any] = {"k": MOE["k"], "activation_type": activation}
    nodes = [
        helper.make_node("MatMul", ["x", "router"], ["scores"], name="router"),
        helper.make_node("MoE", ["x", "scores", "fc1", "", "fc2"], ["y"], name="moe", domain="com.microsoft", **attributes),
    ]
    constants = [constant("router", noise(5, w, e)), constant("fc1", noise(6, e, i, w)), constant("fc2", noise(7, e, w, i))]
    return model(nodes, [value("x", (MOE["tokens"], w))], [value("y", (MOE["tokens"], w))], constants)


def moe_tasks() -> onnx.ModelProto:
    """Two tasks, left and right, over the same experts, each with a router and a last matrix of its own."""
    e, w, i = MOE["experts"], MOE["width"], MOE["inner"]
    constants = [constant("fc1", noise(6, e, i, w)), constant("fc2", noise(7, e, w, i))]
    nodes: list[onnx.NodeProto] = []
    for n, task in enumerate(("left", "right")):
        constants += [constant(f"{task}_router", noise(8 + n, w, e)), constant(f"{task}_last", noise(10 + n, w, w))]
        attributes: dict[str, Any] = {"k": MOE["k"], "activation_type": "relu", "domain": "com.microsoft"}
        nodes += [
            helper.make_node("MatMul", ["x", f"{task}_router"], [f"{task}_scores"], name=f"{task}_router"),
            helper.make_node(
                "MoE", ["x", f"{task}_scores", "fc1", "", "fc2"], [f"{task}_moe"], name=f"{task}_moe", **attributes
            ),
            helper.make_node("MatMul", [f"{task}_moe", f"{task}_last"], [task], name=f"{task}_last"),
        ]
    shape = (MOE["tokens"], w)
    meta = {f"moecc.task.{task}": f"outputs={task}" for task in ("left", "right")}
    return model(nodes, [value("x", shape)], [value(task, shape) for task in ("left", "right")], constants, meta)


def softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def moe_result(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """The output, and the smallest margin in probability between the last expert chosen and the first not chosen."""
    x64 = x.astype(np.float64)
    gate = softmax(x64 @ noise(5, MOE["width"], MOE["experts"]))
    fc1, fc2 = noise(6, MOE["experts"], MOE["inner"], MOE["width"]), noise(7, MOE["experts"], MOE["width"], MOE["inner"])
    y = np.zeros_like(x64)
    for t, row in enumerate(x64):
        for e in sorted(np.argsort(-gate[t])[: MOE["k"]]):
            y[t] += gate[t, e] * (fc2[e] @ np.maximum(fc1[e] @ row, 0))
    ordered = -np.sort(-gate, -1)
    return y.astype(np.float32), float((ordered[:, MOE["k"] - 1] - ordered[:, MOE["k"]]).min())
