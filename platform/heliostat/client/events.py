"""Events as they come, over a connection that may break: it continues behind the last one that arrived."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

from heliostat.wire.call import PATIENT, Caller
from heliostat.wire.shapes import EventJson
from heliostat.wire.sse import parse
from heliostat.wire.transport import TransportError


def follow_events(caller: Caller, job_id: str | None, after: int | None) -> Iterator[EventJson]:
    """Never ends by itself, except when the server ends the stream of a job that is over with an `end` event."""
    last = "" if after is None else str(after)
    while True:
        try:
            with ExitStack() as stack:
                query = {"job": job_id}
                stream = stack.enter_context(caller.stream("/events", query=query, last_event_id=last, retry=PATIENT))
                for event in parse(stream.lines()):
                    if event.name == "end":
                        return
                    last = event.id or last
                    yield json.loads(event.data)
        except TransportError:
            caller.pause(0.5)  # the next connection has its own patience, and its own error when that is over
        else:
            caller.pause(0.5)
