"""What can go wrong between a client and the control plane, one class per kind of answer.

Two families, and the class says whose move it is: `RequestError` (you asked for something that cannot be, 4xx) and
`ServiceError` (we or the cluster failed, 5xx and the network). Each carries a stable `code` for programs, a `remedy` for
people and the exit code that `helio` ends with. `from_problem` picks the class by `code` first and by HTTP status second, so
that a code which a newer server invents still lands in the right family.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, cast


class ExitCode(IntEnum):
    """What `helio` ends with. Documented in docs/cli.md; never renumbered."""

    OK = 0
    JOB_FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    AUTH = 4
    CONFLICT = 5
    TIMEOUT = 6
    NEVER_FITS = 7
    SERVICE = 8


class HeliostatError(Exception):
    """An answer that is not the one you asked for.

    code: stable word for programs. remedy: what to do now. status: HTTP status, 0 when there was no answer.
    problem: the server's whole problem document. request_id: to look the request up in the server's log.
    """

    exit_code = ExitCode.SERVICE
    default_code = "error"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        remedy: str = "",
        status: int = 0,
        request_id: str = "",
        problem: Mapping[str, Any] | None = None,  # Any: the server's JSON
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.remedy = remedy
        self.status = status
        self.request_id = request_id
        self.problem = dict(problem or {})

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.code, self.remedy, self.status, self.request_id, self.problem)

    def as_json(self) -> dict[str, object]:
        """The error as `helio --json` prints it: the server's document, or one of the same form."""
        own = {
            "title": type(self).__name__,
            "status": self.status,
            "detail": self.message,
            "code": self.code,
            "remedy": self.remedy,
        }
        return {**own, **self.problem}


class RequestError(HeliostatError):
    """You asked for something that cannot be done as it stands."""

    exit_code = ExitCode.USAGE
    default_code = "bad_request"


class BadRequest(RequestError):
    """A value is wrong, unknown or missing."""


class NotFound(RequestError):
    """There is no such thing, or not for your token."""

    exit_code = ExitCode.NOT_FOUND
    default_code = "not_found"


class Unauthenticated(RequestError):
    """The token is missing, wrong, expired or revoked."""

    exit_code = ExitCode.AUTH
    default_code = "unauthenticated"


class Forbidden(RequestError):
    """The token is good, but a rule says no."""

    exit_code = ExitCode.AUTH
    default_code = "forbidden"


class Conflict(RequestError):
    """Somebody was faster, or the thing's state does not allow it."""

    exit_code = ExitCode.CONFLICT
    default_code = "conflict"


class NeverFits(RequestError):
    """More than the queue or the cluster can ever give."""

    exit_code = ExitCode.NEVER_FITS
    default_code = "never_fits"


class WaitTimeout(HeliostatError):
    """The time you gave for waiting is over. The job goes on."""

    exit_code = ExitCode.TIMEOUT
    default_code = "wait_timeout"


class JobFailed(HeliostatError):
    """The job ended, but not well."""

    exit_code = ExitCode.JOB_FAILED
    default_code = "job_failed"


class ServiceError(HeliostatError):
    """We or the cluster failed; the request was fine."""

    default_code = "service_error"


class ConnectionFailed(ServiceError):
    """No answer came from the address."""

    default_code = "connection_failed"


class IncompatibleServer(ServiceError):
    """Client and server do not speak the same version of the API."""

    default_code = "incompatible_server"


NEVER_FITS_CODES = frozenset({"neverfits", "flavormismatch", "limitreached", "quotaexceeded", "toolarge"})


def from_problem(status: int, problem: Mapping[str, Any]) -> HeliostatError:  # Any: the server's JSON
    """The exception for a problem document (RFC 9457)."""
    code = str(problem.get("code", ""))
    detail = str(problem.get("detail") or problem.get("title") or f"The server answered {status}.")
    return _class_for(status, code)(
        detail + _pointers(problem.get("errors"), detail),
        code=code,
        remedy=str(problem.get("remedy") or ""),
        status=status,
        request_id=str(problem.get("request_id") or ""),
        problem=problem,
    )


def _class_for(status: int, code: str) -> type[HeliostatError]:
    if status >= 500:
        return ServiceError
    if code.replace("_", "").replace("-", "").lower() in NEVER_FITS_CODES:
        return NeverFits
    by_status: dict[int, type[HeliostatError]] = {
        401: Unauthenticated,
        403: Forbidden,
        404: NotFound,
        409: Conflict,
        412: Conflict,
        428: Conflict,
    }
    return by_status.get(status, BadRequest)


def _pointers(errors: object, told: str) -> str:
    """` (line 3: unknown key quotaa; ...)` for the fields that a problem document names beyond what its detail already tells."""
    if not isinstance(errors, list):
        return ""
    entries = [cast("dict[str, Any]", entry) for entry in errors if isinstance(entry, dict)]  # Any: the server's JSON
    more = [
        f"{entry.get('pointer', '?')}: {entry['detail']}" for entry in entries if entry.get("detail", told) not in told
    ]
    return f" ({'; '.join(more)})" if more else ""


def _rebuild(
    kind: type[HeliostatError],
    message: str,
    code: str,
    remedy: str,
    status: int,
    request_id: str,
    problem: dict[str, object],
) -> HeliostatError:
    return kind(message, code=code, remedy=remedy, status=status, request_id=request_id, problem=problem)
