"""Calling the compiler."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import onnx


class Cli:
    """moecc, as a person calls it."""

    def __init__(self, program: Path, place: Path, cache: Path) -> None:
        self.program = str(program.resolve())
        self.temporary = place / "temporary"
        self.temporary.mkdir()
        self.place = place
        self.environment = dict(os.environ) | {"TMPDIR": str(self.temporary), "XDG_CACHE_HOME": str(cache)}
        self.environment.pop("CC", None)

    def __call__(self, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, *map(str, arguments)],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            env=self.environment | variables,
            cwd=self.place,
            timeout=300,
            check=False,
        )

    def fine(self, *arguments: object, **variables: str) -> str:
        """The standard output of a call that must succeed."""
        done = self(*arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def fails(self, status: int, *arguments: object, **variables: str) -> str:
        """The messages of a call that must end with the status, and has no results."""
        done = self(*arguments, **variables)
        assert done.returncode == status, done.stdout + done.stderr
        assert done.stderr.strip()
        return done.stderr

    def save(self, model: onnx.ModelProto, name: str = "net") -> Path:
        path = self.place / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        return path
