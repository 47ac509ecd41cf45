"""What every queue's running jobs could give, looked up once per cycle and queue.

An entry is kept until something of that queue's leases changes. `pools` knows an upper bound of what a queue could give, so that a
hopeless search is refused without looking at a single job.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heliostat_scheduler.core.book import JobRec
from heliostat_scheduler.core.harm import (
    Unit,
    Wish,
    evictable,
    lost_ms,
    safe_until,
    surplus_tasks,
    unit_amounts,
    victim_side_over,
)
from heliostat_scheduler.core.idle import is_idle
from heliostat_scheduler.core.pools import pool_in
from heliostat_scheduler.core.tree import QueueNode

if TYPE_CHECKING:
    from heliostat_scheduler.core.state import State


OfferKey = tuple[str, str, int, int, int, bool, int, int, str]
"""Asked queue, flavor; class, rank, user step and starvation of the wish; protection as of; rights; own job left out."""


@dataclass(slots=True, eq=False)
class Victim:
    """One running job: as a whole, and task by task as far as it has surplus."""

    rec: JobRec
    safe_until: int
    whole: Unit | None
    surplus: tuple[Unit, ...]
    surplus_tasks: int


@dataclass(slots=True)
class Offers:
    """What one queue may be asked for by wishes of one kind: surplus tasks, whole jobs, how many of its jobs are protected for now.

    lower: some of the whole jobs are of a lower class than the wish. looked_at: jobs. gains: what the surplus comes to, and surplus and
    whole jobs together; biggest: the largest single piece (milli-GPU).
    """

    shrinks: list[Unit] = field(default_factory=list)
    evicts: list[Unit] = field(default_factory=list)
    surplus: dict[str, int] = field(default_factory=dict)
    protected: int = 0
    lower: bool = False
    looked_at: int = 0
    gains: tuple[int, int] = (0, 0)
    biggest: int = 0

    def measure(self) -> Offers:
        shrinks = [unit.amounts[0][1] for unit in self.shrinks if unit.amounts]
        evicts = [unit.amounts[0][1] for unit in self.evicts if unit.amounts]
        self.gains = (sum(shrinks), sum(shrinks) + sum(evicts))
        self.biggest = max([0, *shrinks, *evicts])
        return self


@dataclass(slots=True)
class LeafVictims:
    """All of one queue on one flavor."""

    version: int
    jobs: list[Victim] = field(default_factory=list)


class VictimIndex:
    """The victims of one cycle."""

    def __init__(self, state: State, now_ms: int) -> None:
        self.state = state
        self.now_ms = now_ms
        self._leaves: dict[tuple[str, str], LeafVictims] = {}
        self._offers: dict[OfferKey, tuple[int, Offers]] = {}
        self._asked: dict[tuple[str, str, tuple[str, ...]], tuple[int, list[QueueNode], int]] = {}
        self._floors: dict[tuple[str, str], tuple[int, int]] = {}
        self._longest: dict[tuple[str, int], tuple[int, int]] = {}
        self._lendable: dict[str, tuple[int, int]] = {}
        self._over: dict[str, tuple[int, list[QueueNode]]] = {}

    def of(self, leaf: QueueNode, flavor: str) -> LeafVictims:
        """flavor '' means CPU-only jobs."""
        version = self.state.book.leaf_version.get(leaf.name, 0)
        found = self._leaves.get((leaf.name, flavor))
        if found is None or found.version != version:
            found = self._leaves[(leaf.name, flavor)] = self._build(leaf, flavor, version)
        return found

    def offers(self, leaf: QueueNode, key: OfferKey) -> Offers | None:
        """What was found for such a wish before, as long as nothing of the queue's leases has changed."""
        known = self._offers.get(key)
        return known[1] if known is not None and known[0] == self.state.book.leaf_version.get(leaf.name, 0) else None

    def keep(self, leaf: QueueNode, key: OfferKey, found: Offers) -> None:
        self._offers[key] = (self.state.book.leaf_version.get(leaf.name, 0), found)

    def _idle(self, rec: JobRec) -> bool:
        return rec.id in self.state.idle and self.state.policy.idle_actions and is_idle(rec, self.now_ms)

    def floor(self, leaf: QueueNode, flavor: str) -> int:
        """What the queue's running jobs hold at their minimum sizes, in milli-GPU."""
        version = self.state.book.leaf_version.get(leaf.name, 0)
        known = self._floors.get((leaf.name, flavor))
        if known is None or known[0] != version:
            jobs = [rec for rec in self.state.holders(leaf.name) if rec.flavor == flavor]
            held = sum(rec.spec.shape.gpu_milli * min(rec.spec.min_tasks, len(rec.places)) for rec in jobs)
            known = self._floors[(leaf.name, flavor)] = (version, held)
        return known[1]

    def longest(self, leaf: QueueNode, flavor: str, priority: int, keys: tuple[str, ...]) -> int:
        """The worst rank of the class among the evictable work of queues that borrow, for a job of this queue (0: nobody)."""
        policy = self.state.policy
        if not (policy.rotate and policy.rotate_across and leaf.spec.rotate):
            return 0
        key = (flavor, priority)
        version = self.state.book.version
        known = self._longest.get(key)
        if known is None or known[0] != version:
            known = self._longest[key] = (version, self._longest_of(flavor, priority, keys))
        return known[1]

    def _longest_of(self, flavor: str, priority: int, keys: tuple[str, ...]) -> int:
        worst = 0
        for leaf in self.over(keys):
            if leaf.spec.rotate:
                worst = max(worst, pool_in(self.state, leaf, flavor).rank.get(priority, 0))
        return worst

    def asked_by(self, wish: Wish) -> tuple[list[QueueNode], int]:
        """The other queues that could be asked for the wish, and what they and its own could give at the very most (milli-GPU)."""
        keys = tuple(key for key, amount in wish.need if amount)
        at, version = (wish.leaf.name, wish.flavor, keys), self.state.book.version
        known = self._asked.get(at)
        if known is None or known[0] != version:
            leaves = [leaf for leaf in self.over(keys) if leaf is not wish.leaf]
            leaves = [leaf for leaf in leaves if self._side_over(wish, leaf, keys)]
            most = sum(pool_in(self.state, leaf, wish.flavor).most for leaf in (*leaves, wish.leaf))
            known = self._asked[at] = (version, leaves, most)
        return known[1], known[2]

    def _side_over(self, wish: Wish, leaf: QueueNode, keys: tuple[str, ...]) -> bool:
        """Whether the other queue is above its own below the common ancestor. (A sibling is its whole side: it was found to be above.)"""
        if len(keys) == 1 and leaf.parent is wish.leaf.parent:
            return True
        return victim_side_over(wish.below(self.state.book.tree, leaf)[1], keys)

    def lendable(self, flavor: str) -> int:
        """What all queues together could give up to others at the very most, in milli-GPU."""
        version = self.state.book.version
        known = self._lendable.get(flavor)
        if known is None or known[0] != version:
            total = sum(self._most_of(leaf, flavor) for leaf in self._over_in(flavor))
            known = self._lendable[flavor] = (version, total)
        return known[1]

    def _most_of(self, leaf: QueueNode, flavor: str) -> int:
        """Another queue gives only as long as it is above its own."""
        pool = pool_in(self.state, leaf, flavor)
        own = min(leaf.secured.get(flavor, 0), leaf.entitled.get(flavor, 0))
        return min(pool.most, max(0, leaf.plan.get(flavor, 0) - own) + pool.biggest)

    def contestable(self, flavor: str, priority: int, rank: int) -> int:
        """What queues above their share could give, without work of this class whose turn it is: of a known rank below this one."""
        total = 0
        for leaf in self._over_in(flavor):
            above = leaf.plan.get(flavor, 0) - leaf.entitled.get(flavor, 0)
            if above > 0:
                pool = pool_in(self.state, leaf, flavor)
                theirs = pool.beaten(priority, 1) - pool.beaten(priority, rank) if rank and leaf.spec.rotate else 0
                total += min(pool.most - theirs + pool.spare.get(priority, 0), above + pool.biggest)
        return total

    def overdue(self, flavor: str, priority: int, rank: int) -> int:
        """What queues could give of what they hold above quota to an equal whose turn it is: work of its class, of this rank or a worse one."""
        total = 0
        for leaf in self._over_in(flavor):
            above = leaf.plan.get(flavor, 0) - leaf.secured.get(flavor, 0)
            if leaf.spec.rotate and above > 0:
                total += min(above, pool_in(self.state, leaf, flavor).beaten(priority, rank))
        return total

    def over(self, keys: tuple[str, ...]) -> list[QueueNode]:
        """Queues above their share or guarantee in some of these resources: only they can be reclaimed from."""
        found: list[QueueNode] = []
        for key in keys:
            found += [leaf for leaf in self._over_in(key) if leaf not in found]
        return found

    def _over_in(self, key: str) -> list[QueueNode]:
        version = self.state.book.version
        cached = self._over.get(key)
        if cached is None or cached[0] != version:
            leaves = [leaf for leaf in self.state.book.tree.leaves if _above(leaf, key)]
            cached = self._over[key] = (version, leaves)
        return cached[1]

    def _build(self, leaf: QueueNode, flavor: str, version: int) -> LeafVictims:
        found = LeafVictims(version)
        for rec in self.state.holders(leaf.name):
            if not rec.places or rec.id in self.state.just_started:
                continue
            if bool(flavor) != bool(rec.spec.shape.gpu_milli) or (flavor and rec.flavor != flavor):
                continue
            whole = None
            if evictable(rec):
                amounts = unit_amounts(rec, len(rec.places))
                whole = Unit(rec, leaf, rec.places, True, amounts, lost_ms(rec, self.now_ms), self._idle(rec))
            surplus = surplus_tasks(rec)
            if whole is None and not surplus:
                continue
            units = tuple(surplus_units(rec, leaf, self._idle(rec))) if surplus else ()
            found.jobs.append(Victim(rec, safe_until(rec, self.state.policy), whole, units, surplus))
        return found


def surplus_units(rec: JobRec, leaf: QueueNode, idle: bool) -> list[Unit]:
    """One unit per task; those on nodes with few tasks of the job first."""
    counts: dict[str, int] = {}
    for place in rec.places:
        counts[place.node] = counts.get(place.node, 0) + 1
    order = sorted(range(len(rec.places)), key=lambda i: (counts[rec.places[i].node], rec.places[i].node, -i))
    amounts = unit_amounts(rec, 1)
    return [Unit(rec, leaf, (rec.places[i],), False, amounts, rec.spec.restart_cost_ms, idle) for i in order]


def by_node_of(units: list[Unit]) -> dict[str, list[Unit]]:
    """Units by the nodes on which they hold something."""
    found: dict[str, list[Unit]] = {}
    for unit in units:
        for node_id in sorted({place.node for place in unit.places}):
            found.setdefault(node_id, []).append(unit)
    return found


def _above(leaf: QueueNode, key: str) -> bool:
    plan = leaf.plan.get(key, 0)
    return plan > leaf.entitled.get(key, 0) or plan > leaf.secured.get(key, 0)
