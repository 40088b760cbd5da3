"""Times networks whose weights are streamed through two buffers: what loading and computing take alone, one after the other
and overlapped, against the best schedule there is; memory; tasks in turn.

    python -m bench streaming [run]    measures, prints tables, and writes streaming.json
    python -m bench streaming show     prints the tables of streaming.json once more
    python -m bench streaming docs     rewrites the figures in docs/streaming.md, between its two markers
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from bench.contenders import Settings, cores
from bench.folders import ROOT
from bench.measure import say
from bench.options import common, names
from bench.process import ContenderError
from bench.results import write
from bench.streaming import build, measure, report, results
from bench.streaming.networks import NETWORKS, Network, prepare

SOURCES = ("direct", "loader")
DOCUMENT = Path("docs/streaming.md")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench streaming", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=("run", "show", "docs"), default="run")
    parser.add_argument("--quick", action="store_true", help="two small networks and few rounds, to try it")
    parser.add_argument("--sources", metavar="A,B", help=f"only these of {', '.join(SOURCES)}")
    parser.add_argument("--prepare", action="store_true", help="make and compile the networks, and measure nothing")
    note = "; its file system's storage is measured"
    common(parser, (n.name for n in NETWORKS), "1,2; quick: 1", "15; quick: 1", "bench/streaming", note)
    return parser.parse_args(arguments)


def chosen(options: argparse.Namespace) -> list[Network]:
    wanted = names(options.networks, (n.name for n in NETWORKS), "network")
    return [n for n in NETWORKS if (n.name in wanted if wanted else n.quick or not options.quick)]


class Bench:
    def __init__(self, options: argparse.Namespace, compiler: str, processor: str) -> None:
        folder = options.folder.resolve()
        self.settings = Settings(options.moecc.resolve(), folder, compiler, options.target)
        self.networks = folder / "networks"
        self.logs = folder / "logs"
        for made in (self.networks, self.logs):
            made.mkdir(parents=True, exist_ok=True)
        self.file = folder / "streaming.json"
        self.sources = names(options.sources, SOURCES, "source") or list(SOURCES)
        self.threads = [int(n) for n in names(options.threads, "12345678", "number of threads")]
        self.threads = self.threads or ([1] if options.quick else [n for n in (1, 2) if n <= cores()])
        least = 2 if options.quick else 3
        self.effort = measure.Effort(options.seconds or (1.0 if options.quick else 15.0), least)
        self.found = results.Results({"processor": processor, "cores": cores(), "load": f"{os.getloadavg()[0]:.1f}"})

    def built(self, network: Network, mode: str = "stream") -> build.Built:
        return build.build(self.settings, prepare(network, self.networks), mode, *network.compiled)

    def batches(self, network: Network) -> None:
        built = self.built(network)
        if network.tasks > 1:
            return
        for threads in self.threads:
            say(f"{network.title}, {threads} thread{'s' if threads > 1 else ''}")
            batch = measure.measure(network, built, threads, self.sources, self.effort, self.logs)
            self.found.batches.append(batch)
            print(report.batch_text(batch), end="\n\n", flush=True)
            write(self.found, self.file)

    def plan(self, network: Network) -> None:
        """What the compiler plans, and what the first streaming process took."""
        plan = measure.plan(network, self.built(network))
        batch = next((b for b in self.found.batches if b.network == network.name and b.threads == 1), None)
        case = next((c for c in batch.cases if c.memory), None) if batch else None
        if case:
            plan.anonymous, plan.peak = case.memory["RssAnon"], case.memory["VmHWM"]
        self.found.plans.append(plan)

    def limited(self, network: Network) -> None:
        built = self.built(network)
        for source in [*self.sources, "map", "resident"]:
            say(f"{network.title}, {source}, in a quarter of its pack")
            self.found.limited.append(measure.in_little_memory(network, built, source, self.effort.seconds / 5, self.logs))

    def switch(self, network: Network) -> None:
        for source in self.sources:
            say(f"{network.title}, {source}: switching tasks")
            try:
                switch = measure.switching(network, self.built(network), source, self.effort.seconds, self.logs)
            except ContenderError as failure:
                say(f"  {failure}")
                continue
            self.found.switches.append(switch)

    def modes(self, network: Network) -> None:
        say(f"{network.title}: loaded, mapped and embedded")
        pair = (self.built(network), self.built(network, "embed"))
        self.found.modes += measure.modes(network, *pair, self.effort.seconds, self.logs)

    def run(self, wanted: list[Network]) -> None:
        for network in wanted:
            self.batches(network)
        for network in wanted:
            if network.family:
                self.plan(network)
            if network.limited:
                self.limited(network)
            if network.tasks > 1:
                self.switch(network)
            if network.modes:
                self.modes(network)
            write(self.found, self.file)
        speeds = sorted(speed for batch in self.found.batches for speed in batch.storage)
        if speeds:
            self.found.machine["storage_MB_s"] = round(speeds[len(speeds) // 2] / 1e6)
        write(self.found, self.file)

    def prepare(self, wanted: list[Network]) -> None:
        for network in wanted:
            say(f"{network.title}: its files")
            self.built(network)
            if network.modes:
                self.built(network, "embed")


def main(arguments: list[str], compiler: str, processor: str) -> int:
    options = parse(arguments)
    if options.command != "run":
        found = results.read(options.folder / "streaming.json")
        if options.command == "show":
            print(report.text(found))
        else:
            report.rewrite(ROOT / DOCUMENT, found)
        return 0
    bench = Bench(options, options.cc or compiler, processor)
    wanted = chosen(options)
    try:
        bench.prepare(wanted)
        began = time.monotonic()
        if not options.prepare:
            bench.run(wanted)
    except (ContenderError, subprocess.CalledProcessError) as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    if not options.prepare:
        print(report.text(bench.found))
        say(f"{(time.monotonic() - began) / 60:.1f} minutes; {bench.file}")
    return 0
