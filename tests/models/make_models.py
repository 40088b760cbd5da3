"""Writes the test networks, in the layout of ONNX's own tests.

    python make_models.py --out DIR               all of them, about 4 minutes
    python make_models.py --out DIR --quick       a few of each kind
    python make_models.py --out DIR --only 'm3vit-odd-*,qmoe-*'
    python make_models.py --out DIR --full vit m3vit-tiny    sizes used in practice
    python make_models.py --list                  their names
    python make_models.py --out DIR --ops         the operators of the transformer networks

Weights and inputs are random, from fixed seeds. Expected outputs are computed
in float64 and stored as float32. A network that is already there, made by the
same sources and versions, is left alone.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import hashlib
import importlib.metadata
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from testset import Network, write_network

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "onnx", "onnxscript", "transformers", "numpy")
STAMP = "made_by"


@dataclass(frozen=True)
class Group:
    """Networks that are made together, by one call."""

    names: tuple[str, ...]
    make: Callable[[], Iterable[tuple[str, Network]]]
    sources: tuple[str, ...]  # the files that decide what comes out


def transformer_groups(quick: bool, full: bool) -> Iterator[Group]:
    import transformer_nets as nets

    def make(arch: str, opset: int, name: str) -> Iterator[tuple[str, Network]]:
        yield name, nets.make(arch, opset, full)

    sources = ("testset", "weights", "transformer_nets")
    for arch, entry in nets.ARCHITECTURES.items():
        for opset in nets.OPSETS:
            name = f"{arch}-full" if full else f"{arch}-op{opset}"
            if full and (entry.full is None or opset != nets.OPSETS[-1]):
                continue
            if quick and (arch not in nets.QUICK or opset != nets.OPSETS[-1]):
                continue
            yield Group((name,), functools.partial(make, arch, opset, name), sources)


def m3vit_groups(quick: bool, full: bool) -> Iterator[Group]:
    import m3vit_nets as nets

    def make_full(preset: str) -> Iterator[tuple[str, Network]]:
        yield f"m3vit-{preset}", nets.make_full(preset)

    sources = ("testset", "weights", "m3vit_nets")
    if full:
        for preset in nets.FULL:
            yield Group((f"m3vit-{preset}",), functools.partial(make_full, preset), sources)
        return
    for name, case in nets.CASES.items():
        if case.quick or not quick:
            networks = tuple(f"m3vit-{name}-{form}" for form in case.forms)
            yield Group(networks, functools.partial(nets.make, name), sources)


def operator_groups() -> Iterator[Group]:
    import operator_nets as nets

    def make(name: str) -> Iterator[tuple[str, Network]]:
        yield name, nets.make(name)

    for name in nets.LAYERS:
        yield Group((name,), functools.partial(make, name), ("testset", "operator_nets"))


def extra_groups(quick: bool) -> Iterator[Group]:
    import extra_nets as nets

    def make(name: str) -> Iterator[tuple[str, Network]]:
        yield name, nets.make(name)

    for name in () if quick else nets.NETS:
        yield Group((name,), functools.partial(make, name), ("testset", "weights", "extra_nets"))


def all_groups(quick: bool, full: bool) -> list[Group]:
    groups = [*transformer_groups(quick, full), *m3vit_groups(quick, full)]
    return groups if full else [*groups, *operator_groups(), *extra_groups(quick)]


def stamp(group: Group) -> str:
    """Identifies the sources and versions a network is made with."""
    files = [HERE / f"{name}.py" for name in group.sources]
    files += sorted((HERE.parents[1] / "training" / "m3vit").glob("*.py"))
    digest = hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]
    versions = " ".join(f"{p}-{importlib.metadata.version(p)}" for p in PACKAGES)
    return f"{digest} {versions}\n"


def make_group(group: Group, wanted: set[str], out: Path) -> tuple[int, int]:
    """Makes what is wanted of a group. Returns how many were made and how many were there."""
    mark = stamp(group)
    missing = []
    for name in (n for n in group.names if n in wanted):
        note = out / name / STAMP
        if not note.exists() or note.read_text() != mark:
            missing.append(name)
    if missing:
        start = time.monotonic()
        for name, network in group.make():
            if name in missing:
                write_network(out / name, network)
                (out / name / STAMP).write_text(mark)
        print(f"{time.monotonic() - start:6.1f} s  {' '.join(missing)}", file=sys.stderr)
    return len(missing), len(wanted.intersection(group.names)) - len(missing)


def print_operators(out: Path, details: bool) -> None:
    """The union of (domain, operator) over the transformer networks in `out`."""
    import operators as ops

    names = [name for group in transformer_groups(quick=False, full=False) for name in group.names]
    absent = [name for name in names if not (out / name / "model.onnx").exists()]
    if absent:
        raise SystemExit(f"make_models.py: not in {out}: {', '.join(absent)}")
    uses = ops.operators((name, onnx.load(out / name / "model.onnx")) for name in names)
    for line in ops.lines(uses, details):
        print(line)
    print(f"{len(uses)} operators in {len(names)} networks", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the networks are written")
    parser.add_argument(
        "--only",
        metavar="PATTERN",
        default="*",
        help="names or shell patterns, with commas between them",
    )
    parser.add_argument("--quick", action="store_true", help="a few of each kind")
    parser.add_argument(
        "--full",
        nargs="+",
        metavar="NAME",
        default=[],
        help="make these at a size used in practice (all: every one)",
    )
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument(
        "--ops",
        nargs="?",
        const="names",
        choices=("names", "details"),
        help="print the operators of the transformer networks in DIR and stop",
    )
    arguments = parser.parse_args()
    if arguments.out is None and not arguments.list:
        parser.error("--out DIR is missing")
    if arguments.ops:
        print_operators(arguments.out, arguments.ops == "details")
        return 0

    torch.set_num_threads(1)
    groups = all_groups(arguments.quick, bool(arguments.full))
    names = [name for group in groups for name in group.names]
    if arguments.full:
        known = {name.removesuffix("-full"): name for name in names}
        asked = list(known) if arguments.full == ["all"] else arguments.full
        if unknown := [name for name in asked if name not in known]:
            parser.error(f"no full size of {', '.join(unknown)}; there are: {', '.join(known)}")
        wanted = {known[name] for name in asked}
    else:
        patterns = arguments.only.split(",")
        wanted = {n for n in names if any(fnmatch.fnmatchcase(n, p) for p in patterns)}
        if not wanted:
            parser.error(f"nothing is called {arguments.only}")
    if arguments.list:
        print("\n".join(name for name in names if name in wanted))
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    counts = [make_group(group, wanted, arguments.out) for group in groups]
    made, there = (sum(column) for column in zip(*counts, strict=True))
    print(f"{made} networks made, {there} were there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
