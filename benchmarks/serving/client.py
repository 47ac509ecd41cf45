"""A closed-loop HTTP client that costs little: bytes out, bytes in, one connection per caller, in a process of its own.

`python -m benchmarks.serving.client URL CLIENTS SECONDS KEY` prints {"answers", "failed", "seconds", "p50_ms", "p99_ms"}.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop

BODY = json.dumps({"inputs": {"x": [[round(0.1 * i, 1) for i in range(16)]]}}).encode()


class Caller(asyncio.Protocol):
    """Sends the next call when the answer to the last one is complete."""

    def __init__(self, request: bytes, until_s: float) -> None:
        self._request = request
        self._until_s = until_s
        self._got = b""
        self._sent_s = 0.0
        self.took_s: list[float] = []
        self.failed = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found:
            return
        size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < size:
            return
        self._got = b""
        self.took_s.append(time.perf_counter() - self._sent_s)
        self.failed += not head.startswith(b"HTTP/1.1 200")
        if time.perf_counter() < self._until_s:
            self._send()
        else:
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.failed += 1
            self._end()

    def _send(self) -> None:
        self._sent_s = time.perf_counter()
        self._transport.write(self._request)

    def _end(self) -> None:
        self.done.set_result(None)
        self._transport.close()


async def run(url: str, clients: int, seconds: float, key: str) -> dict[str, float]:
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    begun = time.perf_counter()
    loop = asyncio.get_running_loop()
    callers = [
        (await loop.create_connection(lambda: Caller(request, begun + seconds), host, port))[1] for _ in range(clients)
    ]
    await asyncio.gather(*(caller.done for caller in callers))
    took = sorted(once for caller in callers for once in caller.took_s)
    return {
        "answers": len(took),
        "failed": sum(caller.failed for caller in callers),
        "seconds": time.perf_counter() - begun,
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[len(took) * 99 // 100] * 1000,
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))))
