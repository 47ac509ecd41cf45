"""Errors at the doors: RFC 9457 problem documents with a stable `code` and a `remedy`, or plain text for Ray's own clients.

Ray's client prints the body of an error as it is, so its door answers in words; and because it takes every 403 for a bad token
and says so, what a rule forbids is a 400 there.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from heliostat_scheduler.core.lifecycle import IllegalMove
from starlette.exceptions import HTTPException

from heliostat.access import Unauthenticated
from heliostat.artifacts import ArtifactDamaged, ArtifactMissing, ArtifactsFull, ArtifactsUnavailable, BadFolder
from heliostat.control.port import ControlError
from heliostat.endpoints.errors import EndpointError
from heliostat.packages import BadPackage
from heliostat.queuefile import BadQueueFile
from heliostat.registry import RegistryError
from heliostat.store import StaleJob, StoreError, StoreUnavailable, UnknownJob
from heliostat.submission import Refused

log = logging.getLogger("heliostat.api")

KINDS = "urn:heliostat:error:"
V1 = "/api/v1"
MEDIA = "application/problem+json"


class Problem(Exception):
    """An answer that is not the one asked for."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        remedy: str = "",
        *,
        errors: list[dict[str, Any]] | None = None,  # Any: JSON
        headers: dict[str, str] | None = None,
        facts: dict[str, Any] | None = None,  # Any: JSON
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.remedy = remedy
        self.errors = errors or []
        self.headers = headers or {}
        self.facts = facts or {}

    def document(self, request_id: str) -> dict[str, Any]:  # Any: JSON
        return {
            **self.facts,
            "type": f"{KINDS}{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": str(self),
            "code": self.code,
            "remedy": self.remedy,
            "request_id": request_id,
            "errors": self.errors,
        }

    def text(self) -> str:
        """For a terminal. Ray's client puts a full stop behind it."""
        more = [
            f"  {error.get('pointer', '')}: {error['detail']}" for error in self.errors if error["detail"] != str(self)
        ]
        return "\n".join([str(self), *more, *([f"What to do: {self.remedy}"] if self.remedy else [])]).rstrip(".")


def not_found(what: str, remedy: str = "", code: str = "not_found") -> Problem:
    return Problem(
        404, code, f"There is no {what}.", remedy or "Check the name; what belongs to another project is not shown."
    )


def problem_of(error: Exception) -> Problem:
    """The problem that an exception of ours means; anything else is a fault of the server and says nothing about it."""
    match error:
        case Problem():
            return error
        case Refused():
            errors = [{"pointer": error.field, "detail": str(error)}] if error.field else []
            return Problem(error.status, error.code, str(error), error.remedy, errors=errors, facts=error.facts)
        case Unauthenticated():
            return Problem(401, error.code, str(error), error.remedy, headers={"WWW-Authenticate": "Bearer"})
        case BadPackage():
            return Problem(413 if error.code == "package_too_large" else 400, error.code, str(error), error.remedy)
        case BadQueueFile():
            errors = [{"pointer": f"line {p.line}", "detail": p.text} for p in error.problems]
            text = f"The queue file has {len(errors)} problem{'s' if len(errors) > 1 else ''}."
            return Problem(
                422, "queue_file_invalid", text, "Correct the lines; docs/queues.md has the format.", errors=errors
            )
        case RegistryError():
            return Problem(error.status, error.code, str(error), error.remedy)
        case EndpointError():
            errors = [{"pointer": error.field, "detail": str(error)}] if error.field else []
            return Problem(error.status, error.code, str(error), error.remedy, errors=errors, facts=error.facts)
        case BadFolder():
            return Problem(400, error.code, str(error), error.remedy)
        case ArtifactsFull():
            return Problem(507, "artifact_store_full", str(error), error.remedy)
        case StoreUnavailable() | ArtifactsUnavailable():
            return Problem(503, "store_unavailable", str(error), error.remedy, headers={"Retry-After": "2"})
        case ControlError():
            return _control(error)
        case _:
            return _other(error)


