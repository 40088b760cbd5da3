"""Runs `moecc verify` on models made in memory, each with one data set, in a temporary folder."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[2]
MOECC = Path(os.environ.get("MOECC", ROOT / "build" / "moecc"))
WORKERS = 2

TYPE_NAMES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float",
    onnx.TensorProto.DOUBLE: "double",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.INT16: "int16",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.UINT16: "uint16",
    onnx.TensorProto.UINT32: "uint32",
    onnx.TensorProto.UINT64: "uint64",
    onnx.TensorProto.BOOL: "bool",
}


@dataclass(frozen=True)
class Case:
    """A model, the values of its inputs, what its outputs must be, and how near."""

    name: str
    model: onnx.ModelProto
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]
    rtol: float = 1e-5
    atol: float = 1e-6


@dataclass(frozen=True)
class Operator:
    """A line of `moecc ops`."""

    name: str
    domain: str
    since: int
    until: int
    types: frozenset[str] = field(default_factory=frozenset)


def supported_operators() -> dict[tuple[str, str], Operator]:
    """What `moecc ops --json` says, by domain and name."""
    text = subprocess.run([str(MOECC), "ops", "--json"], check=True, capture_output=True, text=True).stdout
    rows = json.loads(text)
    operators = [
        Operator(r["op"], r["domain"], r["since"], r["until"], frozenset(r["types"].split(", "))) for r in rows
    ]
    return {(o.domain, o.name): o for o in operators}


def write_case(case: Case, folder: Path) -> None:
    """Writes model.onnx and test_data_set_0/ in ONNX's own layout."""
    onnx.save(case.model, str(folder / "model.onnx"))
    data = folder / "test_data_set_0"
    data.mkdir()
    graph = case.model.graph
    for kind, values, arrays in (
        ("input", graph.input, case.inputs),
        ("output", graph.output, case.outputs),
    ):
        for i, (value, array) in enumerate(zip(values, arrays, strict=True)):
            tensor = numpy_helper.from_array(np.asarray(array), value.name)
            (data / f"{kind}_{i}.pb").write_bytes(tensor.SerializeToString())


def verify(case: Case, engine: str = "tcc") -> str:
    """The empty string if moecc agrees with the case, else what it said."""
    with tempfile.TemporaryDirectory(prefix="moecc-operator-") as name:
        folder = Path(name)
        write_case(case, folder)
        command = [
            str(MOECC),
            "verify",
            str(folder / "model.onnx"),
            str(folder / "test_data_set_0"),
            "--engine",
            engine,
        ]
        command += ["--rtol", str(case.rtol), "--atol", str(case.atol)]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, errors="replace")
        except subprocess.TimeoutExpired:
            return "took longer than two minutes"
    return "" if done.returncode == 0 else f"status {done.returncode}: {done.stderr}{done.stdout}".strip()


def verify_all(cases: list[Case]) -> dict[str, str]:
    """verify() of each case by its name, a few processes at a time."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return dict(zip((c.name for c in cases), pool.map(verify, cases), strict=True))


def constant_inputs(case: Case, names: set[str]) -> Case:
    """The same case with some graph inputs turned into constants of the model."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    kept = [(v, a) for v, a in zip(model.graph.input, case.inputs, strict=True) if v.name not in names]
    for value, array in zip(list(model.graph.input), case.inputs, strict=True):
        if value.name in names:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
    values = [v for v, _ in kept]
    del model.graph.input[:]
    model.graph.input.extend(values)
    return Case(case.name, model, [a for _, a in kept], case.outputs, case.rtol, case.atol)
