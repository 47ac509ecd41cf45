"""The outbox: every change appends a row in its own transaction; histories and streams read them by `seq`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from heliostat.store.inserting import insert_row
from heliostat.store.tables import Event


def append(
    session: Session,
    *,
    at_ms: int,
    kind: str,
    job: str | None = None,
    project: str = "",
    actor: str = "",
    attempt: int | None = None,
    from_state: str | None = None,
    to_state: str | None = None,
    reason: dict[str, Any] | None = None,  # Any: JSON
    data: dict[str, Any] | None = None,  # Any: JSON
) -> None:
    """Add an event. `kind` is a past-tense name: job_submitted, job_moved, queues_changed, ..."""
    insert_row(
        session,
        Event,
        {
            "at_ms": at_ms,
            "kind": kind,
            "job": job,
            "project": project,
            "actor": actor,
            "attempt": attempt,
            "from_state": from_state,
            "to_state": to_state,
            "reason": reason,
            "data": data or {},
        },
    )


def after(
    session: Session, seq: int, *, project: str | None = None, job: str | None = None, limit: int = 500
) -> Sequence[Event]:
    """Events newer than `seq`, oldest first. `project` None: of all projects. Events of no project are everybody's."""
    query = select(Event).where(Event.seq > seq)
    if job is not None:
        query = query.where(Event.job == job)
    if project is not None:
        query = query.where(Event.project.in_((project, "")))
    return session.execute(query.order_by(Event.seq).limit(limit)).scalars().all()


def latest(session: Session, *, project: str | None = None, job: str | None = None, limit: int = 50) -> Sequence[Event]:
    """The newest events, oldest first; filters as in `after`."""
    query = select(Event)
    if job is not None:
        query = query.where(Event.job == job)
    if project is not None:
        query = query.where(Event.project.in_((project, "")))
    return session.execute(query.order_by(Event.seq.desc()).limit(limit)).scalars().all()[::-1]


def last_seq(session: Session) -> int:
    return session.execute(select(func.max(Event.seq))).scalar() or 0
