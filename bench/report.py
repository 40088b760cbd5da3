"""Tables of what was measured: for a terminal, and for the README between two markers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.results import INEXACT, OURS, Batch, Results, Row, Spread, ratios

BEGIN = "<!-- bench: begin -->"
END = "<!-- bench: end -->"


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def megabytes(size: float) -> str:
    return number(size / 1e6) if size > 0 else "–"


def error_text(error: float | None) -> str:
    return "no number" if error is None else f"{error:.0e}"


def spread_text(s: Spread) -> str:
    digits = 2 if s.median >= 0.1 else 4
    return f"{s.median:.{digits}f} ({s.low:.{digits}f}–{s.high:.{digits}f})"


def aligned(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


# ---- one network ----

HEAD = ["", "form", "ms", "ours / theirs", "% of peak", "of plain", "MB", "load ms", "first ms", "on disk MB", "error"]


def row_cells(batch: Batch, row: Row) -> list[str]:
    """% of peak: by its own arithmetic; of plain: by the network's as PyTorch computes it."""
    ours = batch.row(OURS)
    ratio = spread_text(ratios(ours, row)) if ours and row is not ours else ""
    name = row.contender if row.exact else f"{row.contender} (inexact)"
    return [
        name,
        row.form,
        number(row.median_ms),
        ratio,
        percent(batch.own_share(row).median),
        percent(batch.share(row, batch.flops).median),
        megabytes(row.memory),
        number(row.load_ms),
        number(row.first_ms),
        megabytes(sum(row.disk.values())),
        error_text(row.error),
    ]


def batch_title(batch: Batch) -> str:
    threads = "1 thread" if batch.threads == 1 else f"{batch.threads} threads"
    title = f"{batch.title}, {threads}: {number(batch.flops / 1e9)} GFLOP"
    ours = batch.row(OURS)
    if ours and "flops" in ours.facts:
        title += f", {number(ours.facts['flops'] / 1e9)} after rewrites"
    if batch.peak:
        peak, read = sorted(batch.peak)[len(batch.peak) // 2], sorted(batch.read)[len(batch.read) // 2]
        title += f"; the machine: {number(peak / 1e9)} GFLOP/s, {number(read / 1e9)} GB/s"
    return title


def batch_notes(batch: Batch) -> list[str]:
    notes = []
    ours, peer = batch.row(OURS), batch.fastest_peer()
    if ours and peer:
        notes.append(f"{spread_text(ratios(ours, peer))} of {peer.contender}, the fastest exact peer")
    if ours and ours.facts.get("weight_bytes") and batch.read:
        notes.append(f"{percent(batch.bound_share(ours).median)} of the bound by arithmetic and by memory")
    if ours and "compile_cpu_s" in ours.facts:
        code = f"{ours.facts['lines']} lines of C, compiled in {number(ours.facts['compile_cpu_s'])} s"
        notes.append(f"{code} into {number(ours.disk['code'] / 1e3)} kB")
    if batch.switch:
        s = batch.switch
        notes.append(
            f"first call after a switch of the task {spread_text(s.first)} of a steady one, the second {spread_text(s.second)}"
        )
        notes.append(
            f"all tasks at once {number(s.all_ms)} ms, one after another {number(s.single_ms)}: {s.all_ms / s.single_ms:.2f}"
        )
    for row in batch.rows:
        if not row.measured:
            notes.append(f"{row.contender}: not measured: {row.failure}")
        notes += [f"{row.contender} as {form}: {text}" for form, text in row.tried.items()]
    return notes


def batch_text(batch: Batch) -> str:
    rows = sorted((r for r in batch.rows if r.measured), key=lambda r: r.median_ms)
    table = aligned([HEAD, *(row_cells(batch, row) for row in rows)]) if rows else "  nothing could be measured"
    return "\n".join([batch_title(batch), table, *(f"  {note}" for note in batch_notes(batch))])


def text(results: Results) -> str:
    about = ", ".join(f"{key} {value}" for key, value in {**results.machine, **results.versions}.items())
    return "\n\n".join([about, *(batch_text(batch) for batch in results.batches), aligned(summary(results), "")])


# ---- all networks ----

SUMMARY_HEAD = [
    "network",
    "moecc, ms",
    "fastest exact peer, ms",
    "ratio (quartiles)",
    "of peak",
    "MB",
    "peer's",
    "2 threads / 1",
]


def scaling(results: Results, network: str) -> str:
    pair = [b.row(OURS) if (b := results.find(network, threads)) else None for threads in (1, 2)]
    return f"{pair[1].median_ms / pair[0].median_ms:.2f}" if pair[0] and pair[1] else "–"


def summary_cells(results: Results, batch: Batch) -> list[str]:
    ours, peer = batch.row(OURS), batch.fastest_peer()
    return [
        batch.title,
        number(ours.median_ms) if ours else "–",
        f"{peer.contender} {number(peer.median_ms)}" if peer else "–",
        spread_text(ratios(ours, peer)) if ours and peer else "–",
        percent(batch.own_share(ours).median) if ours else "–",
        megabytes(ours.memory) if ours else "–",
        megabytes(peer.memory) if peer else "–",
        scaling(results, batch.network),
    ]


def summary(results: Results, threads: int = 1) -> list[list[str]]:
    found: Iterable[Batch | None] = (results.find(network, threads) for network in results.networks())
    return [SUMMARY_HEAD, *(summary_cells(results, batch) for batch in found if batch)]


# ---- the README ----


def figures(results: Results, chart: str) -> str:
    """What stands between the markers."""
    machine = results.machine
    peers = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    about = (
        f"Median milliseconds on {machine.get('processor', 'this machine')} "
        f"({number(machine.get('peak_gflops', math.nan))} GFLOP/s of float32 multiply-adds on one core), one thread, float32, "
        f"all contenders in turn in the same minutes; ratios are medians of paired rounds. Measured with {peers}. A peer "
        f"that is off by more than {INEXACT:g} of an output's largest value does not count."
    )
    notes = []
    for batch in results.batches:
        if batch.switch and batch.threads == 1:
            s = batch.switch
            notes.append(
                f"- {batch.title}: the first call after a switch of the task takes {spread_text(s.first)} of a steady call; "
                f"all tasks in one call take {s.all_ms / s.single_ms:.2f} of one after another."
            )
        expert, token = batch.row(OURS), batch.row(f"{OURS} token-major")
        if expert and token and batch.threads == 1:
            notes.append(f"- {batch.title}: expert by expert takes {spread_text(ratios(expert, token))} of token by token.")
    return "\n\n".join([f"![ratios]({chart})", markdown(summary(results)), about, *(["\n".join(notes)] if notes else [])])


def between_markers(document: str, content: str) -> str:
    """The document with what is between the markers replaced."""
    if document.count(BEGIN) != 1 or document.count(END) != 1 or document.index(BEGIN) > document.index(END):
        raise ValueError(f"the document needs one {BEGIN} and after it one {END}")
    head, rest = document.split(BEGIN)
    return f"{head}{BEGIN}\n{content}\n{END}{rest.split(END)[1]}"


def rewrite(path: Path, results: Results, chart: str) -> None:
    path.write_text(between_markers(path.read_text(), figures(results, chart)))
