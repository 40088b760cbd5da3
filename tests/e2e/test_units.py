"""Weight units cut to the size of a stream buffer: the same bits as with whole ones, and no larger than was asked."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emitted import Compile, assert_close, assert_same_bits, data_set

CUT = [
    *(f"m3vit-{case}" for case in ("odd-moe", "all-chosen-moe", "herd-of-two-moe", "seed1-dense")),
    "mobilenetv2-op20",
    "vit-op20",
    "swinv2-masks-op20",
]


def stream(buffer: int, *more: str) -> tuple[str, ...]:
    return ("--weights", "stream", "--stream-buffer", str(buffer), *more)


def largest(report: dict[str, Any]) -> int:
    """Bytes of the largest unit, of an expert's units together if there is but one."""
    return max(
        int(step["bytes"]) for task in report["tasks"] for step in task["schedule"] if "unit" in step and "units" not in step
    )


def calls_with_weights(report: dict[str, Any]) -> int:
    return sum("unit" in step for task in report["tasks"] for step in task["schedule"])


@pytest.mark.parametrize("network", CUT)
def test_bits(compiled: Compile, networks: Path, tmp_path: Path, network: str) -> None:
    inputs, expected = data_set(networks / network)
    whole = compiled(network)
    plain = whole.make(tmp_path / "whole")(tmp_path / "a", inputs)
    for name, array in plain.items():
        assert_close(array, expected[name])
    for buffer in (1, 3000) if network == CUT[0] else (1,):
        cut = compiled(network, *stream(buffer))
        built = cut.make(tmp_path / str(buffer))
        assert_same_bits(built(tmp_path / "b", inputs), plain)
        assert_same_bits(built(tmp_path / "c", inputs, "--threads", "3"), plain)
        assert calls_with_weights(cut.report) > calls_with_weights(whole.report)


def test_token_major(compiled: Compile, tmp_path: Path) -> None:
    plain = compiled("nano").make(tmp_path / "whole")(tmp_path / "a", None, "--task", "depth")
    cut = compiled("nano", *stream(30000, "--moe", "token-major")).make(tmp_path / "cut")
    assert_same_bits(cut(tmp_path / "b", None, "--task", "depth"), plain)


@pytest.mark.parametrize("buffer", [60000, 150000, 400000])
def test_no_larger_than_asked(compiled: Compile, buffer: int) -> None:
    """nano has products, convolutions of enlarged maps, an embedding and experts."""
    cut = compiled("nano", *stream(buffer))
    assert largest(cut.report) <= buffer
    assert cut.report["stream_buffer_bytes"] <= buffer + 2 * 4096
    units = [len(s["units"]) for t in cut.report["tasks"] for s in t["schedule"] if "units" in s]
    assert (min(units, default=0) >= 2) == (buffer < 2 * 96 * 192 * 4)  # an expert's two layers


def test_default_buffer(compiled: Compile) -> None:
    assert compiled("nano", "--weights", "stream").report["stream_buffer_bytes"] <= 1200000


def test_whole_without_streaming(compiled: Compile) -> None:
    assert not any("units" in s for t in compiled("nano").report["tasks"] for s in t["schedule"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--stream-buffer", "1000"), "--stream-buffer is for --weights stream"),
        (("--weights", "embed", "--stream-buffer", "1000"), "--stream-buffer is for --weights stream"),
        (stream(0), "wants a whole number from 1 on"),
        (("--weights", "stream", "--stream-buffer", "1 MB"), "wants a whole number"),
    ],
)
def test_usage(moecc: Path, nano: Path, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    command = [str(moecc), "compile", str(nano), "-o", str(tmp_path / "out"), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_asks_across_segments(compiled: Compile) -> None:
    """The trunk's last take asks for what the task's own part begins with."""
    text = compiled("nano", "--weights", "stream").text("_task_depth.c")
    assert "f.then = &unit_" in text
    assert "f->then" in compiled("nano", "--weights", "stream").text(".c")
    assert "f->then" not in compiled("nano", "--weights", "embed").text(".c")


def test_bytes_read(compiled: Compile) -> None:
    """Cutting changes neither what is read nor how much, panels' padding aside."""
    whole, cut = (compiled("nano", *stream(size)) for size in (10**9, 60000))
    for a, b in zip(whole.tasks, cut.tasks, strict=True):
        assert np.isclose(a["loaded_bytes_worst_case"], b["loaded_bytes_worst_case"], rtol=0.1)
