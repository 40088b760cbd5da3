"""Weights that stay in memory while the others are streamed: the same bits, read in init alone, no more than asked for."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from emitted import Compile, Emitted, assert_same_bits, data_set

NETWORKS = ["m3vit-odd-moe", "m3vit-conditioned-moe", "mobilenetv2-op20"]
PAGE = 4096


def streamed(compiled: Compile, network: str, budget: int, *options: str) -> Emitted:
    return compiled(network, "--target", "generic", "--weights", "stream", "--resident", str(budget), *options)


def budgets(compiled: Compile, network: str) -> list[int]:
    """None, some small units, about half of the weights, and all of them."""
    pack: int = streamed(compiled, network, 0).report["pack_bytes"]
    return [0, pack // 8, pack // 2, pack + (64 + 2) * PAGE]


def residents(emitted: Emitted) -> set[int]:
    return {u["unit_id"] for u in emitted.report["resident"]["units"]}


@pytest.mark.parametrize("network", NETWORKS)
def test_choice(compiled: Compile, network: str) -> None:
    """As much as has room, what saves most stall for its bytes first; the buffers hold what is left."""
    before = -1
    for budget in budgets(compiled, network):
        emitted = streamed(compiled, network, budget)
        report = emitted.report
        chosen = report["resident"]["units"]
        assert report["resident"]["bytes"] <= budget
        assert report["resident"]["bytes"] >= sum(u["bytes"] for u in chosen)
        assert len(chosen) > before
        assert len({u["unit_id"] for u in chosen}) == len(chosen)
        before = len(chosen)
        assert all(u["stall_saved_seconds"] >= 0 and u["reads_expected"] > 0 for u in chosen)
        macros = dict(re.findall(r"#define (\w+) +\(\(size_t\)(\d+)\)$", emitted.text(".h"), re.M))
        upper = emitted.name.upper()
        assert int(macros[f"{upper}_RESIDENT_BYTES"]) == report["resident"]["bytes"]
        for bounds in (report["all_tasks"], *report["tasks"]):
            ram = bounds["ram"]
            assert ram["one_thread"] == ram["arena"] + ram["scratch_per_thread"]
            assert ram["one_thread_streaming"] == ram["one_thread"] + ram["stream_buffers"] + ram["resident"]
    assert len(chosen) == report["units"], "everything has room"
    assert report["stream_buffer_bytes"] <= PAGE < streamed(compiled, network, 0).report["stream_buffer_bytes"]
    assert all(t["reads_worst_case"] == {"bytes": 0, "slots": 0} for t in report["tasks"])


def reads(read: list[tuple[int, int]]) -> Counter[int]:
    found = Counter(unit for unit, _ in read)
    read.clear()
    return found


@pytest.mark.parametrize("network", NETWORKS)
def test_reads(compiled: Compile, networks: Path, tmp_path: Path, network: str) -> None:
    """Resident units are read in init, each slot once, only those of the tasks, and never in a call; calls read no more
    than the report says; results are the same bits."""
    inputs, _ = data_set(networks / network)
    plain: dict[str, Any] = {}
    for n, budget in enumerate(budgets(compiled, network)):
        emitted = streamed(compiled, network, budget)
        loaded = emitted.library(tmp_path / str(n))
        slots = {u["unit_id"]: u["slots"] for u in emitted.report["resident"]["units"]}
        for names in [[t["task"]] for t in emitted.tasks] + [[t["task"] for t in emitted.tasks]]:
            arena = loaded.open(names)
            first = reads(loaded.counting.read)
            loaded.counting.take_bytes()
            assert first.keys() <= slots.keys()
            assert all(count == slots[unit] for unit, count in first.items())
            if len(names) == len(emitted.tasks):
                assert first == slots
            for name in names * 2:
                for output, array in loaded.run(name, inputs).items():
                    assert plain.setdefault(f"{name} {output}", array.tobytes()) == array.tobytes()
                bound = emitted.task(name)["reads_worst_case"]
                assert len(loaded.counting.read) <= bound["slots"]
                assert loaded.counting.take_bytes() <= bound["bytes"]
                assert not slots.keys() & reads(loaded.counting.read).keys()
            arena.check()
            loaded.close()
    assert first
    assert plain


@pytest.mark.parametrize("compiler", ["gcc", "clang-19", "tcc"])
def test_same_bits(compiled: Compile, networks: Path, tmp_path: Path, compiler: str) -> None:
    """By a real file, with and without a thread that loads ahead; single tasks and all in one call."""
    network = "m3vit-odd-moe"
    inputs, _ = data_set(networks / network)
    plain = None
    for n, budget in enumerate(budgets(compiled, network)):
        built = streamed(compiled, network, budget).make(
            tmp_path / str(n), CC=compiler, CFLAGS="" if compiler == "tcc" else "-O1"
        )
        out = tmp_path / "out"
        plain = plain or built(out, inputs, "--load")
        for options in [(), ("--threads", "2"), ("--task", "all"), ("--map",), ("--load", "--task", "all")]:
            assert_same_bits(built(out, inputs, *options), plain)
        name = Path(next(iter(plain))).name
        task = next(t for t in streamed(compiled, network, budget).tasks if any(o["name"] == name for o in t["outputs"]))
        single = built(out, inputs, "--task", task["task"])
        assert single[name].tobytes() == plain[name].tobytes()


def test_damage_is_named(compiled: Compile, networks: Path, tmp_path: Path) -> None:
    """A resident unit with a flipped bit: init says so before anything is computed."""
    emitted = streamed(compiled, "m3vit-odd-moe", budgets(compiled, "m3vit-odd-moe")[3])
    loaded = emitted.library(tmp_path / "b")
    pack = bytearray(loaded.counting.pack)
    offsets = {
        int(m[6]): int(m[2])
        for m in re.finditer(r'\{("\w+"|NULL), NULL, (\d+), (\d+), (\d+), (\d+), (\d+), \d+\}, 0x', emitted.text(".c"))
    }
    assert offsets.keys() == residents(emitted)
    task = emitted.tasks[0]["ram"]["one_thread_streaming"]
    arena = loaded.open([t["task"] for t in emitted.tasks])
    loaded.close()
    failed = 0
    for offset in offsets.values():
        pack[offset] ^= 1
        loaded.counting.pack = bytes(pack)
        status = loaded.init(1, arena, task)
        assert status in (0, 8)  # MOECC_ERROR_CHECKSUM; another task's units are not looked at
        failed += status != 0
        loaded.close()
        pack[offset] ^= 1
    assert 0 < failed < len(offsets)


def test_core_names_no_task(compiled: Compile) -> None:
    emitted = streamed(compiled, "m3vit-conditioned-moe", 10**6)
    words = set(re.split(r"[^A-Za-z0-9]+", emitted.text(".c").lower()))
    assert "resident" in words
    assert not words & {t["task"].lower() for t in emitted.tasks}
