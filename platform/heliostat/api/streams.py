"""Server-sent events: frames, heartbeats, and waiting for the next commit without polling the database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi.responses import StreamingResponse

from heliostat.store import Store

PAUSE_S = 0.05
HEARTBEAT = b": heartbeat\n\n"


def frame(data: Any, *, event: str = "", id: int | str | None = None) -> bytes:  # Any: JSON
    """One event."""
    body = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    lines = [f"id: {id}"] if id is not None else []
    lines += [f"event: {event}"] if event else []
    return ("\n".join([*lines, f"data: {body}"]) + "\n\n").encode()


def event_stream(frames: AsyncIterator[bytes]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(frames, media_type="text/event-stream", headers=headers)


class Commits:
    """Wakes a coroutine after each commit of the store, and when the server closes."""

    def __init__(self, changed: asyncio.Event, closing: Callable[[], bool]) -> None:
        self._changed = changed
        self._closing = closing

    @property
    def closing(self) -> bool:
        return self._closing()

    async def wait(self, timeout_s: float) -> bool:
        """True after a commit, False when `timeout_s` passed without one. Wakes at most every 50 ms, however many commits there are."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return False
        if not self.closing:
            await asyncio.sleep(PAUSE_S)
        self._changed.clear()
        return True


class Closing:
    """Tells open streams that the server ends: without it they would hold its shutdown up."""

    def __init__(self) -> None:
        self._open: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self.closed = False

    def close(self) -> None:
        """End all streams. Any thread."""
        self.closed = True
        for loop, changed in tuple(self._open):
            loop.call_soon_threadsafe(changed.set)

    @contextmanager
    def commits(self, store: Store) -> Iterator[Commits]:
        changed, loop = asyncio.Event(), asyncio.get_running_loop()
        entry = (loop, changed)

        def committed() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

        cancel = store.subscribe(committed)
        self._open.add(entry)
        try:
            yield Commits(changed, lambda: self.closed)
        finally:
            cancel()
            self._open.discard(entry)
