"""Writes a small corpus for each fuzz target: make_seeds.py OUT

OUT/onnx     the models of ONNX's own node tests, smallest first, and mixtures of experts
OUT/tensor   their data
OUT/text     the graphs of the pass tests
OUT/npy      arrays of every type
OUT/picture  PNG and JPEG files of every kind

and OUT.words, the names of all operators and attributes.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import PIL.Image
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 3000  # bytes: short inputs are tried more often


def mixture(normalize: int) -> onnx.ModelProto:
    """Two experts of com.microsoft::MoE behind a router and a normalisation."""
    rng = np.random.default_rng(0)
    shapes = {"g": (4,), "b": (4,), "r": (4, 2), "w1": (2, 3, 4), "b1": (2, 3), "w2": (2, 4, 3), "b2": (2, 4)}
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("LayerNormalization", ["x", "g", "b"], ["n"]),
        helper.make_node("MatMul", ["n", "r"], ["s"]),
        helper.make_node("MoE", ["n", "s", "w1", "b1", "w2", "b2"], ["m"], domain="com.microsoft", k=1,
                         activation_type="gelu", normalize_routing_weights=normalize),
        helper.make_node("Add", ["x", "m"], ["y"]),
    ]  # fmt: skip
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [3, 4]) for n in "xy")
    graph = helper.make_graph(nodes, "mixture", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)])


def constants(model: onnx.ModelProto, inputs: list[np.ndarray]) -> onnx.ModelProto:
    """The same with its inputs as initializers: folding computes it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = [value.name for value in copy.graph.input]
    del copy.graph.input[:]
    copy.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in zip(names, inputs, strict=False))
    return copy


def models() -> Iterator[tuple[str, bytes]]:
    yield "moe", mixture(0).SerializeToString()
    yield "moe-normalised", mixture(1).SerializeToString()
    seen: dict[str, int] = {}
    for case in collect_testcases(None):
        model = case.model
        if model is None or not case.data_sets:
            continue
        kind = model.graph.node[0].op_type
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= 3:
            yield case.name, model.SerializeToString()
            if seen[kind] == 1 and all(isinstance(a, np.ndarray) for a in case.data_sets[0][0]):
                yield f"{case.name}-constant", constants(model, list(case.data_sets[0][0])).SerializeToString()


def tensors() -> Iterator[tuple[str, bytes]]:
    for kind in TensorProto.DataType.values():
        if kind in (TensorProto.UNDEFINED, TensorProto.STRING):
            continue
        try:
            yield f"values-{kind}", helper.make_tensor("t", kind, [2, 3], [1, 0, 1, 1, 0, 1]).SerializeToString()
            dtype = helper.tensor_dtype_to_np_dtype(kind)
            yield f"raw-{kind}", numpy_helper.from_array(np.ones((2, 3), dtype), "t").SerializeToString()
        except (TypeError, ValueError, KeyError):
            continue


def texts() -> Iterator[tuple[str, bytes]]:
    for file in sorted((ROOT / "tests" / "passes").glob("*.txt")):
        cases = re.split(r"^====.*\n(?:passes:.*\n)?", file.read_text(), flags=re.M)[1:]
        for i, case in enumerate(cases):
            yield f"{file.stem}-{i}", case.split("\n----\n")[0].encode()


def arrays() -> Iterator[tuple[str, bytes]]:
    for i, dtype in enumerate(["f4", "f8", "f2", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?", "V2", ">f4", "U3", "c8"]):
        file = io.BytesIO()
        np.lib.format.write_array(file, np.zeros((2, 3)[: i % 3], dtype), version=(1 + i % 3, 0))
        yield f"{i}", file.getvalue()
    file = io.BytesIO()
    np.save(file, np.asfortranarray(np.zeros((2, 3))))
    yield "fortran", file.getvalue()


def pictures() -> Iterator[tuple[str, bytes]]:
    picture = PIL.Image.radial_gradient("L").resize((13, 9))
    for kind, modes in {"PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I"], "JPEG": ["L", "RGB", "CMYK"]}.items():
        for mode in modes:
            sixteen_bits = np.asarray(picture).astype(np.uint16) * 257
            plain = PIL.Image.fromarray(sixteen_bits) if mode == "I" else picture.convert(mode)
            for options in ({}, {"progressive": True}) if kind == "JPEG" else ({},):
                file = io.BytesIO()
                plain.save(file, kind, **options)
                yield f"{kind}-{mode}-{len(options)}", file.getvalue()


def words() -> list[str]:
    table = (ROOT / "compiler" / "ir" / "ops.def").read_text()
    return sorted(set(re.findall(r'"([A-Za-z][\w.]{2,30})"', table)))


def main() -> None:
    np.seterr(all="ignore")  # in the node tests
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".words").write_text("".join(f'"{word}"\n' for word in words()))
    makers = {"onnx": models, "tensor": tensors, "text": texts, "npy": arrays, "picture": pictures}
    for name, maker in makers.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for seed, data in maker():
            if len(data) <= LARGEST:
                (folder / seed).write_bytes(data)


if __name__ == "__main__":
    main()
