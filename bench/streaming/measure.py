"""Measuring a network: processes that hold it with weights in memory and through each source take turns, round by round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import CALLING, LOADING, say
from bench.process import ContenderError, Process
from bench.results import spread
from bench.streaming import simulate
from bench.streaming.build import Built
from bench.streaming.networks import Network
from bench.streaming.results import Batch, Best, Case, Layers, Limited, Mode, Plan, Round, Switch
from bench.streaming.storage import drop_cache, limited, storage_speed

TURN = 0.06  # seconds of calls in a turn, at least one
STALLS = 8  # of which the record keeps the longest
CASES = (("direct", "direct", False), ("buffered, cold", "loader", True), ("buffered, warm", "loader", False))


@dataclass(frozen=True)
class Effort:
    seconds: float = 15.0  # for the rounds of a network on one number of threads
    least: int = 3  # rounds
    most: int = 9

    def goes_on(self, rounds: int, seconds: float) -> bool:
        """Two rounds in any case; large networks on a slow machine do not get all that are wanted."""
        wanted = rounds < self.least and seconds < 4 * self.seconds
        return rounds < self.most and (rounds < 2 or wanted or seconds < self.seconds)


class Player:
    """A process with the network, whose calls are timed and looked into."""

    def __init__(
        self,
        built: Built,
        source: str,
        threads: int,
        logs: Path,
        stack: ExitStack,
        enter: Callable[[], None] | None = None,
    ) -> None:
        self.events_file = logs / f"events-{source}.txt"
        self.task = built.tasks[0]
        command = built.command(source, threads)
        self.process = stack.enter_context(Process(command, threads, logs / f"{source}.log", enter))
        (self.open_ms,) = self.process.numbers("open", LOADING)
        (self.first_ms,) = self.process.numbers(f"run 1 {self.task}", LOADING)

    def set(self, **values: bool) -> None:
        for name, value in values.items():
            self.process.ask(f"set {name} {int(value)}", CALLING)

    def events(self) -> simulate.Call:
        self.process.ask(f"events {self.events_file}", CALLING)
        return simulate.read(self.events_file)

    def answer(self) -> str:
        return self.process.ask("answer", CALLING)[0]

    def memory(self) -> dict[str, int]:
        words = self.process.ask("memory", CALLING)
        return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}

    def calls(self, ms: float) -> int:
        return max(1, min(5, int(TURN * 1e3 / max(ms, 0.01))))

    def turn(self, command: str, ms: float) -> tuple[float, simulate.Call]:
        """The median of some calls, and of these the last one's events."""
        what = f" {self.task}" if command == "run" else ""
        times = self.process.numbers(f"{command} {self.calls(ms)}{what}", CALLING)
        return statistics.median(times), self.events()


@dataclass
class Entry:
    """A case that takes part, and of each of its rounds the overlapped call and the times of units."""

    case: Case
    player: Player
    overlapped: list[simulate.Call] = field(default_factory=list)
    loads: list[list[float]] = field(default_factory=list)
    heads: list[float] = field(default_factory=list)
    parts: list[list[float]] = field(default_factory=list)
    checks: list[list[float]] = field(default_factory=list)


def layers_of(overlapped: simulate.Call, loads: list[float], compute: list[float]) -> Layers | None:
    """compute: of each take, with its checksum."""
    spans = simulate.expert_spans(overlapped.takes)
    if not spans:
        return None
    numbers = simulate.loads_of_takes(overlapped)
    return Layers(
        sum(loads[n] for span in spans for n in numbers[span.first : span.last + 1] if n is not None),
        sum(sum(compute[span.first : span.last + 1]) for span in spans),
        sum(simulate.span_time(overlapped, span) for span in spans),
    )


def best_of_layers(overlapped: simulate.Call, steps: list[simulate.Step]) -> Layers | None:
    spans = simulate.expert_spans(overlapped.takes)
    layers = [[s for s in steps if span.first <= s.take <= span.last] for span in spans]
    own = [step for layer in layers for step in layer]
    if not own:
        return None
    times = sum(simulate.ideal(0.0, layer) for layer in layers)
    return Layers(sum(s.load for s in own), sum(s.check + s.compute for s in own), times)


