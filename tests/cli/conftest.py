"""Fixtures: moecc with a cache of the session's and a temporary folder of the test's own, which must be empty afterwards."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import nets
import pytest
from calling import Cli

# A background job starts with these ignored, and so would every program that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cli(moecc: Path, tmp_path: Path, cache: Path) -> Iterator[Cli]:
    call = Cli(moecc, tmp_path, cache)
    yield call
    assert not list(call.temporary.iterdir()), "temporary files are left"


@pytest.fixture
def dense(cli: Cli) -> Path:
    return cli.save(nets.dense(), "dense")


@pytest.fixture
def tasks(cli: Cli) -> Path:
    return cli.save(nets.tasks(), "tasks")
