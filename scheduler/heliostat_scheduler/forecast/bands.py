"""How sure a what-if is: the same edit in many pairs of futures, each pair with run times of its own.

Run times are not known, so a single pair says what happens if each job runs as long as the median of its kind. Here every pair draws
them anew (the same draw on both sides, so that what differs is still the edit's doing). With n pairs the true start of a job lies
between the earliest and the latest of its n starts with probability (n - 1) / (n + 1), whatever the distribution, as long as the
true run times are drawn like the others: 19 pairs make nine of ten. `PAIRS` is that number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from heliostat_scheduler.forecast.future import Course

PAIRS = 19
FEWEST = 4
"""Pairs below which nothing is said: three would hold for half of the jobs only."""


@dataclass(frozen=True, slots=True)
class Band:
    """Where the start of one job lies with the edit; None: not before the horizon. earlier, later: in how many of the pairs."""

    low_ms: int | None
    high_ms: int | None
    earlier: int
    later: int

    def holds(self, at_ms: int | None) -> bool:
        """Whether a start lies inside."""
        return _or_never(self.low_ms) <= _or_never(at_ms) <= _or_never(self.high_ms)


def held_share(pairs: int) -> float:
    """Of how many jobs the band holds, 0 to 1."""
    return (pairs - 1) / (pairs + 1)


def bands(pairs: Sequence[tuple[Course, Course]]) -> dict[str, Band]:
    """One band for each job that starts in any of the pairs of (without, with the edit)."""
    jobs = {job_id for base, edited in pairs for job_id in (*base.starts, *edited.starts)}
    return {job_id: _band(job_id, pairs) for job_id in sorted(jobs)}


def _band(job_id: str, pairs: Sequence[tuple[Course, Course]]) -> Band:
    before = [_or_never(base.starts.get(job_id)) for base, _ in pairs]
    after = [_or_never(edited.starts.get(job_id)) for _, edited in pairs]
    moves = list(zip(before, after, strict=True))
    return Band(
        _or_none(min(after)), _or_none(max(after)), sum(new < old for old, new in moves), sum(new > old for old, new in moves)
    )  # fmt: skip


def _or_never(at_ms: int | None) -> float:
    return math.inf if at_ms is None else at_ms


def _or_none(at_ms: float) -> int | None:
    return None if math.isinf(at_ms) else int(at_ms)
