"""Tables, the chart, and the README's figures."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench import chart, report
from bench.results import Batch, Results, Row, Spread, Switch


def row(name: str, ms: list[float], error: float = 1e-6) -> Row:
    ours = name.startswith("moecc")
    facts = {"flops": 1e9, "weight_bytes": 1000, "lines": 500, "compile_cpu_s": 2.0, "tasks": ["a"]} if ours else {}
    disk = {"code": 1000, "model": 9_000_000}
    return Row(name, ours, "plain", "", error, 1.0, 2.0, ms, 50_000_000, disk, facts)


@pytest.fixture
def measured() -> Results:
    rows = [
        row("moecc", [10.0, 10.0]),
        row("moecc token-major", [20.0, 20.0]),
        row("onnxruntime", [40.0, 40.0]),
        row("MNN", [5.0, 5.0], error=0.5),
        row("snail", [4000.0]),
        Row("<IREE>", failure="it does not load"),
    ]
    switch = Switch(Spread(0.9, 1.0, 1.1), Spread(0.9, 1.0, 1.1), 30.0, 40.0)
    one = Batch("net", "A network & more", 1, 2e9, rows, [200e9, 200e9], [10e9, 10e9], switch)
    two = Batch("net", "A network & more", 2, 2e9, [row("moecc", [5.5, 5.5])], [400e9, 400e9], [10e9, 10e9])
    empty = Batch("other", "Nothing", 1, 1e9, [Row("moecc", True, failure="no")])
    return Results({"processor": "P", "peak_gflops": 200.0}, {"onnxruntime": "1.2"}, [one, two, empty])


def test_numbers_have_three_digits() -> None:
    values = [0, 0.012345, 1.2345, 12.345, 123.45, 12345.6, 9.999, math.nan, math.inf]
    assert [report.number(v) for v in values] == ["0", "0.0123", "1.23", "12.3", "123", "12346", "10.00", "–", "–"]


def test_a_batch_as_text(measured: Results) -> None:
    lines = report.batch_text(measured.batches[0]).splitlines()
    assert lines[0] == "A network & more, 1 thread: 2.00 GFLOP, 1.00 after rewrites; the machine: 200 GFLOP/s, 10.0 GB/s"
    assert [line.split("  ")[1] for line in lines[2:7]] == [
        "MNN (inexact)",
        "moecc",
        "moecc token-major",
        "onnxruntime",
        "snail",
    ]
    ours = next(line for line in lines if line.startswith("  moecc "))
    assert ours.split()[1:] == ["plain", "10.0", "50", "%", "100", "%", "50.0", "1.00", "2.00", "9.00", "1e-06"]
    peer = next(line for line in lines if line.startswith("  onnxruntime"))
    assert "0.25 (0.25–0.25)" in peer
    assert "  0.25 (0.25–0.25) of onnxruntime, the fastest exact peer" in lines
    assert "  <IREE>: not measured: it does not load" in lines
    assert any("all tasks at once 30.0 ms, one after another 40.0: 0.75" in line for line in lines)


def test_columns_are_aligned(measured: Results) -> None:
    table = report.batch_text(measured.batches[0]).splitlines()[1:7]
    assert len({len(line) for line in table}) == 1


def test_the_summary_has_a_line_per_network(measured: Results) -> None:
    rows = report.summary(measured)
    assert rows[1] == ["A network & more", "10.0", "onnxruntime 40.0", "0.25 (0.25–0.25)", "50 %", "50.0", "50.0", "0.55"]
    assert rows[2] == ["Nothing", *["–"] * 7]
    assert len(rows) == 3


def test_everything_as_text(measured: Results) -> None:
    text = report.text(measured)
    assert "Nothing, 1 thread: 1.00 GFLOP\n  nothing could be measured\n  moecc: not measured: no" in text


def test_the_readme_is_rewritten_between_its_markers(measured: Results, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n\n{report.BEGIN}\nold figures\n{report.END}\n\nafter\n")
    report.rewrite(readme, measured, "docs/bench.svg")
    once = readme.read_text()
    assert once.startswith(f"before\n\n{report.BEGIN}\n")
    assert once.endswith(f"\n{report.END}\n\nafter\n")
    assert "old figures" not in once
    assert "| A network & more | 10.0 | onnxruntime 40.0 | 0.25 (0.25–0.25) | 50 % |" in once
    assert "expert by expert takes 0.50 (0.50–0.50) of token by token" in once
    report.rewrite(readme, measured, "docs/bench.svg")
    assert readme.read_text() == once


@pytest.mark.parametrize(
    "text", ["none", report.BEGIN, f"{report.END} {report.BEGIN}", f"{report.BEGIN} {report.BEGIN} {report.END}"]
)
def test_a_document_without_markers_is_left_alone(text: str) -> None:
    with pytest.raises(ValueError, match="the document needs one"):
        report.between_markers(text, "figures")


def test_the_projects_readme_has_the_markers() -> None:
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    assert report.between_markers(text, "x").count(report.BEGIN) == 1


def test_the_chart_is_svg_with_a_bar_per_contender(measured: Results) -> None:
    root = ET.fromstring(chart.svg(measured))
    name = "{http://www.w3.org/2000/svg}"
    bars = [r for r in root.iter(f"{name}rect") if r.get("x")]
    assert len(bars) == 5  # of one network; the other was not measured
    widths = {r.get("fill"): float(r.get("width", "0")) for r in bars}
    assert widths[chart.COLORS["moecc"]] == pytest.approx(widths[chart.COLORS["onnxruntime"]] / 4, abs=0.1)
    assert widths[chart.OTHER] == chart.WIDTH  # cut
    faint = [r.get("fill") for r in bars if r.get("fill-opacity")]
    assert faint == [chart.COLORS["MNN"]]
    texts = [t.text for t in root.iter(f"{name}text")]
    assert {"A network & more", "0.25", "100.00", "0.12 inexact"} <= set(texts)
    assert float(root.get("height", "0")) > 5 * chart.BAR


def test_the_chart_of_nothing_is_still_svg() -> None:
    assert ET.fromstring(chart.svg(Results())).tag.endswith("svg")
