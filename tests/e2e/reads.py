"""What a trace of a streaming network says of its reads, and what it must say: the schedule of report.json, in order,
through two buffers, with the experts that had tokens; of calls of one task, and of all tasks in one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, TypeVar

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
    """A call of a task, or of all; loads are those that were asked for in it, takes those of what is streamed."""

    task: str
    span: Span
    takes: list[Span] = field(default_factory=list)
    resident: list[Span] = field(default_factory=list)  # takes of what stays in memory
    loads: list[Span] = field(default_factory=list)
    stalls: list[Span] = field(default_factory=list)
    kernels: list[Span] = field(default_factory=list)
    loops: list[Span] = field(default_factory=list)

    def queues(self) -> list[Queues]:
        """Of each expert loop, in order; of tasks that go through it together, their sums."""
        return [by_expert(loop.args["tokens"]) for loop in self.loops]

    def queues_of(self, task: str) -> list[Queues]:
        """A task's own, of each loop that is for it in a call of all: of the trunk, its own, or one of several tasks."""
        found = []
        for args in (loop.args for loop in self.loops):
            if "tokens_by_task" in args and task in args["tokens_by_task"]:
                found.append(by_expert(args["tokens_by_task"][task]))
            elif "tokens_by_task" not in args and args.get("task", task) == task:
                found.append(by_expert(args["tokens"]))
        return found


def by_expert(tokens: dict[str, int]) -> Queues:
    return {int(expert): n for expert, n in tokens.items()}


def spans(path: Path) -> list[Span]:
    trace = json.loads(path.read_text())
    assert trace["otherData"]["lost_events"] == 0
    found = [
        Span(e["name"], e["cat"], e["ts"], round(e["ts"] + e["dur"], 3), (e["pid"], e["tid"]), e["args"])
        for e in trace["traceEvents"]
        if e["ph"] == "X"
    ]
    return sorted(found, key=lambda s: (s.begin, -s.end))


T = TypeVar("T", "Span", "Wanted")


def first_of_rows(takes: Iterable[T]) -> list[T]:
    """Steps in a row may share a slot: the first one takes it, and the others may or may not take it again."""
    return [next(row) for _, row in groupby(takes, key=lambda take: take.slot)]


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
        if span.kind == "take" and "buffer" not in span.args:
            call.resident.append(span)
        elif span.kind in lists:
            lists[span.kind].append(span)
        elif span.track == (1, 0) and "node" in span.args:
            call.kernels.append(span)
    for call in calls:
        call.loads.sort(key=lambda s: s.asked)
        call.takes = first_of_rows(call.takes)
    return calls


# ---- what must be ----


@dataclass
class Schedule:
    """What a call does, in order: steps as in report.json, those that are for several tasks at once as the first one's."""

    name: str
    steps: list[dict[str, Any]]
    resident: set[str]  # units
    most: dict[str, int]  # bytes and slots that may be read


def schedules(report: dict[str, Any]) -> dict[str, Schedule]:
    """By name of a task; "all": of the call of all tasks."""
    resident = {u["unit"] for u in report.get("resident", {"units": []})["units"]}
    found = {t["task"]: Schedule(t["task"], t["schedule"], resident, t["reads_worst_case"]) for t in report["tasks"]}
    together = report["all_tasks"]
    by_number = {step["step"]: step for task in report["tasks"] for step in task["schedule"]}
    steps = [by_number[numbers[0]] for numbers in together.get("order", [])]
    return found | {"all": Schedule("all", steps, resident, together["reads_worst_case"])}


@dataclass
class Wanted:
    """A take that must be: of which step, and whether a router chose it, this being the first of its layer."""

    slot: Slot
    step: int
    expert: bool
    first_chosen: bool


def units_of(step: dict[str, Any]) -> list[str]:
    return step.get("units", [step["unit"]] if "unit" in step else [])


def wanted_takes(schedule: Schedule, queues: Sequence[Queues]) -> Iterator[Wanted]:
    """The stream of slots that a schedule makes of the queues of its expert loops, what is resident left out."""
    loops = iter(queues)
    for step in schedule.steps:
        expert = not isinstance(step["kernel"], str)
        chosen = sorted(next(loops)) if expert else [0]
        slots = [(unit, index) for index in chosen for unit in units_of(step) if unit not in schedule.resident]
        yield from (Wanted(slot, step["step"], expert, expert and i == 0) for i, slot in enumerate(slots))


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


