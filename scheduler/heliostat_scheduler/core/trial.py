"""Trying something on a copy of the engine: does the job start within one cycle, and who loses GPUs by it?

Within one cycle means: in the plan of the next decision; or, when that plan tells others to leave for the job's sake (or the change
ends somebody), in the plan of the first decision after they have left. Nothing here touches the engine that is asked.

What most ideas have in common is that nothing comes of them, and that they change one waiting job. So a `Bench` keeps one copy for
finding out which those are: it changes the job there, and changes it back when the idea was refused. Where the engine has nothing left to
decide, such a change leaves every other waiting job as it was judged, unless a queue's share moves by it (the cycle sees that, and looks
at everybody). And what the engine itself takes to be settled before it orders anything (`settling`) is refused without a cycle. An idea
that is not refused is then tried whole, on a copy of its own, where everybody may answer to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.book import HOLDING, JobRec, Phase
from heliostat_scheduler.core.bounds import Bounds
from heliostat_scheduler.core.cycle import Cycle
from heliostat_scheduler.core.decisions import Discarded, Plan, Preempt, Resize, Stop
from heliostat_scheduler.core.judge import candidate_flavors
from heliostat_scheduler.core.model import JobSpec
from heliostat_scheduler.core.placement import find
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from heliostat_scheduler.core.settling import Settling
from heliostat_scheduler.core.shortage import Shortage
from heliostat_scheduler.core.state import State

if TYPE_CHECKING:
    from heliostat_scheduler.core.engine import Engine

TIME_CODES = frozenset(
    {
        ReasonCode.BACKOFF,
        ReasonCode.COOLDOWN,
        ReasonCode.PREEMPTION_DELAY,
        ReasonCode.WAITING_FOR_VICTIMS,
        ReasonCode.RESERVED_FOR,
        ReasonCode.BACKFILL_TOO_LONG,
        ReasonCode.PENDING_EVALUATION,
    }
)
"""Codes that time alone resolves; their reason says when."""

MAX_WAITS = 4
"""How many times of waiting one after the other are followed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an idea led to: whether the job started, and who lost GPUs."""

    started: bool
    evicts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Passed:
    """What waiting leads to while nothing else happens: at `at_ms` the job starts, or it goes on waiting for `still`."""

    at_ms: int
    still: Reason | None


class Bench:
    """Ideas for one waiting job, tried on an engine that has just decided and is left alone meanwhile.

    thorough: every idea on a copy of its own and with a full look at everybody; for comparison.
    """

    def __init__(self, engine: Engine, job_id: str, now_ms: int, thorough: bool = False) -> None:
        self._engine = engine
        self._job_id = job_id
        self._now_ms = now_ms
        self._spare: Engine | None = None
        rec = engine.state.book.jobs[job_id]
        self._quick = not (thorough or engine.state.stale or rec.claim or _somebody_stands_back(engine.state))

    def attempt(self, changes: Sequence[ev.Event], harmless: bool = False) -> Outcome:
        """Carry the changes out on a copy and look whether the job starts within one cycle.

        harmless: what takes GPUs from somebody is of no interest, and may be called not started.
        """
        change = changes[0]
        single = self._quick and len(changes) == 1
        if single and isinstance(change, ev.JobChanged) and self._refuses(change, harmless):
            return Outcome(False)
        ended = {change.job_id for change in changes if isinstance(change, ev.JobCancelled)}
        copy = self._engine.branch()
        for change in changes:
            copy.apply(change, self._now_ms)
        return _after(copy, copy.decide(self._now_ms), self._job_id, self._now_ms, ended)

    def _room(self, spec: JobSpec) -> bool:
        """Whether there is a place for the job among what is free, or will be when all have left who were told to."""
        state = self._engine.state
        return any(
            find(state.book.soon, spec.shape, spec.min_tasks, (flavor,) if flavor else spec.flavors, spec.spread)
            for flavor in candidate_flavors(state, spec)
        )

    def _refuses(self, change: ev.JobChanged, harmless: bool) -> bool:
        """Whether nothing comes of this change of the job (or nothing harmless)."""
        if harmless and not self._room(change.job):
            return True
        copy = self._spare or self._engine.branch()
        state, now_ms = copy.state, self._now_ms
        self._spare = copy
        rec = state.book.jobs[self._job_id]
        before, shares = rec.spec, state.entitled_before
        copy.apply(change, now_ms)
        state.stale = False
        if not _settled(state, rec, now_ms):
            plan = copy.decide(now_ms)
            if any(not isinstance(order, Discarded) for order in plan.decisions) or rec.claim:
                self._spare = None
                return harmless and bool(losers(copy, plan))
        copy.apply(ev.JobChanged(before), now_ms)
        state.stale, state.entitled_before = False, shares
        return True


def _somebody_stands_back(state: State) -> bool:
    """Whether a job waits behind a reservation: then a change of another one may let it go."""
    codes = (ReasonCode.RESERVED_FOR, ReasonCode.BACKFILL_TOO_LONG)
    answers = (group.answer for group in state.waiting.every_group())
    return any(isinstance(answer, Reason) and answer.code in codes for answer in answers)


def _settled(state: State, rec: JobRec, now_ms: int) -> bool:
    """Whether the job certainly stays blocked in the next pass."""
    group = state.waiting.group_of.get(rec.id)
    if group is None:
        return True
    cycle = Cycle(state, now_ms)
    before = state.entitled_before
    cycle.share_out()
    state.entitled_before, state.stale = before, False
    return Settling(Bounds(state, cycle.victims, Shortage(state))).stays(state.book.leaf_of(rec), group)


def pass_time(engine: Engine, job_id: str, why: Reason, now_ms: int) -> Passed:
    """Wait as long as time is all that the job waits for. Those who were told to leave use up their grace period."""
    copy = engine.branch()
    at = now_ms
    for _ in range(MAX_WAITS):
        at = max(at, why.until_ms if why.until_ms is not None else at)
        for rec in [copy.state.book.jobs[other] for other in sorted(copy.state.book.leavers)]:
            if rec.leave_by <= at:
                _leave(copy, rec.id, at)
        if _after(copy, copy.decide(at), job_id, at, set()).started:
            return Passed(at, None)
        still = copy.reason(job_id)
        if still is None or still.code not in TIME_CODES or (still.until_ms or at) < at:
            return Passed(at, still)
        why = still
    return Passed(at, why)


def _after(copy: Engine, plan: Plan, job_id: str, now_ms: int, ended: set[str]) -> Outcome:
    """What has come of a plan; if it makes others leave for the job, they leave and the engine decides once more."""
    lost = ended | losers(copy, plan)
    rec = copy.state.book.jobs.get(job_id)
    if rec is not None and rec.phase not in HOLDING and (rec.claim or ended):
        leave_all(copy, now_ms)
        lost |= losers(copy, copy.decide(now_ms))
    started = rec is not None and rec.phase in HOLDING
    return Outcome(started, tuple(sorted(lost - {job_id})))


def leave_all(copy: Engine, now_ms: int) -> None:
    """Everybody who was told to leave has left."""
    for other in sorted(copy.state.book.leavers):
        _leave(copy, other, now_ms)


def losers(copy: Engine, plan: Plan) -> set[str]:
    """Who loses GPUs by this plan."""
    found: set[str] = set()
    for decision in plan.decisions:
        gives_up = isinstance(decision, Resize) and copy.state.book.jobs[decision.job_id].leaving
        if gives_up or isinstance(decision, (Preempt, Stop)):
            found.add(decision.job_id)
    return found


def _leave(copy: Engine, job_id: str, now_ms: int) -> None:
    """Whoever was told to leave has left."""
    rec = copy.state.book.jobs[job_id]
    match rec.phase:
        case Phase.PREEMPTING:
            copy.apply(ev.JobRequeued(job_id, rec.epoch, "preempted"), now_ms)
        case Phase.STOPPING:
            copy.apply(ev.JobFinished(job_id, rec.epoch, "cancelled"), now_ms)
        case Phase.RESIZING:
            copy.apply(ev.JobResized(job_id, rec.epoch, rec.places), now_ms)
        case _:
            raise AssertionError(f"{job_id} is leaving and {rec.phase}")
