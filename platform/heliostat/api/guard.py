"""What every request passes first, as one ASGI layer: request id, Host allow-list, Origin check, body limit, counting.

A browser on the user's machine can be made to send requests to 127.0.0.1. The Host check stops names that were rebound to it,
the Origin check stops pages of other sites from changing anything or opening WebSockets. Programs send no Origin.
"""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heliostat.api.problems import Problem, render

PROCESS = secrets.token_hex(4)
COUNT = itertools.count(1)
"""Ids of requests without one: unique, made without asking the system for random bits each time."""
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,80}")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
API_VERSION = (b"heliostat-api-version", b"1")


@dataclass(frozen=True, slots=True)
class GuardRules:
    """hosts: names in Host, without port. origins: further allowed Origins. body_bytes: limit of every body but uploads'."""

    hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "[::1]"})
    origins: frozenset[str] = frozenset()
    body_bytes: int = 2 * 2**20
    uploads: re.Pattern[str] = re.compile(r"/api/(v1/)?packages/.*|/api/v1/models/[^/]+/versions")


Observe = Callable[[str, str, int, float], None]
"""(method, route, status, seconds)"""


class Guard:
    def __init__(self, app: ASGIApp, rules: GuardRules, observe: Observe) -> None:
        self._app = app
        self._rules = rules
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else f"{PROCESS}-{next(COUNT):06x}"
        scope.setdefault("state", {})["request_id"] = request_id
        problem = self._refusal(scope, headers)
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send, problem)
        else:
            await self._http(scope, receive, send, problem, request_id)

    def _refusal(self, scope: Scope, headers: Headers) -> Problem | None:
        host = headers.get("host", "").lower()
        if _bare(host) not in self._rules.hosts:
            return Problem(
                421,
                "host_not_allowed",
                f"This server is not called '{host[:200]}'.",
                "Use its address, or add the name to the allowed hosts where it is started.",
            )
        origin = headers.get("origin")
        changing = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if (
            changing
            and origin is not None
            and origin not in self._rules.origins
            and urlsplit(origin).netloc.lower() != host
        ):
            return Problem(
                403, "origin_not_allowed", f"Pages of {origin[:200]} may not use this server.", "Use its own console."
            )
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._limit(scope):
            return _too_large(self._limit(scope))
        return None

    def _limit(self, scope: Scope) -> float:
        return float("inf") if self._rules.uploads.fullmatch(scope["path"]) else self._rules.body_bytes

    async def _websocket(self, scope: Scope, receive: Receive, send: Send, problem: Problem | None) -> None:
        if problem is None:
            await self._app(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": str(problem)[:120]})

    async def _http(self, scope: Scope, receive: Receive, send: Send, problem: Problem | None, request_id: str) -> None:
        started = time.perf_counter()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                headers.raw.append(API_VERSION)
                headers["x-request-id"] = request_id
                headers["x-content-type-options"] = "nosniff"
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            if problem is not None:
                await drained(receive, 8 * self._rules.body_bytes)
                await render(Request(scope), problem)(scope, receive, answer)
            else:
                await self._app(scope, self._counted(scope, receive), answer)
        finally:
            route = getattr(scope.get("route"), "path", "(none)")
            self._observe(scope["method"], route, status, time.perf_counter() - started)

    def _counted(self, scope: Scope, receive: Receive) -> Receive:
        """Chunked bodies have no length: count them, and stop at the limit."""
        limit, taken = self._limit(scope), 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise _too_large(limit)
            return message

        return counted


async def drained(receive: Receive, at_most: int) -> None:
    """Read a refused body to its end: most clients look at the answer only when they have sent everything."""
    taken = 0
    while taken <= at_most:
        message = await receive()
        taken += len(message.get("body", b""))
        if not message.get("more_body", False):
            return


def _bare(host: str) -> str:
    """The name without its port."""
    return host.split("]", 1)[0] + "]" if host.startswith("[") else host.rsplit(":", 1)[0]


def _too_large(limit: float) -> Problem:
    return Problem(
        413,
        "body_too_large",
        f"The body is larger than {int(limit)} bytes.",
        "Put data into a package or into storage.",
    )
