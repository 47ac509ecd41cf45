"""How many tasks each elastic job should run, from learned goodput curves: hill climbing, integers only.

Each job has a table size -> goodput. With `fair` = capacity / jobs, its slowness at size k is w x goodput(fair) / (goodput(k) x f):
f < 1 charges the pause of a change of size over the horizon; w = (1 + age / 60 s)^(-1/4), age being the work done in seconds at fair
share, lets short jobs through first. The sum of slownesses is reduced step by step from the present allocation: a job takes its
next sizes from free tasks or from the jobs that lose least per task, while that helps. (Pollux, OSDI 2021, has the same aim with
a genetic algorithm; exact search gains nothing over this.)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

UNIT = 1_000_000
AGE_UNIT_S = 60
STEPS = 3
"""Sizes looked ahead in each direction."""


@dataclass(frozen=True, slots=True)
class Elastic:
    """A job that may change its size. table: (tasks, goodput in milli-units per second) ascending; done_milli: units done so far."""

    id: str
    held: int
    table: tuple[tuple[int, int], ...]
    done_milli: int
    keep_permille: int
    """f: what a change of size leaves of a horizon, in thousandths."""
    weight: int = 1


class _Climber:
    """One job during the search: its sizes, its slowness at each, and where it is."""

    __slots__ = ("at", "id", "sizes", "slow", "turn")

    def __init__(self, turn: int, job: Elastic, fair: int) -> None:
        self.turn = turn
        self.id = job.id
        self.sizes = [size for size, _ in job.table]
        base = max(1, goodput_at(job.table, fair))
        age_s = job.done_milli // base
        weight = job.weight * isqrt(isqrt(AGE_UNIT_S * 10**24 // (AGE_UNIT_S + age_s)))
        self.slow = [
            weight * base * 1000 // max(1, goodput * (1000 if size == job.held else job.keep_permille))
            for size, goodput in job.table
        ]
        self.at = self.sizes.index(job.held)

    def ups(self) -> list[tuple[int, int, int]]:
        """(tasks needed, gain, index) of the next larger sizes that help."""
        now, here = self.slow[self.at], self.sizes[self.at]
        found = range(self.at + 1, min(self.at + 1 + STEPS, len(self.sizes)))
        return [(self.sizes[i] - here, now - self.slow[i], i) for i in found if self.slow[i] < now]

    def downs(self) -> list[tuple[int, int, int]]:
        """(tasks freed, loss, index) of the next smaller sizes."""
        now, here = self.slow[self.at], self.sizes[self.at]
        return [(here - self.sizes[i], self.slow[i] - now, i) for i in range(max(0, self.at - STEPS), self.at)]


def goodput_at(table: tuple[tuple[int, int], ...], tasks: int) -> int:
    """Linear between the sizes of the table, constant outside."""
    below = table[0]
    for size, goodput in table:
        if size >= tasks:
            if size == tasks or size == below[0]:
                return goodput
            return below[1] + (goodput - below[1]) * (tasks - below[0]) // (size - below[0])
        below = (size, goodput)
    return below[1]


def target_sizes(jobs: list[Elastic], capacity: int, fair: int | None = None, budget: int = 400) -> dict[str, int]:
    """Tasks per job, summing to at most `capacity` (at least what they hold now is assumed to fit). At equal gain the earlier in `jobs`.

    fair: the share per job, when more jobs take part than may be changed now.
    """
    if fair is None:
        fair = max(1, -(-capacity // max(1, len(jobs))))
    climbers = [_Climber(turn, job, fair) for turn, job in enumerate(jobs)]
    free = capacity - sum(job.held for job in jobs)
    for _ in range(budget):
        move = _best_move(climbers, free)
        if move is None:
            break
        taker, index, donors = move
        for donor, lower in donors:
            free += donor.sizes[donor.at] - donor.sizes[lower]
            donor.at = lower
        free -= taker.sizes[index] - taker.sizes[taker.at]
        taker.at = index
    return {climber.id: climber.sizes[climber.at] for climber in climbers}


Donors = list[tuple[_Climber, int]]


def _best_move(climbers: list[_Climber], free: int) -> tuple[_Climber, int, Donors] | None:
    """The step up with the largest net gain per task, and who pays for it."""
    offers = sorted(
        (
            (loss * UNIT // tasks, loss, tasks, climber, index)
            for climber in climbers
            for tasks, loss, index in climber.downs()
        ),
        key=lambda offer: (offer[0], offer[3].turn, offer[4]),
    )
    best: tuple[int, _Climber, int, Donors] | None = None
    for climber in climbers:
        for tasks, gain, index in climber.ups():
            found = _donors(offers, climber, tasks - free) if tasks > free else (0, [])
            if found is None or gain <= found[0]:
                continue
            net = (gain - found[0]) * UNIT // tasks
            if best is None or net > best[0]:
                best = (net, climber, index, found[1])
    return None if best is None else best[1:]


def _donors(offers: list[tuple[int, int, int, _Climber, int]], taker: _Climber, need: int) -> tuple[int, Donors] | None:
    """The cheapest way found to free `need` tasks: one donor that suffices, or several by loss per task."""
    one: tuple[int, Donors] | None = None
    several: Donors = []
    seen: set[str] = set()
    loss, freed = 0, 0
    for _, cost, tasks, donor, index in offers:
        if donor is taker:
            continue
        if tasks >= need and (one is None or cost < one[0]):
            one = (cost, [(donor, index)])
        if freed < need and donor.id not in seen:
            seen.add(donor.id)
            several.append((donor, index))
            loss += cost
            freed += tasks
    if freed < need:
        return one
    return one if one is not None and one[0] <= loss else (loss, several)
