"""Counts per version, added up in plain dictionaries and given to Ray's metrics once per flush: an increment there costs more than
a whole validation.

Latency is a histogram as Prometheus reads it: counters with the label `le`, cumulative, so
`histogram_quantile(0.99, sum by (le) (rate(...)))` works.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field

from heliostat_serving.door.metering import Call

BOUNDS_MS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0)
LE = (*(f"{bound / 1000:g}" for bound in BOUNDS_MS), "+Inf")

SUMS = {
    "rows": "Rows predicted.",
    "seconds": "Seconds spent on calls that were answered.",
    "bytes_in": "Bytes of the calls' bodies, unpacked.",
    "bytes_out": "Bytes of the answers' bodies.",
    "retries": "Calls sent once more because a replica died.",
}


@dataclass
class Counted:
    """Since the last flush. calls: by (version, route, status, code)."""

    calls: defaultdict[tuple[str, str, int, str], int] = field(default_factory=lambda: defaultdict(int))
    rows: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    latency: defaultdict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    """By (version, index of the bucket); not yet cumulative."""
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    bytes_in: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    bytes_out: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    retries: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))


class Counter:
    """`count` and `retried` from the event loop, `take` from the flushing thread."""

    def __init__(self) -> None:
        self._now = Counted()

    def count(self, call: Call) -> None:
        now = self._now
        version = call.version
        now.calls[version, call.route, call.status, call.code] += 1
        now.bytes_in[version] += call.bytes_in
        now.bytes_out[version] += call.bytes_out
        if call.rows:
            now.rows[version] += call.rows
            now.seconds[version] += call.ms / 1000
            now.latency[version, bisect_left(BOUNDS_MS, call.ms)] += 1

    def retried(self, version: str) -> None:
        self._now.retries[version] += 1

    def take(self) -> Counted:
        taken, self._now = self._now, Counted()
        return taken


def cumulative(latency: dict[tuple[str, int], int]) -> dict[tuple[str, str], int]:
    """(version, bucket) counts -> (version, le) counts as Prometheus adds them up."""
    found: dict[tuple[str, str], int] = {}
    for version in {version for version, _ in latency}:
        total = 0
        for index, le in enumerate(LE):
            total += latency.get((version, index), 0)
            found[version, le] = total
    return found
