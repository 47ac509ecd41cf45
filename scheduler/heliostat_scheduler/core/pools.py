"""What one queue's running jobs could give to its own waiting ones and to others, in a few numbers."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from heliostat_scheduler.core.book import JobRec
from heliostat_scheduler.core.harm import evictable, surplus_tasks
from heliostat_scheduler.core.tree import QueueNode

if TYPE_CHECKING:
    from heliostat_scheduler.core.state import State

NOBODY = 1 << 30


@dataclass(slots=True)
class Pool:
    """The lowest class that could be evicted, the lowest that could give up surplus, and the worst rank of each class.

    Sums in milli-GPU, as if nobody was protected: `most` at the very most, `biggest` the largest job, `whole` jobs and `spare` surplus by class.
    """

    evict: int = NOBODY
    surplus: int = NOBODY
    rank: dict[int, int] = field(default_factory=dict)
    most: int = 0
    biggest: int = 0
    whole: dict[int, int] = field(default_factory=dict)
    spare: dict[int, int] = field(default_factory=dict)
    _jobs: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    _from_rank: dict[int, tuple[list[int], list[int]]] = field(default_factory=dict)
    _lower: dict[int, int] = field(default_factory=dict)

    def add(self, rec: JobRec) -> None:
        priority, milli = rec.spec.priority, rec.spec.shape.gpu_milli
        surplus = surplus_tasks(rec)
        if evictable(rec):
            held = milli * len(rec.places)
            self.most += held
            self.biggest = max(self.biggest, held)
            self.whole[priority] = self.whole.get(priority, 0) + held
            self._jobs.setdefault(priority, []).append((rec.rank, held))
            self.evict = min(self.evict, priority)
            self.rank[priority] = max(self.rank.get(priority, 0), rec.rank)
        elif surplus:
            self.most += milli * surplus
            self.biggest = max(self.biggest, milli)
        if surplus:
            self.surplus = min(self.surplus, priority)
            self.spare[priority] = self.spare.get(priority, 0) + milli * surplus

    def gives(self, priority: int) -> int:
        """To a wish of this class of its own queue, turns left aside: lower classes, and the surplus of equals."""
        found = self._lower.get(priority)
        if found is None:
            whole = sum(milli for other, milli in self.whole.items() if other < priority)
            spare = sum(milli for other, milli in self.spare.items() if other <= priority)
            found = self._lower[priority] = whole + spare
        return found

    def beaten(self, priority: int, rank: int) -> int:
        """What jobs of this class and of this rank or a worse one hold."""
        known = self._from_rank.get(priority)
        if known is None:
            jobs = sorted(self._jobs.get(priority, ()))
            total = self.whole.get(priority, 0)
            known = ([job[0] for job in jobs], [total, *(total - held for held in accumulate(job[1] for job in jobs))])
            self._from_rank[priority] = known
        return known[1][bisect_left(known[0], rank)]


def pool_in(state: State, leaf: QueueNode, flavor: str) -> Pool:
    """The pool of a queue, kept until something of its leases changes."""
    key = (leaf.name, flavor)
    version = state.book.leaf_version.get(leaf.name, 0)
    known = state.pools.get(key)
    if known is None or known[0] != version:
        known = state.pools[key] = (version, pool_of(state.holders(leaf.name), flavor))
    return known[1]


def pool_of(jobs: list[JobRec], flavor: str) -> Pool:
    """The pool of these jobs on one flavor ('' = CPU-only work)."""
    found = Pool()
    for rec in jobs:
        if bool(rec.spec.shape.gpu_milli) == bool(flavor) and (not flavor or rec.flavor == flavor):
            found.add(rec)
    return found
