"""The queue file in force and its history."""

from __future__ import annotations

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from heliostat.queuefile import DEFAULT_TEXT
from heliostat.store.tables import QueueFile


def current_text(session: Session) -> str:
    """The text of the queue file in force (the default one, when none was ever applied)."""
    return session.execute(select(QueueFile.text).order_by(QueueFile.version.desc()).limit(1)).scalar() or DEFAULT_TEXT


def put(session: Session, text: str, *, actor: str, now_ms: int) -> None:
    session.execute(insert(QueueFile).values(text=text, actor=actor, at_ms=now_ms))
