"""POST /api/v1/models/{name}/versions: a model folder as a zip becomes the next version."""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from heliostat.access import Action
from heliostat.api import registry_shapes as shapes
from heliostat.api import registry_views as views
from heliostat.api.answers import PROBLEMS
from heliostat.api.doors import Caller, Doors, TheDoors, need
from heliostat.api.idempotency import Call, InFlight
from heliostat.api.models_routes import actor_of
from heliostat.api.packages_routes import Project, project_of
from heliostat.api.problems import Problem
from heliostat.artifacts import Staged
from heliostat.registry import About, Actor, ModelVersion
from heliostat.registry.archives import unpack
from heliostat.store import audit

router = APIRouter(prefix="/api/v1/models", tags=["models"], responses=PROBLEMS)
DRAINED = 2
"""What is beyond the limit is read and dropped up to this many times the limit: most clients listen only when all is sent."""
BODY: dict[str, Any] = {  # Any: OpenAPI's own structure
    "requestBody": {
        "required": True,
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
    }
}
Pairs = Annotated[list[str] | None, Query(description="NAME=VALUE; may be repeated")]


@router.post(
    "/{name}/versions",
    operation_id="push_model_version",
    status_code=201,
    response_model=shapes.ModelVersion,
    openapi_extra=BODY,
)
async def push(
    name: str,
    request: Request,
    doors: TheDoors,
    caller: Caller,
    project: Project = "",
    alias: Annotated[list[str] | None, Query()] = None,
    tag: Pairs = None,
    metric: Pairs = None,
    variant_of: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
    allow_pickle: bool = False,
) -> Response:
    """Push a model folder (model.json, weights, code/) as a zip. Checked before anything of it is kept.

    `allow_pickle` takes an admin of the project and stands in the audit log.
    """
    need(caller, Action.MODELS)
    if allow_pickle:
        need(caller, Action.TOKENS)
    target = await run_in_threadpool(project_of, doors, caller, project)
    about = About(
        metrics={key: _float(key, value) for key, value in _pairs(metric, "metric").items()},
        tags=_pairs(tag, "tag"),
        aliases=tuple(dict.fromkeys(alias or ())),
        variant_of=variant_of,
    )
    flights: InFlight = request.app.state.in_flight
    with Staged() as staged:
        await _receive(doors, request, staged)
        with flights.call(request, caller, staged.digest.encode(), doors.clock_ms()) as call:
            actor = actor_of(doors, caller, request)
            return await run_in_threadpool(_push, doors, (target, name), staged, about, actor, call, allow_pickle)


def _push(
    doors: Doors,
    place: tuple[str, str],
    staged: Staged,
    about: About,
    actor: Actor,
    call: Call,
    allow_pickle: bool,
) -> Response:
    project, name = place
    replay = doors.store.write(call.replay)
    if replay is not None:
        return replay

    def also(session: Session, row: ModelVersion) -> Response:
        if row.format == "pickle" or allow_pickle:
            audit.append(
                session,
                at_ms=actor.now_ms,
                actor=actor.user,
                project=project,
                action="pickle_allowed",
                object=f"{name}:{row.version}",
                request_id=actor.request_id,
                data={"format": row.format, "sha256": row.sha256},
            )
        body = views.version_view(session, row).model_dump_json()
        call.remember(session, 201, body)
        location = f"/api/v1/models/{name}/versions/{row.version}"
        return Response(body, 201, media_type="application/json", headers={"Location": location})

    with doors.registry.folders.staging() as folder:
        unpack(staged.rewound(), folder, doors.registry.limits)
        _, response = doors.registry.push(project, name, folder, about, actor, allow_pickle=allow_pickle, also=also)
    assert response is not None
    return response


async def _receive(doors: Doors, request: Request, staged: Staged) -> None:
    limit, total = doors.registry.limits.upload_bytes, 0
    async for chunk in request.stream():
        total += len(chunk)
        if total <= limit:
            staged.write(chunk)
        elif total > DRAINED * limit:
            break
    if total > limit:
        text = f"The archive is larger than {limit / 2**20:g} MiB."
        raise Problem(
            413, "artifact_too_large", text, "Push a smaller model, or raise the limit where the server is started."
        )


def _pairs(given: list[str] | None, what: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or not key or key in found:
            raise Problem(
                400, "bad_request", f"{what}: '{text[:200]}' is not NAME=VALUE, or is there twice.", "Correct it."
            )
        found[key] = value
    return found


def _float(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Problem(400, "bad_request", f"metric: {name}={text[:80]} is no finite number.", "Correct it.")
    return value