def best_of(entry: Entry, overlapped: simulate.Call) -> Best:
    """Medians over the rounds: in the best schedule the longer of two times counts, so it grows with their noise."""
    loads, checks = simulate.medians(entry.loads), simulate.medians(entry.checks)
    steps = simulate.steps_of(overlapped, loads, simulate.medians(entry.parts), checks)
    heads, parts = zip(*(simulate.computing(call) for call in entry.overlapped), strict=True)
    own = simulate.steps_of(overlapped, loads, simulate.medians(parts), checks)
    head = statistics.median(entry.heads)
    return Best(
        simulate.ideal(head, steps),
        simulate.ideal(head, steps, causal=True),
        simulate.ideal(statistics.median(heads), own),
        best_of_layers(overlapped, steps),
    )


def one_round(entry: Entry, resident_ms: float, resident: simulate.Call, order: int) -> Round:
    """Loads, serial, overlapped and without checksums, in an order that moves on."""
    player, case = entry.player, entry.case
    ms: dict[str, float] = {}
    calls: dict[str, simulate.Call] = {}

    def take(kind: str) -> None:
        player.set(serial=kind == "serial", check=kind != "trusted")
        ms[kind], calls[kind] = player.turn("run", player.first_ms)

    player.set(cold=case.cold)
    if not case.cold and case.source != "direct":
        player.process.numbers(f"run 1 {player.task}", CALLING)  # warms the system's cache
    kinds = ["serial", "overlapped", "trusted"]
    for place in range(len(kinds)):
        kind = kinds[(place + order) % len(kinds)]
        take(kind)
        if kind == "overlapped":  # a replay reads what the call before it read
            ms["load"], calls["load"] = player.turn("replay", player.first_ms)
    overlapped = calls["overlapped"]
    head, parts = simulate.computing(resident)
    if len(parts) != len(overlapped.takes):
        raise ContenderError("the streamed call takes other units than the resident one")
    loads = [load.alone for load in calls["load"].loads]
    checks = [t.rest for t in calls["serial"].takes]
    entry.overlapped.append(overlapped)
    entry.loads.append(loads)
    entry.heads.append(head)
    entry.parts.append(parts)
    entry.checks.append(checks)
    compute = [part + check for part, check in zip(parts, checks, strict=True)]
    own_head, own_parts = simulate.computing(overlapped)
    beside = simulate.steps_of(
        overlapped, simulate.loads_beside(overlapped, loads), own_parts, [t.rest for t in overlapped.takes]
    )
    best_layers = best_of_layers(overlapped, beside)
    return Round(
        load=ms["load"],
        resident=resident_ms,
        serial=ms["serial"],
        overlapped=ms["overlapped"],
        trusted=ms["trusted"],
        checks=sum(checks),
        stalled=sum(t.waiting for t in overlapped.takes),
        interrupted=overlapped.interrupted,
        beside=simulate.ideal(own_head, beside),
        layers=layers_of(overlapped, loads, compute),
        layers_beside=best_layers.overlapped if best_layers else 0.0,
    )


def enter(
    built: Built, name: str, source: str, cold: bool, threads: int, logs: Path, want: str, stack: ExitStack
) -> Entry | Case:
    """The case, opened and its answer compared; or with what went wrong."""
    case = Case(name, source, cold)
    try:
        player = Player(built, source, threads, logs, stack)
    except ContenderError as failure:
        case.failure = str(failure)
        return case
    case.same = player.answer() == want
    return Entry(case, player)


