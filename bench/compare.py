"""Times a compiled network against onnxruntime, in turn, on the same machine in the same minutes.

    bench/compare.py MOECC MODEL.onnx [--peer FORM.onnx] [--task T] [--threads N] [--rounds N] [--runs N] [--json]

MODEL is what moecc compiles; the peer gets the same network in its own best form (--peer; MODEL by default). Each round
times `runs` calls of both; what counts is the ratio of the medians, round by round. The peer's outputs are compared with
ours first.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort


def feeds(session: ort.InferenceSession) -> dict[str, np.ndarray]:
    """Inputs of the driver's --noise: a linear congruential generator for float32, zeros for the rest."""
    result = {}
    for port in session.get_inputs():
        count = int(np.prod(port.shape))
        if port.type != "tensor(float)":
            result[port.name] = np.zeros(port.shape, np.int64)
            continue
        values = np.empty(count, np.float32)
        state = 1
        for i in range(count):
            state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
            values[i] = np.float32(state >> 8) / np.float32(16777216.0)
        result[port.name] = values.reshape(port.shape)
    return result


def peer_session(model: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def ours(command: list[str]) -> dict[str, dict[str, float]]:
    """Milliseconds per task, as the driver prints them."""
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return {row["task"]: row for row in map(json.loads, result.stdout.splitlines())}


def build(moecc: Path, model: Path, folder: Path, task: str | None) -> Path:
    chosen = ["--task", task] if task else []
    subprocess.run([str(moecc), "compile", str(model), "-o", str(folder), *chosen], check=True)
    subprocess.run(["make", "-s", "-C", str(folder), f"CC={os.environ.get('CC', 'clang-19')}"], check=True)
    return next((folder / "build").glob("*_main"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("moecc", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--task")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    session = peer_session(options.peer or options.model, options.threads)
    inputs = feeds(session)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "network"
        program = build(options.moecc, options.model, folder, options.task)
        command = [str(program), "--noise", "--threads", str(options.threads), "--json", "--runs", str(max(options.runs, 2))]
        ours([*command, "-o", temporary])
        names = [port.name for port in session.get_outputs()]
        worst = 0.0
        for name, expected in zip(names, session.run(names, inputs), strict=True):
            got = np.load(Path(temporary) / f"{name}.npy")
            worst = max(worst, float(np.abs(got - expected).max() / np.abs(expected).max()))
        ratios, mine, theirs = [], [], []
        for _ in range(options.rounds):
            a = sum(row["median_ms"] for row in ours(command).values())
            times = []
            for _ in range(options.runs):
                start = time.perf_counter()
                session.run(None, inputs)
                times.append((time.perf_counter() - start) * 1e3)
            b = statistics.median(times)
            mine.append(a)
            theirs.append(b)
            ratios.append(a / b)
    row = {
        "model": options.model.stem,
        "threads": options.threads,
        "moecc_ms": statistics.median(mine),
        "onnxruntime_ms": statistics.median(theirs),
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "largest_difference": worst,
    }
    if options.json:
        print(json.dumps(row))
    else:
        print(
            f"{row['model']}, {options.threads} thread(s): moecc {row['moecc_ms']:.1f} ms, "
            f"onnxruntime {row['onnxruntime_ms']:.1f} ms, "
            f"ratio {row['ratio_median']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f}); outputs within {worst:.1g}"
        )


if __name__ == "__main__":
    main()
