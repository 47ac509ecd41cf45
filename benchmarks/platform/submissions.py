"""Accepted submissions per second over 8 connections while the engine runs."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import time
from typing import Any
from urllib.parse import urlsplit

from benchmarks.platform.installation import Installation

CONNECTIONS = 8
TARGET_PER_S = 200


def measure(running: Installation, quick: bool) -> dict[str, Any]:  # Any: JSON
    seconds = 10 if quick else 60
    occupy(running)
    context = multiprocessing.get_context("spawn")
    with context.Pool(CONNECTIONS) as pool:
        started = time.monotonic()
        counts = pool.starmap(post_for, [(running.url, running.token, seconds)] * CONNECTIONS)
        took = time.monotonic() - started
    accepted = sum(count for count, _ in counts)
    slowest = max(latency for _, latency in counts)
    with running.client() as client:
        seen = client.get("/api/v1/queues").json()["items"]
    return {
        "accepted": accepted,
        "per_second": round(accepted / seconds, 1),
        "target_per_second": TARGET_PER_S,
        "slowest_ms": round(slowest * 1000),
        "waiting_in_engine": sum(queue["waiting"] for queue in seen),
        "wall_s": round(took, 1),
    }


def occupy(running: Installation) -> None:
    """A long job on all GPUs: what is submitted afterwards has to wait."""
    with running.client() as client:
        job = (
            client.post("/api/v1/jobs", json={"kind": "command", "command": ["sleep", "3600"], "gpus": 2})
            .raise_for_status()
            .json()
        )
        deadline = time.monotonic() + 60
        while client.get(f"/api/v1/jobs/{job['id']}").json()["state"] != "running":
            if time.monotonic() > deadline:
                raise TimeoutError(f"{job['id']} did not start within 60 s")
            time.sleep(0.2)


def post_for(url: str, token: str, seconds: float) -> tuple[int, float]:
    """How many 201s one connection got, and its slowest answer in seconds. Anything but a 201 raises."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    body = json.dumps({"kind": "command", "command": ["true"], "gpus": 1, "name": "bench"})
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    count, slowest, end = 0, 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.monotonic()
        connection.request("POST", "/api/v1/jobs", body, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 201:
            raise RuntimeError(f"{answer.status}: {text[:300]!r}")
        slowest = max(slowest, time.monotonic() - started)
        count += 1
    return count, slowest
