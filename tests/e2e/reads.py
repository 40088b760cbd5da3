"""What a trace of a streaming network says of its reads, and what it must say: the schedule of report.json, in order,
through two buffers, with the experts that had tokens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

Slot = tuple[str, int]  # unit's name, index
Queues = dict[int, int]  # tokens by expert, of the experts that have any
TICK = 0.0021  # µs: numbers in the file are rounded to a nanosecond


@dataclass
class Span:
    """A slot being loaded, taken or waited for, or anything else that takes time; µs."""

    name: str
    kind: str
    begin: float
    end: float
    track: tuple[int, int]
    args: dict[str, Any]

    @property
    def slot(self) -> Slot:
        return self.name.removesuffix(f"[{self.args['slot']}]"), self.args["slot"]

    @property
    def asked(self) -> float:
        return float(self.args["asked"])

    def within(self, outer: Span) -> bool:
        return outer.begin - TICK <= self.begin and self.end <= outer.end + TICK


@dataclass
class Call:
    """A call of a task, and what happened in it; loads are those that were asked for in it."""

    task: str
    span: Span
    takes: list[Span] = field(default_factory=list)
    loads: list[Span] = field(default_factory=list)
    stalls: list[Span] = field(default_factory=list)
    kernels: list[Span] = field(default_factory=list)
    loops: list[Span] = field(default_factory=list)

    def queues(self) -> list[Queues]:
        """Of each expert loop, in order."""
        return [{int(e): n for e, n in loop.args["tokens"].items()} for loop in self.loops]


def spans(path: Path) -> list[Span]:
    trace = json.loads(path.read_text())
    assert trace["otherData"]["lost_events"] == 0
    found = [
        Span(e["name"], e["cat"], e["ts"], round(e["ts"] + e["dur"], 3), (e["pid"], e["tid"]), e["args"])
        for e in trace["traceEvents"]
        if e["ph"] == "X"
    ]
    return sorted(found, key=lambda s: (s.begin, -s.end))


def read_calls(path: Path) -> list[Call]:
    """The calls of a trace, each with what is its own."""
    found = spans(path)
    calls = [Call(s.name, s) for s in found if s.kind == "call"]
    for span in found:
        begin = span.asked if span.kind == "load" else span.begin
        call = next((c for c in calls if c.span.begin - TICK <= begin <= c.span.end), None)
        if not call:
            continue
        lists = {"take": call.takes, "load": call.loads, "stall": call.stalls, "experts": call.loops}
        if span.kind in lists:
            lists[span.kind].append(span)
        elif span.track == (1, 0) and "node" in span.args:
            call.kernels.append(span)
    for call in calls:
        call.loads.sort(key=lambda s: s.asked)
    return calls


# ---- what must be ----


@dataclass
class Wanted:
    """A take that must be: of which step, and whether a router chose it, this being the first of its layer."""

    slot: Slot
    step: int
    expert: bool
    first_chosen: bool


def wanted_takes(schedule: Sequence[dict[str, Any]], queues: Sequence[Queues]) -> Iterator[Wanted]:
    """The stream of slots that a task's schedule makes of the queues of its expert loops."""
    loops = iter(queues)
    for step in schedule:
        units = step.get("units", [step["unit"]] if "unit" in step else [])
        if isinstance(step["kernel"], str):
            yield from (Wanted((unit, 0), step["step"], False, False) for unit in units)
            continue
        slots = [(unit, expert) for expert in sorted(next(loops)) for unit in units]
        yield from (Wanted(slot, step["step"], True, i == 0) for i, slot in enumerate(slots))


class Buffers:
    """The two buffers: what is taken stays until the slot after the next one is asked for."""

    def __init__(self) -> None:
        self.held: list[Slot | None] = [None, None]
        self.current = 0

    def take(self, slot: Slot) -> bool:
        """Must it be loaded?"""
        loads = slot not in self.held
        if loads:
            self.held[1 - self.current] = slot
        self.current = self.held.index(slot)
        return loads


