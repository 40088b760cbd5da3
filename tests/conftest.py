"""What all Python suites share: where the compiler is, and the generated networks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GENERATOR = ROOT / "tests" / "models" / "make_models.py"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--moecc", default=str(ROOT / "build" / "moecc"), help="the compiler to test")


@pytest.fixture(scope="session")
def moecc(request: pytest.FixtureRequest) -> Path:
    """The compiler."""
    path = Path(request.config.getoption("--moecc"))
    assert path.exists(), f"{path} is missing: build it first"
    return path


@pytest.fixture(scope="session")
def generate(moecc: Path) -> Callable[..., Path]:
    """generate(*options) makes networks, kept beside the compiler (those that are there stay), and returns their folder."""

    def make(*options: str) -> Path:
        folder = moecc.resolve().parent / "test-models"
        subprocess.run([sys.executable, str(GENERATOR), "--out", str(folder), *options], check=True)
        return folder

    return make


@pytest.fixture(scope="session")
def models(generate: Callable[..., Path]) -> Path:
    """The folder of all generated networks."""
    return generate()
