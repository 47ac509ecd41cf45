"""The first blocked job of each flavor has a start time, and what could not be taken back may not delay it (EASY backfill).

Its *shadow time* is when it has a place by the predicted ends of running work: a declared maximum run time, else the learned rest.
Later work passes if it can be asked to leave again (preemptible work; `passed`: revocable backfill), if it ends before the shadow time by its own
declared maximum, or if it fits beside the reservation. An end that is overdue predicts nothing; where too few ends are known, there
is no reservation, and the starvation deadline remains. Looked up only when work that may not be evicted is about to start.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heliostat_scheduler.core.book import JobRec, Phase, core_tasks, reason
from heliostat_scheduler.core.judge import candidate_flavors, rule_reason
from heliostat_scheduler.core.model import TaskPlace
from heliostat_scheduler.core.placement import find
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from heliostat_scheduler.core.space import Space

if TYPE_CHECKING:
    from heliostat_scheduler.core.state import State

Rank = tuple[int, int, str]


@dataclass(slots=True)
class Reservation:
    """Who is first, when it starts, and what is free beside it then."""

    job_id: str
    rank: Rank
    shadow_ms: int
    beside: Space


@dataclass(slots=True)
class Reservations:
    """The reservations of one pass, by flavor."""

    state: State
    now_ms: int
    known: dict[str, Reservation | None] = field(default_factory=dict)

    def stands_in_the_way(self, rec: JobRec, flavor: str, places: tuple[TaskPlace, ...]) -> Reason | None:
        """Why the job may not take these places; None when it may."""
        if not self.state.policy.backfill or not flavor or not core_tasks(rec.spec, rec.spec.min_tasks):
            return None
        if flavor not in self.known:
            self.known[flavor] = self._first(flavor)
        first = self.known[flavor]
        if first is None or first.job_id == rec.id or _rank(rec) < first.rank:
            return None
        longest = rec.spec.max_runtime_ms
        if longest is not None and self.now_ms + longest <= first.shadow_ms:
            return None
        if first.beside.can_hold(places, rec.spec.shape):
            first.beside.take(places, rec.spec.shape)
            return None
        code = ReasonCode.RESERVED_FOR if longest is None else ReasonCode.BACKFILL_TOO_LONG
        return reason(code, ("job", first.job_id), blockers=[first.job_id], until=first.shadow_ms)

    def passed(self, rec: JobRec, flavor: str, places: tuple[TaskPlace, ...]) -> Reservation | None:
        """The reservation that the job passes on the condition that it gives way when that one is due.

        Only a job that is known to save its work when told to leave takes such a lease. Where equals take turns by expected work, that
        order holds and nobody asks back. Other preemptible work passes without condition; the usual rules may displace it.
        """
        spec, policy = rec.spec, self.state.policy
        turns = policy.rotate and rec.rank > 0 and self.state.book.leaf_of(rec).spec.rotate
        if not (policy.backfill and flavor and spec.saves_on_order) or turns or core_tasks(spec, spec.min_tasks):
            return None
        if flavor not in self.known:
            self.known[flavor] = self._first(flavor)
        first = self.known[flavor]
        if first is None or first.job_id == rec.id or _rank(rec) < first.rank:
            return None
        if spec.max_runtime_ms is not None and self.now_ms + spec.max_runtime_ms <= first.shadow_ms:
            return None
        if first.beside.can_hold(places, spec.shape):
            first.beside.take(places, spec.shape)
            return None
        return first

    def _first(self, flavor: str) -> Reservation | None:
        """The first job that capacity alone keeps waiting, if its start can be foretold."""
        waiting = [
            self.state.book.jobs[group.head.job_id]
            for line in self.state.waiting.lines.values()
            for group in line.groups.values()
            if group.feasible
        ]
        rec = next((rec for rec in sorted(waiting, key=_rank) if self._blocked(rec, flavor)), None)
        return None if rec is None else self._reserve(rec, flavor)

    def _reserve(self, rec: JobRec, flavor: str) -> Reservation | None:
        """Let running work end, one after the other, until the job has a place."""
        space, spec = self.state.book.soon.copy(), rec.spec
        for end_ms, other in self._ends(flavor):
            space.give(other.places, other.spec.shape)
            places = find(space, spec.shape, spec.min_tasks, (flavor,), spec.spread)
            if places is not None:
                space.take(places, spec.shape)
                return Reservation(rec.id, _rank(rec), end_ms, space)
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


def predicted_end_ms(rec: JobRec) -> int:
    """When a running job is expected to end; 0 when nothing is known."""
    if rec.phase not in (Phase.RUNNING, Phase.RESIZING) or not rec.running_at:
        return 0
    latest = rec.running_at + rec.spec.max_runtime_ms if rec.spec.max_runtime_ms else 0
    return min(latest or rec.ends_at, rec.ends_at or latest)


def _rank(rec: JobRec) -> Rank:
    return (-rec.spec.priority, rec.spec.submitted_at_ms, rec.id)
