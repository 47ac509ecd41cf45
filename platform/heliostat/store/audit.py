"""The audit log: who changed what. Rows are appended in the transaction of the change itself, hash-chained, never changed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from heliostat.store.chain import GENESIS, link
from heliostat.store.inserting import insert_row
from heliostat.store.tables import Audit

NEWEST = select(Audit.hash).order_by(Audit.seq.desc()).limit(1)
CHAINED = ("at_ms", "actor", "project", "action", "object", "request_id", "data")


def append(
    session: Session,
    *,
    at_ms: int,
    actor: str,
    action: str,
    object: str,
    project: str = "",
    request_id: str = "",
    data: dict[str, Any] | None = None,  # Any: JSON
) -> str:
    """Add a row; returns the new head of the chain."""
    previous = head(session)
    record = {
        "at_ms": at_ms,
        "actor": actor,
        "project": project,
        "action": action,
        "object": object,
        "request_id": request_id,
        "data": data or {},
    }
    now = link(previous, record)
    insert_row(session, Audit, {**record, "previous": previous, "hash": now})
    return now


def head(session: Session) -> str:
    """The hash of the newest row."""
    return session.connection().execute(NEWEST).scalar() or GENESIS


def first_broken(session: Session) -> int | None:
    """The `seq` of the first row that does not follow from the rows before it, or None when the chain is whole."""
    previous = GENESIS
    for row in session.execute(select(Audit).order_by(Audit.seq)).scalars():
        record = {name: getattr(row, name) for name in CHAINED}
        if row.previous != previous or row.hash != link(previous, record):
            return row.seq
        previous = row.hash
    return None
