#!/usr/bin/env python3
"""Writes hostile models, and cases.json with what each must get: python3 make_faults.py FOLDER.

The numbers are those of the table of faults in docs (bytes and models: 1, 2, 4 to 15, 17). A case is
{"name", "number", "model", "commands", "args", "status", "message"}: the exit status of `moecc COMMAND MODEL ARGS` and a
regular expression that its messages must contain.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OK, MODEL, USAGE = 0, 1, 2


@dataclass
class Case:
    name: str
    number: int
    model: str
    message: str
    status: int = MODEL
    commands: list[str] = field(default_factory=lambda: ["inspect", "compile"])
    args: list[str] = field(default_factory=list)


CASES: list[Case] = []
BUILDERS: list[Callable[[Path], None]] = []


def builder(function: Callable[[Path], None]) -> Callable[[Path], None]:
    BUILDERS.append(function)
    return function


def save(folder: Path, case: Case, model: onnx.ModelProto | bytes) -> None:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    (folder / case.model).parent.mkdir(parents=True, exist_ok=True)
    (folder / case.model).write_bytes(data)
    CASES.append(case)


def case(folder: Path, number: int, name: str, message: str, model: onnx.ModelProto | bytes, **more: object) -> None:
    save(folder, Case(name, number, f"{name}.onnx", message, **more), model)  # type: ignore[arg-type]


# ---- small models -----------------------------------------------------------------------------------------------------


def value(name: str, shape: Sequence[int | str] | None = (2, 3, 4), kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    tensors: Sequence[onnx.TensorProto] = (),
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    opset: int = 20,
    **more: object,
) -> onnx.ModelProto:
    inputs = [value("x")] if inputs is None else inputs
    outputs = [value("y", None)] if outputs is None else outputs
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(tensors))
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("local", 1)]
    made = helper.make_model(graph, opset_imports=imports, **more)
    made.ir_version = 10
    return made


def hard_link(path: Path) -> None:
    """A file with two names."""
    other = path.with_name("other.bin")
    other.write_bytes(bytes(16))
    os.link(other, path)


def node(op: str, inputs: str, outputs: str, name: str = "n", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=name, **attributes)


def ints(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def floats(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def good() -> onnx.ModelProto:
    return model([node("ReduceSum", "x axes", "y", "sum")], [ints("axes", 0, 2)])


# ---- 1, 2: bytes ------------------------------------------------------------------------------------------------------


@builder
def bytes_at_fault(folder: Path) -> None:
    whole = good().SerializeToString()
    case(folder, 1, "empty", r"is empty", b"")
    case(folder, 1, "not_onnx", r"not a valid ONNX model: at byte \d+", b"#!/bin/sh\nexit 1\n")
    case(folder, 1, "png", r"not a valid ONNX model: at byte \d+", b"\x89PNG\r\n\x1a\n" + bytes(64))
    for i, length in enumerate((1, len(whole) // 2, len(whole) - 1)):
        case(folder, 1, f"truncated_{i}", r"not a valid ONNX model: at byte \d+", whole[:length])
    case(folder, 1, "bad_varint", r"at byte 1, .*varint has more than 64 bits", b"\x08" + b"\xff" * 10 + b"\x01")
    case(folder, 1, "bad_wire_type", r"at byte 0, .*wire type 3", b"\x0b" + whole)
    case(folder, 1, "wrong_wire_type", r"at byte 0, .*wire type 5 instead of 0", b"\x0d\0\0\0\0" + whole)
    case(folder, 1, "bad_length", r"at byte 0?1?, .*reaches beyond the end", b"\x12\xff\xff\x03ab")
    case(folder, 1, "zero_field", r"field number 0", b"\x02\x01x" + whole)


def nested(depth: int) -> bytes:
    """A graph in an attribute of a node of a graph …, `depth` times."""

    def wrap(number: int, data: bytes) -> bytes:
        length, out = len(data), bytearray([number << 3 | 2])
        while length > 0x7F:
            out.append(length & 0x7F | 0x80)
            length >>= 7
        return bytes(out) + bytes([length]) + data

    graph = b""
    for _ in range(depth):
        graph = wrap(1, wrap(5, wrap(6, graph)))
    return b"\x08\x08" + wrap(7, graph)


@builder
def bombs(folder: Path) -> None:
    case(folder, 2, "deep", r"nested deeper than 100", nested(40))
    case(folder, 2, "very_deep", r"nested deeper than 100", nested(3000))
    # The length of the graph is patched to hold a million empty nodes: 2 MB that would unpack to hundreds.
    nodes = b"\x0a\x00" * 1_000_000
    length = len(nodes)
    head = b"\x08\x08\x3a" + bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14 & 0x7F | 0x80, length >> 21])
    case(folder, 2, "repeated_fields", r"unpacking it would take more than", head + nodes)
    case(folder, 2, "over_2_gib", r"over 2 GiB", b"")
    with open(folder / "over_2_gib.onnx", "wb") as file:
        file.truncate((1 << 31) + 1)  # a hole: takes no space


# ---- 4, 5: names and order --------------------------------------------------------------------------------------------


@builder
def names_and_order(folder: Path) -> None:
    case(folder, 4, "dangling", r'node 0 "n" \(Relu\): reads "nothing", which no node', model([node("Relu", "nothing", "y")]))
    cycle = [
        node("Add", "x c", "a", "one"),
        node("Relu", "a", "b", "two"),
        node("Relu", "b", "c", "three"),
        node("Relu", "c", "y", "end"),
    ]
    case(folder, 4, "cycle", r'cycle: node 0 "one" .*"two".*"three".*"one"', model(cycle))
    case(
        folder,
        4,
        "unsorted",
        r'reads "t", which only node 1 "early" \(Relu\)',
        model([node("Relu", "t", "y", "late"), node("Relu", "x", "t", "early")]),
    )
    case(
        folder,
        4,
        "duplicate",
        r'"y" is defined twice: by node 0 "a" .* and by node 1 "b"',
        model([node("Relu", "x", "y", "a"), node("Abs", "x", "y", "b")]),
    )
    case(
        folder,
        4,
        "duplicate_initializer",
        r'"w" is defined twice: by initializer 0 and by initializer 1',
        model([node("Add", "x w", "y")], [floats("w", 4), floats("w", 4)]),
    )
    case(folder, 4, "no_output", r'output "y" is defined by no node', model([node("Relu", "x", "z")]))


def function(name: str, nodes: Sequence[onnx.NodeProto]) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["a"], ["b"], list(nodes), imports)


@builder
def recursion(folder: Path) -> None:
    def call(name: str) -> list[onnx.NodeProto]:
        return [node(name, "a", "b", "", domain="local")]

    start = [node("F", "x", "y", "start", domain="local")]
    case(folder, 5, "recursive", r'calls itself: "F" -> "F"', model(start, functions=[function("F", call("F"))]))
    three = [function("F", call("G")), function("G", call("H")), function("H", call("F"))]
    case(folder, 5, "recursive_in_three", r'"F" -> "G" -> "H" -> "F"', model(start, functions=three))
    twice = [
        function(f"F{i}", [node(f"F{i + 1}", "a", "t", "", domain="local"), node(f"F{i + 1}", "t", "b", "", domain="local")])
        for i in range(40)
    ]
    twice.append(function("F40", [node("Relu", "a", "b", "")]))
    case(
        folder,
        5,
        "exploding",
        r"nodes, functions inlined",
        model([node("F0", "x", "y", "start", domain="local")], functions=twice),
    )


# ---- 6 to 9: operators, sets, attributes, dimensions ------------------------------------------------------------------


@builder
def operators(folder: Path) -> None:
    strange = [
        node("Loop", "x", "a", "l1"),
        node("Loop", "a", "b", "l2"),
        node("Invented", "b", "c", "i"),
        node("Magic", "c", "y", "m", domain="com.microsoft"),
    ]
    case(folder, 6, "unsupported", r'(?s)"Loop" .*"l1".*"l2".*"Invented".*"i".*"com\.microsoft\.Magic".*"m"', model(strange))
    case(
        folder, 6, "unknown_domain", r"set that the model does not import", model([node("Relu", "x", "y", domain="elsewhere")])
    )
    case(
        folder,
        6,
        "string_input",
        r'input "x" has elements of string',
        model([node("Identity", "x", "y")], inputs=[value("x", (1,), TensorProto.STRING)]),
    )
    packed = TensorProto(name="w", data_type=TensorProto.INT4, dims=[2], raw_data=b"\x21")
    case(folder, 6, "int4", r'initializer "w" has elements of int4', model([node("Identity", "w", "y")], [packed], inputs=[]))
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [2])
    case(folder, 6, "sequence", r'input "x" is a sequence', model([node("Identity", "x", "y")], inputs=[sequence]))
    sparse = model([node("Relu", "x", "y")])
    indices = ints("i", 1)
    sparse.graph.sparse_initializer.append(helper.make_sparse_tensor(floats("s", 1), indices, [4]))
    case(folder, 6, "sparse", r"sparse initializers, which are not supported", sparse)


@builder
def versions(folder: Path) -> None:
    for opset in (1, 6, 29, 1000):
        case(
            folder,
            7,
            f"opset_{opset}",
            rf"opset {opset} of ai\.onnx; 7 to 28 are supported",
            model([node("Relu", "x", "y")], opset=opset),
        )
    none = good()
    del none.opset_import[:]
    case(folder, 7, "no_opset", r"imports no operator set", none)
    for version in (0, 2, 1000):
        odd = good()
        odd.ir_version = version
        case(folder, 7, f"ir_{version}", rf"IR version {version}; 3 to 14 are supported", odd)
    case(folder, 7, "too_new_for_opset", r"Gelu is supported in opsets 20 to 28", model([node("Gelu", "x", "y")], opset=13))


@builder
def attributes(folder: Path) -> None:
    case(
        folder,
        8,
        "unknown_attribute",
        r'node 0 "n" \(Softmax\): attribute "axes"',
        model([node("Softmax", "x", "y", axes=[1])]),
    )
    twice = node("Softmax", "x", "y", axis=1)
    twice.attribute.append(twice.attribute[0])
    case(folder, 8, "duplicate_attribute", r'node 0 "n" \(Softmax\): attribute "axis" is given twice', model([twice]))
    case(
        folder,
        8,
        "mistyped_attribute",
        r'attribute "axis" is a float, but must be an int',
        model([node("Softmax", "x", "y", axis=1.5)]),
    )
    lies = node("Softmax", "x", "y", axis=1)
    lies.attribute[0].f = 1.0
    case(folder, 8, "lying_attribute", r"says it is an int but holds a float", model([lies]))


@builder
def dimensions(folder: Path) -> None:
    free = model([node("Relu", "x", "y")], inputs=[value("x", ("batch", 3))])
    case(folder, 9, "free", r'input "x".*"batch".*--dim batch=N', free)
    case(folder, 9, "bound", r"", free, args=["--dim", "batch=2"], status=OK)
    case(
        folder,
        9,
        "misnamed",
        r"--dim height=2: the model has no free dimension",
        free,
        args=["--dim", "height=2"],
        status=USAGE,
    )
    case(folder, 9, "nameless", r"input \"x\".*--dim x\.0=N", model([node("Relu", "x", "y")], inputs=[value("x", (None, 3))]))  # type: ignore[arg-type]
    case(
        folder,
        10,
        "negative",
        r'input "x": dimension 0 is -2, which is negative',
        model([node("Relu", "x", "y")], inputs=[value("x", (-2, 3))]),
    )
    case(
        folder,
        10,
        "overflow",
        r'input "x".*overflows',
        model([node("Relu", "x", "y")], inputs=[value("x", (1 << 40, 1 << 40))]),
    )
    minus = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-1], raw_data=bytes(4))
    case(folder, 10, "negative_initializer", r'initializer "w".*negative', model([node("Add", "x w", "y")], [minus]))
    wide = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 32, 1 << 32], raw_data=bytes(4))
    case(folder, 10, "overflowing_initializer", r'initializer "w".*overflows', model([node("Add", "x w", "y")], [wide]))
    grown = [node("Expand", "x s", "y")]
    case(folder, 10, "overflow_inside", r'"n" \(Expand\)', model(grown, [ints("s", 1 << 60, 2, 3, 4)]), commands=["compile"])
    case(
        folder,
        10,
        "overflow_by_padding",
        r'"n" \(Pad\)',
        model([node("Pad", "x p", "y")], [ints("p", 0, 0, 1 << 62, 0, 0, 1 << 62)]),
        commands=["compile"],
    )


# ---- 11 to 15: data and shapes ----------------------------------------------------------------------------------------


@builder
def data(folder: Path) -> None:
    def add(w: onnx.TensorProto) -> onnx.ModelProto:
        return model([node("Add", "x w", "y")], [w])

    for length in (0, 12, 15, 17, 32):
        short = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], raw_data=bytes(length))
        case(
            folder,
            11,
            f"raw_length_{length}",
            rf'initializer "w": raw_data has {length} bytes, but f32\[4\] takes 16',
            add(short),
        )
    both = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], raw_data=bytes(16), float_data=[0] * 4)
    case(folder, 11, "two_fields", r'initializer "w": has both raw_data and float_data', add(both))
    few = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], float_data=[0] * 3)
    case(folder, 11, "few_floats", r"float_data has 3 elements, but its shape is f32\[4\]", add(few))
    huge = TensorProto(name="w", data_type=TensorProto.INT64, dims=[1 << 40], int64_data=[1])
    case(folder, 11, "shape_from_nowhere", r"int64_data has 1 elements", add(huge))
    case(folder, 11, "no_data", r"f32\[4\] without data", add(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])))

    declared = model([node("Relu", "x", "y")], outputs=[value("y", (2, 3, 5))])
    case(folder, 12, "declared_shape", r"(?s)(2,3,4.*2,3,5|2,3,5.*2,3,4)", declared, commands=["compile"])
    case(folder, 13, "axis", r'"n" \(Softmax\)', model([node("Softmax", "x", "y", axis=3)]), commands=["compile"])
    case(folder, 13, "perm", r'"n" \(Transpose\)', model([node("Transpose", "x", "y", perm=[0, 1, 1])]), commands=["compile"])
    case(
        folder,
        13,
        "perm_range",
        r'"n" \(Transpose\)',
        model([node("Transpose", "x", "y", perm=[0, 1, 7])]),
        commands=["compile"],
    )
    case(
        folder,
        13,
        "index",
        r'"n" \(Gather\)',
        model([node("Gather", "x i", "y", axis=1)], [ints("i", 0, 3)]),
        commands=["compile"],
    )
    case(
        folder,
        13,
        "unsqueeze",
        r'"n" \(Unsqueeze\)',
        model([node("Unsqueeze", "x a", "y")], [ints("a", 9)]),
        commands=["compile"],
    )

    bad = floats("w", 4)
    bad.raw_data = np.array([1, np.nan, np.inf, 2], np.float32).tobytes()
    found = r'1 constant has NaN or infinite elements \(1 NaN, 1 infinite\): "w"'
    case(folder, 14, "nan", f"warning: {found}", add(bad), commands=["compile"], status=OK)
    case(folder, 14, "nan_strict", found, add(bad), commands=["compile"], args=["--strict"])
    mask = floats("w", 4)
    mask.raw_data = np.array([0, -np.inf, 0, -np.inf], np.float32).tobytes()
    case(folder, 14, "mask_strict", r"", add(mask), commands=["compile"], args=["--strict"], status=OK)


@builder
def external(folder: Path) -> None:
    base = folder / "external"
    base.mkdir(exist_ok=True)
    (base / "w.bin").write_bytes(bytes(16))
    (base / "sub").mkdir(exist_ok=True)
    for path, make in (
        ("link.bin", lambda p: p.symlink_to("w.bin")),
        ("linked", lambda p: p.symlink_to("sub")),
        ("pipe", lambda p: os.mkfifo(p)),
        ("hard.bin", hard_link),
    ):
        if not os.path.lexists(base / path):
            make(base / path)

    def at(name: str, message: str, status: int = MODEL, **place: object) -> None:
        w = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
        for key, item in place.items():
            w.external_data.add(key=key, value=str(item))
        save(
            folder,
            Case(f"external_{name}", 15, f"external/{name}.onnx", message, status),
            model([node("Add", "x w", "y")], [w]),
        )

    at("good", "", OK, location="w.bin")
    at("absolute", "is absolute", location="/etc/passwd")
    at("parent", "leads out of its folder", location="../empty.onnx")
    at("parent_inside", "leads out of its folder", location="sub/../w.bin")
    at("nul", "contains a NUL", location="w.bin\0.txt")
    at("symlink", "symbolic link", location="link.bin")
    at("symlinked_folder", "is a link", location="linked/w.bin")
    at("hard_link", "is a hard link", location="hard.bin")
    at("fifo", "is a FIFO", location="pipe")
    at("folder", "is a folder", location="sub")
    at("missing", "cannot be opened", location="nothing.bin")
    at("negative_offset", "offset -4 is negative", location="w.bin", offset=-4)
    at("negative_length", "length -1 is negative", location="w.bin", length=-1)
    at("offset_past_end", "reaches past the end", location="w.bin", offset=4)
    at("wrapping_offset", "reaches past the end", location="w.bin", offset=(1 << 63) - 8)
    at("overflowing_offset", "overflows", location="w.bin", offset=1 << 64)
    at("wrong_length", "takes 16 bytes", location="w.bin", length=8)
    at("no_location", "no location", offset=0)
    at("no_number", "is not a number", location="w.bin", offset="four")


# ---- 16, 17: names, experts -------------------------------------------------------------------------------------------


@builder
def nasty_names(folder: Path) -> None:
    names = ["*/ int main(void) {", '"); system("x', "a\nb", "int", "1st", "../../up", "ä", "A B", "A_B", "%s%n", "??/", "\\"]
    nodes, last = [], "x"
    for i, name in enumerate(names):
        nodes.append(helper.make_node("Relu" if i % 2 else "Abs", [last], [f"{name} v"], name=name))
        last = f"{name} v"
    nodes.append(node("Neg", "", "", "end"))
    nodes[-1].input[:], nodes[-1].output[:] = [last], ['out"*/\n']
    case(folder, 16, "names", r"", model(nodes, outputs=[value('out"*/\n', None)]), commands=["compile"], status=OK)


@builder
def experts(folder: Path) -> None:
    tokens, hidden, inner = 5, 8, 16

    def moe(k: int, n: int, **change: tuple[int, ...]) -> onnx.ModelProto:
        shapes = {"fc1": (n, inner, hidden), "b1": (n, inner), "fc2": (n, hidden, inner), "b2": (n, hidden)} | change
        layer = node("MoE", "x s fc1 b1 fc2 b2", "y", "moe", domain="com.microsoft", k=k, activation_type="gelu")
        inputs = [value("x", (tokens, hidden)), value("s", (tokens, n))]
        return model([layer], [floats(name, *shape) for name, shape in shapes.items()], inputs=inputs)

    compile_only = {"commands": ["compile"]}
    case(folder, 17, "k_zero", r'"moe" \(MoE\).*\b0\b', moe(0, 4), **compile_only)
    case(folder, 17, "k_negative", r'"moe" \(MoE\).*-1', moe(-1, 4), **compile_only)
    case(folder, 17, "k_above", r'"moe" \(MoE\).*\b5\b.*\b4\b', moe(5, 4), **compile_only)
    case(folder, 17, "no_experts", r'"moe" \(MoE\)', moe(1, 0), **compile_only)
    case(folder, 17, "experts_disagree", r'"moe" \(MoE\).*(4.*3|3.*4)', moe(2, 4, fc2=(3, hidden, inner)), **compile_only)
    case(folder, 17, "widths_disagree", r'"moe" \(MoE\)', moe(2, 4, fc2=(4, hidden, inner + 1)), **compile_only)
    case(folder, 17, "bias_disagrees", r'"moe" \(MoE\)', moe(2, 4, b1=(4, inner - 1)), **compile_only)
    case(folder, 17, "experts_good", r"", moe(2, 4), status=OK, **compile_only)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for build in BUILDERS:
        build(folder)
    (folder / "cases.json").write_text(json.dumps([asdict(case) for case in CASES], indent=1))
    print(f"{len(CASES)} cases in {folder}")


if __name__ == "__main__":
    main()
