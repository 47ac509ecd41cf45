"""Reads and writes of endpoints: each write changes rows, event and audit in the one transaction that it is called in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from heliostat.endpoints import states
from heliostat.endpoints.names import version_label
from heliostat.endpoints.states import DeploymentState
from heliostat.store import audit, events
from heliostat.store.endpoint_tables import Deployment, Endpoint, EndpointKey, EndpointUsage


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does it, and in which request."""

    user: str
    request_id: str = ""


SYSTEM = Actor("endpoints")


def find(session: Session, name: str) -> Endpoint | None:
    return session.get(Endpoint, name)


def listed(session: Session, projects: tuple[str, ...] | None) -> Sequence[Endpoint]:
    """The endpoints of these projects (None: all), by name."""
    query = select(Endpoint).order_by(Endpoint.name)
    if projects is not None:
        query = query.where(Endpoint.project.in_(projects))
    return session.execute(query).scalars().all()


def deployments(session: Session, endpoint: str, *, gone: bool = False) -> Sequence[Deployment]:
    """By number. gone: those of which nothing is left, too."""
    query = select(Deployment).where(Deployment.endpoint == endpoint).order_by(Deployment.number)
    if not gone:
        query = query.where(Deployment.state != DeploymentState.GONE)
    return session.execute(query).scalars().all()


def living(session: Session) -> Sequence[Deployment]:
    """Of all endpoints, what is not gone."""
    query = select(Deployment).where(Deployment.state != DeploymentState.GONE)
    return session.execute(query.order_by(Deployment.endpoint, Deployment.number)).scalars().all()


def uses(session: Session, project: str, model: str, version: int) -> list[str]:
    """Where a model version is deployed (`endpoint v2`), for whoever wants to delete it."""
    query = select(Deployment.endpoint, Deployment.number).where(
        Deployment.project == project,
        Deployment.model == model,
        Deployment.model_version == version,
        Deployment.state.not_in((DeploymentState.GONE, DeploymentState.FAILED)),
    )
    return [f"{name} {version_label(number)}" for name, number in session.execute(query.order_by(Deployment.id))]


def move(
    session: Session, row: Deployment, new: DeploymentState, now_ms: int, *, reason: str = "", trace: str = ""
) -> None:
    """Move a deployment. `reason` is one sentence; `trace` the whole story of a failure."""
    states.check(f"{row.endpoint} {version_label(row.number)}", DeploymentState(row.state), new)
    old = row.state
    row.state, row.state_since_ms, row.reason = new, now_ms, reason
    if trace or new is DeploymentState.READY:
        row.trace = trace
    session.flush()
    data = {"endpoint": row.endpoint, "version": version_label(row.number), "reason": reason}
    events.append(
        session,
        at_ms=now_ms,
        kind="deployment_moved",
        job=row.job,
        project=row.project,
        actor=SYSTEM.user,
        from_state=old,
        to_state=new,
        data=data,
    )


def note(session: Session, row: Deployment, reason: str) -> None:
    """What is happening with it now; no event, it changes often."""
    row.reason = reason
    session.flush()


def set_weights(
    session: Session, endpoint: Endpoint, weights: dict[int, int], actor: Actor, now_ms: int, *, action: str
) -> None:
    """Let traffic follow `weights` (deployment number -> share). What held before is kept for a rollback."""
    wanted = {str(number): weight for number, weight in sorted(weights.items()) if weight > 0}
    if wanted == endpoint.weights:
        return
    before = dict(endpoint.weights)
    endpoint.weights_before = before or dict(endpoint.weights_before)
    endpoint.weights = wanted
    endpoint.version += 1
    session.flush()
    told(session, endpoint, action, actor, now_ms, {"weights": wanted, "before": before})


def told(
    session: Session,
    endpoint: Endpoint,
    kind: str,
    actor: Actor,
    now_ms: int,
    data: dict[str, Any],  # Any: JSON
) -> None:
    """Event and audit row of a change that somebody made to an endpoint."""
    document = {"endpoint": endpoint.name, **data}
    events.append(session, at_ms=now_ms, kind=kind, project=endpoint.project, actor=actor.user, data=document)
    audit.append(
        session,
        at_ms=now_ms,
        actor=actor.user,
        project=endpoint.project,
        action=kind,
        object=endpoint.name,
        request_id=actor.request_id,
        data=data,
    )


def forget(session: Session, endpoint: Endpoint, now_ms: int) -> None:
    """The last of an endpoint that was removed: its rows go, its usage, events and audit rows stay."""
    name = endpoint.name
    session.execute(delete(EndpointKey).where(EndpointKey.endpoint == name))
    session.execute(delete(Deployment).where(Deployment.endpoint == name))
    session.delete(endpoint)
    session.flush()
    told(session, endpoint, "endpoint_gone", SYSTEM, now_ms, {})


# ---- keys ---------------------------------------------------------------------------------------------------------------


def keys(
    session: Session, endpoint: str | None = None, projects: tuple[str, ...] | None = None
) -> Sequence[EndpointKey]:
    """Oldest first, revoked ones too."""
    query = select(EndpointKey).order_by(EndpointKey.created_ms, EndpointKey.id)
    if endpoint is not None:
        query = query.where(EndpointKey.endpoint == endpoint)
    if projects is not None:
        query = query.where(EndpointKey.project.in_(projects))
    return session.execute(query).scalars().all()


def key(session: Session, key_id: str) -> EndpointKey | None:
    return session.get(EndpointKey, key_id)


def key_used(session: Session, key_id: str, at_ms: int) -> None:
    session.execute(
        update(EndpointKey)
        .where(EndpointKey.id == key_id, func.coalesce(EndpointKey.last_used_ms, 0) < at_ms)
        .values(last_used_ms=at_ms)
    )


# ---- usage --------------------------------------------------------------------------------------------------------------


def usage(session: Session, endpoint: Endpoint, since_ms: int) -> Sequence[EndpointUsage]:
    """Its project's: another one may have had an endpoint of this name before."""
    query = select(EndpointUsage).where(
        EndpointUsage.endpoint == endpoint.name,
        EndpointUsage.project == endpoint.project,
        EndpointUsage.hour_ms >= since_ms,
    )
    return session.execute(query.order_by(EndpointUsage.hour_ms)).scalars().all()