def _control(error: ControlError) -> Problem:
    unknown = {"unknown_job": 404, "unknown_queue": 404, "unknown_node": 404}
    status = {**unknown, "bad_question": 400, "wrong_state": 409, "busy": 503}.get(error.code, 409)
    return Problem(status, error.code, str(error), error.remedy, headers={"Retry-After": "1"} if status == 503 else {})


def _other(error: Exception) -> Problem:
    match error:
        case UnknownJob():
            return Problem(404, "unknown_job", str(error), "helio ps shows the jobs of your project.")
        case StaleJob() | IllegalMove():
            return Problem(409, "wrong_state", str(error), "Look at the job as it is now: helio explain JOB")
        case StoreError():
            return Problem(500, "store_error", str(error), error.remedy)
        case ArtifactDamaged():
            remedy = "Nothing of it was loaded. Push the same folder again: it takes the damaged one's place."
            return Problem(500, "artifact_damaged", str(error), remedy)
        case ArtifactMissing():
            return Problem(404, "artifact_missing", str(error), "Upload it again.")
        case HTTPException():
            return _http(error)
        case _:
            return Problem(
                500,
                "internal_error",
                "The server failed. What failed is in its log under the request id.",
                "helio doctor",
            )


def _http(error: HTTPException) -> Problem:
    if isinstance(error.__cause__, Problem):  # raised while FastAPI read the body
        return error.__cause__
    codes = {404: "not_found", 405: "method_not_allowed"}
    remedy = {404: "The API is described at /api/v1/openapi.json.", 405: "See the Allow header."}
    return Problem(
        error.status_code,
        codes.get(error.status_code, "http_error"),
        str(error.detail),
        remedy.get(error.status_code, ""),
        headers=dict(error.headers or {}),
    )


def _validation(error: RequestValidationError) -> Problem:
    errors = [{"pointer": _pointer(entry["loc"]), "detail": str(entry["msg"])} for entry in error.errors()]
    text = "The request is not valid: " + "; ".join(f"{e['pointer']}: {e['detail']}" for e in errors[:5])
    return Problem(400, "invalid_request", text, "Correct the fields named in errors.", errors=errors)


def _pointer(place: tuple[int | str, ...] | list[int | str]) -> str:
    """`["body", "gpus"]` -> `gpus`."""
    return "/".join(str(part) for part in place[1:]) or str(place[0] if place else "")


def render(request: Request, problem: Problem) -> Response:
    request_id = str(getattr(request.state, "request_id", ""))
    path = request.url.path
    if path.startswith("/api/") and not path.startswith(V1):
        status = 400 if problem.status == 403 else problem.status
        return PlainTextResponse(problem.text(), status, headers=problem.headers)
    return JSONResponse(problem.document(request_id), problem.status, headers=problem.headers, media_type=MEDIA)


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""

    async def handle(request: Request, error: Exception) -> Response:
        problem = _validation(error) if isinstance(error, RequestValidationError) else problem_of(error)
        if problem.status >= 500:
            fault = (
                error if problem.code == "internal_error" else None
            )  # of a known trouble the traceback tells nothing
            request_id = getattr(request.state, "request_id", "")
            log.error("request_failed %s %s %s: %s", problem.status, problem.code, request_id, problem, exc_info=fault)
        return render(request, problem)

    known: tuple[type[Exception], ...] = (
        Problem,
        Refused,
        Unauthenticated,
        BadPackage,
        BadQueueFile,
        RegistryError,
        EndpointError,
        BadFolder,
        StoreError,
        ArtifactsUnavailable,
        ArtifactMissing,
        ControlError,
        IllegalMove,
        HTTPException,
        RequestValidationError,
        Exception,
    )
    for kind in known:
        app.add_exception_handler(kind, handle)
