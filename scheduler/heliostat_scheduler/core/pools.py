"""What one queue's running jobs could give to its own waiting ones and to others, in a few numbers."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from heliostat_scheduler.core.book import JobRec
from heliostat_scheduler.core.harm import evictable, surplus_tasks
from heliostat_scheduler.core.tree import QueueNode

if TYPE_CHECKING:
    from heliostat_scheduler.core.state import State

T = TypeVar("T", int, tuple[int, int])

NOBODY = 1 << 30


class Row(NamedTuple):
    """What one job adds. held: milli-GPU, if it can be evicted (else -1); surplus: milli-GPU that it could give up (-1: no task)."""

    priority: int
    rank: int
    held: int
    surplus: int
    milli: int

    @property
    def most(self) -> int:
        return self.held if self.held >= 0 else self.surplus

    @property
    def piece(self) -> int:
        """The largest that goes at once."""
        return self.held if self.held >= 0 else self.milli


@dataclass(slots=True)
class Pool:
    """The lowest class that could be evicted, the lowest that could give up surplus, and the worst rank of each class.

    Sums in milli-GPU, as if nobody was protected: `most` at the very most, `biggest` the largest job, `whole` jobs and `spare` surplus by class.
    A pool never changes: `but` makes another one.
    """

    evict: int = NOBODY
    surplus: int = NOBODY
    rank: dict[int, int] = field(default_factory=dict)
    most: int = 0
    biggest: int = 0
    whole: dict[int, int] = field(default_factory=dict)
    spare: dict[int, int] = field(default_factory=dict)
    _rows: dict[str, Row] = field(default_factory=dict)
    _jobs: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    _spares: dict[int, int] = field(default_factory=dict)
    _pieces: list[int] = field(default_factory=list)
    _from_rank: dict[int, tuple[list[int], list[int]]] = field(default_factory=dict)
    _lower: dict[int, int] = field(default_factory=dict)

    def but(self, changes: Iterable[tuple[str, Row | None]]) -> Pool:
        """The pool with these jobs as they are now (None: gone)."""
        twin = Pool(most=self.most, whole=self.whole.copy(), spare=self.spare.copy(), _rows=self._rows.copy())
        twin._jobs = {priority: jobs.copy() for priority, jobs in self._jobs.items()}
        twin._spares, twin._pieces = self._spares.copy(), self._pieces.copy()
        for job_id, row in changes:
            old = twin._rows.pop(job_id, None)
            if old is not None:
                twin._count(old, -1)
            if row is not None:
                twin._rows[job_id] = row
                twin._count(row, 1)
        twin.evict = min((priority for priority, jobs in twin._jobs.items() if jobs), default=NOBODY)
        twin.surplus = min((priority for priority, count in twin._spares.items() if count), default=NOBODY)
        twin.rank = {priority: jobs[-1][0] for priority, jobs in twin._jobs.items() if jobs}
        twin.biggest = max(0, twin._pieces[-1]) if twin._pieces else 0
        return twin

    def _count(self, row: Row, sign: int) -> None:
        priority = row.priority
        self.most += sign * row.most
        _shift(self._pieces, row.piece, sign)
        if row.held >= 0:
            self.whole[priority] = self.whole.get(priority, 0) + sign * row.held
            _shift(self._jobs.setdefault(priority, []), (row.rank, row.held), sign)
        if row.surplus >= 0:
            self.spare[priority] = self.spare.get(priority, 0) + sign * row.surplus
            self._spares[priority] = self._spares.get(priority, 0) + sign

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
            jobs = self._jobs.get(priority, [])
            total = self.whole.get(priority, 0)
            known = ([job[0] for job in jobs], [total, *(total - held for held in accumulate(job[1] for job in jobs))])
            self._from_rank[priority] = known
        return known[1][bisect_left(known[0], rank)]


def pool_in(state: State, leaf: QueueNode, flavor: str) -> Pool:
    """The pool of a queue: only the jobs are counted again whose leases have changed since it was last asked for."""
    book, key = state.book, (leaf.name, flavor)
    version = book.leaf_version.get(leaf.name, 0)
    known = state.pools.get(key)
    if known is not None and known[0] == version:
        return known[1]
    changed = None if known is None else book.changed_since(leaf.name, known[0])
    if known is None or changed is None:
        pool = pool_of(state.holders(leaf.name), flavor)
    else:
        holding = book.holding.get(leaf.name, ())
        pool = known[1].but(
            (job_id, row_of(book.jobs[job_id], flavor) if job_id in holding else None) for job_id in changed
        )
    state.pools[key] = (version, pool)
    return pool


def pool_of(jobs: list[JobRec], flavor: str) -> Pool:
    """The pool of these jobs on one flavor ('' = CPU-only work)."""
    return Pool().but((rec.spec.id, row_of(rec, flavor)) for rec in jobs)


def row_of(rec: JobRec, flavor: str) -> Row | None:
    """None: nothing of this flavor can be taken from it."""
    milli = rec.spec.shape.gpu_milli
    if bool(milli) != bool(flavor) or (flavor and rec.flavor != flavor):
        return None
    whole, surplus = evictable(rec), surplus_tasks(rec)
    if not whole and not surplus:
        return None
    held = milli * len(rec.places) if whole else -1
    return Row(rec.spec.priority, rec.rank, held, milli * surplus if surplus else -1, milli)


def _shift(rows: list[T], item: T, sign: int) -> None:
    """Add to sorted rows, or remove."""
    if sign > 0:
        insort(rows, item)
    else:
        del rows[bisect_left(rows, item)]
