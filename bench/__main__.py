"""Times compiled networks and other runtimes in turn, on one machine in the same minutes.

    python -m bench [run]      measures, prints tables, and writes results.json and chart.svg
    python -m bench show       prints the tables of results.json once more
    python -m bench readme     rewrites the README's figures, between its two markers, from results.json
    python -m bench streaming  measures weights that are streamed (see python -m bench streaming --help)

`./build.sh bench` installs what it needs first. What the peers need is in bench/requirements.txt; one that is not installed
is left out, and the run says so.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from bench import chart, contenders, measure, networks, report, results
from bench.folders import ROOT
from bench.options import common, names, split
from bench.process import ContenderError
from bench.streaming import command as streaming

CHART = Path("docs/bench.svg")  # what the README shows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=("run", "show", "readme"), default="run")
    parser.add_argument("--quick", action="store_true", help="a few networks and rounds, to try it")
    parser.add_argument(
        "--contenders", metavar="A,B", help=f"moecc and these of {', '.join(c.name for c in contenders.CONTENDERS)}"
    )
    common(parser, (n.name for n in networks.NETWORKS), "1,2", "10; quick: 3", "bench")
    return parser.parse_args()


def chosen_networks(options: argparse.Namespace) -> list[networks.Network]:
    known = {n.name: n for n in networks.NETWORKS}
    wanted = names(options.networks, known, "network")
    if wanted:
        return [known[name] for name in wanted]
    if options.quick:  # and without those that take minutes to get ready
        return [replace(n, everyone=False) for n in networks.NETWORKS if n.quick]
    return networks.NETWORKS


def compiler(given: str | None) -> str:
    found = next((c for c in (given, "clang-19", "clang", "gcc") if c and shutil.which(c)), None)
    if found is None or (given and found != given):
        raise SystemExit(f"bench: there is no compiler {given or ''}")
    return found


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def installed(wanted: list[contenders.Contender]) -> tuple[list[contenders.Contender], dict[str, str]]:
    """Those that are, and their versions."""
    present, versions = [], {}
    for contender in wanted:
        version = contender.version() if contender.package else ""
        if version is None:
            measure.say(f"{contender.name} is left out: {contender.package} is not installed")
            continue
        present.append(contender)
        if version:
            versions[contender.package] = version
    return present, versions


def run(options: argparse.Namespace) -> results.Results:
    threads = [int(n) for n in split(options.threads)] or [n for n in (1, 2) if n <= contenders.cores()]
    plan = measure.Plan(options.seconds or 3.0, 3) if options.quick else measure.Plan(options.seconds or 10.0)
    folder = options.folder.resolve()
    settings = contenders.Settings(options.moecc.resolve(), folder / "built", compiler(options.cc), options.target)
    settings.work.mkdir(parents=True, exist_ok=True)
    wanted, versions = installed(contenders.chosen(split(options.contenders)))
    cc = subprocess.run([settings.cc, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    machine = {"processor": processor(), "cores": contenders.cores(), "compiler": cc, "target": settings.target}
    found = results.Results(machine, versions)
    selected = chosen_networks(options)
    for place, network in enumerate(selected, 1):
        measure.say(f"{network.name} ({place} of {len(selected)}): its files")
        files = networks.prepare(network, folder / "networks")
        forms: dict[str, str] = {}
        for count in threads:
            measure.say(f"{network.name}, {count} thread{'s' if count > 1 else ''}")
            batch = measure.measure(files, count, wanted, settings, plan, forms)
            found.batches.append(batch)
            print(report.batch_text(batch), end="\n\n", flush=True)
            peaks = [statistics.median(b.peak) for b in found.batches if b.threads == 1 and b.peak]
            if peaks:
                found.machine["peak_gflops"] = round(statistics.median(peaks) / 1e9, 1)
            results.write(found, folder / "results.json")
    return found


def main() -> int:
    if sys.argv[1:2] == ["streaming"]:
        return streaming.main(sys.argv[2:], compiler(None), processor())
    options = parse()
    file = options.folder / "results.json"
    if options.command == "run":
        began = time.monotonic()
        try:
            found = run(options)
        except (ContenderError, subprocess.CalledProcessError) as failure:
            print(f"bench: {failure}", file=sys.stderr)
            return 1
        (options.folder / "chart.svg").write_text(chart.svg(found))
        print(report.aligned(report.summary(found), ""))
        measure.say(f"{(time.monotonic() - began) / 60:.1f} minutes; {file} and chart.svg beside it")
        return 0
    found = results.read(file)
    if options.command == "show":
        print(report.text(found))
        return 0
    (ROOT / CHART).write_text(chart.svg(found))
    report.rewrite(ROOT / "README.md", found, str(CHART))
    return 0


if __name__ == "__main__":
    sys.exit(main())
