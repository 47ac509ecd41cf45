"""Trying something on a copy of the engine: does the job start within one cycle, and who loses GPUs by it?

Within one cycle means: in the plan of the next decision; or, when that plan tells others to leave for the job's sake (or the change
ends somebody), in the plan of the first decision after they have left. Nothing here touches the engine that is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.book import HOLDING, Phase
from heliostat_scheduler.core.decisions import Plan, Preempt, Resize, Stop
from heliostat_scheduler.core.reasons import Reason, ReasonCode

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


def attempt(engine: Engine, job_id: str, changes: Sequence[ev.Event], now_ms: int) -> Outcome:
    """Carry the changes out on a copy and look whether the job starts within one cycle."""
    copy = engine.fork()
    ended = {change.job_id for change in changes if isinstance(change, ev.JobCancelled)}
    for change in changes:
        copy.apply(change, now_ms)
    return _cycle(copy, job_id, now_ms, ended)


def pass_time(engine: Engine, job_id: str, why: Reason, now_ms: int) -> Passed:
    """Wait as long as time is all that the job waits for. Those who were told to leave use up their grace period."""
    copy = engine.fork()
    at = now_ms
    for _ in range(MAX_WAITS):
        at = max(at, why.until_ms if why.until_ms is not None else at)
        for rec in [copy.state.book.jobs[other] for other in sorted(copy.state.book.leavers)]:
            if rec.leave_by <= at:
                _leave(copy, rec.id, at)
        if _cycle(copy, job_id, at, set()).started:
            return Passed(at, None)
        still = copy.reason(job_id)
        if still is None or still.code not in TIME_CODES or (still.until_ms or at) < at:
            return Passed(at, still)
        why = still
    return Passed(at, why)


def _cycle(copy: Engine, job_id: str, now_ms: int, ended: set[str]) -> Outcome:
    """One cycle; if it makes others leave for the job, they leave and it decides once more."""
    plan = copy.decide(now_ms)
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
