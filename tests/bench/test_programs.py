"""Programs that are measured, with a network of three lines in place of a generated one, and the machine's own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from bench import contenders, measure
from bench.contenders import RUNTIME, SERVE, Contender, Program, Settings
from bench.networks import NETWORKS, Files, Network
from bench.process import ContenderError, Process
from bench.results import Row

CODE = """
#include <stdio.h>
_Bool generated_load(const char *path) { FILE *f = fopen(path, "rb"); return f && !fclose(f); }
void generated(const float *x, const long long *n, float *y) { for (int i = 0; i < 3; i++) y[i] = FACTOR * x[i] + (float)n[0]; }
"""


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """y = 2 x + n."""
    x, n = np.array([[1, 2, 4]], np.float32), np.array([3], np.int64)
    for folder in ("inputs", "expected"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "inputs/x.npy", x)
    np.save(tmp_path / "inputs/n.npy", n)
    np.save(tmp_path / "expected/y.npy", 2 * x.astype(np.float64) + 3)
    (tmp_path / "plain.onnx").touch()
    return Files(Network("net", "A network", "none"), tmp_path, ["x", "n"], ["y"], 6.0)


def build(files: Files, factor: str, weights: str) -> Program:
    folder = files.folder
    (folder / "generated.c").write_text(CODE)
    (folder / weights).touch()
    head = '#include "ports.h"\nvoid generated(void *, void *, void *);'
    (folder / "table.c").write_text(
        contenders.table(files, head, [("all", "generated(d[0], d[1], d[2]); return 0;", ["x", "n", "y"])])
    )
    sources = [
        SERVE / "serve.c",
        SERVE / "ports.c",
        SERVE / "emx.c",
        RUNTIME / "moecc_npy.c",
        folder / "table.c",
        folder / "generated.c",
    ]
    flags = ["-Wall", "-Wextra", "-Werror", f"-DFACTOR={factor}", f"-I{SERVE}", f"-I{RUNTIME}"]
    contenders.run(["gcc", *flags, *map(str, sources), "-o", str(folder / "program")])
    return Program([str(folder / "program"), str(folder / "weights"), str(folder / "inputs")])


def enter(files: Files, factor: str, weights: str = "weights") -> tuple[Row, measure.Player | None]:
    contender = Contender("fake", "fake", ("plain",), lambda settings, given, form: build(given, factor, weights))
    settings = Settings(Path("moecc"), files.folder)
    with ExitStack() as stack:
        row, player = measure.enter(contender, files, 1, settings, ["plain"], stack)
        if player:
            player.turn()
            assert player.process.numbers("memory", 10)[0] > 100_000
            assert measure.base_memory(player.process) == 0
        return row, player


def test_a_program_is_loaded_checked_and_timed(files: Files) -> None:
    row, player = enter(files, "2")
    assert player is not None
    assert row.error == 0
    assert row.exact
    assert row.form == "plain"
    assert len(row.ms) == 1
    assert row.load_ms > 0


def test_a_wrong_result_is_inexact(files: Files) -> None:
    row, _ = enter(files, "2.1f")
    assert row.error == pytest.approx(0.4 / 11, rel=1e-3)
    assert not row.exact


def test_no_number_is_not_exact(files: Files) -> None:
    row, _ = enter(files, "(0.0f / 0.0f)")
    assert row.error is None
    assert not row.exact


def test_why_a_program_cannot_be_measured_is_said(files: Files) -> None:
    row, player = enter(files, "2", weights="elsewhere")
    assert player is None
    assert row.failure == "plain: the weights could not be read"
    row, player = enter(files, "no such thing")
    assert player is None
    assert row.failure.startswith("plain: gcc: ")


def test_a_program_that_ends_or_hangs_is_an_error(tmp_path: Path) -> None:
    broken, sleeping = ["sh", "-c", "echo broken >&2; exit 5"], ["sleep", "60"]
    with Process(broken, 1, tmp_path / "log") as program, pytest.raises(ContenderError, match="ended with status 5: broken"):
        program.ask("load", 10)
    with Process(sleeping, 1, tmp_path / "log") as program, pytest.raises(ContenderError, match="took too long"):
        program.ask("load", 0.1)


def test_what_was_built_of_the_same_files_is_kept(tmp_path: Path) -> None:
    source, built = tmp_path / "source", []
    source.write_text("1")

    def build(folder: Path) -> Program:
        built.append(folder)
        return Program([str(len(built))], {"code": 1}, {"flops": 2.0})

    first = contenders.cached(tmp_path / "out", [source, "option"], build)
    assert contenders.cached(tmp_path / "out", [source, "option"], build) == first
    assert contenders.cached(tmp_path / "out", [source, "other"], build).command == ["2"]
    source.write_text("2")
    assert contenders.cached(tmp_path / "out", [source, "other"], build).command == ["3"]


def test_the_machines_own_limits(tmp_path: Path) -> None:
    settings = Settings(Path("moecc"), tmp_path, cc="gcc")
    program = contenders.build_peak(settings)
    with Process([*program.command, "2", str(1 << 20)], 2, tmp_path / "log") as machine:
        machine.ask("load", 60)
        (ms,) = machine.numbers("run 1 fma", 60)
        assert 1e8 < 2 * contenders.PEAK_FLOPS / (ms / 1e3) < 1e13
        assert all(ms > 0 for ms in machine.numbers("run 3 read", 60))


def test_work_that_tasks_share_is_counted_once() -> None:
    trunk, a, b = ({"step": number, "macs": macs} for number, macs in ((0, 100), (1, 10), (2, 20)))
    assert contenders.total_macs({"tasks": [{"schedule": [trunk, a]}, {"schedule": [trunk, b]}]}) == 130


def test_names_are_looked_up() -> None:
    assert [c.name for c in contenders.chosen(["openvino"])] == ["moecc", "OpenVINO"]
    assert "IREE" not in [c.name for c in contenders.chosen([])]
    assert [c.name for c in contenders.chosen(["IREE", "moecc"])] == ["moecc", "IREE"]
    with pytest.raises(SystemExit, match="no contender abacus"):
        contenders.chosen(["abacus"])


def test_networks_have_names_of_their_own() -> None:
    assert len({n.name for n in NETWORKS}) == len({n.title for n in NETWORKS}) == len(NETWORKS)
    assert any(n.quick for n in NETWORKS)
