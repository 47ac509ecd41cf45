"""Everything that the service decides on, read in one snapshot: endpoints, deployments, keys, and what the scheduler granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from heliostat_scheduler.core.lifecycle import TERMINAL, JobState
from heliostat_scheduler.live import protocol
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from heliostat.endpoints import keys, rows
from heliostat.store.endpoint_tables import Deployment, Endpoint, EndpointKey
from heliostat.store.model_tables import ModelAlias
from heliostat.store.tables import Job, Lease

GRANTED = frozenset({JobState.STARTING, JobState.RUNNING, JobState.RESIZING})


@dataclass(frozen=True, slots=True)
class Grant:
    """The serving job of a deployment. tasks: replicas that its lease allows now, 0 without a lease.

    lasts: nobody has asked it back. attempt: 0 before the first.
    """

    job: str
    state: JobState
    attempt: int = 0
    epoch: int = 0
    tasks: int = 0
    order: str = ""
    message: str = ""
    error: str = ""

    @property
    def holds(self) -> bool:
        """Its replicas may run."""
        return self.state in GRANTED and self.order == protocol.RUN and self.tasks > 0

    @property
    def asked_back(self) -> bool:
        return self.attempt > 0 and self.tasks > 0 and self.order != protocol.RUN

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL


@dataclass(frozen=True, slots=True)
class World:
    """deployments: by endpoint, in order of their numbers. keys: the usable ones. aliases: of model versions."""

    now_ms: int
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    deployments: Mapping[str, Sequence[Deployment]] = field(default_factory=dict)
    keys: Mapping[str, Sequence[EndpointKey]] = field(default_factory=dict)
    grants: Mapping[str, Grant] = field(default_factory=dict)
    aliases: Mapping[tuple[str, str, int], tuple[str, ...]] = field(default_factory=dict)

    def all_deployments(self) -> list[Deployment]:
        return [row for found in self.deployments.values() for row in found]

    def grant(self, row: Deployment) -> Grant:
        return self.grants.get(row.job) or Grant(row.job, JobState.CANCELLED, error="Its job is not there any more.")


def read(session: Session, now_ms: int) -> World:
    endpoints = {row.name: row for row in rows.listed(session, None)}
    deployments: dict[str, list[Deployment]] = {name: [] for name in endpoints}
    for row in rows.living(session):
        deployments.setdefault(row.endpoint, []).append(row)
    usable: dict[str, list[EndpointKey]] = {name: [] for name in endpoints}
    for key in rows.keys(session):
        if keys.usable(key, now_ms):
            usable.setdefault(key.endpoint, []).append(key)
    names = [row.job for found in deployments.values() for row in found]
    return World(now_ms, endpoints, deployments, usable, grants(session, names), _aliases(session, deployments))


def _aliases(
    session: Session, deployments: Mapping[str, Sequence[Deployment]]
) -> dict[tuple[str, str, int], tuple[str, ...]]:
    """The registry's aliases of what is deployed: callers may name a version by them."""
    models = {(row.project, row.model) for found in deployments.values() for row in found}
    if not models:
        return {}
    query = select(ModelAlias).where(tuple_(ModelAlias.project, ModelAlias.model).in_(sorted(models)))
    found: dict[tuple[str, str, int], tuple[str, ...]] = {}
    for alias in session.execute(query.order_by(ModelAlias.alias)).scalars():
        place = (alias.project, alias.model, alias.version)
        found[place] = (*found.get(place, ()), alias.alias)
    return found


def grants(session: Session, names: Sequence[str]) -> dict[str, Grant]:
    """What the scheduler says of these serving jobs."""
    leases = {row.job: row for row in session.execute(select(Lease).where(Lease.job.in_(names))).scalars()}
    found = {}
    for job in session.execute(select(Job).where(Job.id.in_(names))).scalars():
        lease = leases.get(job.id)
        found[job.id] = Grant(
            job.id,
            JobState(job.state),
            attempt=lease.attempt if lease is not None else 0,
            epoch=lease.epoch if lease is not None else 0,
            tasks=len(lease.places) if lease is not None else 0,
            order=lease.order if lease is not None else "",
            message=job.message,
            error=job.error,
        )
    return found
