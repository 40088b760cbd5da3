"""Reads of calls of all tasks, and with weights that stay in memory, asserted from traces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from emitted import Array, Built, Compile, Emitted, assert_same_bits, data_set, emit
from read_faults import FAULTS
from reads import Buffers, Call, assert_all_reads, assert_reads, assert_shared, read_calls, schedules
from routed import ROUTINGS, WIDTH, noise, queues_of, tokens_of, two_layers

TASKS = ("red", "green", "blue")
FORMS = {"shared": (), "own": (1, 2), "own-first": (1,), "own-last": (2,)}  # layers with experts for each task
STREAM = ("--weights", "stream", "--target", "generic")


@pytest.fixture(scope="module")
def network(moecc: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Emitted]:
    known: dict[tuple[object, ...], Emitted] = {}

    def make(form: str, experts: int, k: int, *options: str) -> Emitted:
        key = (form, experts, k, *options)
        if key not in known:
            place = tmp_path_factory.mktemp("reads")
            onnx.save(two_layers(experts, k, TASKS, FORMS[form]), place / "net.onnx")
            known[key] = emit(moecc, place / "net.onnx", place / "net", *STREAM, *options)
        return known[key]

    return make


def scores_of(number: int, apart: int, experts: int, k: int) -> dict[str, list[Array]]:
    """Scores of each task, by layer; the tasks' routings are so far apart in the list."""
    all_of_them = list(ROUTINGS.values())
    return {
        f"s{i}": [all_of_them[(number + i + apart * t) % len(all_of_them)](experts, k) for t in range(len(TASKS))]
        for i in (1, 2)
    }


def traced_runs(traced: Built, place: Path, inputs: dict[str, Array], emitted: Emitted) -> tuple[list[Call], Call]:
    """Each task's call, and the call of all; every read as it must be, and the same bits."""
    ports = {p["name"] for t in emitted.tasks for p in t["inputs"]}  # not those that are bound
    inputs = {name: array for name, array in inputs.items() if name in ports}
    separate, together = place / "separate.json", place / "all.json"
    results = traced(place / "a", inputs, "--quiet", "--trace", str(separate))
    assert_same_bits(traced(place / "b", inputs, "--quiet", "--task", "all", "--trace", str(together)), results)
    single, calls = assert_all_reads(separate, emitted.report), assert_all_reads(together, emitted.report)
    assert [c.task for c in calls] == ["all"]
    assert_shared(calls[0], single, emitted.report)
    return single, calls[0]


@pytest.mark.parametrize("apart", [0, 3], ids=["alike", "differing"])
@pytest.mark.parametrize(
    ("form", "experts", "k", "buffer"),
    [*((form, 4, 2, 10**6) for form in FORMS), *((form, 16, 2, 1) for form in FORMS), ("shared", 64, 1, 10**6)],
)
def test_routings(
    network: Callable[..., Emitted], tmp_path: Path, form: str, experts: int, k: int, buffer: int, apart: int
) -> None:
    emitted = network(form, experts, k, "--stream-buffer", str(buffer))
    assert [sorted(g["tasks"]) for g in emitted.report["all_tasks"]["lockstep"]] == [sorted(TASKS)]
    traced = emitted.make(tmp_path / "traced", TRACE="1", CC="tcc", CFLAGS="")
    plain = emitted.make(tmp_path / "plain", CC="tcc", CFLAGS="")
    for number in range(0, len(ROUTINGS), 2):
        scores = scores_of(number, apart, experts, k)
        inputs = {"x": noise(4, tokens_of(experts, k), WIDTH)} | {s: np.hstack(own) for s, own in scores.items()}
        _, call = traced_runs(traced, tmp_path, inputs, emitted)
        for t, task in enumerate(TASKS):
            assert call.queues_of(task) == [queues_of(scores[s][t], k) for s in ("s1", "s2")], (number, task)
        loaded = plain(tmp_path / "c", inputs, "--load", "--quiet")
        assert_same_bits(plain(tmp_path / "d", inputs, "--task", "all", "--quiet"), loaded)


