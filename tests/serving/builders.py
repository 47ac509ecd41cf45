"""Endpoints without Ray: a door, a backend that doubles, a clock that is turned by hand, and calls as ASGI messages."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

from heliostat_serving.door.app import Door
from heliostat_serving.door.state import Books, Clock
from heliostat_serving.spec import GatewayConfig, Key, Limits, Signature, Target, TensorSpec
from heliostat_serving.wire.tensors import Tensors

TEXT = "hk_" + "7" * 20
PAIR = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))


def key(text: str = TEXT, **changes: Any) -> Key:
    return Key(**{"id": "k1", "sha256": hashlib.sha256(text.encode()).hexdigest(), **changes})


def target(n: int = 1, weight: int = 1, **changes: Any) -> Target:
    return Target(**{"app": f"ep-iris-v{n}", "n": n, "model": "iris", "model_version": n + 10, "signature": PAIR,
                     "weight": weight, **changes})  # fmt: skip


def config(*targets: Target, keys: tuple[Key, ...] | None = None, **changes: Any) -> GatewayConfig:
    return GatewayConfig("iris", (key(),) if keys is None else keys, targets or (target(),), **changes)


@dataclass
class Hand:
    """Time and chance in a test's own hand."""

    now_s: float = 100.0
    wall: int = 1_000_000
    drawn: float = 0.5

    def clock(self) -> Clock:
        return Clock(lambda: self.now_s, lambda: self.wall, lambda: self.drawn)


@dataclass
class Doubling:
    """A backend; what it was asked is kept."""

    asked: list[tuple[str, int]] = field(default_factory=list)
    error: Exception | None = None
    pause: asyncio.Event | None = None

    async def infer(self, target: Target, inputs: Tensors, rows: int, retry: bool) -> Tensors:
        self.asked.append((target.label, rows))
        if self.pause is not None:
            await self.pause.wait()
        if self.error is not None:
            raise self.error
        return {"y": inputs["x"] * 2}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class House:
    """A door with everything around it."""

    def __init__(self, conf: GatewayConfig | None = None) -> None:
        self.hand = Hand()
        self.backend = Doubling()
        self.books = Books("r1")
        self.door = Door(self.backend, self.books, "/endpoints/iris", self.hand.clock())
        if conf is not None:
            self.door.configure(conf)

    async def call(self, path: str, body: bytes | dict[str, Any] = b"", method: str = "POST", **headers: str) -> Answer:
        raw = json.dumps(body).encode() if isinstance(body, dict) else body
        return await self.send(path, [{"type": "http.request", "body": raw, "more_body": False}], method, headers)

    async def gone(self, path: str, messages: list[dict[str, Any]]) -> None:
        """A client that leaves before its body is complete; nobody is there for an answer."""
        assert await self._sent(path, messages, "POST", False, {}) == []

    async def send(
        self,
        path: str,
        messages: list[dict[str, Any]],
        method: str = "POST",
        headers: dict[str, str] | None = None,
        *,
        wait: bool = False,
    ) -> Answer:
        """`wait`: after the messages the client is silent, instead of gone."""
        sent = await self._sent(path, messages, method, wait, headers or {})
        start, *parts = sent
        found = {name.decode(): text.decode() for name, text in start["headers"]}
        return Answer(start["status"], found, b"".join(part["body"] for part in parts))

    async def _sent(
        self, path: str, messages: list[dict[str, Any]], method: str, wait: bool, headers: dict[str, str]
    ) -> list[MutableMapping[str, Any]]:
        pairs = {"authorization": f"Bearer {TEXT}", **{name.replace("_", "-"): text for name, text in headers.items()}}
        scope: MutableMapping[str, Any] = {
            "type": "http", "method": method, "root_path": "/endpoints/iris", "path": f"/endpoints/iris{path}",
            "headers": [(name.encode(), text.encode()) for name, text in pairs.items()],
        }  # fmt: skip
        left = list(messages)
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            if left:
                return left.pop(0)
            if wait:
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        await self.door(scope, receive, send)
        return sent


SMALL = Limits(max_body_bytes=1000, body_timeout_s=0.01, max_rows=8, max_in_flight=2)
