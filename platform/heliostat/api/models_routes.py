"""/api/v1/models: versions, aliases, artifacts, lineage."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from heliostat.access import Action, Principal
from heliostat.api import registry_shapes as shapes
from heliostat.api import registry_views as views
from heliostat.api.answers import PROBLEMS, answer
from heliostat.api.doors import Caller, Doors, TheDoors, need, request_id
from heliostat.api.packages_routes import Project, project_of
from heliostat.api.problems import Problem
from heliostat.registry import Actor, ModelAlias, ModelVersion, Reference, resolve, versions, which_version
from heliostat.registry.archives import packed

router = APIRouter(prefix="/api/v1/models", tags=["models"], responses=PROBLEMS)
MAX_PAGE = 500
MAX_DIGITS = 10
"""Of a version in a cursor; more fits into no database."""
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
ZIP: dict[int | str, dict[str, Any]] = {  # Any: OpenAPI's own structure
    200: {"description": "A stored zip", "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}},
    304: {"description": "If-None-Match names this content"},
}  # fmt: skip


def actor_of(doors: Doors, caller: Principal, request: Request) -> Actor:
    return Actor(caller.user, doors.clock_ms(), request_id(request))


@router.get("", operation_id="list_models", response_model=shapes.ModelPage)
def list_models(
    doors: TheDoors, caller: Caller, project: Project = "", limit: Limit = 50, cursor: str | None = None
) -> Response:
    """Models by name, each with its newest version and its aliases."""
    scope = (project_of(doors, caller, project),) if project else caller.scope()
    after = _decoded(cursor)
    with doors.store.read() as session:
        rows = versions.models_after(session, scope, (after[0], after[1]), limit + 1)
        items = views.model_views(session, rows[:limit])
    last = rows[limit - 1] if len(rows) > limit else None
    following = None if last is None else _encoded([last.name, last.project])
    return answer(shapes.ModelPage(items=items, next_cursor=following))


@router.get("/{name}", operation_id="get_model", response_model=shapes.ModelSummary)
def get_model(name: str, doors: TheDoors, caller: Caller, project: Project = "") -> Response:
    target = project_of(doors, caller, project)
    with doors.store.read() as session:
        found = versions.find_model(session, target, name)
        (view,) = views.model_views(session, [found])
    return answer(view)


@router.delete("/{name}", operation_id="delete_model", status_code=204)
def delete_model(name: str, request: Request, doors: TheDoors, caller: Caller, project: Project = "") -> Response:
    """Delete all versions and aliases of a model, unless one of them is in use."""
    need(caller, Action.MODELS)
    doors.registry.delete_model(project_of(doors, caller, project), name, actor_of(doors, caller, request))
    return Response(status_code=204)


@router.get("/{name}/versions", operation_id="list_model_versions", response_model=shapes.ModelVersionPage)
def list_versions(
    name: str, doors: TheDoors, caller: Caller, project: Project = "", limit: Limit = 50, cursor: str | None = None
) -> Response:
    """Newest first."""
    target = project_of(doors, caller, project)
    before = _decoded(cursor)[0] if cursor else ""
    with doors.store.read() as session:
        versions.find_model(session, target, name)
        rows = versions.page(session, target, name, _number(before) if cursor else None, limit + 1)
        items = views.version_views(session, rows[:limit])
    following = _encoded([str(rows[limit - 1].version), ""]) if len(rows) > limit else None
    return answer(shapes.ModelVersionPage(items=items, next_cursor=following))


@router.get("/{name}/versions/{which}", operation_id="get_model_version", response_model=shapes.ModelVersion)
def get_version(name: str, which: str, doors: TheDoors, caller: Caller, project: Project = "") -> Response:
    """A version by its number, by an alias, or `latest`."""
    target = project_of(doors, caller, project)
    with doors.store.read() as session:
        row = resolve(session, target, which_version(name, which))
        view = views.version_view(session, row)
    return answer(view)


@router.delete("/{name}/versions/{which}", operation_id="delete_model_version", status_code=204)
def delete_version(
    name: str, which: str, request: Request, doors: TheDoors, caller: Caller, project: Project = ""
) -> Response:
    """Delete a version, unless an alias points at it or an endpoint uses it."""
    need(caller, Action.MODELS)
    target = project_of(doors, caller, project)
    doors.registry.delete(target, which_version(name, which), actor_of(doors, caller, request))
    return Response(status_code=204)


@router.get(
    "/{name}/versions/{which}/archive", operation_id="pull_model_version", response_class=Response, responses=ZIP
)
def pull(
    name: str,
    which: str,
    doors: TheDoors,
    caller: Caller,
    project: Project = "",
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The artifact as a zip with its manifest.json. Every file is compared with its digest before anything is sent."""
    row = _resolved(doors, caller, project, name, which)
    tag = f'"{row.sha256}"'
    headers = {"ETag": tag, "X-Model-Version": str(row.version)}
    if if_none_match is not None and tag in {given.strip() for given in if_none_match.split(",")}:
        return Response(status_code=304, headers=headers)
    doors.registry.folders.verify(row.sha256)
    headers["Content-Disposition"] = f'attachment; filename="{row.model}-v{row.version}.zip"'
    return StreamingResponse(packed(doors.registry.folders, row.sha256), media_type="application/zip", headers=headers)


