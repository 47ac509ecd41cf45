"""From many possible futures to one estimate: when a waiting job starts, at best guess (p50) and in nine of ten cases (p90).

A job that does not start before the horizon in a future counts as later than the horizon there. What past estimates of the same queue
missed by is learned by a `Correction`, so that nine of ten hold even where the model of arrivals and lengths is wrong. Both are functions
of their input alone.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from heliostat_scheduler.forecast.future import Course

SOFT_MS = 60_000
"""Added to both sides of a ratio of waits: a minute more or less is no error."""
ENOUGH = 20
"""Past estimates without which their quantile says nothing."""
QUEUE_ENOUGH = 60
KEPT = 400
LIMIT = 5.0
"""Largest anchor, as |log ratio|."""
STEP = 0.3
TRACKED = 2.0
"""Step of the shift, and its largest distance from the anchor, as log ratio."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Times from now, milliseconds; None: later than the horizon."""

    job_id: str
    queue: str
    p50_ms: int | None
    p90_ms: int | None
    samples: int


def estimates(courses: Sequence[Course], job_ids: Iterable[str]) -> list[Estimate]:
    """One estimate per job. The courses begin at the same instant."""
    found = []
    for job_id in job_ids:
        waits = sorted(_wait(course, job_id) for course in courses)
        queue = courses[0].queue_of.get(job_id, "")
        found.append(Estimate(job_id, queue, _finite(quantile(waits, 0.5)), _finite(quantile(waits, 0.9)), len(waits)))
    return found


def _wait(course: Course, job_id: str) -> float:
    at_ms = course.starts.get(job_id)
    return math.inf if at_ms is None else float(at_ms - course.from_ms)


def _finite(value: float) -> int | None:
    return None if math.isinf(value) else round(value)


def quantile(values: Sequence[float], q: float) -> float:
    """What the next one stays below with probability q, if it is drawn as these sorted values were: of n the q (n + 1)-th, between neighbours
    in proportion, the outermost where there is none; infinite as soon as a neighbour is.

    (The q (n - 1) of most libraries describes the values that are there: the next one of six would be below it in 79 of 100 cases, not 90.)
    """
    place = min(max(q * (len(values) + 1) - 1, 0.0), len(values) - 1.0)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    if place == low:
        return values[low]
    if math.isinf(values[high]):
        return math.inf
    return values[low] + (place - low) * (values[high] - values[low])


class Correction:
    """Learns from estimates whose outcome is known. Feed it in the order in which the outcomes became known.

    Each queue has a shift, added to log(estimate). It goes up by STEP x q where the estimate as it would be told now would have been too
    short, and down by STEP x (1 - q) where it would have held (quantile tracking: Gibbs and Candes 2021), so that the share that holds comes
    back to q wherever the past does not fit the present. It begins at, and stays within TRACKED of, the *anchor*: the quantile of what the
    last estimates missed by. Before ENOUGH of them nothing moves. When the anchor moves, the shift does not: the same misses are never
    counted twice.
    """

    def __init__(self) -> None:
        self._missed: dict[tuple[str, str], deque[float]] = {}
        self._shifts: dict[tuple[str, str], float] = {}

    def learn(self, estimate: Estimate, waited_ms: int) -> None:
        """The job waited `waited_ms` from the moment of the (uncorrected) estimate until it started.

        Who started within a minute needed no estimate, and says nothing about those who wait.
        """
        if waited_ms <= SOFT_MS:
            return
        for which, told_ms, q in (("p50", estimate.p50_ms, 0.5), ("p90", estimate.p90_ms, 0.9)):
            if told_ms is None:
                continue
            missed = math.log((waited_ms + SOFT_MS) / (told_ms + SOFT_MS))
            shift = self._shift(which, estimate.queue, q)
            shift += STEP * q if missed > shift else STEP * (q - 1)
            moves = len(self._missed.get((which, ""), ())) >= ENOUGH
            for queue in (estimate.queue, ""):
                self._missed.setdefault((which, queue), deque(maxlen=KEPT)).append(missed)
            if moves:
                anchor = self._anchor(which, estimate.queue, q)
                self._shifts[which, estimate.queue] = max(anchor - TRACKED, min(anchor + TRACKED, shift))

    def correct(self, estimate: Estimate) -> Estimate:
        """The same estimate, moved by what the last ones missed by."""
        p50 = self._moved("p50", estimate.queue, estimate.p50_ms, 0.5)
        p90 = self._moved("p90", estimate.queue, estimate.p90_ms, 0.9)
        if p50 is not None and p90 is not None:
            p90 = max(p50, p90)
        return Estimate(estimate.job_id, estimate.queue, p50, p90, estimate.samples)

    def _moved(self, which: str, queue: str, told_ms: int | None, q: float) -> int | None:
        if told_ms is None:
            return None
        shift = self._shift(which, queue, q)
        return max(0, round(math.exp(shift) * (told_ms + SOFT_MS) - SOFT_MS)) if shift else told_ms

    def _shift(self, which: str, queue: str, q: float) -> float:
        """What is added to the logarithm of an estimate."""
        known = self._shifts.get((which, queue))
        return self._anchor(which, queue, q) if known is None else known

    def _anchor(self, which: str, queue: str, q: float) -> float:
        """The quantile of what the last estimates missed by: of the queue, or of all while the queue has few."""
        mine, everybody = self._missed.get((which, queue), ()), self._missed.get((which, ""), ())
        if len(everybody) < ENOUGH:
            return 0.0
        anchor = quantile(sorted(mine if len(mine) >= QUEUE_ENOUGH else everybody), q)
        return max(-LIMIT, min(LIMIT, anchor))


@dataclass(frozen=True, slots=True)
class Scored:
    """An estimate and what came of it; milliseconds from the moment of the estimate."""

    queue: str
    waited_ms: int
    p50_ms: int
    p90_ms: int


def pinball_ms(waited_ms: float, told_ms: float, q: float) -> float:
    """The loss of a quantile estimate (Koenker and Bassett 1978)."""
    missed = waited_ms - told_ms
    return q * missed if missed >= 0 else (q - 1) * missed


def loss_ms(scored: Scored) -> float:
    """Mean of the losses of p50 and p90."""
    low, high = pinball_ms(scored.waited_ms, scored.p50_ms, 0.5), pinball_ms(scored.waited_ms, scored.p90_ms, 0.9)
    return (low + high) / 2


def summary(rows: Sequence[Scored]) -> Mapping[str, float | int]:
    """coverage: how many started no later than told by p50 and p90. Losses in seconds."""
    count = len(rows)
    if not count:
        return {"jobs": 0}
    return {
        "jobs": count,
        "p50_held": round(sum(row.waited_ms <= row.p50_ms for row in rows) / count, 4),
        "p90_held": round(sum(row.waited_ms <= row.p90_ms for row in rows) / count, 4),
        "pinball_s": round(sum(loss_ms(row) for row in rows) / count / 1000, 2),
        "mean_wait_s": round(sum(row.waited_ms for row in rows) / count / 1000, 2),
    }
