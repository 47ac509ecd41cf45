"""ControlPort over the running loop: what the front doors really get."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from heliostat_scheduler.core import codec
from heliostat_scheduler.core.events import JobSubmitted
from heliostat_scheduler.core.reasons import Reason
from heliostat_scheduler.live.protocol import NodeJoined
from sqlalchemy import select

from heliostat import local
from heliostat.control import explaining, log_files, supply_view
from heliostat.control.foretelling import Foretelling
from heliostat.control.loop import Loop
from heliostat.control.messages import Asked, JobTold, NodeAsked, QueuesTold
from heliostat.control.port import ControlError
from heliostat.forecasting.link import Eta, Forecaster
from heliostat.local.records import RayRecord
from heliostat.settings import Settings
from heliostat.store import Store, jobs
from heliostat.store.tables import Attempt, Lease, Node

ANSWER_S = 15.0
PLAN_S = 60.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the port tells besides the loop's memory."""

    settings: Settings
    version: str
    cluster: Callable[[], RayRecord | None]
    bridge_pid: Callable[[], int]
    started_ms: int


class LivePort:
    def __init__(self, loop: Loop, store: Store, around: Surroundings, forecaster: Forecaster | None = None) -> None:
        self._forecaster = forecaster
        self._foretelling = Foretelling(loop, store, forecaster)
        self._loop = loop
        self._store = store
        self._around = around

    # ---- tell ----------------------------------------------------------------------------------------------------------

    def submitted(self, job_id: str) -> None:
        self._loop.inbox.post(JobTold(job_id, new=True))

    def changed(self, job_id: str) -> None:
        self._loop.inbox.post(JobTold(job_id, new=False))

    def queues_changed(self) -> None:
        self._loop.inbox.post(QueuesTold())

    # ---- ask -----------------------------------------------------------------------------------------------------------

    def cancel(self, job_id: str, actor: str) -> None:
        self._ask("cancel", job_id, actor)

    def hold(self, job_id: str, actor: str) -> None:
        self._ask("hold", job_id, actor)

    def release(self, job_id: str, actor: str) -> None:
        self._ask("release", job_id, actor)

    def node(self, what: str, node_id: str, actor: str) -> None:
        answer: Future[None] = Future()
        self._loop.inbox.post(NodeAsked(what, node_id, actor, answer))
        _wait_for(answer)

    def _ask(self, what: str, job_id: str, actor: str) -> None:
        answer: Future[None] = Future()
        self._loop.inbox.post(Asked(what, job_id, actor, answer))
        _wait_for(answer)

    # ---- read ----------------------------------------------------------------------------------------------------------

    def reason(self, job_id: str) -> Reason | None:
        with self._loop.engine_lock:
            return self._loop.engine.reason(job_id)

    def position(self, job_id: str) -> int | None:
        with self._loop.engine_lock:
            return self._loop.engine.position(job_id)

    def standings(self, job_ids: Sequence[str]) -> dict[str, tuple[Reason | None, int | None]]:
        with self._loop.engine_lock:
            engine = self._loop.engine
            return {job_id: (engine.reason(job_id), engine.position(job_id)) for job_id in job_ids}

    def explain(self, job_id: str, patience_s: float = 0.0) -> dict[str, Any]:  # Any: JSON
        with self._store.read() as session:
            job = jobs.find(session, job_id)
        if job is None:
            raise ControlError("unknown_job", f"There is no job {job_id}.")
        return self._foretelling.explain(job, patience_s)

    def explain_queue(self, name: str) -> dict[str, Any]:  # Any: JSON
        return self._foretelling.explain_queue(name)

    def etas(self, job_ids: Sequence[str]) -> dict[str, Eta]:
        return {} if self._forecaster is None else self._forecaster.etas(job_ids)

    def forecast(self, question: dict[str, Any], patience_s: float) -> dict[str, Any]:  # Any: JSON
        if self._forecaster is None:
            raise ControlError("busy", "This control plane has no forecasting process.")
        return self._forecaster.ask(question, patience_s)

    def whatif_submit(self, entry: JobSubmitted) -> dict[str, Any]:  # Any: JSON
        if self._forecaster is not None and self._forecaster.ready:
            asked = {"job": codec.encode(entry.job), "held": entry.held, "failed": entry.failed}
            return self._forecaster.ask({"ask": "plan", **asked}, PLAN_S)
        now_ms = self._loop.parts.clock.now_ms()
        with self._loop.engine_lock:
            engine = self._loop.engine.fork()
        return explaining.of_submission(engine, entry, now_ms)

    def queue_usage(self) -> list[dict[str, Any]]:  # Any: JSON
        with self._loop.engine_lock:
            return explaining.of_queues(self._loop.engine.queue_usage())

    def cluster(self) -> dict[str, Any]:  # Any: JSON
        with self._store.read() as session:
            held = {
                ref["slot"]: lease.job
                for lease in session.execute(select(Lease)).scalars()
                for place in lease.places
                for ref in place["slots"]
            }
            gone = session.execute(select(Node).where(Node.state != "up").order_by(Node.seen_ms.desc()).limit(20))
            lost = gone.scalars().all()
        with self._loop.engine_lock:
            nodes = list(self._loop.executor.nodes.values())
            connected = self._loop.bridge.connected
            activity = dict(self._loop.utilization.activity)
            blocked = dict(self._loop.bridge.blocked)
            states = {node.node: self._loop.nodes.state(node) for node in nodes}
            pools, idle = supply_view.pools(self._loop.supply), dict(self._loop.supply.fleet.idle_since)
            policy_digest = self._loop.engine.policy_digest()
        shown = [
            {**_node(node, states[node.node], held, activity, blocked), "idle_since": _since(idle.get(node.node))}
            for node in sorted(nodes, key=lambda n: (not n.is_head, n.node))
        ]
        record = self._around.cluster()
        return {
            "pools": pools,
            "nodes": shown + [_lost_node(node, sizes=not shown and node.seen_ms == lost[0].seen_ms) for node in lost],
            "ray": {
                "version": record.ray_version if record is not None else "",
                "address": record.gcs_address if record is not None else "",
                "up": connected or (record is not None and record.alive()),
            },
            "bridge": {"up": connected, "pid": self._around.bridge_pid()},
            "control": {
                "pid": os.getpid(),
                "started_at": _time(self._around.started_ms),
                "version": self._around.version,
                "trouble": self._loop.trouble,
                "policy_digest": policy_digest,
            },
        }

    def logs(self, job_id: str, offset: int = 0) -> tuple[str, int]:
        with self._store.read() as session:
            query = select(Attempt).where(Attempt.job == job_id).order_by(Attempt.n)
            attempts = session.execute(query).scalars().all()
        return log_files.page(attempts, offset)

    def doctor(self) -> list[dict[str, Any]]:  # Any: JSON
        return [asdict(finding) for finding in local.doctor(self._around.settings)]


