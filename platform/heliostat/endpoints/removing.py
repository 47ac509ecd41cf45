"""Taking versions and endpoints away: traffic first, replicas after."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from heliostat.endpoints import rows
from heliostat.endpoints.errors import EndpointError
from heliostat.endpoints.names import version_label
from heliostat.endpoints.rows import Actor
from heliostat.endpoints.states import DeploymentState
from heliostat.store.endpoint_tables import Deployment, Endpoint

S = DeploymentState
KEPT_WARM = 1
"""Versions without traffic that stay for a rollback when a new one takes over."""
KEPT_FAILED = 3


def remove_endpoint(session: Session, endpoint: Endpoint, actor: Actor, now_ms: int) -> None:
    """It answers no more; what it held is given back, then its rows go."""
    if endpoint.removing_ms is not None:
        return
    endpoint.removing_ms = now_ms
    endpoint.weights, endpoint.weights_before = {}, {}
    endpoint.version += 1
    session.flush()
    for row in rows.deployments(session, endpoint.name):
        _retire(session, row, now_ms, "Its endpoint is removed.")
    rows.told(session, endpoint, "endpoint_removed", actor, now_ms, {})


def remove_version(session: Session, endpoint: Endpoint, row: Deployment, actor: Actor, now_ms: int) -> None:
    """A version that has no traffic, or never had."""
    number = str(row.number)
    if endpoint.weights.get(number) and row.state == S.READY:
        label = version_label(row.number)
        raise EndpointError(
            "has_traffic",
            f"{label} of endpoint {endpoint.name} has traffic.",
            f"Move it away first: helio endpoint traffic {endpoint.name} ...=100, or helio endpoint rollback {endpoint.name}",
            409,
        )
    endpoint.weights = {n: w for n, w in endpoint.weights.items() if n != number}
    if number in endpoint.weights_before:
        endpoint.weights_before = {}
    endpoint.version += 1
    session.flush()
    _retire(session, row, now_ms, "It was removed.")
    rows.told(session, endpoint, "deployment_removed", actor, now_ms, {"version": version_label(row.number)})


def retire_superseded(session: Session, endpoint: Endpoint, now_ms: int) -> None:
    """After a takeover: what has no traffic and is not what a rollback returns to gives its replicas back."""
    needed = {*endpoint.weights, *endpoint.weights_before}
    idle = [row for row in rows.deployments(session, endpoint.name) if _idle(row, needed)]
    for row in _all_but_newest(idle, 0 if endpoint.weights_before else KEPT_WARM):
        _retire(session, row, now_ms, "A newer version took over.")


def retire_failed(session: Session, endpoint: Endpoint, now_ms: int) -> None:
    """Before a new deployment: of those that failed the newest stay to be looked at."""
    named = {*endpoint.weights, *endpoint.weights_before}
    failed = [row for row in rows.deployments(session, endpoint.name) if row.state == S.FAILED]
    for row in failed[:-KEPT_FAILED]:
        if str(row.number) not in named:
            _retire(session, row, now_ms, "Newer versions were deployed.")


def _idle(row: Deployment, needed: set[str]) -> bool:
    return row.state == S.READY and str(row.number) not in needed and not row.plan.get("keep")


def _all_but_newest(idle: Sequence[Deployment], keep: int) -> Sequence[Deployment]:
    return idle[: len(idle) - keep] if keep else idle


def _retire(session: Session, row: Deployment, now_ms: int, reason: str) -> None:
    if row.state not in (S.RETIRING, S.GONE):
        rows.move(session, row, S.RETIRING, now_ms, reason=reason)
