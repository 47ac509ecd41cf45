"""The arguments of `heliostat_serving.version_app:build` and `gateway_app:build`, and how many replicas there are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any  # Any: JSON of Ray's actor options

from heliostat_serving.spec.names import gateway_app, version_app
from heliostat_serving.spec.reading import Plain, SpecError
from heliostat_serving.spec.signature import Signature

BATCHING = ("adaptive", "off")


@dataclass(frozen=True)
class Batching(Plain):
    mode: str = "adaptive"
    """adaptive: requests that wait while the model computes are put together; a model that answers in under `inline_ms` is
    called at once, because there a batch costs more than it saves. off: one call per request."""
    max_rows: int = 64
    """Rows of one call at most; a single request may have more."""
    wait_ms: float = 0.0
    """How long a call waits for company. 0 = never: only what queued meanwhile is put together."""
    inline_ms: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in BATCHING:
            raise SpecError(f"Batching mode {self.mode} is none of {', '.join(BATCHING)}.")
        if self.max_rows < 1 or self.wait_ms < 0 or self.inline_ms < 0:
            raise SpecError("Batching needs max_rows >= 1, wait_ms >= 0 and inline_ms >= 0.")


@dataclass(frozen=True)
class VersionSpec(Plain):
    """One deployment of an endpoint: which artifact, and what a replica of it holds."""

    endpoint: str
    n: int
    """Number of the deployment on its endpoint: application `ep-<endpoint>-v<n>`."""
    model: str
    model_version: int
    artifact_uri: str
    """Folder, readable on every node through `pyarrow.fs`."""
    sha256: str
    """Digest of the folder's manifest.json; nothing of the artifact is used before it and every file have been verified."""
    signature: Signature
    batching: Batching = field(default_factory=Batching)
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory_bytes: int = 0
    """0 = none reserved."""
    threads: int = 1
    """Threads of torch, ONNX and BLAS inside a replica."""
    allow_pickle: bool = False
    direct: bool = False
    """The replica is the endpoint's HTTP ingress itself; only for the only version of an endpoint."""
    actor_options: dict[str, Any] = field(default_factory=dict)
    """More of Ray's actor options for the replicas (`label_selector`, `resources`)."""
    max_ongoing_requests: int = 100

    def __post_init__(self) -> None:
        if len(self.sha256) != 64:
            raise SpecError("VersionSpec.sha256 is not a SHA-256 in hex.")
        if self.n < 1 or self.model_version < 1:
            raise SpecError("VersionSpec.n and model_version begin at 1.")

    @property
    def app(self) -> str:
        return version_app(self.endpoint, self.n)


@dataclass(frozen=True)
class GatewaySpec(Plain):
    endpoint: str
    replicas: int = 1
    num_cpus: float = 0.1

    @property
    def app(self) -> str:
        return gateway_app(self.endpoint)


@dataclass(frozen=True)
class Scale(Plain):
    """Replicas of a version. Fixed (`ceiling` 0): `floor` of them. Else between floor and ceiling by load, clipped to `grant`."""

    floor: int = 1
    ceiling: int = 0
    grant: int = 0
    """What the scheduler allows now: Serve's upper bound, changed in place. The floor is lowered to it. 0: let go at once (with
    `Target.paused`, or the next call would wake the version)."""
    target_ongoing_requests: float = 4.0
    upscale_delay_s: float = 2.0
    downscale_delay_s: float = 30.0
    to_zero_delay_s: float = 60.0
    wish_dir: str = ""
    """Where the policy leaves its wish for the control plane (`names.wish_file`); it may be above the ceiling. Empty: nowhere. A
    change restarts the replicas."""

    def __post_init__(self) -> None:
        if self.floor < 0 or self.ceiling < 0 or self.grant < 0:
            raise SpecError("Scale needs floor, ceiling and grant >= 0.")
        if self.ceiling and self.floor > self.ceiling:
            raise SpecError(f"Scale: floor {self.floor} is above ceiling {self.ceiling}.")

    @property
    def automatic(self) -> bool:
        return self.ceiling > 0
