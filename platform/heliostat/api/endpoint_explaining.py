"""Why an endpoint has the replicas that it has: each version's serving job explained, and what its queues want beyond what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from heliostat.api import endpoint_shapes as shapes
from heliostat.endpoints.states import DeploymentState

LIVING = frozenset({DeploymentState.WAITING, DeploymentState.STARTING, DeploymentState.CHECKING, DeploymentState.READY})
Json = dict[str, Any]  # Any: JSON


def of_endpoint(
    endpoint: shapes.Endpoint, explained: Sequence[tuple[shapes.Deployment, Json, str]], usage: Sequence[Json]
) -> Json:
    """explained: version, explanation of its serving job, queue. usage: of all queues."""
    versions = [_version(row, told) for row, told, _ in explained]
    queues = {queue for _, _, queue in explained}
    return {
        "endpoint": endpoint.name,
        "state": endpoint.state,
        "sentence": endpoint.trouble or _whole(versions),
        "queues": [row for row in usage if row["name"] in queues],
        "versions": versions,
    }


def _version(row: shapes.Deployment, told: Json) -> Json:
    replicas = row.replicas
    short = max(0, replicas.wish - replicas.granted) if row.state in LIVING else 0
    return {
        "version": row.version,
        "state": row.state,
        "sentence": _sentence(row, told, short),
        "short": short,
        "replicas": replicas.model_dump(),
        "explanation": told,
    }


def _sentence(row: shapes.Deployment, told: Json, short: int) -> str:
    replicas = row.replicas
    if row.state == DeploymentState.WAITING:
        return f"its serving job {told['sentence']}" if told["sentence"] else row.reason
    if row.state not in LIVING:
        return row.reason or "nothing more is wanted"
    growth = told.get("growth")
    if short and growth is not None:
        return f"has {replicas.granted} of the {replicas.wish} replicas that it wants; one more {growth['sentence']}"
    if short:
        return f"has {replicas.granted} of the {replicas.wish} replicas that it wants; the scheduler has not looked yet"
    if replicas.running < replicas.granted and replicas.min == replicas.max:
        return f"is granted {replicas.granted} replicas, {replicas.running} run: {row.reason}"
    return f"has the {replicas.wish} {'replica' if replicas.wish == 1 else 'replicas'} that it wants"


def _whole(versions: Sequence[Json]) -> str:
    if not versions:
        return "it has no version"
    short = sum(row["short"] for row in versions)
    if not short:
        return "its versions have the replicas that they want"
    return f"{short} {'replica' if short == 1 else 'replicas'} short of what its versions want"
