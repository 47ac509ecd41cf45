"""/api/v1/events (a stream of everything that happens) and the logs of a job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse
from heliostat_scheduler.core.lifecycle import TERMINAL
from starlette.concurrency import run_in_threadpool

from heliostat.access import Principal
from heliostat.api import models, views
from heliostat.api.answers import PROBLEMS, answer
from heliostat.api.doors import Caller, Doors, TheDoors
from heliostat.api.problems import Problem
from heliostat.api.streams import HEARTBEAT, Closing, event_stream, frame
from heliostat.store import events, jobs

router = APIRouter(prefix="/api/v1", tags=["events"], responses=PROBLEMS)
BATCH = 500


@router.get("/events", operation_id="stream_events", response_class=Response)
async def stream_events(
    request: Request,
    doors: TheDoors,
    caller: Caller,
    job: str | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
    after: Annotated[int | None, Query(ge=0)] = None,
    limit: Annotated[int, Query(ge=1, le=BATCH)] = 50,
) -> Response:
    """Server-sent events as they happen. Last-Event-ID (or `after`) continues behind an event; without it, from now on.

    The stream of one job ends with an `end` event when the job is over. With `Accept: application/json` no stream: the latest
    events (or the first behind `after`), oldest first.
    """
    if job is not None:
        await run_in_threadpool(doors.job, job, caller)
    if _wants_json(request):
        return await run_in_threadpool(_listed, doors, caller, job, after, limit)
    start = _start(last_event_id, after)
    if start is None:
        with doors.store.read() as session:
            start = 0 if job is not None else events.last_seq(session)
    closing: Closing = request.app.state.closing
    return event_stream(_events(doors, closing, caller, job, start, lambda: doors.still(request)))


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _listed(doors: Doors, caller: Principal, job: str | None, after: int | None, limit: int) -> Response:
    project = None if caller.everywhere else caller.project
    with doors.store.read() as session:
        if after is not None:
            found = list(events.after(session, after, project=project, job=job, limit=limit))
        else:
            found = list(events.latest(session, project=project, job=job, limit=limit))
    return answer(models.EventList.model_construct(items=views.event_views(found)))


def _start(last_event_id: str | None, after: int | None) -> int | None:
    if last_event_id is None or not last_event_id.strip():
        return after
    if not last_event_id.strip().isdigit():
        raise Problem(
            400, "invalid_request", f"Last-Event-ID '{last_event_id[:40]}' is no event of ours.", "Leave it out."
        )
    return int(last_event_id)


async def _events(
    doors: Doors, closing: Closing, caller: Principal, job: str | None, seq: int, still: Callable[[], bool]
) -> AsyncIterator[bytes]:
    project = None if caller.everywhere else caller.project
    yield HEARTBEAT
    with closing.commits(doors.store) as commits:
        while not commits.closing and still():
            with doors.store.read() as session:
                over = job is not None and _over(doors, job)
                found = events.after(session, seq, project=project, job=job, limit=BATCH)
            for event in found:
                seq = event.seq
                yield frame(views.event_view(event).model_dump_json(by_alias=True), event=event.kind, id=seq)
            if over and not found:
                yield frame({"job": job}, event="end", id=seq)
                return
            if len(found) < BATCH and not await commits.wait(doors.options.heartbeat_s):
                yield HEARTBEAT


def _over(doors: Doors, job_id: str) -> bool:
    with doors.store.read() as session:
        row = jobs.find(session, job_id)
    return row is None or row.state in TERMINAL


@router.get("/jobs/{job_id}/logs", operation_id="get_job_logs", response_class=PlainTextResponse)
async def job_logs(
    job_id: str,
    request: Request,
    doors: TheDoors,
    caller: Caller,
    offset: Annotated[int, Query(ge=0)] = 0,
    follow: bool = False,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """The joined log of all attempts from a byte offset on. follow: events `log` {offset, text, next_offset}, then `end`."""
    row = await run_in_threadpool(doors.job, job_id, caller)
    if not follow:
        text, after = await run_in_threadpool(doors.control.logs, row.id, offset)
        return PlainTextResponse(text, headers={"Heliostat-Next-Offset": str(after)})
    closing: Closing = request.app.state.closing
    begin = _start(last_event_id, None) or offset
    return event_stream(_log(doors, closing, row.id, begin, lambda: doors.still(request)))


async def _log(
    doors: Doors, closing: Closing, job_id: str, offset: int, still: Callable[[], bool]
) -> AsyncIterator[bytes]:
    quiet_s = 0.0
    yield HEARTBEAT
    with closing.commits(doors.store) as commits:
        while not commits.closing and still():
            over = await run_in_threadpool(_over, doors, job_id)
            text, after = await run_in_threadpool(doors.control.logs, job_id, offset)
            if text:
                yield frame({"offset": offset, "text": text, "next_offset": after}, event="log", id=after)
                offset, quiet_s = after, 0.0
                continue
            if over:
                yield frame({"job": job_id, "offset": offset}, event="end", id=offset)
                return
            if await commits.wait(doors.options.poll_s):
                continue
            quiet_s += doors.options.poll_s
            if quiet_s >= doors.options.heartbeat_s:
                quiet_s = 0.0
                yield HEARTBEAT
