"""moecc run, bench and build, with models and with folders that were compiled before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import nets
import numpy as np
import pytest
from calling import Cli
from PIL import Image

BENCH_KEYS = ["model", "task", "threads", "runs", "median_ms", "min_ms", "max_ms", "peak_rss_bytes"]
LEFT, RIGHT = nets.tasks_results(nets.X, 0)[0], nets.tasks_results(nets.X, 1)[1]


@pytest.fixture
def x(cli: Cli) -> Path:
    path = cli.place / "x.npy"
    np.save(path, nets.X)
    return path


def near(path: Path, wanted: nets.Array) -> bool:
    return bool(np.allclose(np.load(path), wanted, atol=1e-6))


# ---- run ----


@pytest.mark.parametrize("engine", ["tcc", "cc"])
def test_run_a_model(cli: Cli, dense: Path, x: Path, engine: str) -> None:
    done = cli("run", dense, "--input", f"x={x}", "-o", "results", "--engine", engine)
    assert (done.returncode, done.stderr) == (0, "")
    assert "dense" in done.stdout, "the time"
    assert near(cli.place / "results" / "y.npy", nets.dense_result(nets.X))


def test_run_reads_pb(cli: Cli, dense: Path) -> None:
    nets.write_tensor(cli.place / "x.pb", nets.X)
    assert cli.fine("run", dense, "--input", "x=x.pb", "-o", "results", "--engine", "tcc", "--quiet") == ""
    assert near(cli.place / "results" / "y.npy", nets.dense_result(nets.X))
    (cli.place / "x.pb").write_bytes(b"\xff\xff")
    assert "x.pb" in cli.fails(1, "run", dense, "--input", "x=x.pb", "-o", "results", "--engine", "tcc")


def test_run_tasks_of_a_model(cli: Cli, tasks: Path, x: Path) -> None:
    cli.fine("run", tasks, "--input", f"x={x}", "-o", "both", "--engine", "tcc")
    assert near(cli.place / "both" / "a.npy", LEFT)
    assert near(cli.place / "both" / "b.npy", RIGHT)
    cli.fine("run", tasks, "--input", f"x={x}", "-o", "one", "--engine", "tcc", "--task", "right")
    assert [p.name for p in (cli.place / "one").iterdir()] == ["b.npy"]
    cli.fine("run", tasks, "--input", f"x={x}", "-o", "all", "--engine", "tcc", "--task", "all")
    assert near(cli.place / "all" / "a.npy", LEFT)
    assert near(cli.place / "all" / "b.npy", RIGHT)


@pytest.mark.parametrize("weights", ["file", "embed", "stream"])
def test_run_a_folder(cli: Cli, tasks: Path, x: Path, weights: str) -> None:
    cli.fine("compile", tasks, "-o", "out", "--weights", weights)
    for engine in ("tcc", "cc"):
        cli.fine("run", "out", "--input", f"x={x}", "-o", f"results-{engine}", "--engine", engine)
        assert near(cli.place / f"results-{engine}" / "a.npy", LEFT)
        assert near(cli.place / f"results-{engine}" / "b.npy", RIGHT)
    cli.fine("run", "out", "--input", f"x={x}", "-o", "one", "--engine", "tcc", "--task", "left")
    assert [p.name for p in (cli.place / "one").iterdir()] == ["a.npy"]
    cli.fine("run", "out", "--input", f"x={x}", "-o", "two", "--engine", "tcc", "--task", "left,right")
    assert {p.name for p in (cli.place / "two").iterdir()} == {"a.npy", "b.npy"}


def test_run_a_folder_takes_no_pictures(cli: Cli, dense: Path) -> None:
    cli.fine("compile", dense, "-o", "out")
    Image.new("RGB", (8, 2)).save(cli.place / "x.png")
    assert "for pictures give the model" in cli.fails(2, "run", "out", "--input", "x=x.png", "-o", "results", "--engine", "tcc")
    np.save(cli.place / "x.npy", nets.X)
    assert "no task has the input" in cli.fails(2, "run", "out", "--input", "z=x.npy", "-o", "results", "--engine", "tcc")


def test_pictures_only_where_they_fit(cli: Cli, dense: Path) -> None:
    Image.new("RGB", (8, 2)).save(cli.place / "x.png")
    assert "cannot be a picture" in cli.fails(1, "run", dense, "--input", "x=x.png", "-o", "results", "--engine", "tcc")


def test_a_folder_of_which_the_weights_are_gone_or_damaged(cli: Cli, dense: Path, x: Path) -> None:
    cli.fine("compile", dense, "-o", "out")
    pack = cli.place / "out" / "dense_weights.bin"
    data = bytearray(pack.read_bytes())
    data[-100] ^= 1
    pack.write_bytes(data)
    assert cli.fails(1, "run", "out", "--input", f"x={x}", "-o", "results", "--engine", "tcc")
    pack.unlink()
    assert "dense_weights.bin" in cli.fails(1, "run", "out", "--input", f"x={x}", "-o", "results", "--engine", "tcc")


def test_a_strangers_file_in_the_folder_is_let_be(cli: Cli, dense: Path, x: Path) -> None:
    cli.fine("compile", dense, "-o", "out")
    (cli.place / "out" / "mine.c").write_text("this is no C")
    cli.fine("run", "out", "--input", f"x={x}", "-o", "results", "--engine", "tcc")
    cli.fine("run", "out", "--input", f"x={x}", "-o", "results", "--engine", "cc")


def test_the_cache_is_keyed_by_content(cli: Cli, dense: Path, x: Path) -> None:
    home = cli.place / "cache"
    for _ in range(2):
        cli.fine("run", dense, "--input", f"x={x}", "-o", "results", XDG_CACHE_HOME=str(home))
        assert len(list((home / "moecc").iterdir())) == 1
    other = nets.dense()
    other.graph.node[2].op_type = "Tanh"
    cli.fine("run", cli.save(other, "dense"), "--input", f"x={x}", "-o", "results", XDG_CACHE_HOME=str(home))
    assert len(list((home / "moecc").iterdir())) == 2
    assert near(cli.place / "results" / "y.npy", np.tanh(nets.X @ nets.noise(2, 8, 16) + nets.noise(3, 16)))


def test_no_compiler(cli: Cli, dense: Path, x: Path) -> None:
    nothing = cli.place / "bin"
    nothing.mkdir()
    message = cli.fails(3, "run", dense, "--input", f"x={x}", "-o", "results", PATH=str(nothing))
    assert "install the package clang or gcc" in message
    cli.fine("run", dense, "--input", f"x={x}", "-o", "results", "--engine", "tcc", PATH=str(nothing))


def test_a_compiler_that_fails(cli: Cli, dense: Path, x: Path) -> None:
    bad = cli.place / "bad-cc"
    bad.write_text('#!/bin/sh\n[ "$1" = --version ] && exec echo bad $$\necho "it is broken" >&2\nexit 1\n')
    bad.chmod(0o755)
    assert "it is broken" in cli.fails(3, "run", dense, "--input", f"x={x}", "-o", "results", CC=str(bad))


# ---- bench ----


def test_bench_json(cli: Cli, dense: Path) -> None:
    lines = cli.fine("bench", dense, "--engine", "tcc", "--json", "--runs", "3", "--threads", "2").splitlines()
    assert len(lines) == 1
    found = json.loads(lines[0])
    assert list(found) == BENCH_KEYS
    assert (found["model"], found["task"], found["threads"], found["runs"]) == ("dense", "dense", 2, 3)
    assert 0 < found["min_ms"] <= found["median_ms"] <= found["max_ms"]
    assert found["peak_rss_bytes"] > 1 << 20


def test_bench_tasks(cli: Cli, tasks: Path) -> None:
    cli.fine("compile", tasks, "-o", "out")
    for what in (tasks, "out"):

        def benched(*options: str, what: object = what) -> list[str]:
            lines = cli.fine("bench", what, "--engine", "tcc", "--json", "--runs", "1", *options).splitlines()
            return [json.loads(line)["task"] for line in lines]

        assert benched() == ["left", "right"]
        assert benched("--task", "right") == ["right"]
        assert benched("--task", "all") == ["left", "right", "all"]
        assert benched("--task", "right,left") == ["right", "left"]
    dense = cli.save(nets.dense(), "dense")
    lines = cli.fine("bench", dense, "--engine", "tcc", "--json", "--runs", "1", "--task", "all").splitlines()
    assert [json.loads(line)["task"] for line in lines] == ["dense"]


def test_bench_counts_memory_of_the_network_alone(cli: Cli, dense: Path) -> None:
    """Not that of the compiler that started it, which maps the model and much else."""
    cli.fine("compile", dense, "-o", "out")
    model, folder = (json.loads(cli.fine("bench", what, "--json", "--runs", "1"))["peak_rss_bytes"] for what in (dense, "out"))
    assert abs(model - folder) < 1 << 20


# ---- build ----


def test_build(cli: Cli, tasks: Path, x: Path) -> None:
    cli.fine("compile", tasks, "-o", "out")
    said = cli.fine("build", "out")
    assert "out/build/libtasks_net.a: " in said
    assert "out/build/tasks_net_main: " in said
    program = cli.place / "out" / "build" / "tasks_net_main"
    subprocess.run([program, "--input", f"x={x}", "-o", cli.place / "results", "--quiet"], check=True)
    assert near(cli.place / "results" / "a.npy", LEFT)
    assert cli.fine("build", "out") == said, "again, with nothing to do"


@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-gcc"), reason="no cross compiler")
def test_build_for_another_machine(cli: Cli, dense: Path, x: Path) -> None:
    cli.fine("compile", dense, "-o", "out", "--target", "aarch64")
    assert "built with aarch64-linux-gnu-gcc" in cli.fine("build", "out", CC="gcc")
    assert (cli.place / "out" / "build" / "dense_main").read_bytes()[18:20] == b"\xb7\x00", "EM_AARCH64"
    message = cli.fails(3, "run", "out", "--input", f"x={x}", "-o", "results")
    assert "another machine" in message
    cli.fine("run", "out", "--input", f"x={x}", "-o", "results", "--engine", "tcc")
    assert near(cli.place / "results" / "y.npy", nets.dense_result(nets.X))


def test_build_says_what_is_missing(cli: Cli, dense: Path) -> None:
    for target, package in (("aarch64", "gcc-aarch64-linux-gnu"), ("riscv64", "gcc-riscv64-linux-gnu")):
        cli.fine("compile", dense, "-o", target, "--target", target)
        assert f"install the package {package}" in cli.fails(3, "build", target, PATH="/nowhere")
    cli.fine("compile", dense, "-o", "here")
    assert "install the package" in cli.fails(3, "build", "here", PATH="/nowhere")
    only_gcc = cli.place / "bin"
    only_gcc.mkdir()
    os.symlink(str(shutil.which("gcc")), only_gcc / "gcc")
    assert "install the package make" in cli.fails(3, "build", "here", PATH=str(only_gcc))


def test_build_shows_the_compilers_messages(cli: Cli, dense: Path) -> None:
    cli.fine("compile", dense, "-o", "out")
    (cli.place / "out" / "dense.c").write_text("this is no C\n")
    assert "dense.c" in cli.fails(3, "build", "out")


WAYS = ("memory", "map", "loader", "file", "direct", "copy")


def test_streaming_is_the_drivers_default(cli: Cli, dense: Path) -> None:
    for weights, wanted in (("stream", "(or --stream) (default)"), ("file", "loaded first (or --load) (default)")):
        cli.fine("compile", dense, "-o", weights, "--weights", weights)
        cli.fine("build", weights)
        program = cli.place / weights / "build" / "dense_main"
        text = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
        assert wanted in text
        for way in ("--load", "--stream", "--map", *(f"--source {w}" for w in WAYS)):
            subprocess.run([program, "--noise", "--quiet", *way.split()], check=True)
        assert subprocess.run([program, "--noise", "--load", "--map"], capture_output=True, check=False).returncode == 2
