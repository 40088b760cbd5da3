"""moecc bench --kernels and run --trace: what a traced network says of its steps."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
from calling import Cli
from onnx import helper

COMPILERS = [c for c in ("gcc", "clang-19", "tcc") if shutil.which(c)]


@pytest.fixture
def moe(cli: Cli) -> Path:
    return cli.save(nets.moe(), "moe")


def steps_of(folder: Path) -> dict[int, dict[str, Any]]:
    """The schedule of a folder's first task, by step number."""
    return {s["step"]: s for s in json.loads((folder / "report.json").read_text())["tasks"][0]["schedule"]}


def make(folder: Path, *settings: str) -> Path:
    subprocess.run(["make", "-s", "-C", folder, *settings], check=True, capture_output=True)
    return next((folder / "build").glob("*_main"))


# ---- bench --kernels ----


@pytest.mark.parametrize("engine", ["tcc", "cc"])
@pytest.mark.parametrize("form", ["model", "folder"])
def test_kernels_json(cli: Cli, moe: Path, engine: str, form: str) -> None:
    cli.fine("compile", moe, "-o", "out")
    what = moe if form == "model" else "out"
    profile = json.loads(cli.fine("bench", what, "--kernels", "--json", "--runs", "3", "--engine", engine))
    assert (profile["task"], profile["threads"], profile["runs"]) == ("moe", 1, 3)
    assert profile["peak_gflops"] > 0
    assert profile["lost_events"] == 0
    for rows in (profile["kernels"], profile["operators"]):
        assert [row["ms"] for row in rows] == sorted((row["ms"] for row in rows), reverse=True)
        assert sum(row["ms"] for row in rows) == pytest.approx(profile["kernels_ms"], rel=1e-3)
        assert sum(row["macs"] for row in rows) == sum(s["macs"] for s in steps_of(cli.place / "out").values())
    total = profile["kernels_ms"] + profile["load_ms"] + profile["unaccounted_ms"]
    assert total == pytest.approx(profile["median_ms"], rel=1e-3, abs=1e-6)
    assert any(row["kernel"].startswith("moe_expert_in") and row["calls"] > 1 for row in profile["kernels"])


def test_kernels_table(cli: Cli, tasks: Path) -> None:
    text = cli.fine("bench", tasks, "--kernels", "--runs", "3", "--engine", "tcc", "--threads", "2")
    for word in ("left:", "right:", "GFLOP/s", "peak %", "busy%", "kernel, shapes", "operator (steps)", "not accounted for"):
        assert word in text
    assert "left:" not in cli.fine("bench", tasks, "--kernels", "--runs", "1", "--engine", "tcc", "--task", "right")


def test_cpu_time(cli: Cli, dense: Path) -> None:
    timed = json.loads(cli.fine("bench", dense, "--engine", "tcc", "--json", "--runs", "3", "--cpu-time"))
    assert timed["median_ms"] > 0
    profile = json.loads(cli.fine("bench", dense, "--engine", "tcc", "--json", "--runs", "3", "--cpu-time", "--kernels"))
    assert profile["kernels_ms"] > 0


# ---- run --trace ----


def traced(cli: Cli, what: object, x: Path, *options: str) -> list[dict[str, Any]]:
    cli.fine("run", what, "--input", f"x={x}", "-o", "results", "--trace", "trace.json", *options)
    events = json.loads((cli.place / "trace.json").read_text())["traceEvents"]
    return [e for e in events if e["ph"] == "X"]


def end(span: dict[str, Any]) -> float:
    return float(round(span["ts"] + span["dur"], 3))


