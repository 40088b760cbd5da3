#!/usr/bin/env python3
"""Runs suites and ends with one line that says how many tests passed and failed.

    tests/run.py BUILD [SUITE ...]

BUILD is a folder made with cmake. Without suites, all of ./build.sh test. A tool or a package that is missing is a failure,
and so is a suite that ran nothing: a test that was not run has not passed. Logs are in BUILD/test-logs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JOBS = min(os.cpu_count() or 1, 8)
SLOWEST = 12

# Each of these is wanted by some test; of names with | between them one will do.
TOOLS = ["cmake", "ninja", "make", "valgrind", "gcc", "clang-19|clang", "tcc", "aarch64-linux-gnu-gcc", "riscv64-linux-gnu-gcc",
         "qemu-aarch64-static", "qemu-riscv64-static", "clang-format-19|clang-format", "clang-tidy-19|clang-tidy"]  # fmt: skip


@dataclass
class Result:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    times: list[tuple[float, str]] = field(default_factory=list)  # seconds, test

    def add(self, other: Result) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.times += other.times


def logs(build: Path) -> Path:
    folder = build / "test-logs"
    folder.mkdir(exist_ok=True)
    return folder


def show(command: list[str], **options: object) -> int:
    """Runs a command that speaks for itself."""
    print("+", " ".join(c.replace(f"{ROOT}/", "") for c in command), flush=True)
    return subprocess.run(command, cwd=options.pop("cwd", ROOT), check=False, **options).returncode  # type: ignore[call-overload]


def find_tool(names: str) -> str | None:
    return next((name for name in names.split("|") if shutil.which(name)), None)


# ---- suites ----


def suite_tools(build: Path) -> Result:
    """Everything that tests would otherwise have to do without."""
    result = Result()
    for names in TOOLS:
        found = find_tool(names) is not None
        if not found:
            print(f"missing: {names.replace('|', ' or ')}")
        result.add(Result(passed=int(found), failed=int(not found)))
    return result


def single_tests(text: str) -> tuple[int, int]:
    """Of a program's output: cmocka's, or one that ends with "N passed, N failed"."""
    passed = sum(int(n) for n in re.findall(r"\[  PASSED  \] (\d+) test", text))
    failed = sum(int(n) for n in re.findall(r"\[  FAILED  \] (\d+) test", text))
    for ok, bad in re.findall(r"(\d+) passed, (\d+) failed", text):
        passed, failed = passed + int(ok), failed + int(bad)
    return passed, failed


def suite_ctest(build: Path, *options: str) -> Result:
    """The programs of tests/CMakeLists.txt; their single tests are what counts."""
    report = logs(build) / "ctest.xml"
    report.unlink(missing_ok=True)
    command = ["ctest", "--test-dir", str(build), "-j", str(JOBS), "--output-on-failure", "--no-tests=error", "--quiet"]
    command += ["--output-junit", str(report), "--test-output-size-passed", "10000000", "--test-output-size-failed", "10000000"]
    status = show([*command, *options])
    result = Result()
    for case in ET.parse(report).getroot().iter("testcase") if report.exists() else []:
        output = case.findtext("system-out") or ""
        passed, failed = single_tests(output)
        bad = case.get("status") == "fail"
        if bad:
            print(f"---- {case.get('name')} fails\n{output[-20000:]}", flush=True)
        result.add(Result(passed, max(failed, int(bad)), times=[(float(case.get("time", 0)), f"ctest {case.get('name')}")]))
    result.failed = max(result.failed, int(status != 0))
    return result


def run_pytest(build: Path, name: str, arguments: list[str], cwd: Path = ROOT) -> Result:
    report = logs(build) / f"{name}.xml"
    report.unlink(missing_ok=True)
    environment = {**os.environ, "MOECC": str(build / "moecc"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--color=no", f"--junitxml={report}"]
    status = show([*command, *arguments], cwd=cwd, env=environment)
    result = Result()
    for suite in ET.parse(report).getroot().iter("testsuite") if report.exists() else []:
        count = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
        bad = count["failures"] + count["errors"]
        result.add(Result(count["tests"] - bad - count["skipped"], bad, count["skipped"]))
        cases = [
            (float(case.get("time", 0)), f"{case.get('classname')}::{case.get('name')}") for case in suite.iter("testcase")
        ]
        result.times += cases
    result.failed = max(result.failed, int(status != 0))
    return result


def python_suite(folder: str, *, parallel: bool = False) -> Callable[[Path], Result]:
    """The tests of a folder. In parallel where they start programs and wait for them."""

    def suite(build: Path) -> Result:
        workers = ["-n", str(JOBS), "--dist", "worksteal"] if parallel else []
        return run_pytest(build, folder.replace("/", "-"), [*workers, f"--moecc={build / 'moecc'}", folder])

    return suite


def suite_training(build: Path) -> Result:
    return run_pytest(build, "training", ["tests"], cwd=ROOT / "training")


def suite_networks(build: Path) -> Result:
    """Makes the networks of the end-to-end tests, so that several of these can go on at once."""
    maker = [sys.executable, str(ROOT / "tests/models/make_models.py"), "--out", str(build / "test-models")]
    status = show(maker, stderr=subprocess.DEVNULL)
    return Result(passed=int(status == 0), failed=int(status != 0))


def sources(*folders: str) -> list[str]:
    files = (f for folder in folders for f in (ROOT / folder).rglob("*.[ch]"))
    return sorted(str(f.relative_to(ROOT)) for f in files)


def format_command() -> list[str]:
    files = sources("compiler", "frontends", "runtime", "tests", "codegen_templates", "examples", "bench")
    templates = "codegen_templates/driver/"  # C with holes in it
    return [find_tool("clang-format-19|clang-format") or "clang-format", "--dry-run", "--Werror",
            *(f for f in files if not f.startswith(templates))]  # fmt: skip


def run_tidy(build: Path) -> int:
    """clang-tidy on each file, a few at a time."""
    tidy = find_tool("clang-tidy-19|clang-tidy") or "clang-tidy"
    files = [f for f in sources("compiler", "frontends", "runtime") if f.endswith(".c")]

    def check(file: str) -> int:
        # The analyzer follows the runtime's unrolled loops for many minutes; gcc's and valgrind's eyes are on it instead.
        less = ["--checks=-clang-analyzer-*"] if file.startswith("runtime/") else []
        quiet = ["--quiet", "--extra-arg=-Wno-invalid-feature-combination"]  # clang's own idea of -march=native
        command = [tidy, "-p", str(build), *quiet, *less, file]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        if done.returncode:
            print(done.stdout, end="", flush=True)
        return done.returncode

    with ThreadPoolExecutor(JOBS) as pool:
        return max(pool.map(check, files))


def suite_lint(build: Path) -> Result:
    """Formatting, Python's checks and types; one test each."""
    python = [sys.executable, "-m"]
    cache = str(logs(build) / "mypy-cache")
    checks: dict[str, Callable[[], int]] = {
        "clang-format": lambda: show(format_command(), stdout=subprocess.DEVNULL),
        "ruff check": lambda: show([*python, "ruff", "check", "--no-cache", "--quiet", "."]),
        "ruff format": lambda: show([*python, "ruff", "format", "--no-cache", "--check", "--quiet", "."]),
        "mypy": lambda: show([*python, "mypy", "--cache-dir", cache]),
        "mypy training": lambda: show([*python, "mypy", "--cache-dir", cache], cwd=ROOT / "training"),
    }
    result = Result()
    for name, check in checks.items():
        start = time.monotonic()
        bad = check() != 0
        print(f"{name}: {'complaints' if bad else 'clean'}", flush=True)
        result.add(Result(int(not bad), int(bad), times=[(time.monotonic() - start, f"lint {name}")]))
    return result


