"""The first blocked job of each flavor has a start time, and what could not be taken back may not delay it (EASY backfill).

Its *shadow time* is when it has a place by the predicted ends of running work: a declared maximum run time, else the learned rest.
Later work passes if it can be asked to leave again (preemptible work; `passed`: revocable backfill), if it ends before the shadow time by its own
declared maximum, or if it fits beside the reservation. An end that is overdue predicts nothing; where too few ends are known, there
is no reservation, and the starvation deadline remains. Looked up only when work that may not be evicted is about to start.

A starved job comes before all others, and backfill may be off. For it only declared ends count, and what it could not ask to leave again by
then waits (`turn`). Where no end is known, it passes nothing on the flavor: every GPU that comes free is kept until there are enough. What
another queue starts within its quota passes, unless the starved job is within its own too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heliostat_scheduler.core.book import JobRec, Phase, core_tasks, reason, task_amounts
from heliostat_scheduler.core.harm import within
from heliostat_scheduler.core.judge import candidate_flavors, rule_reason
from heliostat_scheduler.core.model import TaskPlace, TaskShape
from heliostat_scheduler.core.placement import find
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from heliostat_scheduler.core.space import Space
from heliostat_scheduler.core.starvation import is_starved
from heliostat_scheduler.core.turn import NEVER, Turn, turn_for

if TYPE_CHECKING:
    from heliostat_scheduler.core.state import State

STARVED_TRIES = 8
"""Starved jobs, in order, for which a pass finds out what they wait for."""

Rank = tuple[bool, int, int, str]


@dataclass(slots=True)
class Reservation:
    """Who is first, when it starts (NEVER: not known), and what is free beside it then (None: nothing)."""

    job_id: str
    rank: Rank
    shadow_ms: int
    beside: Space | None
    turn: Turn | None = None
    """What it waits for, when it is starved."""

    def leaves_room(self, places: tuple[TaskPlace, ...], shape: TaskShape) -> bool:
        """Whether these places are beside it; if so, they are taken."""
        if self.beside is None or not self.beside.can_hold(places, shape):
            return False
        self.beside.take(places, shape)
        return True


@dataclass(slots=True)
class Reservations:
    """The reservations of one pass, by flavor."""

    state: State
    now_ms: int
    known: dict[str, list[Reservation]] = field(default_factory=dict)
    starving: bool | None = None

    def stands_in_the_way(self, rec: JobRec, flavor: str, places: tuple[TaskPlace, ...]) -> Reason | None:
        """Why the job may not take these places; None when it may."""
        spec = rec.spec
        core = core_tasks(spec, spec.min_tasks) > 0
        if not flavor or not (self._somebody_starves() or (core and self.state.policy.backfill)):
            return None
        for first in self._before(rec, flavor):
            if self._passes_starved(rec, flavor, len(places), first) if first.turn else not core:
                continue
            longest = spec.max_runtime_ms
            if longest is not None and self.now_ms + longest <= first.shadow_ms < NEVER:
                continue
            if first.leaves_room(places, spec.shape):
                continue
            until = None if first.shadow_ms == NEVER else first.shadow_ms
            code = ReasonCode.RESERVED_FOR if longest is None or until is None else ReasonCode.BACKFILL_TOO_LONG
            return reason(code, ("job", first.job_id), blockers=[first.job_id], until=until)
        return None

    def passed(self, rec: JobRec, flavor: str, places: tuple[TaskPlace, ...]) -> Reservation | None:
        """The reservation that the job passes on the condition that it gives way when that one is due.

        Only a job that is known to save its work when told to leave takes such a lease. Where equals take turns by expected work, that
        order holds and nobody asks back. Other preemptible work passes without condition; the usual rules may displace it.
        """
        spec, policy = rec.spec, self.state.policy
        turns = policy.rotate and rec.rank > 0 and self.state.book.leaf_of(rec).spec.rotate
        if not (policy.backfill and flavor and spec.saves_on_order) or turns or core_tasks(spec, spec.min_tasks):
            return None
        first = next((first for first in self._before(rec, flavor) if first.turn is None), None)
        if first is None:
            return None
        if spec.max_runtime_ms is not None and self.now_ms + spec.max_runtime_ms <= first.shadow_ms:
            return None
        return None if first.leaves_room(places, spec.shape) else first

    def _before(self, rec: JobRec, flavor: str) -> list[Reservation]:
        """The reservations that the job would have to pass."""
        if flavor not in self.known:
            self.known[flavor] = self._first(flavor)
        known = self.known[flavor]
        return (
            [first for first in known if first.job_id != rec.id and first.rank <= self._rank(rec)] if known else known
        )

    def _somebody_starves(self) -> bool:
        if self.starving is None:
            lines = self.state.waiting.lines.values()
            self.starving = any(signature.starved for line in lines for signature in line.groups)
        return self.starving

    def _passes_starved(self, rec: JobRec, flavor: str, tasks: int, first: Reservation) -> bool:
        """Whether the starved job can ask it back in time, or has no right or no use to keep it waiting."""
        state, spec, other = self.state, rec.spec, self.state.book.jobs[first.job_id]
        if first.turn is not None and not first.turn.concerns(state, rec, other):
            return True
        leaf, theirs = state.book.leaf_of(rec), state.book.leaf_of(other)
        owned = False
        if leaf is not theirs:
            mine, yours = state.book.tree.below_common(leaf, theirs)
            owned = within(mine, task_amounts(spec, flavor, tasks), quota=True)
            if owned and not within(yours, task_amounts(other.spec, flavor, other.spec.min_tasks), quota=True):
                return True
        if owned or core_tasks(spec, spec.min_tasks):
            return False
        policy = state.policy
        turn_ms = policy.starvation_turn_ms if is_starved(rec, policy, self.now_ms) else 0
        return self.now_ms + max(policy.min_runtime_ms, turn_ms) <= first.shadow_ms

    def _first(self, flavor: str) -> list[Reservation]:
        """The first job that capacity alone keeps waiting, if its start can be foretold; a starved one in any case.

        With it, of the starved jobs that a rule of their queue alone keeps waiting, the first of each rule.
        """
        found: list[Reservation] = []
        rules = set()
        tries = STARVED_TRIES
        waiting = [
            self.state.book.jobs[group.head.job_id]
            for line in self.state.waiting.lines.values()
            for group in line.groups.values()
            if group.feasible
        ]
        for rec in sorted(waiting, key=self._rank):
            if not is_starved(rec, self.state.policy, self.now_ms):
                if not self.state.policy.backfill:
                    break
                if self._blocked(rec, flavor):
                    first = self._reserve(rec, flavor)
                    return found if first is None else [*found, first]
                continue
            turn = self._turn(rec, flavor) if tries else None
            if turn is None:
                tries = max(0, tries - 1)
                continue
            rule = None if turn.rule is None else (turn.rule.code, turn.rule.fact("queue"), turn.rule.fact("user"))
            if rule not in rules:
                rules.add(rule)
                found.append(Reservation(rec.id, self._rank(rec), turn.at_ms, turn.beside, turn))
            if rule is None:
                break
            tries -= 1
        return found

    def _turn(self, rec: JobRec, flavor: str) -> Turn | None:
        """What a starved job waits for on the flavor, if anything has to end or to lose its protection first."""
        if rec.spec.shape.gpu_milli == 0 or flavor not in candidate_flavors(self.state, rec.spec):
            return None
        turn = turn_for(self.state, rec, flavor, self.now_ms)
        return turn if turn is not None and turn.at_ms > self.now_ms else None

    def _reserve(self, rec: JobRec, flavor: str) -> Reservation | None:
        """Let running work end, one after the other, until the job has a place."""
        space, spec = self.state.book.soon.copy(), rec.spec
        for end_ms, other in self._ends(flavor):
            space.give(other.places, other.spec.shape)
            places = find(space, spec.shape, spec.min_tasks, (flavor,), spec.spread)
            if places is not None:
                space.take(places, spec.shape)
                return Reservation(rec.id, self._rank(rec), end_ms, space)
        return None

    def _blocked(self, rec: JobRec, flavor: str) -> bool:
        spec, book = rec.spec, self.state.book
        if flavor not in candidate_flavors(self.state, spec) or spec.shape.gpu_milli == 0:
            return False
        if find(book.soon, spec.shape, spec.min_tasks, (flavor,), spec.spread) is not None:
            return False
        need = spec.shape.gpu_milli * spec.min_tasks
        core = spec.shape.gpu_milli * core_tasks(spec, spec.min_tasks)
        return rule_reason(self.state, book.leaf_of(rec), spec, ((flavor, need),), ((flavor, core),)) is None

    def _ends(self, flavor: str) -> list[tuple[int, JobRec]]:
        """(predicted end, job) of running work, soonest first."""
        found = []
        for leaf in self.state.book.tree.leaves:
            for rec in self.state.holders(leaf.name):
                end_ms = predicted_end_ms(rec)
                if rec.flavor == flavor and rec.places and end_ms > self.now_ms:
                    found.append((end_ms, rec))
        return sorted(found, key=lambda end: (end[0], end[1].id))

    def _rank(self, rec: JobRec) -> Rank:
        starved = is_starved(rec, self.state.policy, self.now_ms)
        return (not starved, 0 if starved else -rec.spec.priority, rec.spec.submitted_at_ms, rec.id)


def predicted_end_ms(rec: JobRec) -> int:
    """When a running job is expected to end; 0 when nothing is known."""
    if rec.phase not in (Phase.RUNNING, Phase.RESIZING) or not rec.running_at:
        return 0
    latest = rec.running_at + rec.spec.max_runtime_ms if rec.spec.max_runtime_ms else 0
    return min(latest or rec.ends_at, rec.ends_at or latest)
