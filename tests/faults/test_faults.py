"""Every hostile model of make_faults.py gets its exit status and message, and nothing is left behind (see run.py)."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import make_faults
import pytest
import run

PLACE = tempfile.TemporaryDirectory(prefix="moecc-faults-")
FOLDER = Path(PLACE.name)
for build in make_faults.BUILDERS:
    build(FOLDER)
RUNS = [
    pytest.param(case, command, id=f"{case.number}-{case.name}-{command}")
    for case in make_faults.CASES
    for command in case.commands
]


@pytest.mark.parametrize(("case", "command"), RUNS)
def test_fault(moecc: Path, case: make_faults.Case, command: str) -> None:
    assert run.faults(asdict(case), command, str(moecc.resolve()), FOLDER) == []
