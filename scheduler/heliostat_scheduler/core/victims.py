"""What every queue's running jobs could give.

Who they are is kept until something of that queue's leases changes; what taking them costs is a matter of the cycle. `pools` knows an
upper bound of what a queue could give, so that a hopeless search is refused without looking at a single job.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
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
from heliostat_scheduler.core.model import Policy
from heliostat_scheduler.core.offers import OfferKey, Offers
from heliostat_scheduler.core.pools import pool_in
from heliostat_scheduler.core.tree import QueueNode

if TYPE_CHECKING:
    from heliostat_scheduler.core.state import State


@dataclass(slots=True, eq=False)
class Victim:
    """One running job. whole: it may be taken as a whole; surplus: how many tasks it could give up one by one."""

    rec: JobRec
    safe_until: int
    whole: bool
    surplus: int


@dataclass(slots=True)
class LeafVictims:
    """All of one queue on one flavor, by name. left_out: jobs that started in this cycle."""

    version: int
    policy: Policy
    cycle: int
    left_out: set[str] = field(default_factory=set)
    names: list[str] = field(default_factory=list)
    jobs: list[Victim] = field(default_factory=list)
    _safe: list[int] | None = None
    _classes: dict[int, list[tuple[int, int]]] | None = None

    def put(self, job_id: str, victim: Victim | None) -> None:
        """This is what is to be said of the job now."""
        self._safe = self._classes = None
        index = bisect_left(self.names, job_id)
        there = index < len(self.names) and self.names[index] == job_id
        if victim is None:
            if there:
                del self.names[index], self.jobs[index]
        elif there:
            self.jobs[index] = victim
        else:
            self.names.insert(index, job_id)
            self.jobs.insert(index, victim)

    def protected(self, as_of_ms: int) -> int:
        """How many are protected at that time."""
        if self._safe is None:
            self._safe = sorted(victim.safe_until for victim in self.jobs)
        return len(self._safe) - bisect_right(self._safe, as_of_ms)

    def in_question(self, priority: int, least: int, lower: bool, surplus: bool) -> list[Victim]:
        """Equals of this rank or a worse one (0: none of them); with `lower` all lower classes, with `surplus` equals that have some."""
        if self._classes is None:
            self._classes = {}
            for index, victim in enumerate(self.jobs):
                self._classes.setdefault(victim.rec.spec.priority, []).append((victim.rec.rank, index))
            for rows in self._classes.values():
                rows.sort()
        equals = self._classes.get(priority, [])
        found = {index for _, index in equals[bisect_left(equals, (least, -1)) :]} if least else set()
        if lower:
            found.update(i for other, rows in self._classes.items() if other < priority for _, i in rows)
        if surplus:
            found.update(index for _, index in equals if self.jobs[index].surplus)
        return [self.jobs[index] for index in sorted(found)]


class VictimIndex:
    """The victims of one cycle."""

    def __init__(self, state: State, now_ms: int) -> None:
        self.state = state
        self.now_ms = now_ms
        self._wholes: dict[Victim, Unit] = {}
        self._tasks: dict[Victim, tuple[Unit, ...]] = {}
        self._offers: dict[OfferKey, dict[str, tuple[int, Offers]]] = {}
        self._everybody: dict[tuple[str, str, int], tuple[int, Offers]] = {}
        self._asked: dict[tuple[str, str, tuple[str, ...]], tuple[int, list[QueueNode], int]] = {}
        self._sums: dict[tuple[str, tuple[str, ...]], tuple[int, int]] = {}
        self._floors: dict[tuple[str, str], tuple[int, int]] = {}
        self._longest: dict[tuple[str, int], tuple[int, int]] = {}
        self._lendable: dict[str, tuple[int, int]] = {}
        self._over: dict[str, tuple[int, list[QueueNode]]] = {}

    def of(self, leaf: QueueNode, flavor: str) -> LeafVictims:
        """flavor '' means CPU-only jobs. Only those are looked at whose leases have changed since the last time."""
        state, key = self.state, (leaf.name, flavor)
        version = state.book.leaf_version.get(leaf.name, 0)
        found = state.victims.get(key)
        if found is None or found.policy is not state.policy:
            changed = None
        elif found.version == version and (found.cycle == state.cycle or not found.left_out):
            return found
        else:
            changed = state.book.changed_since(leaf.name, found.version)
        holding = state.book.holding.get(leaf.name, set())
        if found is None or changed is None:
            found, jobs = LeafVictims(version, state.policy, state.cycle), sorted(holding)
        else:
            jobs = [*changed, *found.left_out.difference(changed)]
        found.version, found.cycle = version, state.cycle
        found.left_out.difference_update(jobs)
        for job_id in jobs:
            if job_id in holding and job_id in state.just_started:
                found.left_out.add(job_id)
            rec = state.book.jobs[job_id] if job_id in holding and job_id not in state.just_started else None
            found.put(job_id, None if rec is None else _victim(rec, flavor, state.policy))
        state.victims[key] = found
        return found

    def whole(self, victim: Victim, leaf: QueueNode) -> Unit:
        """The job as a whole, as of this cycle."""
        found = self._wholes.get(victim)
        if found is None:
            rec = victim.rec
            amounts = unit_amounts(rec, len(rec.places))
            found = Unit(rec, leaf, rec.places, True, amounts, lost_ms(rec, self.now_ms), self._idle(rec))
            self._wholes[victim] = found
        return found

    def tasks(self, victim: Victim, leaf: QueueNode) -> tuple[Unit, ...]:
        """Its tasks, of which as many may be taken as are surplus."""
        found = self._tasks.get(victim)
        if found is None:
            found = self._tasks[victim] = tuple(surplus_units(victim.rec, leaf, self._idle(victim.rec)))
        return found

    def known(self, kind: OfferKey) -> dict[str, tuple[int, Offers]]:
        """What was found for such wishes in this cycle: by queue, with the version of its leases."""
        return self._offers.setdefault(kind, {})

    def everybody(self, leaf: QueueNode, flavor: str, as_of_ms: int) -> Offers | None:
        """What the queue offers to anybody of another queue who may ask."""
        known = self._everybody.get((leaf.name, flavor, as_of_ms))
        return known[1] if known is not None and known[0] == self.state.book.leaf_version.get(leaf.name, 0) else None

    def keep_everybody(self, leaf: QueueNode, flavor: str, as_of_ms: int, found: Offers) -> Offers:
        self._everybody[leaf.name, flavor, as_of_ms] = (self.state.book.leaf_version.get(leaf.name, 0), found)
        return found

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
            over = self.over(keys)
            leaves = [leaf for leaf in over if leaf is not wish.leaf and self._side_over(wish, leaf, keys)]
            own = wish.leaf in over
            if len(leaves) + own == len(over):
                most = self._most_over(wish.flavor, keys)
                most += 0 if own else pool_in(self.state, wish.leaf, wish.flavor).most
            else:
                most = sum(pool_in(self.state, leaf, wish.flavor).most for leaf in (*leaves, wish.leaf))
            known = self._asked[at] = (version, leaves, most)
        return known[1], known[2]

    def _most_over(self, flavor: str, keys: tuple[str, ...]) -> int:
        """What the queues above their own could give at the very most."""
        version = self.state.book.version
        known = self._sums.get((flavor, keys))
        if known is None or known[0] != version:
            total = sum(pool_in(self.state, leaf, flavor).most for leaf in self.over(keys))
            known = self._sums[flavor, keys] = (version, total)
        return known[1]

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
        if len(keys) == 1:
            return self._over_in(keys[0])
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


def _victim(rec: JobRec, flavor: str, policy: Policy) -> Victim | None:
    if not rec.places or bool(flavor) != bool(rec.spec.shape.gpu_milli) or (flavor and rec.flavor != flavor):
        return None
    whole, surplus = evictable(rec), surplus_tasks(rec)
    return Victim(rec, safe_until(rec, policy), whole, surplus) if whole or surplus else None


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
        for node_id in dict.fromkeys([place.node for place in unit.places]):
            found.setdefault(node_id, []).append(unit)
    return found


def _above(leaf: QueueNode, key: str) -> bool:
    plan = leaf.plan.get(key, 0)
    return plan > leaf.entitled.get(key, 0) or plan > leaf.secured.get(key, 0)
