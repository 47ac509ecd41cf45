"""From rows to the wire. Reads what a page needs beside the jobs (leases, metrics, reasons) in as few queries as possible."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from heliostat_scheduler.core.lifecycle import WAITING, JobState
from heliostat_scheduler.core.reasons import Reason
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from heliostat.api import models
from heliostat.control.port import ControlPort
from heliostat.forecasting.link import Eta
from heliostat.store import tables as t
from heliostat.store.reasons import reason_from, sentence_of

HOLDING = frozenset(
    {
        JobState.ADMITTED,
        JobState.STARTING,
        JobState.RUNNING,
        JobState.RESIZING,
        JobState.PREEMPTING,
        JobState.CANCELLING,
    }
)
UNKNOWN: tuple[Reason | None, int | None] = (None, None)
"""Standing of a job that does not wait, or that the engine has not seen yet: what its last move said is shown."""
RAN_IN = frozenset({JobState.RUNNING, JobState.RESIZING, JobState.PREEMPTING})


def rfc3339(ms: int | None) -> str | None:
    return None if ms is None else at(ms)


def at(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def reason_view(reason: Reason | None) -> models.Reason | None:
    if reason is None:
        return None
    return models.Reason(code=reason.code.value, sentence=sentence_of(reason), facts=dict(reason.facts))


def job_views(session: Session, rows: Sequence[t.Job], control: ControlPort, now_ms: int) -> list[models.Job]:
    """The jobs of a page."""
    running = _running(session, [row.id for row in rows if row.state in HOLDING])
    waiting = [row.id for row in rows if row.state in WAITING]
    standings = control.standings(waiting) if waiting else {}
    etas = control.etas(waiting) if waiting else {}
    return [
        _view(row, standings.get(row.id, UNKNOWN), running.get(row.id, 0), now_ms, etas.get(row.id)) for row in rows
    ]


def job_view(session: Session, row: t.Job, control: ControlPort, now_ms: int) -> models.Job:
    """One job with its history and latest metrics."""
    (view,) = job_views(session, [row], control, now_ms)
    view.reason_history = reason_history(session, row.id)
    view.metrics = _latest_metrics(session, row.id) or view.metrics
    return view


def fresh_view(row: t.Job, now_ms: int) -> models.Job:
    """A job that was entered just now: nobody has looked at it yet."""
    return _view(row, UNKNOWN, 0, now_ms)


def eta_fields(eta: Eta | None, row: t.Job) -> dict[str, Any]:  # Any: JSON
    """What a waiting job was told last about its start; nothing where nothing was estimated, and no time where it would be a guess."""
    if eta is None or row.state not in WAITING:
        return {}
    return {
        "estimated_start": None if eta.unknown else rfc3339(eta.p50_ms),
        "estimated_start_p90": None if eta.unknown else rfc3339(eta.p90_ms),
        "estimate_made": at(eta.made_ms),
        "unknown_runtimes": eta.unknown,
    }


def _view(
    row: t.Job, standing: tuple[Reason | None, int | None], running: int, now_ms: int, eta: Eta | None = None
) -> models.Job:
    state = JobState(row.state)
    waiting = state in WAITING
    current, position = standing
    reason = current or (None if row.reason is None else reason_from(row.reason))
    spent = max(0, now_ms - row.state_since_ms)
    until = rfc3339(reason.until_ms) if waiting and reason is not None else None
    told = eta_fields(eta, row)
    per_task = row.gpu_milli / 1000
    held_ms = row.gpu_ms_held
    return models.Job.model_construct(
        id=row.id,
        name=row.name,
        kind=row.kind,
        project=row.project,
        user=row.user,
        queue=row.queue,
        priority=row.priority,
        priority_class=row.priority_class,
        preemptibility=row.preemptibility,
        state=row.state,
        state_since=at(row.state_since_ms),
        reason=reason_view(reason),
        position=position,
        estimated_start=told.get("estimated_start", until),
        estimated_start_p90=told.get("estimated_start_p90"),
        estimate_made=told.get("estimate_made"),
        unknown_runtimes=told.get("unknown_runtimes", 0),
        gpus=models.Gpus(min=row.min_tasks * per_task, max=row.max_tasks * per_task, held=running * per_task),
        cpus=row.cpu_milli / 1000,
        tasks=models.Tasks(min=row.min_tasks, max=row.max_tasks, running=running),
        gpus_per_task=per_task,
        flavor=row.flavor or None,
        entrypoint=row.entrypoint or shlex.join(row.argv),
        submitted_at=at(row.submitted_ms),
        started_at=rfc3339(row.first_started_ms),
        finished_at=rfc3339(row.finished_ms),
        attempts=row.attempts,
        exit_code=row.exit_code,
        error=row.error or None,
        metrics=_metrics_of(row),
        result=row.result,
        gpu_seconds=models.GpuSeconds(
            held=held_ms / 1000, used=None if row.gpu_ms_used is None else row.gpu_ms_used / 1000
        ),
        waited_s=(row.waited_ms + (spent if waiting else 0)) / 1000,
        ran_s=(row.ran_ms + (spent if state in RAN_IN else 0)) / 1000,
        metadata=row.job_metadata,
        reason_history=None,
    )


def _running(session: Session, ids: list[str]) -> dict[str, int]:
    """Job -> tasks that it holds places for."""
    if not ids:
        return {}
    rows = session.execute(select(t.Lease.job, t.Lease.places).where(t.Lease.job.in_(ids)))
    return {job: len(places) for job, places in rows}


def _metrics_of(row: t.Job) -> dict[str, float] | None:
    """The numbers among the metrics of the result."""
    metrics = (row.result or {}).get("metrics")
    if not isinstance(metrics, dict):
        return None
    return {str(k): float(v) for k, v in metrics.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _latest_metrics(session: Session, job: str) -> dict[str, float]:
    each = t.Metric.name.not_like("%/%")  # a number for each slot is for the history
    newest = select(func.max(t.Metric.id)).where(t.Metric.job == job, each).group_by(t.Metric.name)
    rows = session.execute(select(t.Metric.name, t.Metric.value).where(t.Metric.id.in_(newest)))
    return {name: value for name, value in rows}  # noqa: C416  (rows are Row objects; dict() of them is not typed)


def reason_history(session: Session, job: str) -> list[models.PastReason]:
    query = select(t.Event).where(t.Event.job == job, t.Event.reason.is_not(None)).order_by(t.Event.seq)
    return [
        models.PastReason(
            at=at(event.at_ms), code=reason.code.value, sentence=sentence_of(reason), attempt=event.attempt
        )
        for event in session.execute(query).scalars()
        if event.reason is not None and (reason := reason_from(event.reason))
    ]


def event_view(event: t.Event) -> models.Event:
    return models.Event.model_construct(
        seq=event.seq,
        at=at(event.at_ms),
        kind=event.kind,
        job=event.job,
        actor=event.actor,
        attempt=event.attempt,
        from_state=event.from_state,
        to_state=event.to_state,
        reason=reason_view(None if event.reason is None else reason_from(event.reason)),
        data=event.data,
    )


def event_views(events: Iterable[t.Event]) -> list[models.Event]:
    return [event_view(event) for event in events]


def metric_view(row: t.Metric) -> models.Metric:
    return models.Metric(at=at(row.at_ms), name=row.name, value=row.value, step=row.step)


def audit_view(row: t.Audit) -> models.AuditEntry:
    return models.AuditEntry(
        seq=row.seq,
        at=at(row.at_ms),
        actor=row.actor,
        project=row.project,
        action=row.action,
        object=row.object,
        request_id=row.request_id,
        data=row.data,
        hash=row.hash,
    )


def token_view(row: t.Token, text: str | None = None) -> models.Token:
    return models.Token(
        id=row.id,
        name=row.name,
        role=row.role,
        project=row.project,
        user=row.user,
        created_at=at(row.created_ms),
        expires_at=rfc3339(row.expires_ms),
        last_used_at=rfc3339(row.last_used_ms),
        revoked_at=rfc3339(row.revoked_ms),
        token=text,
    )
