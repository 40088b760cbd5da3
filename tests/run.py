"""Runs every suite and ends with one line: how many tests passed and failed.

    tests/run.py BUILD [SUITE ...]      suites: ctest pytest lint (default: all)
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON_SUITES = ["tests", "training/tests"]


def run(command: list[str], log: Path) -> tuple[int, str]:
    """Runs a command, showing and keeping what it prints."""
    print("+", " ".join(command), flush=True)
    lines: list[str] = []
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            file.write(line)
            if not re.match(r"^\d+: \[ +(RUN|OK) ", line):
                print(line, end="", flush=True)
    return process.wait(), "".join(lines)


def count_ctest(text: str) -> tuple[int, int]:
    """Single tests of cmocka programs and of those that end with 'N passed, N failed'."""
    passed = sum(int(n) for n in re.findall(r"\[  PASSED  \] (\d+) test", text))
    failed = sum(int(n) for n in re.findall(r"\[  FAILED  \] (\d+) test", text))
    for ok, bad in re.findall(r"(\d+) passed, (\d+) failed", text):
        passed, failed = passed + int(ok), failed + int(bad)
    return passed, failed


def count_pytest(text: str) -> tuple[int, int]:
    last = text.strip().rsplit("\n", 1)[-1]
    passed = re.search(r"(\d+) passed", last)
    failed = sum(int(n) for n in re.findall(r"(\d+) (?:failed|error)", last))
    return int(passed.group(1)) if passed else 0, failed


def suite_ctest(build: Path) -> tuple[int, int]:
    status, text = run(["ctest", "--test-dir", str(build), "-V", "-j", "2"], build / "ctest.log")
    passed, failed = count_ctest(text)
    return passed, failed or int(status != 0)


def suite_pytest(build: Path) -> tuple[int, int]:
    existing = [suite for suite in PYTHON_SUITES if (ROOT / suite).exists()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=10", f"--moecc={build / 'moecc'}"]
    status, text = run([*command, *existing], build / "pytest.log")
    passed, failed = count_pytest(text)
    return passed, failed or int(status != 0)


def suite_lint(build: Path) -> tuple[int, int]:
    """Formatting, static analysis and types; one test each."""
    files = subprocess.run(["git", "ls-files", "*.c", "*.h"], capture_output=True, text=True, cwd=ROOT, check=True).stdout.split()
    sources = [f for f in files if not f.startswith(("codegen_templates/", "tests/data/"))]
    checks = {
        "clang-format": ["clang-format-19", "--dry-run", "--Werror", *sources],
        "ruff": [sys.executable, "-m", "ruff", "check", "."],
        "mypy": [sys.executable, "-m", "mypy"],
    }
    passed = failed = 0
    for name, command in checks.items():
        if shutil.which(command[0]) is None:
            print(f"{name}: not installed, skipped")
            continue
        status, _ = run(command, build / f"{name}.log")
        passed, failed = passed + (status == 0), failed + (status != 0)
    return passed, failed


SUITES = {"ctest": suite_ctest, "lint": suite_lint, "pytest": suite_pytest}


def main() -> int:
    build = Path(sys.argv[1]).resolve()
    passed = failed = 0
    for name in sys.argv[2:] or SUITES:
        start = time.monotonic()
        ok, bad = SUITES[name](build)
        print(f"== {name}: {ok} passed, {bad} failed in {time.monotonic() - start:.0f} s", flush=True)
        passed, failed = passed + ok, failed + bad
    if passed == 0:
        failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
