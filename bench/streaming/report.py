"""Tables of what was measured: for a terminal, and for docs/streaming.md between two markers."""

from __future__ import annotations

import statistics
from pathlib import Path

from bench.report import aligned, between_markers, markdown, number, percent
from bench.results import Spread, spread
from bench.streaming.results import Batch, Case, Limited, Results
from bench.streaming.simulate import REASONS

Table = list[list[str]]


def share(s: Spread) -> str:
    return f"{100 * s.median:.0f} ({100 * s.low:.0f}–{100 * s.high:.0f}) %"


def mb(size: float) -> str:
    return number(size / 1e6)


def threads_text(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


# ---- loads and computing ----

HEAD = [
    "",
    "L",
    "C",
    "sums",
    "S",
    "O",
    "trusted",
    "ideal",
    "ideal/O",
    "ideal*/O",
    "hidden (L+C−O)",
    "hidden (S−O)",
    "stalls",
    "MB",
    "MB/s",
]


def case_cells(case: Case) -> list[str]:
    load = case.median(lambda r: r.load)
    return [
        case.name,
        number(load),
        number(case.median(lambda r: r.resident)),
        number(case.median(lambda r: r.checks)),
        number(case.median(lambda r: r.serial)),
        number(case.median(lambda r: r.overlapped)),
        number(case.median(lambda r: r.trusted)),
        number(case.best.ideal) if case.best else "–",
        share(case.efficiency) if case.best else "–",
        share(case.of(lambda r: r.beside / r.overlapped)),
        share(case.of(lambda r: r.hidden)),
        share(case.of(lambda r: r.hidden_of_serial)),
        number(case.median(lambda r: r.stalled)),
        mb(case.bytes),
        number(case.bytes / 1e3 / load),
    ]


def batch_title(batch: Batch) -> str:
    storage = statistics.median(batch.storage) if batch.storage else 0.0
    return (
        f"{batch.title}, {threads_text(batch.threads)}: pack {mb(batch.pack)} MB; storage read in order "
        f"{mb(storage)} MB/s; milliseconds"
    )


def case_notes(case: Case) -> list[str]:
    best, notes = case.best, [f"{case.name}:"]
    if best:
        took, beside = case.median(lambda r: r.overlapped), case.median(lambda r: r.beside)
        lost = [
            f"{best.causal - best.ideal:.2f} since a router must run before its experts are known",
            f"{best.own - best.ideal:.2f} since computing takes another time beside loading",
            f"{beside - best.own:.2f} since loading takes another time beside computing",
            f"{took - beside:.2f} over the best schedule of all times as they were",
        ]
        notes = [f"{case.name}: {number(took - best.ideal)} ms over the ideal; ms of it: {', '.join(lost)}"]
    notes += [f"  {ms:.2f} ms of stalls: {REASONS[reason]}" for reason, ms in case.reasons.items()]
    for stall in case.stalls[:4]:
        slot = f"{stall.unit}[{stall.index}]"
        notes.append(
            f"    {slot}: {stall.ms:.2f} ms, {stall.reason} (load {stall.load:.2f}, computed meanwhile {stall.before:.2f})"
        )
    if case.memory:
        read = f"{mb(case.from_storage)} MB came from storage"
        notes.append(f"  peak RSS {mb(case.memory['VmHWM'])} MB; {case.loads} loads, {read}")
    if not case.same:
        notes.append("  THE ANSWER DIFFERS FROM THE RESIDENT ONE")
    return notes


def batch_text(batch: Batch) -> str:
    measured = [case for case in batch.cases if case.rounds]
    lines = [batch_title(batch)]
    if measured:
        lines.append(aligned([HEAD, *(case_cells(case) for case in measured)]))
    for case in batch.cases:
        lines += [f"  {note}" for note in (case_notes(case) if case.rounds else [f"{case.name}: not measured: {case.failure}"])]
    if batch.memory:
        lines.append(f"  resident: peak RSS {mb(batch.memory['VmHWM'])} MB")
    return "\n".join(lines)


# ---- layers of experts ----

LAYER_HEAD = ["network", "source", "threads", "L", "C", "O", "hidden (L+C−O)", "of an ideal schedule", "ideal/O", "ideal*/O"]


def layer_table(results: Results) -> Table:
    rows: Table = []
    for batch in results.batches:
        for case in batch.cases:
            layers = case.layered
            if not layers:
                continue
            row = [
                batch.title,
                case.name,
                str(batch.threads),
                number(statistics.median(one.load for one in layers)),
                number(statistics.median(one.compute for one in layers)),
                number(statistics.median(one.overlapped for one in layers)),
                share(spread([one.hidden for one in layers])),
            ]
            ideal = case.best.layers if case.best else None
            if ideal:
                row += [percent(ideal.hidden), share(spread([ideal.overlapped / one.overlapped for one in layers]))]
                row.append(share(case.of(lambda r: r.layers_beside / r.layers.overlapped if r.layers else 0.0)))
            rows.append(row + ["–"] * (len(LAYER_HEAD) - len(row)))
    return [LAYER_HEAD, *rows] if rows else []


# ---- memory ----

PLAN_HEAD = ["experts", "pack MB", "two buffers kB", "queues kB", "arena kB", "peak RSS MB", "of it no file's MB"]


def plan_table(results: Results) -> Table:
    rows = [
        [
            str(plan.experts),
            mb(plan.pack),
            number(plan.stream / 1e3),
            number(plan.routing / 1e3),
            number(plan.arena / 1e3),
            mb(plan.peak) if plan.peak else "–",
            mb(plan.anonymous) if plan.peak else "–",
        ]
        for plan in results.plans
    ]
    return [PLAN_HEAD, *rows] if rows else []


def growth(results: Results) -> str:
    """Bytes per expert between the fewest and the most."""
    plans = sorted(results.plans, key=lambda plan: plan.experts)
    if len(plans) < 2:
        return ""
    a, b = plans[0], plans[-1]
    each = b.experts - a.experts
    parts = [
        f"{number((b.stream - a.stream) / each)} bytes of buffers",
        f"{number((b.routing - a.routing) / each)} of queues",
        f"{number((b.arena - a.arena) / each)} of arena in all",
    ]
    if a.peak and b.peak:
        parts.append(f"{number((b.anonymous - a.anonymous) / each)} of measured memory")
    return f"Per expert, from {a.experts} to {b.experts}: {', '.join(parts)}."


LIMIT_HEAD = [
    "network",
    "source",
    "pack MB",
    "limit MB",
    "ms",
    "MB/s",
    "of storage's speed",
    "compute ms",
    "peak RSS MB",
    "bits",
]


def limited_cells(one: Limited) -> list[str]:
    if one.failure:
        return [one.title, one.source, mb(one.pack), mb(one.limit), *["–"] * 5, one.failure]
    ms = statistics.median(one.ms)
    return [
        one.title,
        one.source,
        mb(one.pack),
        mb(one.limit),
        number(ms),
        number(one.bytes / 1e3 / ms) if one.bytes else number(one.from_storage / 1e3 / ms),
        percent(one.share) if one.bytes else "–",
        number(one.compute),
        mb(one.peak),
        "the same" if one.same else "DIFFERENT",
    ]


def limited_table(results: Results) -> Table:
    return [LIMIT_HEAD, *(limited_cells(one) for one in results.limited)] if results.limited else []


# ---- the rest ----


def spread_text(s: Spread) -> str:
    return f"{s.median:.3f} ({s.low:.3f}–{s.high:.3f})"


def other_notes(results: Results) -> list[str]:
    notes = [
        f"{s.title}, {s.source}: the first call after a switch of the task takes {spread_text(s.first)} of a steady one, the "
        f"second {spread_text(s.second)}."
        for s in results.switches
    ]
    notes += [
        f"{m.title}, {m.mode} weights: {number(statistics.median(m.ms))} ms, {spread_text(m.ratio)} of loaded ones; "
        f"opening and a first check take {number(m.open_ms)} ms."
        for m in results.modes
    ]
    return notes


def noise(results: Results) -> str:
    """How much the same call varied: the quartiles of the resident call over its median."""
    found = []
    for batch in results.batches:
        times = [r.resident for case in batch.cases for r in case.rounds]
        if len(times) > 2:
            low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
            found.append((high - low) / middle)
    if not found:
        return ""
    apart = percent(statistics.median(found))
    rounds = [r for batch in results.batches for case in batch.cases for r in case.rounds]
    often = statistics.median(r.interrupted for r in rounds)
    return (
        f"The machine's noise: the quartiles of the resident call are {apart} of its median apart (median of all batches), "
        f"and other processes interrupted an overlapped call {often:.0f} times (median)."
    )


def text(results: Results) -> str:
    about = ", ".join(f"{key} {value}" for key, value in results.machine.items())
    parts = [about, *(batch_text(batch) for batch in results.batches)]
    for title, table in (
        ("Layers of experts alone, milliseconds of a call", layer_table(results)),
        ("Memory over the number of experts", plan_table(results)),
        ("In a quarter of the pack's size", limited_table(results)),
    ):
        if table:
            parts.append(f"{title}\n{aligned(table)}")
    parts += [line for line in (growth(results), *other_notes(results), noise(results)) if line]
    return "\n\n".join(parts)


DOC_HEAD = [
    "network",
    "source",
    "threads",
    "L",
    "C",
    "S",
    "O",
    "ideal/O",
    "ideal*/O",
    "hidden (L+C−O)",
    "hidden (S−O)",
    "stalls",
    "MB/s",
]
SKIPPED = (3, 6, 7, 13)  # columns of HEAD


def document(results: Results) -> str:
    """What stands in docs/streaming.md between the markers."""
    rows = []
    for batch in results.batches:
        for case in batch.cases:
            if case.rounds:
                cells = [cell for place, cell in enumerate(case_cells(case)) if place not in SKIPPED]
                rows.append([batch.title, cells[0], str(batch.threads), *cells[1:]])
    machine = results.machine
    about = (
        f"Medians (quartiles) on {machine.get('processor', 'this machine')}, {machine.get('cores', '?')} cores, "
        f"{machine.get('storage_MB_s', '?')} MB/s of storage read in order with O_DIRECT; milliseconds of a call."
    )
    parts = [about, markdown([DOC_HEAD, *rows])]
    for title, table in (
        ("Layers of experts alone", layer_table(results)),
        ("Memory over the number of experts", plan_table(results)),
        ("In a quarter of the pack's size", limited_table(results)),
    ):
        if table:
            parts += [f"### {title}", markdown(table)]
            if title.startswith("Memory"):
                parts.append(growth(results))
            if title.startswith("In a"):
                parts.append(f"Limited by: {', '.join(sorted({one.kind for one in results.limited}))}.")
    notes = other_notes(results)
    if notes:
        parts += ["### Switching tasks, and where resident weights are", "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(part for part in [*parts, noise(results)] if part)


def rewrite(path: Path, results: Results) -> None:
    path.write_text(between_markers(path.read_text(), document(results)))
