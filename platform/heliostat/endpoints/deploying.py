"""`helio deploy`: check everything, then enter endpoint, deployment and serving job in one transaction, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from heliostat_serving.spec import Signature, SpecError
from sqlalchemy.orm import Session

from heliostat.access import Principal
from heliostat.artifacts import ArtifactFolders
from heliostat.endpoints import removing, rows
from heliostat.endpoints.errors import EndpointError
from heliostat.endpoints.names import endpoint_ok, model_label, version_label
from heliostat.endpoints.rows import Actor
from heliostat.endpoints.states import DeploymentState
from heliostat.queuefile import QueueFile
from heliostat.registry import ModelVersion, artifact_uri, resolve
from heliostat.store import jobs
from heliostat.store.endpoint_tables import Deployment, Endpoint
from heliostat.submission import Asked, Capacity, enter
from heliostat.submission.deciding import Accepted
from heliostat.submission.serving import accept_serving
from heliostat.submission.shape import Shape

MAX_REPLICAS = 100
MAX_LIVING = 8
MAX_GATEWAYS = 16
MAX_MEMORY_BYTES = 2**50
DEFAULT_CPUS = 0.5
GATEWAY, DIRECT = "gateway", "direct"


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """model: a reference to a registered version. replicas_min 0: it may sleep. weight None: all traffic once it is ready.

    gpus: per replica, 0 or 1. cpus: per replica. options: batching and limits, as the data plane knows them.
    gateways: replicas of the endpoint's gateway; 0: as many as it has, one for a new endpoint. sticky None: as it is.
    """

    endpoint: str
    model: str
    project: str = ""
    replicas_min: int = 1
    replicas_max: int = 1
    gpus: float = 0.0
    cpus: float | None = None
    memory_bytes: int = 0
    flavor: str = ""
    queue: str = ""
    priority: str | int = ""
    preemptibility: str = "preemptible"
    direct: bool = False
    weight: int | None = None
    sticky: bool | None = None
    gateways: int = 0
    max_batch: int = 0
    batch_wait_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a request is checked against."""

    principal: Principal
    file: QueueFile
    capacity: Capacity
    folders: ArtifactFolders
    now_ms: int
    request_id: str = ""

    @property
    def actor(self) -> Actor:
        return Actor(self.principal.user, self.request_id)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that was checked against everything but the store."""

    asked: DeployRequest
    job: Accepted
    project: str
    shape: Shape
    around: Surroundings = field(repr=False)


def prepare(asked: DeployRequest, around: Surroundings) -> Prepared:
    """Raises EndpointError or Refused; nothing is stored."""
    _check(asked)
    shape = _shape(asked)
    request = Asked(
        kind="serve",
        name=asked.endpoint,
        entrypoint=f"helio deploy {asked.model} --endpoint {asked.endpoint}",
        queue=asked.queue,
        priority=asked.priority,
        project=asked.project,
        flavor=asked.flavor,
        preemptibility=asked.preemptibility,
        metadata={"endpoint": asked.endpoint, "model": asked.model},
    )
    job = accept_serving(
        request,
        shape,
        principal=around.principal,
        file=around.file,
        capacity=around.capacity,
        job_id=jobs.new_id(around.now_ms),
        now_ms=around.now_ms,
    )
    return Prepared(asked, job, str(job.values["project"]), shape, around)


def store(session: Session, ready: Prepared) -> Deployment:
    """In one transaction with whatever the caller adds. Raises EndpointError, RegistryError or Refused, and then changes nothing."""
    version = resolve(session, ready.project, ready.asked.model)
    _check_servable(version)
    endpoint = _endpoint(session, ready)
    _check_room(session, endpoint)
    removing.retire_failed(session, endpoint, ready.around.now_ms)
    endpoint.last_number += 1
    endpoint.version += 1
    row = _row(ready, endpoint, version)
    ready.job.values["name"] = f"{endpoint.name}-{version_label(row.number)}"
    enter(session, ready.job, ready.around.principal, request_id=ready.around.request_id, chosen_id=False)
    session.add(row)
    session.flush()
    told = {"version": version_label(row.number), "model": model_label(row.model, row.model_version), "job": row.job}
    rows.told(session, endpoint, "deployment_asked", ready.around.actor, ready.around.now_ms, told)
    return row


def _check_room(session: Session, endpoint: Endpoint) -> None:
    """What has failed holds nothing and is in nobody's way."""
    living = [row for row in rows.deployments(session, endpoint.name) if row.state != DeploymentState.FAILED]
    leaving = [row for row in living if row.state == DeploymentState.RETIRING]
    idle = [row for row in living if row not in leaving and not endpoint.weights.get(str(row.number))]
    if endpoint.mode == DIRECT and living:
        remedy = (
            f"Deploy to another name without --direct, move its callers there, then: helio endpoint rm {endpoint.name}"
        )
        text = (
            f"Endpoint {endpoint.name} is in direct mode, which serves one version; its mode is fixed when it is made."
        )
        here = _room_remedy(endpoint, leaving, idle)
        raise EndpointError("direct_mode", text, f"{here} {remedy}".strip(), 409)
    if len(living) >= MAX_LIVING:
        text = f"Endpoint {endpoint.name} has {len(living)} versions already."
        remedy = f"Move the traffic of one away (helio endpoint traffic {endpoint.name} ...), then remove it."
        raise EndpointError("too_many_versions", text, _room_remedy(endpoint, leaving, idle) or remedy, 409)


