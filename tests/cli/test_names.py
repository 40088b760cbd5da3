"""Names from a model never reach C or a path raw (fault 16): models whose every name is hostile compile without a warning and
compute what they should."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path

import nets
import numpy as np
import pytest
from calling import Cli
from onnx import helper

HOSTILE = [
    "*/ int main(void) {", '"); system("touch owned"); ("', "a\nb", "\\", "??/", "%s%n", "/*", "//", "ä", "€ 😀", " ", "..",
    "../../up", "a/b/c", "1st", "A B", "A_B", "A-B", "a_b", "x" * 300, "int", "double", "restrict", "class", "template", "NULL",
    "I", "main", "errno", "stdin", "memcpy", "strlen", "time", "exp", "vf", "moecc_rt", "m", "f", "w", "status", "next",
    "count", "network", "arena_bytes", "unit_0", "init", "close", "all", "\x1b[31m", "#define x", "\\\n", "'", "`id`", "$(id)",
    "-o", "--help", "layer", "trunk", "con", "build", "MANIFEST",
]  # fmt: skip
NETWORKS = [
    "tasks", "time", "Options", "usage", "USAGE", "read", "main", "int", "moecc", "y0", "Tensor", "a b", "9", "λ", "blocks",
    "vit", "x" * 100, "o", "m", "in", "call", "Network",
]  # fmt: skip
FLAGS = ["-std=gnu99", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fsyntax-only"]


def check_c(folder: Path) -> None:
    """No warning from gcc, and from clang where it is; the header is C++, too."""
    flags = (folder / "Makefile").read_text().split("TARGET_FLAGS := ")[1].split("\n")[0].split()
    sources = [str(p) for p in sorted(folder.glob("*.c"))]
    for compiler in ("gcc", "clang", "clang-19"):
        if shutil.which(compiler):
            done = subprocess.run([compiler, *FLAGS, *flags, *sources], capture_output=True, text=True, cwd=folder, check=False)
            assert done.returncode == 0, done.stderr[:3000]
    [header] = [p for p in folder.glob("*.h") if (folder / f"{p.stem}_internal.h").exists()]
    if shutil.which("g++"):
        line = ["g++", "-Wall", "-Wextra", "-fsyntax-only", "-x", "c++", header.name]
        done = subprocess.run(line, capture_output=True, text=True, cwd=folder, check=False)
        assert done.returncode == 0, done.stderr[:3000]


def check_files(cli: Cli, folder: Path) -> None:
    for path in folder.iterdir():
        assert path.name.replace("_", "").replace(".", "").isalnum(), path.name
        assert path.name.isascii()
    assert not list(cli.place.rglob("owned"))
    json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_values_and_nodes(cli: Cli) -> None:
    """A chain of nodes that are not fused, each named after one of them, as are its scope and its result."""
    nodes, last, expected = [], "the input*/", nets.X.astype(np.float64)
    weights = []
    for i, name in enumerate(HOSTILE):
        weight = 0.3 * nets.noise(i, 8, 8)
        weights.append(nets.constant(f"{name} weights", weight))
        nodes.append(helper.make_node("MatMul", [last, f"{name} weights"], [f"/{name}/{name}"], name=f"/{name}/{name}"))
        last = f"/{name}/{name}"
        expected = expected @ weight
        if i % 5 == 4:
            nodes.append(helper.make_node("Erf", [last], [f"{name} erf"], name=f"{name} erf"))
            last = f"{name} erf"
            expected = np.vectorize(math.erf)(expected)
    nodes.append(helper.make_node("Neg", [last], ['out"*/\n'], name="end"))
    io = [nets.value("the input*/", (2, 8))], [nets.value('out"*/\n', (2, 8))]
    path = cli.save(nets.model(nodes, *io, weights), "hostile net*")
    for weights_mode in ("file", "embed"):
        cli.fine("compile", path, "-o", "out", "--weights", weights_mode)
        check_files(cli, cli.place / "out")
        check_c(cli.place / "out")
    nets.write_set(cli.place, 0, [nets.X], [(-expected).astype(np.float32)])
    found = json.loads(cli.fine("verify", path, cli.place, "--engine", "tcc", "--json"))
    assert (found["outputs"], found["wrong"]) == (1, 0)
    assert found["sets"][0]["outputs"][0]["output"] == 'out"*/\n'
    np.save(cli.place / "x.npy", nets.X)
    cli.fine("run", path, "--input", "the input*/=x.npy", "-o", "results", "--engine", "tcc")
    [written] = (cli.place / "results").iterdir()
    assert written.name == "out____.npy"
    assert np.allclose(np.load(written), -expected, atol=1e-5)


def test_inputs_outputs_and_tasks(cli: Cli) -> None:
    """Thirty of them are inputs, outputs and tasks of one network; colliding ones are told apart."""
    names = HOSTILE[:30]
    inputs = [nets.value(f"{name}", (2, 8)) for name in names]
    nodes = [helper.make_node("Neg", [name], [f"{name}'s result"], name=name) for name in names]
    outputs = [nets.value(f"{name}'s result", (2, 8)) for name in names]
    path = cli.save(nets.model(nodes, inputs, outputs), "int")
    cli.fine("compile", path, "-o", "out")
    check_files(cli, cli.place / "out")
    check_c(cli.place / "out")
    data = [nets.noise(i, 2, 8) for i in range(len(names))]
    nets.write_set(cli.place, 0, data, [-x for x in data])
    found = json.loads(cli.fine("verify", path, cli.place, "--engine", "tcc", "--json"))
    assert (found["outputs"], found["wrong"]) == (len(names), 0)
    about = json.loads(cli.fine("inspect", path, "--json"))
    assert [t["name"] for t in about["tasks"]] == [f"{name}'s result" for name in names]


@pytest.mark.parametrize("name", NETWORKS)
def test_names_of_the_network(cli: Cli, name: str) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["/blocks/a"], name="/blocks/MatMul"),
        helper.make_node("Erf", ["/blocks/a"], ["y"], name="/blocks/Erf"),
    ]
    io = [nets.value("x", (2, 8))], [nets.value("y", (2, 8))]
    path = cli.save(nets.model(nodes, *io, [nets.constant("w", nets.noise(2, 8, 8))]), name)
    cli.fine("compile", path, "-o", "out")
    check_files(cli, cli.place / "out")
    check_c(cli.place / "out")
    header = {p.name for p in (cli.place / "out").glob("*.h")}
    assert ("vit.h" in header) == (name == "vit"), "a good name stays"
    cli.fine("bench", "out", "--engine", "tcc", "--runs", "1")
    cli.fine("compile", path, "-o", "named", "--name", f"{name}*/")
    check_c(cli.place / "named")


def test_invalid_utf8(cli: Cli) -> None:
    """protobuf lets it through; JSON must not have it."""
    proto = nets.relu()
    proto.graph.node[0].name = "n"
    data = proto.SerializeToString().replace(b"\x0a\x01x", b"\x0a\x01\xff").replace(b"\x12\x01y", b"\x12\x01\xfe")
    data = data.replace(b"\x0a\x01y", b"\x0a\x01\xfe")
    path = cli.place / "bytes.onnx"
    path.write_bytes(data)
    done = cli("inspect", path, "--json")
    if done.returncode == 0:
        json.loads(done.stdout)
        cli.fine("compile", path, "-o", "out")
        json.loads((cli.place / "out" / "report.json").read_text(encoding="utf-8"))
    else:
        assert done.returncode == 1
        assert "UTF-8" in done.stderr


def test_names_that_meet_in_paths(cli: Cli) -> None:
    """Outputs whose file names would be the same, or differ in case alone."""
    names = ["a/b", "a_b", "a:b", "A_b", "a b"]
    nodes = [helper.make_node("Mul", ["x", f"k{i}"], [name]) for i, name in enumerate(names)]
    constants = [nets.constant(f"k{i}", np.array(float(i), np.float32)) for i in range(len(names))]
    path = cli.save(nets.model(nodes, [nets.value("x", (2, 8))], [nets.value(name, (2, 8)) for name in names], constants))
    np.save(cli.place / "x.npy", nets.X)
    cli.fine("run", path, "--input", "x=x.npy", "-o", "results", "--engine", "tcc")
    found = sorted(float((np.load(p) / nets.X).mean().round()) for p in (cli.place / "results").iterdir())
    assert found == [0, 1, 2, 3, 4]
