"""The text that moecc prints is ONNX's own syntax: onnx.parser reads it, and reads the same model."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

NAMES = ["x/1.0", "float", "7", 'a "b" \\ c', "wörter", "new\nline", "_plain1"]
FLOATS = [0.1, -0.0, 1e-45, 3.4028235e38, float("inf"), float("-inf"), float("nan"), 16777216.0, 1 / 3]


def inspect_text(moecc: Path, model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The model as read back from `moecc inspect --text`."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    run = subprocess.run([moecc, "inspect", path, "--text"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return onnx.parser.parse_model(run.stdout)


def model_of(nodes: list[onnx.NodeProto], outputs: list[str], weights: list[onnx.TensorProto] | None = None) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        'the "graph"',
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        weights or [],
    )
    opset = onnx.defs.onnx_opset_version()
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_names(moecc: Path, tmp_path: Path) -> None:
    """Any name comes back as it was, of values and of nodes."""
    names = ["x", *NAMES, "y"]
    nodes = [helper.make_node("Relu", [a], [b], name=f"node {b}") for a, b in itertools.pairwise(names)]
    back = inspect_text(moecc, model_of(nodes, ["y"]), tmp_path)
    assert [(n.name, list(n.input), list(n.output)) for n in back.graph.node] == [
        (n.name, list(n.input), list(n.output)) for n in nodes
    ]
    assert back.graph.name == 'the "graph"'


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]
)
def test_constants(moecc: Path, tmp_path: Path, dtype: str) -> None:
    """Constants keep every bit, extremes included."""
    if dtype.startswith("float"):
        values = np.array([v for v in FLOATS if dtype == "float64" or abs(v) < 6e4 or v != v or np.isinf(v)], dtype)
    elif dtype == "bool":
        values = np.array([False, True])
    else:
        info = np.iinfo(dtype)
        values = np.array([info.min, 0, 1, info.max], dtype)
    weight = numpy_helper.from_array(values, "w")
    nodes = [
        helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["c"], ["s"]),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]
    got = constants(inspect_text(moecc, model_of(nodes, ["y"], [weight]), tmp_path))["w"]
    assert got.dtype == values.dtype
    assert got.tobytes() == values.tobytes()


def test_large_constants_are_elided(moecc: Path, tmp_path: Path) -> None:
    """More than 64 elements stand as external data that nobody has; equal data has an equal hash."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((3, 40), np.float32)
    weights = [numpy_helper.from_array(w, n) for n, w in [("a", data), ("b", data), ("c", data + 1)]]
    nodes = [helper.make_node("MatMul", ["x", n], [f"y{n}"]) for n in "abc"]
    back = inspect_text(moecc, model_of(nodes, ["ya", "yb", "yc"], weights), tmp_path)
    external = {t.name: {e.key: e.value for e in t.external_data} for t in back.graph.initializer}
    assert all(e["location"] == "elided" for e in external.values())
    assert external["a"]["hash"] == external["b"]["hash"] != external["c"]["hash"]
    assert [list(t.dims) for t in back.graph.initializer] == [[3, 40]] * 3


def test_attributes(moecc: Path, tmp_path: Path) -> None:
    """Attributes of each kind keep their values."""
    weight = numpy_helper.from_array(np.ones((1, 2, 1), np.float32), "w")
    axes = numpy_helper.from_array(np.array([0], np.int64), "axes")
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axes"], ["u"]),
        helper.make_node("Conv", ["u", "w"], ["c"], auto_pad="VALID", dilations=[2], group=1),
        helper.make_node("LeakyRelu", ["c"], ["l"], alpha=0.3),
        helper.make_node("Gelu", ["l"], ["y"], approximate="tanh"),
    ]
    back = inspect_text(moecc, model_of(nodes, ["y"], [weight, axes]), tmp_path)
    got = {n.op_type: {a.name: helper.get_attribute_value(a) for a in n.attribute} for n in back.graph.node}
    for node in nodes:
        for attribute in node.attribute:
            assert got[node.op_type][attribute.name] == helper.get_attribute_value(attribute)


def test_metadata(moecc: Path, tmp_path: Path) -> None:
    """The tasks of a model are in its text."""
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], ["y"])
    helper.set_model_props(model, {"moecc.task.depth": "outputs=y", "note": 'a "b"'})
    back = inspect_text(moecc, model, tmp_path)
    assert {p.key: p.value for p in back.metadata_props} == {"moecc.task.depth": "outputs=y", "note": 'a "b"'}
