"""Folders of networks: made in a process of their own, kept under a stamp of what they were made from, whole or not there."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
NOTE = "network.json"  # what is known of a network, its stamp among it


def digest(sources: Iterable[str]) -> str:
    """Identifies the contents of files of the project."""
    return hashlib.sha256(b"".join((ROOT / source).read_bytes() for source in sources)).hexdigest()[:16]


def prepared(folder: Path, stamp: str, maker: str) -> Path:
    """The network's folder, made now by `python -m maker NAME FOLDER` unless it is there with this stamp."""
    note = folder / NOTE
    if not note.exists() or json.loads(note.read_text())["stamp"] != stamp:
        subprocess.run([sys.executable, "-m", maker, folder.name, str(folder.parent)], check=True, cwd=ROOT)
    return folder


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder beside it to write into, which then takes its place."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def save(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
