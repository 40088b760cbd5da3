"""A program that is measured: it stays alive and answers one line with one (serve/serve.c says what)."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from bench.folders import ROOT


class ContenderError(Exception):
    """A contender could not do what was asked of it; the message is one line."""


def environment(threads: int) -> dict[str, str]:
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    return {**os.environ, **counts}


class Process:
    def __init__(self, command: list[str], threads: int, log: Path, enter: Callable[[], None] | None = None) -> None:
        """enter: called in the new process before its program starts."""
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=environment(threads),
                preexec_fn=enter,
            )
        self._log = log
        self._rest = b""

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self, line: str, seconds: float) -> list[str]:
        """The words of the reply."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        reply = self._line(time.monotonic() + seconds).split()
        if not reply or reply[0] != "ok":
            raise ContenderError(" ".join(reply[1:]) or "an empty reply")
        return reply[1:]

    def numbers(self, line: str, seconds: float) -> list[float]:
        return [float(word) for word in self.ask(line, seconds)]

    def _line(self, deadline: float) -> str:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            if not select.select([pipe], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise ContenderError("it took too long")
            found = os.read(pipe, 65536)
            if not found:
                raise self._died()
            self._rest += found
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode(errors="replace")

    def _died(self) -> ContenderError:
        status = self._process.wait()
        last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
        return ContenderError(f"it ended with status {status}: {' '.join(last)[:300]}")
