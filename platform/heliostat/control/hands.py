"""What the executor acts with. Everything returns at once; answers arrive as messages in the inbox."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from heliostat_scheduler.live.protocol import Command


@dataclass(frozen=True, slots=True)
class Submission:
    """One driver for Ray's Jobs API. packages: (name at Ray, file here) to be pushed before it.

    num_cpus: from the head's reserve, never GPUs. label_selector: pins the driver to the head.
    """

    submission_id: str
    entrypoint: str
    runtime_env: dict[str, Any]  # Any: JSON
    metadata: dict[str, str]
    num_cpus: float
    label_selector: dict[str, str] = field(default_factory=dict)
    packages: tuple[tuple[str, Path], ...] = ()


class Bridge(Protocol):
    """The bridge, if it is connected. A command that cannot be sent is dropped: all are repeated after the next Hello."""

    def send(self, command: Command) -> None: ...

    def restart(self) -> None:
        """Give the present bridge process up and start another when Ray is there."""
        ...


class Drivers(Protocol):
    """Drivers on Ray, by submission id."""

    def submit(self, submission: Submission) -> None:
        """Answer: DriverAccepted, DriverRefused or DriverSilent."""
        ...

    def look(self, submission_id: str) -> None:
        """Answer: DriverSeen or DriverSilent."""
        ...

    def stop(self, submission_id: str) -> None:
        """Answer: DriverSeen (soon after, not yet ended) or DriverSilent."""
        ...

    def follow(self, submission_id: str, log: Path) -> None:
        """Copy the driver's output into `log` as it comes."""
        ...

    def save_log(self, submission_id: str, log: Path) -> None:
        """The driver has ended: complete its log. Answer: LogSaved, always."""
        ...

    def forget(self, submission_id: str) -> None:
        """Delete the ended submission at Ray, so that its table stays small."""
        ...


class Serving(Protocol):
    """Whoever lets Serve start and end the replicas of serving jobs. It reads what was granted from the store."""

    def look(self) -> None:
        """Grants or orders of serving jobs have changed. Answer: ServingSaid."""
        ...


class NoServing:
    """No endpoints: there are no serving jobs either."""

    def look(self) -> None: ...


class Head(Protocol):
    """The Ray head of this installation."""

    def alive(self) -> bool:
        """False only when it is known to be dead."""
        ...
