"""A WebSocket to an ASGI application without a network: what a client sends and sees."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from starlette.types import ASGIApp


class Refused(Exception):
    """The upgrade was answered with an HTTP status instead."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


class Closed(Exception):
    """The server closed the socket."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class Socket:
    """`async with Socket(app, path, headers) as socket: await socket.text()`."""

    def __init__(self, app: ASGIApp, path: str, headers: dict[str, str]) -> None:
        self._app = app
        self._scope = {
            "type": "websocket",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "ws",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8700),
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
        }
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._task = asyncio.ensure_future(self._app(self._scope, self._to_app.get, self._from_app.put))  # type: ignore[arg-type]
        await self._to_app.put({"type": "websocket.connect"})
        first = await self._next()
        if first["type"] == "websocket.close":
            raise Closed(first["code"])
        if first["type"] == "websocket.http.response.start":
            body = await self._next()
            raise Refused(first["status"], body["body"].decode())
        assert first["type"] == "websocket.accept"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._to_app.put({"type": "websocket.disconnect", "code": 1001})
        async with asyncio.timeout(5):
            await self._task

    async def text(self) -> str:
        message = await self._next()
        if message["type"] == "websocket.close":
            raise Closed(message["code"])
        return str(message["text"])

    async def _next(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            return await self._from_app.get()
