"""run and bench: where weights come from, and what is compiled for that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
from calling import Cli

WAYS = ("memory", "map", "loader", "file", "direct", "copy")
STREAMING = ("loader", "file", "direct", "copy")

# A compiler that keeps the report of what it is given, and makes a program that keeps its arguments.
FAKE = """#!/bin/sh
[ "$1" = --version ] && exec echo "fake, for PLACE"
for a; do
  [ "$last" = -o ] && out=$a
  case $a in -I*) cp "${a#-I}/report.json" PLACE/report.json;; esac
  last=$a
done
printf '#!/bin/sh\\nprintf "%%s\\\\n" "$@" > PLACE/arguments\\n' > "$out"
chmod +x "$out"
"""


@pytest.fixture
def x(cli: Cli) -> Path:
    path = cli.place / "x.npy"
    np.save(path, nets.noise(3, nets.MOE["tokens"], nets.MOE["width"]))
    return path


@pytest.fixture
def moe(cli: Cli) -> Path:
    return cli.save(nets.moe(), "moe")


class Fake:
    """Calls with a compiler that builds nothing: what the driver would be given, and what was compiled for it."""

    def __init__(self, cli: Cli) -> None:
        self.cli = cli
        self.compiler = cli.place / "fake-cc"
        self.compiler.write_text(FAKE.replace("PLACE", str(cli.place)))
        self.compiler.chmod(0o755)

    def __call__(self, *arguments: object) -> list[str]:
        for kept in ("arguments", "report.json"):
            (self.cli.place / kept).unlink(missing_ok=True)
        cache = self.cli.place / "none-built"  # or an equal network that was built before would be taken
        for built in (cache / "moecc").glob("*"):
            built.unlink()
        self.cli.fine(*arguments, CC=str(self.compiler), XDG_CACHE_HOME=str(cache))
        return (self.cli.place / "arguments").read_text().splitlines()

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.cli.place / "report.json").read_text())
        return found


def source(arguments: list[str]) -> str | None:
    return arguments[arguments.index("--source") + 1] if "--source" in arguments else None


@pytest.mark.parametrize("way", WAYS)
def test_the_driver_is_told(cli: Cli, moe: Path, x: Path, way: str) -> None:
    fake = Fake(cli)
    cli.fine("compile", moe, "-o", "out")
    for what in (moe, "out"):
        assert source(fake("run", what, "--input", f"x={x}", "-o", "results", "--source", way)) == way
        assert source(fake("bench", what, "--task", "moe", f"--source={way}")) == way


def test_without_it_the_driver_chooses(cli: Cli, moe: Path) -> None:
    fake = Fake(cli)
    cli.fine("compile", moe, "-o", "out")
    assert not {"--source", "--load", "--stream"} & set(fake("bench", moe, "--weights", "stream"))
    assert not {"--source", "--load", "--stream"} & set(fake("bench", "out", "--task", "moe"))
    assert "--stream" in fake("bench", "out", "--task", "moe", "--weights", "stream")
    assert "--load" in fake("bench", "out", "--task", "moe", "--weights", "file")
    both = fake("bench", "out", "--task", "moe", "--weights", "stream", "--source", "direct")
    assert (source(both), "--stream" in both) == ("direct", False)


@pytest.mark.parametrize("way", WAYS)
def test_a_model_is_compiled_for_it(cli: Cli, moe: Path, way: str) -> None:
    fake = Fake(cli)
    fake("bench", moe, "--source", way)
    assert fake.report["weights"] == ("stream" if way in STREAMING else "file")
    fake("bench", moe, "--source", way, "--weights", "file")
    assert fake.report["weights"] == "file"
    fake("bench", moe, "--source", way, "--weights", "stream")
    assert fake.report["weights"] == "stream"


def test_buffers_and_resident_of_a_model(cli: Cli, moe: Path) -> None:
    fake = Fake(cli)
    fake("bench", moe, "--weights", "stream")
    whole = fake.report["stream_buffer_bytes"]
    assert "resident" not in fake.report or not fake.report["resident"]["bytes"]
    fake("bench", moe, "--source", "loader", "--stream-buffer", "512")
    assert fake.report["stream_buffer_bytes"] < whole
    fake("bench", moe, "--source", "direct", "--resident", "4096")
    assert fake.report["resident"]["budget"] == 4096
    assert 0 < fake.report["resident"]["bytes"] <= 4096


@pytest.mark.parametrize("engine", ["tcc", "cc"])
def test_the_same_bits(cli: Cli, moe: Path, x: Path, engine: str) -> None:
    cli.fine("compile", moe, "-o", "out", "--weights", "stream", "--resident", "1000")
    results = set()
    for way in WAYS:
        cli.fine("run", "out", "--input", f"x={x}", "-o", way, "--source", way, "--engine", engine)
        results.add((cli.place / way / "y.npy").read_bytes())
    assert len(results) == 1
    assert np.allclose(np.load(cli.place / "map" / "y.npy"), nets.moe_result(np.load(x))[0], atol=1e-5)


def test_loads_of_a_trace(cli: Cli, moe: Path, x: Path) -> None:
    """What comes through the buffers is seen to come; what is in memory is not."""
    cli.fine("compile", moe, "-o", "out")
    for way in WAYS:
        cli.fine("run", "out", "--input", f"x={x}", "-o", "o", "--source", way, "--engine", "tcc", "--trace", "t.json")
        events = json.loads((cli.place / "t.json").read_text())["traceEvents"]
        buffers = {e["tid"] for e in events if e["ph"] == "X" and e["cat"] == "load"}
        assert bool(buffers) == (way in STREAMING), way


def test_what_is_mapped_is_not_verified(cli: Cli, moe: Path, x: Path) -> None:
    cli.fine("compile", moe, "-o", "out")
    pack = cli.place / "out" / "moe_weights.bin"
    data = bytearray(pack.read_bytes())
    data[-100] ^= 1
    pack.write_bytes(data)
    run = ("run", "out", "--input", f"x={x}", "-o", "o", "--engine", "tcc")
    assert "checksum" in cli.fails(1, *run, "--source", "memory")
    cli.fine(*run, "--source", "map")


def test_embedded_weights_have_no_source(cli: Cli, moe: Path, x: Path) -> None:
    cli.fine("compile", moe, "-o", "out", "--weights", "embed")
    for command in (("run", "out", "--input", f"x={x}", "-o", "o"), ("bench", "out")):
        for option in (("--source", "map"), ("--weights", "stream"), ("--weights", "file")):
            message = cli.fails(2, *command, "--engine", "tcc", *option)
            assert f'{option[0]} is for weights in a file: those of "out" are in its code' in message
        cli.fine(*command, "--engine", "tcc")


def test_a_folder_is_compiled_already(cli: Cli, moe: Path) -> None:
    cli.fine("compile", moe, "-o", "out", "--weights", "stream")
    lines = {
        "--weights embed": "--weights embed",
        "--source loader --resident 1": "--resident",
        "--weights stream --stream-buffer 1": "--stream-buffer",
    }
    for line, name in lines.items():
        message = cli.fails(2, "bench", "out", *line.split())
        assert f'{name} is for the compiler: "out" is compiled already' in message


def test_help_lists_them(cli: Cli) -> None:
    for command in ("run", "bench"):
        text = cli.fine(command, "--help")
        assert "--source WAY" in text
        assert all(way in text for way in WAYS)
        assert "--resident BYTES" in text
        assert "--stream-buffer BYTES" in text
