"""The executor's writes: every function is one step of a turn, on the turn's session. What happened and why is written together."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from heliostat_scheduler.core.lifecycle import JobState
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from heliostat.control import receipts, results
from heliostat.control.attempts import FREED, Attempt, Ending, Finish, NotStarted, Requeue
from heliostat.control.endings import Tries
from heliostat.store import events, jobs, moves
from heliostat.store import tables as t

SCHEDULER = "scheduler"


def grant(
    session: Session, attempt: Attempt, reason: Reason, flavors: dict[str, str], gpu_milli: int, log_path: str
) -> None:
    """A start was decided: lease, attempt and spans are written, the job is admitted."""
    session.add(
        t.Attempt(
            job=attempt.job,
            n=attempt.n,
            epoch=attempt.epoch,
            started_ms=attempt.since_ms,
            ray_submission_id=attempt.submission_id if attempt.has_driver else "",
            secret=attempt.secret,
            log_path=log_path,
        )
    )
    session.execute(delete(t.Lease).where(t.Lease.job == attempt.job))
    session.add(
        t.Lease(
            job=attempt.job,
            attempt=attempt.n,
            epoch=attempt.epoch,
            order=attempt.order,
            places=places_json(attempt),
            secret=attempt.secret,
            since_ms=attempt.since_ms,
        )
    )
    receipts.open_spans(session, attempt, flavors, gpu_milli, attempt.since_ms)
    moves.move(
        session,
        attempt.job,
        JobState.ADMITTED,
        reason=reason,
        actor=SCHEDULER,
        now_ms=attempt.since_ms,
        attempt=attempt.n,
        data={"epoch": attempt.epoch, "slots": [slot.slot for slot in attempt.slots], "node": attempt.node},
        attempts=attempt.n,
        ray_submission_id=attempt.submission_id if attempt.has_driver else "",
    )


def refuse_grant(session: Session, job: str, n: int, epoch: int, text: str, now_ms: int) -> None:
    """A start was decided on slots that went away meanwhile: the number of the attempt is used up, nothing else happened."""
    session.add(
        t.Attempt(job=job, n=n, epoch=epoch, started_ms=now_ms, ended_ms=now_ms, outcome="start_failed:unknown_slot")
    )
    moves.change(session, job, kind="start_refused", actor=SCHEDULER, now_ms=now_ms, data={"text": text}, attempts=n)


def moved(
    session: Session,
    job: str,
    state: JobState,
    reason: Reason | None,
    n: int,
    now_ms: int,
    data: dict[str, Any] | None = None,  # Any: JSON
) -> None:
    moves.move(session, job, state, reason=reason, actor=SCHEDULER, now_ms=now_ms, attempt=n, data=data)


def resized(session: Session, attempt: Attempt) -> None:
    """The lease names other slots under a higher epoch."""
    values = {"epoch": attempt.epoch, "places": places_json(attempt), "deadline_ms": attempt.deadline_ms}
    session.execute(update(t.Lease).where(t.Lease.job == attempt.job).values(**values))
    same = (t.Attempt.job == attempt.job, t.Attempt.n == attempt.n)
    session.execute(update(t.Attempt).where(*same).values(epoch=attempt.epoch))


def ordered(session: Session, attempt: Attempt, epoch: int, order: str, deadline_ms: int) -> None:
    """The lease carries a new order; the board gets it after this."""
    session.execute(
        update(t.Lease).where(t.Lease.job == attempt.job).values(epoch=epoch, order=order, deadline_ms=deadline_ms)
    )
    session.execute(update(t.Attempt).where(t.Attempt.job == attempt.job, t.Attempt.n == attempt.n).values(epoch=epoch))


def ending_known(session: Session, job: str, n: int, ending: Ending, now_ms: int) -> None:
    """How the attempt ends is remembered before its slots are asked back: a control plane that dies now does not ask again."""
    session.execute(
        update(t.Attempt)
        .where(t.Attempt.job == job, t.Attempt.n == n)
        .values(ended_ms=now_ms, outcome=ending.outcome, exit_code=ending.exit_code)
    )
    if ending.error:
        session.execute(update(t.Job).where(t.Job.id == job).values(error=ending.error))


def slots_freed(session: Session, job: str, now_ms: int) -> None:
    receipts.close_spans(session, job, now_ms)
    session.execute(update(t.Lease).where(t.Lease.job == job).values(order=FREED))


def concluded(
    session: Session,
    attempt: Attempt,
    ending: Ending,
    reason: Reason | None,
    now_ms: int,
    result: dict[str, Any] | None,  # Any: JSON
) -> None:
    """Nothing of the attempt is left: the job moves on, its lease is gone, its spans are charged."""
    receipts.close_spans(session, attempt.job, now_ms)
    session.execute(delete(t.Lease).where(t.Lease.job == attempt.job))
    if attempt.done:
        driver_gone(session, attempt.job, attempt.n, now_ms)
    held, used = receipts.held_and_used(session, attempt.job)
    fields: dict[str, Any] = {"gpu_ms_held": held, "gpu_ms_used": used}  # Any: column values
    match ending:
        case Requeue():
            state = JobState.QUEUED
        case NotStarted():
            state = JobState.QUEUED
        case Finish():
            state = ending.state
            fields |= {"exit_code": ending.exit_code, "error": ending.error}
            if result is not None:
                fields["result"] = result
    data = {"outcome": ending.outcome, "exit_code": ending.exit_code, "error": ending.error}
    moves.move(
        session,
        attempt.job,
        state,
        reason=reason,
        actor=SCHEDULER,
        now_ms=now_ms,
        attempt=attempt.n,
        data=data,
        **fields,
    )
    if state is JobState.SUCCEEDED:
        results.finished(session, attempt.job, attempt.n, result, now_ms)


def demand_narrowed(session: Session, job: str, now_ms: int, limits: dict[str, int]) -> None:
    """The script's own range is narrower than the declared one."""
    moves.change(session, job, kind="demand_narrowed", actor=SCHEDULER, now_ms=now_ms, data=limits, **limits)


