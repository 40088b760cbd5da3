"""The chart: for each network a bar per contender, its time over that of the fastest exact peer, as SVG."""

from __future__ import annotations

from html import escape

from bench.results import OURS, Batch, Results, Row, Spread, ratios

COLORS = {
    OURS: "#1a7f64",
    f"{OURS} token-major": "#8cc9b7",
    "onnxruntime": "#4c78a8",
    "OpenVINO": "#9d6bb8",
    "MNN": "#e08a3c",
    "PyTorch eager": "#c94f4f",
    "PyTorch inductor": "#e39b9b",
    "emx-onnx-cgen": "#8a8a8a",
    "IREE": "#b8a23a",
}
OTHER = "#cccccc"
LIMIT = 2.5  # of the axis; longer bars are cut, and say how long they are
LEFT, WIDTH, RIGHT = 240, 480, 110
BAR, GAP, TOP = 13, 12, 46


def bars(batch: Batch) -> list[tuple[Row, Spread]]:
    """Each measured contender's time over the fastest exact peer's."""
    peer = batch.fastest_peer()
    if peer is None:
        return []
    return [(row, ratios(row, peer)) for row in batch.rows if row.measured]


def x_of(value: float) -> float:
    return LEFT + WIDTH * min(value, LIMIT) / LIMIT


def _text(x: float, y: float, content: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(content)}</text>'


def bar(row: Row, s: Spread, y: float) -> list[str]:
    color = COLORS.get(row.contender, OTHER)
    faint = "" if row.exact else ' fill-opacity="0.35"'
    middle = y + BAR / 2
    label = f"{s.median:.2f}" + ("" if row.exact else " inexact")
    parts = [
        f'<rect x="{LEFT}" y="{y:.1f}" width="{x_of(s.median) - LEFT:.1f}" height="{BAR - 2}" fill="{color}"{faint}/>',
        _text(max(x_of(s.median), x_of(s.high)) + 5, y + BAR - 4, label, 'class="value"'),
        _text(LEFT - 6, y + BAR - 4, row.contender, 'class="who"'),
    ]
    if s.low < LIMIT:
        parts.append(
            f'<line x1="{x_of(s.low):.1f}" x2="{x_of(s.high):.1f}" y1="{middle - 1:.1f}" y2="{middle - 1:.1f}" stroke="#222"/>'
        )
    return parts


def axis(bottom: float) -> list[str]:
    parts = []
    for tick in (0.0, 0.5, 1.0, 1.5, 2.0, LIMIT):
        color = "#222" if tick == 1.0 else "#ddd"
        parts.append(f'<line x1="{x_of(tick):.1f}" x2="{x_of(tick):.1f}" y1="{TOP - 8}" y2="{bottom:.1f}" stroke="{color}"/>')
        parts.append(_text(x_of(tick), TOP - 12, f"{tick:g}", 'class="tick"'))
    return parts


def svg(results: Results, threads: int = 1) -> str:
    groups = [batch for batch in results.batches if batch.threads == threads and bars(batch)]
    y: float = TOP
    drawn: list[str] = []
    for batch in groups:
        y += 14
        drawn.append(_text(8, y - 2, batch.title, 'class="network"'))
        for row, s in sorted(bars(batch), key=lambda pair: pair[1].median):
            drawn += bar(row, s, y)
            y += BAR
        y += GAP
    counted = "one thread" if threads == 1 else f"{threads} threads"
    head = f"Time over that of the fastest exact peer, {counted} (lines: quartiles)"
    style = (
        "text{font:11px sans-serif;fill:#222}.who,.value{font-size:10px}.who{text-anchor:end}"
        ".tick{text-anchor:middle}.network{font-weight:bold}"
    )
    size = f'width="{LEFT + WIDTH + RIGHT}" height="{y:.0f}" viewBox="0 0 {LEFT + WIDTH + RIGHT} {y:.0f}"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', f"<style>{style}</style>"]
    lines.append(f'<rect width="{LEFT + WIDTH + RIGHT}" height="{y:.0f}" fill="#fff"/>')
    lines += [_text(8, 18, head), *axis(y - GAP), *drawn, "</svg>", ""]
    return "\n".join(lines)
