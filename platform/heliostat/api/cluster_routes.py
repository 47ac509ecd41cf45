"""/api/v1/cluster, /version, /doctor, and the unauthenticated health checks at the root."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlalchemy import select

from heliostat.access import Action
from heliostat.api import models, views
from heliostat.api.answers import PROBLEMS, answer
from heliostat.api.counting import exposition
from heliostat.api.doors import Caller, TheDoors, need
from heliostat.api.masking import foreign_jobs, masked
from heliostat.api.problems import Problem
from heliostat.store import StoreUnavailable, audit
from heliostat.store.tables import Audit

router = APIRouter(prefix="/api/v1", tags=["cluster"], responses=PROBLEMS)
health = APIRouter(tags=["health"], responses=PROBLEMS)
API = 1


def distribution_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


SERVER_VERSION = distribution_version("heliostat")
RAY_VERSION = distribution_version("ray")


@router.get("/cluster", operation_id="get_cluster")
def cluster(doors: TheDoors, caller: Caller) -> dict[str, Any]:  # Any: JSON
    """Nodes with their slots, Ray, the bridge and the control plane."""
    told = doors.control.cluster()
    holders = [slot.get("job") for node in told.get("nodes") or () for slot in node.get("slots") or ()]
    with doors.store.read() as session:
        hidden = foreign_jobs(session, [str(job) for job in holders if job], caller)
    return masked(told, hidden)


@router.get("/doctor", operation_id="doctor")
def doctor(doors: TheDoors, caller: Caller) -> dict[str, Any]:  # Any: JSON
    """What the control plane finds wrong with itself."""
    need(caller, Action.PLATFORM)
    return {"items": doors.control.doctor()}


@router.get("/audit", operation_id="list_audit", response_model=models.AuditPage)
def audit_log(
    doors: TheDoors,
    caller: Caller,
    after: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    verify: bool = False,
) -> Response:
    """Who changed what, oldest first, and the head of the hash chain: keep it elsewhere, a local chain alone proves nothing.

    verify: walk the whole chain and name the first entry that does not follow.
    """
    need(caller, Action.PLATFORM)
    with doors.store.read() as session:
        rows = session.execute(select(Audit).where(Audit.seq > after).order_by(Audit.seq).limit(limit)).scalars().all()
        head, broken = audit.head(session), audit.first_broken(session) if verify else None
    return answer(models.AuditPage(items=[views.audit_view(row) for row in rows], head=head, first_broken=broken))


@router.get("/version", operation_id="get_version", response_model=models.Version)
def version(_caller: Caller) -> Response:
    return answer(models.Version(server=SERVER_VERSION, api=API, ray=RAY_VERSION))


@health.get("/healthz", operation_id="healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@health.get("/readyz", operation_id="readyz")
def readyz(doors: TheDoors) -> dict[str, str]:
    """Jobs can be stored and started: the store writes and the bridge is up."""
    try:
        doors.store.check()
    except StoreUnavailable as error:
        raise Problem(503, "store_unavailable", str(error), error.remedy) from error
    if not (doors.control.cluster().get("bridge") or {}).get("up"):
        raise Problem(503, "bridge_down", "The bridge to Ray is not up.", "helio doctor says why.")
    return {"status": "ready"}


@health.get("/metrics", operation_id="prometheus", response_class=Response)
def metrics(doors: TheDoors, caller: Caller) -> Response:
    """Prometheus' text format, for tokens of the whole platform."""
    if not caller.everywhere:
        raise Problem(403, "forbidden", "These figures are about all projects.", "Use a token of project '*'.")
    return Response(exposition(doors), media_type="text/plain; version=0.0.4")
