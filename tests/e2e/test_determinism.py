"""One build gives the same bits, however many threads it has, wherever its weights come from, and whatever ran before."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
from emitted import Array, Built, Compile, Emitted, assert_close, assert_same_bits, data_set

THREADS = ["1", "2", "3", "4", "7"]
NETWORK = "m3vit-odd-moe"  # sizes that are no multiples of anything
WAYS = ["memory", "map", "loader", "file", "direct", "copy"]
SOURCES: list[tuple[str, ...]] = [*(("--source", way) for way in WAYS), ("--source", "loader", "--threads", "3")]


class Case:
    """A built network, its input, and what it gave with one thread and all weights loaded."""

    def __init__(self, network: Path, emitted: Emitted, folder: Path) -> None:
        self.folder = folder
        self.inputs, self.expected = data_set(network)
        self.built: Built = emitted.make(folder / "b")
        self.plain = self.run()

    def run(self, *options: str) -> dict[str, Array]:
        return self.built(self.folder / "out", self.inputs, *options)


@pytest.fixture(scope="module")
def case(compiled: Compile, networks: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    found = Case(networks / NETWORK, compiled(NETWORK), tmp_path_factory.mktemp("case"))
    for name, array in found.plain.items():
        assert_close(array, found.expected[name])
    return found


def test_again(case: Case) -> None:
    assert_same_bits(case.run(), case.plain)


@pytest.mark.parametrize("threads", THREADS)
def test_threads(case: Case, threads: str) -> None:
    assert_same_bits(case.run("--threads", threads), case.plain)


@pytest.mark.parametrize("options", SOURCES, ids=" ".join)
def test_sources(case: Case, options: tuple[str, ...]) -> None:
    assert_same_bits(case.run(*options), case.plain)


def test_all_against_single_tasks(case: Case) -> None:
    assert_same_bits(case.run("--task", "all"), case.plain)
    assert_same_bits(case.run("--task", "all", "--threads", "4", "--stream"), case.plain)


# How weights are packed and the order of experts are decided when compiling, so these are other builds of the same kernels.
@pytest.mark.parametrize(
    "options",
    [("--weights", "embed"), ("--weights", "stream"), ("--moe", "token-major"), ("--moe", "token-major", "--weights", "embed")],
    ids=" ".join,
)
def test_compiled_otherwise(case: Case, compiled: Compile, tmp_path: Path, options: tuple[str, ...]) -> None:
    built = compiled(NETWORK, *options).make(tmp_path / "b")
    assert_same_bits(built(tmp_path / "out", case.inputs), case.plain)
    assert_same_bits(built(tmp_path / "out", case.inputs, "--threads", "3", "--task", "all"), case.plain)
    if "embed" not in options:
        assert_same_bits(built(tmp_path / "out", case.inputs, "--stream"), case.plain)


@pytest.mark.parametrize("compiler", [c for c in ("gcc", "clang-19", "tcc") if shutil.which(c)])
def test_sources_against_embedded(compiled: Compile, networks: Path, tmp_path: Path, compiler: str) -> None:
    """With each compiler: streamed in each way, the bits of weights in the program."""
    inputs, expected = data_set(networks / NETWORK)
    embedded, streamed = (
        compiled(NETWORK, "--weights", mode).make(tmp_path / mode, CC=compiler, CFLAGS="-O1") for mode in ("embed", "stream")
    )
    plain = embedded(tmp_path / "out", inputs)
    for name, array in plain.items():
        assert_close(array, expected[name])
    for way in WAYS:
        assert_same_bits(streamed(tmp_path / "out", inputs, "--source", way), plain)


def test_token_major_is_another_loop(compiled: Compile) -> None:
    """Without this the comparison above would be one of equal code."""
    by_expert, by_token = compiled(NETWORK), compiled(NETWORK, "--moe", "token-major")
    task = by_expert.tasks[0]["task"]
    assert "moecc_next_expert" in by_expert.text(f"_task_{task}.c")
    assert "moecc_next_expert" not in by_token.text(f"_task_{task}.c")
    worst = [e.tasks[0]["loaded_bytes_worst_case"] for e in (by_expert, by_token)]
    assert worst[0] < worst[1]


def test_large_embedded(compiled: Compile, tmp_path: Path) -> None:
    """Weights of more than 4 MiB come from a .S that includes the pack."""
    results = []
    for i, options in enumerate([(), ("--weights", "embed")]):
        built = compiled("nano", *options).make(tmp_path / str(i), TASKS="sal depth", CFLAGS="-O1")
        results.append(built(tmp_path / "out", None, "--task", "depth"))
    assert_same_bits(*results)


def test_any_order(compiled: Compile, networks: Path, tmp_path: Path) -> None:
    """Tasks one after another in one context, in every order of three, again, and in other sets."""
    name = "m3vit-seed1-moe"
    network = compiled(name, "--target", "generic").library(tmp_path / "b")
    inputs, expected = data_set(networks / name)
    tasks = [t["task"] for t in network.emitted.tasks]
    network.open(tasks)
    plain = {task: network.run(task, inputs) for task in tasks}
    for task in tasks:
        for output, array in plain[task].items():
            assert_close(array, expected[output].ravel())
    for order in itertools.permutations(tasks[:3]):
        for task in order:
            assert_same_bits(network.run(task, inputs), plain[task])
    together = network.run_all(inputs)
    assert_same_bits(together, {k: v for outputs in plain.values() for k, v in outputs.items()})
    assert_same_bits(network.run(tasks[-1], inputs), plain[tasks[-1]])
    network.close()
    for few in (tasks[1:2], tasks[3:]):
        network.open(few)
        for task in reversed(few):
            assert_same_bits(network.run(task, inputs), plain[task])
        network.close()