def router_step(schedule: Sequence[dict[str, Any]], loop: int) -> int:
    """The step that fills the queues of an expert loop."""
    return max(s["step"] for s in schedule if s["step"] < loop and str(s["kernel"]).startswith("moe_queue"))


def computing(call: Call, take: Span) -> float:
    """When the first kernel behind a take begins: that of the take's own step, or of the loop's body."""
    own = next((k for k in call.kernels if take.within(k)), None)
    assert own, f"{take} belongs to no step"
    return take.end if own.name != "expert loop" else next(k.begin for k in call.kernels if k.begin >= own.end - TICK)


def first_in_a_row(takes: Sequence[Span], i: int) -> Span:
    """Steps may share a unit; the first one that takes it asks for the next."""
    while i > 0 and takes[i - 1].slot == takes[i].slot:
        i -= 1
    return takes[i]


def assert_asked_in_time(
    call: Call, wanted: Sequence[Wanted], loads: dict[int, Span], schedule: Sequence[dict[str, Any]]
) -> None:
    """Each slot before the one before it is computed with; a layer's first expert once the router has run, first of all."""
    for i, load in loads.items():
        if wanted[i].first_chosen:
            router = max(
                (k for k in call.kernels if k.args["step"] == router_step(schedule, wanted[i].step)), key=lambda k: k.begin
            )
            behind = [k for k in call.kernels if router.end - TICK <= k.begin < call.takes[i].begin - TICK]
            between = [k for k in behind if k.name != "expert loop"]
            assert router.begin <= load.asked, (load, router)
            assert load.asked <= (router.end if between else call.takes[i].end), (load, router, between)
        elif i > 0:
            before = first_in_a_row(call.takes, i - 1)
            assert before.begin <= load.asked <= computing(call, before), (load, before)


def assert_intervals(call: Call) -> None:
    """Nothing is taken before it is there; a buffer is written only once what it held is done with; stalls lie in takes."""
    for load in call.loads:
        assert load.asked <= load.begin <= load.end
        assert load.track == (2, load.args["buffer"])
    for stall in call.stalls:
        assert any(stall.within(take) for take in call.takes), stall
    for buffer in (0, 1):
        loads = [x for x in call.loads if x.args["buffer"] == buffer]
        takes = [(i, t) for i, t in enumerate(call.takes) if t.args["buffer"] == buffer]
        for one, other in pairwise(loads):
            assert one.end <= other.asked + TICK
        for load in loads:
            used = [i for i, t in takes if t.begin <= load.asked and t.slot != load.slot]
            assert not used or load.asked >= call.takes[used[-1] + 1].begin, (load, call.takes[used[-1]])


def assert_reads(call: Call, task: dict[str, Any], buffers: Buffers) -> None:
    """All that is promised of a call's reads; `buffers` as the call before has left them."""
    schedule = task["schedule"]
    wanted = list(wanted_takes(schedule, call.queues()))
    assert [t.slot for t in call.takes] == [w.slot for w in wanted]
    must_load = [buffers.take(w.slot) for w in wanted]
    assert [x.slot for x in call.loads] == [w.slot for w, load in zip(wanted, must_load, strict=True) if load]

    experts = {w.slot for w in wanted if w.expert}
    reads = Counter(x.slot for x in call.loads if x.slot in experts or x.args["slots"] > 1)
    assert set(reads) <= experts, "an expert without tokens was read"
    assert not reads or max(reads.values()) == 1, "an expert was read twice"

    asked = iter(call.loads)
    assert_asked_in_time(call, wanted, {i: next(asked) for i, load in enumerate(must_load) if load}, schedule)
    assert_intervals(call)
    assert call.span.args["slots_read"] == len(call.loads)
    assert call.span.args["bytes_read"] == sum(x.args["bytes"] for x in call.loads)


def assert_all_reads(path: Path, tasks: Sequence[dict[str, Any]]) -> list[Call]:
    """The same of every call of a trace; `tasks` as in report.json. Returns the calls."""
    by_name = {t["task"]: t for t in tasks}
    calls, buffers = read_calls(path), Buffers()
    assert calls
    for call in calls:
        assert_reads(call, by_name[call.task], buffers)
    return calls