def parked(session: Session, attempt: Attempt, wanted: dict[str, int], now_ms: int) -> None:
    """A program that declared nothing said what it needs: its job waits for that now, its driver for the lease."""
    receipts.close_spans(session, attempt.job, now_ms)
    resized(session, attempt)
    reason = Reason(ReasonCode.PENDING_EVALUATION, facts=(("position", 0),))
    data = {"demand": wanted}
    moves.move(
        session,
        attempt.job,
        JobState.QUEUED,
        reason=reason,
        actor=SCHEDULER,
        now_ms=now_ms,
        attempt=attempt.n,
        data=data,
        **wanted,
    )


def parked_ended(session: Session, attempt: Attempt, outcome: str, now_ms: int) -> None:
    """Its driver ended, or is asked to, while it waited for its lease."""
    session.execute(delete(t.Lease).where(t.Lease.job == attempt.job))
    same = (t.Attempt.job == attempt.job, t.Attempt.n == attempt.n)
    session.execute(update(t.Attempt).where(*same).values(ended_ms=now_ms, outcome=outcome))


def finished_in_queue(session: Session, attempt: Attempt, ending: Finish, now_ms: int) -> None:
    """The program ended although its lease had not come: that is its job's end."""
    passed = (JobState.ADMITTED, JobState.STARTING, JobState.RUNNING) if ending.state is JobState.SUCCEEDED else ()
    for state in passed:
        moved(session, attempt.job, state, None, attempt.n, now_ms)
    held, used = receipts.held_and_used(session, attempt.job)
    moves.move(
        session,
        attempt.job,
        ending.state,
        reason=None,
        actor=SCHEDULER,
        now_ms=now_ms,
        attempt=attempt.n,
        data={"outcome": ending.outcome, "exit_code": ending.exit_code, "error": ending.error},
        exit_code=ending.exit_code,
        error=ending.error,
        gpu_ms_held=held,
        gpu_ms_used=used,
    )


