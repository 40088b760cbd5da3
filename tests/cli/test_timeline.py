"""run --trace of streamed weights, and inspect TRACE --html: the page of a trace."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
from calling import Cli
from pages import NASTY, Page, needs_nothing_else


@pytest.fixture
def trace(cli: Cli) -> dict[str, Any]:
    x = cli.place / "x.npy"
    np.save(x, nets.noise(3, nets.MOE["tokens"], nets.MOE["width"]))
    net = cli.save(nets.moe(), "moe")
    cli.fine("run", net, "--weights", "stream", "--engine", "tcc", "--input", f"x={x}", "-o", "out", "--trace", "trace.json")
    found: dict[str, Any] = json.loads((cli.place / "trace.json").read_text())
    return found


def page(cli: Cli, trace: dict[str, Any] | str) -> Page:
    text = trace if isinstance(trace, str) else json.dumps(trace)
    (cli.place / "t.json").write_text(text)
    cli.fine("inspect", "t.json", "--html", "t.html")
    return Page((cli.place / "t.html").read_text())


def spans(trace: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [e for e in trace["traceEvents"] if e["ph"] == "X" and e["cat"] == kind]


def test_loads_of_a_trace(trace: dict[str, Any]) -> None:
    names = {(e["pid"], e["args"]["name"]) for e in trace["traceEvents"] if e["ph"] == "M"}
    assert {(1, "network"), (1, "caller, 0"), (2, "weights"), (2, "buffer 0"), (2, "buffer 1")} <= names
    loads, takes, call = spans(trace, "load"), spans(trace, "take"), spans(trace, "call")[0]
    assert sorted(e["name"] for e in loads) == sorted(e["name"] for e in takes)
    assert call["args"]["slots_read"] == len(loads)
    assert call["args"]["bytes_read"] == sum(e["args"]["bytes"] for e in loads)
    assert call["args"]["stall_us"] == pytest.approx(sum(e["dur"] for e in spans(trace, "stall")), abs=0.1)
    counters = [e["args"]["bytes"] for e in trace["traceEvents"] if e["ph"] == "C" and e["name"] == "bytes read"]
    assert counters[-1] == call["args"]["bytes_read"]
    assert counters == sorted(counters)
    loop = spans(trace, "experts")[0]["args"]
    assert loop["experts"] == nets.MOE["experts"]
    queue = [e["args"]["tokens"] for e in trace["traceEvents"] if e["ph"] == "C" and e["name"] == "expert's queue"]
    assert sorted(queue) == sorted([0, *loop["tokens"].values()])


def test_page(cli: Cli, trace: dict[str, Any]) -> None:
    found = page(cli, trace)
    text = (cli.place / "t.html").read_text()
    assert needs_nothing_else(text), "the page needs something else"
    rows = {name: number for number, name in found.data["rows"]}
    assert {"call", "layer", "expert loop", "expert", "kernel", "standing still", "buffer 0", "buffer 1"} <= set(rows)
    drawn = [found.data["spans"][i : i + 6] for i in range(0, len(found.data["spans"]), 6)]
    for kind, row in (("load", ("buffer 0", "buffer 1")), ("stall", ("standing still",)), ("expert", ("expert",))):
        own = [s for s in drawn if s[0] in {rows[r] for r in row}]
        assert sorted(found.data["names"][s[3]] for s in own) == sorted(e["name"] for e in spans(trace, kind))
        begins = sorted(round(e["ts"] * 1e3) for e in spans(trace, kind))
        assert sorted(s[1] for s in own) == pytest.approx(begins, abs=1)
    cells = found.texts["td"]
    assert f"{len(spans(trace, 'experts')[0]['args']['tokens'])} of {nets.MOE['experts']}" in found.texts["div"]
    assert str(len(spans(trace, "load"))) in cells
    assert {"kernels", "stalls", "buffer 0", "buffer 1"} <= set(found.texts["text"])


def test_unusual_names(cli: Cli, trace: dict[str, Any]) -> None:
    for event in spans(trace, "layer") + spans(trace, "load"):
        event["name"] = NASTY
    found = page(cli, trace)
    assert NASTY in found.data["names"]
    assert NASTY in "".join(found.texts["td"])
    assert "<b>" not in (cli.place / "t.html").read_text()


def test_unusual_task(cli: Cli) -> None:
    net = nets.tasks()
    props = {p.key: p.value for p in net.metadata_props}
    del net.metadata_props[:]
    name = 'a "q" \\ <b>\u00e9'
    for key, value in {f"moecc.task.{name}": props["moecc.task.left"]}.items():
        net.metadata_props.add(key=key, value=value)
    x = cli.place / "x.npy"
    np.save(x, nets.X)
    path = cli.save(net, "named")
    cli.fine("run", path, "--engine", "tcc", "--input", f"x={x}", "-o", "out", "--trace", "n.json")
    found: dict[str, Any] = json.loads((cli.place / "n.json").read_text())
    assert [e["name"] for e in spans(found, "call")] == [name]
    assert name in page(cli, found).data["names"]


def test_large_traces(cli: Cli, trace: dict[str, Any]) -> None:
    """Names are kept once, so that a span takes few bytes."""
    some = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    for i in range(1, 500):
        for event in copy.deepcopy(some):
            event["ts"] += 1000 * i
            trace["traceEvents"].append(event)
    found = page(cli, trace)
    assert len(found.data["spans"]) // 6 > 10000
    assert (cli.place / "t.html").stat().st_size < 70 * len(found.data["spans"]) // 6 + 500 * 3000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"traceEvents": [', "at byte 17"),
        ('{"traceEvents": []}', "no trace that moecc run --trace wrote"),
        ('{"otherData": {"format": "moecc trace 1"}, "traceEvents": []}', "nothing is in this trace"),
        ('{"a": "\\q"}', "no such escape"),
        ('{"a": 1} 2', "something follows"),
        ('{"a"' + ': {"a"' * 80, "nested too deep"),
        ('{"a": "\x01"}', "control character"),
    ],
)
def test_no_trace(cli: Cli, text: str, message: str) -> None:
    (cli.place / "t.json").write_text(text)
    assert message in cli.fails(1, "inspect", "t.json", "--html", "t.html")
    assert not (cli.place / "t.html").exists()


def test_cannot_be_written(cli: Cli, trace: dict[str, Any], tmp_path: Path) -> None:
    assert trace
    assert "cannot write" in cli.fails(3, "inspect", "trace.json", "--html", tmp_path / "none" / "t.html")
