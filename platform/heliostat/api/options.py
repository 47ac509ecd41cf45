"""What a deployment may set about the doors, validated once."""

from __future__ import annotations

from dataclasses import dataclass, field

from heliostat.packages import Limits
from heliostat.registry import ModelLimits


@dataclass(frozen=True, slots=True)
class DoorOptions:
    """hosts: further names that the server answers to. origins: further pages that may use it (https://name).

    body_bytes: limit of a JSON or YAML body. packages, models: limits of uploads. artifacts: URI of the artifact store ("": below home).
    heartbeat_s: pause between comments in idle streams. poll_s: pause between looks at a growing log.
    """

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    body_bytes: int = 2 * 2**20
    packages: Limits = field(default_factory=Limits)
    models: ModelLimits = field(default_factory=ModelLimits)
    artifacts: str = ""
    heartbeat_s: float = 15.0
    poll_s: float = 0.25