def suite_tidy(build: Path) -> Result:
    """clang-tidy on the compiler, the frontends and the runtime."""
    bad = run_tidy(build) != 0
    return Result(int(not bad), int(bad))


def suite_threads(build: Path) -> Result:
    """The runtime's thread pool and loader under ThreadSanitizer, in a build of their own beside this one."""
    return suite_ctest(build.with_name(build.name.split("-")[0] + "-threads"), "-R", "^test_runtime")


SUITES: dict[str, Callable[[Path], Result]] = {
    "tools": suite_tools,
    "lint": suite_lint,
    "tidy": suite_tidy,
    "ctest": suite_ctest,
    "passes": python_suite("tests/passes"),
    "operators": python_suite("tests/operators"),
    "models": python_suite("tests/models"),
    "training": suite_training,
    "bench": python_suite("tests/bench"),
    "cli": python_suite("tests/cli", parallel=True),
    "faults": python_suite("tests/faults"),
    "networks": suite_networks,
    "e2e": python_suite("tests/e2e", parallel=True),
}
OTHER_SUITES: dict[str, Callable[[Path], Result]] = {  # of ./build.sh sanitize
    "threads": suite_threads,
    "sanitize": python_suite("tests/sanitize", parallel=True),
}


def set_sanitizers() -> None:
    """A complaint gets a status that no program has otherwise, and the place it comes from."""
    for name, more in {
        "ASAN": ":detect_stack_use_after_return=1",
        "UBSAN": ":print_stacktrace=1",
        "LSAN": "",
        "TSAN": "",
    }.items():
        os.environ.setdefault(f"{name}_OPTIONS", f"exitcode=99{more}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs suites; the last line says how many tests passed and failed.")
    parser.add_argument("build", type=Path)
    parser.add_argument("suites", nargs="*", choices=[[], *SUITES, *OTHER_SUITES], metavar="SUITE")
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    set_sanitizers()
    total, lines = Result(), []
    for name in arguments.suites or SUITES:
        print(f"==== {name}", flush=True)
        start = time.monotonic()
        result = {**SUITES, **OTHER_SUITES}[name](build)
        if result.passed + result.failed == 0:
            print(f"{name} ran nothing")
            result.failed = 1
        skipped = f", {result.skipped} skipped" if result.skipped else ""
        lines.append(f"{name:10} {result.passed:6} passed, {result.failed} failed{skipped} in {time.monotonic() - start:.0f} s")
        total.add(result)
    print("==== slowest")
    for seconds, test in sorted(total.times, reverse=True)[:SLOWEST]:
        print(f"{seconds:7.1f} s  {test}")
    print("==== summary", *lines, sep="\n")
    print(f"{total.passed} passed, {total.failed} failed")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
