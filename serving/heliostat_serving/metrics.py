"""Prometheus metrics of an endpoint, beside Serve's own (which name deployments and applications): `ray_heliostat_endpoint_*`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any  # Any: Ray's metrics have no types

from ray.serve.metrics import Counter

from heliostat_serving.door.counting import SUMS, Counted, cumulative


class Metrics:
    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._calls = _counter("requests", "Calls.", "route", "status", "code")
        self._latency = _counter("latency_seconds_bucket", "Answered calls at most this long, cumulative.", "le")
        self._sums = {name: _counter(name, text) for name, text in SUMS.items()}

    def add(self, counted: Counted) -> None:
        for (version, route, status, code), count in counted.calls.items():
            self._inc(self._calls, count, version, route=route, status=str(status), code=code)
        for (version, le), count in cumulative(counted.latency).items():
            self._inc(self._latency, count, version, le=le)
        for name, counter in self._sums.items():
            sums: Mapping[str, float] = getattr(counted, name)
            for version, amount in sums.items():
                self._inc(counter, amount, version)

    def _inc(self, counter: Any, amount: float, version: str, **tags: str) -> None:
        if amount > 0:
            counter.inc(amount, tags={"endpoint": self._endpoint, "version": version, **tags})


def _counter(name: str, text: str, *tags: str) -> Any:
    return Counter(f"heliostat_endpoint_{name}", description=text, tag_keys=("endpoint", "version", *tags))