@router.get("/{name}/versions/{which}/lineage", operation_id="get_model_lineage", response_model=shapes.Lineage)
def lineage(name: str, which: str, doors: TheDoors, caller: Caller, project: Project = "") -> Response:
    """The job, code, data and parameters that a version was made from, and its variants."""
    row = _resolved(doors, caller, project, name, which)
    with doors.store.read() as session:
        view = views.lineage_view(session, row)
    return answer(view)


@router.put("/{name}/aliases/{alias}", operation_id="move_model_alias", response_model=shapes.Alias)
def move_alias(
    name: str,
    alias: str,
    target: shapes.AliasTarget,
    request: Request,
    doors: TheDoors,
    caller: Caller,
    project: Project = "",
    if_match: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Point an alias at a version, at once for everybody. If-Match: only if nobody moved it; If-None-Match: * only if it is new."""
    need(caller, Action.MODELS)

    def check(found: ModelAlias | None) -> None:
        if if_none_match is not None and found is not None:
            raise _moved(f"The alias @{alias} exists already; it points at version {found.version}.")
        if if_match is not None and not _matches(if_match, found):
            raise _moved(f"Somebody moved the alias @{alias} meanwhile.")

    place = project_of(doors, caller, project)
    reference = Reference(name, version=target.version)
    row = doors.registry.move_alias(place, name, alias, reference, actor_of(doors, caller, request), check)
    return answer(views.alias_view(row), headers={"ETag": _tag(row)})


@router.get("/{name}/aliases/{alias}", operation_id="get_model_alias", response_model=shapes.Alias)
def get_alias(name: str, alias: str, doors: TheDoors, caller: Caller, project: Project = "") -> Response:
    """Where an alias points, with its ETag."""
    place = project_of(doors, caller, project)
    with doors.store.read() as session:
        resolve(session, place, which_version(name, f"@{alias}"))
        row = versions.find_alias(session, place, name, alias)
    if row is None:
        raise Problem(404, "unknown_version", f"@{alias} is no alias that was set.", f"helio model show {name}")
    return answer(views.alias_view(row), headers={"ETag": _tag(row)})


@router.delete("/{name}/aliases/{alias}", operation_id="delete_model_alias", status_code=204)
def delete_alias(
    name: str,
    alias: str,
    request: Request,
    doors: TheDoors,
    caller: Caller,
    project: Project = "",
    if_match: Annotated[str | None, Header()] = None,
) -> Response:
    need(caller, Action.MODELS)

    def check(found: ModelAlias | None) -> None:
        if if_match is not None and not _matches(if_match, found):
            raise _moved(f"Somebody moved the alias @{alias} meanwhile.")

    doors.registry.drop_alias(project_of(doors, caller, project), name, alias, actor_of(doors, caller, request), check)
    return Response(status_code=204)


def _resolved(doors: Doors, caller: Principal, project: str, name: str, which: str) -> ModelVersion:
    target = project_of(doors, caller, project)
    with doors.store.read() as session:
        return resolve(session, target, which_version(name, which))


def _moved(text: str) -> Problem:
    return Problem(412, "alias_moved", text, "Look where it points now, and repeat your change.")


def _tag(row: ModelAlias) -> str:
    return f'"{row.version}-{row.revision}"'


def _matches(if_match: str, found: ModelAlias | None) -> bool:
    tags = {tag.strip() for tag in if_match.split(",")}
    return found is not None and ("*" in tags or _tag(found) in tags)


def _encoded(parts: list[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def _decoded(cursor: str | None) -> list[str]:
    if not cursor:
        return ["", ""]
    try:
        parts = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if isinstance(parts, list) and len(parts) == 2 and all(isinstance(part, str) for part in parts):
            return parts
    except (ValueError, binascii.Error, RecursionError):
        pass  # falls to the answer below
    raise _bad_cursor()


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > MAX_DIGITS:
        raise _bad_cursor()
    return int(text)


def _bad_cursor() -> Problem:
    return Problem(400, "invalid_cursor", "The cursor is not one of this list.", "Begin again without cursor.")
