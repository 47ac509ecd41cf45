"""A job's metrics as they come, over a connection that may break: it continues behind the last point that arrived."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

from heliostat.wire.call import PATIENT, Caller, segment
from heliostat.wire.shapes import MetricJson
from heliostat.wire.sse import parse
from heliostat.wire.transport import TransportError


def follow_metrics(caller: Caller, job_id: str, name: str | None = None) -> Iterator[MetricJson]:
    """Every point from the first on; ends when the job is over."""
    last = ""
    path = f"/jobs/{segment(job_id)}/metrics/stream"
    while True:
        try:
            with ExitStack() as stack:
                stream = stack.enter_context(
                    caller.stream(path, query={"name": name}, last_event_id=last, retry=PATIENT)
                )
                for event in parse(stream.lines()):
                    if event.name == "end":
                        return
                    last = event.id or last
                    yield json.loads(event.data)
        except TransportError:
            caller.pause(0.5)  # the next connection has its own patience, and its own error when that is over
        else:
            caller.pause(0.5)
