"""Other machines: cross-compiled and emulated, as strict C99 without vectors, and for each generation of x86-64."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest
from emitted import Compile, assert_close, data_set

NETWORKS = ["mobilenetv2-op20", "m3vit-odd-moe"]
# Target, its compiler, and what runs its programs here.
CROSS = [
    ("aarch64", "aarch64-linux-gnu-gcc", "qemu-aarch64-static"),
    ("riscv64", "riscv64-linux-gnu-gcc", "qemu-riscv64-static"),
]
# Target, and what the processor must have.
LEVELS = [("x86-64-v2", {"sse4_2"}), ("x86-64-v3", {"avx2", "fma"}), ("x86-64-v4", {"avx512f", "avx512bw", "avx512vl"})]
C99 = "-O1 -std=c99 -pedantic -Wall -Wextra -Wconversion -Werror"


def processor_flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.machine() == "x86_64" else []
    return {flag for line in lines if line.startswith("flags") for flag in line.split(":")[1].split()}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("target", "compiler", "emulator"), CROSS, ids=[c[0] for c in CROSS])
def test_emulated(
    compiled: Compile, networks: Path, tmp_path: Path, network: str, target: str, compiler: str, emulator: str
) -> None:
    """Built by the Makefile, whose compiler is the target's, and run by qemu."""
    missing = [tool for tool in (compiler, emulator) if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed")
    emitted = compiled(network, "--target", target)
    built = emitted.make(tmp_path / "b", CFLAGS="-O2 -Wall -Wextra -Wconversion -Werror", LDFLAGS="-static")
    built.launcher = [emulator]
    inputs, expected = data_set(networks / network)
    found = built(tmp_path / "out", inputs, "--threads", "2")
    assert found
    for output, array in found.items():
        assert_close(array, expected[output])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("compiler", [c for c in ("gcc", "clang-19") if shutil.which(c)])
def test_strict_c99(compiled: Compile, networks: Path, tmp_path: Path, network: str, compiler: str) -> None:
    """For any machine: no vector extensions, nothing that is not in the standard."""
    emitted = compiled(network, "--target", "generic")
    assert not emitted.make_flags()
    assert not any("vector_size" in f.read_text() for f in emitted.path.glob("*.[ch]"))
    built = emitted.make(tmp_path / "b", CC=compiler, CFLAGS=C99)
    inputs, expected = data_set(networks / network)
    for output, array in built(tmp_path / "out", inputs).items():
        assert_close(array, expected[output])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("target", "needs"), LEVELS, ids=[level[0] for level in LEVELS])
def test_x86_levels(compiled: Compile, networks: Path, tmp_path: Path, network: str, target: str, needs: set[str]) -> None:
    if not needs <= processor_flags():
        pytest.skip(f"this processor is not {target}")
    compiler = "clang-19" if network == NETWORKS[0] and shutil.which("clang-19") else "gcc"
    built = compiled(network, "--target", target).make(tmp_path / "b", CC=compiler)
    inputs, expected = data_set(networks / network)
    for output, array in built(tmp_path / "out", inputs).items():
        assert_close(array, expected[output])
