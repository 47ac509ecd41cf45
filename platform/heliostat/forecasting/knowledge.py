"""What the store knows that a forecast needs: how long finished jobs ran, who was submitted lately, how past estimates held."""

from __future__ import annotations

from heliostat_scheduler.core.model import JobSpec
from heliostat_scheduler.forecast import Correction, Estimate, Lengths, Ran
from heliostat_scheduler.forecast.eta import Scored
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from heliostat.store import jobs
from heliostat.store.forecast_tables import Forecast
from heliostat.store.tables import Job

FINISHED = 5_000
RECENT = 3_000
OUTCOMES = 1_000
DAY_MS = 24 * 3_600_000
NEVER_MS = DAY_MS
"""Stands for a quantile that was later than the horizon, where a number is needed: the horizon."""


def lengths(session: Session) -> Lengths:
    """Of the newest finished jobs, oldest first; those that ended by somebody's hand say nothing."""
    query = (
        select(
            Job.queue, Job.user, Job.name, Job.min_tasks, Job.gpu_milli, Job.ran_ms, Job.finished_ms, Job.submitted_ms
        )
        .where(Job.state.in_(("succeeded", "failed")), Job.ran_ms > 0)
        .order_by(Job.seq.desc())
        .limit(FINISHED)
    )
    rows = session.execute(query).all()
    return Lengths(
        Ran(r.queue, f"{r.user}/{r.name}", r.min_tasks * r.gpu_milli, r.ran_ms, r.finished_ms or 0, r.submitted_ms)
        for r in reversed(rows)
    )


def recent(session: Session, now_ms: int) -> list[JobSpec]:
    """What was submitted in the last day."""
    query = select(Job).where(Job.submitted_ms > now_ms - DAY_MS).order_by(Job.seq.desc()).limit(RECENT)
    return [jobs.core_spec(row) for row in reversed(session.execute(query).scalars().all())]


def correction(session: Session) -> Correction:
    learned = Correction()
    for row, started_ms in _outcomes(session, OUTCOMES, False):
        raw50, raw90 = _wait(row.raw_p50_ms, row), _wait(row.raw_p90_ms, row)
        learned.learn(Estimate(row.job, row.queue, raw50, raw90, row.samples), started_ms - row.first_ms)
    return learned


def scored(session: Session, queue: str | None = None, limit: int = 10_000, guessed: bool = False) -> list[Scored]:
    """First estimates whose jobs have started, oldest first. A quantile beyond the horizon counts as the horizon. guessed: those that
    rested on run times of which nothing was known."""
    return [
        Scored(
            row.queue,
            started_ms - row.first_ms,
            _known(_wait(row.first_p50_ms, row)),
            _known(_wait(row.first_p90_ms, row)),
        )
        for row, started_ms in _outcomes(session, limit, guessed, queue)
    ]


def _outcomes(session: Session, limit: int, guessed: bool, queue: str | None = None) -> list[tuple[Forecast, int]]:
    """Estimates and the starts that followed, oldest first: noted ones (the job may be deleted since), or the job's own."""
    started = func.coalesce(Forecast.started_ms, Job.first_started_ms)
    query = select(Forecast, started).outerjoin(Job, Job.id == Forecast.job).where(started >= Forecast.first_ms)
    query = query.where(Forecast.first_unknown > 0 if guessed else Forecast.first_unknown == 0)
    if queue is not None:
        query = query.where(Forecast.queue == queue)
    rows = session.execute(query.order_by(started.desc(), Forecast.job).limit(limit)).all()
    return [(row, started_ms) for row, started_ms in reversed(rows)]


def _wait(at_ms: int | None, row: Forecast) -> int | None:
    return None if at_ms is None else max(0, at_ms - row.first_ms)


def _known(wait_ms: int | None) -> int:
    return NEVER_MS if wait_ms is None else wait_ms
