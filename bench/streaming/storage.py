"""The machine's storage, and memory that is limited."""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = 1 << 20
GROUPS = Path("/sys/fs/cgroup")


def storage_speed(path: Path, most: int = 256 << 20) -> float:
    """Bytes a second of reading the file in order, 1 MiB at a time, without the system's cache; where that cannot be
    avoided, after asking it to forget the file."""
    flags = os.O_RDONLY | getattr(os, "O_DIRECT", 0)
    try:
        file = os.open(path, flags)
    except OSError:
        drop_cache(path)
        file = os.open(path, os.O_RDONLY)
    try:
        with mmap.mmap(-1, BLOCK) as buffer:
            done, start = 0, time.perf_counter()
            while done < most:
                got = os.preadv(file, [buffer], done)
                done += got
                if got < BLOCK:
                    break
            return done / (time.perf_counter() - start)
    finally:
        os.close(file)


def drop_cache(path: Path) -> None:
    """Nothing of the file stays in the system's cache, unless a process has it mapped."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


@dataclass(frozen=True)
class Limit:
    """kind says which; `enter` is called in the process that is limited, before its program starts."""

    kind: str
    enter: Callable[[], None]


def _write(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)


def _group(limit: int) -> tuple[Path, Path] | None:
    """A control group of this much memory, page cache included, and the file that takes its processes."""
    name = f"moecc-bench-{os.getpid()}"
    for folder, file in ((GROUPS / "memory" / name, "memory.limit_in_bytes"), (GROUPS / name, "memory.max")):
        try:
            folder.mkdir()
            _write(folder / file, str(limit))
        except OSError:
            with contextlib.suppress(OSError):
                folder.rmdir()
            continue
        return folder, folder / "cgroup.procs"
    return None


@contextlib.contextmanager
def limited(limit: int, groups: bool = True) -> Iterator[Limit]:
    """A control group where one may be made, else a limit of the process's own data."""
    made = _group(limit) if groups else None
    if made is None:
        yield Limit("RLIMIT_DATA", lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)))
        return
    folder, processes = made
    try:
        yield Limit("control group", lambda: _write(processes, str(os.getpid())))
    finally:
        for _ in range(50):  # its processes may be on their way out
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.05)