@pytest.mark.parametrize("name", ["m3vit-odd-moe", "m3vit-unloved-moe", "m3vit-conditioned-moe"])
def test_networks(compiled: Compile, networks: Path, tmp_path: Path, name: str) -> None:
    emitted = compiled(name, *STREAM)
    inputs, _ = data_set(networks / name)
    traced = emitted.make(tmp_path / "traced", TRACE="1", CC="tcc", CFLAGS="")
    _, call = traced_runs(traced, tmp_path, inputs, emitted)
    tasks = {k.args.get("task") for k in call.kernels if "node" in k.args} - {None}
    assert tasks == {t["task"] for t in emitted.tasks}


@pytest.mark.parametrize("form", ["shared", "own"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(network: Callable[..., Emitted], tmp_path: Path, form: str, fault: Callable[[Call], None]) -> None:
    emitted = network(form, 16, 2)
    traced = emitted.make(tmp_path / "b", TRACE="1", CC="tcc", CFLAGS="")
    traced(tmp_path / "a", None, "--quiet", "--task", "all", "--trace", str(tmp_path / "t.json"))
    call = read_calls(tmp_path / "t.json")[0]
    assert_reads(call, schedules(emitted.report)["all"], Buffers())
    fault(call)
    with pytest.raises(AssertionError):
        assert_reads(call, schedules(emitted.report)["all"], Buffers())


def part(emitted: Emitted, share: float) -> str:
    return str(int(emitted.report["pack_bytes"] * share))


@pytest.mark.parametrize("share", [0.03, 0.3, 0.7])
@pytest.mark.parametrize("form", FORMS)
def test_resident(network: Callable[..., Emitted], tmp_path: Path, form: str, share: float) -> None:
    """The same bits as without, and all that is promised of reads holds for what is left; of cut experts a part stays."""
    experts, k = 16, 2
    whole = network(form, experts, k, "--stream-buffer", "1")
    emitted = network(form, experts, k, "--stream-buffer", "1", "--resident", part(whole, share))
    resident = {u["unit"] for u in emitted.report["resident"]["units"]}
    assert 0 < len(resident) < emitted.report["units"]
    plain = whole.make(tmp_path / "plain", CC="tcc", CFLAGS="")
    traced = emitted.make(tmp_path / "traced", TRACE="1", CC="tcc", CFLAGS="")
    for number in range(0, len(ROUTINGS), 3):
        scores = scores_of(number, 3, experts, k)
        inputs = {"x": noise(4, tokens_of(experts, k), WIDTH)} | {s: np.hstack(own) for s, own in scores.items()}
        single, call = traced_runs(traced, tmp_path, inputs, emitted)
        assert not resident & {x.slot[0] for c in (*single, call) for x in c.loads}
        assert resident >= {x.slot[0] for x in call.resident}
        assert_same_bits(traced(tmp_path / "c", inputs, "--quiet"), plain(tmp_path / "d", inputs, "--load", "--quiet"))


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_resident_networks(compiled: Compile, networks: Path, tmp_path: Path, share: float) -> None:
    name = "m3vit-odd-moe"
    whole = compiled(name, *STREAM)
    emitted = compiled(name, *STREAM, "--resident", part(whole, share))
    assert 0 < len(emitted.report["resident"]["units"]) < emitted.report["units"]
    inputs, _ = data_set(networks / name)
    traced = emitted.make(tmp_path / "traced", TRACE="1", CC="tcc", CFLAGS="")
    traced_runs(traced, tmp_path, inputs, emitted)
    plain = whole.make(tmp_path / "plain", CC="tcc", CFLAGS="")
    assert_same_bits(traced(tmp_path / "c", inputs, "--quiet"), plain(tmp_path / "d", inputs, "--load", "--quiet"))
