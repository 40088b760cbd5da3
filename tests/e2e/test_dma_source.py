"""The example of a source of one's own (examples/dma_source): it builds without a warning, and its results are right."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from emitted import STRICT, run

FOLDER = Path(__file__).resolve().parent.parent.parent / "examples" / "dma_source"


@pytest.mark.parametrize("compiler", [c for c in ("gcc", "clang-19") if shutil.which(c)])
def test_dma_source(moecc: Path, tmp_path: Path, compiler: str) -> None:
    settings = {"MOECC": moecc.resolve(), "BUILD": tmp_path / "b", "CC": compiler, "CFLAGS": STRICT}
    run(["make", "-s", "-C", FOLDER, str(tmp_path / "b" / "main"), *(f"{key}={value}" for key, value in settings.items())])
    weights = tmp_path / "b" / "nano" / "nano_weights.bin"
    first, *lines = run([tmp_path / "b" / "main", weights]).splitlines()
    transfers, memory = int(first.split()[0]), int(first.split()[2])
    assert transfers > 50
    assert memory < weights.stat().st_size / 4
    assert lines[0] == "from flash: the same bits as with weights in memory"
    assert lines[1].startswith("the engine breaks down: the weights did not arrive in time: ")
    assert lines[2] == "afterwards: the same bits as with weights in memory"
    done = subprocess.run([tmp_path / "b" / "main", tmp_path / "none.bin"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "there are no weights" in done.stderr
