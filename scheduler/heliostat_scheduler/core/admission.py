"""The waiting jobs, in order: start, promise, or a reason.

For each head: rules of its queues, then free places, then places about to be free, then places taken from others. The first that
stands in the way, with its numbers, is the binding reason of the whole group.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from heliostat_scheduler.core.book import JobRec, Phase, core_tasks, reason, task_amounts
from heliostat_scheduler.core.bounds import Bounds
from heliostat_scheduler.core.consolidation import consolidate
from heliostat_scheduler.core.cycle import Cycle
from heliostat_scheduler.core.harm import Unit, Wish, beats, reclaim_harm, turn_of, within
from heliostat_scheduler.core.judge import candidate_flavors, rule_reason
from heliostat_scheduler.core.lack import Lack
from heliostat_scheduler.core.model import Amounts, JobSpec, TaskPlace, TaskShape
from heliostat_scheduler.core.ordering import Merge
from heliostat_scheduler.core.placement import find
from heliostat_scheduler.core.pools import Pool, pool_in
from heliostat_scheduler.core.protection import Protection
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from heliostat_scheduler.core.recovery import Search
from heliostat_scheduler.core.reservation import Reservations
from heliostat_scheduler.core.settling import Settling
from heliostat_scheduler.core.shortage import Shortage
from heliostat_scheduler.core.tree import QueueNode
from heliostat_scheduler.core.waiting import Footprint, Group, Signature

RULES_THAT_PREEMPTION_MAY_LIFT = frozenset({ReasonCode.LIMIT_REACHED, ReasonCode.BORROW_BLOCKED})


class Failure(NamedTuple):
    """A search that found nobody. What asks for no less with no more right fails too; the same wish again has the same answer.

    asked: tasks, among wishes of one shape; milli-GPU, where the sums alone refused it and the shape does not matter.
    """

    starved: bool
    priority: int
    user_step: int
    rank: int
    asked: int
    cooling: Reason | None

    def covers(self, wish: Wish, asks: int) -> bool:
        worse = wish.spec.priority < self.priority or (
            wish.spec.priority == self.priority and wish.rank >= self.rank and wish.user_step >= self.user_step
        )
        return worse and asks >= self.asked and self.starved >= wish.starved

    def equals(self, wish: Wish) -> bool:
        return self[:5] == (wish.starved, wish.spec.priority, wish.user_step, wish.rank, wish.count)


@dataclass(slots=True)
class Admission:
    """One pass over the waiting jobs."""

    cycle: Cycle
    full: bool
    nowhere_now: set[Footprint] = field(default_factory=set)
    nowhere_soon: set[Footprint] = field(default_factory=set)
    shortage: Shortage = field(init=False)
    failed: dict[tuple[str, TaskShape, str, str], list[Failure]] = field(default_factory=dict)
    dry: dict[tuple[str, str], list[Failure]] = field(default_factory=dict)
    pools: dict[tuple[str, str], Pool] = field(default_factory=dict)
    immovable: dict[tuple[TaskShape, str, str], list[tuple[int, int]]] = field(default_factory=dict)
    tried: set[Signature] = field(default_factory=set)

    reservations: Reservations = field(init=False)
    protection: Protection = field(init=False)

    def __post_init__(self) -> None:
        self.reservations = Reservations(self.cycle.state, self.cycle.now_ms)
        self.shortage = Shortage(self.cycle.state)
        self.protection = Protection(self.cycle)

    def run(self) -> None:
        state = self.cycle.state
        bounds = Bounds(state, self.cycle.victims, self.shortage)
        merge = Merge(state, self.full, Settling(bounds))
        while (found := merge.next()) is not None:
            leaf, group = found
            why = bounds.refusal(leaf, group) or self.consider(leaf, group, state.book.jobs[group.head.job_id])
            if why is None:
                merge.advance(leaf, group)
                continue
            group.answer, group.fresh = why, False
            merge.drop(leaf)
        for line in state.waiting.lines.values():
            line.fresh.clear()
        self._close_round()

    def _close_round(self) -> None:
        """When the budget ran out, the next cycle goes on with those whose search has not had its turn yet."""
        state = self.cycle.state
        if self.cycle.exhausted:
            state.searched |= self.tried
            self.cycle.recheck.append(self.cycle.now_ms)
        else:
            state.searched = set()

    def consider(self, leaf: QueueNode, group: Group, rec: JobRec) -> Reason | Lack | None:
        """None: the job started or got a promise."""
        state = self.cycle.state
        if group.structural is not None:
            return group.structural
        reasons: list[Reason | Lack] = []
        for flavor in self._flavors(rec):
            if state.structure.largest(rec.spec.shape, flavor, rec.spec.spread, usable=True) < rec.spec.min_tasks:
                continue
            found = self._try_flavor(leaf, rec, flavor)
            if found is None:
                return None
            reasons.append(found)
        return reasons[0]

    def _flavors(self, rec: JobRec) -> tuple[str, ...]:
        """The flavors in the order to try: where a demand mix is known, the one with the best place for the task comes first."""
        state, spec = self.cycle.state, rec.spec
        flavors = tuple(candidate_flavors(state, spec))
        chooser = state.book.now.chooser
        if chooser is None or len(flavors) < 2 or spec.min_tasks > 1:
            return flavors
        place = chooser.choose(state.book.now, spec.shape, flavors)
        if place is None:
            return flavors
        best = state.book.nodes[place.node].spec.flavor
        return (best, *(flavor for flavor in flavors if flavor != best))

    def _try_flavor(self, leaf: QueueNode, rec: JobRec, flavor: str) -> Reason | Lack | None:
        cycle, state = self.cycle, self.cycle.state
        spec, book = rec.spec, self.cycle.state.book
        need = task_amounts(spec, flavor, spec.min_tasks)
        core = task_amounts(spec, flavor, core_tasks(spec, spec.min_tasks))
        rule = rule_reason(state, leaf, spec, need, core)
        if rule is not None and rule.code not in RULES_THAT_PREEMPTION_MAY_LIFT:
            return rule
        if rule is None:
            places = self._free_places(leaf, rec, flavor, need)
            held_back = None if places is None else self._held_back(rec, flavor, places)
            if held_back is not None:
                return held_back
            if places is not None:
                self._on_condition(rec, flavor, places)
                cycle.start(rec, places, flavor or state.book.nodes[places[0].node].spec.flavor)
                return None
            soon = self._soon_places(rec, flavor)
            if soon is not None and (held_back := self._held_back(rec, flavor, soon)) is not None:
                return held_back
            if soon is not None:
                self._on_condition(rec, flavor, soon)
                state.part(rec)
                book.promise(rec, soon, flavor, sorted(book.leavers))
                cycle.progressed = True
                return None
        wish = cycle.wish(rec, flavor, spec.min_tasks)
        return self._recover(leaf, rec, wish, rule)

    def _held_back(self, rec: JobRec, flavor: str, places: tuple[TaskPlace, ...]) -> Reason | None:
        """Whether what is free is reserved for somebody else."""
        why = self.reservations.stands_in_the_way(rec, flavor, places)
        if why is not None and why.until_ms is not None:
            self.cycle.recheck.append(why.until_ms)
        return why

    def _on_condition(self, rec: JobRec, flavor: str, places: tuple[TaskPlace, ...]) -> None:
        """It starts; if that is ahead of a reservation, it will have to give way."""
        first = self.reservations.passed(rec, flavor, places)
        if first is not None or rec.behind:
            self.cycle.state.on_condition(rec, first.job_id if first else "", first.shadow_ms if first else 0)

    def _free_places(self, leaf: QueueNode, rec: JobRec, flavor: str, need: Amounts) -> tuple[TaskPlace, ...] | None:
        book, spec = self.cycle.state.book, rec.spec
        mark = self._footprint(spec, flavor)
        if mark in self.nowhere_now:
            return None
        if flavor and book.now.free_milli.get(flavor, 0) < spec.shape.gpu_milli * spec.min_tasks:
            return None
        if book.tree.limit_gap(leaf, need, "used") is not None:
            return None
        if book.tree.lending_gap(leaf, need, "used", book.capacity) is not None:
            return None
        places = find(book.now, spec.shape, spec.min_tasks, (flavor,) if flavor else spec.flavors, spec.spread)
        if places is None:
            self.nowhere_now.add(mark)
        return places

    def _footprint(self, spec: JobSpec, flavor: str) -> Footprint:
        shape = self.cycle.state.structure.alike(spec.shape, flavor)
        return Footprint(shape, spec.min_tasks, (flavor,) if flavor else spec.flavors, spec.spread)

    def _soon_places(self, rec: JobRec, flavor: str) -> tuple[TaskPlace, ...] | None:
        book, spec = self.cycle.state.book, rec.spec
        if not book.leavers:
            return None
        mark = self._footprint(spec, flavor)
        if mark in self.nowhere_soon:
            return None
        places = find(book.soon, spec.shape, spec.min_tasks, (flavor,) if flavor else spec.flavors, spec.spread)
        if places is None:
            self.nowhere_soon.add(mark)
        return places

    # -- from others

    def _recover(self, leaf: QueueNode, rec: JobRec, wish: Wish, rule: Reason | None) -> Reason | Lack | None:
        cycle, state = self.cycle, self.cycle.state
        group = state.waiting.group_of[rec.id]
        like = (leaf.name, state.structure.alike(rec.spec.shape, wish.flavor), rec.spec.spread, wish.flavor)
        milli = rec.spec.shape.gpu_milli * wish.count
        dry = self.dry.setdefault((leaf.name, wish.flavor), [])
        asks_back = state.asks_back(rec.id)
        if not asks_back and any(failure.covers(wish, milli) for failure in dry):
            return rule or self.shortage.lack_of(leaf, rec.spec, wish)
        known = next((failure for failure in self.failed.get(like, ()) if failure.covers(wish, wish.count)), None)
        if known is not None and not asks_back:
            cooling = known.cooling if known.equals(wish) else None
            return cooling or rule or self.shortage.lack_of(leaf, rec.spec, wish)
        if self._hopeless(leaf, rec.spec, rec.rank, wish) or group.signature in state.searched:
            return rule or self.shortage.lack_of(leaf, rec.spec, wish)
        if cycle.budget <= 0:
            cycle.exhausted = True
            return group.reason or reason(ReasonCode.PENDING_EVALUATION, ("position", state.waiting.position(rec) or 0))
        search = Search(state, wish, cycle.victims)
        victims = search.run_shrinks()
        if victims is None and rule is None and self._migrate(rec, search):
            return None
        victims = victims or search.run_evicts()
        cycle.budget -= search.spent
        if victims is None:
            self.tried.add(group.signature)
            if search.affordable_at is not None:
                cycle.recheck.append(search.affordable_at)
            cooling, reached = self.protection.ends_for(wish) if search.protected else (None, False)
            failure = Failure(wish.starved, rec.spec.priority, rec.user_step, rec.rank, wish.count, cooling)
            if wish.flavor and not search.reached and not reached:
                dry.append(failure._replace(asked=milli))
            else:
                self.failed.setdefault(like, []).append(failure)
            return cooling or rule or self.shortage.lack_of(leaf, rec.spec, wish)
        delay = (
            state.policy.preemption_delay_ms if rec.spec.preemption_delay_ms is None else rec.spec.preemption_delay_ms
        )
        due = rec.spec.submitted_at_ms + delay
        if delay and due > cycle.now_ms:
            cycle.recheck.append(due)
            blockers = [unit.rec.id for unit in victims]
            return reason(ReasonCode.PREEMPTION_DELAY, ("delay_ms", delay), blockers=_distinct(blockers), until=due)
        if self._undoes_itself(wish, victims):
            cycle.discard(rec, victims)
            return self.shortage.lack_of(leaf, rec.spec, wish)
        self.promise_from(rec, wish, victims)
        return None

    def _hopeless(self, leaf: QueueNode, spec: JobSpec, rank: int, wish: Wish) -> bool:
        """Cheap refusals: nobody it could displace in its own queue, no right to reclaim."""
        policy = self.cycle.state.policy
        if self.cycle.state.idle or wish.starved or self.cycle.state.asks_back(spec.id):
            return False
        pool = self._own_pool(leaf, wish.flavor)
        if pool.evict < spec.priority or pool.surplus <= spec.priority:
            return False
        if policy.rotate and beats(policy, rank, pool.rank.get(spec.priority, 0)):
            return False
        if policy.reclaim and (policy.reclaim_rule == "share" or self._may_reclaim(leaf, wish)):
            return False
        keys = tuple(key for key, amount in wish.need if amount)
        worst = self.cycle.victims.longest(leaf, wish.flavor, spec.priority, keys) if policy.reclaim else 0
        if beats(policy, rank, worst):
            return False
        return not self._could_move(spec, wish)

    def _could_move(self, spec: JobSpec, wish: Wish) -> bool:
        """Whether moving others together could make room, as far as was not tried in this pass already."""
        if not self.cycle.state.policy.consolidate:
            return False
        shape = self.cycle.state.structure.alike(spec.shape, wish.flavor)
        tried = self.immovable.get((shape, spec.spread, wish.flavor), ())
        if any(spec.priority <= priority and wish.count >= count for priority, count in tried):
            return False
        key, needs = max(wish.need, key=lambda pair: pair[1], default=("", 0))
        return self.shortage.free(key, wish) >= needs

    def _may_reclaim(self, leaf: QueueNode, wish: Wish) -> bool:
        return any(within((leaf,), wish.need, quota) for quota in (True, False))

    def _own_pool(self, leaf: QueueNode, flavor: str) -> Pool:
        """What could be displaced inside this queue (looked up once per pass: it only shrinks meanwhile)."""
        key = (leaf.name, flavor)
        found = self.pools.get(key)
        if found is None:
            found = self.pools[key] = pool_in(self.cycle.state, leaf, flavor)
        return found

    def _migrate(self, rec: JobRec, search: Search) -> bool:
        """Whether others could be moved together so that the job fits; if so, that is ordered."""
        cycle, book, wish = self.cycle, self.cycle.state.book, search.wish
        if rec.phase is not Phase.WAITING or not self._could_move(rec.spec, wish):
            return False
        found = consolidate(search)
        if found is None:
            key = (self.cycle.state.structure.alike(rec.spec.shape, wish.flavor), rec.spec.spread, wish.flavor)
            self.immovable.setdefault(key, []).append((rec.spec.priority, wish.count))
            return False
        cycle.budget -= search.spent
        moves, places = found
        cycle.migrate(rec, moves, ())
        self.cycle.state.part(rec)
        book.promise(rec, places, wish.flavor, tuple(sorted(move.rec.id for move in moves)))
        cycle.progressed = True
        self.nowhere_soon.clear()
        return True

    def promise_from(self, rec: JobRec, wish: Wish, victims: list[Unit]) -> None:
        cycle, book = self.cycle, self.cycle.state.book
        on = cycle.collect(rec, wish, victims)
        spec = rec.spec
        places = find(
            book.soon, spec.shape, wish.count, (wish.flavor,) if wish.flavor else spec.flavors, spec.spread, wish.near
        )
        if places is None:
            raise AssertionError(f"the victims of {rec.id} left no room for it")
        self.cycle.state.part(rec)
        book.promise(rec, places, wish.flavor, on)
        self.cycle.progressed = True
        self.nowhere_soon.clear()

    def _undoes_itself(self, wish: Wish, victims: list[Unit]) -> bool:
        """Whether some victim could at once reclaim from the beneficiary what was taken from it."""
        state = self.cycle.state
        tree, capacity = state.book.tree, state.book.capacity
        if (
            core_tasks(wish.spec, 1)
            or wish.starved
            or not any(unit.evict and unit.leaf is not wish.leaf for unit in victims)
        ):
            return False
        tree.add(wish.leaf, "plan", wish.need, 1)
        for unit in victims:
            tree.add(unit.leaf, "plan", unit.amounts, -1)
        undone = False
        for unit in victims:
            if unit.evict and unit.leaf is not wish.leaf:
                spec = unit.rec.spec
                back = Wish(
                    spec,
                    unit.leaf,
                    wish.flavor,
                    spec.min_tasks,
                    task_amounts(spec, unit.rec.flavor, spec.min_tasks),
                    (),
                    rank=unit.rec.rank,
                )
                turn = turn_of(state.policy, back, wish.leaf, wish.spec.priority, wish.rank)
                rule = state.policy.reclaim_rule
                undone |= reclaim_harm(tree, back, wish.leaf, wish.need, capacity, rule, turn) is not None
        for unit in victims:
            tree.add(unit.leaf, "plan", unit.amounts, 1)
        tree.add(wish.leaf, "plan", wish.need, -1)
        return undone


def _distinct(ids: list[str]) -> list[str]:
    return list(dict.fromkeys(ids))