def _wait_for(answer: Future[None]) -> None:
    try:
        answer.result(ANSWER_S)
    except TimeoutError as error:
        raise ControlError("busy", "The control plane is busy.", "Try again; helio doctor says why.") from error


def _node(
    node: NodeJoined, state: str, held: dict[str, str], activity: dict[str, int], blocked: dict[str, str]
) -> dict[str, Any]:  # Any: JSON
    first = node.slots[0] if node.slots else None
    return {
        "id": node.node,
        "ip": node.ip,
        "flavor": node.flavor,
        "state": state,
        "is_head": node.is_head,
        "slots": [
            {
                "id": ref.slot,
                "device": ref.device,
                "state": "blocked" if ref.slot in blocked else "leased" if ref.slot in held else "free",
                "job": held.get(ref.slot),
                "utilization": activity[ref.slot] / 1000 if ref.slot in activity else None,
                "why": blocked.get(ref.slot, ""),
            }
            for ref in node.slots
        ],
        "cpu_milli": node.cpu_milli,
        "memory_bytes": node.memory_bytes,
        "slot_cpu_milli": first.cpu_milli if first is not None else 0,
        "slot_memory_bytes": first.memory_bytes if first is not None else 0,
        "labels": node.labels,
    }


def _lost_node(node: Node, *, sizes: bool) -> dict[str, Any]:  # Any: JSON
    """A node that is gone. sizes: with what it had, for when nothing else is known about the cluster (Ray is down)."""
    known = node.spec if sizes else {}
    slots = known.get("slots", ())
    return {
        "id": node.id,
        "ip": node.ip,
        "flavor": node.flavor,
        "state": node.state,
        "is_head": node.is_head,
        "slots": [
            {"id": ref["slot"], "device": ref["device"], "state": "lost", "job": None, "utilization": None, "why": ""}
            for ref in slots
        ],
        "cpu_milli": known.get("cpu_milli", 0),
        "memory_bytes": known.get("memory_bytes", 0),
        "slot_cpu_milli": slots[0]["cpu_milli"] if slots else 0,
        "slot_memory_bytes": slots[0]["memory_bytes"] if slots else 0,
        "labels": node.labels,
    }


def _since(at_ms: int | None) -> str | None:
    return None if at_ms is None else _time(at_ms)


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
