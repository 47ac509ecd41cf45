"""One HTTP exchange, and a streamed one. Everything above this module is the same for sockets and for tests.

`HttpTransport` uses the standard library's `http.client`: httpx is the nicer interface, but importing it and making a client
costs 0.19 CPU-seconds here, four times what this costs, out of a whole budget of 0.5 for `helio submit`. It keeps one idle
connection (polling a job must not open a socket per second) and opens others for calls that run at the same time.
Redirects and proxies are not followed: a control plane answers on its own address.
"""

from __future__ import annotations

import http.client
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

MAX_BODY_BYTES = 256 * 1024 * 1024
"""No answer of the API that is read whole is this large; a bigger one is somebody else's server."""
CHUNK_BYTES = 1 << 20


class TransportError(Exception):
    """No answer: `refused` says that nothing listens there, so that the request certainly did nothing."""

    def __init__(self, message: str, *, refused: bool = False, timed_out: bool = False) -> None:
        super().__init__(message)
        self.refused = refused
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True)
class Request:
    """method, path with its query, headers, body; timeout_s applies to connecting and to each read. source: a file that is the body."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    timeout_s: float = 30.0
    source: Path | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """status, headers with lower-case names, whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Stream(Protocol):
    """An answer that is still arriving: iterate its lines (without line ends) or its bytes in chunks, then close it."""

    status: int
    headers: Mapping[str, str]

    def lines(self) -> Iterator[str]: ...

    def chunks(self) -> Iterator[bytes]: ...

    def read(self) -> bytes: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Transport(Protocol):
    """Carries requests to one control plane. Raises `TransportError` when there is no answer."""

    def send(self, request: Request) -> Response: ...

    def stream(self, request: Request) -> Stream: ...

    def close(self) -> None: ...


class HttpTransport:
    """A `Transport` over sockets. Safe to share between threads."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._tls = parts.scheme == "https"
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._idle: http.client.HTTPConnection | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def send(self, request: Request) -> Response:
        connection, reused = self._take(request.timeout_s)
        try:
            answer = self._exchange(connection, request)
            body = _whole(answer)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if reused and not isinstance(error, TimeoutError):
                return self.send(request)  # the server had closed the idle connection; the next one is fresh
            raise self._failure(error) from error
        headers = {name.lower(): value for name, value in answer.getheaders()}
        if answer.will_close:
            connection.close()
        else:
            self._give_back(connection)
        return Response(answer.status, headers, body)

    def stream(self, request: Request) -> Stream:
        connection = self._connect(request.timeout_s)
        try:
            answer = self._exchange(connection, request)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._failure(error) from error
        return _HttpStream(connection, answer, self._failure)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, None
        if idle is not None:
            idle.close()

    def _exchange(self, connection: http.client.HTTPConnection, request: Request) -> http.client.HTTPResponse:
        has_body = bool(request.body) or request.method in ("POST", "PUT", "PATCH")
        if request.source is not None:
            with request.source.open("rb") as body:
                length = {"Content-Length": str(os.fstat(body.fileno()).st_size)}
                connection.request(
                    request.method, self._prefix + request.path, body=body, headers={**request.headers, **length}
                )
            return connection.getresponse()
        connection.request(
            request.method,
            self._prefix + request.path,
            body=request.body if has_body else None,
            headers=dict(request.headers),
        )
        return connection.getresponse()

    def _take(self, timeout_s: float) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            idle, self._idle = self._idle, None
            forked = self._pid != os.getpid()
            self._pid = os.getpid()
        if idle is None or idle.sock is None or forked:  # a forked child must not talk on its parent's connection
            return self._connect(timeout_s), False
        idle.sock.settimeout(timeout_s)
        return idle, True

    def _give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if self._idle is None:
                self._idle = connection
                return
        connection.close()

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=timeout_s)

    def _failure(self, error: Exception) -> TransportError:
        where = f"{self._host}:{self._port}"
        if isinstance(error, ConnectionRefusedError):
            return TransportError(f"nothing listens on {where}", refused=True)
        if isinstance(error, TimeoutError):
            return TransportError(f"{where} did not answer in time", timed_out=True)
        if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
            return TransportError(f"{where} does not speak HTTP")
        return TransportError(f"the connection to {where} broke: {error}")


def _whole(answer: http.client.HTTPResponse) -> bytes:
    """The body. `read` with a limit is silent about a connection that ends in the middle of it."""
    body = answer.read(MAX_BODY_BYTES)
    if answer.length and len(body) < MAX_BODY_BYTES:
        raise http.client.IncompleteRead(body, answer.length)
    return body


class _HttpStream:
    """A `Stream` that owns its connection."""

    def __init__(
        self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, failure: _Failure
    ) -> None:
        self.status = answer.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in answer.getheaders()}
        self._connection = connection
        self._answer = answer
        self._failure = failure

    def lines(self) -> Iterator[str]:
        try:
            for line in self._answer:
                yield line.decode("utf-8", "replace").rstrip("\r\n")
        except (OSError, http.client.HTTPException) as error:
            raise self._failure(error) from error

    def chunks(self) -> Iterator[bytes]:
        try:
            while chunk := self._answer.read(CHUNK_BYTES):
                yield chunk
            if self._answer.length:
                raise http.client.IncompleteRead(b"", self._answer.length)
        except (OSError, http.client.HTTPException) as error:
            raise self._failure(error) from error

    def read(self) -> bytes:
        try:
            return _whole(self._answer)
        except (OSError, http.client.HTTPException) as error:
            raise self._failure(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


class _Failure(Protocol):
    def __call__(self, error: Exception) -> TransportError: ...
