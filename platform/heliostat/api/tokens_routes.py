"""/api/v1/tokens and /whoami."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from heliostat.access import ALL_PROJECTS, Action, Principal, Role
from heliostat.api import models, views
from heliostat.api.answers import PROBLEMS, answer
from heliostat.api.doors import Caller, Doors, TheDoors, need, request_id
from heliostat.api.problems import Problem, not_found
from heliostat.submission.deciding import unknown_project

router = APIRouter(prefix="/api/v1", tags=["access"], responses=PROBLEMS)


@router.get("/whoami", operation_id="whoami", response_model=models.WhoAmI)
def whoami(doors: TheDoors, caller: Caller) -> Response:
    """Who the token is, and which queues it may submit to."""
    file = doors.queue_file()
    queues = file.leaves() if caller.may(Action.PLATFORM) else file.open_to(caller.project, caller.user, caller.role)
    return answer(
        models.WhoAmI(
            user=caller.user,
            project=caller.project,
            role=caller.role,
            token_id=caller.token_id,
            expires_at=views.rfc3339(caller.expires_ms),
            queues=list(queues) if caller.may(Action.SUBMIT) else [],
        )
    )


@router.post("/tokens", operation_id="create_token", status_code=201, response_model=models.Token)
def create(body: models.TokenRequest, request: Request, doors: TheDoors, caller: Caller) -> Response:
    """Make a token. Its text is in this answer and nowhere else; repetitions make another one (no Idempotency-Key here)."""
    need(caller, Action.TOKENS)
    role = _role(body.role)
    project = body.project or caller.home
    if not caller.sees(project) or (project == ALL_PROJECTS and not caller.everywhere):
        raise unknown_project(project)
    expires = None if body.expires_s is None else doors.clock_ms() + round(body.expires_s * 1000)
    try:
        text, row = doors.tokens.create(
            role=role,
            project=project,
            user=body.user or body.name or caller.user,
            name=body.name,
            expires_ms=expires,
            by=caller.user,
            request_id=request_id(request),
        )
    except ValueError as error:
        raise Problem(400, "bad_request", str(error), "Change project.") from error
    return answer(views.token_view(row, text), 201)


@router.get("/tokens", operation_id="list_tokens", response_model=models.TokenList)
def list_tokens(doors: TheDoors, caller: Caller) -> Response:
    """The tokens of your project (administrators of the platform: all), without their texts."""
    need(caller, Action.TOKENS)
    rows = doors.tokens.listed(caller.scope())
    return answer(models.TokenList(items=[views.token_view(row) for row in rows]))


@router.delete("/tokens/{token_id}", operation_id="revoke_token", status_code=204)
def revoke(token_id: str, request: Request, doors: TheDoors, caller: Caller) -> Response:
    """Refuse a token from now on. Everybody may revoke their own."""
    row = doors.tokens.find(token_id)
    if row is None or not _may_revoke(doors, caller, row.project, token_id):
        raise not_found(f"token {token_id}", "helio token ls shows those of your project.", "unknown_token")
    doors.tokens.revoke(token_id, by=caller.user, request_id=request_id(request))
    return Response(status_code=204)


def _may_revoke(doors: Doors, caller: Principal, project: str, token_id: str) -> bool:
    return caller.token_id == token_id or (caller.sees(project) and caller.may(Action.TOKENS))


def _role(name: str) -> Role:
    try:
        return Role(name)
    except ValueError as error:
        raise Problem(400, "bad_request", f"There is no role '{name}'.", f"Roles: {', '.join(Role)}.") from error
