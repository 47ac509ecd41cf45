"""/api/v1/jobs/{id}/metrics/stream: what a job reports, as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from heliostat_scheduler.core.lifecycle import TERMINAL
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from heliostat.api import views
from heliostat.api.answers import PROBLEMS
from heliostat.api.doors import Caller, Doors, TheDoors
from heliostat.api.problems import Problem
from heliostat.api.streams import HEARTBEAT, Closing, event_stream, frame
from heliostat.store import jobs
from heliostat.store.tables import Metric

router = APIRouter(prefix="/api/v1", tags=["jobs"], responses=PROBLEMS)
BATCH = 1_000


@router.get("/jobs/{job_id}/metrics/stream", operation_id="stream_job_metrics", response_class=Response)
async def stream_metrics(
    job_id: str,
    request: Request,
    doors: TheDoors,
    caller: Caller,
    name: str | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
    after: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """Server-sent events `metric` {at, name, value, step}, from the first on, then as they come, then `end`.

    Last-Event-ID (or `after`) continues behind one.
    """
    row = await run_in_threadpool(doors.job, job_id, caller)
    if last_event_id is not None and last_event_id.strip() and not last_event_id.strip().isdigit():
        raise Problem(
            400, "invalid_request", f"Last-Event-ID '{last_event_id[:40]}' is no point of ours.", "Leave it out."
        )
    start = int(last_event_id) if last_event_id and last_event_id.strip() else after
    closing: Closing = request.app.state.closing
    return event_stream(_points(doors, closing, row.id, name, start, lambda: doors.still(request)))


async def _points(
    doors: Doors, closing: Closing, job_id: str, name: str | None, last: int, still: Callable[[], bool]
) -> AsyncIterator[bytes]:
    yield HEARTBEAT
    with closing.commits(doors.store) as commits:
        while not commits.closing and still():
            over, found = await run_in_threadpool(_read, doors, job_id, name, last)
            for metric in found:
                last = metric.id
                yield frame(views.metric_view(metric).model_dump_json(), event="metric", id=last)
            if over and not found:
                yield frame({"job": job_id}, event="end", id=last)
                return
            if len(found) < BATCH and not await commits.wait(doors.options.heartbeat_s):
                yield HEARTBEAT


def _read(doors: Doors, job_id: str, name: str | None, last: int) -> tuple[bool, Sequence[Metric]]:
    """Whether the job had ended before this look, and the next points."""
    query = select(Metric).where(Metric.job == job_id, Metric.id > last).order_by(Metric.id).limit(BATCH)
    with doors.store.read() as session:
        row = jobs.find(session, job_id)
        over = row is None or row.state in TERMINAL
        found = session.execute(query if name is None else query.where(Metric.name == name)).scalars().all()
    return over, found
