"""How `decide` grows: latency from 1,000 to 100,000 GPUs, and from 1,000 to 100,000 waiting jobs, measured and drawn.

Each point is a run of `bench decide` with fewer cycles. Both axes of the picture are logarithmic; the dashed lines are growth in
proportion, through the first measured median.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path

from heliostat_scheduler.simulator.load.latency import latency
from heliostat_scheduler.simulator.results import peak_memory_mb
from heliostat_scheduler.simulator.tables import BadInput

QUEUES = 50
SERIES = (("p50_ms", "median", "#0369a1"), ("p99_ms", "99th percentile", "#c2410c"))
WIDTH, HEIGHT, LEFT, TOP, SPAN, RISE = 760, 330, 60, 50, 290, 220


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: what grows, what stays, and `bench decide`'s answer per size."""

    title: str
    points: list[tuple[int, dict[str, object]]]


def growth(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure, write the SVG and the page beside it; the keys of the command."""
    out: Path = arguments.out
    if not out.is_dir():
        raise BadInput(f"{out}: no such folder")
    sizes: list[int] = arguments.sizes
    gpus, pending = arguments.gpus, arguments.pending
    began, load = time.monotonic(), _load()
    panels = [
        Panel(
            f"GPUs, {pending:,} jobs waiting", [(n, latency(n, pending, QUEUES, arguments.cycles, 0)) for n in sizes]
        ),
        Panel(f"waiting jobs, {gpus:,} GPUs", [(n, latency(gpus, n, QUEUES, arguments.cycles, 0)) for n in sizes]),
    ]
    told = (
        f"{arguments.cycles} cycles a point, {QUEUES} queues, one core; Python {platform.python_version()}, {os.cpu_count()} CPUs, "
        f"load average {load} before and {_load()} after"
    )
    (out / "growth.svg").write_text(picture(panels, told), encoding="utf-8")
    (out / "growth.md").write_text(page(panels, told), encoding="utf-8")
    first = panels[0].points[0][1]
    return {
        "suite": "growth", "policy": "heliostat", "policy_digest": first["policy_digest"], "trace": "generator",
        "points": [
            {"gpus": row["gpus"], "pending": row["pending"], "p50_ms": row["p50_ms"], "p99_ms": row["p99_ms"], "max_ms": row["max_ms"]}
            for panel in panels for _, row in panel.points
        ],
        "load_average": load, "peak_memory_mb": peak_memory_mb(), "wall_s": round(time.monotonic() - began, 2),
    }  # fmt: skip


def _load() -> str:
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


def page(panels: Sequence[Panel], told: str) -> str:
    """The numbers as a table, for docs/."""
    lines = [
        "# How `decide` grows",
        "",
        "One cycle is apply + decide + log record, as in `bench decide`; the cluster is 95 % allocated and half of the queues are above quota.",
        f"{told[0].upper()}{told[1:]}.",
        "",
        "![Latency of one cycle by GPUs and by waiting jobs](growth.svg)",
        "",
        "| GPUs | waiting | median ms | p99 ms | max ms | cycles that evict |",
        "|---|---|---|---|---|---|",
    ]
    for panel in panels:
        for _, row in panel.points:
            numbers = (row["gpus"], row["pending"], row["p50_ms"], row["p99_ms"], row["max_ms"], row["evicting_share"])
            lines.append(
                "| "
                + " | ".join(f"{number:,}" if isinstance(number, int) else str(number) for number in numbers)
                + " |"
            )
    lines += ["", "Made by `python -m heliostat_scheduler.simulator growth --out docs`.", ""]
    return "\n".join(lines)


def picture(panels: Sequence[Panel], told: str) -> str:
    """Both panels side by side on the same scales."""
    values = [float(str(row[key])) for panel in panels for _, row in panel.points for key, _, _ in SERIES]
    low, high = _decades(values)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui,sans-serif">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    ]
    for index, panel in enumerate(panels):
        parts.append(_panel(panel, LEFT + index * (SPAN + LEFT + 20), low, high))
    for index, (_, name, colour) in enumerate(SERIES):
        parts.append(_text(LEFT + index * 90, 22, name, colour=colour, size=13))
    parts.append(_text(LEFT, HEIGHT - 8, told, colour="#57534e", size=10))
    return "".join(parts) + "</svg>\n"


def _panel(panel: Panel, left: int, low: int, high: int) -> str:
    sizes = [size for size, _ in panel.points]
    first, last = log10(sizes[0]), max(log10(sizes[-1]), log10(sizes[0]) + 1e-9)

    def at(size: float, value: float) -> tuple[float, float]:
        return left + SPAN * (log10(size) - first) / (last - first), TOP + RISE * (high - log10(value)) / (high - low)

    parts = [f'<path d="M{left} {TOP}V{TOP + RISE}H{left + SPAN}" fill="none" stroke="#a8a29e"/>']
    for decade in range(low, high + 1):
        y = at(sizes[0], 10.0**decade)[1]
        parts.append(
            f'<path d="M{left} {y:.1f}h{SPAN}" stroke="#e7e5e4"/>'
            + _text(left - 6, y + 4, f"{10.0**decade:g} ms", "end")
        )
    parts += [_text(at(size, 1)[0], TOP + RISE + 16, f"{size:,}", "middle") for size in sizes]
    parts.append(_text(left + SPAN / 2, TOP + RISE + 34, panel.title, "middle", size=12))
    for key, _, colour in SERIES:
        points = [at(size, max(10.0**low, float(str(row[key])))) for size, row in panel.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    median = float(str(panel.points[0][1]["p50_ms"]))
    limit = min(10.0**high, median * sizes[-1] / sizes[0])
    (x1, y1), (x2, y2) = at(sizes[0], median), at(sizes[0] * limit / median, limit)
    parts.append(f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#78716c" stroke-dasharray="4 4"/>')
    return "".join(parts)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = min(max(value, 0.01) for value in values), max(values)
    return int(log10(low) // 1), max(int(-(-log10(high) // 1)), int(log10(low) // 1) + 1)


def _text(x: float, y: float, text: str, anchor: str = "start", *, colour: str = "#1c1917", size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
