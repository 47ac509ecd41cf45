"""Whether the jobs that started last end faster or slower than those before them: the ratio of their hazard to that of history.

Jobs that start together resemble each other: one search, one evening's sweep. Of a burst of long jobs hardly any has finished, so the
finished ones promise free GPUs much too early. What is known is how many of the burst have ended, and how many should have by now if they
ended like the others: O against E = sum of H(t) over the cohort, with H the cumulative hazard of history (-log of the share that runs
longer than t) and t what each has run. The ratio z has the posterior Gamma(PRIOR + O, PRIOR + E) (a shared frailty: Clayton 1978). With
z the share that outlives t is S(t)^z, so a draw u from the cohort is the draw 1 - (1 - u)^(1/z) from history. A future draws its z, so that
futures differ in whether a whole burst is short or long: independent draws for hundreds of jobs would promise a precision that is not there.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

NEWEST = 400
"""Ended jobs of a kind that may belong to a cohort: the last."""
FEW = 4
"""Running jobs below which there is no cohort."""
PRIOR = 2.0
"""Jobs' worth of belief that a cohort is like the others."""
LEAST = 0.25
"""A cohort is taken to end at most four times slower than history: of a burst whose jobs are all about equally long none has ended
until nearly all end, and a ratio without bound would put the end days away (seen on the Philly trace)."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """ended: how many of it have; expected: how many would have by history."""

    ended: int
    expected: float

    def ratio(self) -> float:
        """The expected hazard ratio."""
        return max(LEAST, (PRIOR + self.ended) / (PRIOR + self.expected))

    def draw(self, seed: str) -> float:
        """One possible hazard ratio: the same for the same seed in every process."""
        return max(LEAST, random.Random(seed).gammavariate(PRIOR + self.ended, 1 / (PRIOR + self.expected)))


def cohort(lengths: Sequence[int], finished: Sequence[tuple[int, int]], running: Sequence[tuple[int, int]]) -> Cohort:
    """Who has started since the first quarter of those that run. lengths: of history, ascending; the others: (started at, has run), ms."""
    if len(running) < FEW:
        return Cohort(0, 0.0)
    since_ms = sorted(at_ms for at_ms, _ in running)[len(running) // 4]
    ended = [ran_ms for at_ms, ran_ms in finished if at_ms >= since_ms]
    runs = [ran_ms for at_ms, ran_ms in running if at_ms >= since_ms]
    return Cohort(len(ended), sum(_hazard(lengths, ran_ms) for ran_ms in (*ended, *runs)))


def _hazard(lengths: Sequence[int], ran_ms: int) -> float:
    """The cumulative hazard of history; half a job is thought to be longer than the longest."""
    longer = len(lengths) - bisect_right(lengths, ran_ms)
    return -math.log((longer + 0.5) / (len(lengths) + 0.5))


def stretched(u: float, ratio: float) -> float:
    """The share of history that corresponds to a share of the cohort."""
    return 1.0 - math.pow(1.0 - u, 1.0 / ratio)
