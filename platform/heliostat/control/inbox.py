"""The only way into the control loop: any thread posts, the loop drains."""

from __future__ import annotations

import threading
from collections import deque

from heliostat.control.messages import Message


class Inbox:
    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._arrived = threading.Event()

    def post(self, message: Message) -> None:
        self._messages.append(message)
        self._arrived.set()

    def wake(self) -> None:
        """Let `wait` return although nothing was posted."""
        self._arrived.set()

    def wait(self, seconds: float | None) -> None:
        """Until something is posted, at most this long (None: without limit)."""
        self._arrived.wait(seconds)

    def drain(self) -> list[Message]:
        """Everything posted so far, in order."""
        self._arrived.clear()
        found = []
        while self._messages:
            found.append(self._messages.popleft())
        return found
