"""The ASGI application of an endpoint, the same for a gateway and for direct mode.

Order of a call: key, limits, body, protocol, signature, version, model, answer, books. Whatever is wrong before the model is a 4xx
that the model never sees. Plain ASGI and not a framework: this is the path that every prediction pays for.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import MutableMapping
from typing import Any  # Any: ASGI scope and messages

from heliostat_serving.door import body, pages, replies
from heliostat_serving.door.body import ClientGone, Receive
from heliostat_serving.door.metering import Call
from heliostat_serving.door.replies import Reply, Send
from heliostat_serving.door.state import Backend, Books, Clock, State, state
from heliostat_serving.spec import GatewayConfig, Key, Signature, Target
from heliostat_serving.wire import mlflow, native, oip, tensors
from heliostat_serving.wire.faults import Fault
from heliostat_serving.wire.tensors import Tensors

logger = logging.getLogger("ray.serve")
Scope = MutableMapping[str, Any]
INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
ROUTES = {"/predict": "predict", "/invocations": "invocations"}
ID_LENGTH = 128


class Ask:
    """One call on its way in, with what the books will say of it."""

    __slots__ = ("begun_s", "bytes_in", "headers", "key", "method", "path", "request_id", "route", "version")

    def __init__(self, scope: Scope, begun_s: float) -> None:
        self.begun_s = begun_s
        path: str = scope["path"][len(scope.get("root_path", "")) :]
        self.path = path.rstrip("/") or "/"
        self.method: str = scope["method"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = self.headers.get(b"x-request-id", b"").decode("latin-1")[:ID_LENGTH]
        self.route = ROUTES.get(self.path, "")
        self.key: Key | None = None
        self.version = ""
        self.bytes_in = 0


class Door:
    """`backend` computes; `books` writes down; the configuration comes with `configure` before the first call."""

    def __init__(self, backend: Backend, books: Books, prefix: str, clock: Clock | None = None) -> None:
        self._backend = backend
        self._books = books
        self._prefix = prefix
        self._clock = clock or Clock()
        self._state: State | None = None
        self._in_flight = 0

    def configure(self, config: GatewayConfig) -> None:
        self._state = state(config, self._state, self._clock)
        self._books.use(config.spool_dir)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "lifespan":
                await _lifespan(receive, send)
            case "websocket":
                await send({"type": "websocket.close", "code": 1003})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        ask = Ask(scope, self._clock.steady_s())
        try:
            reply = await self._answer(ask, receive)
        except Fault as fault:
            reply = replies.of_fault(fault, ask.path, ask.request_id)
        except ClientGone:
            self._write_down(ask, Reply(b"", 499, code="client_gone"))
            return
        except asyncio.CancelledError:
            self._write_down(ask, Reply(b"", 499, code="client_gone"))
            raise
        except Exception:
            logger.exception("Request %s to %s failed.", ask.request_id, ask.path)
            where = f"Its log knows request {ask.request_id}." if ask.request_id else "Its log has the traceback."
            broken = Fault("internal_error", "The endpoint failed to answer.", where)
            reply = replies.of_fault(broken, ask.path, ask.request_id)
        await replies.send(reply, send, head_only=ask.method == "HEAD")
        if ask.route or reply.status != 200:
            self._write_down(ask, reply)

    async def _answer(self, ask: Ask, receive: Receive) -> Reply:
        now = self._state
        if now is None:
            raise Fault("no_version_ready", "The endpoint is not configured yet.", "Try again.", 1.0)
        if ask.path in pages.OPEN:
            return pages.openly(ask.path, ask.method, now)
        key = ask.key = now.ring.find(ask.headers)
        model, version = "", ""
        if not ask.route:
            infer = INFER.fullmatch(ask.path)
            if infer is None:
                return pages.show(ask.path, ask.method, now, key, self._prefix)
            ask.route, model, version = "infer", infer[1], infer[2] or ""
        if ask.method != "POST":
            raise Fault("method_not_allowed", f"{ask.path} takes POST, not {ask.method}.", allow="POST")
        now.ring.spend(key)
        target = now.split.choose(key, ask.headers, version, model)
        ask.version = target.label
        return await self._predict(ask, receive, now, target)

    async def _predict(self, ask: Ask, receive: Receive, now: State, target: Target) -> Reply:
        limits = now.config.limits
        if self._in_flight >= limits.max_in_flight:
            raise Fault(
                "too_many_in_flight", "The endpoint is busy.", "Send fewer calls at once.", limits.retry_after_s
            )
        self._in_flight += 1
        try:
            raw = await body.read(receive, ask.headers, limits)
            ask.bytes_in = len(raw)
            signature = target.signature
            wanted: oip.Wanted | None = None
            if ask.route == "predict":
                inputs = native.parse(raw, signature)
            elif ask.route == "infer":
                inputs, wanted = oip.parse(raw, ask.headers.get(oip.HEADER), signature)
            else:
                inputs = _invocation(ask, raw, signature)
            rows = tensors.checked(inputs, signature, limits.max_rows)
            outputs = await self._infer(now, target, inputs, rows)
        finally:
            self._in_flight -= 1
        reply = _reply(ask, outputs, target, wanted)
        reply.rows, reply.version = rows, target.label
        return replies.compressed(reply, ask.headers.get(b"accept-encoding"))

    async def _infer(self, now: State, target: Target, inputs: Tensors, rows: int) -> Tensors:
        limit_s = now.config.limits.predict_timeout_s
        try:
            async with asyncio.timeout(limit_s) as deadline:
                return await self._backend.infer(target, inputs, rows, now.config.retry)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise Fault("predict_timeout", f"{target.label} did not answer within {limit_s:g} s.") from error

    def _write_down(self, ask: Ask, reply: Reply) -> None:
        key = ask.key
        call = Call(
            at_ms=self._clock.wall_ms(), key=key.id if key else "", version=ask.version, status=reply.status,
            code=reply.code, ms=(self._clock.steady_s() - ask.begun_s) * 1000, bytes_in=ask.bytes_in,
            bytes_out=len(reply.body), route=ask.route or "other", request_id=ask.request_id, rows=reply.rows,
            smoke=key is not None and not key.metered,
        )  # fmt: skip
        self._books.spool.add(call)
        self._books.counter.count(call)


def _reply(ask: Ask, outputs: Tensors, target: Target, wanted: oip.Wanted | None) -> Reply:
    if wanted is not None:
        raw, json_bytes = oip.answer(outputs, wanted, target, target.signature)
        if json_bytes is None:
            return Reply(raw)
        return Reply(raw, kind=replies.BINARY, headers=[(oip.HEADER, b"%d" % json_bytes)])
    return Reply(native.answer(outputs, target) if ask.route == "predict" else mlflow.answer(outputs))


def _invocation(ask: Ask, raw: bytes, signature: Signature) -> Tensors:
    kind = ask.headers.get(b"content-type", b"application/json").lower()
    if kind.partition(b";")[0].strip() == b"text/csv":
        return mlflow.parse_csv(raw, signature)
    if b"json" not in kind:
        said = kind.decode("latin-1")[:60]
        raise Fault("unsupported_media", f"/invocations does not take {said}.", "Send application/json or text/csv.")
    return mlflow.parse(raw, signature)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
