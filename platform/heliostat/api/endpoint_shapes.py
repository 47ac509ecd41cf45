"""The JSON of endpoints, deployments and their keys."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from heliostat.api.models import Model


class DeploymentRequest(Model):
    """What is to be served: a registered version by reference (`digits@champion`, `digits:3`). replicas_min 0: it may sleep.

    weight: its share of the traffic in percent once it is ready (null: all of it). gpus: 0 or 1 per replica.
    gateways: replicas of the endpoint's gateway (0: as it is; a new endpoint has one). sticky null: as it is.
    """

    model: str
    project: str = ""
    replicas_min: int = 1
    replicas_max: int = 1
    gpus: float = 0.0
    cpus: float | None = None
    memory_bytes: int = 0
    flavor: str = ""
    queue: str = ""
    priority: int | str = ""
    preemptibility: str = "preemptible"
    direct: bool = False
    weight: int | None = None
    sticky: bool | None = None
    gateways: int = 0
    max_batch: int = 0
    batch_wait_ms: float = 0.0


class ScaleRequest(Model):
    """Equal numbers: so many replicas. Else between them, by load."""

    replicas_min: int
    replicas_max: int


class ServedModel(Model):
    name: str
    version: int
    sha256: str


class Replicas(Model):
    """granted: what the scheduler allows now. running: what Serve shows. wish: what the load asks for."""

    min: int
    max: int
    granted: int
    running: int
    wish: int


class Deployment(Model):
    version: str
    number: int
    model: ServedModel
    state: str
    state_since: str
    reason: str
    traceback: str | None
    weight: int
    share: float
    replicas: Replicas
    gpus: float
    cpus: float
    job: str
    signature: dict[str, Any]  # Any: the registry's JSON
    created_at: str
    created_by: str


class EndpointSummary(Model):
    name: str
    project: str
    url: str
    mode: str
    state: str
    weights: dict[str, int]
    weights_before: dict[str, int]
    sticky: bool
    gateways: int
    created_at: str
    created_by: str
    revision: int


class Endpoint(EndpointSummary):
    deployments: list[Deployment]
    trouble: str | None = None


class EndpointList(Model):
    items: list[Endpoint]


class Traffic(Model):
    """weights: shares by version (`{"v1": 90, "v2": 10}`); a version that is not named gets nothing."""

    weights: Annotated[dict[str, int], Field(min_length=1, max_length=50)]


class KeyRequest(Model):
    name: str = ""
    rate_per_s: float | None = None
    burst: int | None = None
    expires_s: float | None = None
    pin: bool = False
    """May name a version that has no traffic."""


class Key(Model):
    id: str
    endpoint: str
    project: str
    name: str
    rate_per_s: float | None
    burst: int | None
    pin: bool
    created_at: str
    created_by: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    key: str | None = None


class KeyList(Model):
    items: list[Key]


class UsageRow(Model):
    """One hour of one version and key. status: 2, 4 or 5 (the hundreds). busy_s: seconds in which its answers were made."""

    hour: str
    version: str
    key: str
    status: int
    requests: int
    rows: int
    bytes_in: int
    bytes_out: int
    busy_s: float


class UsageList(Model):
    items: list[UsageRow]


class AccessLine(Model):
    at: str
    key: str
    version: str
    status: int
    code: str
    ms: float
    bytes_in: int
    bytes_out: int
    rows: int
    route: str
    request_id: str


class AccessLog(Model):
    items: list[AccessLine]
    next: str
