#!/usr/bin/env python3
"""Runs the compiler on hostile models: python3 run.py MOECC [NAME…].

Each case of make_faults.py must end with its exit status and message, name the model's file in it, and leave nothing
behind: no output folder, no temporary, no file beside them. Exit status 1 if any does not.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SECONDS = 120


def run(moecc: str, command: str, model: Path, args: list[str], out: Path) -> subprocess.CompletedProcess[str]:
    line = [moecc, command, str(model), *args]
    if command == "compile":
        line += ["-o", str(out)]
    return subprocess.run(line, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)


def faults(case: dict[str, Any], command: str, moecc: str, folder: Path) -> list[str]:
    """What is wrong with how a case ended."""
    model = folder / case["model"]
    with tempfile.TemporaryDirectory(prefix="moecc-fault-") as place:
        try:
            done = run(moecc, command, model, case["args"], Path(place) / "out")
        except subprocess.TimeoutExpired:
            return [f"still running after {SECONDS} s"]
        left = sorted(p.name for p in Path(place).iterdir())
    found = []
    if done.returncode != case["status"]:
        found.append(f"status {done.returncode}, expected {case['status']}")
    if not re.search(case["message"], done.stderr):
        found.append(f"no message matches {case['message']}")
    if case["status"] and model.name not in done.stderr:
        found.append("the message does not name the file")
    if case["status"] and left:
        found.append(f"left behind: {', '.join(left)}")
    if "Sanitizer" in done.stderr or "runtime error" in done.stderr:
        found.append("a sanitizer complained")
    return [*found, f"stderr: {done.stderr[-600:].strip()}"] if found else []


def main() -> int:
    moecc, wanted = sys.argv[1], set(sys.argv[2:])
    ran = failed = 0
    with tempfile.TemporaryDirectory(prefix="moecc-faults-") as place:
        folder = Path(place)
        maker = Path(__file__).with_name("make_faults.py")
        subprocess.run([sys.executable, str(maker), str(folder)], check=True, stdout=subprocess.DEVNULL)
        for case in json.loads((folder / "cases.json").read_text()):
            if wanted and case["name"] not in wanted:
                continue
            for command in case["commands"]:
                ran += 1
                found = faults(case, command, moecc, folder)
                failed += bool(found)
                if found:
                    print(f"FAIL {case['number']} {case['name']} ({command})", *found, sep="\n    ")
    print(f"{ran} runs, {failed} failed")
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
