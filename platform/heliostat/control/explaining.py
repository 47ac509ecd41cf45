"""The engine's answers as the JSON of /api/v1: sentences and times for people beside the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from heliostat_scheduler.core import Engine, QueueUsage, Reason, Remedy, Start
from heliostat_scheduler.core.events import JobSubmitted
from heliostat_scheduler.core.model import MEMORY, UNLIMITED
from heliostat_scheduler.core.reasons import sentence

if TYPE_CHECKING:
    from heliostat_scheduler.core.explain import Check, Explanation
    from heliostat_scheduler.core.wanting import Wanting

from heliostat.store.reasons import reason_from
from heliostat.store.tables import Job


def of_job(
    job: Job,
    told: dict[str, Any] | None,
    position: int | None,
    now_ms: int,
    *,
    checks: Sequence[Check] = (),
    story: Sequence[dict[str, Any]] = (),
    growth: dict[str, Any] | None = None,
    expected: dict[str, Any] | None = None,
    complete: bool = True,
) -> dict[str, Any]:  # Any: JSON
    """Why the job is where it is. told: its explanation while it waits; else the reason of its last move, what protects it (`checks`)
    and why it does not get all that it asks for (`growth`). story: what happened to it so far, also while it waits again.
    expected: what was learned of it. complete: False while remedies are still being tried."""
    waiting = told is not None
    reason = _reason(reason_from(job.reason) if job.reason is not None else None)
    return {
        "job_id": job.id,
        "state": job.state,
        **{key: (told or reason)[key] for key in ("code", "sentence", "facts", "blockers")},
        "remedies": told["remedies"] if told is not None else [],
        "remedies_complete": complete,
        "checks": told["checks"] if told is not None else [_check(check) for check in checks],
        "story": list(story),
        "growth": growth,
        "expected": expected,
        "position": position if waiting else None,
        "estimated_start": told["estimated_start"] if told is not None else None,
        "as_of": time_of(now_ms),
    }


def of_explanation(explanation: Explanation) -> dict[str, Any]:  # Any: JSON
    """An explanation of the engine."""
    return {
        **_reason(explanation.reason),
        "remedies": [_remedy(remedy) for remedy in explanation.remedies],
        "checks": [_check(check) for check in explanation.checks],
        "position": explanation.position,
        "estimated_start": time_of(explanation.estimated_start_ms),
    }


def of_wanting(wanting: Wanting) -> dict[str, Any]:  # Any: JSON
    """Why a job that holds something does not get more."""
    return {
        "tasks": wanting.tasks,
        "wanted": wanting.wanted,
        **_reason(wanting.reason),
        "at": time_of(wanting.reason.until_ms),
        "remedies": [_remedy(remedy) for remedy in wanting.remedies],
    }


def of_submission(engine: Engine, event: JobSubmitted, now_ms: int) -> dict[str, Any]:  # Any: JSON
    """What would happen to this job if it were submitted now, on a copy of the engine."""
    engine, spec = engine.branch(), event.job
    engine.apply(event, now_ms)
    plan = engine.decide(now_ms)
    start = next((d for d in plan.decisions if isinstance(d, Start) and d.job_id == spec.id), None)
    if start is not None:
        return {
            "fits": True,
            "starts_now": True,
            "position": None,
            "estimated_start": time_of(now_ms),
            "reason": None,
            "remedies": [],
            "evicts": [],
            "nodes": list(dict.fromkeys(place.node for place in start.places)),
        }
    explanation = engine.explain(spec.id, now_ms)
    return {
        "fits": explanation.reason.code.value not in ("NeverFits", "FlavorMismatch"),
        "starts_now": False,
        "position": engine.position(spec.id),
        "estimated_start": time_of(explanation.estimated_start_ms),
        "reason": _reason(explanation.reason),
        "remedies": [_remedy(remedy) for remedy in explanation.remedies],
        "evicts": [d.job_id for d in plan.decisions if not isinstance(d, Start)],
        "nodes": [],
    }


def of_queue(
    usage: QueueUsage, waiting: Sequence[tuple[str, Reason]], borrowers: Sequence[str]
) -> dict[str, Any]:  # Any: JSON
    """Why a queue's jobs wait: what it has, uses and may have, and its waiting jobs by reason, the next one first.

    waiting: (job, reason) in the queue's order. borrowers: queues that use more than their quota, the largest first.
    """
    counted = Counter(reason.code.value for _, reason in waiting)
    first = waiting[0] if waiting else None
    return {
        **_queue(usage),
        "waiting_by_reason": dict(sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))),
        "first": None if first is None else {"job_id": first[0], **_reason(first[1])},
        "borrowers": list(borrowers),
        "sentence": _queue_sentence(usage, first),
    }


def _queue_sentence(usage: QueueUsage, first: tuple[str, Reason] | None) -> str:
    if first is None:
        return "no job waits here"
    return f"{usage.waiting_jobs} wait; the next, {first[0]}, {sentence(first[1])}"


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
        "at": time_of(remedy.at_ms),
        "evicts": list(remedy.evicts),
    }


def _check(check: Any) -> dict[str, Any]:  # Any: one evaluation of a constraint
    return {"name": check.name, "ok": check.ok, "facts": dict(check.facts)}


def time_of(at_ms: int | None) -> str | None:
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
