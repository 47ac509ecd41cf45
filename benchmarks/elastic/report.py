"""Medians of the measured changes, how far they spread, and what issue B promises of them."""

from __future__ import annotations

import statistics
from typing import Any

FIGURES = ("released", "pause", "again", "lost", "overlap", "overlap_steps_per_s", "calm_steps_per_s")
SIDES = ("plain", "warm", "stock", "stock60")
Rows = list[dict[str, Any]]  # Any: JSON
PROMISES = (
    ("pause", "plain", "stock", 1.15),
    ("pause", "warm", "stock", 0.5),
    ("again", "warm", "plain", 1.25),
)
RELEASED_S = 1.5


def print_report(rows: Rows) -> None:
    """One line for each change and side: median (least-most). Then each promise beside what was measured."""
    loads = [row["load_average"] for row in rows]
    print(f"load average when a run began: {min(loads)} to {max(loads)}")
    print(f"{'change':8s} {'side':8s} {'n':>2s} " + " ".join(f"{name:>22s}" for name in FIGURES))
    for before, after in sorted({(row["before"], row["after"]) for row in rows}):
        for side in SIDES:
            if mine := _of(rows, before, after, side):
                print(
                    f"{before} -> {after:d}   {side:8s} {len(mine):2d} " + " ".join(_spread(mine, f) for f in FIGURES)
                )
    for before, after in sorted({(row["before"], row["after"]) for row in rows}):
        for text in promises(rows, before, after):
            print(f"{before} -> {after:d}   {text}")


def promises(rows: Rows, before: int, after: int) -> list[str]:
    """What is promised of one change, as far as both sides of it were measured."""
    found = []
    for figure, ours, other, most in PROMISES:
        mine, theirs = _of(rows, before, after, ours), _of(rows, before, after, other)
        if mine and theirs:
            ratio = _median(mine, figure) / _median(theirs, figure)
            found.append(f"{figure}: {ours} is {ratio:.2f}x {other}'s (at most {most}): {_verdict(ratio <= most)}")
    for side in ("plain", "warm"):
        if mine := _of(rows, before, after, side):
            released, lost = _median(mine, "released"), max(row["lost"] for row in mine)
            found.append(
                f"{side} released after {released:.2f} s (at most {RELEASED_S}): {_verdict(released <= RELEASED_S)}"
            )
            found.append(f"{side} lost at most {lost} steps (0): {_verdict(lost == 0)}")
    return found


def _verdict(held: bool) -> str:
    return "held" if held else "MISSED"


def _of(rows: Rows, before: int, after: int, side: str) -> Rows:
    return [row for row in rows if (row["before"], row["after"], row["side"]) == (before, after, side)]


def _median(rows: Rows, figure: str) -> float:
    return float(statistics.median(row[figure] for row in rows))


def _spread(rows: Rows, figure: str) -> str:
    values = [row[figure] for row in rows]
    return f"{statistics.median(values):8.2f} ({min(values):.2f}-{max(values):.2f})".rjust(22)
