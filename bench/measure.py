"""Measuring: every contender loads the same network in a process of its own and is checked; then all take turns, round by
round, so that what slows the machine slows all of them."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.contenders import PEAK_FLOPS, Contender, Program, Settings, build_peak
from bench.networks import Files
from bench.process import ContenderError, Process
from bench.report import error_text
from bench.results import Batch, Row, Switch, spread

LOADING = 300  # seconds that loading, or the first call, may take
CALLING = 120  # and any other turn
TURN = 0.12  # seconds of calls in a turn, at least one call
SLOW = 6  # so many times slower than the fastest: a few rounds are enough
SLOW_ROUNDS = 2
PAUSE = 0.05  # between turns, for threads that spin after a call: onnxruntime's do so for some 30 ms


@dataclass(frozen=True)
class Plan:
    seconds: float = 10.0  # for the rounds of one network on one number of threads
    least: int = 5  # rounds
    most: int = 25


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


@dataclass
class Player:
    """A contender that is loaded, and its row."""

    row: Row
    process: Process
    task: str
    call_s: float

    def calls(self) -> int:
        return max(1, min(20, int(TURN / self.call_s)))

    def turn_s(self) -> float:
        return self.call_s * (self.calls() + 1) + PAUSE

    def turn(self) -> None:
        time.sleep(PAUSE)
        self.process.numbers(f"run 1 {self.task}", CALLING)  # warms the caches up after the others
        times = self.process.numbers(f"run {self.calls()} {self.task}", CALLING)
        self.row.ms.append(statistics.median(times))
        self.call_s = max(self.call_s, self.row.ms[-1] / 1e3)  # a machine that others use may slow down


def largest_error(folder: Path, files: Files) -> float | None:
    """Over an output's largest value; None where something is no number."""
    worst = 0.0
    for name, want in files.arrays("expected").items():
        got = np.load(folder / f"{name}.npy").reshape(want.shape)
        error = float(np.abs(got - want).max() / np.abs(want).max())
        if not np.isfinite(error):
            return None
        worst = max(worst, error)
    return worst


def start(program: Program, files: Files, threads: int, row: Row, stack: ExitStack, logs: Path) -> Player:
    """Loads, calls once, and checks what comes out."""
    name = f"{files.network.name}-{row.contender}-{row.form}.log".replace(" ", "_")
    process = stack.enter_context(Process([*program.command, str(threads)], threads, logs / name))
    task = "all" if len(program.facts.get("tasks", [])) > 1 else ""
    (row.load_ms,) = process.numbers("load", LOADING)
    (row.first_ms,) = process.numbers(f"run 1 {task}", LOADING)
    with tempfile.TemporaryDirectory() as folder:
        process.ask(f"outputs {folder}", CALLING)
        row.error = largest_error(Path(folder), files)
    again = process.numbers(f"run 1 {task}", CALLING)
    if again[0] < 1e3:
        again = process.numbers(f"run 2 {task}", CALLING)
    row.disk, row.facts = program.disk, program.facts
    return Player(row, process, task, statistics.median(again) / 1e3)


def better(a: Player, b: Player) -> bool:
    """Exact ones first, then the faster."""
    return (not a.row.exact, a.call_s) < (not b.row.exact, b.call_s)


def enter(
    contender: Contender, files: Files, threads: int, settings: Settings, forms: list[str], stack: ExitStack
) -> tuple[Row, Player | None]:
    """The contender in the best of these forms."""
    best: Player | None = None
    tried: dict[str, str] = {}
    logs = settings.work / "logs"
    logs.mkdir(exist_ok=True)
    for form in forms:
        row = Row(contender.name, contender.ours, form)
        own = ExitStack()
        try:
            program = contender.build(settings, files, form)
            player = start(program, files, threads, row, own, logs)
        except ContenderError as failure:
            own.close()
            tried[form] = str(failure)
            continue
        tried[form] = f"{player.call_s * 1e3:.4g} ms, error {error_text(row.error)}"
        if best is None or better(player, best):
            if best is not None:
                best.process.__exit__(None, None, None)
            best = player
            stack.push(own)
        else:
            own.close()
    if best is None:
        why = "; ".join(f"{form}: {text}" for form, text in tried.items())
        return Row(contender.name, contender.ours, failure=why or "no form of this network is for it"), None
    best.row.tried = {form: text for form, text in tried.items() if form != best.row.form}
    return best.row, best


