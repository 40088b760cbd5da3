"""The memory plan: nearly as small as what lives at once, and right: nothing reads what was not written, or writes outside."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from emitted import NETWORKS, SANITIZERS, Compile, assert_close, data_set


@pytest.mark.parametrize("network", [*NETWORKS, "nano"])
def test_arena_is_tight(compiled: Compile, network: str) -> None:
    report = compiled(network, *(() if network == "nano" else ("--target", "generic"))).report
    for task in report["tasks"]:
        assert task["largest_live_bytes"] <= task["arena_bytes"] <= 1.05 * task["largest_live_bytes"], task["task"]
    assert report["arena_bytes_all_tasks"] <= 1.05 * report["largest_live_bytes_all_tasks"]
    assert report["arena_bytes_all_tasks"] >= max(t["arena_bytes"] for t in report["tasks"])


RUN = ["m3vit-seed1-moe", "m3vit-conditioned-moe", "m3vit-odd-moe", "mobilenetv2-op20", "vit-op20"]


@pytest.mark.parametrize("network", RUN)
def test_arena_of_nan(compiled: Compile, networks: Path, tmp_path: Path, network: str) -> None:
    """Each task in an arena of just its size, full of NaN, before a red zone; then all in one call in one for all."""
    loaded = compiled(network, "--target", "generic").library(tmp_path / "b")
    tasks = loaded.emitted.tasks
    for number, task in enumerate(tasks):
        inputs, expected = data_set(networks / network, number if network == "m3vit-conditioned-moe" else 0)
        arena = loaded.open([task["task"]])
        for output, array in loaded.run(task["task"], inputs).items():
            assert_close(array, expected[output].ravel())
        arena.check()
        loaded.close()
    if len(tasks) > 1 and network != "m3vit-conditioned-moe":
        arena = loaded.open([t["task"] for t in tasks])
        for output, array in loaded.run_all(inputs).items():
            assert_close(array, expected[output].ravel())
        arena.check()
        loaded.close()


@pytest.mark.parametrize("network", ["m3vit-seed1-moe"])
def test_arena_in_bands(compiled: Compile, networks: Path, tmp_path: Path, network: str) -> None:
    """Heads in as many bands as --arena asks for: in an arena of just that size, full of NaN, the same bits."""
    whole = compiled(network, "--target", "generic")
    limit = max(t["bands"]["banded"]["memory_bytes"] for t in whole.tasks)
    assert limit < max(t["ram"]["one_thread"] for t in whole.tasks)
    banded = compiled(network, "--target", "generic", "--arena", str(limit))
    inputs, _ = data_set(networks / network)
    results = []
    for name, emitted in (("whole", whole), ("banded", banded)):
        loaded = emitted.library(tmp_path / name)
        for task in emitted.tasks:
            assert name == "whole" or task["ram"]["one_thread"] <= limit
            arena = loaded.open([task["task"]])
            results.append({k: v.copy() for k, v in loaded.run(task["task"], inputs).items()})
            arena.check()
            loaded.close()
    half = len(results) // 2
    for a, b in zip(results[:half], results[half:], strict=True):
        assert a.keys() == b.keys()
        assert all(a[k].tobytes() == b[k].tobytes() for k in a)


@pytest.mark.parametrize("network", ["m3vit-odd-moe", "mobilenetv2-op20"])
def test_sanitizers(compiled: Compile, networks: Path, tmp_path: Path, network: str) -> None:
    """Address and undefined-behaviour sanitizers, streaming with threads."""
    built = compiled(network, "--target", "generic").make(tmp_path / "b", CFLAGS=SANITIZERS)
    inputs, expected = data_set(networks / network)
    for output, array in built(tmp_path / "out", inputs, "--threads", "2", "--stream").items():
        assert_close(array, expected[output])


@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")
def test_valgrind(compiled: Compile, networks: Path, tmp_path: Path) -> None:
    """Nothing depends on memory that was never written: the driver's arena comes from malloc."""
    built = compiled("m3vit-odd-moe", "--target", "generic").make(tmp_path / "b", CFLAGS="-O1 -g")
    inputs, _ = data_set(networks / "m3vit-odd-moe")
    built.launcher = ["valgrind", "-q", "--error-exitcode=9", "--track-origins=no"]
    assert len(built(tmp_path / "out", inputs, "--stream")) == 2


def test_needed_memory_is_said(compiled: Compile, tmp_path: Path) -> None:
    """An arena that is one byte short is refused before anything is computed."""
    network = compiled("m3vit-odd-moe", "--target", "generic").library(tmp_path / "b")
    arena = network.open([t["task"] for t in network.emitted.tasks])
    network.close()
    assert network.init(1, arena, arena.size) == 0
    network.close()
    short = network.emitted.tasks[0]["ram"]["one_thread_streaming"] - 1
    assert network.init(1, arena, short) != 0
    assert network.init(1, arena, short + 1) == 0
