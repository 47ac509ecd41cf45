"""/api/v1/endpoints and /api/v1/keys. What belongs to another project does not exist."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from heliostat.access import Action, Principal
from heliostat.api import endpoint_shapes as shapes
from heliostat.api import endpoint_views as views
from heliostat.api.answers import PROBLEMS, answer
from heliostat.api.doors import Caller, Doors, TheDoors, need, request_id
from heliostat.api.endpoint_explaining import of_endpoint
from heliostat.api.idempotency import InFlight
from heliostat.api.masking import foreign_jobs, masked, named_in
from heliostat.endpoints import (
    Actor,
    DeployRequest,
    KeyRequest,
    access_log,
    deploying,
    keys,
    removing,
    rows,
    scaling,
    traffic,
)
from heliostat.endpoints.errors import unknown_deployment, unknown_endpoint, unknown_key
from heliostat.endpoints.names import version_number
from heliostat.store import jobs
from heliostat.store.endpoint_tables import Deployment, Endpoint, EndpointKey

router = APIRouter(prefix="/api/v1", tags=["endpoints"], responses=PROBLEMS)
HOUR_MS = 3_600_000


@router.get("/endpoints", operation_id="list_endpoints", response_model=shapes.EndpointList)
def list_endpoints(doors: TheDoors, caller: Caller) -> Response:
    """The endpoints of your project, by name."""
    with doors.store.read() as session:
        found = rows.listed(session, caller.scope())
        items = [views.endpoint_view(session, row, doors.endpoints) for row in found]
    return answer(shapes.EndpointList(items=items))


@router.get("/endpoints/{name}", operation_id="get_endpoint", response_model=shapes.Endpoint)
def get_endpoint(name: str, doors: TheDoors, caller: Caller) -> Response:
    """One endpoint with its versions: state, weight, replicas, and the traceback of one that cannot start."""
    with doors.store.read() as session:
        return answer(views.endpoint_view(session, seen(session, name, caller), doors.endpoints))


@router.get("/endpoints/{name}/explanation", operation_id="explain_endpoint")
def explain_endpoint(
    name: str, doors: TheDoors, caller: Caller, wait_s: Annotated[float, Query(ge=0, le=30)] = 0.0
) -> dict[str, Any]:  # Any: JSON
    """Why its versions have fewer replicas than they want: who holds what is missing, and what would help."""
    with doors.store.read() as session:
        shown = views.endpoint_view(session, seen(session, name, caller), doors.endpoints)
        queues = {row.job: jobs.get(session, row.job).queue for row in shown.deployments}
    explained = [(row, doors.control.explain(row.job, wait_s), queues[row.job]) for row in shown.deployments]
    told = of_endpoint(shown, explained, doors.control.queue_usage())
    with doors.store.read() as session:
        hidden = foreign_jobs(session, set().union(*(named_in(why) for _, why, _ in explained)), caller)
    return masked(told, hidden)


@router.post("/endpoints/{name}/deployments", operation_id="deploy", status_code=201, response_model=shapes.Deployment)
async def deploy(
    name: str, body: shapes.DeploymentRequest, request: Request, doors: TheDoors, caller: Caller
) -> Response:
    """Serve a registered version at this endpoint, which is made when it is new. Takes an Idempotency-Key.

    The answer comes before anything is started: read the endpoint until the version is `ready` or `failed`.
    """
    need(caller, Action.SUBMIT)
    around = await _surroundings(request, doors, caller)
    now = around.now_ms
    ready = deploying.prepare(DeployRequest(endpoint=name, **body.model_dump()), around)
    flights: InFlight = request.app.state.in_flight
    with flights.call(request, caller, await request.body(), now) as call:

        def work(session: Session) -> Response:
            replay = call.replay(session)
            if replay is not None:
                return replay
            row = deploying.store(session, ready)
            text = views.deployment_view(session, row, doors.endpoints).model_dump_json()
            call.remember(session, 201, text)
            headers = {"Location": f"/api/v1/endpoints/{name}"}
            return Response(text, 201, media_type="application/json", headers=headers)

        response = await doors.store.awrite(work)
    doors.control.submitted(str(ready.job.values["id"]))
    doors.endpoints.look()
    return response


@router.patch(
    "/endpoints/{name}/deployments/{version}", operation_id="scale_deployment", response_model=shapes.Endpoint
)
async def scale_deployment(
    name: str, version: str, body: shapes.ScaleRequest, request: Request, doors: TheDoors, caller: Caller
) -> Response:
    """Another number of replicas, fixed or as a range. None is restarted; more of them come as the scheduler grants them."""
    need(caller, Action.CHANGE)
    around = await _surroundings(request, doors, caller)

    def work(session: Session) -> tuple[Endpoint, str]:
        row = seen(session, name, caller)
        found = _deployment_of(session, row, version)
        scaling.scale(session, row, found, body.replicas_min, body.replicas_max, around)
        return row, found.job

    endpoint, job = await doors.store.awrite(work)
    doors.control.changed(job)
    return await run_in_threadpool(_changed, doors, endpoint)


@router.delete("/endpoints/{name}", operation_id="remove_endpoint", status_code=202, response_model=shapes.Endpoint)
def remove_endpoint(name: str, request: Request, doors: TheDoors, caller: Caller) -> Response:
    """It answers no more, its keys are void, and its replicas give back what they hold."""
    need(caller, Action.CHANGE)

    def work(session: Session) -> Endpoint:
        row = seen(session, name, caller)
        removing.remove_endpoint(session, row, actor_of(caller, request), doors.clock_ms())
        return row

    return _changed(doors, doors.store.write(work), 202)


@router.delete(
    "/endpoints/{name}/deployments/{version}",
    operation_id="remove_deployment",
    status_code=202,
    response_model=shapes.Endpoint,
)
def remove_deployment(name: str, version: str, request: Request, doors: TheDoors, caller: Caller) -> Response:
    """Take a version without traffic away."""
    need(caller, Action.CHANGE)

    def work(session: Session) -> Endpoint:
        row = seen(session, name, caller)
        found = _deployment_of(session, row, version)
        removing.remove_version(session, row, found, actor_of(caller, request), doors.clock_ms())
        return row

    return _changed(doors, doors.store.write(work), 202)


@router.put("/endpoints/{name}/traffic", operation_id="set_traffic", response_model=shapes.Endpoint)
def set_traffic(name: str, body: shapes.Traffic, request: Request, doors: TheDoors, caller: Caller) -> Response:
    """Split the traffic between versions that are ready; takes effect within a second."""
    need(caller, Action.CHANGE)
    weights = traffic.parse(body.weights)

    def work(session: Session) -> Endpoint:
        row = seen(session, name, caller)
        traffic.change(session, row, weights, actor_of(caller, request), doors.clock_ms())
        return row

    return _changed(doors, doors.store.write(work))


@router.post("/endpoints/{name}/rollback", operation_id="rollback_traffic", response_model=shapes.Endpoint)
def rollback(name: str, request: Request, doors: TheDoors, caller: Caller) -> Response:
    """Back to the split before the last change, at once."""
    need(caller, Action.CHANGE)

    def work(session: Session) -> Endpoint:
        row = seen(session, name, caller)
        traffic.rollback(session, row, actor_of(caller, request), doors.clock_ms())
        return row

    return _changed(doors, doors.store.write(work))


@router.get("/endpoints/{name}/logs", operation_id="endpoint_logs", response_model=shapes.AccessLog)
def logs(
    name: str,
    doors: TheDoors,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    after_ms: Annotated[int, Query(ge=0)] = 0,
    after: Annotated[str, Query(pattern=r"^(\d{1,20}-\d{1,18})?$")] = "",
) -> Response:
    """The newest lines of the access log, oldest first. What gateways counted arrives here within seconds.

    `next` is the place behind them: with `after=` it, the lines since then come, each once.
    """
    with doors.store.read() as session:
        seen(session, name, caller)
    path = doors.endpoints.log_path(name)
    lines, place = access_log.read_on(path, after, limit) if after else access_log.newest(path, limit, after_ms)
    return answer(shapes.AccessLog(items=[views.access_view(line) for line in lines], next=place))


@router.get("/endpoints/{name}/usage", operation_id="endpoint_usage", response_model=shapes.UsageList)
def usage(name: str, doors: TheDoors, caller: Caller, hours: Annotated[int, Query(ge=1, le=24 * 400)] = 24) -> Response:
    """What was answered, by hour, version, key and kind of status."""
    with doors.store.read() as session:
        row = seen(session, name, caller)
        found = rows.usage(session, row, doors.clock_ms() - hours * HOUR_MS)
    return answer(shapes.UsageList(items=[views.usage_view(row) for row in found]))


# ---- keys ---------------------------------------------------------------------------------------------------------------


@router.post("/endpoints/{name}/keys", operation_id="create_key", status_code=201, response_model=shapes.Key)
def create_key(name: str, body: shapes.KeyRequest, request: Request, doors: TheDoors, caller: Caller) -> Response:
    """Make a key. Its text is in this answer and nowhere else; repetitions make another one (no Idempotency-Key here)."""
    need(caller, Action.CHANGE)

    def work(session: Session) -> tuple[str, EndpointKey]:
        row = seen(session, name, caller)
        return keys.create(session, row, KeyRequest(**body.model_dump()), actor_of(caller, request), doors.clock_ms())

    text, made = doors.store.write(work)
    doors.endpoints.look()
    return answer(views.key_view(made, text), 201)


@router.get("/endpoints/{name}/keys", operation_id="list_endpoint_keys", response_model=shapes.KeyList)
def list_endpoint_keys(name: str, doors: TheDoors, caller: Caller) -> Response:
    """The keys of one endpoint, without their texts, revoked ones too."""
    with doors.store.read() as session:
        seen(session, name, caller)
        return answer(shapes.KeyList(items=[views.key_view(row) for row in rows.keys(session, name)]))


@router.get("/keys", operation_id="list_keys", response_model=shapes.KeyList)
def list_keys(doors: TheDoors, caller: Caller) -> Response:
    """The keys of all endpoints of your project."""
    with doors.store.read() as session:
        found = rows.keys(session, projects=caller.scope())
    return answer(shapes.KeyList(items=[views.key_view(row) for row in found]))


@router.delete("/keys/{key_id}", operation_id="revoke_key", status_code=204)
def revoke_key(key_id: str, request: Request, doors: TheDoors, caller: Caller) -> Response:
    """Refuse a key; its endpoint refuses it within 5 seconds."""
    need(caller, Action.CHANGE)

    def work(session: Session) -> None:
        row = rows.key(session, key_id)
        if row is None or not caller.sees(row.project):
            raise unknown_key(key_id)
        endpoint = session.get_one(Endpoint, row.endpoint)
        keys.revoke(session, row, endpoint, actor_of(caller, request), doors.clock_ms())

    doors.store.write(work)
    doors.endpoints.look()
    return Response(status_code=204)


# ---- shared --------------------------------------------------------------------------------------------------------------


def seen(session: Session, name: str, caller: Principal) -> Endpoint:
    """An endpoint that the caller may see; everything else does not exist."""
    row = rows.find(session, name)
    if row is None or not caller.sees(row.project):
        raise unknown_endpoint(name)
    return row


async def _surroundings(request: Request, doors: Doors, caller: Principal) -> deploying.Surroundings:
    return deploying.Surroundings(
        principal=caller,
        file=doors.queue_file(),
        capacity=await doors.capacity_now(),
        folders=doors.registry.folders,
        now_ms=doors.clock_ms(),
        request_id=request_id(request),
    )


def actor_of(caller: Principal, request: Request) -> Actor:
    return Actor(caller.user, request_id(request))


def _deployment_of(session: Session, endpoint: Endpoint, version: str) -> Deployment:
    number = version_number(version)
    for row in rows.deployments(session, endpoint.name):
        if row.number == number:
            return row
    raise unknown_deployment(endpoint.name, version)


def _changed(doors: Doors, row: Endpoint, status: int = 200) -> Response:
    doors.endpoints.look()
    with doors.store.read() as session:
        fresh = rows.find(session, row.name)
        return answer(views.endpoint_view(session, fresh or row, doors.endpoints), status)
