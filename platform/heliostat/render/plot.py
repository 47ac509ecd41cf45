"""A line of numbers as a small plot for terminals: block characters, the scale at the left, steps below."""

from __future__ import annotations

from collections.abc import Sequence

BLOCKS = " ▁▂▃▄▅▆▇█"
HEIGHT = 8
MARGIN = 12


def plot(name: str, points: Sequence[tuple[float, float]], width: int, height: int = HEIGHT, unit: str = "step") -> str:
    """(x, y) in order of x -> lines of text. Several points that share a column are averaged; a column without any stays empty."""
    columns = _columns(points, max(8, width - MARGIN))
    known = [value for value in columns if value is not None]
    low, high = min(known), max(known)
    span = high - low or 1.0
    filled = [None if value is None else (value - low) / span * (height * 8 - 1) + 1 for value in columns]
    lines = [f"{name}  {_short(points[-1][1])}  (from {_short(low)} to {_short(high)}, {len(points)} points)"]
    for row in range(height - 1, -1, -1):
        label = _short(high) if row == height - 1 else _short(low) if row == 0 else ""
        lines.append(f"{label:>{MARGIN - 2}} │{''.join(_cell(level, row) for level in filled)}".rstrip())
    first, last = _short(points[0][0]), _short(points[-1][0])
    lines.append(f"{'':>{MARGIN - 2}} └{'─' * len(columns)}")
    lines.append(f"{unit:>{MARGIN - 2}}  {first}{last:>{max(1, len(columns) - len(first))}}")
    return "\n".join(lines)


def _columns(points: Sequence[tuple[float, float]], count: int) -> list[float | None]:
    first, last = points[0][0], points[-1][0]
    span = last - first
    count = min(count, len(points)) if span else 1
    sums: list[tuple[float, int]] = [(0.0, 0)] * count
    for x, y in points:
        index = min(count - 1, int((x - first) / span * count)) if span else 0
        total, seen = sums[index]
        sums[index] = (total + y, seen + 1)
    return [total / seen if seen else None for total, seen in sums]


def _cell(level: float | None, row: int) -> str:
    if level is None:
        return " "
    return BLOCKS[max(0, min(8, round(level - row * 8)))]


def _short(value: float) -> str:
    return f"{value:.4g}"
