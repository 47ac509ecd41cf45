"""What one queue's running jobs could give to its own waiting ones, in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heliostat_scheduler.core.book import JobRec
from heliostat_scheduler.core.harm import evictable, surplus_tasks
from heliostat_scheduler.core.tree import QueueNode

if TYPE_CHECKING:
    from heliostat_scheduler.core.state import State

NOBODY = 1 << 30


@dataclass(slots=True)
class Pool:
    """The lowest class that could be evicted, the lowest that could give up surplus, and the worst rank of each class; `most`: the sum at the
    very most, in milli-GPU."""

    evict: int = NOBODY
    surplus: int = NOBODY
    rank: dict[int, int] = field(default_factory=dict)
    most: int = 0

    def add(self, rec: JobRec) -> None:
        priority, milli = rec.spec.priority, rec.spec.shape.gpu_milli
        surplus = surplus_tasks(rec)
        if evictable(rec):
            self.most += milli * len(rec.places)
            self.evict = min(self.evict, priority)
            self.rank[priority] = max(self.rank.get(priority, 0), rec.rank)
        elif surplus:
            self.most += milli * surplus
        if surplus:
            self.surplus = min(self.surplus, priority)


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
