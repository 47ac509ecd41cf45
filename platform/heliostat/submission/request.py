"""What somebody asks for, in one form for both front doors, and how a request is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WARM_HANDOVER = "warm_handover"
"""The metadata key: `false` makes every resize of the job end and start all of its processes."""


class Refused(Exception):
    """A request that cannot be granted as it stands. Nothing was stored.

    status: the HTTP status it deserves. code: stable word. field: which part of the request is meant ("" for all of it).
    facts: numbers for programs (as `largest` of a NeverFits).
    """

    def __init__(
        self,
        code: str,
        text: str,
        remedy: str,
        *,
        status: int = 400,
        field: str = "",
        facts: Mapping[str, Any] | None = None,  # Any: JSON
    ) -> None:
        super().__init__(text)
        self.code = code
        self.remedy = remedy
        self.status = status
        self.field = field
        self.facts = dict(facts or {})


@dataclass(frozen=True, slots=True)
class Asked:
    """A submission as it came in. None and empty: not said. GPUs and CPUs are whole units here, not milli-units."""

    kind: str
    argv: tuple[str, ...] = ()
    entrypoint: str = ""
    name: str = ""
    queue: str = ""
    priority: str | int = ""
    project: str = ""
    min_gpus: float | None = None
    max_gpus: float | None = None
    gpus_per_task: float | None = None
    cpus: float | None = None
    memory_bytes: int | None = None
    flavor: str = ""
    preemptibility: str = "preemptible"
    nodes: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir_package: str = ""
    runtime_env: Mapping[str, Any] = field(default_factory=dict)  # Any: Ray's own structure
    max_runtime_s: float | None = None
    after: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    hold: bool = False
    id: str = ""
