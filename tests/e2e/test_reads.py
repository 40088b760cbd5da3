"""Reads of streaming networks, asserted from their traces: the right slots, in the right order, each in time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from emitted import Compile, Emitted, assert_same_bits, data_set, emit
from read_faults import FAULTS
from reads import Buffers, Call, assert_all_reads, assert_reads, read_calls, schedules
from routed import ROUTINGS, SIZES, WIDTH, noise, queues_of, tokens_of, two_layers


@pytest.fixture(scope="module")
def network(moecc: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Emitted]:
    known: dict[tuple[object, ...], Emitted] = {}

    def make(experts: int, k: int, *options: str) -> Emitted:
        key = (experts, k, *options)
        if key not in known:
            place = tmp_path_factory.mktemp("reads")
            onnx.save(two_layers(experts, k), place / "net.onnx")
            known[key] = emit(moecc, place / "net.onnx", place / "net", "--target", "generic", *options)
        return known[key]

    return make


# ---- the reads ----


@pytest.mark.parametrize("buffer", [1, 10**6], ids=["cut", "whole"])
@pytest.mark.parametrize(("experts", "k"), SIZES)
def test_routings(network: Callable[..., Emitted], tmp_path: Path, experts: int, k: int, buffer: int) -> None:
    emitted = network(experts, k, "--weights", "stream", "--stream-buffer", str(buffer))
    traced = emitted.make(tmp_path / "traced", TRACE="1", CC="tcc", CFLAGS="")
    plain = emitted.make(tmp_path / "plain", CC="tcc", CFLAGS="")
    names = list(ROUTINGS)
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        s1, s2 = ROUTINGS[name](experts, k), ROUTINGS[other](experts, k)
        inputs = {"x": noise(4, tokens_of(experts, k), WIDTH), "s1": s1, "s2": s2}
        trace = tmp_path / "trace.json"
        streamed = traced(tmp_path / "a", inputs, "--runs", "2", "--quiet", "--trace", str(trace))
        loaded = plain(tmp_path / "b", inputs, "--load", "--quiet")
        assert_same_bits(streamed, loaded)
        calls = assert_all_reads(trace, emitted.report)
        assert len(calls) == 3  # one of them warms up
        for call in calls:
            assert call.queues() == [queues_of(s1, k), queues_of(s2, k)], (name, other)
    cut = any("units" in step for step in emitted.tasks[0]["schedule"])
    assert cut == (buffer == 1)


@pytest.mark.parametrize("compiler", ["gcc", "tcc"])
def test_threads(network: Callable[..., Emitted], tmp_path: Path, compiler: str) -> None:
    emitted = network(16, 2, "--weights", "stream")
    traced = emitted.make(tmp_path / "b", TRACE="1", CC=compiler, CFLAGS="-O1" if compiler == "gcc" else "")
    trace = tmp_path / "t.json"
    traced(tmp_path / "a", None, "--threads", "3", "--runs", "5", "--quiet", "--trace", str(trace))
    assert len(assert_all_reads(trace, emitted.report)) == 6


@pytest.mark.parametrize("name", ["m3vit-unloved-moe", "m3vit-herd-of-two-moe", "m3vit-all-chosen-moe"])
def test_tasks_in_turn(compiled: Compile, networks: Path, tmp_path: Path, name: str) -> None:
    """Five tasks on a common trunk, one after the other: what the buffers hold is used, whichever task left it there."""
    emitted = compiled(name, "--target", "generic", "--weights", "stream")
    traced = emitted.make(tmp_path / "b", TRACE="1", CC="tcc", CFLAGS="")
    inputs, _ = data_set(networks / name)
    trace = tmp_path / "t.json"
    traced(tmp_path / "a", inputs, "--quiet", "--trace", str(trace))
    calls = assert_all_reads(trace, emitted.report)
    assert [c.task for c in calls] == [t["task"] for t in emitted.tasks]
    assert all(len(c.loops) == 2 for c in calls)


# ---- what the assertions find ----


@pytest.fixture
def call(network: Callable[..., Emitted], tmp_path: Path) -> tuple[Call, Emitted]:
    emitted = network(16, 2, "--weights", "stream")
    traced = emitted.make(tmp_path / "b", TRACE="1", CC="tcc", CFLAGS="")
    traced(tmp_path / "a", None, "--quiet", "--trace", str(tmp_path / "t.json"))
    return read_calls(tmp_path / "t.json")[0], emitted


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(call: tuple[Call, Emitted], fault: Callable[[Call], None]) -> None:
    assert_reads(call[0], schedules(call[1].report)[call[0].task], Buffers())
    fault(call[0])
    with pytest.raises(AssertionError):
        assert_reads(call[0], schedules(call[1].report)[call[0].task], Buffers())