def driver_gone(session: Session, job: str, n: int, now_ms: int) -> None:
    """Nothing of the attempt's process is left."""
    session.execute(update(t.Attempt).where(t.Attempt.job == job, t.Attempt.n == n).values(gone_ms=now_ms))


def left_behind(session: Session) -> list[tuple[str, int]]:
    """Drivers of ended attempts that may still be there: (job, attempt)."""
    query = select(t.Attempt.job, t.Attempt.n).where(
        t.Attempt.gone_ms.is_(None),
        t.Attempt.ended_ms.is_not(None),
        t.Attempt.ray_submission_id != "",
        ~exists().where(t.Lease.job == t.Attempt.job, t.Lease.attempt == t.Attempt.n),
    )
    return [(job, n) for job, n in session.execute(query.order_by(t.Attempt.job, t.Attempt.n))]


def happened(session: Session, kind: str, attempt: Attempt, now_ms: int, data: dict[str, Any]) -> None:  # Any: JSON
    """An event of a job that changes no state: checkpoint written, order given."""
    events.append(
        session,
        at_ms=now_ms,
        kind=kind,
        job=attempt.job,
        project=attempt.project,
        actor=SCHEDULER,
        attempt=attempt.n,
        data=data,
    )


def noted(session: Session, kind: str, now_ms: int, data: dict[str, Any]) -> None:  # Any: JSON
    """An event of the whole platform: a node came, an intruder was killed."""
    events.append(session, at_ms=now_ms, kind=kind, actor=SCHEDULER, data=data)


def metrics(session: Session, attempt: Attempt, facts: dict[str, Any], now_ms: int) -> None:  # Any: JSON
    """A runner's progress: its numbers become metrics, by step. A point in time is no number to plot."""
    step = facts.get("step")
    for name, value in facts.items():
        if (
            name != "step"
            and not name.endswith("_at_ms")
            and isinstance(value, int | float)
            and not isinstance(value, bool)
        ):
            session.add(
                t.Metric(
                    job=attempt.job,
                    attempt=attempt.n,
                    at_ms=now_ms,
                    name=name,
                    value=float(value),
                    step=step if isinstance(step, int) else None,
                )
            )


def requeue_reason(ending: Requeue | NotStarted) -> Reason | None:
    """What a requeued job is told. For whom it was preempted stands there already (None)."""
    if isinstance(ending, Requeue) and ending.why == "preempted":
        return None
    if isinstance(ending, Requeue) and ending.why in ("node_lost", "head_lost"):
        return Reason(ReasonCode.NODE_LOST, facts=(("why", ending.why),))
    code = ending.code if isinstance(ending, NotStarted) else ending.why
    return Reason(ReasonCode.BACKOFF, facts=(("why", code),), until_ms=ending.retry_at_ms or None)


def places_json(attempt: Attempt) -> list[dict[str, Any]]:  # Any: JSON
    """The lease's places as the store keeps them: whole slot references, so that a lease outlives its slots."""
    refs = {ref.slot: asdict(ref) for ref in (*attempt.leaving, *attempt.slots)}
    kept = [{"node": place.node, "slots": [refs[slot] for slot in place.slots]} for place in attempt.places]
    left = [{"node": place.node, "slots": [refs[slot] for slot in place.slots]} for place in attempt.leaving_places]
    return kept + [{**place, "leaving": True} for place in left]


def tries(session: Session, job_id: str) -> Tries:
    """`max_retries` of the job's metadata: how often its own failures are tried again."""
    asked = str(jobs.get(session, job_id).job_metadata.get("max_retries", 0))
    crashed = session.query(t.Attempt).filter_by(job=job_id, outcome="crashed").count()
    return Tries(crashed, int(asked) if asked.isdigit() else 0)
