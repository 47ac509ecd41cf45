"""Latency of the first page of jobs with 100,000 of them in the store."""

from __future__ import annotations

import time
from statistics import quantiles
from typing import Any

from benchmarks.platform.installation import Installation
from benchmarks.platform.stuffing import add_finished

JOBS = 100_000
REQUESTS = 200
QUERIES = {
    "unfiltered": "",
    "by_state": "&state=succeeded",
    "by_rare_state": "&state=failed",
    "by_queue": "&queue=default",
    "by_state_and_queue": "&state=succeeded&queue=default",
}


def measure(running: Installation, quick: bool) -> dict[str, Any]:  # Any: JSON
    jobs = 20_000 if quick else JOBS
    add_finished(running, jobs)
    figures: dict[str, Any] = {"jobs": jobs, "p50_target_ms": 50}  # Any: JSON
    with running.client() as client:
        for name, query in QUERIES.items():
            latencies = []
            for _ in range(REQUESTS):
                started = time.monotonic()
                items = client.get(f"/api/v1/jobs?limit=50{query}").raise_for_status().json()["items"]
                latencies.append(time.monotonic() - started)
            cuts = quantiles(latencies, n=100)
            figures[f"{name}_p50_ms"] = round(1000 * cuts[49], 1)
            figures[f"{name}_p99_ms"] = round(1000 * cuts[98], 1)
            figures[f"{name}_items"] = len(items)
    return figures
