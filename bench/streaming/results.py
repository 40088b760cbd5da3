"""What was measured, as it is kept in JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.results import Spread, spread
from bench.streaming.simulate import Stall, hidden, hidden_of_serial


@dataclass
class Layers:
    """The layers of experts of one call together, milliseconds."""

    load: float
    compute: float  # with checksums
    overlapped: float

    @property
    def hidden(self) -> float:
        return hidden(self.load, self.compute, self.overlapped)


@dataclass
class Round:
    """Milliseconds of calls in turn."""

    load: float  # all loads, nothing computed
    resident: float  # a call with weights in memory
    serial: float
    overlapped: float
    trusted: float  # overlapped, checksums not verified
    checks: float  # checksums alone, of the serial call
    stalled: float  # waits of the overlapped call
    interrupted: int  # how often other processes took a processor from the overlapped call
    beside: float = 0.0  # the best schedule of the overlapped call's own times
    layers: Layers | None = None
    layers_beside: float = 0.0  # the same of the layers

    @property
    def compute(self) -> float:
        """Checksums are computed by the caller."""
        return self.resident + self.checks

    @property
    def hidden(self) -> float:
        return hidden(self.load, self.compute, self.overlapped)

    @property
    def hidden_of_serial(self) -> float:
        return hidden_of_serial(self.load, self.compute, self.serial, self.overlapped)


@dataclass
class Best:
    """Milliseconds of the best schedules, with each unit's time the median of all rounds'."""

    ideal: float  # of times measured alone
    causal: float  # the same, loads being asked for where the emitted code asks
    own: float  # with computing times as they were within the overlapped calls
    layers: Layers | None  # layers of experts alone, `overlapped` being the best schedule's time


@dataclass
class Case:
    """A network through a source."""

    name: str
    source: str
    cold: bool
    rounds: list[Round] = field(default_factory=list)
    best: Best | None = None
    bytes: int = 0  # asked for in a call
    from_storage: int = 0  # bytes that the system read for it
    loads: int = 0
    memory: dict[str, int] = field(default_factory=dict)
    stalls: list[Stall] = field(default_factory=list)  # of the median call, the longest
    reasons: dict[str, float] = field(default_factory=dict)  # milliseconds, of the median call
    same: bool = False  # the answer has the bits of the resident one
    failure: str = ""

    def of(self, figure: Callable[[Round], float]) -> Spread:
        return spread([figure(r) for r in self.rounds])

    def median(self, figure: Callable[[Round], float]) -> float:
        return statistics.median(figure(r) for r in self.rounds)

    @property
    def efficiency(self) -> Spread:
        """What the best schedule would take over what the overlapped calls took."""
        assert self.best is not None
        return spread([self.best.ideal / r.overlapped for r in self.rounds])

    @property
    def layered(self) -> list[Layers]:
        return [r.layers for r in self.rounds if r.layers]


@dataclass
class Batch:
    """A network on a number of threads."""

    network: str
    title: str
    threads: int
    pack: int  # bytes
    cases: list[Case] = field(default_factory=list)
    storage: list[float] = field(default_factory=list)  # bytes/s: the pack read in order, without the system's cache
    memory: dict[str, int] = field(default_factory=dict)  # of the process with weights in memory


@dataclass
class Plan:
    """Memory as the compiler plans it, over the number of experts."""

    network: str
    experts: int
    pack: int
    arena: int
    stream: int  # the two buffers
    routing: int  # queues and their counters
    anonymous: int = 0  # measured: memory of the streaming process that is no file's
    peak: int = 0  # measured: its resident set at most


@dataclass
class Limited:
    """A run in less memory than the pack needs."""

    network: str
    title: str
    pack: int
    limit: int
    kind: str  # of limit
    source: str
    ms: list[float] = field(default_factory=list)
    bytes: int = 0  # asked for in a call
    from_storage: int = 0
    storage: list[float] = field(default_factory=list)  # bytes/s
    compute: float = 0.0  # ms of a call with weights in memory, without a limit
    peak: int = 0
    same: bool = False
    failure: str = ""

    @property
    def share(self) -> float:
        """Of the storage's speed."""
        return self.bytes / (statistics.median(self.ms) / 1e3) / statistics.median(self.storage)


@dataclass
class Switch:
    """The calls that follow a switch of the task, over steady calls of the same task."""

    network: str
    title: str
    source: str
    first: Spread
    second: Spread


@dataclass
class Mode:
    """Where resident weights are: calls over those of loaded ones."""

    network: str
    title: str
    mode: str
    open_ms: float
    ms: list[float]
    ratio: Spread


@dataclass
class Results:
    machine: dict[str, Any] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    limited: list[Limited] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    modes: list[Mode] = field(default_factory=list)


def _case(found: dict[str, Any]) -> Case:
    rounds = [Round(**{**r, "layers": Layers(**r["layers"]) if r["layers"] else None}) for r in found["rounds"]]
    best = Best(**found["best"]) if found["best"] else None
    if best and found["best"]["layers"]:
        best.layers = Layers(**found["best"]["layers"])
    return Case(**{**found, "rounds": rounds, "best": best, "stalls": [Stall(**stall) for stall in found["stalls"]]})


def read(path: Path) -> Results:
    found = json.loads(path.read_text())
    return Results(
        found["machine"],
        [Batch(**{**batch, "cases": [_case(case) for case in batch["cases"]]}) for batch in found["batches"]],
        [Plan(**plan) for plan in found["plans"]],
        [Limited(**limited) for limited in found["limited"]],
        [Switch(**{**s, "first": Spread(**s["first"]), "second": Spread(**s["second"])}) for s in found["switches"]],
        [Mode(**{**mode, "ratio": Spread(**mode["ratio"])}) for mode in found["modes"]],
    )
