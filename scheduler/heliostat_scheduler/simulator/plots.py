"""Plots as inline SVG: lines, stacked areas, and a Gantt chart of GPUs. No script and no other file."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from heliostat_scheduler.simulator.spans import Span

COLOURS = ("#c2410c", "#0369a1", "#15803d", "#7e22ce", "#a16207", "#be123c", "#0f766e", "#475569", "#1c1917")
WIDTH, HEIGHT, MARGIN = 720, 260, 46
ROW = 6
"""Height of one GPU in the Gantt chart."""
UNITS = ((86_400, "d", 3 * 86_400), (3600, "h", 2 * 3600), (60, "min", 120))
"""(seconds, name, least span in seconds for which an axis or a cell is in this unit); below all of them: seconds."""
GANTT_GPUS = 64
GANTT_SPANS = 4000
LEGEND_Y, LEGEND_LETTER, LEGEND_NAME = 12, 7, 24
Point = tuple[float, float]


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def span_text(seconds: float, longest_s: float | None = None) -> str:
    """A span of time for people, in the unit that suits it (or the longest one beside it)."""
    reach = abs(seconds if longest_s is None else longest_s)
    factor, name = next(((factor, name) for factor, name, least in UNITS if reach >= least), (1, "s"))
    return f"{count_text(seconds / factor)} {name}"


def count_text(number: float) -> str:
    """A number without powers of ten: 1,234 or 12.3 or 0.5."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def lines(curves: dict[str, Sequence[Point]], top: float | None = None, x_s: float = 3600.0) -> str:
    """Lines over linear axes with a legend. x is time, in units of x_s seconds."""
    right = max((x for points in curves.values() for x, _ in points), default=1.0) or 1.0
    top = top or max((y for points in curves.values() for _, y in points), default=1.0) or 1.0
    parts = [_open(HEIGHT), _axes(right * x_s, top), _legend(list(curves))]
    for index, points in enumerate(curves.values()):
        path = " ".join(_at(x, y, right, top) for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour(index)}" stroke-width="1.6"/>')
    return "".join(parts) + "</svg>"


def stacked(hours: Sequence[float], layers: dict[str, Sequence[float]], top: float) -> str:
    """Areas on top of each other, the first at the bottom."""
    right = max(hours, default=1.0) or 1.0
    parts = [_open(HEIGHT), _axes(right * 3600, top), _legend(list(layers))]
    below = np.zeros(len(hours))
    for index, layer in enumerate(layers.values()):
        above = below + np.asarray(layer)
        forth = [_at(x, y, right, top) for x, y in zip(hours, above, strict=True)]
        back = [_at(x, y, right, top) for x, y in reversed(list(zip(hours, below, strict=True)))]
        parts.append(f'<polygon points="{" ".join(forth + back)}" fill="{colour(index)}" fill-opacity="0.75"/>')
        below = above
    return "".join(parts) + "</svg>"


def gantt(spans: Sequence[Span], gpus_per_node: int, gpus: int, queues: Sequence[str]) -> tuple[str, str]:
    """One row per GPU, one bar per stay, coloured by queue; and what was left out, in words."""
    shown = min(gpus, GANTT_GPUS)
    bars = list(_bars(spans, gpus_per_node, shown))
    left_out = [f"the first {shown} of {gpus} GPUs"] if shown < gpus else []
    if len(bars) > GANTT_SPANS:
        bars.sort(key=lambda bar: bar[2].from_s - bar[2].to_s)
        shortest = bars[GANTT_SPANS - 1][2]
        left_out.append(f"only stays of at least {shortest.to_s - shortest.from_s:.0f} s")
        bars = bars[:GANTT_SPANS]
    begin, end = min((b[2].from_s for b in bars), default=0.0), max((b[2].to_s for b in bars), default=1.0)
    scale = (WIDTH - 2 * MARGIN) / max(1e-9, end - begin)
    height = shown * ROW + 2 * MARGIN
    parts = [_open(height), _legend(list(queues))]
    for row, count, span in bars:
        x, width = MARGIN + (span.from_s - begin) * scale, max(0.4, (span.to_s - span.from_s) * scale)
        stay = f"from {span_text(span.from_s, end)} for {span_text(span.to_s - span.from_s)}"
        told = f"{span.job} ({span.queue}), {span.gpus} GPUs, {stay}"
        parts.append(
            f'<rect x="{x:.1f}" y="{MARGIN + row * ROW}" width="{width:.1f}" height="{count * ROW - 1}" '
            f'fill="{colour(list(queues).index(span.queue))}"><title>{escape(told)}</title></rect>'
        )
    for share in (0.0, 0.5, 1.0):
        at, passed = MARGIN + (WIDTH - 2 * MARGIN) * share, begin + (end - begin) * share
        parts.append(_text(at, height - MARGIN + 16, span_text(passed, end), "middle"))
    return "".join(parts) + "</svg>", "; ".join(left_out)


def _bars(spans: Sequence[Span], gpus_per_node: int, shown: int) -> Iterable[tuple[int, int, Span]]:
    """(first row, rows, span): each stay gets free rows of its node, neighbouring ones in one bar."""
    free: dict[int, list[int]] = {}
    ends: list[tuple[float, int, int, list[int]]] = []
    for number, span in enumerate(sorted(spans, key=lambda s: (s.from_s, s.to_s, s.job))):
        while ends and ends[0][0] <= span.from_s:
            _, _, node, rows = heapq.heappop(ends)
            free[node] = sorted(free[node] + rows)
        for node, count in span.held:
            rows = free.setdefault(node, list(range(gpus_per_node)))
            free[node], mine = rows[count:], rows[:count]
            heapq.heappush(ends, (span.to_s, number, node, mine))
            for first, length in _runs(mine):
                if node * gpus_per_node + first + length <= shown:
                    yield node * gpus_per_node + first, length, span


def _runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for row in rows:
        if found and row == found[-1][0] + found[-1][1]:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((row, 1))
    return found


def _open(height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">'


def _axes(right_s: float, top: float) -> str:
    base, span, rise = HEIGHT - MARGIN, WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    parts = [f'<path d="M{MARGIN} {MARGIN}V{base}H{WIDTH - MARGIN}" fill="none" stroke="#a8a29e"/>']
    for share in (0, 0.5, 1):
        parts.append(_text(MARGIN + span * share, base + 16, span_text(right_s * share, right_s), "middle"))
        parts.append(_text(MARGIN - 6, base - rise * share, count_text(top * share), "end"))
    return "".join(parts)


def _legend(names: Sequence[str]) -> str:
    """Side by side, in as many rows as that takes; long names are cut."""
    parts, x, y = [], MARGIN, LEGEND_Y
    for index, name in enumerate(names):
        told = name if len(name) <= LEGEND_NAME else name[: LEGEND_NAME - 1] + "…"
        width = LEGEND_LETTER * len(told) + 12
        if x > MARGIN and x + width > WIDTH:
            x, y = MARGIN, y + 13
        parts.append(f'<text x="{x}" y="{y}" font-size="12" fill="{colour(index)}">{escape(told)}</text>')
        x += width
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="11" text-anchor="{anchor}">{text}</text>'


def _at(x: float, y: float, right: float, top: float) -> str:
    return f"{MARGIN + (WIDTH - 2 * MARGIN) * x / right:.1f},{HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * y / top:.1f}"
