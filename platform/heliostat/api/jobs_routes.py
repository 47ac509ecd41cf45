"""/api/v1/jobs: submit, list, look, change, end."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from heliostat_scheduler.core.events import JobSubmitted
from heliostat_scheduler.core.lifecycle import TERMINAL, JobState
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from heliostat.access import Action, Principal
from heliostat.api import cursors, models, views
from heliostat.api.answers import PROBLEMS, answer
from heliostat.api.changing import change_job
from heliostat.api.doors import Caller, Doors, TheDoors, need, request_id
from heliostat.api.idempotency import InFlight
from heliostat.api.masking import foreign_jobs, masked, named_in
from heliostat.api.problems import Problem
from heliostat.store import audit, events, jobs
from heliostat.store.jobs import JobFilter
from heliostat.store.tables import Job, Metric
from heliostat.submission import Accepted, Asked, accept, check_dependencies, enter

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"], responses=PROBLEMS)
MAX_PAGE = 500


PLAN: dict[int | str, dict[str, Any]] = {  # Any: OpenAPI's own structure
    200: {
        "description": "With plan=true: what would happen",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


@router.post("", operation_id="submit_job", status_code=201, response_model=models.Job, responses=PLAN)
async def submit(
    submission: models.JobSubmission, request: Request, doors: TheDoors, caller: Caller, plan: bool = False
) -> Response:
    """Queue a job; answered when it is stored. With `plan=true`: what would happen, and nothing is stored."""
    now = doors.clock_ms()
    asked = asked_of(submission)
    accepted = accept(
        asked,
        principal=caller,
        file=doors.queue_file(),
        capacity=await doors.capacity_now(),
        job_id=jobs.new_id(now),
        now_ms=now,
    )
    if plan:
        return await run_in_threadpool(_plan, doors, accepted, caller)
    flights: InFlight = request.app.state.in_flight
    with flights.call(request, caller, await request.body(), now) as call:

        def work(session: Session) -> Response:
            flights.purge(session, now)
            replay = call.replay(session)
            if replay is not None:
                return replay
            row = enter(session, accepted, caller, request_id=request_id(request), chosen_id=bool(asked.id))
            body = views.fresh_view(row, now).model_dump_json()
            call.remember(session, 201, body)
            return Response(body, 201, media_type="application/json", headers={"Location": f"/api/v1/jobs/{row.id}"})

        response = await doors.store.awrite(work)
    if "Location" in response.headers:
        doors.control.submitted(str(accepted.values["id"]))
    return response


def asked_of(body: models.JobSubmission) -> Asked:
    fields: dict[str, Any] = body.model_dump(exclude={"command", "gpus", "entrypoint"})  # Any: field values
    if body.gpus is not None:
        if body.min_gpus is not None or body.max_gpus is not None:
            raise Problem(
                400, "bad_request", "gpus and min_gpus/max_gpus are both set.", "Send gpus, or min_gpus and max_gpus."
            )
        fields |= {"min_gpus": body.gpus, "max_gpus": body.gpus}
    fields["after"] = tuple(body.after)
    return Asked(argv=tuple(body.command or ()), entrypoint=body.entrypoint or "", **fields)


def _plan(doors: Doors, accepted: Accepted, caller: Principal) -> Response:
    with doors.store.read() as session:
        check_dependencies(session, caller, accepted.after)
        failed = jobs.unsuccessful(session, accepted.after)
    held = accepted.values["state"] == "held"
    spec = jobs.core_spec(jobs.as_added(accepted.values))
    told = doors.control.whatif_submit(JobSubmitted(spec, held, failed=failed))
    with doors.store.read() as session:
        hidden = foreign_jobs(session, named_in(told), caller)
    return Response(json.dumps(masked(told, hidden)), media_type="application/json")


@router.get("", operation_id="list_jobs", response_model=models.JobPage)
def list_jobs(
    doors: TheDoors,
    caller: Caller,
    response: Response,
    state: Annotated[list[str] | None, Query()] = None,
    queue: str | None = None,
    user: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    cursor: str | None = None,
) -> Response:
    """Newest first."""
    states = tuple(dict.fromkeys(part for value in state or () for part in value.split(",") if part))
    unknown = [name for name in states if name not in set(JobState)]
    if unknown:
        raise Problem(400, "invalid_request", f"There is no state '{unknown[0]}'.", f"States: {', '.join(JobState)}.")
    chosen = JobFilter(projects=caller.scope(), states=states, queue=queue or None, user=user or None)
    before = cursors.decode(cursor, chosen) if cursor else None
    with doors.store.read() as session:
        rows = jobs.page(session, chosen, before_seq=before, limit=limit + 1)
        items = views.job_views(session, rows[:limit], doors.control, doors.clock_ms())
    following = cursors.encode(rows[limit - 1].seq, chosen) if len(rows) > limit else None
    return answer(models.JobPage.model_construct(items=items, next_cursor=following))


@router.get("/{job_id}", operation_id="get_job", response_model=models.Job)
def get_job(job_id: str, doors: TheDoors, caller: Caller) -> Response:
    return answer(_looked_at(doors, job_id, caller))


def _looked_at(doors: Doors, job_id: str, caller: Principal) -> models.Job:
    row = doors.job(job_id, caller)
    with doors.store.read() as session:
        return views.job_view(session, row, doors.control, doors.clock_ms())


@router.patch("/{job_id}", operation_id="change_job", response_model=models.Job)
def patch_job(job_id: str, change: models.JobChange, request: Request, doors: TheDoors, caller: Caller) -> Response:
    """Change a job: the priority any time, everything else while it waits."""
    need(caller, Action.CHANGE)
    change_job(doors, doors.job(job_id, caller), change, caller, request_id(request))
    return answer(_looked_at(doors, job_id, caller))


@router.delete("/{job_id}", operation_id="delete_job", status_code=204)
def delete_job(job_id: str, request: Request, doors: TheDoors, caller: Caller) -> Response:
    """Forget a job that is over. Its events stay."""
    need(caller, Action.CHANGE)
    forget(doors, doors.job(job_id, caller), caller, request_id(request))
    return Response(status_code=204)


def forget(doors: Doors, row: Job, caller: Principal, rid: str) -> None:
    now = doors.clock_ms()

    def work(session: Session) -> None:
        state = jobs.get(session, row.id).state
        if state not in TERMINAL:
            raise Problem(409, "wrong_state", f"Job {row.id} is {state}.", f"End it first: helio cancel {row.id}")
        jobs.forget(session, row.id)
        events.append(session, at_ms=now, kind="job_deleted", job=row.id, project=row.project, actor=caller.user)
        audit.append(
            session,
            at_ms=now,
            actor=caller.user,
            project=row.project,
            action="job_deleted",
            object=row.id,
            request_id=rid,
        )

    doors.store.write(work)


@router.post("/{job_id}/cancel", operation_id="cancel_job", response_model=models.Job)
def cancel(job_id: str, request: Request, doors: TheDoors, caller: Caller) -> Response:
    """End a job. A job that is over stays as it is."""
    return _act(doors, job_id, caller, "cancel", request_id(request))


@router.post("/{job_id}/hold", operation_id="hold_job", response_model=models.Job)
def hold(job_id: str, request: Request, doors: TheDoors, caller: Caller) -> Response:
    """Keep a waiting job from starting."""
    return _act(doors, job_id, caller, "hold", request_id(request))


@router.post("/{job_id}/release", operation_id="release_job", response_model=models.Job)
def release(job_id: str, request: Request, doors: TheDoors, caller: Caller) -> Response:
    """Let a held job start when its turn comes."""
    return _act(doors, job_id, caller, "release", request_id(request))


def _act(doors: Doors, job_id: str, caller: Principal, verb: str, rid: str) -> Response:
    need(caller, Action.CHANGE)
    act(doors, doors.job(job_id, caller), caller, verb, rid)
    return answer(_looked_at(doors, job_id, caller))


DONE_ALREADY = {"cancel": TERMINAL, "hold": frozenset({JobState.HELD}), "release": frozenset({JobState.QUEUED})}


def act(doors: Doors, row: Job, caller: Principal, verb: str, rid: str) -> bool:
    """Cancel, hold or release. False when the job already was where the verb leads."""
    if row.state in DONE_ALREADY[verb]:
        return False
    verbs = {"cancel": doors.control.cancel, "hold": doors.control.hold, "release": doors.control.release}
    verbs[verb](row.id, caller.user)
    now = doors.clock_ms()
    doors.store.write(
        lambda session: audit.append(
            session,
            at_ms=now,
            actor=caller.user,
            project=row.project,
            action=f"job_{verb}",
            object=row.id,
            request_id=rid,
        )
    )
    return True


@router.get("/{job_id}/explanation", operation_id="explain_job")
def explain(
    job_id: str, doors: TheDoors, caller: Caller, wait_s: Annotated[float, Query(ge=0, le=30)] = 0.0
) -> dict[str, Any]:  # Any: JSON
    """Why the job is where it is, what was checked, what would help, and when it starts.

    Where many jobs wait, the remedies may still be on trial (`remedies_complete`: false): ask again, or with `wait_s`.
    """
    row = doors.job(job_id, caller)
    told = {**doors.control.explain(row.id, wait_s), **views.eta_fields(doors.control.etas([row.id]).get(row.id), row)}
    with doors.store.read() as session:
        hidden = foreign_jobs(session, named_in(told), caller)
    return masked(told, hidden)


@router.get("/{job_id}/events", operation_id="list_job_events", response_model=models.EventList)
def job_events(job_id: str, doors: TheDoors, caller: Caller) -> Response:
    row = doors.job(job_id, caller)
    with doors.store.read() as session:
        found = events.after(session, 0, job=row.id, limit=10_000)
    return answer(models.EventList.model_construct(items=views.event_views(found)))


@router.get("/{job_id}/metrics", operation_id="list_job_metrics", response_model=models.MetricList)
def job_metrics(job_id: str, doors: TheDoors, caller: Caller, name: str | None = None) -> Response:
    row = doors.job(job_id, caller)
    query = select(Metric).where(Metric.job == row.id).order_by(Metric.id).limit(20_000)
    with doors.store.read() as session:
        found = session.execute(query if name is None else query.where(Metric.name == name)).scalars().all()
    return answer(models.MetricList(items=[views.metric_view(metric) for metric in found]))
