"""moecc tune, and --tune: tiles change how long a network takes, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import nets
import numpy as np
import onnx
import pytest
from calling import Cli
from onnx import helper

ROWS, DEPTH, COLUMNS = 100, 24, 40
TARGET = "x86-64-v2"  # four floats in a vector: tiles of up to 14 by 16
TILES = "moecc-tiles 1\ntarget {target}\n# a comment\n\nmatmul 100 40 24 {tile} {block} # another\n"


@pytest.fixture
def product(cli: Cli) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"], name="product"),
        helper.make_node("Sigmoid", ["xw"], ["y"], name="sigmoid"),
    ]
    np.save(cli.place / "x.npy", nets.noise(1, ROWS, DEPTH))
    weights = [nets.constant("w", nets.noise(2, DEPTH, COLUMNS))]
    return cli.save(nets.model(nodes, [nets.value("x", (ROWS, DEPTH))], [nets.value("y", (ROWS, COLUMNS))], weights))


def kernels(folder: Path) -> list[str]:
    return [s["kernel"] for s in json.loads((folder / "report.json").read_text())["tasks"][0]["schedule"]]


def result(cli: Cli, folder: str, *options: str) -> bytes:
    cli.fine("run", folder, "--input", "x=x.npy", "-o", "results", *options)
    return (cli.place / "results" / "y.npy").read_bytes()


@pytest.mark.parametrize(("tile", "block"), [("1x4", 100), ("3x16", 10), ("5x8", 400), ("14x12", 1600)])
def test_tiles_change_no_bit(cli: Cli, product: Path, tile: str, block: int) -> None:
    (cli.place / "tiles").write_text(TILES.format(target=TARGET, tile=tile, block=block))
    cli.fine("compile", product, "-o", "plain", "--target", TARGET)
    cli.fine("compile", product, "-o", "tuned", "--target", TARGET, "--tune", "tiles")
    assert f"matmul_f32_{tile}_sigmoid" in kernels(cli.place / "tuned")
    assert f"matmul_f32_{tile}_sigmoid" not in kernels(cli.place / "plain")
    for threads in ("1", "3"):
        assert result(cli, "plain") == result(cli, "tuned", "--threads", threads)


def convolution() -> onnx.ModelProto:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])
    weights = [nets.constant("w", nets.noise(3, 20, 6, 3, 3))]
    return nets.model([node], [nets.value("x", (1, 6, 9, 10))], [nets.value("y", (1, 20, 9, 10))], weights)


def batches() -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "z"], ["y"], name="product")
    inputs = [nets.value("x", (3, 10, 12)), nets.value("z", (3, 12, 20))]
    return nets.model([node], inputs, [nets.value("y", (3, 10, 20))])


OTHERS = {  # models, and what stands for them in the file
    "conv": (convolution, ["conv 90 20 54"]),
    "bmm": (batches, ["bmm 10 20 12"]),
    "moe": (nets.moe, ["moe_expert_in 3 16 8", "moe_expert_out 3 8 16", "matmul 6 4 8"]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_tiles_of_other_kernels(cli: Cli, name: str) -> None:
    make, places = OTHERS[name]
    model = cli.save(make())
    results = []
    for tile in ("", "1x8", "5x4", "9x12"):
        options = ["--tune", "tiles"] if tile else []
        lines = [f"{place} {tile} 50\n" for place in places]
        (cli.place / "tiles").write_text(f"moecc-tiles 1\ntarget {TARGET}\n{''.join(lines)}")
        cli.fine("compile", model, "-o", "out", "--target", TARGET, *options)
        emitted = (cli.place / "out" / "net_kernels.c").read_text()
        for place in places if tile else []:
            assert f"{place.split()[0]}_f32_{tile}" in emitted
        cli.fine("build", "out")
        driver = [str(cli.place / "out" / "build" / "net_main"), "--noise", "--quiet", "-o", str(cli.place / "results")]
        subprocess.run(driver, check=True)
        results.append((cli.place / "results" / "y.npy").read_bytes())
    assert results[1:] == results[:1] * 3


def test_other_shapes_keep_the_models_tile(cli: Cli, product: Path) -> None:
    (cli.place / "tiles").write_text(TILES.format(target=TARGET, tile="3x16", block=100).replace("matmul 100", "matmul 101"))
    cli.fine("compile", product, "-o", "plain", "--target", TARGET)
    cli.fine("compile", product, "-o", "tuned", "--target", TARGET, "--tune", "tiles")
    assert kernels(cli.place / "tuned") == kernels(cli.place / "plain")


BAD = [
    (TILES.format(target="aarch64", tile="3x16", block=100), rf"measured for the target aarch64, and this is for {TARGET}"),
    (TILES.format(target=TARGET, tile="3x15", block=100), r"line 5: no kernel can be made with a tile of 3x15"),
    (TILES.format(target=TARGET, tile="15x16", block=100), r"line 5: no kernel can be made with a tile of 15x16"),
    (TILES.format(target=TARGET, tile="3x16", block=0), r"blocks of 0 percent"),
    (TILES.format(target=TARGET, tile="3", block=100), r"line 5: not \"kernel rows columns depth"),
    (TILES.format(target=TARGET, tile="3x16", block="100 more"), r"line 5: not"),
    (TILES.format(target=TARGET, tile="3x16", block=100).replace("tiles 1", "tiles 2"), r"version 2 is not read"),
    ("moecc-tiles 1\n", r"cut off"),
    ("", r"no file of moecc tune"),
    ("\0\1\2", r"no file of moecc tune"),
    ("something else\n", r"no file of moecc tune"),
    (None, r"No such file"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[m for _, m in BAD])
def test_bad_files(cli: Cli, product: Path, text: str | None, message: str) -> None:
    if text is not None:
        (cli.place / "tiles").write_text(text)
    said = cli.fails(1, "compile", product, "-o", "out", "--target", TARGET, "--tune", "tiles")
    assert re.search(message, said), said
    assert "tiles" in said
    assert not (cli.place / "out").exists()


def test_tune(cli: Cli, product: Path) -> None:
    text = cli.fine("tune", product, "-o", "tiles", "--target", TARGET)
    assert re.search(rf"^matmul +{ROWS}x{COLUMNS}x{DEPTH} ", text, re.M)
    lines = [line for line in (cli.place / "tiles").read_text().splitlines() if not line.startswith("#")]
    assert lines[:2] == ["moecc-tiles 1", f"target {TARGET}"]
    assert len(lines) == 3
    tile = re.fullmatch(rf"matmul {ROWS} {COLUMNS} {DEPTH} (\d+x\d+) \d+", lines[2])
    assert tile
    cli.fine("compile", product, "-o", "plain", "--target", TARGET)
    cli.fine("compile", product, "-o", "tuned", "--target", TARGET, "--tune", "tiles")
    assert f"matmul_f32_{tile[1]}_sigmoid" in kernels(cli.place / "tuned")
    assert result(cli, "plain") == result(cli, "tuned")
    assert sorted(p.name for p in cli.place.glob("tiles*")) == ["tiles"]


def test_tune_fails_cleanly(cli: Cli, product: Path, dense: Path) -> None:
    assert "-o FILE" in cli.fails(2, "tune", product)
    assert "is a folder" in cli.fails(2, "tune", product, "-o", ".")
    assert "cannot write" in cli.fails(3, "tune", dense, "-o", "none/tiles", "--target", TARGET)
