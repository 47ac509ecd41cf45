"""Which trials are worth keeping when there is room for fewer. No Ray here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real


@dataclass(frozen=True, slots=True)
class Standing:
    """A trial's last result. value: of the search's metric, None while it has none. iteration: how many results it has."""

    trial: str
    value: float | None
    iteration: int


def best_first(standings: Iterable[Standing], mode: str | None) -> list[str]:
    """Trials in the order in which they are kept: by metric, those without one after them; equal ones, the further first.

    mode: max, min, or None when the search names no metric; then only progress counts.
    """

    def place(standing: Standing) -> tuple[bool, float, int]:
        value = standing.value if mode is not None else None
        if value is None or not math.isfinite(value):
            return (mode is not None, 0.0, -standing.iteration)
        return (False, value if mode == "min" else -value, -standing.iteration)

    return [standing.trial for standing in sorted(standings, key=place)]


def number_or_none(value: object) -> float | None:
    """A metric as a number; None for whatever else a script reports under its name."""
    if isinstance(value, bool):
        return None
    return float(value) if isinstance(value, Real) else None