def _room_remedy(endpoint: Endpoint, leaving: Sequence[Deployment], idle: Sequence[Deployment]) -> str:
    if leaving:
        return f"{version_label(leaving[0].number)} is being removed: try again in a minute."
    if idle:
        return f"Remove one without traffic: helio endpoint rm {endpoint.name} {version_label(idle[0].number)}."
    return ""


def _check_servable(version: ModelVersion) -> None:
    """A version that was registered before the registry knew what can be served."""
    try:
        Signature.from_json(version.signature)
    except SpecError as error:
        text = f"{model_label(version.model, version.version)} cannot be served: {error}"
        raise EndpointError("not_servable", text, "Change its model.json and push it as a new version.", 422) from error


def _endpoint(session: Session, ready: Prepared) -> Endpoint:
    """The endpoint, made when it is new. One of another project is somebody else's name."""
    asked, around = ready.asked, ready.around
    found = rows.find(session, asked.endpoint)
    if found is not None:
        if found.project != ready.project:
            raise _taken(asked.endpoint)
        if found.removing_ms is not None:
            raise EndpointError(
                "endpoint_removing", f"Endpoint {found.name} is being removed.", "Try again in a minute.", 409
            )
        if asked.direct and found.mode != DIRECT:
            text = f"Endpoint {found.name} has a gateway; its mode is fixed when it is made."
            remedy = "Leave --direct out; or deploy with --direct to another name, move its callers there, and remove this one."
            raise EndpointError("direct_mode", text, remedy, 409)
        if found.mode == DIRECT:
            _check_direct(asked)
        told = {"gateways": asked.gateways or None, "sticky": asked.sticky}
        found.settings = {**found.settings, **{name: value for name, value in told.items() if value is not None}}
        return found
    endpoint = Endpoint(
        name=asked.endpoint,
        project=ready.project,
        mode=DIRECT if asked.direct else GATEWAY,
        weights={},
        weights_before={},
        settings={"sticky": bool(asked.sticky), "gateways": asked.gateways or 1},
        last_number=0,
        version=1,
        created_ms=around.now_ms,
        created_by=around.principal.user,
    )
    session.add(endpoint)
    session.flush()
    rows.told(session, endpoint, "endpoint_created", around.actor, around.now_ms, {"mode": endpoint.mode})
    return endpoint


def _row(ready: Prepared, endpoint: Endpoint, version: ModelVersion) -> Deployment:
    asked, around = ready.asked, ready.around
    return Deployment(
        endpoint=endpoint.name,
        number=endpoint.last_number,
        project=endpoint.project,
        model=version.model,
        model_version=version.version,
        sha256=version.sha256,
        artifact_uri=artifact_uri(version, around.folders),
        signature=dict(version.signature),
        replicas_min=asked.replicas_min,
        replicas_max=asked.replicas_max,
        gpu_milli=ready.shape.gpu_milli,
        cpu_milli=_cpu_milli(asked),
        options=_options(asked, endpoint, version),
        job=str(ready.job.values["id"]),
        state=DeploymentState.WAITING,
        state_since_ms=around.now_ms,
        reason="",
        trace="",
        plan={"keep": True} if asked.weight == 0 else {"weight": 100 if asked.weight is None else asked.weight},
        wish=max(1, asked.replicas_min),
        created_ms=around.now_ms,
        created_by=around.principal.user,
    )