def forms_of(contender: Contender, files: Files) -> list[str]:
    if contender.forms == ("module",):
        return ["module"]
    return [form for form in contender.forms if files.form(form).exists()]


class Machine:
    """The machine's own limits, measured in turn with the contenders."""

    def __init__(self, settings: Settings, threads: int, size: int, stack: ExitStack) -> None:
        self.size = size
        command = [*build_peak(settings).command, str(threads), str(size)]
        self.process = stack.enter_context(Process(command, threads, settings.work / "logs" / "peak.log"))
        self.process.ask("load", LOADING)
        self.threads = threads

    def turn(self, batch: Batch) -> None:
        self.process.numbers("run 1 fma", CALLING)
        batch.peak.append(PEAK_FLOPS * self.threads / (min(self.process.numbers("run 2 fma", CALLING)) / 1e3))
        batch.read.append(self.size / (min(self.process.numbers("run 2 read", CALLING)) / 1e3))


def rounds(players: list[Player], machine: Machine, batch: Batch, plan: Plan) -> None:
    """The order moves on by one each round. Those that are far behind leave after a few rounds."""
    fastest = min(p.call_s for p in players)
    slow = [p for p in players if p.call_s > SLOW * fastest]
    steady = [p for p in players if p not in slow]
    count = int(plan.seconds / (sum(p.turn_s() for p in steady) + 0.2))
    for number in range(max(plan.least, min(plan.most, count))):
        machine.turn(batch)
        first = number % max(len(steady), 1)
        for player in [*steady[first:], *steady[:first], *(slow if number < SLOW_ROUNDS else [])]:
            try:
                player.turn()
            except ContenderError as failure:
                player.row.failure = str(failure)
                steady, slow = ([p for p in group if p is not player] for group in (steady, slow))


def switching(player: Player, plan: Plan) -> Switch:
    """Runs of four calls of each task in turn: the first follows a switch, the last two are steady."""
    tasks: list[str] = player.row.facts["tasks"]
    first: list[float] = []
    second: list[float] = []
    steady: dict[str, list[float]] = {task: [] for task in tasks}
    together = []
    end = time.monotonic() + plan.seconds
    while time.monotonic() < end or len(first) < len(tasks):
        for task in tasks:
            times = player.process.numbers(f"run 4 {task}", CALLING)
            last = statistics.median(times[2:])
            steady[task].append(last)
            first.append(times[0] / last)
            second.append(times[1] / last)
        together.append(player.process.numbers("run 2 all", CALLING)[1])
    single = sum(statistics.median(times) for times in steady.values())
    return Switch(spread(first), spread(second), statistics.median(together), single)


def base_memory(process: Process) -> int:
    """What Python takes without the runtime; a program in C has no such thing."""
    try:
        return int(process.ask("base", CALLING)[0])
    except ContenderError:
        return 0


def measure(
    files: Files, threads: int, contenders: list[Contender], settings: Settings, plan: Plan, forms: dict[str, str]
) -> Batch:
    """`forms` remembers each contender's best form from one number of threads to the next."""
    network = files.network
    batch = Batch(network.name, network.title, threads, files.flops)
    with ExitStack() as stack:
        players = []
        for contender in contenders:
            if not contender.wanted(network) or threads > contender.threads:
                continue
            known = forms.get(contender.name)
            began = time.monotonic()
            row, player = enter(contender, files, threads, settings, [known] if known else forms_of(contender, files), stack)
            batch.rows.append(row)
            took = time.monotonic() - began
            if player is None:
                say(f"  {row.contender}: {row.failure} ({took:.0f} s)")
                continue
            forms[contender.name] = row.form
            players.append(player)
            say(f"  {row.contender}, {row.form}: {player.call_s * 1e3:.4g} ms, error {error_text(row.error)} ({took:.0f} s)")
        if not players:
            return batch
        weights = max((int(p.row.facts.get("weight_bytes", 0)) for p in players), default=0)
        rounds(players, Machine(settings, threads, max(weights, 1 << 24), stack), batch, plan)
        for player in players:
            if not player.row.failure:
                (peak,) = player.process.numbers("memory", CALLING)
                player.row.memory = int(peak) - base_memory(player.process)
        ours = next((p for p in players if p.row.contender == "moecc" and not p.row.failure), None)
        if network.switching and ours and len(ours.row.facts["tasks"]) > 1 and threads == 1:
            batch.switch = switching(ours, plan)
    return batch
