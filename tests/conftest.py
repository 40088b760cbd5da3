"""What all Python suites share: where the compiler is."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--moecc", default=str(ROOT / "build" / "moecc"), help="the compiler to test")


@pytest.fixture(scope="session")
def moecc(request: pytest.FixtureRequest) -> Path:
    """The compiler."""
    path = Path(request.config.getoption("--moecc"))
    assert path.exists(), f"{path} is missing: build it first"
    return path
