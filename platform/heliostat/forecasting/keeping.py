"""Estimates into the store: the first one of a job stays, the present one is replaced, and the start that follows is noted."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from heliostat.store.forecast_tables import Forecast
from heliostat.store.inserting import insert_row
from heliostat.store.tables import Job

ROWS = Forecast.metadata.tables["forecast"]
CHANGED = (
    update(ROWS)
    .where(ROWS.c.job == bindparam("which"))
    .values(
        made_ms=bindparam("made"),
        p50_ms=bindparam("p50"),
        p90_ms=bindparam("p90"),
        samples=bindparam("taken"),
        unknown=bindparam("guessed"),
    )
)


def keep(session: Session, made_ms: int, rows: list[list[Any]]) -> None:  # Any: JSON
    """rows: [job, queue, p50, p90, raw p50, raw p90, samples, unknown run times]; waits in milliseconds from `made_ms`, None beyond the
    horizon."""
    ids = [row[0] for row in rows]
    known: set[str] = set()
    for at in range(0, len(ids), 500):
        known |= set(session.execute(select(Forecast.job).where(Forecast.job.in_(ids[at : at + 500]))).scalars())
    changed = []
    for job, queue, p50, p90, raw50, raw90, samples, unknown in rows:
        at50, at90, first50, first90 = (None if wait is None else made_ms + wait for wait in (p50, p90, raw50, raw90))
        if job in known:
            changed.append(
                {"which": job, "made": made_ms, "p50": at50, "p90": at90, "taken": samples, "guessed": unknown}
            )
            continue
        values = {
            "job": job, "queue": queue, "first_ms": made_ms, "first_p50_ms": at50, "first_p90_ms": at90, "raw_p50_ms": first50,
            "raw_p90_ms": first90, "made_ms": made_ms, "p50_ms": at50, "p90_ms": at90, "samples": samples, "started_ms": None,
            "first_unknown": unknown, "unknown": unknown,
        }  # fmt: skip
        insert_row(session, Forecast, values)
    if changed:
        session.connection().execute(CHANGED, changed)


def note_starts(session: Session) -> None:
    """What came of estimates whose jobs have started since; a job that had run before its first estimate says nothing."""
    mine = select(Job.first_started_ms).where(Job.id == Forecast.job, Job.first_started_ms >= Forecast.first_ms)
    started = mine.scalar_subquery()
    session.execute(
        update(Forecast)
        .where(Forecast.started_ms.is_(None), mine.exists())
        .values(started_ms=started)
        .execution_options(synchronize_session=False)
    )
