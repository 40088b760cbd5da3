"""The compiler itself under sanitizers, with whole networks: ./build.sh sanitize.

A complaint ends a run with a status of its own (tests/run.py), so that no expected failure hides it; and it is looked for in
what a run prints.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = [
    *(f"m3vit-plain-{form}" for form in ("moe", "dense", "routed", "function", "torch-routed")),
    "m3vit-conditioned-function",
    "m3vit-noisy-odd-routed",
    "m3vit-opset17-dense",
    "mixtral-op20",
    "qwen2moe-op18",
    *(f"{name}-op20" for name in ("swinv2", "convnext", "segformer", "clip", "resnet", "bert")),
    "gpt2-op18",
    "moe-swiglu-fc3",
    "qmoe-4-block-zero-points",
]


@pytest.fixture(scope="session")
def networks(generate: Callable[..., Path]) -> Path:
    return generate("--only", ",".join(NETWORKS))


def run(*command: str | Path, status: int = 0) -> str:
    """Runs a command that must end with a status, and without a complaint."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, errors="replace", check=False)
    said = done.stdout + done.stderr
    assert "Sanitizer" not in said, said
    assert "runtime error" not in said, said
    assert done.returncode == status, said
    return done.stdout


def test_sanitizer_is_there(moecc: Path) -> None:
    """This suite is worth nothing on another build."""
    assert b"__asan_init" in subprocess.run(["nm", "-D", moecc], capture_output=True, check=True).stdout


@pytest.mark.parametrize("name", NETWORKS)
def test_tcc(moecc: Path, networks: Path, name: str) -> None:
    assert " 0 wrong" in run(moecc, "verify", networks / name / "model.onnx", networks / name, "--engine", "tcc")


@pytest.mark.parametrize("name", ["m3vit-plain-dense", "mixtral-op20"])
def test_layers(moecc: Path, networks: Path, name: str) -> None:
    run(moecc, "verify", networks / name / "model.onnx", networks / name, "--engine", "tcc", "--layers")


@pytest.mark.parametrize("name", ["m3vit-plain-routed", "segformer-op20"])
def test_compiled(moecc: Path, networks: Path, name: str) -> None:
    assert " 0 wrong" in run(moecc, "verify", networks / name / "model.onnx", networks / name)


@pytest.mark.parametrize("name", NETWORKS)
def test_inspect(moecc: Path, networks: Path, name: str) -> None:
    model = networks / name / "model.onnx"
    assert run(moecc, "inspect", model)
    assert run(moecc, "inspect", model, "--json")
    assert run(moecc, "inspect", model, "--text")


@pytest.mark.parametrize("weights", ["file", "embed", "stream"])
def test_compile(moecc: Path, tmp_path: Path, weights: str) -> None:
    model = ROOT / "examples" / "nano" / "nano.onnx"
    run(moecc, "compile", model, "-o", tmp_path / "net", "--weights", weights)
    assert (tmp_path / "net" / "MANIFEST").exists()


def test_pictures(moecc: Path, tmp_path: Path) -> None:
    examples = ROOT / "examples"
    run(moecc, "run", examples / "nano" / "nano.onnx", "--input", f"image={examples / 'photo.jpg'}", "-o", tmp_path / "out")
    assert list((tmp_path / "out").glob("*.png"))


def test_ops(moecc: Path) -> None:
    assert "MatMul" in run(moecc, "ops")
    run(moecc, "ops", "--json")


def test_no_space(moecc: Path, tmp_path: Path) -> None:
    """Leaving in the middle of a write frees what it held."""
    if not Path("/dev/full").exists():
        pytest.fail("there is no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([moecc, "ops"], stdout=full, stderr=subprocess.PIPE, text=True, env=os.environ, check=False)
    assert done.returncode == 3
    assert "Sanitizer" not in done.stderr
