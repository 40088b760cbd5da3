"""What the tests of emitted folders share: a few networks, and the folders that they are compiled to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from emitted import NETWORKS, Compile, Emitted, emit

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def networks(generate: Callable[..., Path]) -> Path:
    """The folder of the networks that these tests use."""
    return generate("--only", ",".join(NETWORKS))


@pytest.fixture(scope="session")
def nano() -> Path:
    return ROOT / "examples" / "nano" / "nano.onnx"


@pytest.fixture(scope="session")
def compiled(moecc: Path, networks: Path, nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """compiled(network, *options): the emitted folder, one for each set of options; "nano" is the example."""
    known: dict[tuple[str, ...], Emitted] = {}

    def make(network: str, *options: str) -> Emitted:
        key = (network, *options)
        if key not in known:
            model = nano if network == "nano" else networks / network / "model.onnx"
            known[key] = emit(moecc, model, tmp_path_factory.mktemp("emitted") / "net", *options)
        return known[key]

    return make
