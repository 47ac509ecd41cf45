"""Weights: what traffic may follow, what it follows now, and the way back.

A split is told in shares that sum to anything above zero; what is kept is what was told. Only versions that are ready can be
given traffic. What a gateway is told are the *effective* weights: those of versions that are ready now; one that lost its grant
keeps its share for when it is back.

The last word holds. What a deployment asked for is done when its version is ready, unless traffic was told something since: by a
deployment that was asked later and has traffic, by a split, by a rollback. Then the version stays warm, without traffic, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy.orm import Session

from heliostat.endpoints import rows
from heliostat.endpoints.errors import EndpointError, unknown_deployment
from heliostat.endpoints.names import version_label, version_number
from heliostat.endpoints.rows import Actor
from heliostat.endpoints.states import UNDER_WAY, DeploymentState
from heliostat.store.endpoint_tables import Deployment, Endpoint

MAX_SHARE = 1_000_000


def effective(endpoint: Endpoint, deployments: Sequence[Deployment]) -> dict[int, int]:
    """Deployment number -> share now."""
    ready = {row.number for row in deployments if row.state == DeploymentState.READY}
    return {int(number): int(weight) for number, weight in endpoint.weights.items() if int(number) in ready}


def parse(shares: Mapping[str, int]) -> dict[int, int]:
    """`{"v1": 90, "v2": 10}` -> `{1: 90, 2: 10}`; EndpointError when it is no split."""
    found: dict[int, int] = {}
    for label, share in shares.items():
        number = version_number(label)
        if number is None or number in found:
            raise EndpointError(
                "bad_request", f"'{label}' names no version once.", "Write v1=90 v2=10.", field="weights"
            )
        if not 0 <= share <= MAX_SHARE:
            raise EndpointError(
                "bad_request", f"The share {share} of {label} is no share.", "Write v1=90 v2=10.", field="weights"
            )
        found[number] = share
    if not any(found.values()):
        raise EndpointError(
            "bad_request", "At least one version needs a share above 0.", "Write v1=100.", field="weights"
        )
    return found


def change(session: Session, endpoint: Endpoint, shares: Mapping[int, int], actor: Actor, now_ms: int) -> None:
    """Split traffic like this from now on."""
    known = {row.number: row for row in rows.deployments(session, endpoint.name)}
    for number, share in shares.items():
        row = known.get(number)
        if row is None:
            raise unknown_deployment(endpoint.name, version_label(number))
        _require_ready(row, share)
    rows.set_weights(session, endpoint, dict(shares), actor, now_ms, action="traffic_changed")
    _drop_plans(session, known.values(), "traffic was split")


def rollback(session: Session, endpoint: Endpoint, actor: Actor, now_ms: int) -> None:
    """Back to the weights before the last change, at once: their versions still run."""
    before = {int(number): int(share) for number, share in endpoint.weights_before.items()}
    known = {row.number: row for row in rows.deployments(session, endpoint.name)}
    gone = [number for number in before if number not in known]
    if not before or gone:
        text = f"Endpoint {endpoint.name} has nothing to go back to."
        if gone:
            text = f"Endpoint {endpoint.name} cannot go back: {version_label(gone[0])} is not there any more."
        remedy = f"helio endpoint show {endpoint.name} lists its versions; deploy the wanted one again."
        raise EndpointError("nothing_before", text, remedy, 409)
    for number in before:
        _require_ready(known[number], 1)
    rows.set_weights(session, endpoint, before, actor, now_ms, action="traffic_rolled_back")
    _drop_plans(session, known.values(), "traffic was rolled back")


def overtaken(endpoint: Endpoint, row: Deployment, deployments: Sequence[Deployment]) -> str:
    """Why a version that has become ready gets no traffic after all; "" when it gets what it asked for."""
    why = str(row.plan.get("dropped", ""))
    live = [other for other in deployments if other.state in UNDER_WAY | {DeploymentState.READY}]
    newer = [other.number for other in live if other.number > row.number and endpoint.weights.get(str(other.number))]
    if not why and newer and "weight" in row.plan:
        why = f"{version_label(max(newer))} took over"
    label = version_label(row.number)
    return why and (
        f"{label} answers, without traffic: {why} after it was deployed. "
        f"Give it some: helio endpoint traffic {endpoint.name} {label}=100"
    )


def _drop_plans(session: Session, deployments: Iterable[Deployment], why: str) -> None:
    for row in deployments:
        if row.state in UNDER_WAY and "weight" in row.plan:
            row.plan = {"dropped": why}
    session.flush()


def plan_for(endpoint: Endpoint, row: Deployment, deployments: Sequence[Deployment]) -> dict[int, int] | None:
    """The weights once this version is ready, by what its deployment asked for; None: as they are.

    A share of w percent leaves the others theirs in proportion; without anybody else it gets everything.
    """
    asked = row.plan.get("weight")
    if asked is None:
        return None
    others = {number: share for number, share in effective(endpoint, deployments).items() if number != row.number}
    if asked >= 100 or not others:
        return {row.number: 100}
    total = sum(others.values())
    rest = {number: share * (100 - int(asked)) for number, share in others.items()}
    return {**rest, row.number: int(asked) * total}


def _require_ready(row: Deployment, share: int) -> None:
    if share and row.state != DeploymentState.READY:
        label = version_label(row.number)
        text = f"{label} of endpoint {row.endpoint} is {row.state}: only a version that is ready gets traffic."
        raise EndpointError("not_ready", text, f"See why with: helio endpoint show {row.endpoint}", 409)
