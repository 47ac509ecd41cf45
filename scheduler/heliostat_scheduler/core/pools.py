"""What one queue's running jobs could give to its own waiting ones, in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

from heliostat_scheduler.core.book import JobRec
from heliostat_scheduler.core.harm import evictable, surplus_tasks

NOBODY = 1 << 30


@dataclass(slots=True)
class Pool:
    """The lowest class that could be evicted, the lowest that could give up surplus, and the worst rank of each class."""

    evict: int = NOBODY
    surplus: int = NOBODY
    rank: dict[int, int] = field(default_factory=dict)

    def add(self, rec: JobRec) -> None:
        priority = rec.spec.priority
        if evictable(rec):
            self.evict = min(self.evict, priority)
            self.rank[priority] = max(self.rank.get(priority, 0), rec.rank)
        if surplus_tasks(rec):
            self.surplus = min(self.surplus, priority)


def pool_of(jobs: list[JobRec], flavor: str) -> Pool:
    """The pool of these jobs on one flavor ('' = CPU-only work)."""
    found = Pool()
    for rec in jobs:
        if bool(rec.spec.shape.gpu_milli) == bool(flavor) and (not flavor or rec.flavor == flavor):
            found.add(rec)
    return found
