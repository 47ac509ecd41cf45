"""What may be said to the lease board: JSON, and of a script's metrics only the numbers. No Ray here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

MAX_NUMBERS = 32
Facts = dict[str, Any]  # Any: JSON


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:  # Any: users report what they like
    """The finite numbers among reported metrics (numpy's too), at most MAX_NUMBERS of them, in the user's order."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            continue
        found[str(name)] = int(value) if isinstance(value, Integral) else float(value)
        if len(found) == MAX_NUMBERS:
            break
    return found


class Pace:
    """Steps per second between two reports, for scripts that report none."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None

    def per_second(self, step: int, now_s: float) -> float | None:
        """Since the report before; None for the first one, and after a restart went back."""
        last, self._last = self._last, (now_s, step)
        if last is None or step <= last[1] or now_s <= last[0]:
            return None
        return round((step - last[1]) / (now_s - last[0]), 3)
