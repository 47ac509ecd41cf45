"""The JSON of /api/v1: what is read from and written to the wire. snake_case, times RFC 3339 in UTC."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class JobSubmission(Model):
    """A job to be queued: `command` (words) or `entrypoint` (a shell line)."""

    kind: str = "command"
    command: list[str] | None = None
    entrypoint: str | None = None
    name: str = ""
    queue: str = ""
    priority: int | str = ""
    project: str = ""
    gpus: float | None = None
    min_gpus: float | None = None
    max_gpus: float | None = None
    gpus_per_task: float | None = None
    cpus: float | None = None
    memory_bytes: int | None = None
    flavor: str = ""
    preemptibility: str = "preemptible"
    nodes: int = 1
    env: dict[str, str] = Field(default_factory=dict)
    working_dir_package: str = ""
    runtime_env: dict[str, Any] = Field(default_factory=dict)  # Any: Ray's own structure
    max_runtime_s: float | None = None
    after: Annotated[list[str], Field(max_length=1000)] = Field(default_factory=list)
    metadata: dict[str, str] = Field(default_factory=dict)
    hold: bool = False
    id: str = ""


class JobChange(Model):
    """What may change about a job: the priority any time, the rest while it waits. after: of the jobs it waits for, those that stay."""

    priority: int | str | None = None
    queue: str | None = None
    gpus: float | None = None
    min_gpus: float | None = None
    max_gpus: float | None = None
    flavor: str | None = None
    cpus: float | None = None
    memory_bytes: int | None = None
    preemptibility: str | None = None
    after: list[str] | None = None


class Reason(Model):
    code: str
    sentence: str
    facts: dict[str, int | str] = Field(default_factory=dict)


class Gpus(Model):
    min: float
    max: float
    held: float


class Tasks(Model):
    min: int
    max: int
    running: int


class GpuSeconds(Model):
    held: float
    used: float | None


class PastReason(Model):
    at: str
    code: str
    sentence: str
    attempt: int | None


class Job(Model):
    id: str
    name: str
    kind: str
    project: str
    user: str
    queue: str
    priority: int
    priority_class: str
    preemptibility: str
    state: str
    state_since: str
    reason: Reason | None
    position: int | None
    estimated_start: str | None
    estimated_start_p90: str | None = None
    estimate_made: str | None = None
    unknown_runtimes: int = 0
    """Running jobs of which nothing is known about how long they run. Above 0 there is an estimate without a time: it would be a guess."""
    gpus: Gpus
    cpus: float
    tasks: Tasks
    gpus_per_task: float
    flavor: str | None
    entrypoint: str
    submitted_at: str
    started_at: str | None
    finished_at: str | None
    attempts: int
    exit_code: int | None
    error: str | None
    metrics: dict[str, float] | None
    result: dict[str, Any] | None  # Any: what the user's job wrote
    gpu_seconds: GpuSeconds
    waited_s: float
    ran_s: float
    metadata: dict[str, str]
    reason_history: list[PastReason] | None = None


class JobPage(Model):
    items: list[Job]
    next_cursor: str | None = None


class Event(Model):
    seq: int
    at: str
    kind: str
    job: str | None
    actor: str
    attempt: int | None
    from_state: str | None = Field(alias="from")
    to_state: str | None = Field(alias="to")
    reason: Reason | None
    data: dict[str, Any]  # Any: differs by kind


class EventList(Model):
    items: list[Event]


class Metric(Model):
    at: str
    name: str
    value: float
    step: int | None


class MetricList(Model):
    items: list[Metric]


class TokenRequest(Model):
    role: str = "member"
    project: str | None = None
    user: str | None = None
    name: str = ""
    expires_s: Annotated[float, Field(gt=0, le=10**9)] | None = None


class Token(Model):
    id: str
    name: str
    role: str
    project: str
    user: str
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None
    token: str | None = None


class TokenList(Model):
    items: list[Token]


class AuditEntry(Model):
    seq: int
    at: str
    actor: str
    project: str
    action: str
    object: str
    request_id: str
    data: dict[str, Any]  # Any: differs by action
    hash: str


class AuditPage(Model):
    """`first_broken`: with verify=true the first entry that does not follow, null when the chain is whole."""

    items: list[AuditEntry]
    head: str
    first_broken: int | None


class WhoAmI(Model):
    user: str
    project: str
    role: str
    token_id: str
    expires_at: str | None
    queues: list[str]


class Version(Model):
    server: str
    api: int
    ray: str


class Package(Model):
    name: str
    uri: str
    project: str
    size: int
    entries: int


class QueueChange(Model):
    queue: str
    what: str
    field: str
    old: str
    new: str


class QueueDiff(Model):
    changes: list[QueueChange]
    warnings: list[str]
    etag: str
    valid: bool = True


class ProblemDocument(BaseModel):
    """RFC 9457. `code` is stable, `remedy` says what to do, `errors` name the fields."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    remedy: str
    request_id: str
    errors: list[dict[str, Any]]  # Any: JSON
