"""What the front doors may ask of the control plane. Doors get an implementation; tests give them a fake.

Every method may be called from any thread. `submitted`, `changed` and `queues_changed` only tell: what happened is in the
store already, and they return at once. `cancel`, `hold` and `release` return after the job's row was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from heliostat_scheduler.core.events import JobSubmitted
from heliostat_scheduler.core.reasons import Reason

if TYPE_CHECKING:
    from heliostat.forecasting.link import Eta


class ControlError(Exception):
    """A request that cannot be carried out. `code`: `unknown_job`, `unknown_queue`, `unknown_node`, `wrong_state`, `bad_question` or
    `busy` (try again)."""

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.remedy = remedy


class ControlPort(Protocol):
    """Any: JSON in all signatures below; the shapes are those of /api/v1."""

    def submitted(self, job_id: str) -> None: ...

    def changed(self, job_id: str) -> None: ...

    def queues_changed(self) -> None: ...

    def cancel(self, job_id: str, actor: str) -> None: ...

    def hold(self, job_id: str, actor: str) -> None: ...

    def release(self, job_id: str, actor: str) -> None: ...

    def node(self, what: str, node_id: str, actor: str) -> None:
        """`cordon`, `drain` or `uncordon` a node; returns when it stands in the node's row. ControlError `unknown_node`."""
        ...

    def reason(self, job_id: str) -> Reason | None:
        """Why the job waits; None when it does not."""
        ...

    def position(self, job_id: str) -> int | None:
        """1 = next in its queue."""
        ...

    def standings(self, job_ids: Sequence[str]) -> dict[str, tuple[Reason | None, int | None]]:
        """(reason, position) of many jobs at once: for pages, which must not ask the engine a hundred times."""
        ...

    def etas(self, job_ids: Sequence[str]) -> dict[str, Eta]:
        """When these waiting jobs start, where it has been estimated."""
        ...

    def explain(self, job_id: str, patience_s: float = 0.0) -> dict[str, Any]:
        """patience_s: how long to wait for remedies that are still being tried; `remedies_complete` says whether they are in."""
        ...

    def explain_queue(self, name: str) -> dict[str, Any]: ...

    def forecast(self, question: dict[str, Any], patience_s: float) -> dict[str, Any]:
        """Ask the forecasting process; see `heliostat.forecasting.questions`. ControlError `busy` or `bad_question`."""
        ...

    def whatif_submit(self, entry: JobSubmitted) -> dict[str, Any]: ...

    def cluster(self) -> dict[str, Any]: ...

    def queue_usage(self) -> list[dict[str, Any]]: ...

    def logs(self, job_id: str, offset: int = 0) -> tuple[str, int]:
        """The attempts' logs joined, from this byte on, and the offset after it."""
        ...

    def doctor(self) -> list[dict[str, Any]]: ...
