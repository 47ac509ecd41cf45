"""A control plane for the doors' tests: the same port, no engine. Jobs move when the test says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from heliostat.control.port import ControlError
from heliostat.forecasting.link import Eta
from heliostat.store import Store, jobs, moves
from heliostat_scheduler.core.events import JobSubmitted
from heliostat_scheduler.core.lifecycle import TERMINAL, JobState
from heliostat_scheduler.core.reasons import Reason, ReasonCode


class FakeControl:
    """nodes: what `cluster` shows. calls: what the doors told, in order. logs_of: job -> its log so far."""

    def __init__(self, store: Store, nodes: list[dict[str, Any]]) -> None:
        self.store = store
        self.nodes = nodes
        self.calls: list[tuple[str, ...]] = []
        self.logs_of: dict[str, str] = {}
        self.reasons: dict[str, Reason] = {}
        self.positions: dict[str, int] = {}
        self.explanations: dict[str, dict[str, Any]] = {}
        self.eta_of: dict[str, Eta] = {}
        self.questions: list[dict[str, Any]] = []
        self.forecasts: dict[str, Any] | None = None
        self.bridge_up = True
        self.now_ms = 2_000

    def submitted(self, job_id: str) -> None:
        self.calls.append(("submitted", job_id))
        self.reasons[job_id] = Reason(ReasonCode.INSUFFICIENT_FREE, (("needed", 1000), ("free", 0)))
        self.positions[job_id] = len(self.positions) + 1

    def changed(self, job_id: str) -> None:
        self.calls.append(("changed", job_id))

    def queues_changed(self) -> None:
        self.calls.append(("queues_changed",))

    def cancel(self, job_id: str, actor: str) -> None:
        self.calls.append(("cancel", job_id, actor))
        self.move(job_id, JobState.CANCELLED, actor)

    def node(self, what: str, node_id: str, actor: str) -> None:
        self.calls.append(("node", what, node_id, actor))
        states = {"cordon": "cordoned", "drain": "draining", "uncordon": "up"}
        found = [node for node in self.nodes if node["id"] == node_id]
        if not found:
            raise ControlError("unknown_node", f"There is no node {node_id} now.")
        found[0]["state"] = states[what]

    def hold(self, job_id: str, actor: str) -> None:
        self.move(job_id, JobState.HELD, actor)

    def release(self, job_id: str, actor: str) -> None:
        self.move(job_id, JobState.QUEUED, actor)

    def move(
        self, job_id: str, state: JobState, actor: str = "scheduler", reason: Reason | None = None, **fields: Any
    ) -> None:
        def work(session: Any) -> None:
            job = jobs.get(session, job_id)
            if job.state in TERMINAL:
                raise ControlError("wrong_state", f"Job {job_id} is {job.state}.")
            if state is JobState.CANCELLED and job.state not in ("queued", "held", "cancelling"):
                moves.move(session, job_id, JobState.CANCELLING, reason=None, actor=actor, now_ms=self.now_ms)
            moves.move(session, job_id, state, reason=reason, actor=actor, now_ms=self.now_ms, **fields)

        self.store.write(work)

    def run(self, job_id: str) -> None:
        """Bring a queued job into running."""
        for state in (JobState.ADMITTED, JobState.STARTING, JobState.RUNNING):
            self.move(job_id, state)
        self.positions.pop(job_id, None)

    def reason(self, job_id: str) -> Reason | None:
        return self.reasons.get(job_id)

    def position(self, job_id: str) -> int | None:
        return self.positions.get(job_id)

    def standings(self, job_ids: Sequence[str]) -> dict[str, tuple[Reason | None, int | None]]:
        return {job_id: (self.reason(job_id), self.position(job_id)) for job_id in job_ids}

    def etas(self, job_ids: Sequence[str]) -> dict[str, Eta]:
        return {job_id: self.eta_of[job_id] for job_id in job_ids if job_id in self.eta_of}

    def explain_queue(self, name: str) -> dict[str, Any]:
        if name not in ("default", "research"):
            raise ControlError("unknown_queue", f"There is no queue {name}.", "Queues: default, research")
        return {"name": name, "sentence": "no job waits here", "first": None, "waiting_by_reason": {}, "borrowers": []}

    def forecast(self, question: dict[str, Any], patience_s: float) -> dict[str, Any]:
        self.questions.append(question)
        if self.forecasts is None:
            raise ControlError("busy", "The forecasting process is starting.", "Try again in a moment.")
        return self.forecasts

    def explain(self, job_id: str, patience_s: float = 0.0) -> dict[str, Any]:
        return self.explanations.get(
            job_id, {"job_id": job_id, "code": None, "blockers": [], "remedies": [], "facts": {}}
        )

    def whatif_submit(self, entry: JobSubmitted) -> dict[str, Any]:
        starts = not (entry.held or entry.failed)
        return {"job_id": entry.job.id, "starts_now": starts, "tasks": entry.job.min_tasks}

    def cluster(self) -> dict[str, Any]:
        return {"nodes": self.nodes, "ray": {"up": True}, "bridge": {"up": self.bridge_up}, "control": {}}

    def queue_usage(self) -> list[dict[str, Any]]:
        return [{"name": "default"}]

    def logs(self, job_id: str, offset: int = 0) -> tuple[str, int]:
        data = self.logs_of.get(job_id, "").encode()[offset:]
        return data.decode(), offset + len(data)

    def doctor(self) -> list[dict[str, Any]]:
        return []


def node(name: str, gpus: int, *, flavor: str = "gpu", cpus: int = 4, jobs: tuple[str, ...] = ()) -> dict[str, Any]:
    """A node as /cluster shows it."""
    holders: list[str | None] = [*jobs, *[None] * (gpus - len(jobs))]
    slots = [
        {"id": f"{name}/{i}", "device": i, "state": "free", "job": job, "utilization": None}
        for i, job in enumerate(holders)
    ]
    return {
        "id": name,
        "ip": "10.0.0.1",
        "flavor": flavor,
        "state": "up",
        "slots": slots,
        "cpu_milli": cpus * 1000,
        "memory_bytes": 8 * 2**30,
        "labels": {},
    }
