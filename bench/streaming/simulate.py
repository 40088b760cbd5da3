"""What happened in a call, and what the best schedule of two buffers would have made of the same units.

A call is a head, in which no weights are needed, and then steps: a step takes a slot, and computes until the next take.
Loads are served one after another. The best schedule loads the slot of a step once the step before has taken its own, for
then the buffer of the step before that is free:

    load i begins    when load i-1 is done and step i-1 has begun
    step i begins    when load i is done and step i-1 is done

Which expert comes first is known there before the router has run; `released` is what is left when it is not, and a load can
begin only where the emitted code asks for it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

MS = 1e-6  # milliseconds in a nanosecond
NOTHING = 0.02  # ms: shorter waits are not stalls


@dataclass(frozen=True)
class Take:
    unit: str
    index: int
    count: int  # slots of the unit: a table of experts has several
    offset: int
    begin: float  # milliseconds since the call began
    end: float
    waiting: float
    asking: float

    @property
    def rest(self) -> float:
        """Neither waiting nor asking: the checksum."""
        return max(self.end - self.begin - self.waiting - self.asking, 0.0)


@dataclass(frozen=True)
class Load:
    offset: int
    bytes: int
    take: int  # takes begun when it was asked for
    within: bool  # asked for within the last of these
    asked: float
    begun: float  # when reading began, where that is known
    arrived: float
    wait: float
    there: float

    @property
    def alone(self) -> float:
        """Of a replay: from asking to there."""
        return self.there - self.asked


@dataclass(frozen=True)
class Call:
    ms: float
    takes: list[Take]
    loads: list[Load]
    interrupted: int = 0  # how often the system gave the processor to others


def parse(lines: Iterable[str]) -> Call:
    """What the harness writes."""
    ms, interrupted, takes, loads = 0.0, 0, [], []
    for line in lines:
        kind, *words = line.split()
        if kind == "call":
            ms, interrupted = int(words[0]) * MS, int(words[1])
        elif kind == "take":
            takes.append(Take(words[0], *map(int, words[1:4]), *(int(w) * MS for w in words[4:])))
        else:
            offset, size, take, within = map(int, words[:4])
            loads.append(Load(offset, size, take, bool(within), *(int(w) * MS for w in words[4:])))
    return Call(ms, takes, loads, interrupted)


def read(path: Path) -> Call:
    return parse(path.read_text().splitlines())


@dataclass(frozen=True)
class Step:
    unit: str
    index: int
    expert: bool
    load: float  # ms; 0: its slot was in a buffer still
    compute: float
    check: float = 0.0  # of its checksum
    bytes: int = 0
    release: float = 0.0  # at which part of the computation of the step before the load was asked for
    asked: bool = True  # it was asked for before its own take
    take: int = 0  # which take of the call


def computing(call: Call) -> tuple[float, list[float]]:
    """The head, and what each take is followed by."""
    takes = call.takes
    if not takes:
        return call.ms, []
    ends = [take.begin for take in takes[1:]] + [call.ms]
    return takes[0].begin, [end - take.end for take, end in zip(takes, ends, strict=True)]


def loads_of_takes(call: Call) -> list[int | None]:
    """Each take's load, as its number; None: the slot was there still. A load that was never taken stays out."""
    free = list(range(len(call.loads)))
    found: list[int | None] = []
    for number, take in enumerate(call.takes, 1):
        own = next((n for n in free if call.loads[n].take <= number and call.loads[n].offset == take.offset), None)
        if own is not None:
            free.remove(own)
        found.append(own)
    return found


def released(call: Call, load: Load, number: int, parts: Sequence[float]) -> tuple[float, bool]:
    """Where take `number` (from 0) got its load asked for: the part of the computation before, and whether before itself."""
    if load.within:
        return 0.0, load.take <= number
    before = load.take - 1  # the take whose computation asked
    if before < 0:
        return 0.0, True
    length = parts[before]
    return (min(max((load.asked - call.takes[before].end) / length, 0.0), 1.0) if length > 0 else 0.0), True


def loads_beside(call: Call, alone: Sequence[float]) -> list[float]:
    """What each load of an overlapped call took there. When one arrived that was not waited for, is not known: at most what
    it takes alone is assumed."""
    took = [min(load.there - load.asked, time) for load, time in zip(call.loads, alone, strict=True)]
    for take, place in zip(call.takes, loads_of_takes(call), strict=True):
        if place is not None and take.waiting >= NOTHING:
            took[place] = call.loads[place].there - call.loads[place].asked
    return [max(time, 0.0) for time in took]


def medians(columns: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.median(column) for column in zip(*columns, strict=True)]


