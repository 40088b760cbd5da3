"""Reads of streaming networks, asserted from their traces: the right slots, in the right order, each in time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from emitted import Array, Compile, Emitted, data_set, emit
from onnx import TensorProto, helper, numpy_helper
from reads import Buffers, Call, Queues, Span, assert_all_reads, assert_reads, read_calls, schedules

WIDTH, INNER = 8, 12
SIZES = [(4, 1), (4, 2), (16, 2), (16, 4), (64, 1), (64, 4)]  # experts, k


def noise(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def tokens_of(experts: int, k: int) -> int:
    return experts // k  # so that every expert may have exactly one


def two_layers(experts: int, k: int) -> onnx.ModelProto:
    """Two MoE layers with dense ones around them, whose routers pass on what the inputs s1 and s2 say."""
    t = tokens_of(experts, k)
    nodes, weights = [], {"one": np.eye(experts, dtype=np.float32)}
    for i in (1, 2):
        weights |= {
            f"w{i}": noise(i, WIDTH, WIDTH),
            f"fc1_{i}": noise(10 + i, experts, INNER, WIDTH),
            f"fc2_{i}": noise(20 + i, experts, WIDTH, INNER),
        }
        last = "x" if i == 1 else f"y{i - 1}"
        fc = [f"fc1_{i}", "", f"fc2_{i}"]
        nodes += [
            helper.make_node("MatMul", [last, f"w{i}"], [f"h{i}"], name=f"dense{i}"),
            helper.make_node("MatMul", [f"s{i}", "one"], [f"scores{i}"], name=f"router{i}"),
            helper.make_node(
                "MoE",
                [f"h{i}", f"scores{i}", *fc],
                [f"y{i}"],
                name=f"moe{i}",
                domain="com.microsoft",
                k=k,
                activation_type="relu",
            ),
        ]
    weights["w3"] = noise(3, WIDTH, WIDTH)
    nodes.append(helper.make_node("MatMul", ["y2", "w3"], ["y"], name="dense3"))
    value = helper.make_tensor_value_info
    inputs = [value("x", TensorProto.FLOAT, (t, WIDTH)), *(value(s, TensorProto.FLOAT, (t, experts)) for s in ("s1", "s2"))]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "net", inputs, [value("y", TensorProto.FLOAT, (t, WIDTH))], constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


# ---- routings ----


def choosing(chosen: list[list[int]], experts: int) -> Array:
    """Scores by which each token chooses these experts."""
    scores = -np.abs(noise(5, len(chosen), experts)) - 1
    for token, own in enumerate(chosen):
        scores[token, own] = 1 + np.arange(len(own)) / 8
    return scores.astype(np.float32)


def alternating(experts: int, k: int) -> Array:
    ends = [list(range(k)), list(range(experts - k, experts))]
    return choosing([ends[t % 2] for t in range(tokens_of(experts, k))], experts)


def inner_only(experts: int, k: int) -> Array:
    """Neither the first expert nor the last, where there are enough between them."""
    first = 1 if experts - 2 >= k else 0
    return choosing(
        [[first + (t + i) % (experts - 2 * first) for i in range(k)] for t in range(tokens_of(experts, k))], experts
    )


ROUTINGS: dict[str, Callable[[int, int], Array]] = {
    "first": lambda e, k: choosing([list(range(k))] * tokens_of(e, k), e),
    "last": lambda e, k: choosing([list(range(e - k, e))] * tokens_of(e, k), e),
    "inner": inner_only,
    "alternating": alternating,
    "each-once": lambda e, k: choosing([list(range(t * k, t * k + k)) for t in range(tokens_of(e, k))], e),
    "all-tied": lambda e, k: np.zeros((tokens_of(e, k), e), np.float32),
    "many-ties": lambda e, k: np.round(noise(6, tokens_of(e, k), e)),
    **{f"random{seed}": lambda e, k, seed=seed: noise(seed, tokens_of(e, k), e) for seed in (7, 8, 9)},  # type: ignore[misc]
}


def queues_of(scores: Array, k: int) -> Queues:
    """Tokens by expert: each goes to the k with the highest scores, of equal ones to the first."""
    chosen = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    experts, counts = np.unique(chosen, return_counts=True)
    return dict(zip(experts.tolist(), counts.tolist(), strict=True))


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
        assert streamed["y"].tobytes() == loaded["y"].tobytes()
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


def expert_loads(call: Call) -> list[Span]:
    return [x for x in call.loads if x.args["slots"] > 1]


def read_twice(call: Call) -> None:
    call.loads.insert(call.loads.index(expert_loads(call)[0]), copy.deepcopy(expert_loads(call)[0]))


def read_without_tokens(call: Call) -> None:
    loop = call.loops[0]
    del loop.args["tokens"][next(iter(loop.args["tokens"]))]


def asked_late(call: Call) -> None:
    load = expert_loads(call)[1]
    load.args["asked"] = next(t for t in call.takes if t.slot == load.slot).begin


def dense_asked_late(call: Call) -> None:
    load = call.loads[-1]
    load.args["asked"] = call.takes[-1].begin


def first_asked_before_the_router(call: Call) -> None:
    expert_loads(call)[0].args["asked"] = call.span.begin


def out_of_order(call: Call) -> None:
    call.loads[1], call.loads[2] = call.loads[2], call.loads[1]


def overwritten(call: Call) -> None:
    for load in call.loads:
        load.args["buffer"] = 0
        load.track = (2, 0)


FAULTS = [
    read_twice,
    read_without_tokens,
    asked_late,
    dense_asked_late,
    first_asked_before_the_router,
    out_of_order,
    overwritten,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(call: tuple[Call, Emitted], fault: Callable[[Call], None]) -> None:
    assert_reads(call[0], schedules(call[1].report)[call[0].task], Buffers())
    fault(call[0])
    with pytest.raises(AssertionError):
        assert_reads(call[0], schedules(call[1].report)[call[0].task], Buffers())
