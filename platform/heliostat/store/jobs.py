"""Jobs: insert, find, list by keyset, and the specification that the engine gets."""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from heliostat_scheduler.core.lifecycle import TERMINAL, JobState
from heliostat_scheduler.core.model import JobSpec, Preemptibility, TaskShape
from sqlalchemy import Select, delete, exists, func, select
from sqlalchemy.orm import Session

from heliostat.store.errors import UnknownJob
from heliostat.store.inserting import insert_row
from heliostat.store.tables import Attempt, Event, Job, Metric

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ELASTIC_KINDS: frozenset[str] = frozenset({"ray", "train", "tune"})
"""Kinds whose running leases on GPUs may be resized, between the job's own limits."""


SERVE = "serve"
RESTART_COST_MS = 10_000
"""What a restart is thought to cost a job. A replica that serves is started beside the others and costs them nothing."""
"""The kind whose tasks are replicas of an endpoint: it grows and shrinks with what its load asks for."""


@dataclass(frozen=True, slots=True)
class JobFilter:
    """What a list shows. Empty tuples and None: no condition."""

    projects: tuple[str, ...] | None = None
    states: tuple[str, ...] = ()
    queue: str | None = None
    user: str | None = None


def new_id(now_ms: int | None = None) -> str:
    """`job-` and a ULID: 48 bits of time, 80 random bits; sorts by time of making. An id is no secret: tokens protect jobs."""
    number = ((now_ms or time.time_ns() // 1_000_000) << 80) | random.getrandbits(80)
    return "job-" + "".join(CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def add(session: Session, values: dict[str, Any]) -> int:  # Any: column values of different types
    """Insert a job row (attributes of `tables.Job`); returns its `seq`. A known id raises IntegrityError."""
    row = {"state_since_ms": values["submitted_ms"], **values}
    if "job_metadata" in row:
        row["metadata"] = row.pop("job_metadata")
    return insert_row(session, Job, row)


def as_added(values: dict[str, Any]) -> Job:  # Any: column values
    """The row that `add` makes of these values, without reading it back (`seq` stays unknown)."""
    return Job(**{**_DEFAULTS, "state_since_ms": values["submitted_ms"], **values})


def find(session: Session, job_id: str) -> Job | None:
    return session.execute(select(Job).where(Job.id == job_id)).scalar_one_or_none()


def get(session: Session, job_id: str) -> Job:
    job = find(session, job_id)
    if job is None:
        raise UnknownJob(f"There is no job {job_id}.")
    return job


def known(session: Session, job_id: str) -> bool:
    """Whether the id was ever used: rows may be deleted, their events stay."""
    row = session.execute(select(exists().where(Job.id == job_id))).scalar()
    return bool(row) or bool(session.execute(select(exists().where(Event.job == job_id))).scalar())


def page(session: Session, chosen: JobFilter, *, before_seq: int | None = None, limit: int = 50) -> Sequence[Job]:
    """Newest first, `seq` below `before_seq`.

    One walk along an index per state and project, merged: SQLite would otherwise sort all rows of several states. Without a
    state or queue condition the table itself is the order.
    """
    states: tuple[str | None, ...] = chosen.states
    if not states:
        indexed = chosen.queue is not None or chosen.projects is not None
        states = tuple(JobState) if indexed else (None,)
    projects: tuple[str | None, ...] = (None,) if chosen.projects is None else chosen.projects
    runs = [
        session.execute(_run(chosen, project, state, before_seq).limit(limit)).all()
        for project in projects
        for state in states
    ]
    merged = heapq.merge(*[[seq for (seq,) in run] for run in runs], reverse=True)
    seqs = list(islice(merged, limit))
    return session.execute(select(Job).where(Job.seq.in_(seqs)).order_by(Job.seq.desc())).scalars().all()


def _run(chosen: JobFilter, project: str | None, state: str | None, before_seq: int | None) -> Select[int]:
    query = select(Job.seq).order_by(Job.seq.desc())
    conditions = {Job.project: project, Job.state: state, Job.queue: chosen.queue, Job.user: chosen.user}
    for column, value in conditions.items():
        if value is not None:
            query = query.where(column == value)
    return query if before_seq is None else query.where(Job.seq < before_seq)


def in_states(session: Session, states: Sequence[str]) -> Sequence[Job]:
    """All jobs in these states, oldest first (what a starting control plane loads)."""
    return session.execute(select(Job).where(Job.state.in_(states)).order_by(Job.seq)).scalars().all()


def unsuccessful(session: Session, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(job, how it ended) for those of these that are over and did not succeed."""
    if not names:
        return ()
    bad = [state.value for state in TERMINAL if state is not JobState.SUCCEEDED]
    query = select(Job.id, Job.state).where(Job.id.in_(names), Job.state.in_(bad)).order_by(Job.id)
    return tuple((job, state) for job, state in session.execute(query))


def count_by_state(session: Session) -> dict[tuple[str, str], int]:
    """(queue, state) -> number of jobs."""
    rows = session.execute(select(Job.queue, Job.state, func.count()).group_by(Job.queue, Job.state))
    return {(queue, state): number for queue, state, number in rows}


def forget(session: Session, job_id: str) -> None:
    """Delete a terminal job with its attempts and metrics. Its events and audit rows stay."""
    for table, column in ((Attempt, Attempt.job), (Metric, Metric.job), (Job, Job.id)):
        session.execute(delete(table).where(column == job_id))


_DEFAULTS: dict[str, Any] = {  # Any: column values
    "version": 1,
    "nodes": 1,
    "attempts": 0,
    "message": "",
    "error": "",
    "ray_submission_id": "",
    "gpu_ms_held": 0,
    "gpu_ms_used": None,
    "waited_ms": 0,
    "ran_ms": 0,
    "cancel_requested": False,
}


def _stays_together(job: Job) -> bool:
    """Whether its tasks share one node. Replicas of an endpoint are apart as they come."""
    return job.kind != SERVE and ((job.kind == "command" and job.nodes == 1) or job.gpu_milli == 0)


def core_spec(job: Job) -> JobSpec:
    """What the engine is told about this row."""
    return JobSpec(
        id=job.id,
        queue=job.queue,
        submitted_at_ms=job.submitted_ms,
        shape=TaskShape(gpu_milli=job.gpu_milli, cpu_milli=job.cpu_milli, memory_bytes=job.memory_bytes),
        min_tasks=job.min_tasks,
        max_tasks=job.max_tasks,
        priority=job.priority,
        preemptibility=Preemptibility(job.preemptibility),
        flavors=(job.flavor,) if job.flavor else (),
        spread="one_node" if _stays_together(job) else "any",
        user=job.user,
        project=job.project,
        kind=job.kind,
        template=f"{job.user}/{job.name}",
        elastic=job.kind == SERVE or (job.kind in ELASTIC_KINDS and job.gpu_milli > 0),
        restart_cost_ms=0 if job.kind == SERVE else RESTART_COST_MS,
        max_runtime_ms=job.max_runtime_ms,
        dependencies=tuple(job.dependencies),
    )
