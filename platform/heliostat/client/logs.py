"""The log of a job: what there is, or a line at a time while it grows.

A job's log joins its attempts with marker lines and is addressed by byte offset, so that a reader whose connection broke
continues where it stopped: no line is lost and none comes twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

from heliostat.client.listing import Shown
from heliostat.wire.call import ONCE, PATIENT, Caller, segment
from heliostat.wire.errors import ConnectionFailed, ServiceError
from heliostat.wire.shapes import TERMINAL_STATES
from heliostat.wire.sse import ServerEvent, parse
from heliostat.wire.transport import TransportError

PATIENCE_S = 90.0
"""How long a follower outlives a control plane that does not answer."""


class Logs(Shown):
    """Iterate it for lines (a live log ends when the job does); `text()` is everything so far."""

    def __init__(self, caller: Caller, job_id: str, *, follow: bool, offset: int = 0) -> None:
        self._caller = caller
        self._job_id = job_id
        self._follow = follow
        self._offset = offset

    def text(self) -> str:
        path = f"/jobs/{segment(self._job_id)}/logs"
        answer = self._caller.send("GET", path, query={"offset": self._offset}, headers={"Accept": "text/plain"})
        return answer.body.decode("utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        if not self._follow:
            yield from self.text().splitlines()
            return
        rest = ""
        for piece in self.pieces():
            *whole, rest = (rest + piece).split("\n")
            yield from whole
        if rest:
            yield rest

    def __repr__(self) -> str:
        return f"<Logs of {self._job_id}>"

    def pieces(self) -> Iterator[str]:
        """The log as it arrives, reconnecting where it broke off, until the server says that it is complete."""
        offset, lost_since, pause_s = self._offset, None, 0.2
        while True:
            try:
                for event in self._events(offset):
                    lost_since, pause_s = None, 0.2
                    if event.name == "end":
                        return
                    if event.name == "log":
                        text, offset = _log_piece(event, offset)
                        yield text
                failure: Exception | None = None
            except (TransportError, ConnectionFailed, ServiceError) as error:
                failure = error
            if failure is None and self._is_over():
                return
            now = self._caller.now()
            lost_since = now if lost_since is None else lost_since
            if failure is not None and now - lost_since > PATIENCE_S:
                raise failure
            self._caller.pause(pause_s)
            pause_s = min(pause_s * 2, 2.0)

    def _events(self, offset: int) -> Iterator[ServerEvent]:
        path = f"/jobs/{segment(self._job_id)}/logs"
        with ExitStack() as stack:
            stream = stack.enter_context(
                self._caller.stream(path, query={"offset": offset, "follow": True}, retry=ONCE)
            )
            yield from parse(stream.lines())

    def _is_over(self) -> bool:
        """A stream that closed without an end: complete if the job is over, else it has to be taken up again."""
        job = self._caller.json("GET", f"/jobs/{segment(self._job_id)}", retry=PATIENT)
        return job.get("state") in TERMINAL_STATES


def _log_piece(event: ServerEvent, offset: int) -> tuple[str, int]:
    """Text of a log event and the offset after it (the event's own, where the server says it)."""
    data = json.loads(event.data)
    text = str(data.get("text", ""))
    start = int(data.get("offset", offset))
    after = data.get("next_offset")
    return text, int(after) if after is not None else start + len(text.encode())
