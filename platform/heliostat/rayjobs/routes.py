"""Ray's Jobs REST API (2.60): `ray job submit`, list, status, logs, stop, delete and JobSubmissionClient work unmodified."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request, Response, WebSocket

from heliostat.access import Action
from heliostat.api.cluster_routes import RAY_VERSION
from heliostat.api.doors import Caller, TheDoors, need, request_id
from heliostat.api.jobs_routes import act, forget
from heliostat.api.packages_routes import project_of, receive
from heliostat.api.problems import Problem, not_found
from heliostat.rayjobs.asking import asked_of
from heliostat.rayjobs.details import details
from heliostat.rayjobs.tail import tail
from heliostat.store import jobs
from heliostat.store.jobs import JobFilter
from heliostat.submission import accept, enter

router = APIRouter(prefix="/api", include_in_schema=False)
JOBS_API_VERSION = "4"
MAX_LISTED = 1_000
"""Ray's list has no pages: it shows the newest."""


@router.get("/version")
async def version(_caller: Caller) -> dict[str, str]:
    return {"version": JOBS_API_VERSION, "ray_version": RAY_VERSION, "ray_commit": "", "session_name": "heliostat"}


@router.get("/packages/{protocol}/{name}")
def has_package(protocol: str, name: str, doors: TheDoors, caller: Caller) -> Response:
    _only_gcs(protocol)
    if not doors.packages.exists(project_of(doors, caller, ""), name):
        raise not_found(f"package {protocol}://{name}", "Upload it with PUT.")
    return Response()


@router.put("/packages/{protocol}/{name}")
async def put_package(protocol: str, name: str, request: Request, doors: TheDoors, caller: Caller) -> Response:
    _only_gcs(protocol)
    await receive(doors, request, caller, name, "")
    return Response()


def _only_gcs(protocol: str) -> None:
    if protocol != "gcs":
        raise Problem(400, "package_name", f"Packages of {protocol[:40]}:// are not uploaded here.", "Use gcs://.")


@router.post("/jobs/")
@router.post("/jobs")
async def submit(request: Request, doors: TheDoors, caller: Caller) -> dict[str, str]:
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise Problem(400, "invalid_request", f"The request is no JSON: {error}.", "Use Ray's client.") from error
    asked, now = asked_of(body), doors.clock_ms()
    accepted = accept(
        asked,
        principal=caller,
        file=doors.queue_file(),
        capacity=await doors.capacity_now(),
        job_id=jobs.new_id(now),
        now_ms=now,
    )
    row = await doors.store.awrite(
        lambda session: enter(session, accepted, caller, request_id=request_id(request), chosen_id=bool(asked.id))
    )
    doors.control.submitted(row.id)
    return {"job_id": row.id, "submission_id": row.id}


@router.get("/jobs/")
@router.get("/jobs")
def list_jobs(doors: TheDoors, caller: Caller) -> list[dict[str, Any]]:  # Any: JSON
    with doors.store.read() as session:
        rows = jobs.page(session, JobFilter(projects=caller.scope()), limit=MAX_LISTED)
    return [details(row, doors.control) for row in rows]


@router.get("/jobs/{job_id}")
def get_job(job_id: str, doors: TheDoors, caller: Caller) -> dict[str, Any]:  # Any: JSON
    return details(doors.job(job_id, caller), doors.control)


@router.delete("/jobs/{job_id}")
def delete_job(job_id: str, request: Request, doors: TheDoors, caller: Caller) -> dict[str, bool]:
    need(caller, Action.CHANGE)
    forget(doors, doors.job(job_id, caller), caller, request_id(request))
    return {"deleted": True}


@router.post("/jobs/{job_id}/stop")
def stop_job(job_id: str, request: Request, doors: TheDoors, caller: Caller) -> dict[str, bool]:
    """True when the job was not over yet."""
    need(caller, Action.CHANGE)
    return {"stopped": act(doors, doors.job(job_id, caller), caller, "cancel", request_id(request))}


@router.get("/jobs/{job_id}/logs")
def job_logs(job_id: str, doors: TheDoors, caller: Caller) -> dict[str, str]:
    text, offset = "", 0
    pieces: list[str] = []
    row = doors.job(job_id, caller)
    while not pieces or text:
        text, offset = doors.control.logs(row.id, offset)
        pieces.append(text)
    return {"logs": "".join(pieces)}


@router.websocket("/jobs/{job_id}/logs/tail")
async def tail_logs(websocket: WebSocket, job_id: str) -> None:
    await tail(websocket, job_id)
