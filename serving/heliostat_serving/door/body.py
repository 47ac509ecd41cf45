"""A request's body: no more than the limit, no longer than the time, unpacked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any  # Any: ASGI messages

from heliostat_serving.spec import Limits
from heliostat_serving.wire import coding
from heliostat_serving.wire.faults import Fault

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class ClientGone(Exception):
    """The client closed the connection before its body was complete."""


async def read(receive: Receive, headers: dict[bytes, bytes], limits: Limits) -> bytes:
    declared = headers.get(b"content-length")
    if declared is not None and declared.isdigit() and int(declared[:18]) > limits.max_body_bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            body = await _all(receive, limits)
    except TimeoutError as error:
        raise Fault(
            "body_timeout", f"The body did not arrive within {limits.body_timeout_s:g} s.", "Send it in one go."
        ) from error
    encoding = headers.get(b"content-encoding")
    return coding.unpack(body, encoding.decode("latin-1"), limits.max_body_bytes) if encoding else body


async def _all(receive: Receive, limits: Limits) -> bytes:
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        first: bytes = message.get("body", b"")
        if len(first) > limits.max_body_bytes:
            raise _too_large(limits)
        return first
    parts = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts += message.get("body", b"")
        if len(parts) > limits.max_body_bytes:
            raise _too_large(limits)
        if not message.get("more_body", False):
            return bytes(parts)
        message = await receive()


def _too_large(limits: Limits) -> Fault:
    return Fault("body_too_large", f"The body has more than {limits.max_body_bytes} bytes.", "Send fewer rows at once.")