def computing(call: Call, begin: float) -> float:
    """When the first kernel at or behind a time begins to compute: once it has its own weights."""
    kernel = next((k for k in call.kernels if k.begin >= begin - TICK and k.name != "expert loop"), None)
    if not kernel:
        return call.span.end
    own = [t.end for t in (*call.takes, *call.resident) if t.within(kernel)]
    return max([kernel.begin, *own])


def computing_with(call: Call, take: Span) -> float:
    """When the first kernel behind a take begins: that of the take's own step, or of the loop's body."""
    own = next((k for k in call.kernels if take.within(k)), None)
    assert own, f"{take} belongs to no step"
    return take.end if own.name != "expert loop" else computing(call, own.end)


def routing(call: Call, take: Span) -> Span:
    """The last step before a take that fills queues; where several tasks go together, all have filled theirs."""
    return max((k for k in call.kernels if k.name.startswith("moe_queue") and k.begin < take.begin), key=lambda k: k.begin)


def assert_asked_in_time(call: Call, wanted: Sequence[Wanted], loads: dict[int, Span]) -> None:
    """Each slot before the one before it is computed with; a layer's first expert once the routers have run, before
    anything else is computed, unless another slot was taken since."""
    for i, load in loads.items():
        before = call.takes[i - 1] if i > 0 else None
        router = routing(call, call.takes[i]) if wanted[i].first_chosen else None
        if router and (not before or before.begin < router.end):
            assert router.begin <= load.asked <= computing(call, router.end), (load, router)
        elif before:
            assert before.begin <= load.asked <= computing_with(call, before), (load, before)


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


def assert_steps(call: Call) -> None:
    """Each step runs once, but in expert loops."""
    outside = Counter(k.args["step"] for k in call.kernels if not any(k.within(loop) for loop in call.loops))
    assert not outside or max(outside.values()) == 1, outside.most_common(1)


def assert_reads(call: Call, schedule: Schedule, buffers: Buffers) -> None:
    """All that is promised of a call's reads; `buffers` as the call before has left them."""
    wanted = first_of_rows(wanted_takes(schedule, call.queues()))
    assert [t.slot for t in call.takes] == [w.slot for w in wanted]
    assert {t.slot[0] for t in call.resident} == schedule.resident & {u for s in schedule.steps for u in units_of(s)}
    must_load = [buffers.take(w.slot) for w in wanted]
    assert [x.slot for x in call.loads] == [w.slot for w, load in zip(wanted, must_load, strict=True) if load]

    experts = Counter(w.slot for w in wanted if w.expert)  # more than one: several layers, or several groups of tasks
    loops = Counter(unit for s in schedule.steps if not isinstance(s["kernel"], str) for unit in units_of(s))
    reads = Counter(x.slot for x in call.loads if x.slot in experts or x.args["slots"] > 1)
    assert set(reads) <= set(experts), "an expert without tokens was read"
    assert all(n <= loops[slot[0]] for slot, n in reads.items()), "an expert was read twice"

    asked = iter(call.loads)
    assert_asked_in_time(call, wanted, {i: next(asked) for i, load in enumerate(must_load) if load})
    assert_intervals(call)
    assert_steps(call)
    read = sum(x.args["bytes"] for x in call.loads)
    assert (call.span.args["slots_read"], call.span.args["bytes_read"]) == (len(call.loads), read)
    assert len(call.loads) <= schedule.most["slots"]
    assert read <= schedule.most["bytes"]


def assert_all_reads(path: Path, report: dict[str, Any]) -> list[Call]:
    """The same of every call of a trace. Returns the calls."""
    known, buffers = schedules(report), Buffers()
    calls = read_calls(path)
    assert calls
    for call in calls:
        assert_reads(call, known[call.task], buffers)
    return calls


def assert_shared(call: Call, single: Sequence[Call], report: dict[str, Any]) -> None:
    """A call of all tasks beside a call of each: what tasks share is read no more often than by the task that takes it
    most often, but for what the report names; and the tasks' queues are the same."""
    assert call.task == "all"
    apart = {u["unit"] for u in report["all_tasks"]["read_more_than_once"]}
    takes = [Counter(t.slot for t in c.takes) for c in single]
    for slot, reads in Counter(x.slot for x in call.loads).items():
        assert reads <= max(t[slot] for t in takes) or slot[0] in apart, f"{slot} is read more than once"
    assert {x.slot for x in call.takes} == {slot for t in takes for slot in t}
    for own in single:
        assert call.queues_of(own.task) == own.queues(), own.task
    for args in (loop.args for loop in call.loops if "tokens_by_task" in loop.args):
        by_task = [Counter(by_expert(own)) for own in args["tokens_by_task"].values()]
        assert by_expert(args["tokens"]) == sum(by_task, Counter())
