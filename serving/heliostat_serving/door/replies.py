"""Answers as ASGI messages. A fault looks the way its protocol wants it; its code is also in the header `X-Heliostat-Code`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any  # Any: ASGI messages

from heliostat_serving.wire import coding, jsons, mlflow, native, oip
from heliostat_serving.wire.faults import Fault

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]
JSON = b"application/json"
BINARY = b"application/octet-stream"


@dataclass(slots=True)
class Reply:
    body: bytes
    status: int = 200
    kind: bytes = JSON
    headers: list[Header] = field(default_factory=list)
    version: str = ""
    rows: int = 0
    code: str = ""


def of_json(value: object) -> Reply:
    return Reply(jsons.dump(value))


def of_fault(fault: Fault, path: str, request_id: str) -> Reply:
    headers = fault.headers()
    if fault.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if path.startswith("/v2"):
        return Reply(oip.error(fault), fault.status, JSON, headers, code=fault.code)
    if path in ("/invocations", "/ping", "/health", "/version"):
        return Reply(mlflow.error(fault), fault.status, JSON, headers, code=fault.code)
    return Reply(native.problem(fault, request_id), fault.status, native.PROBLEM, headers, code=fault.code)


def compressed(reply: Reply, accept: bytes | None) -> Reply:
    if accept is None or len(reply.body) < coding.WORTH_BYTES:
        return reply
    encoding = coding.accepted(accept.decode("latin-1"))
    if encoding:
        reply.body = coding.pack(reply.body, encoding)
        reply.headers.append((b"content-encoding", encoding.encode()))
    return reply


async def send(reply: Reply, to: Send, *, head_only: bool = False) -> None:
    headers = [(b"content-type", reply.kind), (b"content-length", b"%d" % len(reply.body)), *reply.headers]
    if reply.version:
        headers.append((b"x-heliostat-version", reply.version.encode()))
    await to({"type": "http.response.start", "status": reply.status, "headers": headers})
    await to({"type": "http.response.body", "body": b"" if head_only else reply.body})
