"""What the command lines have in common."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from bench.folders import ROOT

BUILD = ROOT / "build"


def common(
    parser: argparse.ArgumentParser, networks: Iterable[str], threads: str, seconds: str, folder: str, note: str = ""
) -> None:
    """threads, seconds: their defaults, for the help; folder: below build/; note: on it."""
    parser.add_argument("--networks", metavar="A,B", help=f"only these of {', '.join(networks)}")
    parser.add_argument("--threads", metavar="N,M", help=f"numbers of threads (default: {threads})")
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help=f"for the rounds of a network on a number of threads (default: {seconds})",
    )
    parser.add_argument("--moecc", type=Path, default=BUILD / "moecc", help="the compiler (default: build/moecc)")
    parser.add_argument("--cc", help="for the emitted C (default: clang-19, clang or gcc)")
    parser.add_argument("--target", default="native", help="of the emitted C (default: native)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=BUILD / folder,
        help=f"for everything that is made (default: build/{folder}){note}",
    )


def split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def names(text: str | None, known: Iterable[str], what: str) -> list[str]:
    """Those of a list with commas, which must be known."""
    wanted, all_known = split(text), list(known)
    unknown = [name for name in wanted if name not in all_known]
    if unknown:
        raise SystemExit(f"bench: no {what} {', '.join(unknown)}; there are {', '.join(all_known)}")
    return wanted
