"""Emitted networks under sanitizers: vectors and threads with ASan and UBSan, the pool and the loader with TSan."""

from __future__ import annotations

from pathlib import Path

import pytest
from emitted import SANITIZERS, Compile, assert_close, data_set

THREAD_SANITIZER = "-O1 -g -fsanitize=thread"
HOW = [("--threads", "4"), ("--threads", "2", "--stream")]


def check(compiled: Compile, network: Path, folder: Path, flags: str, *options: tuple[str, ...]) -> None:
    built = compiled(network.name).make(folder / "b", CFLAGS=flags)
    inputs, expected = data_set(network)
    for number, how in enumerate(options):
        found = built(folder / f"out{number}", inputs, *how)
        assert found
        for output, array in found.items():
            assert_close(array, expected[output])


@pytest.mark.parametrize("network", ["m3vit-odd-moe", "m3vit-unloved-dense", "mobilenetv2-op20"])
def test_vectors(compiled: Compile, networks: Path, tmp_path: Path, network: str) -> None:
    """The target is this machine: vector loads at the ends of rows must stay within them."""
    check(compiled, networks / network, tmp_path, SANITIZERS, *HOW)


@pytest.mark.parametrize("network", ["m3vit-herd-of-two-moe", "vit-op20"])
def test_threads(compiled: Compile, networks: Path, tmp_path: Path, network: str) -> None:
    """No data races, neither among the threads of the pool nor with the one that loads weights."""
    check(compiled, networks / network, tmp_path, THREAD_SANITIZER, *HOW)
