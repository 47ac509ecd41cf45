"""PATCH of a job: the same checks as at the door, on the job as it would be."""

from __future__ import annotations

from typing import Any

from heliostat_scheduler.core.lifecycle import TERMINAL, WAITING
from sqlalchemy.orm import Session

from heliostat.access import Principal
from heliostat.api import models
from heliostat.api.doors import Doors
from heliostat.api.problems import Problem
from heliostat.store import audit, moves
from heliostat.store.tables import Job
from heliostat.submission import Asked, accept

SHAPE_FIELDS = ("min_tasks", "max_tasks", "gpu_milli", "cpu_milli", "memory_bytes")
CHANGEABLE = ("queue", "priority", "priority_class", "preemptibility", "flavor", "dependencies", *SHAPE_FIELDS)


def change_job(doors: Doors, row: Job, change: models.JobChange, caller: Principal, rid: str) -> None:
    """Check, write, tell the engine. Nothing happens when nothing would change."""
    asked = change.model_dump(exclude_none=True)
    if row.state in TERMINAL:
        raise Problem(409, "wrong_state", f"Job {row.id} is {row.state}.", "Submit a new one.")
    if row.state not in WAITING and set(asked) - {"priority"}:
        raise Problem(
            409,
            "wrong_state",
            f"Job {row.id} is {row.state}; only its priority can change now.",
            "Change the rest while a job waits, or cancel it and submit it again.",
        )
    values = _checked(doors, row, asked, caller)
    if not values:
        return
    now = doors.clock_ms()

    def work(session: Session) -> None:
        moves.change(session, row, kind="job_changed", actor=caller.user, now_ms=now, data=values, **values)
        audit.append(
            session,
            at_ms=now,
            actor=caller.user,
            project=row.project,
            action="job_changed",
            object=row.id,
            request_id=rid,
            data=values,
        )

    doors.store.write(work)
    doors.control.changed(row.id)


def _checked(
    doors: Doors, row: Job, asked: dict[str, Any], caller: Principal
) -> dict[str, Any]:  # Any: field, column values
    """The columns that differ, after the same checks as at the door."""
    gpus = asked.pop("gpus", None)
    if gpus is not None:
        asked |= {"min_gpus": gpus, "max_gpus": gpus}
    new = sorted(set(asked.get("after", ())) - set(row.dependencies))
    if new:
        text = f"Job {row.id} does not wait for {', '.join(new)}; a change can only drop jobs that it waits for."
        raise Problem(400, "bad_request", text, "Leave them out of after.")
    per_task = row.gpu_milli / 1000
    submission: dict[str, Any] = {  # Any: field values
        "kind": row.kind,
        "entrypoint": row.entrypoint,
        "argv": tuple(row.argv),
        "queue": row.queue,
        "priority": row.priority,
        "project": row.project,
        "flavor": row.flavor,
        "preemptibility": row.preemptibility,
        "cpus": row.cpu_milli / 1000,
        "memory_bytes": row.memory_bytes,
        "after": tuple(row.dependencies),
        **asked,
    }
    if row.gpu_milli:
        given = {"min_gpus": row.min_tasks * per_task, "max_gpus": row.max_tasks * per_task, "gpus_per_task": per_task}
        submission = {**given, **submission}
        if "max_gpus" not in asked and submission["min_gpus"] > submission["max_gpus"]:
            submission["max_gpus"] = submission["min_gpus"]
        if "min_gpus" not in asked and submission["max_gpus"] < submission["min_gpus"]:
            submission["min_gpus"] = submission["max_gpus"]
    accepted = accept(
        Asked(**submission),
        principal=caller,
        file=doors.queue_file(),
        capacity=doors.capacity(),
        job_id=row.id,
        now_ms=row.submitted_ms,
    )
    return {name: value for name in CHANGEABLE if (value := accepted.values[name]) != getattr(row, name)}