def steps_of(overlapped: Call, loads: Sequence[float], parts: Sequence[float], checks: Sequence[float]) -> list[Step]:
    """The overlapped call's takes with these unit times: one for each of its loads, and one of each kind for each take.
    Takes in a row of the same slot are one step."""
    _, own_parts = computing(overlapped)
    steps: list[Step] = []
    for number, (take, load) in enumerate(zip(overlapped.takes, loads_of_takes(overlapped), strict=True)):
        same = steps and load is None and overlapped.takes[number - 1].offset == take.offset
        if same:
            last = steps[-1]
            steps[-1] = replace(last, compute=last.compute + parts[number], check=last.check + checks[number])
            continue
        step = Step(take.unit, take.index, take.count > 1, 0.0, parts[number], checks[number], take=number)
        if load is not None:
            part, asked = released(overlapped, overlapped.loads[load], number, own_parts)
            step = replace(step, load=loads[load], bytes=overlapped.loads[load].bytes, release=part, asked=asked)
        steps.append(step)
    return steps


def schedule(head: float, steps: Sequence[Step], causal: bool = False) -> list[float]:
    """When each step's computation ends in the best schedule. `causal`: loads begin where they were asked for. The checksum
    is computed where the step is."""
    ends: list[float] = []
    loaded = 0.0  # when the last load was done
    began = 0.0  # when the step before began
    done = head
    for step in steps:
        start = done
        if step.load > 0:
            ask = began + step.release * (done - began) if causal else began
            if causal and not step.asked:
                ask = done
            loaded = max(loaded, ask) + step.load
            start = max(loaded, done)
        began = start
        done = start + step.check + step.compute
        ends.append(done)
    return ends


def ideal(head: float, steps: Sequence[Step], causal: bool = False) -> float:
    ends = schedule(head, steps, causal)
    return ends[-1] if ends else head


def serial(head: float, steps: Sequence[Step]) -> float:
    return head + sum(step.load + step.check + step.compute for step in steps)


def hidden(load: float, compute: float, overlapped: float) -> float:
    """How much of the smaller of load and compute does not show in the overlapped time: (L+C-O)/min(L,C)."""
    return (load + compute - overlapped) / min(load, compute)


def hidden_of_serial(load: float, compute: float, serially: float, overlapped: float) -> float:
    """The same against what was measured without overlap: (S-O)/min(L,C)."""
    return (serially - overlapped) / min(load, compute)


# ---- layers of experts ----


@dataclass(frozen=True)
class Span:
    """The takes first … last of one layer's experts."""

    first: int
    last: int


def expert_spans(takes: Sequence[Take]) -> list[Span]:
    """A take of a dense unit ends a layer, and so does one of an earlier expert. An expert may have several units."""
    spans: list[Span] = []
    for number, take in enumerate(takes):
        if take.count < 2:
            continue
        if spans and spans[-1].last == number - 1 and takes[number - 1].index <= take.index:
            spans[-1] = replace(spans[-1], last=number)
        else:
            spans.append(Span(number, number))
    return spans


def span_time(call: Call, span: Span) -> float:
    """From the layer's first request to the end of its last expert."""
    loads = loads_of_takes(call)
    first = loads[span.first]
    begin = call.takes[span.first].begin if first is None else call.loads[first].asked
    after = span.last + 1
    return (call.takes[after].begin if after < len(call.takes) else call.ms) - begin


# ---- stalls ----

REASONS = {
    "first": "first unit of the call: nothing computes while it loads",
    "late": "asked for only when it was taken",
    "router": "asked for when the router had run, and then there was little left to compute",
    "short": "the step before computes for less time than the load takes",
    "slow": "the load took longer than alone",
}


@dataclass(frozen=True)
class Stall:
    unit: str
    index: int
    ms: float
    load: float  # alone
    before: float  # what the step before computed
    reason: str


def reason_of(number: int, load: Load, asked: bool, alone: float, before: float, waited: float) -> str:
    if number == 0:
        return "first"
    if not asked:
        return "late"
    if not load.within:
        return "router"
    return "short" if waited <= 1.5 * max(alone - before, 0.0) + NOTHING else "slow"


def stalls(call: Call, alone: Sequence[float]) -> list[Stall]:
    """The longest first. `alone`: what each load takes by itself."""
    _, parts = computing(call)
    found = []
    for number, (take, place) in enumerate(zip(call.takes, loads_of_takes(call), strict=True)):
        if place is None or take.waiting < NOTHING:
            continue
        load = call.loads[place]
        _, asked = released(call, load, number, parts)
        before = parts[number - 1] if number else 0.0
        if asked and not load.within:
            before = max(take.begin - load.asked, 0.0)
        why = reason_of(number, load, asked, alone[place], before, take.waiting)
        found.append(Stall(take.unit, take.index, take.waiting, alone[place], before, why))
    return sorted(found, key=lambda stall: -stall.ms)


def by_reason(found: Iterable[Stall]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for stall in found:
        sums[stall.reason] = sums.get(stall.reason, 0.0) + stall.ms
    return dict(sorted(sums.items(), key=lambda pair: -pair[1]))
