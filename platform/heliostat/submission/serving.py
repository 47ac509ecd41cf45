"""The serving job of a deployment: replicas as tasks. It enters its queue like any other job, through the same checks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from heliostat_serving.spec import VERSION_PREFIX

from heliostat.access import Action, Principal
from heliostat.queuefile import QueueFile
from heliostat.store.jobs import SERVE
from heliostat.store.tables import Job
from heliostat.submission.capacity import Capacity
from heliostat.submission.deciding import Accepted, preemptibility_of, seat_of
from heliostat.submission.fitting import check_fits, check_flavor
from heliostat.submission.request import Asked, Refused
from heliostat.submission.shape import Shape


def app_of(job: Job) -> str:
    """The Serve application whose replicas are the tasks of a serving job; "" for other jobs."""
    return f"{VERSION_PREFIX}{job.name}" if job.kind == SERVE else ""


def accept_serving(
    asked: Asked, shape: Shape, *, principal: Principal, file: QueueFile, capacity: Capacity, job_id: str, now_ms: int
) -> Accepted:
    """shape.min_tasks: the replica floor. shape.max_tasks: what it holds now; it follows the version's own wish later."""
    if not principal.may(Action.SUBMIT):
        raise Refused("forbidden", f"A {principal.role} may not deploy models.", "Ask for a member token.", status=403)
    seat = seat_of(asked, principal, file)
    preemptibility = preemptibility_of(asked)
    check_flavor(asked.flavor, capacity)
    check_fits(
        shape,
        queue=seat.queue,
        file=file,
        flavor=asked.flavor,
        capacity=capacity,
        one_node=False,
        preemptibility=preemptibility,
    )
    values: dict[str, Any] = {  # Any: column values
        "id": job_id,
        **seat.values(),
        "user": principal.user,
        "preemptibility": preemptibility,
        "name": asked.name,
        "kind": SERVE,
        "state": "queued",
        "flavor": asked.flavor,
        "nodes": 1,
        "entrypoint": asked.entrypoint,
        "argv": [],
        "env": {},
        "runtime_env": {},
        "job_metadata": dict(asked.metadata),
        "dependencies": [],
        "submitted_ms": now_ms,
        "state_since_ms": now_ms,
        **asdict(shape),
    }
    return Accepted(values, (), ())
