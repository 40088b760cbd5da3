"""What was measured, as it is kept in JSON, and the statistics on it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

INEXACT = 1e-3  # of an output's largest value
OURS = "moecc"


@dataclass(frozen=True)
class Spread:
    """The median and the quartiles."""

    low: float
    median: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    if not values:
        raise ValueError("no values")
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(low, median, high)


@dataclass
class Row:
    """A contender with one network on one number of threads. Lists have a value per round."""

    contender: str
    ours: bool = False
    form: str = ""
    failure: str = ""  # it was not measured, and why
    error: float | None = None  # the largest, over the output's largest value; None: something is no number
    load_ms: float = 0.0
    first_ms: float = 0.0  # the first call
    ms: list[float] = field(default_factory=list)  # per round the median of its calls
    memory: int = 0  # bytes: peak of its process, less what Python takes without it
    disk: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    tried: dict[str, str] = field(default_factory=dict)  # other forms, and why they are not the best

    @property
    def measured(self) -> bool:
        return not self.failure and len(self.ms) > 0

    @property
    def exact(self) -> bool:
        return self.error is not None and self.error <= INEXACT

    @property
    def median_ms(self) -> float:
        return statistics.median(self.ms)


@dataclass
class Switch:
    """Of all calls that follow a switch of the task, over a steady call of the same task."""

    first: Spread
    second: Spread  # the call after it: how far steady calls are apart
    all_ms: float  # all tasks in one call
    single_ms: float  # the sum of each task alone


@dataclass
class Batch:
    """One network on one number of threads, all contenders in turn."""

    network: str
    title: str
    threads: int
    flops: float  # of the network as PyTorch computes it
    rows: list[Row] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)  # FLOP/s, per round
    read: list[float] = field(default_factory=list)  # bytes/s, per round
    switch: Switch | None = None

    def row(self, contender: str) -> Row | None:
        return next((r for r in self.rows if r.contender == contender and r.measured), None)

    def fastest_peer(self) -> Row | None:
        """The fastest of those that are exact and not ours."""
        peers = [r for r in self.rows if r.measured and r.exact and not r.ours]
        return min(peers, key=lambda r: r.median_ms, default=None)

    def share(self, row: Row, flops: float) -> Spread:
        """Of the machine's peak: so many operations in the time that it took."""
        pairs = zip(row.ms, self.peak, strict=False)
        return spread([flops / (ms / 1e3) / peak for ms, peak in pairs])

    def own_share(self, row: Row) -> Spread:
        """Of the peak, by the arithmetic that the contender does: ours is what remains after rewrites."""
        return self.share(row, row.facts.get("flops", self.flops))

    def bound_share(self, row: Row) -> Spread:
        """Of the larger bound of two: the arithmetic at the machine's peak, the weights at the speed of its memory."""
        flops, weights = row.facts.get("flops", self.flops), row.facts.get("weight_bytes", 0)
        triples = zip(row.ms, self.peak, self.read, strict=False)
        return spread([max(flops / peak, weights / read) / (ms / 1e3) for ms, peak, read in triples])


def ratios(a: Row, b: Row) -> Spread:
    """a's time over b's, of the rounds in which both took part."""
    return spread([x / y for x, y in zip(a.ms, b.ms, strict=False)])


@dataclass
class Results:
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)

    def find(self, network: str, threads: int) -> Batch | None:
        return next((b for b in self.batches if (b.network, b.threads) == (network, threads)), None)

    def networks(self) -> list[str]:
        return list(dict.fromkeys(b.network for b in self.batches))


def write(results: DataclassInstance, path: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(asdict(results), indent=1, allow_nan=False) + "\n")
    part.rename(path)


def read(path: Path) -> Results:
    found = json.loads(path.read_text())
    batches = []
    for batch in found["batches"]:
        rows = [Row(**row) for row in batch.pop("rows")]
        switch = batch.pop("switch")
        if switch is not None:
            spreads = {key: Spread(**switch[key]) for key in ("first", "second")}
            switch = Switch(**{**switch, **spreads})
        batches.append(Batch(**batch, rows=rows, switch=switch))
    return Results(found["machine"], found["versions"], batches)
