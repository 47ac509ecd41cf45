"""Endpoints on the wire: rows, and beside them what Serve showed last and what the scheduler grants."""

from __future__ import annotations

from typing import Any

from heliostat_serving.spec import route, version_app
from sqlalchemy.orm import Session

from heliostat.api import endpoint_shapes as shapes
from heliostat.api.views import at, rfc3339
from heliostat.endpoints import rows, traffic, world
from heliostat.endpoints.names import version_label
from heliostat.endpoints.port import Endpoints
from heliostat.endpoints.states import DeploymentState
from heliostat.endpoints.world import Grant
from heliostat.store import endpoint_tables as t


def endpoint_view(session: Session, row: t.Endpoint, service: Endpoints) -> shapes.Endpoint:
    found = rows.deployments(session, row.name)
    grants = world.grants(session, [deployment.job for deployment in found])
    shares = traffic.effective(row, found)
    deployments = [_deployment(d, grants.get(d.job), row, shares, service) for d in found]
    return shapes.Endpoint(
        name=row.name,
        project=row.project,
        url=f"{service.base_url()}{route(row.name)}",
        mode=row.mode,
        state=_state(row, deployments, shares),
        weights=_labels(row.weights),
        weights_before=_labels(row.weights_before),
        sticky=bool(row.settings.get("sticky")),
        gateways=0 if row.mode == "direct" else int(row.settings.get("gateways", 1)),
        created_at=at(row.created_ms),
        created_by=row.created_by,
        revision=row.version,
        deployments=deployments,
        trouble=service.trouble or None,
    )


def deployment_view(session: Session, row: t.Deployment, service: Endpoints) -> shapes.Deployment:
    endpoint = session.get_one(t.Endpoint, row.endpoint)
    grant = world.grants(session, [row.job]).get(row.job)
    return _deployment(row, grant, endpoint, {}, service)


def key_view(row: t.EndpointKey, text: str | None = None) -> shapes.Key:
    return shapes.Key(
        id=row.id,
        endpoint=row.endpoint,
        project=row.project,
        name=row.name,
        rate_per_s=row.rate_per_s or None,
        burst=row.burst or None,
        pin=row.pin,
        created_at=at(row.created_ms),
        created_by=row.created_by,
        expires_at=rfc3339(row.expires_ms),
        revoked_at=rfc3339(row.revoked_ms),
        last_used_at=rfc3339(row.last_used_ms),
        key=text,
    )


def usage_view(row: t.EndpointUsage) -> shapes.UsageRow:
    return shapes.UsageRow(
        hour=at(row.hour_ms),
        version=version_label(row.number) if row.number else "",
        key=row.key,
        status=row.status,
        requests=row.requests,
        rows=row.rows,
        bytes_in=row.bytes_in,
        bytes_out=row.bytes_out,
        busy_s=row.busy_us / 1_000_000,
    )


def access_view(line: dict[str, Any]) -> shapes.AccessLine:  # Any: JSON of the gateway
    return shapes.AccessLine(
        at=at(int(line.get("at_ms", 0))),
        key=str(line.get("key", "")),
        version=str(line.get("v") or ""),
        status=int(line.get("status", 0)),
        code=str(line.get("code") or ""),
        ms=float(line.get("ms", 0.0)),
        bytes_in=int(line.get("bytes_in", 0)),
        bytes_out=int(line.get("bytes_out", 0)),
        rows=int(line.get("rows", 0)),
        route=str(line.get("route", "")),
        request_id=str(line.get("request_id", "")),
    )


def _deployment(
    row: t.Deployment, grant: Grant | None, endpoint: t.Endpoint, shares: dict[int, int], service: Endpoints
) -> shapes.Deployment:
    app = service.application(version_app(row.endpoint, row.number))
    total = sum(shares.values())
    weight = int(endpoint.weights.get(str(row.number), 0))
    return shapes.Deployment(
        version=version_label(row.number),
        number=row.number,
        model=shapes.ServedModel(name=row.model, version=row.model_version, sha256=row.sha256),
        state=row.state,
        state_since=at(row.state_since_ms),
        reason=row.reason,
        traceback=row.trace or None,
        weight=weight,
        share=round(shares.get(row.number, 0) / total, 4) if total else 0.0,
        replicas=shapes.Replicas(
            min=row.replicas_min,
            max=row.replicas_max,
            granted=grant.tasks if grant is not None and grant.holds else 0,
            running=sum(app.replicas.values()) if app is not None else 0,
            wish=row.wish,
        ),
        gpus=row.gpu_milli / 1000,
        cpus=row.cpu_milli / 1000,
        job=row.job,
        signature=row.signature,
        created_at=at(row.created_ms),
        created_by=row.created_by,
    )


def _state(row: t.Endpoint, deployments: list[shapes.Deployment], shares: dict[int, int]) -> str:
    """`ready`: somebody answers. `removing`. Else what its newest version does (`waiting`, `starting`, ...)."""
    if row.removing_ms is not None:
        return "removing"
    if shares or (row.mode == "direct" and any(d.state == DeploymentState.READY for d in deployments)):
        return "ready"
    return deployments[-1].state if deployments else "empty"


def _labels(weights: dict[str, Any]) -> dict[str, int]:  # Any: JSON
    return {version_label(int(number)): int(weight) for number, weight in weights.items()}
