"""Every hostile model of make_faults.py gets its exit status and message, and nothing is left behind (see run.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import make_faults
import run

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models, as they are made for cases()."""
    place = tmp_path_factory.mktemp("faults")
    for build in make_faults.BUILDERS:
        build(place)
    return place


def cases() -> list[tuple[str, str]]:
    """Name and command of each case: what make_faults.py prints for a folder of its own."""
    listing = subprocess.run([sys.executable, str(HERE / "run.py"), "--list"], capture_output=True, text=True, check=True)
    return [(name, command) for name, command in (line.split() for line in listing.stdout.splitlines())]