def _options(asked: DeployRequest, endpoint: Endpoint, version: ModelVersion) -> dict[str, Any]:  # Any: JSON
    options = {
        "max_batch": asked.max_batch,
        "batch_wait_ms": asked.batch_wait_ms,
        "memory_bytes": asked.memory_bytes,
        "direct": endpoint.mode == DIRECT,
        "allow_pickle": version.format == "pickle",  # the registry has it only because an administrator allowed it
    }
    return {name: value for name, value in options.items() if value}


def _shape(asked: DeployRequest) -> Shape:
    """The floor as tasks; the engine never sees a job of no tasks, so one that may sleep asks for one."""
    floor = max(1, asked.replicas_min)
    return Shape(
        min_tasks=floor,
        max_tasks=floor,
        gpu_milli=round(asked.gpus * 1000),
        cpu_milli=0 if asked.gpus and asked.cpus is None else _cpu_milli(asked),
        memory_bytes=asked.memory_bytes,
    )


def _cpu_milli(asked: DeployRequest) -> int:
    return round((DEFAULT_CPUS if asked.cpus is None else asked.cpus) * 1000)


def check_range(least: int, most: int) -> None:
    """Raises EndpointError when this is no range of replicas."""
    if not 0 <= least <= most or not 1 <= most <= MAX_REPLICAS:
        text = f"Replicas {least}..{most} are no range between 0 and {MAX_REPLICAS}."
        raise EndpointError("bad_request", text, "Write --replicas 2 or --replicas 1..3.", field="replicas")


def _check(asked: DeployRequest) -> None:
    if not endpoint_ok(asked.endpoint):
        text = f"'{asked.endpoint[:80]}' is no name for an endpoint: lower-case letters, digits and '-', at most 40, a letter first."
        raise EndpointError("bad_request", text, "Change the name.", field="endpoint")
    least, most = asked.replicas_min, asked.replicas_max
    check_range(least, most)
    if asked.gpus not in (0, 1):
        text = f"A replica cannot have {asked.gpus:g} GPUs: it gets one, or none."
        raise EndpointError(
            "bad_request", text, "Write --gpus 0 or --gpus 1; more replicas use more GPUs.", field="gpus"
        )
    if asked.cpus is not None and not 0.001 <= asked.cpus <= 1024:
        text = f"cpus ({asked.cpus:g}) must be 0.001 to 1024."
        raise EndpointError("bad_request", text, "Change cpus.", field="cpus")
    if not 0 <= asked.memory_bytes <= MAX_MEMORY_BYTES:
        text = f"memory_bytes ({asked.memory_bytes}) is negative, or more than any machine has."
        raise EndpointError("bad_request", text, "Change memory_bytes.", field="memory_bytes")
    if asked.weight is not None and not 0 <= asked.weight <= 100:
        text = f"weight ({asked.weight}) is a percentage from 0 to 100."
        raise EndpointError("bad_request", text, "Change weight.", field="weight")
    if not 0 <= asked.gateways <= MAX_GATEWAYS:
        text = f"gateways ({asked.gateways}) is a number from 1 to {MAX_GATEWAYS}."
        raise EndpointError("bad_request", text, "Change gateways.", field="gateways")
    if asked.direct:
        _check_direct(asked)
    if not 0 <= asked.max_batch <= 4096 or not 0 <= asked.batch_wait_ms <= 1000:
        text = "max_batch is 0 to 4096 rows and batch_wait_ms 0 to 1000."
        raise EndpointError("bad_request", text, "Change them.", field="max_batch")


def _check_direct(asked: DeployRequest) -> None:
    if asked.replicas_min == 0 or asked.sticky or asked.gateways or asked.weight not in (None, 100):
        text = "Direct mode serves one version without a gateway: it cannot sleep, split or stick."
        raise EndpointError("direct_mode", text, "Leave --direct out, or the other options.", field="direct")


def _taken(name: str) -> EndpointError:
    text = f"The name {name} is taken: endpoint names are unique in the whole installation, because they are URLs."
    return EndpointError("endpoint_taken", text, "Choose another name.", 409)
