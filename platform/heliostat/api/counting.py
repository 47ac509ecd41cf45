"""Figures for Prometheus: requests by route and status, jobs by queue and state."""

from __future__ import annotations

import threading
from collections import defaultdict

from heliostat.api.doors import Doors
from heliostat.store import jobs


class Counters:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, str, int], list[float]] = defaultdict(lambda: [0, 0.0])

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        with self._lock:
            entry = self._requests[(method, route, status)]
            entry[0] += 1
            entry[1] += seconds

    def lines(self) -> list[str]:
        with self._lock:
            entries = sorted((key, tuple(value)) for key, value in self._requests.items())
        told = ["# TYPE heliostat_http_requests_total counter", "# TYPE heliostat_http_request_seconds_total counter"]
        for (method, route, status), (number, seconds) in entries:
            labels = f'{{method="{method}",route="{_escaped(route)}",status="{status}"}}'
            told.append(f"heliostat_http_requests_total{labels} {int(number)}")
            told.append(f"heliostat_http_request_seconds_total{labels} {seconds:.6f}")
        return told


COUNTERS = Counters()
"""Of this process."""


def exposition(doors: Doors) -> str:
    with doors.store.read() as session:
        counts = jobs.count_by_state(session)
    told = ["# TYPE heliostat_jobs gauge"]
    told += [
        f'heliostat_jobs{{queue="{_escaped(queue)}",state="{state}"}} {number}'
        for (queue, state), number in sorted(counts.items())
    ]
    return "\n".join([*told, *COUNTERS.lines()]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
