"""Networks' folders are made when they must be, and appear whole or not at all; lists of names on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import folders, options


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands for the makers' processes, which write the stamp `s2` into the folder."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> None:
        calls.append(command)
        with folders.whole(Path(command[-1]) / command[-2]) as part:
            (part / folders.NOTE).write_text(json.dumps({"stamp": "s2"}))

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_a_network_is_made_once_and_with_another_stamp_again(made: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / folders.NOTE).write_text(json.dumps({"stamp": "s1"}))
    assert folders.prepared(tmp_path / "net", "s1", "bench.models") == tmp_path / "net"
    assert made == []
    assert folders.prepared(tmp_path / "net", "s2", "bench.models") == tmp_path / "net"
    assert made == [[sys.executable, "-m", "bench.models", "net", str(tmp_path)]]
    folders.prepared(tmp_path / "net", "s2", "bench.models")
    folders.prepared(tmp_path / "other", "s2", "bench.models")
    assert [call[-2] for call in made] == ["net", "other"]


class Unfinished(dict[str, Any]):
    def items(self) -> Any:
        yield "x", np.arange(4)
        raise ValueError("no such shape")


def test_a_folder_that_is_not_finished_changes_nothing(tmp_path: Path) -> None:
    net = tmp_path / "net"
    with folders.whole(net) as part:
        folders.save(part / "inputs", {"x": np.arange(3)})
        assert not net.exists()
    assert np.load(net / "inputs/x.npy").tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="no such shape"), folders.whole(net) as part:
        folders.save(part / "inputs", Unfinished())
    assert [p.name for p in net.iterdir()] == ["inputs"]
    with folders.whole(net) as part:
        assert list(part.iterdir()) == []  # what was left is gone
        (part / "new").write_text("")
    assert [p.name for p in net.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_a_digest_is_of_all_files_contents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(folders, "ROOT", tmp_path)
    for name in "ab":
        (tmp_path / name).write_text(name)
    both = folders.digest("ab")
    assert both != folders.digest("a")
    (tmp_path / "b").write_text("c")
    assert both != folders.digest("ab")


def test_names_must_be_known() -> None:
    assert options.names(None, ["one", "two"], "number") == []
    assert options.names(" two, one,", ["one", "two"], "number") == ["two", "one"]
    with pytest.raises(SystemExit, match="no number six, ten; there are one, two"):
        options.names("six,one,ten", (n for n in ("one", "two")), "number")
