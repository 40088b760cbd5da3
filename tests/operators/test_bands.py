"""Chains of pictures computed in bands (--arena): the same bits as without, for every number of
bands that memory asks for, any engine and number of threads; and what the report says of it."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from harness import MOECC, Case
from test_resize_conv import CORNERS, LINEAR, NEAREST, Picture, Pictures


def chain(inner: bool) -> Case:
    """Odd sizes, dilation, uneven padding, and a pointwise convolution that is computed at once.
    inner: the last picture is read by something else, and not an output."""
    b = Pictures()
    p = [
        Picture(24, 40, (5, 9), (10, 18), LINEAR),
        Picture(40, 48, (10, 18), (15, 23), CORNERS, dilation=2, pads=(4, 1, 3, 2)),
        Picture(48, 66, (18, 22), (36, 44), NEAREST),
        Picture(66, 64, (36, 44), (47, 61), LINEAR),
    ]
    x = b.resized(p[0], sizes=True)
    for i, k in enumerate(p):
        if i:
            to = b.constant(np.array([1, k.c, *k.to], np.int64))
            x = b.node("Resize", x, "", "", to, **k.resize)
        x = b.node("Relu", b.convolution(k, x, k.n, bias=i % 2 > 0))
    point = Picture(64, 7, (47, 61), (47, 61), taps=(1, 1), pads=(0, 0, 0, 0))
    x = b.convolution(point, x, 7, bias=True)
    to = b.constant(np.array([1, 7, 60, 70], np.int64))
    x = b.node("Resize", x, "", "", to, **LINEAR)
    b.outputs.append(b.node("MaxPool", x, kernel_shape=[3, 3]) if inner else x)
    return b.case("chain")


@cache
def cases() -> dict[str, Case]:
    return {"output": chain(inner=False), "inner": chain(inner=True)}


def report(folder: Path, target: str, *options: str) -> Any:
    command = [
        str(MOECC),
        "compile",
        str(folder / "model.onnx"),
        "-o",
        str(folder / "c"),
        "--quiet",
    ]
    subprocess.run([*command, "--target", target, *options], check=True, capture_output=True)
    return json.loads((folder / "c" / "report.json").read_text())["tasks"][0]


def run(case: Case, folder: Path, *options: str) -> bytes:
    onnx.save(case.model, str(folder / "model.onnx"))
    command = [str(MOECC), "run", str(folder / "model.onnx"), "-o", str(folder), "--quiet"]
    for name, value in zip([i.name for i in case.model.graph.input], case.inputs, strict=True):
        np.save(folder / f"{name}.npy", value)
        command += ["--input", f"{name}={folder / name}.npy"]
    subprocess.run([*command, *options], check=True, capture_output=True)
    y = np.load(folder / f"{case.model.graph.output[0].name}.npy")
    wanted = case.outputs[0]
    assert np.abs(y - wanted).max() <= 1e-5 * np.abs(wanted).max()
    return y.tobytes()


@pytest.mark.parametrize("name", ["output", "inner"])
@pytest.mark.parametrize("target", ["generic", "native"])
def test_same_bits(name: str, target: str, tmp_path: Path) -> None:
    """generic: there the map is a large one, and the pointwise convolution is computed at once."""
    case = cases()[name]
    engine = "tcc" if target == "generic" else "cc"
    common = ["--engine", engine, "--target", target]
    whole = run(case, tmp_path, *common)
    figures = report(tmp_path, target)
    bands = figures["bands"]
    assert bands["chosen"] == 1
    assert not any("rows" in s for s in figures["schedule"])
    most, least = bands["whole"]["memory_bytes"], bands["banded"]["memory_bytes"]
    assert least < most
    assert bands["banded"]["extra_macs"] > 0
    assert bands["banded"]["extra_loaded_bytes"] > 0
    if target == "generic":
        kernels = [s["kernel"] for s in figures["schedule"]]
        assert any(isinstance(k, str) and k.startswith("resize_conv_point") for k in kernels)
    chosen = set()
    for limit in (most - 1, (most + least) // 2, least):
        figures = report(tmp_path, target, "--arena", str(limit))
        bands = figures["bands"]
        assert bands["whole"]["memory_bytes"] == most
        assert bands["banded"]["memory_bytes"] <= limit
        assert figures["arena_bytes"] + figures["scratch_bytes_per_thread"] <= limit
        assert bands["chosen"] == bands["banded"]["bands"] > 1
        chosen.add((bands["chosen"], bands["banded"]["operators"]))
        assert run(case, tmp_path, *common, "--arena", str(limit)) == whole
        assert run(case, tmp_path, *common, "--arena", str(limit), "--threads", "3") == whole
    assert len(chosen) > 1


def test_too_little(tmp_path: Path) -> None:
    """What no number of bands keeps within is an error that says what takes the memory."""
    onnx.save(cases()["output"].model, str(tmp_path / "model.onnx"))
    command = [str(MOECC), "compile", str(tmp_path / "model.onnx"), "-o", str(tmp_path / "c")]
    done = subprocess.run([*command, "--arena", "5000"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "more than --arena 5000" in done.stderr
    assert "bytes)" in done.stderr
    assert not (tmp_path / "c").exists()
    done = subprocess.run([*command, "--arena", "none"], capture_output=True, text=True)
    assert done.returncode == 2
