"""`helio endpoint scale`: another number of replicas for a version that is there. Nothing of it is started anew.

The serving job's maximum follows at once, its minimum only downwards while it holds a lease: more replicas are growth, which a queue
grants as it can, while a gang below its minimum would have to end as a whole.
"""

from __future__ import annotations

from heliostat_scheduler.core.lifecycle import WAITING
from sqlalchemy.orm import Session

from heliostat.endpoints import rows
from heliostat.endpoints.deploying import DIRECT, Surroundings, check_range
from heliostat.endpoints.errors import EndpointError
from heliostat.endpoints.names import version_label
from heliostat.endpoints.states import DeploymentState
from heliostat.store import jobs, moves
from heliostat.store.endpoint_tables import Deployment, Endpoint
from heliostat.submission.fitting import check_fits
from heliostat.submission.shape import Shape

S = DeploymentState
SCALABLE = frozenset({S.WAITING, S.STARTING, S.CHECKING, S.READY})


def scale(session: Session, endpoint: Endpoint, row: Deployment, least: int, most: int, around: Surroundings) -> None:
    """Between `least` and `most` replicas from now on. Raises EndpointError or Refused; then nothing has changed."""
    check_range(least, most)
    label = version_label(row.number)
    if row.state not in SCALABLE:
        text = f"{label} of endpoint {endpoint.name} is {row.state}: it has no replicas to change."
        raise EndpointError("not_scalable", text, f"Its versions: helio endpoint show {endpoint.name}", 409)
    if endpoint.mode == DIRECT and least == 0:
        text = "Direct mode has no gateway that could wake it: it keeps at least one replica."
        raise EndpointError("direct_mode", text, "Write --replicas 1..N.", field="replicas")
    if (least, most) == (row.replicas_min, row.replicas_max):
        return
    job = jobs.get(session, row.job)
    floor = max(1, least)
    shape = Shape(floor, floor, job.gpu_milli, job.cpu_milli, job.memory_bytes)
    check_fits(
        shape,
        queue=job.queue,
        file=around.file,
        flavor=job.flavor,
        capacity=around.capacity,
        one_node=False,
        preemptibility=job.preemptibility,
    )
    before = {"replicas_min": row.replicas_min, "replicas_max": row.replicas_max}
    row.replicas_min, row.replicas_max = least, most
    row.wish = min(max(floor, row.wish), max(1, most))
    endpoint.version += 1
    session.flush()
    told = {"version": label, "replicas_min": least, "replicas_max": most, "before": before}
    rows.told(session, endpoint, "deployment_scaled", around.actor, around.now_ms, told)
    lowest = floor if job.state in WAITING else min(floor, job.min_tasks)
    sizes = {"min_tasks": lowest, "max_tasks": max(lowest, row.wish)}
    actor, now_ms = around.actor.user, around.now_ms
    moves.change(session, job, kind="job_changed", actor=actor, now_ms=now_ms, data=sizes, **sizes)
