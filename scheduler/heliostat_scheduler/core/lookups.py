"""Finding what an event speaks of, or refusing the event."""

from __future__ import annotations

from typing import Any

from heliostat_scheduler.core.book import HOLDING, JobRec
from heliostat_scheduler.core.events import IllegalEvent
from heliostat_scheduler.core.model import JobSpec
from heliostat_scheduler.core.state import State


def find_job(state: State, job_id: str) -> JobRec:
    rec = state.book.jobs.get(job_id)
    if rec is None:
        raise IllegalEvent(f"job {job_id} is not known (it ended, or was never submitted)")
    return rec


def find_lease(state: State, event: Any, name: str) -> JobRec:  # Any: every event with job_id and epoch
    rec = find_job(state, event.job_id)
    if rec.phase not in HOLDING:
        raise IllegalEvent(f"{name}: job {rec.id} holds no lease (it is {rec.phase})")
    if event.epoch != rec.epoch:
        raise IllegalEvent(f"{name}: job {rec.id} is at epoch {rec.epoch}, the event is of epoch {event.epoch}")
    return rec


def check_spec(state: State, spec: JobSpec) -> None:
    if state.book.tree.leaf(spec.queue) is None:
        kind = "has queues below it" if spec.queue in state.book.tree.by_name else "does not exist"
        raise IllegalEvent(f"job {spec.id}: queue {spec.queue!r} {kind}")
    milli = spec.shape.gpu_milli
    if milli < 0 or (milli > 1000 and milli % 1000):
        raise IllegalEvent(f"job {spec.id}: gpu_milli {milli} is neither a fraction of one device nor whole devices")
    if spec.shape.cpu_milli < 0 or spec.shape.memory_bytes < 0 or spec.shape.gpu_memory_bytes < 0:
        raise IllegalEvent(f"job {spec.id}: negative amounts")
    if not 1 <= spec.min_tasks <= spec.max_tasks:
        raise IllegalEvent(f"job {spec.id}: needs 1 <= min_tasks {spec.min_tasks} <= max_tasks {spec.max_tasks}")
    if spec.sizes and (min(spec.sizes) != spec.min_tasks or max(spec.sizes) != spec.max_tasks):
        raise IllegalEvent(f"job {spec.id}: sizes {spec.sizes} must run from min_tasks to max_tasks")