def finish(entry: Entry) -> None:
    """What is said of a case beyond its rounds."""
    case, player = entry.case, entry.player
    overlapped = sorted(entry.overlapped, key=lambda call: call.ms)[len(entry.overlapped) // 2]
    case.best = best_of(entry, overlapped)
    found = simulate.stalls(overlapped, simulate.medians(entry.loads))
    case.stalls, case.reasons = found[:STALLS], simulate.by_reason(found)
    case.bytes, case.loads = sum(load.bytes for load in overlapped.loads), len(overlapped.loads)
    player.set(serial=False, check=True, cold=case.cold)
    before = player.memory()["read_bytes"]
    player.process.numbers(f"run 1 {player.task}", CALLING)
    case.memory = player.memory()
    case.from_storage = case.memory["read_bytes"] - before


def measure(network: Network, built: Built, threads: int, sources: list[str], effort: Effort, logs: Path) -> Batch:
    batch = Batch(network.name, network.title, threads, built.pack_bytes)
    with ExitStack() as stack:
        resident = Player(built, "resident", threads, logs, stack)
        want = resident.answer()
        players: dict[str, Player] = {}
        entries: list[Entry] = []
        for name, source, cold in CASES:
            if source not in sources:
                continue
            made = enter(built, name, source, cold, threads, logs, want, stack)
            if isinstance(made, Case):
                say(f"  {name}: {made.failure}")
                batch.cases.append(made)
                continue
            players[name] = made.player
            batch.cases.append(made.case)
            entries.append(made)
        began = time.monotonic()
        number = 0
        while effort.goes_on(number, time.monotonic() - began):
            batch.storage.append(storage_speed(built.weights))
            first = number % max(len(entries), 1)
            for entry in entries[first:] + entries[:first]:
                resident.process.numbers(f"run 1 {resident.task}", CALLING)
                ms, call = resident.turn("run", resident.first_ms)
                entry.case.rounds.append(one_round(entry, ms, call, number))
            number += 1
        for entry in entries:
            finish(entry)
        batch.memory = resident.memory()
    return batch


# ---- memory ----


def plan(network: Network, built: Built) -> Plan:
    """Of the first task, on one thread."""
    report, task = built.report, built.report["tasks"][0]
    queues = task["queues"]
    return Plan(
        network.name,
        max((int(queue["experts"]) for queue in queues), default=0),
        built.pack_bytes,
        int(task["arena_bytes"]) + int(task["scratch_bytes_per_thread"]),
        int(report["stream_bytes"]),
        int(task.get("queue_bytes", max((8 * q["entries"] + 4 * (q["experts"] + 1) for q in queues), default=0))),
    )


def in_little_memory(
    network: Network, built: Built, source: str, seconds: float, logs: Path, groups: bool = True, part: float = 0.25
) -> Limited:
    """Calls by a process that may have a part of the pack's size, all of its memory and the system's cache of its files
    included where there are control groups."""
    limit = int(built.pack_bytes * part) // 4096 * 4096
    with ExitStack() as free:
        resident = Player(built, "resident", 1, logs, free)
        want = resident.answer()
        compute, _ = resident.turn("run", resident.first_ms)
    drop_cache(built.weights)  # pages that are there already would not count as the group's
    with limited(limit, groups) as limits, ExitStack() as stack:
        found = Limited(network.name, network.title, built.pack_bytes, limit, limits.kind, source, compute=compute)
        try:
            player = Player(built, source, 1, logs, stack, limits.enter)
            found.same = player.answer() == want
            end = time.monotonic() + seconds
            while len(found.ms) < 3 or (time.monotonic() < end and len(found.ms) < 9):
                found.storage.append(storage_speed(built.weights))
                before = player.memory()["read_bytes"]
                found.ms += player.process.numbers(f"run 1 {player.task}", CALLING)
                memory = player.memory()
                found.from_storage, found.peak = memory["read_bytes"] - before, memory["VmHWM"]
            found.bytes = sum(load.bytes for load in player.events().loads)
        except ContenderError as failure:
            found.failure = str(failure)
    return found


# ---- tasks in turn ----


def switching(network: Network, built: Built, source: str, seconds: float, logs: Path) -> Switch:
    """Runs of four calls of each task: the first follows a switch, the last two are steady."""
    first: list[float] = []
    second: list[float] = []
    with ExitStack() as stack:
        player = Player(built, source, 1, logs, stack)
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(first) < 2 * len(built.tasks):
            for task in built.tasks:
                times = player.process.numbers(f"run 4 {task}", CALLING)
                steady = statistics.median(times[2:])
                first.append(times[0] / steady)
                second.append(times[1] / steady)
    return Switch(network.name, network.title, source, spread(first), spread(second))


# ---- where resident weights are ----


def modes(network: Network, loaded: Built, embedded: Built, seconds: float, logs: Path) -> list[Mode]:
    """Loaded, mapped and embedded in turn, one thread."""
    with ExitStack() as stack:
        players = {
            "loaded": Player(loaded, "resident", 1, logs, stack),
            "mapped": Player(loaded, "map", 1, logs, stack),
            "embedded": Player(embedded, "embedded", 1, logs, stack),
        }
        if len({player.answer() for player in players.values()}) != 1:
            raise ContenderError("mapped, embedded and loaded weights give different answers")
        times: dict[str, list[float]] = {name: [] for name in players}
        end = time.monotonic() + seconds
        names = list(players)
        number = 0
        while time.monotonic() < end or number < 5:
            for place in range(len(names)):
                name = names[(place + number) % len(names)]
                player = players[name]
                player.process.numbers(f"run 1 {player.task}", CALLING)
                times[name].append(player.turn("run", player.first_ms)[0])
            number += 1
    return [
        Mode(
            network.name,
            network.title,
            name,
            players[name].open_ms,
            found,
            spread([a / b for a, b in zip(found, times["loaded"], strict=True)]),
        )
        for name, found in times.items()
    ]
