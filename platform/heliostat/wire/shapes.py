"""The JSON of `/api/v1` as the client reads it. Times are RFC 3339 in UTC ("2026-01-31T12:00:00Z"), names snake_case.

`TypedDict`, not classes: what the server says is kept as it is, so that `--json` prints it unchanged and a field that a newer
server adds is neither lost nor an error. All keys are optional to the reader for the same reason.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

TERMINAL_STATES = frozenset({"succeeded", "failed", "cancelled", "timed_out"})
WAITING_STATES = frozenset({"queued", "held"})
STATES = (
    "queued", "held", "admitted", "starting", "running", "resizing", "preempting", "cancelling",
    "succeeded", "failed", "cancelled", "timed_out",
)  # fmt: skip
PRIORITY_CLASSES = ("low", "normal", "high", "critical")


class ReasonJson(TypedDict, total=False):
    code: str
    sentence: str
    facts: dict[str, int | str]


class GpusJson(TypedDict, total=False):
    min: float
    max: float
    held: float


class TasksJson(TypedDict, total=False):
    min: int
    max: int
    running: int


class GpuSecondsJson(TypedDict, total=False):
    held: float
    used: float | None


class PastReasonJson(TypedDict, total=False):
    at: str
    code: str
    sentence: str
    attempt: int


class JobJson(TypedDict, total=False):
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
    reason: ReasonJson | None
    position: int | None
    estimated_start: str | None
    estimated_start_p90: str | None
    estimate_made: str | None
    unknown_runtimes: int
    gpus: GpusJson
    cpus: float
    tasks: TasksJson
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
    gpu_seconds: GpuSecondsJson
    waited_s: float
    ran_s: float
    metadata: dict[str, str]
    reason_history: list[PastReasonJson]


class RemedyJson(TypedDict, total=False):
    kind: Literal["apply", "wait"]
    action: str
    text: str
    command: str
    at: str | None
    evicts: list[str]


class CheckJson(TypedDict, total=False):
    name: str
    ok: bool
    facts: dict[str, int | str]


class GrowthJson(TypedDict, total=False):
    """Why a job that holds something does not get all that it asks for."""

    tasks: int
    wanted: int
    code: str
    sentence: str
    facts: dict[str, int | str]
    blockers: list[str]
    at: str | None
    remedies: list[RemedyJson]


class PaceJson(TypedDict):
    """Work per second with so many tasks."""

    tasks: int
    per_s: float


class ExpectedJson(TypedDict):
    """What the scheduler has learned of a live job and goes by.

    rest_s: how long it is expected to run on. ranked: equals go by that. finished_jobs: of its queue, from which that is learned. goodput: at each
    size; unit: of the work. enough: no larger size would gain as much as a resize costs.
    """

    rest_s: float | None
    ranked: bool
    queue: str
    finished_jobs: int
    goodput: list[PaceJson]
    unit: str
    enough: bool


class ExplanationJson(TypedDict, total=False):
    job_id: str
    state: str
    code: str | None
    sentence: str
    facts: dict[str, int | str]
    blockers: list[str]
    remedies: list[RemedyJson]
    checks: list[CheckJson]
    position: int | None
    estimated_start: str | None
    estimated_start_p90: str | None
    estimate_made: str | None
    unknown_runtimes: int
    remedies_complete: bool
    story: list[dict[str, Any]]  # Any: JSON
    growth: GrowthJson | None
    expected: ExpectedJson | None
    as_of: str


EventJson = TypedDict(
    "EventJson",
    {
        "seq": int,
        "at": str,
        "kind": str,
        "job": str | None,
        "actor": str,
        "attempt": int | None,
        "from": str | None,
        "to": str | None,
        "reason": ReasonJson | None,
        "data": dict[str, Any],  # Any: differs by kind
    },
    total=False,
)


class MetricJson(TypedDict, total=False):
    at: str
    name: str
    value: float
    step: int | None


class QueueJson(TypedDict, total=False):
    name: str
    parent: str | None
    quota: Any  # Any: a number, or numbers by flavor
    limit: Any  # Any: as quota
    lending_limit: Any  # Any: as quota
    weight: float
    priority: int
    used: Any  # Any: as quota
    borrowed: Any  # Any: as quota
    entitled: Any  # Any: as quota
    running: int
    waiting: int
    waiting_tasks: int
    pressure: dict[str, float]


class SlotJson(TypedDict, total=False):
    id: str
    device: int
    state: str
    job: str | None
    utilization: float | None


class NodeJson(TypedDict, total=False):
    id: str
    ip: str
    flavor: str
    state: str
    slots: list[SlotJson]
    cpu_milli: int
    memory_bytes: int
    labels: dict[str, str]
    idle_since: str | None


class PoolJson(TypedDict, total=False):
    flavor: str
    gpus: int
    max: int
    min: int
    idle_s: int
    nodes: int
    missing: int
    wanted: int
    late: bool
    tries: int
    asked_at: str | None
    by: str | None
    jobs: list[str]


class RayJson(TypedDict, total=False):
    version: str
    address: str
    up: bool


class BridgeJson(TypedDict, total=False):
    up: bool
    pid: int | None


class ControlJson(TypedDict, total=False):
    pid: int
    started_at: str
    version: str
    policy_digest: str


class ClusterJson(TypedDict, total=False):
    pools: list[PoolJson]
    nodes: list[NodeJson]
    ray: RayJson
    bridge: BridgeJson
    control: ControlJson


class ServedModelJson(TypedDict):
    name: str
    version: int
    sha256: str


class ReplicasJson(TypedDict):
    min: int
    max: int
    granted: int
    running: int
    wish: int


class DeploymentJson(TypedDict):
    version: str
    number: int
    model: ServedModelJson
    state: str
    state_since: str
    reason: str
    traceback: str | None
    weight: int
    share: float
    replicas: ReplicasJson
    gpus: float
    cpus: float
    job: str
    signature: dict[str, Any]  # Any: the registry's JSON
    created_at: str
    created_by: str


class EndpointJson(TypedDict):
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
    deployments: list[DeploymentJson]
    trouble: str | None


class VersionExplanationJson(TypedDict):
    """explanation: of the serving job. short: replicas that the version wants and is not granted."""

    version: str
    state: str
    sentence: str
    short: int
    replicas: ReplicasJson
    explanation: ExplanationJson


class EndpointExplanationJson(TypedDict):
    endpoint: str
    state: str
    sentence: str
    queues: list[QueueJson]
    versions: list[VersionExplanationJson]


class KeyJson(TypedDict):
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
    key: str


class AccessJson(TypedDict):
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


class UsageJson(TypedDict):
    hour: str
    version: str
    key: str
    status: int
    requests: int
    rows: int
    bytes_in: int
    bytes_out: int
    busy_s: float


class TokenJson(TypedDict, total=False):
    id: str
    name: str
    role: str
    project: str
    user: str
    token: str
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None


class VersionJson(TypedDict, total=False):
    server: str
    api: int | str
    ray: str


class TensorJson(TypedDict, total=False):
    name: str
    dtype: str
    shape: list[int]
    example: list[bool | int | float | str] | None


class SignatureJson(TypedDict, total=False):
    inputs: list[TensorJson]
    outputs: list[TensorJson]
    allow_nan: bool


class ModelVersionJson(TypedDict, total=False):
    model: str
    project: str
    version: int
    sha256: str
    format: str
    signature: SignatureJson
    metrics: dict[str, float]
    tags: dict[str, str]
    aliases: list[str]
    size_bytes: int
    files: int
    created_at: str
    created_by: str
    job: str | None
    attempt: int | None
    variant_of: int | None


class ModelJson(TypedDict, total=False):
    name: str
    project: str
    versions: int
    latest: ModelVersionJson
    aliases: dict[str, int]
    created_at: str


class OriginJson(TypedDict, total=False):
    id: str
    attempt: int | None
    known: bool
    name: str
    queue: str
    user: str
    entrypoint: str


class RelativeJson(TypedDict, total=False):
    version: int
    sha256: str


class LineageJson(TypedDict, total=False):
    model: str
    project: str
    version: int
    sha256: str
    pushed_by: str | None
    job: OriginJson | None
    code_digest: str | None
    data_digest: str | None
    package_digest: str | None
    params: dict[str, Any]  # Any: what the user's job wrote
    ancestors: list[RelativeJson]
    variants: list[RelativeJson]
