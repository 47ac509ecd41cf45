"""The one function that changes a job's state: table check, version guard, new columns and event row together."""

from __future__ import annotations

from typing import Any

from heliostat_scheduler.core.lifecycle import DEADLINES_MS, TERMINAL, WAITING, JobState, check_move
from heliostat_scheduler.core.reasons import Reason
from sqlalchemy import bindparam, update
from sqlalchemy.orm import Session

from heliostat.store import events, jobs
from heliostat.store.errors import StaleJob
from heliostat.store.reasons import reason_json, sentence_of
from heliostat.store.tables import Job

JOBS = Job.metadata.tables["job"]
NOTE = (
    update(JOBS)
    .where(JOBS.c.id == bindparam("job_id"), JOBS.c.state.in_(sorted(WAITING)))
    .values(reason=bindparam("why", type_=JOBS.c.reason.type), message=bindparam("words"))
    .returning(JOBS.c.project, JOBS.c.attempts)
)


def move(
    session: Session,
    job: Job | str,
    new_state: JobState,
    *,
    reason: Reason | None,
    actor: str,
    now_ms: int,
    attempt: int | None = None,
    data: dict[str, Any] | None = None,  # Any: JSON
    **fields: Any,  # Any: column values
) -> Job:
    """Move a job, or raise IllegalMove or StaleJob with nothing changed. Returns the row as it now is.

    With a row instead of an id the move happens only if nobody changed the job since the row was read. `fields` are further
    columns of the same write. Times in waiting and running states are added up here; `data` goes into the event.
    """
    row = jobs.get(session, job if isinstance(job, str) else job.id)
    expected = row.version if isinstance(job, str) else job.version
    old = JobState(row.state)
    check_move(row.id, old, new_state)
    values = {**_times(row, old, new_state, now_ms), **_told(reason, new_state), **fields}
    _write(session, row, expected, values)
    events.append(
        session,
        at_ms=now_ms,
        kind="job_moved",
        job=row.id,
        project=row.project,
        actor=actor,
        attempt=attempt if attempt is not None else (row.attempts or None),
        from_state=old.value,
        to_state=new_state.value,
        reason=None if reason is None else reason_json(reason),
        data=data,
    )
    return row


def change(
    session: Session,
    job: Job | str,
    *,
    kind: str,
    actor: str,
    now_ms: int,
    data: dict[str, Any] | None = None,
    **fields: Any,
) -> Job:  # Any: JSON, column values
    """Change columns without a change of state, guarded and with an event (`kind`) like a move."""
    row = jobs.get(session, job if isinstance(job, str) else job.id)
    expected = row.version if isinstance(job, str) else job.version
    _write(session, row, expected, fields)
    events.append(
        session,
        at_ms=now_ms,
        kind=kind,
        job=row.id,
        project=row.project,
        actor=actor,
        attempt=row.attempts or None,
        data=data,
    )
    return row


def note_reason(session: Session, job_id: str, reason: Reason) -> tuple[str, int] | None:
    """Record why a job waits now; its (project, attempts), or None when it does not wait any more.

    No event and no version: it changes every cycle and nobody decides on it. One statement, because 100,000 jobs may wait.
    """
    told = {"job_id": job_id, "why": reason_json(reason), "words": sentence_of(reason)}
    row = session.connection().execute(NOTE, told).one_or_none()
    return None if row is None else (row.project, row.attempts)


def _write(session: Session, row: Job, expected: int, values: dict[str, Any]) -> None:  # Any: column values
    session.flush()  # what the caller changed on rows must not be lost by the refresh below
    done = session.execute(
        update(Job)
        .where(Job.id == row.id, Job.version == expected)
        .values(**values, version=expected + 1)
        .returning(Job.seq)
        .execution_options(synchronize_session=False)
    ).all()
    if not done:
        raise StaleJob(f"Job {row.id} was changed by somebody else.", "Read it again, then decide again.")
    session.refresh(row)


def _times(row: Job, old: JobState, new: JobState, now_ms: int) -> dict[str, Any]:  # Any: column values
    spent = max(0, now_ms - row.state_since_ms)
    limit = DEADLINES_MS.get(new)
    values: dict[str, Any] = {
        "state": new.value,
        "state_since_ms": now_ms,
        "deadline_ms": None if limit is None else now_ms + limit,
    }
    if old in WAITING:
        values["waited_ms"] = row.waited_ms + spent
    if old in (JobState.RUNNING, JobState.RESIZING, JobState.PREEMPTING):
        values["ran_ms"] = row.ran_ms + spent
    if new is JobState.RUNNING and row.first_started_ms is None:
        values["first_started_ms"] = now_ms
    if new in TERMINAL:
        values["finished_ms"] = now_ms
    return values


def _told(reason: Reason | None, new: JobState) -> dict[str, Any]:  # Any: column values
    if reason is not None:
        return {"reason": reason_json(reason), "message": sentence_of(reason)}
    return {"reason": None, "message": ""} if new not in WAITING else {}
