"""Calls of `/api/v1`: headers, retries, problem documents, version handshake. One `Caller` per control plane.

Retries are bounded and only where a repetition is harmless. Every POST and PATCH carries an Idempotency-Key that stays the same
over its retries, so a submission whose answer was lost is answered from the server's memory, not done twice; that makes
every call of ours repeatable. Repeated are: no connection, a connection that broke, 429, 502, 503 and 504. A body that was
refused, a server that is somebody else's and an API of another version are not.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from heliostat.wire.errors import ConnectionFailed, HeliostatError, IncompatibleServer, ServiceError, from_problem
from heliostat.wire.transport import Request, Response, Stream, Transport, TransportError

_Answer = TypeVar("_Answer", Response, Stream)
API = 1
API_HEADER = "heliostat-api-version"
PREFIX = "/api/v1"
REPEATABLE_STATUS = frozenset({429, 502, 503, 504})
MAX_RETRY_AFTER_S = 10.0
UPLOAD_TIMEOUT_S = 600.0
"""A model of gigabytes is checked before the answer."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How long to keep trying: the pause doubles from first_pause_s to longest_pause_s, and the last try begins before give_up_s."""

    give_up_s: float = 3.0
    first_pause_s: float = 0.2
    longest_pause_s: float = 2.0


PATIENT = Retry(give_up_s=90.0)
"""For waiting and for following a log: a control plane that restarts must not end them."""
ONCE = Retry(give_up_s=0.0)


class Caller:
    """Speaks JSON with one control plane over a `Transport`. `clock` and `sleep` are arguments so that tests never wait."""

    def __init__(
        self,
        transport: Transport,
        *,
        token: str,
        url: str,
        user_agent: str,
        timeout_s: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.transport = transport
        self.url = url
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._clock = clock
        self._headers = {"Accept": "application/json", "User-Agent": user_agent, API_HEADER: str(API)}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def json(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        retry: Retry = Retry(),
        timeout_s: float | None = None,
    ) -> Any:  # Any: JSON
        """The decoded answer of a call, None when it has no body."""
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        sent = dict(headers or {})
        if data:
            sent["Content-Type"] = "application/json"
        answer = self.send(method, path, data, query=query, headers=sent, retry=retry, timeout_s=timeout_s)
        if not answer.body:
            return None
        return _decoded(answer.body, self.url)

    def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        retry: Retry = Retry(),
        source: Path | None = None,
        timeout_s: float | None = None,
    ) -> Response:
        """A call with a raw body (or a file as the body). Returns 2xx (and 304); raises a `HeliostatError` for everything else."""
        sent = {**self._headers, **(headers or {})}
        if method in ("POST", "PATCH"):
            sent.setdefault("Idempotency-Key", secrets.token_hex(16))
        patience_s = timeout_s or (self._timeout_s if source is None else UPLOAD_TIMEOUT_S)
        request = Request(method, PREFIX + path + _query(query), sent, body, patience_s, source)
        answer = self._with_retries(lambda: self.transport.send(request), retry)
        self._check_version(answer.headers)
        if answer.status >= 300 and answer.status != 304:
            raise self._error(answer.status, answer.headers, answer.body)
        return answer

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        last_event_id: str = "",
        accept: str = "text/event-stream",
        retry: Retry = Retry(),
    ) -> Iterator[Stream]:
        """A streamed answer. The read timeout is long: an idle stream carries a heartbeat every 15 s."""
        headers = {**self._headers, "Accept": accept}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        request = Request("GET", PREFIX + path + _query(query), headers, b"", 60.0)
        with self._with_retries(lambda: self.transport.stream(request), retry) as answer:
            self._check_version(answer.headers)
            if answer.status >= 300:
                raise self._error(answer.status, answer.headers, answer.read())
            yield answer

    def pause(self, seconds: float) -> None:
        self._sleep(seconds)

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock()

    def _with_retries(self, attempt: Callable[[], _Answer], retry: Retry) -> _Answer:
        started, pause_s = self._clock(), retry.first_pause_s
        while True:
            failure: TransportError | None = None
            wait_s = pause_s
            try:
                answer = attempt()
                if answer.status not in REPEATABLE_STATUS:
                    return answer
                wait_s = max(pause_s, _retry_after(answer.headers))
            except TransportError as error:
                failure = error
            if self._clock() - started + wait_s > retry.give_up_s:
                if failure is None:
                    return answer
                raise self._no_answer(failure) from failure
            self._sleep(wait_s)
            pause_s = min(pause_s * 2, retry.longest_pause_s)

    def _no_answer(self, error: TransportError) -> ConnectionFailed:
        if error.refused:
            return ConnectionFailed(
                f"No control plane answers at {self.url}.",
                code="connection_refused",
                remedy="Start one with: helio up   (or name another with --url, HELIOSTAT_URL or helio login URL)",
            )
        return ConnectionFailed(
            f"No answer from {self.url}: {error}.",
            remedy="Is it running? helio doctor says what is wrong on this machine.",
        )

    def _error(self, status: int, headers: Mapping[str, str], body: bytes) -> HeliostatError:
        kind = headers.get("content-type", "")
        if "json" in kind and body:
            problem = _decoded(body, self.url)
            if isinstance(problem, dict):
                return from_problem(status, problem)
        if status < 500 and API_HEADER not in headers:
            return ServiceError(
                f"{self.url} answers, but it is no Heliostat control plane (HTTP {status}, {kind or 'no content type'}).",
                code="not_heliostat",
                remedy="Check the address: helio --url URL version",
                status=status,
            )
        return from_problem(status, {"detail": body[:300].decode("utf-8", "replace")})

    def _check_version(self, headers: Mapping[str, str]) -> None:
        theirs = headers.get(API_HEADER, "")
        if theirs and theirs != str(API):
            raise IncompatibleServer(
                f"{self.url} speaks version {theirs} of the API, this client version {API}.",
                remedy="Install the client that belongs to the server: helio version shows both.",
            )


def segment(text: str) -> str:
    """One path segment, quoted: a job id may hold anything that Ray's client accepted."""
    return quote(text, safe="")


def _query(query: Mapping[str, object] | None) -> str:
    pairs = [(key, value) for key, value in (query or {}).items() if value is not None and value != ""]
    if not pairs:
        return ""
    flat = [(key, str(value).lower() if isinstance(value, bool) else value) for key, value in pairs]
    return "?" + urlencode(flat, doseq=True)


def _decoded(body: bytes, url: str) -> Any:  # Any: JSON
    try:
        return json.loads(body)
    except ValueError as error:
        raise ServiceError(
            f"{url} sent an answer that is no JSON.", code="not_heliostat", remedy="Check the address."
        ) from error


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    return min(float(text), MAX_RETRY_AFTER_S) if text.isdigit() else 0.0
