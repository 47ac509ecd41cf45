"""/api/v1/packages: archives that jobs run in, per project."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from heliostat.access import Action, Principal, project_exists
from heliostat.api import models
from heliostat.api.answers import PROBLEMS, answer
from heliostat.api.doors import Caller, Doors, TheDoors, need
from heliostat.api.problems import not_found
from heliostat.artifacts import Staged
from heliostat.submission.deciding import unknown_project

router = APIRouter(prefix="/api/v1/packages", tags=["packages"], responses=PROBLEMS)
Project = Annotated[str, Query(description="Default: the token's own project.")]


@router.get("/{name}", operation_id="has_package", status_code=204)
@router.head("/{name}", operation_id="has_package_head", status_code=204, include_in_schema=False)
def has_package(name: str, doors: TheDoors, caller: Caller, project: Project = "") -> Response:
    """204 when the project has this package, 404 when it has to be uploaded."""
    if not doors.packages.exists(project_of(doors, caller, project), name):
        raise not_found(f"package {name}", "Upload it with PUT.", "unknown_package")
    return Response(status_code=204)


@router.put(
    "/{name}",
    operation_id="put_package",
    response_model=models.Package,
    openapi_extra={"requestBody": {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def put_package(name: str, request: Request, doors: TheDoors, caller: Caller, project: Project = "") -> Response:
    """Upload a zip archive. Checked before anything of it is kept."""
    row = await receive(doors, request, caller, name, project)
    return answer(row)


async def receive(doors: Doors, request: Request, caller: Principal, name: str, project: str) -> models.Package:
    need(caller, Action.SUBMIT)
    target = await run_in_threadpool(project_of, doors, caller, project)
    with Staged() as staged:
        await doors.packages.receive(request.stream(), staged)
        row = await run_in_threadpool(doors.packages.keep, target, name, staged, by=caller.user)
    return models.Package(
        name=row.name, uri=f"gcs://{row.name}", project=row.project, size=row.size, entries=row.entries
    )


def project_of(doors: Doors, caller: Principal, asked: str) -> str:
    """The project that a package belongs to: the one asked for, if the caller may see it, else the caller's own."""
    project = asked or caller.home
    if not caller.sees(project):
        raise unknown_project(project)
    if asked:
        with doors.store.read() as session:
            if not project_exists(session, project):
                raise unknown_project(project)
    return project
