"""The `user_config` of an endpoint's ingress: who may call, how much, and which version answers. Changed in place by Serve."""

from __future__ import annotations

from dataclasses import dataclass, field

from heliostat_serving.spec.names import version_label
from heliostat_serving.spec.reading import Plain, SpecError
from heliostat_serving.spec.signature import Signature


@dataclass(frozen=True)
class Key(Plain):
    id: str
    sha256: str
    """Of the key's text, in hex. The text itself never leaves its owner."""
    rate_per_s: float = 0.0
    """Calls per second in the long run; 0 = no limit."""
    burst: int = 0
    """Calls at once; 0 = one second's worth, at least 1."""
    expires_ms: int | None = None
    """Unix time."""
    pin: bool = False
    """May name a version that has no weight, with the header `X-Heliostat-Version` (before traffic is moved to it)."""
    metered: bool = True
    """False for the control plane's own smoke requests: their lines carry "smoke": true."""

    def __post_init__(self) -> None:
        if len(self.sha256) != 64:
            raise SpecError(f"Key {self.id}: sha256 is not a SHA-256 in hex.")
        if self.rate_per_s < 0 or self.burst < 0:
            raise SpecError(f"Key {self.id}: rate_per_s and burst are not negative.")


@dataclass(frozen=True)
class Target(Plain):
    app: str
    n: int
    model: str
    model_version: int
    signature: Signature
    weight: int = 0
    """Share of the calls, relative to the sum. 0 = warm, reached by name only."""
    aliases: tuple[str, ...] = ()
    """Names of the version in the protocol's version field, besides its number and `v<n>`."""
    paused: bool = False
    """No replica is granted: calls are answered with 429 and Retry-After instead of waking the version."""

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise SpecError(f"Target {self.app}: a weight is not negative.")

    @property
    def label(self) -> str:
        return version_label(self.n)


@dataclass(frozen=True)
class Limits(Plain):
    max_body_bytes: int = 16 << 20
    """Of a request's body, before and after decompression."""
    body_timeout_s: float = 10.0
    """A client that has not sent its body by then is answered with 408."""
    predict_timeout_s: float = 60.0
    """Then 504. Includes the wait for a first replica of an endpoint scaled to zero."""
    max_rows: int = 4096
    """First dimension of a request."""
    max_in_flight: int = 200
    """Calls inside one replica of the ingress; more are answered with 429."""
    retry_after_s: int = 5
    """Retry-After where nothing better is known."""

    def __post_init__(self) -> None:
        if min(self.max_body_bytes, self.max_rows, self.max_in_flight, self.retry_after_s) < 1:
            raise SpecError("Limits are at least 1.")
        if min(self.body_timeout_s, self.predict_timeout_s) <= 0:
            raise SpecError("Time limits are above 0.")


@dataclass(frozen=True)
class GatewayConfig(Plain):
    endpoint: str
    keys: tuple[Key, ...]
    targets: tuple[Target, ...]
    sticky: str = ""
    """"" = each call is drawn anew; "key" = all calls of a key, "header:<Name>" = all calls with one value go to one version."""
    limits: Limits = field(default_factory=Limits)
    replicas: int = 1
    """Replicas of this ingress; each grants its share of a key's rate."""
    spool_dir: str = ""
    """Folder of this endpoint's usage files (`metering`); empty: no metering."""
    retry: bool = True
    """Whether a call whose replica died is sent once more (predictions change nothing)."""

    def __post_init__(self) -> None:
        if self.sticky not in ("", "key") and not self.sticky.startswith("header:"):
            raise SpecError(f'sticky is "", "key" or "header:<Name>", not {self.sticky}.')
        if len({key.sha256 for key in self.keys}) != len(self.keys):
            raise SpecError("Two keys are the same.")
        if len({target.app for target in self.targets}) != len(self.targets):
            raise SpecError("Two targets are the same application.")
        if self.replicas < 1:
            raise SpecError("replicas is at least 1.")


@dataclass(frozen=True)
class DirectConfig(GatewayConfig):
    """The same for direct mode, where the only target is the replica itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.targets) != 1:
            raise SpecError(f"Direct mode has one version, not {len(self.targets)}.")
