"""End to end: every generated network, compiled and run by each compiler, against float64 PyTorch.

The networks (tests/models) are every form in which a mixture-of-experts layer arrives, at several sizes and seeds, and the
architectures of the transformers library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
GENERATOR = ROOT / "tests" / "models" / "make_models.py"
COMPILERS = [name for name in ("gcc", "clang", "clang-19") if shutil.which(name)]
if "clang" in COMPILERS and "clang-19" in COMPILERS:
    COMPILERS.remove("clang-19")


def names() -> list[str]:
    """What the generator can make."""
    listing = subprocess.run([sys.executable, str(GENERATOR), "--list"], capture_output=True, text=True, check=True)
    return [line.split()[0] for line in listing.stdout.splitlines() if line.strip()]


NAMES = names()


def verify(moecc: Path, model: Path, *options: str, compiler: str | None = None) -> str:
    environment = dict(os.environ)
    if compiler:
        environment["CC"] = compiler
    result = subprocess.run(
        [str(moecc), "verify", str(model / "model.onnx"), str(model), *options], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("name", NAMES)
def test_tcc(moecc: Path, models: Path, name: str) -> None:
    """Scalar code, in process."""
    assert " 0 wrong" in verify(moecc, models / name, "--engine", "tcc")


# A compiler takes seconds for each network, so each of them gets its share; together they see all of them.
@pytest.mark.parametrize(("name", "compiler"), [(name, COMPILERS[i % len(COMPILERS)]) for i, name in enumerate(NAMES)])
def test_compiled(moecc: Path, models: Path, name: str, compiler: str) -> None:
    """Vectors of this machine."""
    assert " 0 wrong" in verify(moecc, models / name, compiler=compiler)
