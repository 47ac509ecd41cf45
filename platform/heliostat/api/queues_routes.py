"""/api/v1/queues: what each queue has and uses, and the queue file."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from heliostat_scheduler.core.lifecycle import LIVE
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from heliostat.access import Action
from heliostat.api import models
from heliostat.api.answers import PROBLEMS, answer
from heliostat.api.doors import Caller, Doors, TheDoors, need, request_id
from heliostat.api.problems import Problem
from heliostat.queuefile import QueueFile, diff, doubts, parse
from heliostat.store import audit, events, queuefiles
from heliostat.store.tables import Job

router = APIRouter(prefix="/api/v1/queues", tags=["queues"], responses=PROBLEMS)
YAML_BODY: dict[str, Any] = {  # Any: OpenAPI's own structure
    "requestBody": {"required": True, "content": {"application/yaml": {"schema": {"type": "string"}}}}
}


@router.get("", operation_id="list_queues")
def list_queues(doors: TheDoors, _caller: Caller) -> dict[str, Any]:  # Any: JSON
    """Every queue with its guarantee, limit and use. `warnings`: what the file in force promises and the cluster cannot keep."""
    return {"items": doors.control.queue_usage(), "warnings": doubts(doors.queue_file(), doors.capacity().amounts())}


@router.get("/file", operation_id="get_queue_file", response_class=Response)
def get_file(doors: TheDoors, _caller: Caller) -> Response:
    """The queue file in force, with its ETag."""
    file = doors.queue_file()
    return Response(file.text, media_type="application/yaml", headers={"ETag": _tag(file)})


@router.post("/file/diff", operation_id="diff_queue_file", response_model=models.QueueDiff, openapi_extra=YAML_BODY)
async def diff_file(request: Request, doors: TheDoors, _caller: Caller) -> Response:
    """What this file would change. Nothing is stored."""
    new = await _body(request)
    return answer(await run_in_threadpool(_changes, doors, new))


@router.put("/file", operation_id="put_queue_file", response_model=models.QueueDiff, openapi_extra=YAML_BODY)
async def put_file(
    request: Request, doors: TheDoors, caller: Caller, if_match: Annotated[str | None, Header()] = None
) -> Response:
    """Put a queue file in force. If-Match names the file that it replaces."""
    need(caller, Action.PLATFORM)
    new = await _body(request)
    told = await run_in_threadpool(_changes, doors, new)
    now, rid = doors.clock_ms(), request_id(request)

    def work(session: Session) -> None:
        old = parse(queuefiles.current_text(session))
        _check_match(if_match, old)
        _check_jobs(session, new)
        queuefiles.put(session, new.text, actor=caller.user, now_ms=now)
        events.append(
            session,
            at_ms=now,
            kind="queues_changed",
            actor=caller.user,
            data={"changes": [str(c) for c in diff(old, new)]},
        )
        audit.append(
            session,
            at_ms=now,
            actor=caller.user,
            action="queue_file_applied",
            object="queues.yaml",
            request_id=rid,
            data={"old": old.etag, "new": new.etag},
        )

    await doors.store.awrite(work)
    await run_in_threadpool(doors.queue_file_changed, new)
    return answer(told, headers={"ETag": _tag(new)})


async def _body(request: Request) -> QueueFile:
    raw = await request.body()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Problem(400, "invalid_request", "The queue file is not UTF-8 text.", "Save it as UTF-8.") from error
    return parse(text)


def _tag(file: QueueFile) -> str:
    return f'"{file.etag}"'


def _changes(doors: Doors, new: QueueFile) -> models.QueueDiff:
    old = doors.queue_file()
    changes = [
        models.QueueChange(queue=c.queue, what=c.what, field=c.field or c.what, old=c.old, new=c.new)
        for c in diff(old, new)
    ]
    return models.QueueDiff(changes=changes, warnings=doubts(new, doors.capacity().amounts()), etag=new.etag)


def _check_match(if_match: str | None, old: QueueFile) -> None:
    if if_match is None:
        raise Problem(
            428,
            "if_match_missing",
            "If-Match is missing.",
            "Send the ETag of the file that you changed (GET /queues/file).",
        )
    tags = {tag.strip() for tag in if_match.split(",")}
    if "*" not in tags and _tag(old) not in tags:
        raise Problem(
            412,
            "queue_file_changed",
            "Somebody changed the queue file meanwhile.",
            "Read it again and repeat your change.",
        )


def _check_jobs(session: Session, new: QueueFile) -> None:
    """Queues with jobs that are not over may not vanish under them."""
    query = select(Job.queue, func.count()).where(Job.state.in_(sorted(LIVE))).group_by(Job.queue)
    counts = {queue: number for queue, number in session.execute(query)}  # noqa: C416  (rows are not typed as pairs for dict)
    gone = [f"{queue} ({number})" for queue, number in sorted(counts.items()) if queue not in new.leaves()]
    if gone:
        raise Problem(
            409,
            "queue_in_use",
            f"Jobs that are not over are in queues which the new file does not have as leaves: {', '.join(gone)}.",
            "Keep these queues until they are empty, or move the jobs that wait: helio queue, PATCH /jobs/{id}.",
        )