def nested(events: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of a span and one that begins within it, on the same thread or buffer."""
    for track in {(e["pid"], e["tid"]) for e in events}:
        open_spans: list[dict[str, Any]] = []
        for span in sorted((e for e in events if (e["pid"], e["tid"]) == track), key=lambda e: (e["ts"], -e["dur"])):
            while open_spans and end(open_spans[-1]) <= span["ts"]:
                open_spans.pop()
            if open_spans:
                yield open_spans[-1], span
            open_spans.append(span)


@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("form", ["model", "folder", "streamed"])
def test_trace(cli: Cli, moe: Path, form: str, threads: str) -> None:
    x = cli.place / "x.npy"
    np.save(x, nets.noise(3, nets.MOE["tokens"], nets.MOE["width"]))
    cli.fine("compile", moe, "-o", "out", "--weights", "stream" if form == "streamed" else "file")
    cli.fine("run", moe, "--input", f"x={x}", "-o", "plain")
    events = traced(cli, moe if form == "model" else "out", x, "--threads", threads)
    plain, result = (np.load(cli.place / f / "y.npy") for f in ("plain", "results"))
    assert plain.tobytes() == result.tobytes()

    for outer, inner in nested(events):
        assert end(inner) <= end(outer) + 0.002, (outer, inner)
    kinds = {e["cat"] for e in events}
    assert {"call", "layer", "experts", "expert", "take", "Moe"} <= kinds
    assert (form == "streamed") == ({"load", "stall"} <= kinds)

    steps = steps_of(cli.place / "out")
    own = {e["args"]["step"]: e for e in events if (e["pid"], e["tid"]) == (1, 0) and "node" in e["args"]}
    for number, step in steps.items():
        kernels = step["kernel"] if isinstance(step["kernel"], list) else [step["kernel"]]
        first = number + isinstance(step["kernel"], list)  # a loop's number comes before those of its body
        assert [own[first + i]["name"] for i in range(len(kernels))] == kernels
    loop = next(e for e in events if e["cat"] == "experts")
    assert sum(loop["args"]["tokens"].values()) == nets.MOE["tokens"] * nets.MOE["k"]
    experts = [e["name"] for e in sorted(events, key=lambda e: e["ts"]) if e["cat"] == "expert"]
    assert experts == [f"expert {i}" for i in loop["args"]["tokens"]]
    assert loop["args"]["experts_used"] == len(experts)


def test_trace_of_threads(cli: Cli) -> None:
    """Each share of a loop is a span of the thread that computed it, whoever that was; together they are all rows."""
    product = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    shape, weights = (300, 64), nets.constant("w", nets.noise(1, 64, 96))
    net = cli.save(nets.model([product], [nets.value("x", shape)], [nets.value("y", (300, 96))], [weights]))
    x = cli.place / "x.npy"
    np.save(x, nets.noise(2, *shape))
    events = traced(cli, net, x, "--threads", "3")
    shares = sorted((e["args"]["first"], e["args"]["items"], e["tid"]) for e in events if e["cat"] == "share")
    assert [first for first, _, _ in shares] == [0, shares[0][1], shares[0][1] + shares[1][1]]
    assert max(items for _, items, _ in shares) - min(items for _, items, _ in shares) <= 1
    assert {thread for _, _, thread in shares} <= {0, 1, 2}


def test_trace_of_all_tasks(cli: Cli, tasks: Path) -> None:
    x = cli.place / "x.npy"
    np.save(x, nets.X)
    assert [e["name"] for e in traced(cli, tasks, x, "--engine", "tcc") if e["cat"] == "call"] == ["left", "right"]
    assert [e["name"] for e in traced(cli, tasks, x, "--engine", "tcc", "--task", "all") if e["cat"] == "call"] == ["all"]
    cli.fine("compile", tasks, "-o", "out")
    message = cli.fails(2, "run", "out", "--input", f"x={x}", "-o", "o", "--trace", "t", "--task", "left,right")
    assert "one task at a time" in message
    assert "cannot be written" in cli.fails(3, "run", "out", "--input", f"x={x}", "-o", "o", "--trace", "none/t")


def test_trace_of_tasks_side_by_side(cli: Cli) -> None:
    """A loop over experts that both tasks share is one span, in which each has its tokens; kernels say whose they are."""
    x = cli.place / "x.npy"
    np.save(x, nets.noise(3, nets.MOE["tokens"], nets.MOE["width"]))
    net = cli.save(nets.moe_tasks(), "net")
    options = ("--weights", "stream", "--engine", "tcc")
    single = traced(cli, net, x, *options)
    events = traced(cli, net, x, *options, "--task", "all")
    for outer, inner in nested(events):
        assert end(inner) <= end(outer) + 0.002, (outer, inner)
    assert not any("task" in e["args"] or e["cat"] == "task" for e in single)
    assert {e["args"].get("task") for e in events if "node" in e["args"] and e["name"] != "expert loop"} == {"left", "right"}
    assert {e["name"] for e in events if e["cat"] == "task"} == {"left", "right"}
    (loop,) = (e["args"] for e in events if e["cat"] == "experts")
    own = [e["args"]["tokens"] for e in single if e["cat"] == "experts"]
    assert [loop["tokens_by_task"][task] for task in ("left", "right")] == own
    sums = {e: sum(tokens.get(e, 0) for tokens in own) for e in sorted({*own[0], *own[1]}, key=int)}
    assert loop["tokens"] == sums
    assert loop["experts_used"] == len(sums)
    experts = [e["args"] for e in sorted(events, key=lambda e: e["ts"]) if e["cat"] == "expert"]
    assert {str(e["expert"]): e["tokens"] for e in experts} == sums
    assert all(sum(e["tokens_by_task"].values()) == e["tokens"] for e in experts)
    cli.fine("inspect", "trace.json", "--html", "t.html")
    page = (cli.place / "t.html").read_text()
    assert '"task"' in page
    first = experts[0]
    assert f"{first['expert']}: {first['tokens']} (" in page


# ---- the emitted folder ----


@pytest.mark.parametrize("compiler", COMPILERS)
def test_traced_builds(cli: Cli, moe: Path, compiler: str) -> None:
    cli.fine("compile", moe, "-o", "out")
    strict = "" if compiler == "tcc" else "-O1 -Wall -Wextra -Wconversion -Werror"
    folder = cli.place / "out"
    program = make(folder, "TRACE=1", f"CC={compiler}", f"CFLAGS={strict}")
    subprocess.run([program, "--noise", "--quiet", "--trace", folder / "build" / "t.json"], check=True)
    assert json.loads((folder / "build" / "t.json").read_text())["traceEvents"]


def test_nothing_of_it_without_the_macro(cli: Cli, moe: Path) -> None:
    cli.fine("compile", moe, "-o", "out")
    program = make(cli.place / "out")
    symbols = subprocess.run(["nm", program], check=True, capture_output=True, text=True).stdout
    assert "moecc_take" in symbols
    assert "trace" not in symbols
    assert "profile" not in symbols.replace("start_profile", "").replace("finish_profile", "")
    assert subprocess.run([program, "--noise", "--steps"], capture_output=True, check=False).returncode == 2
