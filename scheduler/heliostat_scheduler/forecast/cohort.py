"""Whether the jobs that came last end faster or slower than those before them, at each age: the ratio of their hazard to that of history.

Jobs that come together resemble each other: one search, one evening's sweep. Of a burst of long jobs hardly any has finished, so the
finished ones promise free GPUs much too early. What is known is how many of the burst have ended, and how many should have by now if they
ended like the others. A job's life is cut into pieces of equal hazard of history, H (-log of the share that runs longer). In each
piece O of the cohort ended and E should have: the time they spent there, measured in H. The ratio z of the piece has the posterior
Gamma(PRIOR + O, PRIOR + E) (Kalbfleisch 1978), so the ages that the burst has been through are its own, and beyond the oldest it is like
history: a burst of equal jobs ends nearly at once, and nothing in its youth tells how late. One ratio for all ages took that for a
tail four times as heavy (seen on the Philly trace). A future draws its ratios, so that futures differ in whether a whole burst
is short or long: independent draws for hundreds of jobs would promise a precision that is not there.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

NEWEST = 2_000
"""Ended jobs of a kind that may belong to a cohort: the last."""
FEW = 4
"""Begun jobs below which there is no cohort."""
PRIOR = 1.0
"""Jobs' worth of belief that a cohort is like the others, in each piece."""
PIECE = 0.5
PIECES = 12
"""Hazard of history in one piece of a life, and how many there are; the last has no end."""


@dataclass(frozen=True, slots=True)
class Ended:
    submitted_ms: int
    ended_ms: int
    ran_ms: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a cohort lives through each piece, relative to history."""

    ratios: tuple[float, ...]

    def share(self, hazard: float, u: float) -> float:
        """Of those in history that outlived `hazard`: the share that corresponds to the share u of the cohort."""
        need, at = -math.log1p(-u), hazard
        for number in range(min(PIECES - 1, int(hazard / PIECE)), PIECES):
            ratio, end = self.ratios[number], (number + 1) * PIECE
            if number == PIECES - 1 or need <= (end - at) * ratio:
                return -math.expm1(hazard - at - need / ratio)
            need -= (end - at) * ratio
            at = end
        raise AssertionError("the last piece has no end")


@dataclass(frozen=True, slots=True)
class Cohort:
    """Of each piece, ended: how many of it have; expected: how many would have by history."""

    ended: tuple[int, ...] = (0,) * PIECES
    expected: tuple[float, ...] = (0.0,) * PIECES

    def pace(self) -> Pace:
        """As expected."""
        return Pace(tuple((PRIOR + o) / (PRIOR + e) for o, e in zip(self.ended, self.expected, strict=True)))

    def draw(self, seed: str) -> Pace:
        """One possible pace: the same for the same seed in every process."""
        rng = random.Random(seed)
        pairs = zip(self.ended, self.expected, strict=True)
        return Pace(tuple(max(1e-6, rng.gammavariate(PRIOR + o, 1 / (PRIOR + e))) for o, e in pairs))


def cohort(lengths: Sequence[int], finished: Sequence[Ended], begun: Sequence[tuple[int, int]]) -> Cohort:
    """Who came since the first quarter of those that have begun. lengths: of history, ascending; begun: (submitted at, has run), ms."""
    if len(begun) < FEW:
        return Cohort()
    since_ms = sorted(at_ms for at_ms, _ in begun)[len(begun) // 4]
    if len(finished) >= NEWEST:
        since_ms = max(since_ms, finished[0].ended_ms)
    members = [(row.ran_ms, True) for row in finished if row.submitted_ms >= since_ms]
    members += [(ran_ms, False) for at_ms, ran_ms in begun if at_ms >= since_ms]
    ended, expected = [0] * PIECES, [0.0] * PIECES
    for ran_ms, over in members:
        lived = hazard_at(lengths, ran_ms)
        last = min(PIECES - 1, int(lived / PIECE))
        ended[last] += over
        for number in range(last):
            expected[number] += PIECE
        expected[last] += lived - last * PIECE
    return Cohort(tuple(ended), tuple(expected))


def hazard_at(lengths: Sequence[int], ran_ms: int) -> float:
    """The cumulative hazard of history up to an age; half a job is thought to be longer than the longest."""
    longer = len(lengths) - bisect_right(lengths, ran_ms)
    return -math.log((longer + 0.5) / (len(lengths) + 0.5))
