"""The engine's answers as the JSON of /api/v1: sentences and times for people beside the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from heliostat_scheduler.core import Engine, JobSpec, QueueUsage, Reason, Remedy, Start
from heliostat_scheduler.core.events import JobSubmitted
from heliostat_scheduler.core.model import MEMORY, UNLIMITED
from heliostat_scheduler.core.reasons import sentence

if TYPE_CHECKING:
    from heliostat_scheduler.core.explain import Explanation

from heliostat.store.reasons import reason_from
from heliostat.store.tables import Job


def of_job(job: Job, explanation: Explanation | None, position: int | None, now_ms: int) -> dict[str, Any]:  # Any: JSON
    """Why the job is where it is. Without an explanation (it does not wait): the reason of its last move."""
    told = reason_from(job.reason) if job.reason is not None else None
    reason = explanation.reason if explanation is not None else told
    return {
        "job_id": job.id,
        "state": job.state,
        **_reason(reason),
        "remedies": [] if explanation is None else [_remedy(remedy) for remedy in explanation.remedies],
        "checks": [] if explanation is None else [_check(check) for check in explanation.checks],
        "position": position,
        "estimated_start": None if explanation is None else _time(explanation.estimated_start_ms),
        "as_of": _time(now_ms),
    }


def of_submission(snapshot: bytes, spec: JobSpec, now_ms: int) -> dict[str, Any]:  # Any: JSON
    """What would happen to this job if it were submitted now, on a copy of the engine."""
    engine = Engine.restore(snapshot)
    engine.apply(JobSubmitted(spec), now_ms)
    plan = engine.decide(now_ms)
    start = next((d for d in plan.decisions if isinstance(d, Start) and d.job_id == spec.id), None)
    if start is not None:
        return {
            "fits": True,
            "starts_now": True,
            "position": None,
            "estimated_start": _time(now_ms),
            "reason": None,
            "remedies": [],
            "evicts": [],
        }
    explanation = engine.explain(spec.id, now_ms)
    return {
        "fits": explanation.reason.code.value not in ("NeverFits", "FlavorMismatch"),
        "starts_now": False,
        "position": engine.position(spec.id),
        "estimated_start": _time(explanation.estimated_start_ms),
        "reason": _reason(explanation.reason),
        "remedies": [_remedy(remedy) for remedy in explanation.remedies],
        "evicts": [d.job_id for d in plan.decisions if not isinstance(d, Start)],
    }


def of_queues(usage: Sequence[QueueUsage]) -> list[dict[str, Any]]:  # Any: JSON
    """Amounts as everywhere in /api/v1: GPUs (by flavor) and CPUs as numbers, memory in bytes, null where there is no bound."""
    return [_queue(row) for row in usage]


def _queue(row: QueueUsage) -> dict[str, Any]:  # Any: JSON
    told = {key: _amounts(value) if isinstance(value, dict) else value for key, value in asdict(row).items()}
    return {**told, "parent": row.parent or None, "running": row.running_jobs, "waiting": row.waiting_jobs}


def _amounts(amounts: dict[str, int]) -> dict[str, float | None]:
    return {
        key: None if value == UNLIMITED else value if key == MEMORY else value / 1000 for key, value in amounts.items()
    }


def _reason(reason: Reason | None) -> dict[str, Any]:  # Any: JSON
    if reason is None:
        return {"code": "", "sentence": "", "facts": {}, "blockers": []}
    return {
        "code": reason.code.value,
        "sentence": sentence(reason),
        "facts": dict(reason.facts),
        "blockers": list(reason.blockers),
    }


def _remedy(remedy: Remedy) -> dict[str, Any]:  # Any: JSON
    return {
        "kind": remedy.kind.value,
        "action": remedy.action,
        "text": remedy.text,
        "command": remedy.command,
        "at": _time(remedy.at_ms),
        "evicts": list(remedy.evicts),
    }


def _check(check: Any) -> dict[str, Any]:  # Any: one evaluation of a constraint
    return {"name": check.name, "ok": check.ok, "facts": dict(check.facts)}


def _time(at_ms: int | None) -> str | None:
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
